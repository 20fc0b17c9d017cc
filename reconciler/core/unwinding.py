"""UNWIND: what a failed or cancelled VM owes, given back step by step. Nothing here has a deadline.

What it is: one pure function View -> Move (or bool) per row of UNWIND. What it is not: reachable behind hand-over.
"""

from __future__ import annotations

from reconciler.core.actions import (
    DropBinder,
    DropCopy,
    DropTargetVm,
    DropVolumes,
    PowerSource,
)
from reconciler.core.copying import STOPPING, last_words
from reconciler.core.model import Power, PowerRequest, Result
from reconciler.core.moves import (
    Declare,
    Do,
    Hold,
    Move,
    Reach,
    Wait,
    dirty,
    dirty_marks,
    out_of_sight,
    ref,
    target_still,
    untrue,
)
from reconciler.core.record import IntentKind
from reconciler.core.target import Owner
from reconciler.core.view import View

GUEST_SETTLE_S = 600.0  # safety 24: a guest that was asked to shut down may still do so


def stop_writers(v: View) -> Move:
    site = v.frozen.destination
    if v.round is not None and (last := last_words(v)) is not None:
        return last
    for job in v.jobs:
        if not job.deleting:
            return Do(DropCopy(v.key, site, job.namespace, job.name, v.owner), "the importer Job is stopped", (STOPPING,))
    binder = v.binder
    if binder is not None and not binder.deleting:
        return Do(DropBinder(v.key, site, binder.namespace, binder.name, v.owner), "the binder pod is stopped")
    if not target_still(v):
        if untrue(v):
            return dirty_marks(v)
        return Hold("TargetRunning", "PoweredOn", f"target {v.frozen.namespace}/{v.frozen.name} runs; stop it, then its run is undone")
    if v.unfenced:
        return Wait(f"WriterNotFenced: {'; '.join(v.unfenced)}")
    return Wait("pods are ending")


def must_give_back(v: View) -> bool:
    """The source was on when it was claimed, its last power-off was ours, and the target was not handed over."""
    claim_ = v.claim
    return claim_ is not None and claim_.was_on and claim_.powered_off_by_us


def marks_may_stay(v: View) -> bool:
    """Safety 1: before we power a source on, its marks (and watermarks) are made dirty, unless a mark carries a change id. On a disk that
    somebody else has, none may outlive this run."""
    return not untrue(v) and not (must_give_back(v) and dirty(v))


def source_given_back(v: View) -> bool:
    return not must_give_back(v) or v.source_power is Power.ON


def power_on(v: View) -> Move:
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    f = v.frozen
    if f"PowerSource:{PowerRequest.ON.value}" in v.acted:
        return Wait("the source is powering on")
    if (vm := v.our_target_vm) is not None and vm.power is not Power.OFF:
        return Hold(
            "TargetRunning", "PoweredOn", f"target {f.namespace}/{f.name} runs; the source is not powered on beside it. Stop the target"
        )
    act = PowerSource(v.key, ref(v).provider, ref(v), PowerRequest.ON, IntentKind.POWER_ON_SOURCE, (f.destination, f.namespace, f.name))
    return Declare(IntentKind.POWER_ON_SOURCE, act, "the source is powered on again, as it was")


def asked_to_shut_down(v: View) -> bool:
    return any(i.kind is IntentKind.POWER_OFF_SOURCE and i.open for i in v.record.intents)


def guest_settled(v: View) -> bool:
    """Safety 24: a guest that was asked to shut down and was not seen off since may still go off, for ten minutes."""
    if not asked_to_shut_down(v):
        return True
    return v.timers.get("guest-on", 0.0) >= GUEST_SETTLE_S


def watch_guest(v: View) -> Move:
    if v.source_power is Power.OFF:
        return power_on(v)
    return Wait(f"the guest may still obey the shutdown; watched for {GUEST_SETTLE_S:.0f} s", ("guest-on",))


def worth_keeping(v: View) -> bool:
    """A failed (not cancelled) VM whose source stays off: marks and watermarks can prove their bytes to the next run. One with a change id
    can though the source runs."""
    proven = any(x.mark is not None or x.watermark is not None for _, x in v.volumes)
    tracked = any(x.mark is not None and x.mark.change_id is not None for _, x in v.volumes)
    return v.record.cancel_at is None and (tracked or (proven and not must_give_back(v)))


def doomed(v: View) -> tuple[str, ...]:
    if not v.frozen.delete_on_fail or worth_keeping(v):
        return ()
    run = str(v.record.run)
    return tuple(x.name for _, x in v.volumes if x.migration == run and not x.owners and not x.users(v.inventory.machines_with((x.name,))))


def doomed_vm(v: View) -> bool:
    """Not while disks are kept: it vouches for their marks, because a guest that ran on them would show in it."""
    vm = v.our_target_vm
    return vm is not None and vm.migration == str(v.record.run) and v.frozen.delete_on_fail and not worth_keeping(v)


def target_clean(v: View) -> bool:
    return not doomed_vm(v) and not doomed(v)


def delete_target(v: View) -> Move:
    f, vm = v.frozen, v.our_target_vm
    owner: Owner = v.owner
    if vm is not None and doomed_vm(v):
        if vm.power is not Power.OFF:
            return Hold(
                "TargetRunning", "PoweredOn", f"target {f.namespace}/{f.name} of a failed run runs; it is not deleted. Stop it or delete it"
            )
        if vm.deleting:
            return Wait("the reserved VirtualMachine is going")
        act = DropTargetVm(v.key, f.destination, f.namespace, f.name, owner)
        return Declare(IntentKind.DELETE_TARGET, act, "the reserved, never started VirtualMachine is deleted")
    names_ = tuple(x.name for _, x in v.volumes if x.name in doomed(v) and not x.deleting)
    if not names_:
        return Wait("PVCs are going")
    act_ = DropVolumes(v.key, f.destination, f.namespace, names_, owner)
    return Declare(IntentKind.DELETE_TARGET, act_, f"{len(names_)} incomplete target disk(s) are deleted")


def end_unwind(v: View) -> Move:
    result = Result.CANCELED if v.record.cancel_at is not None else Result.FAILED
    return Reach(v.record.milestone, "everything owed was given back", result=result)
