"""The steps by which the target takes over: prove once more, commit the intent, start it, let go of what is temporary.

What it is: one pure function View -> Move per row behind the copy. Behind hand-over the source is never powered on again.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.actions import (
    DropCopy,
    ProveOff,
    ReleaseVolumes,
    StartTarget,
)
from reconciler.core.model import Known, Milestone, Power, Result
from reconciler.core.moves import (
    Declare,
    Do,
    Fail,
    Hold,
    Move,
    Reach,
    Refresh,
    Wait,
    changed_disks,
    dying,
    out_of_sight,
    ref,
    source_changed,
)
from reconciler.core.record import IntentKind
from reconciler.core.view import View


def hand_over(v: View) -> Move:
    """All marks are final. Prove once more that nobody ran the source since, then commit the intent to start the target."""
    if (lost := dying(v)) is not None:
        return Fail("VolumeLost", f"{lost}; start another Migration")
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    if v.source_power in (Power.ON, Power.SUSPENDED):
        return source_changed(v)
    if isinstance(v.source, Known) and (held := changed_disks(v, v.source.value)) is not None:
        return held
    if v.our_target_vm is None:
        return Hold(
            "TargetLost", "NotFound", f"VirtualMachine {v.frozen.namespace}/{v.frozen.name} that this run reserved is gone or not ours"
        )
    if v.unfenced:
        return Wait(f"WriterNotFenced: {'; '.join(v.unfenced)}")
    proof = v.proof
    if proof is None:
        return Do(ProveOff(v.key, ref(v).provider, ref(v)), "the source is read once more before it is handed over")
    if proof.power is not Power.OFF:
        return source_changed(v)
    if (held := changed_disks(v, proof)) is not None:
        return held
    if proof.epoch != v.record.epoch:
        return Refresh(proof.epoch or "", "the source ran, or was reverted, since the copy; every disk is compared again")
    if v.frozen.want_power is Power.OFF:
        return Reach(Milestone.HANDED_OVER, "the target is complete and stays off, as asked")
    return Declare(IntentKind.START_TARGET, start_action(v), "the target takes over", Milestone.HANDED_OVER)


def start_action(v: View) -> StartTarget:
    """The target tells by its milestone that it was handed over, though git should forget (safety 7)."""
    f = v.frozen
    disks = tuple((d.pvc, d.uuid) for d in f.disks)
    owner = replace(v.owner, milestone=Milestone.HANDED_OVER.value)
    return StartTarget(v.key, f.destination, ref(v), v.record.epoch, v.number, f.namespace, f.name, disks, owner)


def start_target(v: View) -> Move:
    vm, f = v.our_target_vm, v.frozen
    if vm is None:
        return Hold("TargetLost", "NotFound", f"VirtualMachine {f.namespace}/{f.name} is gone after hand-over; the source stays off")
    if vm.power is f.want_power:
        return Wait(f"the target is coming up {vm.message}".rstrip())
    if v.started_once:
        return Wait(f"the target starts {vm.message}".rstrip())
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    if v.source_power in (Power.ON, Power.SUSPENDED):
        return source_changed(v)
    if isinstance(v.source, Known) and (held := changed_disks(v, v.source.value)) is not None:
        return held
    if (lost := dying(v)) is not None:
        return Hold(
            "TargetLost", "NotFound", f"{lost}; the target is not started on it and the source stays off; power it on by hand to go back"
        )
    if (proof := v.proof) is not None and proof.power is Power.OFF and proof.epoch not in (None, v.record.epoch):
        return Refresh(proof.epoch or "", "the source ran, or was reverted, since the copy; every disk is compared again")
    if v.outcome is not None and v.outcome.error is not None and v.outcome.error.kind == "void":
        return Do(ProveOff(v.key, ref(v).provider, ref(v)), "the source is read again, because a guard said no")
    return Declare(IntentKind.START_TARGET, start_action(v), "the target is started")


def released(v: View) -> bool:
    vm = v.our_target_vm
    return vm is None or all(vm.uid in x.owners for _, x in v.volumes)


def release(v: View) -> Move:
    for job in v.jobs:
        if not job.deleting:
            return Do(DropCopy(v.key, v.frozen.destination, job.namespace, job.name, v.owner), "the finished importer Job goes")
    vm = v.our_target_vm
    if vm is not None and not released(v):
        volumes = tuple(x for _, x in v.volumes)
        return Do(ReleaseVolumes(v.key, v.frozen.destination, vm, volumes, v.owner), "the disks now belong to the target VM")
    return Wait("temporary objects are going")


def finish(v: View) -> Move:
    return Reach(Milestone.DONE, "done", result=Result.SUCCEEDED)
