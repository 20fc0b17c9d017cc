"""Changed areas of a disk: asked of the site page by page, and believed only when nothing gives a reason to doubt.

What it is: QueryChangedDiskAreas with the judgement of changeid.py and history.py around it. The order matters: the changes are read
first, of all disks, then the history, so that a revert that falls between the two shows. A doubt is an answer for one disk, not an error.
What it is not: a decision what to do about it.
Source: vSphere Web Services API, QueryChangedDiskAreas; VDDK Programming Guide, "Changed Block Tracking on Virtual Disks".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.model import Power, VmRef
from reconciler.core.ranges import Range, clip, merge
from reconciler.drivers.vsphere import subject
from reconciler.drivers.vsphere.changeid import ChangeId, doubt
from reconciler.drivers.vsphere.collector import read_one
from reconciler.drivers.vsphere.devices import tracking
from reconciler.drivers.vsphere.digest import Properties
from reconciler.drivers.vsphere.hardware import Devices, DiskFacts
from reconciler.drivers.vsphere.history import doubt_since
from reconciler.drivers.vsphere.machine import power_of
from reconciler.drivers.vsphere.sdk import reference, vim, vmodl
from reconciler.drivers.vsphere.workload import change_tracking
from reconciler.errors import RetryableError, TerminalError
from reconciler.ports import Changes

_DEVICES, _POWER = "config.hardware.device", "runtime.powerState"
_TRACKING = ("config.changeTrackingEnabled", "config.extraConfig")


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is read once, however many disks are asked about. `frozen`: the devices of the snapshot; without one, the VM's own."""

    content: Any
    vm: VmRef
    target: Any
    snapshot: Any
    properties: Properties
    frozen: Properties


def read_changes(content: Any, site: str, vm: VmRef, at: str | None, since: Mapping[str, str]) -> Changes:
    """`since`: disk uuid -> change id. Errors: TerminalError DiskGone, VMGone; RetryableError SnapshotGone, NotOff."""
    target, properties = subject.read(content, site, vm, (_DEVICES, _POWER, *_TRACKING))
    snapshot = reference(content, vim.vm.Snapshot, at) if at else None
    if snapshot is None and power_of(properties.get(_POWER)) is not Power.OFF:
        raise RetryableError("NotOff", f"{vm} is not off, so that its last changes are still to come; wait for its power-off")
    areas: dict[str, Sequence[Range]] = {}
    doubts: dict[str, str] = {}
    try:
        asked = _Subject(content, vm, target, snapshot, properties, read_one(content, snapshot, (_DEVICES,)) if snapshot else properties)
        for uuid, change_id in since.items():
            try:
                areas[uuid] = _read(asked, _disk(asked.frozen, vm, uuid), ChangeId.parse(change_id))
            except _Doubtful as doubtful:
                doubts[uuid] = str(doubtful)
    except (vim.fault.NotFound, vmodl.fault.ManagedObjectNotFound) as err:
        raise RetryableError("SnapshotGone", f"{vm}: the snapshot {at or ''} that is read is not there any more") from err
    return _judged(asked, since, areas, doubts)


def _read(asked: _Subject, disk: DiskFacts, then: ChangeId | None) -> Sequence[Range]:
    """Errors: _Doubtful."""
    now = ChangeId.of(disk, None, tracked=asked.snapshot is None and _tracked(asked.properties, disk))
    if then is None or now is None or doubt(then, now):
        raise _Doubtful(asked.vm, disk, doubt(then, now))
    try:
        areas = _pages(asked.target, disk, then.raw, asked.snapshot)
    except (vim.fault.FileFault, vmodl.fault.InvalidArgument, vmodl.fault.NotSupported) as err:
        fault = type(err).__name__.rpartition(".")[2]
        raise _Doubtful(asked.vm, disk, f"the site does not know its change id any more ({fault}: {subject.words(err)})") from err
    if areas is None:
        raise _Doubtful(asked.vm, disk, "the site's answer leaves out a part of it")
    return clip(areas, 0, disk.capacity_bytes)


def _judged(asked: _Subject, since: Mapping[str, str], areas: Mapping[str, Sequence[Range]], doubts: Mapping[str, str]) -> Changes:
    """The history, asked once for each moment that the believed ids count from: of one snapshot that is one."""
    moments = {uuid: then.moment for uuid in areas if (then := ChangeId.parse(since[uuid])) is not None}
    said = {moment: doubt_since(asked.content, asked.target, moment) for moment in set(moments.values())}
    lost = {uuid: str(_Doubtful(asked.vm, _disk(asked.frozen, asked.vm, uuid), why)) for uuid, m in moments.items() if (why := said[m])}
    return Changes({uuid: some for uuid, some in areas.items() if uuid not in lost}, {**doubts, **lost})


def _tracked(properties: Properties, disk: DiskFacts) -> bool:
    """By the settings of VM and disk. A VM without snapshots should tell its disks' change ids as well, but need not everywhere."""
    extra = properties.get("config.extraConfig") or {}
    return change_tracking(properties, extra) and tracking(disk, extra)


class _Doubtful(Exception):
    """Why the change id of one disk does not count, in words. Leaves this module as an answer, never as an error."""

    def __init__(self, vm: VmRef, disk: DiskFacts, why: str | None) -> None:
        super().__init__(f"{vm}, {disk.label}: {why}; the disk is compared in full")


def _disk(properties: Properties, vm: VmRef, uuid: str) -> DiskFacts:
    devices: Devices = properties.get(_DEVICES) or Devices()
    found = next((disk for disk in devices.disks if disk.uuid == uuid), None)
    if found is None:
        raise TerminalError("DiskGone", f"{vm} no longer has the disk {uuid}; plan the VM anew")
    return found


def _pages(target: Any, disk: DiskFacts, since: str, snapshot: Any) -> list[Range] | None:
    """All pages, or None when they do not join up to the whole disk. A page without changes is not the end; only the capacity is."""
    areas: list[Range] = []
    at = 0
    while at < disk.capacity_bytes:
        page = target.QueryChangedDiskAreas(snapshot=snapshot, deviceKey=disk.key, startOffset=at, changeId=since)
        if page.startOffset > at or page.startOffset + page.length <= at:
            return None
        areas.extend((area.start, area.length) for area in page.changedArea or ())
        at = page.startOffset + page.length
    return merge(areas)
