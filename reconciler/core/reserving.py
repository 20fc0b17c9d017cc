"""The steps before the source goes off: claim, reserve everything on the target, shut the guest down, prove it.

What it is: one pure function View -> Move per row of COLD_BEFORE. Whatever can be refused is refused here, with the guest still up.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.core import preflight
from reconciler.core.actions import (
    EnsureNamespace,
    EnsureVm,
    EnsureVolumes,
    PowerSource,
    ProveOff,
)
from reconciler.core.desired import ShutdownPolicy
from reconciler.core.model import Known, Milestone, Power, PowerRequest
from reconciler.core.moves import (
    Declare,
    Do,
    Fail,
    Hold,
    Move,
    Reach,
    Wait,
    changed_disks,
    disturbed,
    drop_binder,
    out_of_sight,
    ref,
    undisturbed,
)
from reconciler.core.record import IntentKind
from reconciler.core.target import TargetVmSpec, VolumeSpec
from reconciler.core.view import View


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
    run = str(v.record.run)
    if finished := [x.name for _, x in v.volumes if x.migration != run and x.owners]:
        text = f"PVC {', '.join(finished)} of this source VM belongs to a finished VirtualMachine and is left alone"
        return Fail("NameTaken", f"{text}. The source was not touched")
    if not undisturbed(v):
        return disturbed(v)
    if leaving := [x.name for _, x in v.volumes if x.deleting]:
        if v.binder is not None:
            return drop_binder(v)  # a PVC stays as long as a pod mounts it (finalizer kubernetes.io/pvc-protection)
        return Wait(f"PVC {', '.join(leaving)} is still being deleted; it is made anew once it is gone")
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
    return preflight.mount(v, f"PVC not bound yet: {why}")


def reserve_vm(v: View) -> Move:
    f = v.frozen
    taken = v.target_vm
    if taken is not None and v.our_target_vm is None:
        return Fail(
            "NameTaken",
            f"{taken} exists and is not ours; rename it or set targetName in the plan. The source was not touched",
        )
    if taken is not None and taken.migration != str(v.record.run) and taken.milestone in (Milestone.HANDED_OVER, Milestone.DONE):
        return Fail(
            "NameTaken",
            f"VirtualMachine {f.namespace}/{f.name} was handed over by run {taken.migration}; a finished VM is not touched. "
            "The source was not touched",
        )
    if taken is not None and taken.deleting:
        return Wait(f"VirtualMachine {f.name} is still being deleted; it is made anew once it is gone")
    vm = with_owner(v)
    return Do(EnsureVm(v.key, f.destination, vm), f"VirtualMachine {f.name} is made Halted, which reserves its name")


def with_owner(v: View) -> TargetVmSpec:
    return replace(v.frozen.vm, owner=v.owner)


def power_off(v: View) -> Move:
    """Shut the guest down, once, whoever of us asked; then wait. After the deadline the plan's policy decides (design section 3)."""
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    assert isinstance(v.source, Known)
    vm = v.source.value
    if (held := changed_disks(v, vm)) is not None:
        return held
    if vm.power is Power.SUSPENDED:
        return Hold("SourceChanged", "Suspended", f"{vm.name} is suspended; resume it or power it off, then this run goes on")
    f = v.frozen
    waited = v.timers.get("shutdown", 0.0)
    deaf = not vm.tools_running and not v.shutdown_accepted and f.shutdown_policy is ShutdownPolicy.FORCE  # tools end early in a shutdown
    want = PowerRequest.OFF if deaf else PowerRequest.SHUTDOWN
    if waited >= f.shutdown_timeout_s:
        if f.shutdown_policy is ShutdownPolicy.FAIL:
            return Fail(
                "GuestShutdownTimeout",
                f"the guest of {vm.name} ignored the shutdown for {f.shutdown_timeout_s:.0f} s; it stays as it was. "
                "Shut it down by hand, or set annotation reconciler.dev/guest-shutdown-policy: force, then start another Migration",
            )
        want = PowerRequest.OFF
    elif v.shutdown_accepted:
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
