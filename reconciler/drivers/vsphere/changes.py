"""Changed areas of a disk: asked of the site page by page, and believed only when nothing gives a reason to doubt.

What it is: QueryChangedDiskAreas with the judgement of changeid.py and history.py around it. The order matters: the changes are read
first, then the history, so that a revert that falls between the two shows. What it is not: a decision what to do without an answer;
every doubt is TerminalError ChangeIdLost.
Source: vSphere Web Services API, QueryChangedDiskAreas; VDDK Programming Guide, "Changed Block Tracking on Virtual Disks".
"""

from __future__ import annotations

from collections.abc import Sequence
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

_DEVICES, _POWER = "config.hardware.device", "runtime.powerState"
_TRACKING = ("config.changeTrackingEnabled", "config.extraConfig")


def read_changes(content: Any, site: str, vm: VmRef, uuid: str, at: str | None, since: str) -> Sequence[Range]:
    """Errors: TerminalError ChangeIdLost, DiskGone, VMGone; RetryableError SnapshotGone, NotOff."""
    target, properties = subject.read(content, site, vm, (_DEVICES, _POWER, *_TRACKING))
    snapshot = reference(content, vim.vm.Snapshot, at) if at else None
    if snapshot is None and power_of(properties.get(_POWER)) is not Power.OFF:
        raise RetryableError("NotOff", f"{vm} is not off, so that its last changes are still to come; wait for its power-off")
    try:
        disk = _disk(read_one(content, snapshot, (_DEVICES,)) if snapshot else properties, vm, uuid)
        then, now = ChangeId.parse(since), ChangeId.of(disk, None, tracked=snapshot is None and _tracked(properties, disk))
        if then is None or now is None or (why := doubt(then, now)):
            raise _lost(vm, disk, doubt(then, now))
        areas = _pages(target, disk, then.raw, snapshot)
    except (vim.fault.FileFault, vmodl.fault.InvalidArgument, vmodl.fault.NotSupported) as err:
        why = f"the site does not know its change id any more ({type(err).__name__.rpartition('.')[2]}: {subject.words(err)})"
        raise _lost(vm, disk, why) from err
    except (vim.fault.NotFound, vmodl.fault.ManagedObjectNotFound) as err:
        raise RetryableError("SnapshotGone", f"{vm}: the snapshot {at or ''} that is read is not there any more") from err
    if areas is None:
        raise _lost(vm, disk, "the site's answer leaves out a part of it")
    if why := doubt_since(content, target, then.moment):
        raise _lost(vm, disk, why)
    return clip(areas, 0, disk.capacity_bytes)


def _tracked(properties: Properties, disk: DiskFacts) -> bool:
    """By the settings of VM and disk. A VM without snapshots should tell its disks' change ids as well, but need not everywhere."""
    extra = properties.get("config.extraConfig") or {}
    return change_tracking(properties, extra) and tracking(disk, extra)


def _lost(vm: VmRef, disk: DiskFacts, why: str | None) -> TerminalError:
    return TerminalError("ChangeIdLost", f"{vm}, {disk.label}: {why}; the disk is compared in full")


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
