"""Where a copy pod reads a disk: the disk itself once the VM is off, or what a snapshot of ours froze while it runs.

What it is: pure; inventory -> URL or lease, with the conditions checked that make the bytes right (safety 3). What it is not: the choice of
the path (core/datapath.py), or the reader (in the copy pod; it opens the lease itself). A lease covers the whole VM, or the whole snapshot,
and is asked of the provider's own endpoint, like VDDK; so where one disk needs either, a Host manifest counts for none of that copy.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core import datapath
from reconciler.core.copyspec import ExportSpec, Reader, VddkSpec
from reconciler.core.inventory import SourceDisk, SourceVm
from reconciler.drivers.vsphere.disks import flat_url
from reconciler.drivers.vsphere.doors import Door
from reconciler.errors import RetryableError, TerminalError
from reconciler.ports import DiskChoice


def readers(door: Door, vm: SourceVm, disks: Sequence[DiskChoice], at: str | None) -> dict[str, tuple[Reader, str]]:
    """By uuid. Errors: TerminalError DiskGone, NotSupported, ChainNotReadable; RetryableError SnapshotGone."""
    return {choice.disk_uuid: _reader(door, vm, choice, at) for choice in disks}


def export(vm: SourceVm, disks: Sequence[DiskChoice], at: str | None, url: str, esxi: bool, site_uuid: str) -> ExportSpec | None:
    """The lease for those of `disks` that are read by one; None where none is. `url`: of the provider."""
    devices = tuple((c.disk_uuid, int(_disk(vm, c.disk_uuid, at).key)) for c in disks if c.path == datapath.EXPORT)
    return ExportSpec(url, esxi, site_uuid, vm.id, vm.uuid, vm.name, at, devices) if devices else None


def vddk(vm: SourceVm, disks: Sequence[DiskChoice], at: str | None, url: str, config: str) -> VddkSpec | None:
    """What VDDK needs for those of `disks` that it reads; None where it reads none. It finds its way down a chain by itself."""
    files = tuple((c.disk_uuid, _disk(vm, c.disk_uuid, at).backing.file) for c in disks if c.path == datapath.VDDK)
    return VddkSpec(url, vm.id, at, files, config=config) if files else None


def _reader(door: Door, vm: SourceVm, choice: DiskChoice, at: str | None) -> tuple[Reader, str]:
    disk = _disk(vm, choice.disk_uuid, at)
    match choice.path:
        case datapath.DATASTORE:
            return Reader.HTTP_RANGE, _url(door, vm, disk, at)
        case datapath.EXPORT:
            return Reader.VMDK_STREAM, ""
        case datapath.VDDK:
            return Reader.NBD, ""
        case _:
            raise TerminalError("NotSupported", f"disk {disk.label} of {vm.name}: there is no path {choice.path!r} here; plan the VM anew")


def _url(door: Door, vm: SourceVm, disk: SourceDisk, at: str | None) -> str:
    if at is not None and (disk.backing.parents or disk.backing.kind != "FlatVer2"):
        raise TerminalError(
            "ChainNotReadable",
            f"disk {disk.label} of {vm.name}: our snapshot froze {disk.backing.file} ({disk.backing.kind}), which is not the whole disk in "
            "one flat file; remove the other snapshots of the VM",
        )
    return flat_url(door.authority, disk.backing.file, door.datacenter_path or disk.backing.datacenter_path)


def _disk(vm: SourceVm, uuid: str, at: str | None) -> SourceDisk:
    disks = vm.disks if at is None else _frozen(vm, at)
    found = next((disk for disk in disks if disk.uuid == uuid), None)
    if found is None:
        raise TerminalError("DiskGone", f"{vm.name} no longer has the disk {uuid}; plan the VM anew")
    return found


def _frozen(vm: SourceVm, at: str) -> tuple[SourceDisk, ...]:
    found = next((snapshot for snapshot in vm.snapshots if snapshot.id == at and snapshot.key is not None), None)
    if found is None:
        raise RetryableError("SnapshotGone", f"{vm.name}: our snapshot {at} is not there any more")
    return found.disks
