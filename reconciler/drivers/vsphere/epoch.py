"""The source epoch of one VM: a text that is another one after every power-on, however short and whoever did it (safety 1 and 9), and
after every revert to a snapshot, which changes the bytes of a VM that is off.

What it is: proof, from the vCenter's event history, that the bytes of a powered-off VM are still those that were copied. Two equal
epochs prove it, two different ones prove nothing, and cost a compare round. What it is not: the power state.

`on:<key>` is the newest event that lets a guest write again (start, power-on, resume, reset, reboot, restart by HA), or a revert. Keys
grow and are never used twice. Power-off is not among them, so the epoch read before our power-off still holds after it.

The history is limited (30 days by default), so an old `on:` fades to `never:`: unequal, hence unprovable, never wrongly equal. The
other danger is `never` on both sides of a power-on that came and faded in between; `config.changeVersion`, which is written anew at
each power-on and at each change of settings, makes those two differ. Between a power-off and the end of its copy nothing changes it.

An ESXi host keeps its events in memory only, and counts them anew after a restart of its agent. There the epoch is `host:` with
changeVersion, and with the newest event and its time beside it: any difference makes two epochs differ.
"""

from __future__ import annotations

from typing import Any

from reconciler.drivers.vsphere.sdk import moid, vim, vmodl
from reconciler.errors import RetryableError

CHANGE_VERSION = "config.changeVersion"
LISTED = 1000  # QueryEvents gives no more; whether the oldest or the newest of them is not documented, so we ask on from there
WRITING_EVENTS = (
    "VmStartingEvent",
    "VmPoweredOnEvent",
    "DrsVmPoweredOnEvent",
    "VmResumingEvent",
    "VmResettingEvent",
    "VmGuestRebootEvent",
    "VmDasBeingResetEvent",
    "VmDasBeingResetWithScreenshotEvent",
    "VmRestartedOnAlternateHostEvent",
    "VmPrimaryFailoverEvent",
    "VmSecondaryStartedEvent",
    "VmPoweringOnWithCustomizedDVPortEvent",
    "VmStartRecordingEvent",
    "VmStartReplayingEvent",
    "com.vmware.vc.ha.VmRestartedByHAEvent",
    "com.vmware.vc.vm.VmStateRevertedToSnapshot",  # an EventEx that vCenter posts beside the TaskEvent of the revert
)


def read_epoch(content: Any, vm: Any, change_version: str) -> str:
    """Ask after the power state was read, so that a power-on in between shows here.

    Source: EventManager.QueryEvents; eventTypeId takes class names and the ids of EventEx alike.
    """
    newest, since = None, None
    while events := content.eventManager.QueryEvents(_writing_events(vm, since)):
        last = max(events, key=lambda event: event.key)
        if newest is not None and last.key <= newest.key:
            break
        newest, since = last, last.createdTime
        if len(events) < LISTED:
            break
    return f"on:{newest.key}" if newest is not None else f"never:{change_version}"


def read_host_epoch(content: Any, vm: Any, change_version: str) -> str:
    """As `read_epoch`, of a VM on an ESXi host that is its own provider. Errors: RetryableError EpochUnknown, when it keeps no history."""
    if not change_version:
        raise RetryableError("EpochUnknown", f"the host does not tell {CHANGE_VERSION} of VM {moid(vm)}; check the account's rights")
    try:
        events = content.eventManager.QueryEvents(_writing_events(vm, None)) or []
    except (vmodl.fault.NotSupported, vmodl.fault.NotImplemented) as err:
        raise RetryableError(
            "EpochUnknown", f"the host keeps no events of VM {moid(vm)}, so nothing proves who ran it; use its vCenter"
        ) from err
    newest = max(events, key=lambda event: (event.createdTime, event.key), default=None)
    return f"host:{change_version}" + (f":{newest.key}@{newest.createdTime.isoformat()}" if newest is not None else "")


def _writing_events(vm: Any, since: Any) -> Any:
    spec = vim.event.EventFilterSpec
    return spec(
        entity=spec.ByEntity(entity=vm, recursion=spec.RecursionOption.self),
        time=spec.ByTime(beginTime=since) if since is not None else None,
        eventTypeId=list(WRITING_EVENTS),
        disableFullMessage=True,
    )
