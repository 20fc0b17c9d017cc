"""What each step of core/itinerary.py does when it is not done: wait, act, declare and act, reach a milestone, fail or hold.

What it is: small pure functions View -> Move, one per row of the tables. What it is not: the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from reconciler.core import datapath, names
from reconciler.core.actions import (
    Action,
    DropBinder,
    DropCopy,
    DropTargetVm,
    DropVolumes,
    EnsureBinder,
    EnsureNamespace,
    EnsureVm,
    EnsureVolumes,
    PowerSource,
    ProveOff,
    PutMarks,
    ReleaseVolumes,
    StartTarget,
)
from reconciler.core.desired import ShutdownPolicy
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Absent, Known, Milestone, Mode, Power, PowerRequest, Result, Unknown, VmRef
from reconciler.core.record import IntentKind
from reconciler.core.target import BinderSpec, Owner, TargetVmSpec, VolumeSpec
from reconciler.core.view import View

GUEST_SETTLE_S = 600.0  # safety 24: a guest that was asked to shut down may still do so


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do but look again. `timers` count observed seconds while they are named, pass after pass."""

    message: str
    timers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Do:
    """`attempt`, if set, is the number of the next importer Job; committed before the act."""

    action: Action
    message: str
    timers: tuple[str, ...] = ()
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Declare:
    """An irreversible act: the intent is committed first, then the guards are read again, then it is done."""

    intent: IntentKind
    action: Action
    message: str
    milestone: Milestone | None = None
    timers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """A milestone that needs no act. `epoch`, if set, is the newly proven source epoch."""

    milestone: Milestone
    message: str
    epoch: str | None = None
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """The source was proven anew with another epoch: what was copied before counts no more."""

    epoch: str
    message: str


@dataclass(frozen=True, slots=True)
class Fail:
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Hold:
    """No action until the world or a commit changes. Becomes a Critical condition of this type."""

    type: str
    reason: str
    message: str
    items: tuple[str, ...] = field(default=())


Move = Wait | Do | Declare | Reach | Refresh | Fail | Hold


def ref(v: View) -> VmRef:
    if v.record.source is None:
        raise ValueError(f"{v.record.slug} has no source")
    return v.record.source


# ---- before the source goes off ---------------------------------------------------------------------------------------------------------


def claimed(v: View) -> bool:
    c = v.claim
    return c is not None and (c.run, c.slug) == v.key and c.released is None


def claim(v: View) -> Move:
    """The claim is committed together with what was frozen; without it nothing may be done any more."""
    whose = f"run {v.claim.run}" if v.claim else "nobody"
    return Hold(
        "VMClaimed", "NotUnique", f"the claim on source VM {ref(v)} belongs to {whose}, not to this run; was git restored from a backup?"
    )


def ensure_namespace(v: View) -> Move:
    f = v.frozen
    return Do(EnsureNamespace(v.key, f.destination, f.namespace), f"namespace {f.namespace} is being made")


def volume_specs(v: View) -> tuple[VolumeSpec, ...]:
    f, source = v.frozen, ref(v)
    return tuple(
        VolumeSpec(
            namespace=f.namespace,
            name=d.pvc,
            disk_uuid=d.uuid,
            source_vm_uuid=source.uuid,
            capacity_bytes=d.capacity_bytes,
            request_bytes=d.request_bytes,
            storage_class=d.storage_class,
            volume_mode=d.volume_mode,
            access_mode=d.access_mode,
            disk_source=d.label,
            disk_index=i,
            owner=v.owner,
            labels={"vmID": source.id},
        )
        for i, d in enumerate(f.disks)
    )


def ensure_volumes(v: View) -> Move:
    """Create what is missing and adopt what an earlier run of ours left under the same key (its UNWIND has ended: the claim is ours)."""
    if not target_still(v):
        return target_runs(v)
    run = str(v.record.run)
    if finished := [x.name for _, x in v.volumes if x.migration != run and x.owners]:
        text = f"PVC {', '.join(finished)} of this source VM belongs to a finished VirtualMachine and is left alone"
        return Fail("NameTaken", f"{text}. The source was not touched")
    if leaving := [x.name for _, x in v.volumes if x.deleting]:
        if v.binder is not None:
            return drop_binder(v)  # a PVC stays as long as a pod mounts it (finalizer kubernetes.io/pvc-protection)
        return Wait(f"PVC {', '.join(leaving)} of an earlier run is still being deleted")
    if v.unfenced:
        return Wait(f"WriterNotFenced: {'; '.join(v.unfenced)} may still write")
    missing = tuple(
        (spec, volume)
        for disk, spec in zip(v.frozen.disks, volume_specs(v), strict=True)
        if (volume := v.our_volume(disk)) is None or volume.migration != run
    )
    return Do(EnsureVolumes(v.key, v.frozen.destination, missing), f"{len(missing)} PVC being made")


