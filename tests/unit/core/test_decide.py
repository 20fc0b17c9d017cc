"""decide(), walked from a commit to the end over the toy of both sites."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.actions import (
    ActError,
    DropTargetVm,
    DropVolumes,
    EnsureCopy,
    EnsureVm,
    EnsureVolumes,
    PowerSource,
    PutMarks,
    StartTarget,
)
from reconciler.core.desired import InventoryRef, MigrationSpec, ShutdownPolicy
from reconciler.core.model import Milestone, ObjectRef, Power, PowerRequest, Result
from reconciler.core.record import IntentKind, VmRecord
from reconciler.core.target import TargetVm, Writer
from tests.unit.core.toyland import NS, PLACE, PLAN, RUN, Toyland, desired_for, source_vm


def land(*names: str, **plan: object) -> Toyland:
    vms = {n: source_vm(n, number=i + 1) for i, n in enumerate(names)}
    return Toyland(vms, desired_for(list(names), **plan))


def only(world: Toyland, name: str = "web") -> VmRecord:
    return next(v for v in world.records.vms.values() if v.name == name)


def reach(world: Toyland, milestone: Milestone, name: str = "web") -> None:
    for _ in range(40):
        world.tick()
        if world.records.vms and only(world, name).milestone is milestone:
            return
    raise AssertionError(f"{name} never reached {milestone}: {only(world, name).message}")


def test_a_running_vm_is_moved_and_started() -> None:
    world = land("web")
    world.run()
    vm = only(world)
    assert vm.result is Result.SUCCEEDED, vm.message
    assert world.vms["web"].power is Power.OFF
    assert world.targets["web"].power is Power.ON
    assert not world.jobs and not world.binders
    assert [i.kind for i in vm.intents] == [IntentKind.POWER_OFF_SOURCE, IntentKind.START_TARGET]
    assert all(i.done_at for i in vm.intents)
    assert next(iter(world.records.claims.values())).forever


def test_order_the_target_is_reserved_before_the_source_goes_off() -> None:
    world = land("web")
    world.run()
    kinds = [type(a) for a in world.log]
    assert (
        kinds.index(EnsureVolumes) < kinds.index(EnsureVm) < kinds.index(PowerSource) < kinds.index(EnsureCopy) < kinds.index(StartTarget)
    )


def test_a_powered_off_vm_stays_off_on_both_sides() -> None:
    world = land("web")
    world.vms["web"] = replace(world.vms["web"], power=Power.OFF, tools_running=False)
    world.run()
    assert only(world).result is Result.SUCCEEDED, only(world).message
    assert world.targets["web"].power is Power.OFF
    assert not world.acts(PowerSource, StartTarget)


def test_phases_tell_when_each_step_began_and_ended() -> None:
    world = land("web")
    world.run()
    vm = only(world)
    assert [p.phase for p in vm.phases][:3] == ["Started", "ReserveNamespace", "CreateDataVolumes"]
    assert all(p.ended is not None for p in vm.phases)
    assert [s.phase for s in vm.pipeline] == ["Completed"] * 3


def test_a_foreign_vm_of_the_name_blocks_only_that_vm() -> None:
    world = land("web", "db")
    world.targets["web"] = TargetVm("shop", "web", "x", "1", False, "", "", "", "", "Always", Power.ON, True, "")
    for _ in range(30):
        world.tick()
    assert only(world, "db").result is Result.SUCCEEDED
    blocked = next(v for v in world.records.vms.values() if v.wanted == "web")
    assert [c.type for c in blocked.conditions] == ["VMAlreadyExists"]
    assert world.vms["web"].power is Power.ON


def test_a_name_taken_at_the_last_moment_fails_the_vm_with_the_guest_up() -> None:
    world = land("web")
    world.fail["EnsureVm"] = ActError("terminal", "NameTaken", "VirtualMachine shop/web exists and is not ours")
    world.run()
    vm = only(world)
    assert vm.result is Result.FAILED and vm.error is not None and vm.error.reason == "NameTaken"
    assert world.vms["web"].power is Power.ON and not world.acts(PowerSource)
    assert not world.volumes, "incomplete disks are deleted"


def test_failure_after_power_off_gives_the_source_back_and_dirties_marks_first() -> None:
    world = land("web")
    world.vms["web"] = source_vm("web", disks=2)
    world.job_exit = [65]
    world.run()
    vm = only(world)
    assert vm.result is Result.FAILED
    assert world.vms["web"].power is Power.ON
    assert not world.volumes and not world.targets
    claim = next(iter(world.records.claims.values()))
    assert claim.released is not None and not claim.powered_off_by_us


def test_marks_are_made_dirty_before_we_power_a_source_on() -> None:
    world = land("web")
    reach(world, Milestone.CUTOVER)
    while not any(v.mark for v in world.volumes.values()):
        world.tick()
    world.desired = replace(world.desired, migrations={RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))})
    world.run()
    kinds = [type(a).__name__ for a in world.log]
    dirty = [i for i, a in enumerate(world.log) if isinstance(a, PutMarks) and a.marks[0][1] is None]
    powered = [i for i, a in enumerate(world.log) if isinstance(a, PowerSource) and a.want is PowerRequest.ON]
    assert dirty and powered and dirty[0] < powered[0], kinds
    assert only(world).result is Result.CANCELED


def test_a_failed_attempt_is_tried_again_under_a_new_name() -> None:
    world = land("web")
    world.job_exit = [75, 75, 0]
    world.run()
    names = [a.job.name for a in world.acts(EnsureCopy) if isinstance(a, EnsureCopy)]
    assert len(names) == len(set(names)) == 3
    assert only(world).result is Result.SUCCEEDED


def test_guest_ignores_shutdown_policy_fail() -> None:
    world = land("web")
    world.obey_shutdown = False
    world.run(passes=300, seconds=20.0)
    vm = only(world)
    assert vm.result is Result.FAILED and vm.error is not None and vm.error.reason == "GuestShutdownTimeout"
    assert len(world.acts(PowerSource)) == 1, "asked once"
    assert world.vms["web"].power is Power.ON


def test_guest_ignores_shutdown_policy_force() -> None:
    world = land("web", shutdown_policy=ShutdownPolicy.FORCE)
    world.obey_shutdown = False
    world.run(passes=300, seconds=20.0)
    wants = [a.want for a in world.acts(PowerSource) if isinstance(a, PowerSource)]
    assert wants == [PowerRequest.SHUTDOWN, PowerRequest.OFF]
    assert only(world).result is Result.SUCCEEDED


def test_late_shutdown_after_giving_up_is_powered_on_again() -> None:
    """Safety 24."""
    world = land("web")
    world.obey_shutdown = False
    while not world.records.vms or not only(world).unwinding:
        world.tick(20.0)
    world.tick(100.0)
    world.power_off("web")
    world.run(passes=200, seconds=20.0)
    assert only(world).result is Result.FAILED
    assert world.vms["web"].power is Power.ON


def test_source_powered_on_after_cutover_holds() -> None:
    world = land("web")
    reach(world, Milestone.CUTOVER)
    world.power_on("web")
    for _ in range(10):
        world.tick()
    vm = only(world)
    assert [c.reason for c in vm.conditions if c.type == "SourceChanged"] == ["PoweredOn"]
    assert not world.acts(StartTarget) and world.vms["web"].power is Power.ON


def test_source_that_ran_in_between_is_copied_again_before_the_start() -> None:
    """Safety 9: on and off again, unseen by the bulk view; the direct read's epoch tells."""
    world = land("web")
    reach(world, Milestone.CUTOVER)
    while not any(v.mark for v in world.volumes.values()):
        world.tick()
    world.power_on("web")
    world.power_off("web")
    world.run()
    assert only(world).result is Result.SUCCEEDED
    assert len(world.acts(EnsureCopy)) == 2
    last = world.acts(EnsureCopy)[-1]
    assert isinstance(last, EnsureCopy) and last.epoch == world.vms["web"].epoch and last.disks[0].compare


