"""What the event history says about a VM's change ids: a moment to count from, and whatever happened since that could make them lie.

What it is: reads of the EventManager, and the judgement of each event. What it is not: the epoch (epoch.py), which is about power.

A moment is taken *before* a snapshot is asked for, so nothing can fall between the snapshot and the moment. Since then counts, for an
event of this VM, what has a greater key or a later time: keys of a vCenter only grow, and a history that began anew (an ESXi host counts
from one again after a restart of its agent) shows itself by a greater time, or by a newest key that is smaller than ours. We ask from a
while before the moment, since an event's time comes from the host that it happened on.

Silence only counts if the history reaches back to the moment: it is forgotten from the old end (30 days, by default), so it must still
hold some event, of anything, from the hour before. Where an account may not see that, every change id is doubted.

Doubted is each event whose type, or whose task, has one of `_TELLING` in its name: reverts (`com.vmware.vc.vm.VmStateRevertedToSnapshot`,
tasks like `VirtualMachine.revertToCurrentSnapshot`), moves of files, new registrations, times without a host that could tell, restarts
after a host's death. A VmReconfiguredEvent is doubted unless its spec sets nothing but what has no part in disks. A vMotion that leaves
the files where they are is no reason. What is not listed is believed, because the ids themselves are compared as well (changeid.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from reconciler.drivers.vsphere.collector import read_one
from reconciler.drivers.vsphere.notes import Moment
from reconciler.drivers.vsphere.sdk import kind, vim, vmodl

LISTED = 1000  # QueryEvents gives no more; which of them is not documented, so a full answer is asked for again in parts
SKEW, SHORTEST = timedelta(hours=1), timedelta(seconds=1)
_TELLING = {
    "revert": "a snapshot was reverted",
    "relocat": "the VM's files were moved",
    "changetrack": "the tracking of changes was switched",
    "vmreload": "the VM's configuration was loaded anew",
    "vmregister": "the VM was registered anew",
    "vmdiscovered": "the VM was registered anew",
    "vmdisconnected": "the VM's host was out of sight",
    "vmorphaned": "the VM's host was out of sight",
    "vmconfigmissing": "the VM's configuration was missing",
    "restartedbyha": "the VM was restarted after its host failed",
    "restartedonalternatehost": "the VM was restarted after its host failed",
    "beingreset": "the VM was reset after a failure",
    "failover": "the VM was restarted after its host failed",
}
_MIGRATED = ("VmMigratedEvent", "DrsVmMigratedEvent")
_RECONFIGURED = "VmReconfiguredEvent"
# Of a VirtualMachineConfigSpec: what cannot touch a disk. Anything else that is set is doubted, and so is a spec that is not told.
_HARMLESS = frozenset(
    {
        "dynamicType",
        "dynamicProperty",
        "changeVersion",
        "name",
        "annotation",
        "guestId",
        "alternateGuestName",
        "tools",
        "numCPUs",
        "numCoresPerSocket",
        "memoryMB",
        "cpuHotAddEnabled",
        "cpuHotRemoveEnabled",
        "memoryHotAddEnabled",
        "cpuAllocation",
        "memoryAllocation",
        "cpuAffinity",
        "latencySensitivity",
        "consolePreferences",
        "powerOpInfo",
        "managedBy",
        "bootOptions",
        "maxMksConnections",
        "guestAutoLockEnabled",
        "memoryReservationLockedToMax",
        "scheduledHardwareUpgradeInfo",
        "tagSpecs",
    }
)
_BLIND: Any = (vim.fault.NoPermission, vmodl.fault.NotSupported, vmodl.fault.NotImplemented)
_HARMLESS_DEVICES: Any = (vim.vm.device.VirtualEthernetCard, vim.vm.device.VirtualCdrom, vim.vm.device.VirtualFloppy)


class _Flood(Exception):
    """A second with more events than one answer holds."""


def read_moment(content: Any) -> Moment | None:
    """The newest event of the whole site. None where there are none, or the account may see none."""
    try:
        latest = read_one(content, content.eventManager, ("latestEvent",)).get("latestEvent")
    except _BLIND:
        return None
    return Moment(int(latest.key), latest.createdTime) if latest is not None else None


def doubt_since(content: Any, vm: Any, moment: Moment | None) -> str | None:
    """Why the history gives no ground to believe `vm`'s change ids of `moment`. Ask after the changes were read, never before."""
    if moment is None:
        return "the account could not see the site's event history when its snapshot was made"
    latest = read_moment(content)
    if latest is None or latest.key < moment.key:
        return "the site's event history began anew"
    try:
        if not _query(content, moment.at - SKEW, moment.at, None):
            return "the site's event history does not reach back to its snapshot any more"
        return next(filter(None, map(judge, _since(content, vm, moment, latest.at))), None)
    except _BLIND:
        return "the account may not see the VM's events"
    except _Flood:
        return "more happened to the VM within a second than its site tells"


def judge(event: Any) -> str | None:
    """Why this event makes change ids doubtful, with its number; None when it does not."""
    name = kind(event)
    if name == _RECONFIGURED:
        reason = _reconfigured(event.configSpec)
    elif name in _MIGRATED:
        reason = _migrated(event)
    else:
        said = " ".join(
            (name, getattr(event, "eventTypeId", None) or "", getattr(getattr(event, "info", None), "descriptionId", None) or "")
        )
        reason = next((why for word, why in _TELLING.items() if word in said.lower()), None)
    return f"{reason} (event {event.key})" if reason else None


def _reconfigured(spec: Any) -> str | None:
    if spec is None:
        return "the VM was reconfigured in a way that is not told"
    if spec.changeTrackingEnabled is not None:
        return "the tracking of changes was switched"
    told = {p.name: value for p in spec._GetPropertyList() if (value := getattr(spec, p.name)) is not None and value != []}
    for name, value in told.items():
        if name not in _HARMLESS and not (name == "deviceChange" and all(isinstance(c.device, _HARMLESS_DEVICES) for c in value)):
            return f"the VM was reconfigured ({name})"
    return None if told else "the VM was reconfigured in a way that is not told"


def _migrated(event: Any) -> str | None:
    """vMotion; with the files as well, it names another datastore than before."""
    before, after = event.sourceDatastore, event.ds
    if before is None or after is None or before.datastore == after.datastore:
        return None
    return "the VM's files were moved"


def _since(content: Any, vm: Any, moment: Moment, latest: datetime) -> Iterator[Any]:
    """Events of `vm` after `moment`, each at least once, by ever smaller stretches of time. Errors: _Flood."""
    stretches: list[tuple[datetime, datetime | None]] = [(moment.at - SKEW, None)]
    while stretches:
        begin, end = stretches.pop()
        events = _query(content, begin, end, vm)
        if len(events) < LISTED:
            yield from (event for event in events if event.key > moment.key or event.createdTime > moment.at)
        elif end is None:
            until = max(latest, begin) + SKEW
            stretches += [(until, None), (begin, until)]
        elif end - begin > SHORTEST:
            middle = begin + (end - begin) / 2
            stretches += [(begin, middle), (middle, end)]
        else:
            raise _Flood


def _query(content: Any, begin: datetime, end: datetime | None, vm: Any) -> list[Any]:
    """`vm` None: events of anything, one at most."""
    spec = vim.event.EventFilterSpec
    entity = spec.ByEntity(entity=vm, recursion=spec.RecursionOption.self) if vm is not None else None
    time = spec.ByTime(beginTime=begin, endTime=end)
    wanted = spec(entity=entity, time=time, maxCount=1 if vm is None else None, disableFullMessage=True)
    return list(content.eventManager.QueryEvents(wanted) or [])
