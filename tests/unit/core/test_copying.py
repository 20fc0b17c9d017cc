"""Several disks in one copy: what became of each is told apart, and a mark is never ahead of its bytes."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.actions import EnsureCopy, PutMarks
from reconciler.core.desired import MigrationSpec
from reconciler.core.model import MarkState, Mode, ObjectRef, Power, Result, Watermark
from reconciler.core.target import Writer
from tests.unit.core.lives import Fate
from tests.unit.core.test_decide import land, only
from tests.unit.core.toyland import GIB, NS, PLACE, PLAN, Toyland, desired_for, source_vm
from tests.unit.core.warmland import WarmLand, warm_vm

GOOD, BAD = "disk-web-0", "disk-web-1"


def two_disks(*, power: Power = Power.ON) -> Toyland:
    world = land("web")
    world.vms["web"] = source_vm("web", disks=2, power=power)
    world.broken = {BAD}
    return world


def copies(world: Toyland) -> list[list[str]]:
    return [[d.disk_uuid for d in a.disks] for a in world.acts(EnsureCopy) if isinstance(a, EnsureCopy)]


def marked(world: Toyland) -> list[str]:
    return sorted(v.mark.disk_uuid for v in world.volumes.values() if v.mark is not None)


def ticks(world: Toyland, count: int) -> None:
    for _ in range(count):
        world.tick()


def test_the_good_disk_of_a_failed_copy_is_not_copied_again() -> None:
    world = two_disks()
    ticks(world, 40)
    assert marked(world) == [GOOD]
    assert copies(world)[0] == [GOOD, BAD] and len(copies(world)) > 2
    assert all(again == [BAD] for again in copies(world)[1:]), copies(world)
    world.broken = set()
    world.run(passes=100)
    vm = only(world)
    assert vm.result is Result.SUCCEEDED, vm.message
    assert marked(world) == [GOOD, BAD]
    assert all(d.marked and d.read_bytes for d in vm.disks), "what each came to is kept, though two Jobs told it"


def test_it_is_kept_for_the_next_run_when_the_other_one_fails_for_good() -> None:
    world = two_disks(power=Power.OFF)
    world.job_exit = [65]
    world.run()
    assert only(world).result is Result.FAILED
    assert marked(world) == [GOOD]
    again = ObjectRef(NS, "run-2")
    world.desired = replace(world.desired, migrations={**world.desired.migrations, again: MigrationSpec(again, PLACE, PLAN)})
    world.broken = set()
    world.run(passes=100)
    assert [r.result for r in world.records.runs.values()] == [Result.FAILED, Result.SUCCEEDED]
    assert copies(world) == [[GOOD, BAD], [BAD]]


def test_nothing_is_marked_while_a_pod_may_still_write() -> None:
    world = two_disks()
    while not world.jobs:
        world.tick()
    lost = Writer("importer", "Failed", False, True, "importer")
    world.volumes = {k: replace(v, writers=(lost,)) for k, v in world.volumes.items()}
    ticks(world, 20)
    assert not world.acts(PutMarks) and "WriterNotFenced" in only(world).message
    assert world.jobs, "what it told would be lost with it"
    world.volumes = {k: replace(v, writers=()) for k, v in world.volumes.items()}
    ticks(world, 3)
    assert marked(world) == [GOOD]


def test_a_disk_that_a_conversion_has_touched_is_not_marked_by_a_failed_copy() -> None:
    world = two_disks()
    while not world.jobs:
        world.tick()
    job = next(iter(world.jobs.values()))
    world.jobs = {}
    world.broken = set()
    while not marked(world):
        world.tick()
    world.volumes = {k: replace(v, mark=replace(v.mark, state=MarkState.CONVERTED)) for k, v in world.volumes.items() if v.mark}
    world.jobs = {job.name: replace(job, attempt=9)}
    world.broken = {BAD}
    before = len(world.acts(PutMarks))
    ticks(world, 5)
    assert len(world.acts(PutMarks)) == before


# ---- warm -----------------------------------------------------------------------------------------------------------------------------


def warm() -> WarmLand:
    world = WarmLand({"web": warm_vm("web", disks=2)}, desired_for(["web"], mode=Mode.WARM, type="warm", precopy_interval_s=30.0))
    while not world.pods:
        step(world)
    while world.pods[0].step < 2:
        step(world)
    return world


def step(world: WarmLand) -> None:
    world.one_pass(world.lease, Fate(eager=True))
    world.judge()
    world.go_on(1.0)
    world.judge()


def test_a_round_marks_what_is_good_and_copies_the_rest_of_the_same_snapshot() -> None:
    world = warm()
    world.end_pod(world.pods[0], 75)
    for _ in range(20):
        step(world)
    vm = only(world)
    first = next(r for r in vm.rounds if r.number == 1)
    assert first.ended is not None and not first.abandoned
    assert copies(world)[:2] == [[GOOD, BAD], [BAD]]
    assert first.read_bytes == 2, "of both Jobs"


def test_a_round_marks_nothing_of_a_snapshot_that_somebody_removed() -> None:
    world = warm()
    before = world.inventory()
    world.remove("uuid-web", world.chains["uuid-web"][0])
    world.end_pod(world.pods[0], 75)
    world.inventory = lambda: before  # type: ignore[method-assign]  # the bulk look lags
    for _ in range(6):
        step(world)
    assert not marked(world)
    assert only(world).rounds[0].abandoned


def test_the_refused_base_of_one_disk_does_not_hold_up_the_other() -> None:
    """Two datastores: one lets the base of a running VM be read, the other one does not."""
    world = warm()
    world.end_pod(world.pods[0], 75, "SourceLocked")
    world.progress_of.clear()
    world.volumes = {k: v if v.key.endswith(GOOD) else replace(v, watermark=None) for k, v in world.volumes.items()}
    for _ in range(4):
        step(world)
    assert marked(world) == [GOOD]
    assert only(world).base_unreadable


def test_a_stream_goes_on_only_where_it_was_whole() -> None:
    """Of two exported disks one was through when the pod was killed; nothing can be resumed in the middle of the other."""
    world = land("web")
    vm = source_vm("web", disks=2, power=Power.OFF)
    world.vms["web"] = replace(vm, disks=tuple(replace(d, backing=replace(d.backing, datastore_type="vsan")) for d in vm.disks))
    world.job_exit = [137]
    while not world.jobs:
        world.tick()
    job = next(iter(world.jobs.values()))
    world.jobs[job.name] = replace(job, termination_message="")
    proven = {GOOD: GIB, BAD: GIB // 2}
    world.volumes = {k: replace(v, watermark=Watermark(job.round_key, proven[v.key.partition("/")[2]])) for k, v in world.volumes.items()}
    ticks(world, 10)
    last = world.acts(EnsureCopy)[-1]
    assert isinstance(last, EnsureCopy) and last.job.attempt == 2
    assert [(d.path, d.resume_bytes) for d in last.disks] == [("export", GIB), ("export", 0)]
