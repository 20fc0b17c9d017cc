"""URLs of flat files: what is encoded, and what is no disk path at all."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.drivers.vsphere.disks import flat_file, flat_url, split_datastore_path
from reconciler.errors import TerminalError


@pytest.mark.parametrize(
    ("path", "datacenter", "url"),
    [
        (
            "[ds1] web/web.vmdk",
            "DC0",
            "https://vc.example/folder/web/web-flat.vmdk?dcPath=DC0&dsName=ds1",
        ),
        (
            "[san (1)] my vm/my vm_1.vmdk",
            "Sites/DC 1",
            "https://vc.example/folder/my%20vm/my%20vm_1-flat.vmdk?dcPath=Sites%2FDC%201&dsName=san%20%281%29",
        ),
        (
            "[a&b] x?#/50%.vmdk",
            "DC%2fWest",
            "https://vc.example/folder/x%3F%23/50%25-flat.vmdk?dcPath=DC%252fWest&dsName=a%26b",
        ),
        ("[ds]   a .vmdk", "DC", "https://vc.example/folder/%20%20a%20-flat.vmdk?dcPath=DC&dsName=ds"),
        ("[ds]ü.vmdk", "DC", "https://vc.example/folder/%C3%BC-flat.vmdk?dcPath=DC&dsName=ds"),
    ],
)
def test_every_part_is_percent_encoded(path: str, datacenter: str, url: str) -> None:
    assert flat_url("vc.example", path, datacenter) == url


NAMES = st.text(st.characters(exclude_characters="/[]", exclude_categories=("Cs", "Cc")), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=3), NAMES)
def test_the_server_gets_back_what_the_inventory_said(datastore: str, parts: list[str], datacenter: str) -> None:
    url = urlsplit(flat_url("vc.example:8443", f"[{datastore}] {'/'.join(parts)}.vmdk", datacenter))
    assert url.netloc == "vc.example:8443"
    assert unquote(url.path) == f"/folder/{'/'.join(parts)}-flat.vmdk"
    assert parse_qs(url.query) == {"dcPath": [datacenter], "dsName": [datastore]}


@pytest.mark.parametrize(
    "path", ["", "web/web.vmdk", "[] web.vmdk", "[ds1]", "[ds1] ", "[ds1] /x.vmdk", "[ds1] a/../../x.vmdk", "[ds1] a//x.vmdk"]
)
def test_what_is_no_file_on_a_datastore_is_refused(path: str) -> None:
    with pytest.raises(TerminalError, match="BadDiskPath"):
        split_datastore_path(path)


@pytest.mark.parametrize("name", ["web", "web.iso", "dir/.vmdk", ".vmdk"])
def test_what_is_no_descriptor_is_refused(name: str) -> None:
    with pytest.raises(TerminalError, match="BadDiskPath"):
        flat_file(name)