def test_unknown_source_yields_no_action() -> None:
    """Safety 11."""
    world = land("web")
    reach(world, Milestone.CUTOVER)
    before = len(world.log)
    world.source_unknown = True
    world.jobs.clear()
    acts = []
    for _ in range(5):
        world.tick()
        acts = [type(a).__name__ for a in world.log[before:]]
    assert "StartTarget" not in acts and "PowerSource" not in acts


def test_a_run_never_begins_twice() -> None:
    world = land("web")
    world.run()
    done = world.records
    world.desired = replace(world.desired, migrations={})
    world.tick()
    world.desired = desired_for(["web"], revision="c3")
    before = len(world.log)
    for _ in range(5):
        world.tick()
    assert len(world.log) == before and world.records.vms == done.vms


def test_the_next_migration_takes_only_what_has_not_succeeded() -> None:
    world = land("web", "db")
    world.fail["EnsureVm"] = ActError("terminal", "NameTaken", "taken")
    world.run()
    failed = {v.name for v in world.records.vms.values() if v.result is Result.FAILED}
    assert len(failed) == 1
    second = ObjectRef(NS, "run-2")
    world.desired = replace(world.desired, migrations={**world.desired.migrations, second: MigrationSpec(second, PLACE, PLAN)})
    world.run()
    for _ in range(40):
        world.tick()
    again = [v for v in world.records.vms.values() if v.run == second]
    assert {v.name for v in again} == failed and all(v.result is Result.SUCCEEDED for v in again), [v.message for v in again]