def bind_volumes(v: View) -> Move:
    waiting = [x for _, x in v.volumes if x.phase != "Bound"]
    lost = [x.name for x in waiting if x.phase == "Lost"]
    if lost:
        return Fail("VolumeLost", f"PVC {', '.join(lost)} lost its volume; look at the PV, then start another Migration")
    why = "; ".join(f"{x.name}: {x.events[0]}" if x.events else x.name for x in waiting)
    if not any(x.waits_for_consumer for x in waiting):
        return Wait(f"PVC not bound yet: {why}")
    f = v.frozen
    if v.binder is not None:
        if v.binder.phase == "Running":
            return drop_binder(v)  # it runs, so what it mounts is bound: these PVCs were made after it, and need another
        return Wait(f"PVC not bound yet: {why}; binder pod {v.binder.name} is {v.binder.phase} {v.binder.message}".rstrip())
    spec = BinderSpec(
        namespace=f.namespace,
        name=names.binder_name(v.record.run, v.record.slug),
        volumes=tuple((d.pvc, d.volume_mode) for d in f.disks),
        placement=f.placement,
        owner=v.owner,
    )
    return Do(EnsureBinder(v.key, f.destination, spec), "one pod mounts all disks, so that they are bound in one place")


def reserve_vm(v: View) -> Move:
    f = v.frozen
    taken = v.target_vm
    if taken is not None and v.our_target_vm is None:
        return Fail(
            "NameTaken",
            f"VirtualMachine {f.namespace}/{f.name} exists and is not ours; rename it or set targetName in the plan. "
            "The source was not touched",
        )
    if taken is not None and taken.migration != str(v.record.run) and taken.milestone in (Milestone.HANDED_OVER, Milestone.DONE):
        return Fail(
            "NameTaken",
            f"VirtualMachine {f.namespace}/{f.name} was handed over by run {taken.migration}; a finished VM is not touched. "
            "The source was not touched",
        )
    if taken is not None and taken.deleting:
        return Wait(f"VirtualMachine {f.name} of an earlier run is still being deleted")
    vm = with_owner(v)
    return Do(EnsureVm(v.key, f.destination, vm), f"VirtualMachine {f.name} is made Halted, which reserves its name")


def with_owner(v: View) -> TargetVmSpec:
    return replace(v.frozen.vm, owner=v.owner)


def drop_binder(v: View) -> Move:
    binder = v.binder
    assert binder is not None
    if binder.deleting:
        return Wait(f"binder pod {binder.name} is ending")
    return Do(DropBinder(v.key, v.frozen.destination, binder.namespace, binder.name, v.owner), "the binder pod goes")


def changed_disks(v: View, vm: SourceVm) -> Hold | None:
    """Safety 12: disks are identified by backing uuid and looked at again before power-off and after it."""
    frozen = {d.uuid: d for d in v.frozen.disks}
    seen = {d.uuid: d for d in vm.disks}
    for disk in vm.disks:
        if disk.uuid in frozen and (choice := datapath.choose(disk, vm, vddk=False, mode=Mode.COLD)).path != frozen[disk.uuid].path:
            text = f"disk {disk.label} of {vm.name} can no longer be read as this run planned: {choice.reason}. {choice.remedy}".rstrip()
            return Hold("SourceChanged", "ChainChanged", text, (disk.label,))
    added = [d.label for u, d in seen.items() if u not in frozen]
    removed = [d.label for u, d in frozen.items() if u not in seen]
    sized = [d.label for u, d in seen.items() if u in frozen and frozen[u].capacity_bytes != d.capacity_bytes]
    if not (added or removed or sized):
        return None
    parts = [f"{what}: {', '.join(x)}" for what, x in (("added", added), ("removed", removed), ("resized", sized)) if x]
    return Hold(
        "SourceChanged",
        "DisksChanged",
        f"the disks of {vm.name} are not those that this run began with ({'; '.join(parts)}); cancel this VM and start another Migration",
        tuple(added + removed + sized),
    )


