"""The trial before the power-off, in the decision: every volume is opened first, what fails fails with the guest on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import ActError, DropBinder, EnsureBinder, PowerSource
from reconciler.core.desired import MigrationSpec
from reconciler.core.model import ObjectRef, Power, Result
from reconciler.core.preflight import PAUSE_S
from reconciler.core.record import VmRecord
from reconciler.core.target import Binder
from tests.unit.core.toyland import NS, PLACE, PLAN, RUN, Toyland, desired_for, source_vm

RUN2 = ObjectRef(NS, "run-2")


def land(*names: str, disks: int = 1) -> Toyland:
    vms = {n: source_vm(n, number=i + 1, disks=disks) for i, n in enumerate(names)}
    return Toyland(vms, desired_for(list(names)))


def only(world: Toyland, name: str = "web", run: ObjectRef = RUN) -> VmRecord:
    return next(v for v in world.records.vms.values() if v.name == name and v.run == run)


def at(world: Toyland, phase: str) -> None:
    for _ in range(30):
        if world.records.vms and only(world).phase == phase:
            return
        world.tick()
    raise AssertionError(f"never in {phase}: {only(world).phase} {only(world).message}")


def tries(world: Toyland) -> int:
    return len([a for a in world.log if isinstance(a, EnsureBinder)])


def test_a_class_that_cannot_be_used_fails_its_vm_with_the_guest_on_and_others_go_on() -> None:
    world = land("web", "db")
    world.trial_exit = [65]
    world.run()
    bad, good = sorted((only(world, n) for n in ("web", "db")), key=lambda v: v.result is Result.SUCCEEDED)
    assert (bad.result, good.result) == (Result.FAILED, Result.SUCCEEDED)
    assert world.vms[bad.name].power is Power.ON and not [a for a in world.log if isinstance(a, PowerSource) and a.key == bad.key]
    assert bad.error is not None and (bad.error.phase, bad.error.reason) == ("Preflight", "VolumeNotUsable")
    for word in ("fast (Filesystem, ReadWriteOnce)", "EACCES", "The source was not touched"):
        assert word in bad.error.message
    assert not world.binders and not [n for n in world.volumes if n.startswith(bad.name)]


@pytest.mark.parametrize("code", [75, 137, None])
def test_what_time_may_mend_is_tried_again_after_a_pause(code: int | None) -> None:
    world = land("web")
    world.trial_exit = [75]
    at(world, "Preflight")
    while not world.binders or next(iter(world.binders.values())).phase != "Failed":
        world.tick()
    (name, failed) = next(iter(world.binders.items()))
    world.binders[name] = replace(failed, exit_code=code)
    world.tick()
    assert tries(world) == 1 and "another trial follows" in only(world).message and world.vms["web"].power is Power.ON
    world.tick(PAUSE_S)
    world.run()
    assert tries(world) == 2 and only(world).result is Result.SUCCEEDED


def test_a_pod_that_was_evicted_is_replaced_at_once() -> None:
    world = land("web")
    world.trial_exit = [1]
    at(world, "Preflight")
    world.binders = {n: replace(b, exit_code=None, ended_at=None, message="Evicted: low on memory") for n, b in world.binders.items()}
    world.run()
    assert tries(world) == 2 and only(world).result is Result.SUCCEEDED


def test_no_power_off_before_every_volume_was_opened() -> None:
    world = land("web", disks=3)
    while not world.acts(PowerSource):
        world.tick()
        assert world.vms["web"].power is Power.ON or world.acts(PowerSource)
    (binder,) = world.acts(EnsureBinder)
    assert isinstance(binder, EnsureBinder) and len(binder.spec.volumes) == 3
    assert only(world).tried == binder.spec.trial


def test_it_is_done_once_and_a_new_process_does_not_repeat_it() -> None:
    world = land("web")
    at(world, "PowerOffSource")
    world.outcomes, world.acted = {}, {}
    world.run()
    assert tries(world) == 1


def test_other_volumes_are_tried_anew() -> None:
    """Somebody deletes a PVC of the reserved VM; the one that takes its name is another volume."""
    world = land("web")
    world.obey_shutdown = False
    at(world, "PowerOffSource")
    world.volumes = {n: replace(v, uid=f"new-{v.uid}") for n, v in world.volumes.items()}
    world.tick()
    assert only(world).phase == "Preflight"
    at(world, "PowerOffSource")
    assert tries(world) == 2


def test_what_was_opened_under_the_same_names_proves_nothing_for_the_new_ones() -> None:
    world = land("web")
    world.obey_shutdown = False
    at(world, "PowerOffSource")
    record = only(world)
    world.binders["old"] = Binder("shop", "old", "Succeeded", "", str(RUN), record.slug, trial=record.tried, exit_code=0)
    world.volumes = {n: replace(v, uid=f"new-{v.uid}") for n, v in world.volumes.items()}
    at(world, "PowerOffSource")
    world.tick()
    at(world, "PowerOffSource")
    assert tries(world) == 2 and "old" not in world.binders


def test_volumes_that_were_bound_before_are_tried_too() -> None:
    """As of a class that binds at once: nobody waits for a consumer, and no pod is needed to bind."""
    world = land("web")
    world.desired = replace(
        world.desired,
        plans={k: replace(p, vms=tuple(replace(v, delete_on_fail=False) for v in p.vms)) for k, p in world.desired.plans.items()},
    )
    world.fail["EnsureVm"] = ActError("terminal", "Forbidden", "no")
    world.run()
    assert only(world).result is Result.FAILED and {v.phase for v in world.volumes.values()} == {"Bound"}
    world.desired = replace(world.desired, migrations={**world.desired.migrations, RUN2: MigrationSpec(RUN2, PLACE, PLAN)})
    world.run()
    assert only(world, run=RUN2).result is Result.SUCCEEDED and tries(world) == 2


def test_a_pod_that_opened_other_volumes_proves_nothing() -> None:
    world = land("web")
    at(world, "CreateDataVolumes")
    slug = only(world).slug
    world.binders["old"] = Binder("shop", "old", "Succeeded", "", str(RUN), slug, trial="other", exit_code=0)
    world.tick()
    assert [a.name for a in world.acts(DropBinder) if isinstance(a, DropBinder)] == ["old"]
    world.run()
    assert tries(world) >= 1 and only(world).result is Result.SUCCEEDED


def test_disks_in_two_zones_are_met_with_the_guest_on() -> None:
    world = land("web", disks=2)
    world.trial_exit = [75]
    at(world, "Preflight")
    where = "PVC a can only be used in zone x, PVC b only in zone y"
    world.binders = {n: replace(b, phase="Pending", exit_code=None, apart=where) for n, b in world.binders.items()}
    world.run()
    error = only(world).error
    assert error is not None and error.reason == "VolumesApart" and where in error.message and "WaitForFirstConsumer" in error.message
    assert world.vms["web"].power is Power.ON and not world.acts(PowerSource)


def test_a_pod_that_finds_no_node_is_waited_for() -> None:
    """A full or cordoned cluster may mend: nothing proves that it cannot."""
    world = land("web")
    world.trial_exit = [75]
    at(world, "Preflight")
    said = "Unschedulable: 0/3 nodes are available"
    world.binders = {n: replace(b, phase="Pending", exit_code=None, message=said) for n, b in world.binders.items()}
    for _ in range(5):
        world.tick(3600)
    assert only(world).phase == "Preflight" and said in only(world).message and world.vms["web"].power is Power.ON