def test_two_plans_claiming_one_vm() -> None:
    """Safety 6."""
    world = land("web")
    other = ObjectRef(NS, "zz")
    run2 = ObjectRef(NS, "zz-run")
    plan2 = replace(world.desired.plans[PLAN], ref=other, target_namespace="other")
    world.desired = replace(
        world.desired,
        plans={**world.desired.plans, other: plan2},
        migrations={**world.desired.migrations, run2: MigrationSpec(run2, PLACE, other)},
    )
    for _ in range(30):
        world.tick()
    second = next(v for v in world.records.vms.values() if v.run == run2)
    assert [c.type for c in second.conditions] == ["VMClaimed"]
    assert not [a for a in world.log if a.key[0] == run2]


def test_cancel_before_anything_happened_and_too_late() -> None:
    world = land("web")
    world.desired = replace(world.desired, migrations={RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))})
    world.run()
    assert next(iter(world.records.vms.values())).result is Result.CANCELED and not world.log
    late = land("web")
    reach(late, Milestone.HANDED_OVER)
    late.desired = replace(late.desired, migrations={RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))})
    late.run()
    assert only(late).result is Result.SUCCEEDED


def test_removing_the_migration_holds_and_cancels_only_before_cutover_after_300_s() -> None:
    world = land("web")
    world.obey_shutdown = False
    world.tick()
    world.tick()
    world.desired = replace(world.desired, migrations={})
    world.tick(10.0)
    world.tick(10.0)
    assert [c.type for c in only(world).conditions] == ["ManifestGone"] and only(world).cancel_at is None
    world.tick(301.0)
    world.run()
    assert only(world).result is Result.CANCELED
    past = land("web")
    reach(past, Milestone.CUTOVER)
    past.desired = replace(past.desired, migrations={})
    for _ in range(5):
        past.tick(301.0)
    assert [c.type for c in only(past).conditions] == ["ManifestGone"] and only(past).result is None


def test_an_incomplete_tree_never_cancels() -> None:
    """Safety 10: conflict markers somewhere."""
    world = land("web")
    world.obey_shutdown = False
    world.tick()
    world.desired = replace(world.desired, migrations={}, complete=False)
    for _ in range(5):
        world.tick(301.0)
    assert only(world).cancel_at is None


def test_provider_leads_elsewhere() -> None:
    """Safety 13."""
    world = land("web")
    reach(world, Milestone.CUTOVER)
    before = len(world.log)
    original = world.inventory
    world.inventory = lambda: replace(original(), site=replace(original().site, uuid="another"))  # type: ignore[method-assign]
    for _ in range(3):
        world.tick()
    assert [c.type for c in only(world).conditions] == ["ProviderChanged"] and len(world.log) == before