def power_off(v: View) -> Move:
    """Shut the guest down, once; then wait. After the deadline the plan's policy decides (design section 3)."""
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    assert isinstance(v.source, Known)
    vm = v.source.value
    if (held := changed_disks(v, vm)) is not None:
        return held
    if vm.power is Power.SUSPENDED:
        return Hold("SourceChanged", "Suspended", f"{vm.name} is suspended; resume it or power it off, then this run goes on")
    f = v.frozen
    asked = any(i.kind is IntentKind.POWER_OFF_SOURCE and i.open for i in v.record.intents)
    waited = v.timers.get("shutdown", 0.0)
    deaf = not vm.tools_running and f.shutdown_policy is ShutdownPolicy.FORCE
    want = PowerRequest.OFF if deaf else PowerRequest.SHUTDOWN
    if waited >= f.shutdown_timeout_s:
        if f.shutdown_policy is ShutdownPolicy.FAIL:
            return Fail(
                "GuestShutdownTimeout",
                f"the guest of {vm.name} ignored the shutdown for {f.shutdown_timeout_s:.0f} s; it stays as it was. "
                "Shut it down by hand, or set annotation reconciler.dev/guest-shutdown-policy: force, then start another Migration",
            )
        want = PowerRequest.OFF
    elif asked and f"PowerSource:{want.value}" in v.acted:
        return Wait(f"the guest is shutting down ({waited:.0f} s of {f.shutdown_timeout_s:.0f} s)", ("shutdown",))
    if want is PowerRequest.OFF and f"PowerSource:{want.value}" in v.acted:
        return Wait("the source is being powered off", ("shutdown",))
    how = (
        "the guest is asked to shut down"
        if want is PowerRequest.SHUTDOWN
        else "the guest cannot or will not shut down; the plug is pulled (policy force)"
    )
    act = PowerSource(v.key, ref(v).provider, ref(v), want, IntentKind.POWER_OFF_SOURCE, (f.destination, f.namespace, f.name))
    return Declare(IntentKind.POWER_OFF_SOURCE, act, how, timers=("shutdown",))


def prove_off(v: View) -> Move:
    """CUTOVER: a direct read says off, and which epoch that is. The bulk view alone is not proof, but enough to hold."""
    if isinstance(v.source, Known) and (held := changed_disks(v, v.source.value)) is not None:
        return held
    proof = v.proof
    if proof is None:
        return Do(ProveOff(v.key, ref(v).provider, ref(v)), "the source is read directly to prove that it is off")
    if proof.power is not Power.OFF:
        return Wait(f"{proof.name} is {proof.power.value} again")
    if (held := changed_disks(v, proof)) is not None:
        return held
    if proof.epoch is None:
        return Wait("the source did not tell its epoch")
    return Reach(Milestone.CUTOVER, "the source is off, proven", proof.epoch)


def dying(v: View) -> str | None:
    """A PVC that somebody deletes in mid-run stays while a pod mounts it, and takes the copied disk with it then."""
    gone = [x.name for _, x in v.volumes if x.deleting]
    return f"PVC {', '.join(gone)} in {v.frozen.namespace} is being deleted, not by this run" if gone else None


# ---- the copy ---------------------------------------------------------------------------------------------------------------------------


def out_of_sight(v: View) -> Wait | Hold | None:
    """Unknown yields no action; a source that is proven gone is a person's business."""
    match v.source:
        case Unknown(reason, message):
            return Wait(f"the source is out of sight ({reason}: {message})")
        case Absent():
            text = f"source VM {ref(v)} is no longer in the inventory, so nothing can be proven about it; put it back, or cancel this VM"
            return Hold("SourceChanged", "NotFound", text)
        case Known():
            return None


def source_changed(v: View) -> Hold:
    return Hold(
        "SourceChanged",
        "PoweredOn",
        f"{ref(v).name} was powered on after the cutover, by somebody else. The target stays off. Power the source off and this "
        "run goes on (its changes are copied), or cancel this VM to keep the source",
    )


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
        return Refresh(proof.epoch or "", "the source ran since the copy; every disk is compared again")
    if v.frozen.want_power is Power.OFF:
        return Reach(Milestone.HANDED_OVER, "the target is complete and stays off, as asked")
    return Declare(IntentKind.START_TARGET, start_action(v), "the target takes over", Milestone.HANDED_OVER)


