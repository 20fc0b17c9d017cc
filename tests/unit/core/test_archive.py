"""Closing a plan over the toy of both sites: what goes, what stays, when it waits."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core import archive, conditions
from reconciler.core.actions import ActError, DropBinder, DropCopy, DropTargetVm, DropVolumes, EnsureCopy
from reconciler.core.desired import MigrationSpec, PlanVm
from reconciler.core.model import Known, ObjectRef, Power, Result, Unknown
from reconciler.core.record import IntentKind, ObjectStatus, VmRecord
from reconciler.core.target import Binder, Job, JobPhase, Writer
from reconciler.core.view import Observed
from tests.unit.core.toyland import HOST, NS, PLACE, PLAN, RUN, Toyland, desired_for, source_vm


def land(**vm: object) -> Toyland:
    world = Toyland({"web": source_vm("web")}, desired_for(["web"]))
    plan = world.desired.plans[PLAN]
    world.desired = replace(world.desired, plans={PLAN: replace(plan, vms=tuple(replace(v, **vm) for v in plan.vms))})  # type: ignore[arg-type]
    return world


def close(world: Toyland, revision: str = "c2") -> None:
    plans = {PLAN: replace(world.desired.plans[PLAN], archived=True)}
    world.desired = replace(world.desired, revision=revision, plans=plans)


def failed(keep: bool = True) -> Toyland:
    """A run that failed in the copy and left its disks and its Halted VM, as the plan asked."""
    world = land(delete_on_fail=not keep)
    world.job_exit = [65]
    world.run()
    assert only(world).result is Result.FAILED
    return world


def only(world: Toyland) -> VmRecord:
    return next(iter(world.records.vms.values()))


def plan_status(world: Toyland, target_seen: bool = True) -> ObjectStatus:
    target = Known(world.target()) if target_seen else Unknown("Unreachable", "down")
    observed = Observed({}, {HOST: target})
    return conditions.summarize(world.desired, observed, world.records, {}, world.now)[("Plan", PLAN)]


def test_a_plan_that_never_ran_is_archived_at_once() -> None:
    world = land()
    world.desired = replace(world.desired, migrations={})
    close(world)
    world.tick()
    assert world.records.archived == {PLAN} and not world.log
    status = plan_status(world)
    assert [(c.type, c.reason) for c in status.conditions] == [("Archived", "UserRequested")]


def test_a_finished_vm_and_its_disks_stay() -> None:
    world = land()
    world.run()
    close(world)
    world.tick()
    assert world.records.archived == {PLAN}
    assert world.targets["web"].power is Power.ON and len(world.volumes) == 1
    assert not world.acts(DropVolumes, DropTargetVm)


def test_an_active_run_goes_on_and_the_archive_waits_for_its_end() -> None:
    world = land()
    while not world.acts(EnsureCopy):
        world.tick()
    close(world)
    world.tick()
    assert not world.records.archived
    status = plan_status(world)
    assert {"Executing", "ArchiveWaits"} <= {c.type for c in status.conditions}
    world.run()
    assert only(world).result is Result.SUCCEEDED
    world.tick()
    assert world.records.archived == {PLAN}


def test_leftovers_of_a_failed_run_go_vm_before_disks_each_declared_first() -> None:
    world = failed()
    assert world.targets and world.volumes
    close(world)
    for _ in range(6):
        world.tick()
    assert world.records.archived == {PLAN} and not world.targets and not world.volumes
    dropped = [type(a) for a in world.acts(DropTargetVm, DropVolumes)]
    assert dropped == [DropTargetVm, DropVolumes]
    intents = [i for i in only(world).intents if i.kind is IntentKind.DELETE_TARGET]
    assert len(intents) == 2 and all(i.done_at for i in intents)


def test_lost_jobs_and_binders_of_an_ended_run_go_too() -> None:
    world = land()
    world.run()
    slug = only(world).slug
    world.jobs["j"] = Job("shop", "j", "j", JobPhase.FAILED, str(RUN), slug, "", 1, 1, "", "")
    world.binders["b"] = Binder("shop", "b", "Running", "", str(RUN), slug)
    close(world)
    for _ in range(4):
        world.tick()
    assert [type(a) for a in world.acts(DropCopy, DropBinder)][-2:] == [DropCopy, DropBinder]
    assert world.records.archived == {PLAN} and world.volumes


def test_what_another_run_took_over_stays() -> None:
    world = failed()
    world.volumes = {k: replace(v, migration=f"{NS}/other") for k, v in world.volumes.items()}
    world.targets = {}
    close(world)
    world.tick()
    assert world.records.archived == {PLAN} and world.volumes


def test_foreign_objects_of_our_names_stay() -> None:
    world = failed()
    world.volumes = {k: replace(v, ours=False) for k, v in world.volumes.items()}
    world.targets = {k: replace(v, ours=False) for k, v in world.targets.items()}
    close(world)
    for _ in range(3):
        world.tick()
    assert world.records.archived == {PLAN} and world.volumes and world.targets


def test_a_vm_that_a_person_started_stays_with_its_disks() -> None:
    world = failed()
    world.targets = {k: replace(v, power=Power.ON, run_strategy="Always") for k, v in world.targets.items()}
    close(world)
    for _ in range(3):
        world.tick()
    assert world.records.archived == {PLAN} and world.volumes and world.targets


def test_disks_wait_for_a_writer_that_is_not_fenced() -> None:
    world = failed()
    world.targets = {}
    writer = Writer("importer-1", "Running", False, True, "importer")
    world.volumes = {k: replace(v, writers=(writer,)) for k, v in world.volumes.items()}
    close(world)
    world.tick()
    assert not world.records.archived and not world.acts(DropVolumes)
    assert "ArchiveWaits" in {c.type for c in plan_status(world).conditions}
    world.volumes = {k: replace(v, writers=()) for k, v in world.volumes.items()}
    world.tick()
    world.tick()
    assert world.records.archived == {PLAN} and not world.volumes


def test_an_unknown_target_yields_no_archive() -> None:
    world = failed()
    close(world)
    observed = Observed({}, {HOST: Unknown("Unreachable", "down")})
    from reconciler.core.actions import Decision
    from reconciler.core.decide import Memory

    after, decision = archive.advance(world.desired, observed, world.records, Decision(), Memory(), world.now)
    assert not after.archived and not decision.actions
    found = plan_status(world, target_seen=False)
    assert [c.type for c in found.conditions] == ["ArchiveWaits"] and "down" in found.conditions[0].message


def test_a_refusal_for_good_waits_for_a_commit() -> None:
    world = failed()
    close(world)
    world.fail["DropTargetVm"] = ActError("terminal", "NotOurs", "it does not carry our key")
    for _ in range(5):
        world.tick()
    assert len(world.acts(DropTargetVm)) == 1 and not world.records.archived
    assert not archive.may_move(world.desired, world.records)
    assert any(c.type == "ArchiveWaits" and "our key" in c.message for c in plan_status(world).conditions)
    close(world, "c3")
    for _ in range(5):
        world.tick()
    assert world.records.archived == {PLAN} and not world.targets
    assert not [c for c in only(world).conditions if c.type == archive.BLOCKED]


def test_a_death_after_the_last_act_leaves_no_intent_open() -> None:
    world = failed()
    close(world)
    while not world.acts(DropVolumes):
        world.tick()
    world.outcomes = {}  # whoever did it is dead
    assert any(i.open for i in only(world).intents)
    world.tick()
    assert world.records.archived == {PLAN} and not any(i.open for i in only(world).intents)


def test_there_is_no_way_back() -> None:
    world = land()
    world.desired = replace(world.desired, migrations={})
    close(world)
    world.tick()
    reopened = replace(world.desired, plans={PLAN: replace(world.desired.plans[PLAN], archived=False, vms=(*_two(),))})
    world.desired = archive.sealed(reopened, world.records.archived)
    late = ObjectRef(NS, "late")
    world.desired = replace(world.desired, migrations={late: MigrationSpec(late, PLACE, PLAN)})
    for _ in range(3):
        world.tick()
    assert not world.records.runs and not world.log
    observed = Observed({}, {})
    statuses = conditions.summarize(world.desired, observed, world.records, {}, world.now)
    assert [(c.type, c.reason) for c in statuses[("Migration", late)].conditions] == [("PlanNotReady", "Archived")]
    assert archive.sealed(world.desired, frozenset()) is world.desired


def _two() -> tuple[PlanVm, ...]:
    from reconciler.core.desired import InventoryRef

    return (PlanVm(InventoryRef(name="web"), PLACE), PlanVm(InventoryRef(name="db"), PLACE))