def test_retry_keeps_proven_disks_when_the_source_stayed_off() -> None:
    world = land("web")
    world.vms["web"] = replace(source_vm("web", disks=2), power=Power.OFF)
    reach(world, Milestone.CUTOVER)
    while not all(v.mark for v in world.volumes.values()) or not world.volumes:
        world.tick()
    world.fail["ProveOff"] = ActError("terminal", "Broken", "boom")
    for _ in range(20):
        world.tick()
        if only(world).result:
            break
    assert only(world).result is Result.FAILED
    assert world.volumes, "worth keeping"
    second = ObjectRef(NS, "run-2")
    world.desired = replace(world.desired, migrations={**world.desired.migrations, second: MigrationSpec(second, PLACE, PLAN)})
    copies = len(world.acts(EnsureCopy))
    for _ in range(40):
        world.tick()
    vm = next(v for v in world.records.vms.values() if v.run == second)
    assert vm.result is Result.SUCCEEDED, vm.message
    assert len(world.acts(EnsureCopy)) == copies, "no marked disk is copied again"


def test_a_marked_disk_whose_volume_is_lost_is_not_handed_over_and_made_anew_by_the_next_run() -> None:
    """A backup of the cluster may bring a PVC back, mark and all, whose volume is gone."""
    world = land("web")
    world.vms["web"] = source_vm("web", power=Power.OFF)
    reach(world, Milestone.CUTOVER)
    while not any(v.mark for v in world.volumes.values()):
        world.tick()
    (lost,) = world.volumes.values()
    world.volumes[lost.name] = replace(lost, phase="Lost")
    world.run()
    vm = only(world)
    assert vm.result is Result.FAILED and vm.milestone is Milestone.CUTOVER
    assert vm.error is not None and vm.error.reason == "VolumeLost" and lost.name in vm.error.message
    assert not world.volumes, "nothing of it is worth keeping"
    second = ObjectRef(NS, "run-2")
    world.desired = replace(world.desired, migrations={**world.desired.migrations, second: MigrationSpec(second, PLACE, PLAN)})
    for _ in range(40):
        world.tick()
    assert next(v for v in world.records.vms.values() if v.run == second).result is Result.SUCCEEDED


def test_inflight_limit_counts_disks_per_host_within_one_pass() -> None:
    names = [f"vm{i:02d}" for i in range(10)]
    world = land(*names)
    world.desired = replace(world.desired, limits=replace(world.desired.limits, max_vm_inflight=3))
    world.tick()
    assert sum(v.frozen is not None for v in world.records.vms.values()) == 3
    waiting = [v for v in world.records.vms.values() if v.frozen is None]
    assert all(c.type == "Pending" for v in waiting for c in v.conditions) and waiting
    world.run(passes=300)
    assert all(v.result is Result.SUCCEEDED for v in world.records.vms.values())


def test_same_input_same_answer() -> None:
    a, b = land("web", "db"), land("web", "db")
    for _ in range(25):
        a.tick()
        b.tick()
        assert a.records == b.records and a.log == b.log


def test_deleting_is_declared_before_it_is_done() -> None:
    world = land("web")
    world.job_exit = [65]
    while not world.acts(DropTargetVm, DropVolumes):
        world.tick()
    assert any(i.kind is IntentKind.DELETE_TARGET for i in only(world).intents)


def test_behind_hand_over_a_failing_copy_holds_and_gives_nothing_back() -> None:
    """The source ran between hand-over and start, and its second copy cannot succeed: the source is not powered on by us."""
    world = land("web")
    while not world.acts(StartTarget):
        world.tick()
        if only_if_there(world) is Milestone.CUTOVER and all(v.mark for v in world.volumes.values()) and world.volumes:
            world.fail["StartTarget"] = ActError("void", "GuardRefused", "the source ran since the copy")
    world.power_on("web")
    world.power_off("web")
    world.job_exit = [65]
    for _ in range(20):
        world.tick()
    vm = only(world)
    assert vm.milestone is Milestone.HANDED_OVER and not vm.unwinding and vm.result is None
    assert [c.category for c in vm.conditions if c.type == "Failed"] == ["Critical"]
    assert not [a for a in world.acts(PowerSource) if isinstance(a, PowerSource) and a.want is PowerRequest.ON]


def only_if_there(world: Toyland) -> Milestone | None:
    return next((v.milestone for v in world.records.vms.values()), None)


def test_a_guest_is_watched_once_though_deleting_takes_several_passes() -> None:
    """Safety 24: the ten minutes are counted once, not before each deletion."""
    world = land("web")
    world.obey_shutdown = False
    while not world.records.vms or not only(world).unwinding:
        world.tick(20.0)
    began = world.now
    world.run(passes=200, seconds=20.0)
    assert only(world).result is Result.FAILED
    assert 600 <= (world.now - began).total_seconds() < 900