def start_action(v: View) -> StartTarget:
    """The target tells by its milestone that it was handed over, though git should forget (safety 7)."""
    f = v.frozen
    disks = tuple((d.pvc, d.uuid) for d in f.disks)
    owner = replace(v.owner, milestone=Milestone.HANDED_OVER.value)
    return StartTarget(v.key, f.destination, ref(v), v.record.epoch, f.namespace, f.name, disks, owner)


def target_still(v: View) -> bool:
    vm = v.our_target_vm
    return vm is None or vm.power is Power.OFF


def target_runs(v: View) -> Move:
    """Somebody started the reserved VM before it was handed over: it has written to its disks, so no mark on them is true any more."""
    f = v.frozen
    if any(x.mark is not None or x.watermark is not None for _, x in v.volumes):
        return dirty_marks(v)
    return Hold(
        "TargetRunning",
        "PoweredOn",
        f"VirtualMachine {f.namespace}/{f.name} runs, but was not handed over: somebody started it. Stop it, and its disks are copied anew",
    )


# ---- after hand-over --------------------------------------------------------------------------------------------------------------------


def started_once(v: View) -> bool:
    return any(i.kind is IntentKind.START_TARGET and i.done_at is not None for i in v.record.intents)


def start_target(v: View) -> Move:
    vm, f = v.our_target_vm, v.frozen
    if vm is None:
        return Hold("TargetLost", "NotFound", f"VirtualMachine {f.namespace}/{f.name} is gone after hand-over; the source stays off")
    if vm.power is f.want_power:
        return Wait(f"the target is coming up {vm.message}".rstrip())
    if started_once(v):
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
        return Refresh(proof.epoch or "", "the source ran since the copy; every disk is compared again")
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


# ---- UNWIND -----------------------------------------------------------------------------------------------------------------------------


def stop_writers(v: View) -> Move:
    site = v.frozen.destination
    for job in v.jobs:
        if not job.deleting:
            return Do(DropCopy(v.key, site, job.namespace, job.name, v.owner), "the importer Job is stopped")
    binder = v.binder
    if binder is not None and not binder.deleting:
        return Do(DropBinder(v.key, site, binder.namespace, binder.name, v.owner), "the binder pod is stopped")
    if not target_still(v):
        return Hold("TargetRunning", "PoweredOn", f"target {v.frozen.namespace}/{v.frozen.name} runs; stop it, then its run is undone")
    if v.unfenced:
        return Wait(f"WriterNotFenced: {'; '.join(v.unfenced)}")
    return Wait("pods are ending")


def must_give_back(v: View) -> bool:
    """The source was on when it was claimed, its last power-off was ours, and the target was not handed over."""
    claim_ = v.claim
    return claim_ is not None and claim_.was_on and claim_.powered_off_by_us


def marks_may_stay(v: View) -> bool:
    """Safety 1: before we power a source on, its final marks (and watermarks) are made dirty."""
    if not must_give_back(v):
        return True
    return all(x.mark is None and x.watermark is None for _, x in v.volumes)


def dirty_marks(v: View) -> Move:
    volumes = tuple((x, None) for _, x in v.volumes if x.mark is not None or x.watermark is not None)
    return Do(PutMarks(v.key, v.frozen.destination, volumes, v.owner), "the copies are marked dirty: one side or the other runs")


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
    """A failed (not cancelled) VM whose source stays off: marks and watermarks can prove their bytes to the next run."""
    proven = any(x.mark is not None or x.watermark is not None for _, x in v.volumes)
    return v.record.cancel_at is None and not must_give_back(v) and proven


def doomed(v: View) -> tuple[str, ...]:
    if not v.frozen.delete_on_fail or worth_keeping(v):
        return ()
    run = str(v.record.run)
    return tuple(x.name for _, x in v.volumes if x.migration == run and not x.owners)


def doomed_vm(v: View) -> bool:
    vm = v.our_target_vm
    return vm is not None and vm.migration == str(v.record.run) and v.frozen.delete_on_fail


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
