"""URLs of disk files on datastores, as the /folder service of vCenter and ESXi serves them.

What it is: pure text; no SDK, no socket. What it is not: the reader of those URLs (wire/http.py, in the copy pod).
Source: vSphere Web Services SDK Programming Guide, "HTTP Access to vSphere Server Files".
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from reconciler.errors import TerminalError

_DATASTORE_PATH = re.compile(r"\[(?P<datastore>[^\]]+)\] ?+(?P<file>.+)", re.DOTALL)


def split_datastore_path(path: str) -> tuple[str, str]:
    """`[ds1] web-01/web-01.vmdk` -> ("ds1", "web-01/web-01.vmdk"). Errors: TerminalError BadDiskPath."""
    match = _DATASTORE_PATH.fullmatch(path)
    if match is None or any(part in ("", ".", "..") for part in match["file"].split("/")):
        raise TerminalError("BadDiskPath", f"{path!r} is not a file on a datastore; move the disk to a datastore")
    return match["datastore"], match["file"]


def flat_file(descriptor: str) -> str:
    """The extent that holds the bytes of a FlatVer2 disk: `dir/x.vmdk` is a few lines of text, `dir/x-flat.vmdk` is the disk."""
    stem, dot, suffix = descriptor.rpartition(".")
    if not dot or suffix.lower() != "vmdk" or not stem or stem.endswith("/"):
        raise TerminalError("BadDiskPath", f"{descriptor!r} is not a virtual disk descriptor (*.vmdk)")
    return f"{stem}-flat.{suffix}"


def flat_url(authority: str, path: str, datacenter_path: str) -> str:
    """The URL of a disk's flat file. `authority` is host[:port]; `datacenter_path` as in dcPath, `Folder/DC`.

    Every segment is percent-encoded, "%" too: inventory names arrive with "/" already written as "%2f", and must arrive so again.
    """
    datastore, descriptor = split_datastore_path(path)
    query = urlencode({"dcPath": datacenter_path, "dsName": datastore}, quote_via=quote, safe="")
    return f"https://{authority}/folder/{quote(flat_file(descriptor), safe='/')}?{query}"