def test_a_finished_target_of_another_reconciler_is_not_touched() -> None:
    """Safety 6 and 7: no claim knows of it (another repo, or git restored), but the target says that this very VM was handed over."""
    world = land("web")
    world.run()
    assert only(world).result is Result.SUCCEEDED
    before = dict(world.targets), dict(world.volumes)
    world.targets["web"] = replace(world.targets["web"], milestone="HandedOver", run_strategy="Halted", power=Power.OFF)
    second = ObjectRef(NS, "run-9")
    world.records = replace(world.records, runs={}, vms={}, claims={})
    world.desired = replace(world.desired, migrations={second: MigrationSpec(second, PLACE, PLAN)})
    acts = len(world.log)
    for _ in range(10):
        world.tick()
    held = next(v for v in world.records.vms.values() if v.run == second)
    assert "VMClaimed" in [c.type for c in held.conditions]
    world.targets["web"] = replace(world.targets["web"], milestone="None")  # as of a VM that was to stay off
    for _ in range(20):
        world.tick()
    failed = next(v for v in world.records.vms.values() if v.run == second)
    assert failed.error is not None and failed.error.reason == "NameTaken", failed.message
    assert not [a for a in world.log[acts:] if isinstance(a, PowerSource | DropVolumes | DropTargetVm | PutMarks | EnsureVolumes)]
    assert world.volumes == before[1] and world.targets["web"].migration == before[0]["web"].migration


def test_an_entry_that_left_the_plan_before_it_began_is_cancelled_and_its_correction_is_the_next_migrations() -> None:
    world = land("web")
    world.desired = desired_for(["web", "dbb"])
    for _ in range(30):
        world.tick()
    assert {v.wanted: v.result for v in world.records.vms.values()} == {"web": Result.SUCCEEDED, "dbb": None}
    world.vms["db"] = source_vm("db", number=9)
    second = ObjectRef(NS, "run-2")
    fixed = desired_for(["web", "db"], revision="c2")
    world.desired = replace(fixed, migrations={**fixed.migrations, second: MigrationSpec(second, PLACE, PLAN)})
    for _ in range(40):
        world.tick()
    typo = next(v for v in world.records.vms.values() if v.wanted == "dbb")
    assert typo.result is Result.CANCELED and typo.conditions[0].reason == "Modified"
    assert world.records.runs[RUN].result is Result.SUCCEEDED
    assert only(world, "db").result is Result.SUCCEEDED and only(world, "db").run == second


def test_no_job_and_no_marks_beside_a_pod_that_may_still_write() -> None:
    """Safety 4, in the decision itself: a stranger's pod on the PVC holds the copy, and later the marks, without any guard's help."""
    world = land("web")
    while not world.acts(PowerSource):
        world.tick()
    stranger = Writer("old-copy", "Running", False, True, "importer")
    world.volumes = {k: replace(v, writers=(stranger,)) for k, v in world.volumes.items()}
    for _ in range(6):
        world.tick()
    assert only(world).milestone is Milestone.CUTOVER and "WriterNotFenced" in only(world).message
    assert not world.acts(EnsureCopy)
    world.volumes = {k: replace(v, writers=(replace(stranger, fenced=True),)) for k, v in world.volumes.items()}
    while not world.acts(EnsureCopy):
        world.tick()
    world.volumes = {k: replace(v, writers=(stranger,)) for k, v in world.volumes.items()}
    for _ in range(6):
        world.tick()
    assert not [v for v in world.volumes.values() if v.mark], "no mark while somebody may still write"


def test_a_name_taken_after_the_claim_is_seen_before_anything_is_applied() -> None:
    """Safety 21, in the decision itself: the driver's own refusal is only the second line."""
    world = land("web")
    while not world.acts(EnsureVolumes):
        world.tick()
    world.targets["web"] = TargetVm("shop", "web", "x", "1", False, "", "", "", "", "Always", Power.ON, True, "")
    world.run()
    assert only(world).error is not None and only(world).error.reason == "NameTaken"  # type: ignore[union-attr]
    assert not world.acts(EnsureVm) and not world.acts(PowerSource)
