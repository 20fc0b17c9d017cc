"""Datastore access over HTTP: /folder/<path>?dcPath=<datacenter>&dsName=<datastore>, with ranges and the locks of ESXi.

What it is not: a lease or a disk reader. Where it stands: server.py parses the request and writes what is answered here.
The lock: the hypervisor holds the extent of a powered-on machine's disk; nobody else can open it, and vCenter answers 500.
Disks on vSAN and vVols are objects, of which only the descriptor is a file.
Source: vSphere Web Services SDK Programming Guide, "HTTP access to vSphere server files"; RFC 9110 section 14 for ranges.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from reconciler.lab import chains
from reconciler.lab.machines import Datastore, Disk, Power, Vm
from reconciler.lab.vcenter.machine_view import escape_name
from reconciler.lab.world import World

# A redo file is no raw image: the lab shows a head with the magic number of the format and noise, and nothing of the guest's bytes.
_SESPARSE = (0xCAFEBABE).to_bytes(8, "little") + bytes(504) + random.Random(1).randbytes(65024)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


@dataclass(frozen=True, slots=True)
class Answer:
    """`path` is sent from `start` for `length` bytes; without it, `body`."""

    status: int
    body: bytes = b""
    path: Path | None = None
    start: int = 0
    length: int = 0
    size: int = 0
    kind: str = "text/html"


def answer(world: World, target: str, range_header: str | None) -> Answer:
    """Called under the world's lock. Errors come as status codes: 400, 404, 416, 500 (locked)."""
    parts = urlsplit(target)
    query = parse_qs(parts.query)
    path = unquote(parts.path.removeprefix("/folder/"))
    datacenter, name = query.get("dcPath", [""])[0], query.get("dsName", [""])[0]
    store = next((s for s in world.datastores.values() if escape_name(s.name) == name), None)
    if store is None or escape_name(store.datacenter.name) != datacenter.strip("/") or not store.accessible:
        return _page(404, "Not Found")
    file = _file(world, store, path)
    if file is None:
        return _page(404, "Not Found")
    if isinstance(file, bytes):
        return Answer(200, file, kind="application/octet-stream")
    vm, disk, extent = file
    running = vm.power is not Power.OFF
    if running and (extent == disk.path or not store.reads_running_base):
        return _page(500, f"Failed to open file '{path}': Failed to lock the file")
    if extent.name.endswith("-sesparse.vmdk"):
        found = _ranged(len(_SESPARSE), range_header)
        return replace(found, body=_SESPARSE[found.start : found.start + found.length])
    found = _ranged(extent.stat().st_size, range_header)
    return found if found.status == 416 else replace(found, path=extent)


def _file(world: World, store: Datastore, path: str) -> bytes | tuple[Vm, Disk, Path] | None:
    """A descriptor's text, or the machine, disk and file whose extent it is."""
    vm, disk = world.files.get((store.name, path), (None, None))
    if vm is None or disk is None or vm.key not in world.vms or disk not in vm.disks:
        return None
    folder, _, name = path.rpartition("/")
    if (disk.datastore.key, disk.folder) != (store.key, folder):
        return None  # moved away
    for file, extent in chains.running_first(disk):
        if name == file:
            return descriptor(disk, extent.name if store.flat_files else f"{store.kind.lower()}://{disk.uuid}").encode()
        if name == extent.name and store.flat_files:
            return vm, disk, extent
    return None  # merged away


def descriptor(disk: Disk, extent: str) -> str:
    """The small text file beside the extent. Source: VMware Virtual Disk Format 5.0."""
    adapter = {"pvscsi": "lsilogic", "lsilogic": "lsilogic", "ide": "ide"}.get(disk.bus, "lsilogic")
    sectors = disk.capacity_bytes // 512
    kind = "SESPARSE" if extent.endswith("-sesparse.vmdk") else "VMFS"
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        'encoding="UTF-8"',
        "CID=fffffffe",
        "parentCID=ffffffff",
        f'createType="{"seSparse" if kind == "SESPARSE" else "vmfs"}"',
        "",
        "# Extent description",
        f'RW {sectors} {kind} "{extent}"',
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        f'ddb.adapterType = "{adapter}"',
        f'ddb.geometry.cylinders = "{sectors // (255 * 63)}"',
        'ddb.geometry.heads = "255"',
        'ddb.geometry.sectors = "63"',
        f'ddb.uuid = "{disk.uuid}"',
        'ddb.virtualHWVersion = "20"',
    ]
    if disk.thin:
        lines.append('ddb.thinProvisioned = "1"')
    return "\n".join(lines) + "\n"


def _ranged(size: int, header: str | None) -> Answer:
    """One range, or all of `size`; a header that is no byte range is ignored, as RFC 9110 wants."""
    whole = Answer(200, length=size, size=size, kind="application/octet-stream")
    found = _RANGE.match(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return whole
    first, last = found.groups()
    if first == "":
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
    if start >= size or end < start:
        return Answer(416, size=size)
    return Answer(206, start=start, length=end - start + 1, size=size, kind="application/octet-stream")


def _page(status: int, text: str) -> Answer:
    return Answer(status, f"<html><body><h1>{status}</h1><p>{text}</p></body></html>".encode())
