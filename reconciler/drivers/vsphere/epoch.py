"""The source epoch of one VM: a text that is another one after every power-on, however short and whoever did it (safety 1 and 9).

What it is: proof, from the vCenter's event history, that the bytes of a powered-off VM are still those that were copied. Two equal
epochs prove it, two different ones prove nothing, and cost a compare round. What it is not: the power state.

`on:<key>` is the newest event that lets a guest write again: start, power-on, resume, reset, reboot, restart by HA. Keys grow and are
never used twice. Power-off is not among them, so the epoch read before our power-off still holds after it.

The history is limited (30 days by default), so an old `on:` fades to `never:`: unequal, hence unprovable, never wrongly equal. The
other danger is `never` on both sides of a power-on that came and faded in between; `config.changeVersion`, which is written anew at
each power-on and at each change of settings, makes those two differ. Between a power-off and the end of its copy nothing changes it.
"""

from __future__ import annotations

import logging
from typing import Any

from reconciler.drivers.vsphere.sdk import vim

log = logging.getLogger(__name__)

CHANGE_VERSION = "config.changeVersion"
LISTED = 1000  # QueryEvents gives no more; which of a longer history it gives is not documented
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
)


def read_epoch(content: Any, vm: Any, change_version: str) -> str | None:
    """Ask after the power state was read, so that a power-on in between shows here. None: no proof can be had.

    Source: EventManager.QueryEvents; eventTypeId takes class names and the ids of EventEx alike.
    """
    recursion = vim.event.EventFilterSpec.RecursionOption
    wanted = vim.event.EventFilterSpec(
        entity=vim.event.EventFilterSpec.ByEntity(entity=vm, recursion=recursion.self),
        eventTypeId=list(WRITING_EVENTS),
        disableFullMessage=True,
    )
    events = content.eventManager.QueryEvents(wanted)
    if len(events) >= LISTED:
        log.warning("power history too long to tell the newest", extra={"vm": str(vm)})
        return None
    return f"on:{max(event.key for event in events)}" if events else f"never:{change_version}"
