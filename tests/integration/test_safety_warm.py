"""The safety contract's rows about warm runs, by name: rounds, snapshots, change ids, and a cutover that a person may edit.

Over the toy (WarmLand, which judges bytes, marks and snapshots after every step) where the core alone decides; what a platform has to say
about it on the whole lab stands in test_warm.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.core import guards
from reconciler.core.actions import Action, DropSnapshot, EnsureCopy, EnsureSnapshot, PowerSource, PutMarks, PutWatermarks, StartTarget
from reconciler.core.desired import InventoryRef, MigrationSpec
from reconciler.core.model import Known, Milestone, Mode, ObjectRef, Power, Result, VmRef
from reconciler.core.record import VmRecord
from reconciler.core.target import JobPhase
from reconciler.engine.execute import Hands, execute
from tests.unit.core.lives import Fate, ToyClock
from tests.unit.core.toyland import NS, PLACE, PLAN, RUN, SOURCE, desired_for
from tests.unit.core.warmland import WarmLand, warm_vm

RUN2 = ObjectRef(NS, "run-2")
GIB = 1 << 30


def land(*, disks: int = 1, slow: int = 1) -> WarmLand:
    vm = warm_vm("web", disks=disks)
    world = WarmLand({"web": vm}, desired_for(["web"], mode=Mode.WARM, type="warm", precopy_interval_s=30.0))
    world.slow = slow
    return world


def step(world: WarmLand, fate: Fate | None = None, seconds: float = 1.0) -> None:
    world.one_pass(world.lease, fate)
    world.judge()
    world.count_strays()
    world.go_on(seconds)
    world.judge()


def live(world: WarmLand, until: Callable[[WarmLand], bool], limit: int = 300) -> None:
    for _ in range(limit):
        if until(world):
            return
        step(world)
    raise AssertionError(f"never came: {[(v.phase, v.message) for v in world.records.vms.values()]}")


def record(world: WarmLand, run: ObjectRef = RUN) -> VmRecord:
    return next(v for v in world.records.vms.values() if v.run == run)


def ours(world: WarmLand) -> list[str]:
    return [s.id for chain in world.chains.values() for s in chain if s.key]


def rounds(count: int) -> Callable[[WarmLand], bool]:
    def done(world: WarmLand) -> bool:
        known = record(world).rounds if world.records.vms else ()
        return sum(r.ended is not None and not r.abandoned for r in known) >= count

    return done


def copying(number: int, halves: int = 1) -> Callable[[WarmLand], bool]:
    """The pod of this round has written so many halves."""

    def so_far(world: WarmLand) -> bool:
        known = record(world).rounds if world.records.vms else ()
        return bool(known) and known[-1].number == number and bool(world.pods) and world.pods[0].step >= halves

    return so_far


def ended(run: ObjectRef = RUN) -> Callable[[WarmLand], bool]:
    return lambda world: any(v.run == run and v.result is not None for v in world.records.vms.values())


def edit(world: WarmLand, run: ObjectRef = RUN, **change: Any) -> None:
    old = world.desired.migrations.get(run, MigrationSpec(run, PLACE, PLAN))
    world.desired = replace(
        world.desired, revision=world.desired.revision + "'", migrations={**world.desired.migrations, run: replace(old, **change)}
    )


def cut_over(world: WarmLand, run: ObjectRef = RUN, after_s: float = 0.0) -> None:
    edit(world, run, cutover_at=world.now + timedelta(seconds=after_s))


def copies(world: WarmLand) -> list[EnsureCopy]:
    return [a for a in world.log if isinstance(a, EnsureCopy)]


def acts(world: WarmLand, kind: type[Action]) -> int:  # type: ignore[valid-type]
    return sum(isinstance(a, kind) for a in world.log)  # type: ignore[arg-type]


def succeed(world: WarmLand, run: ObjectRef = RUN) -> None:
    """LiveLand judges the bytes at the hand-over and at the start."""
    live(world, ended(run))
    assert record(world, run).result is Result.SUCCEEDED, record(world, run).message
    assert not ours(world)


# ---- row 1 ------------------------------------------------------------------------------------------------------------------------------


def at_final_copy(world: WarmLand) -> bool:
    known = list(world.records.vms.values())
    return bool(known) and known[0].milestone is Milestone.CUTOVER and known[0].phase == "CopyFinalChanges"


def test_row_01_after_the_source_ran_a_final_mark_is_a_base_and_no_proof() -> None:
    world = land()
    live(world, rounds(1))
    cut_over(world)
    live(world, at_final_copy)
    for _ in range(20):
        step(world, Fate(faults={"ProveOff": ("terminal", False)}))
        if record(world).unwinding:
            break
    live(world, ended())
    assert record(world).result is Result.FAILED
    assert world.vms["web"].power is Power.ON, "the source was given back"
    for _ in range(100):
        world.go_on()
    known = len(copies(world))
    mark = next(iter(world.volumes.values())).mark
    assert mark is not None and mark.change_id is not None
    edit(world, RUN2)
    live(world, lambda w: len(copies(w)) > known)
    again = copies(world)[known]
    assert [d.since for d in again.disks] == [mark.change_id], "what was proven is the base of the next copy"
    assert again.at is not None
    cut_over(world, RUN2)
    succeed(world, RUN2)


def test_row_01_the_mark_of_a_round_never_starts_a_target() -> None:
    """The source goes off by itself behind a round, in the very epoch that the round's marks name."""
    world = land()
    live(world, rounds(1))
    world.power_off("web")
    volume = next(iter(world.volumes.values()))
    vm, target = world.vms["web"], next(iter(world.targets.values()))
    assert volume.mark is not None and volume.mark.epoch == vm.epoch, "only the number tells them apart"
    why = guards.may_start_target(
        Known(vm), vm.uuid, vm.epoch or "", volume.mark.round + 1, Known(target), ((vm.disks[0].uuid, Known(volume)),), target.source
    )
    assert why is not None and "not final" in why
    cut_over(world)
    succeed(world)
    assert copies(world)[-1].at is None, "a final copy was made"
    start = next(a for a in world.log if isinstance(a, StartTarget))
    assert start.number == record(world).rounds[-1].number
    assert record(world).rounds[-1].final


# ---- row 5 ------------------------------------------------------------------------------------------------------------------------------


class Untouchable:
    """Sites that nobody may ask for anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for without a lease")


class Lease:
    def __init__(self, age_s: float | None) -> None:
        self.lease_age_s = lambda: age_s


@pytest.mark.parametrize("age_s", [None, 180.0, 600.0])
@pytest.mark.parametrize("kind", [EnsureSnapshot, DropSnapshot])
def test_row_05_a_sleeper_makes_and_removes_no_snapshot(kind: Any, age_s: float | None) -> None:
    act = kind((RUN, "web"), SOURCE, VmRef(SOURCE, "vc", "vm-1", "uuid-web", "web"), "key")
    hands = Hands(Untouchable(), Lease(age_s), ToyClock(land()), 180.0)  # type: ignore[arg-type]
    outcome = execute(act, hands)
    assert outcome.error is not None and outcome.error.reason == "LeaseLost"


def test_row_05_a_start_is_void_when_the_source_was_booted_behind_the_intent() -> None:
    world = land()
    live(world, rounds(1))
    cut_over(world)
    live(world, at_final_copy)
    while record(world).milestone is not Milestone.HANDED_OVER:
        step(world, Fate(between=lambda: world.power_on("web") if record(world).milestone is Milestone.HANDED_OVER else None))
    assert not world.started
    for _ in range(5):
        step(world)
    assert not world.started
    world.power_off("web")
    succeed(world)


# ---- row 7 ------------------------------------------------------------------------------------------------------------------------------


def test_row_07_a_cluster_set_back_to_before_its_target_ran_believes_no_mark() -> None:
    """The restored mark and the restored VM agree; only git knows that a guest ran on the disk in between."""
    world = land()
    live(world, rounds(1))
    world.back_up()
    world.person_starts("web")
    for _ in range(3):
        step(world)
    assert "a guest runs" in record(world).message
    known = len(copies(world))
    world.restore_cluster(-1)
    (volume,) = world.volumes.values()
    assert volume.mark is not None and volume.mark.target == f"{world.targets['web'].uid}/{world.targets['web'].generation}"
    cut_over(world)
    succeed(world)
    assert [d.since for d in copies(world)[known].disks] == [None], "a copy of the time before counted"


def test_row_07_a_volume_that_is_lost_in_mid_copy_fails_the_vm_and_keeps_nothing() -> None:
    """A backup of the cluster brought its PVC back without it. What the copy says to have proven by then is written down nowhere."""
    world = land(slow=3)
    live(world, copying(1))
    (volume,) = world.volumes.values()
    world.forget(volume.name)
    world.volumes[volume.name] = replace(volume, phase="Lost")
    written = acts(world, PutWatermarks)
    live(world, ended())
    error = record(world).error
    assert error is not None and error.reason == "VolumeLost"
    assert acts(world, PutWatermarks) == written and not world.volumes and not ours(world)


# ---- row 9 ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forgotten", [False, True])
def test_row_09_a_boot_between_cutover_and_hand_over_costs_one_more_delta_or_compare(forgotten: bool) -> None:
    world = land()
    live(world, rounds(1))
    cut_over(world)
    live(world, at_final_copy)
    known = len(copies(world))
    world.power_on("web")
    for _ in range(3):
        world.go_on()
    world.power_off("web")
    if forgotten:
        world.forget_changes("web")
    succeed(world)
    more = copies(world)[known:]
    assert more and more[-1].at is None, "the changes of that boot were not looked for"
    (wish,) = more[-1].disks
    assert (wish.since is None and wish.compare) if forgotten else wish.since is not None


# ---- row 12 -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["in a round", "between rounds", "at the cutover"])
@pytest.mark.parametrize("change", ["added", "grown", "removed"])
def test_row_12_other_disks_hold_the_vm_with_the_guest_up_and_no_snapshot(change: str, when: str) -> None:
    world = land(disks=2, slow=3)
    live(world, copying(2) if when == "in a round" else rounds(1))
    vm = world.vms["web"]
    first, second = vm.disks
    match change:
        case "added":
            world.version["added"] = [1, 1]
            vm = replace(vm, disks=(*vm.disks, replace(second, key="9", uuid="added", unit=9)))
        case "grown":
            vm = replace(vm, disks=(first, replace(second, capacity_bytes=2 * GIB)))
        case "removed":
            vm = replace(vm, disks=(first,))
    if when == "at the cutover":
        cut_over(world)
    world.vms["web"] = vm
    for _ in range(60):
        step(world)
    assert [c.type for c in record(world).conditions] == ["SourceChanged"]
    assert world.vms["web"].power is Power.ON
    assert not ours(world)


# ---- row 14 -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vddk", ["", "registry.example.com/vddk:8"])
def test_row_14_a_cutover_in_the_first_copy_keeps_what_was_proven(vddk: str) -> None:
    world = land(slow=4)
    world.desired = replace(world.desired, limits=replace(world.desired.limits, vddk_image=vddk))
    live(world, copying(1))
    cut_over(world)
    succeed(world)
    final = copies(world)[-1]
    assert final.at is None
    assert {d.path for d in final.disks} == {"vddk" if vddk else "datastore"}
    assert [(d.since is not None, d.rest_from) for d in final.disks] == [(True, GIB // 2)], "rest beyond the watermark, and changes"


def test_row_14_a_mark_that_counts_no_more_does_not_hide_what_a_copy_has_proven() -> None:
    """Somebody started the target and stopped it, unseen: all is copied again, and a cutover keeps what was proven by then."""
    world = land(slow=4)
    live(world, rounds(1))
    world.person_starts("web")
    world.person_stops("web")
    live(world, copying(2))
    assert copies(world)[-1].disks[0].since is None, "the mark of a time before counted"
    cut_over(world)
    succeed(world)
    assert acts(world, PutWatermarks) < 10, "it was written down again and again"


def test_row_14_a_watermark_of_an_earlier_run_counts_for_no_snapshot_of_this_one() -> None:
    """A vCenter that was restored gives a snapshot's id out again; round and PVC are the same, too."""

    class Restored(WarmLand):
        def freeze(self, uuid: str, key: str | None) -> None:
            super().freeze(uuid, key)
            self.chains[uuid][-1] = replace(self.chains[uuid][-1], id="snap-again")

    world = land()
    world.__class__ = Restored
    live(world, copying(1))
    world.end_pod(world.pods[0], 65)
    live(world, lambda w: record(w).unwinding)
    uuid = world.vms["web"].uuid
    world.remove(uuid, world.chains[uuid][0])  # by somebody: so nothing of it is kept as a mark
    live(world, ended())
    (volume,) = world.volumes.values()
    assert record(world).result is Result.FAILED and volume.mark is None and volume.watermark is not None
    edit(world, RUN2)
    live(world, lambda w: any(a.job.owner.migration == str(RUN2) for a in copies(w)))
    assert [d.resume_bytes for d in copies(world)[-1].disks] == [0]
    live(world, lambda w: any(r.ended and not r.abandoned for r in record(w, RUN2).rounds))
    cut_over(world, RUN2)
    succeed(world, RUN2)


def test_row_14_a_cutover_in_a_later_round_discards_it() -> None:
    world = land(slow=4)
    live(world, copying(2))
    base = next(iter(world.volumes.values())).mark
    assert base is not None and base.round == 1
    cut_over(world)
    live(world, lambda w: copies(w)[-1].at is None)
    assert record(world).rounds[-2].abandoned
    assert [(d.since, d.rest_from) for d in copies(world)[-1].disks] == [(base.change_id, GIB)], "final = changes since the last mark"
    succeed(world)


@pytest.mark.parametrize("halves", [1, 2])
def test_row_14_our_snapshot_consolidated_while_it_is_read_makes_no_mark(halves: int) -> None:
    world = land(slow=3)
    live(world, copying(1, halves))
    uuid = world.vms["web"].uuid
    world.remove(uuid, world.chains[uuid][0])
    marked = acts(world, PutMarks)
    live(world, lambda w: bool(record(w).rounds[0].abandoned))
    assert acts(world, PutMarks) == marked, "marked from a snapshot that was gone"
    live(world, rounds(1))
    (wish,) = copies(world)[-1].disks
    assert (wish.resume_bytes, wish.since) == (0, None), "a watermark of another round counted"
    cut_over(world)
    succeed(world)


def test_row_14_the_snapshot_outlives_its_reader() -> None:
    """The node is out of contact: nobody can say that the pod reads no more."""
    world = land(slow=3)
    live(world, copying(2))
    (pod,) = world.pods
    pod.lost = True
    cut_over(world)
    for _ in range(60):
        step(world)
    assert len(ours(world)) == 1
    assert "WriterNotFenced" in record(world).message
    assert world.vms["web"].power is Power.ON, "the cutover waits for it, with the guest up"
    world.pods.clear()
    succeed(world)


# ---- row 15 -----------------------------------------------------------------------------------------------------------------------------


def _toggle(world: WarmLand) -> None:
    world.track("web", False)
    world.track("web", True)


def _revert(world: WarmLand) -> None:
    uuid = world.vms["web"].uuid
    world.freeze(uuid, None)
    world.go_on(5.0)
    world.revert("web")
    world.remove(uuid, world.chains[uuid][0])
    world.power_on("web")


@pytest.mark.parametrize("doubt", [lambda w: w.forget_changes("web"), _toggle, _revert], ids=["reset", "toggle", "revert"])
@pytest.mark.parametrize("final", [False, True], ids=["round", "cutover"])
def test_row_15_a_change_id_in_doubt_is_a_compare_round(doubt: Callable[[WarmLand], None], final: bool) -> None:
    world = land()
    live(world, rounds(1))
    known = len(copies(world))
    doubt(world)
    if final:
        cut_over(world)
    live(world, rounds(2) if not final else ended())
    asked, compared = copies(world)[known : known + 2]
    assert [d.since is not None for d in asked.disks] == [True], "it was asked for"
    assert [(d.since, d.compare, d.resume_bytes) for d in compared.disks] == [(None, True, 0)]
    assert any(r.doubts for r in record(world).rounds)
    if not final:
        cut_over(world)
    succeed(world)


@pytest.mark.parametrize("final", [False, True], ids=["round", "cutover"])
def test_row_15_what_a_first_attempt_proved_of_doubted_changes_counts_no_more(final: bool) -> None:
    """An attempt of the round dies half-way; before the next one the change ids are lost: all is compared, from the first byte."""
    world = land(slow=4)
    live(world, rounds(1))
    for _ in range(2):
        world.write("web")
    if final:
        cut_over(world)
    number = record(world).rounds[-1].number + 1
    live(world, copying(number))
    world.end_pod(world.pods[0], 75, "SourceUnreachable")
    live(world, lambda w: any(v.watermark for v in w.volumes.values()))
    world.forget_changes("web")
    known = len(copies(world))
    live(world, lambda w: bool(record(w).rounds[-1].doubts) and len(copies(w)) > known + 1)
    (wish,) = copies(world)[-1].disks
    assert (wish.since, wish.compare, wish.resume_bytes) == (None, True, 0)
    if not final:
        cut_over(world)
    succeed(world)


# ---- row 19 -----------------------------------------------------------------------------------------------------------------------------


def test_row_19_a_cutover_is_edited_until_the_power_off_is_declared() -> None:
    world = land()
    world.obey_shutdown = False
    cut_over(world, after_s=100.0)
    live(world, rounds(1))
    cut_over(world, after_s=1000.0)
    for _ in range(200):
        step(world)
    assert not acts(world, PowerSource)
    edit(world, cutover_at=None)
    for _ in range(100):
        step(world)
    assert not acts(world, PowerSource)
    cut_over(world)
    live(world, lambda w: acts(w, PowerSource) > 0)
    cut_over(world, after_s=100_000.0)
    edit(world, cutover_at=None)
    for _ in range(10):
        step(world)
    world.power_off("web")
    succeed(world)
    assert acts(world, PowerSource) == 1


@pytest.mark.parametrize("skew_s", [61.0, -86_400.0])
def test_row_19_a_cutover_waits_while_the_clocks_differ(skew_s: float) -> None:
    world = land()
    live(world, rounds(1))
    world.skew_s = skew_s
    cut_over(world)
    for _ in range(60):
        step(world)
    assert not acts(world, PowerSource)
    assert "clock" in record(world).message
    world.skew_s = 59.0
    succeed(world)


def test_row_19_a_read_that_takes_long_is_no_difference_of_clocks() -> None:
    world = land()
    live(world, rounds(1))
    world.read_s = 90.0
    cut_over(world)
    succeed(world)


# ---- row 20 -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["cancel", "failure", "cutover"])
def test_row_20_a_snapshot_in_the_making_is_waited_for_and_goes(why: str) -> None:
    """The site takes its time over it: whoever ends the round first would leave it behind."""
    world = land()
    world.one_pass(world.lease)
    while not world.tasks:
        world.go_on()
        world.one_pass(world.lease)
    match why:
        case "cancel":
            edit(world, cancel=(InventoryRef(name="web"),))
        case "failure":
            world.one_pass(world.lease, Fate(faults={"EnsureSnapshot": ("terminal", False)}))
        case "cutover":
            cut_over(world)
    for _ in range(20):
        world.one_pass(world.lease)
        world.now += timedelta(seconds=5)
        world.judge()
    assert record(world).result is None and not acts(world, PowerSource)
    live(world, ended())
    assert record(world).result is {"cancel": Result.CANCELED, "failure": Result.FAILED, "cutover": Result.SUCCEEDED}[why]
    assert not ours(world)


def test_row_20_no_snapshot_of_ours_between_rounds() -> None:
    world = land()
    live(world, rounds(1))
    rested = 0
    for _ in range(200):
        step(world)
        if record(world).rounds[-1].ended is not None and record(world).next_round_at is not None and not world.tasks:
            rested += 1
            assert not ours(world)
    assert rested > 50
    assert rounds(4)(world)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("die", ["published", "acted"])
def test_row_20_nor_after_a_death_at_any_step(die: str, eager: bool) -> None:
    """`eager` False: what is not urgent was not in git yet when it died."""
    for at in range(4, 34):
        world = land()
        for _ in range(at):
            step(world, Fate(eager=eager))
        step(world, Fate(die=die, eager=eager))
        live(world, rounds(2))
        for _ in range(3):
            step(world)
        assert not ours(world), at
        cut_over(world)
        succeed(world)


def test_row_20_a_cancel_while_the_snapshot_is_made_leaves_none() -> None:
    """The site still makes it when the run is undone."""
    for delay in range(1, 12):
        world = land()
        live(world, lambda w: acts(w, EnsureSnapshot) > 0)
        world.chains, held = {k: [] for k in world.chains}, world.tasks
        world.tasks = [(u, k, lambda: None) for u, k, _ in held]
        edit(world, cancel=(world.desired.plans[PLAN].vms[0].ref,))
        for _ in range(delay):
            world.tasks = [(u, k, lambda: None) for u, k, _ in held]
            step(world)
        world.tasks = held
        live(world, ended())
        for _ in range(5):
            step(world)
        assert not ours(world), f"a snapshot that came {delay} s late stays for ever"


def test_row_20_what_our_removal_leaves_behind_is_consolidated() -> None:
    world = land()
    world.sloppy = True
    live(world, rounds(3))
    assert not world.leftovers or record(world).rounds[-1].ended is None or world.tasks or rounds(3)(world)
    cut_over(world)
    succeed(world)
    assert not world.leftovers
    assert not any(r.abandoned for r in record(world).rounds)


@pytest.mark.parametrize("when", ["before the run", "between rounds", "in a round", "by a cancel"])
def test_row_20_files_that_others_left_are_not_merged(when: str) -> None:
    """With VDDK, which reads any chain. The toy judges each merge."""
    world = land(slow=3)
    world.desired = replace(world.desired, limits=replace(world.desired.limits, vddk_image="registry.example.com/vddk:8"))
    uuid = world.vms["web"].uuid
    if when in ("between rounds", "in a round"):
        live(world, rounds(1) if when == "between rounds" else copying(2))
        world.freeze(uuid, None)
        for _ in range(2):
            step(world)
        world.remove(uuid, next(s for s in world.chains[uuid] if s.key is None))
    world.leftovers.add(uuid)
    world.theirs.add(uuid)
    if when == "by a cancel":
        live(world, lambda w: acts(w, EnsureSnapshot) > 0)
        edit(world, cancel=(InventoryRef(name="web"),))
        live(world, ended())
        assert acts(world, DropSnapshot), "nothing was looked for"
    else:
        live(world, rounds(3))
        cut_over(world)
        succeed(world)
    assert uuid in world.leftovers and not ours(world)


def test_row_20_where_a_flat_file_is_read_they_hold_the_vm_until_their_owner_has_merged_them() -> None:
    world = land()
    live(world, rounds(1))
    uuid = world.vms["web"].uuid
    world.freeze(uuid, None)
    step(world)
    world.remove(uuid, world.chains[uuid][0])
    world.leftovers.add(uuid)
    world.theirs.add(uuid)
    cut_over(world)
    for _ in range(60):
        step(world)
    assert [c.reason for c in record(world).conditions] == ["ChainChanged"] and "consolidat" in record(world).message
    assert world.vms["web"].power is Power.ON
    world.leftovers.clear()
    world.theirs.clear()
    succeed(world)


def test_row_14_a_bulk_read_that_still_shows_the_snapshot_makes_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    world = land(slow=3)
    live(world, lambda w: any(j.phase is JobPhase.SUCCEEDED for j in w.jobs.values()))
    stale, uuid = world.inventory(), world.vms["web"].uuid
    monkeypatch.setattr(world, "inventory", lambda: stale)
    world.remove(uuid, world.chains[uuid][0])
    marked = acts(world, PutMarks)
    live(world, lambda w: bool(record(w).rounds[0].abandoned))
    assert acts(world, PutMarks) == marked
    monkeypatch.undo()
    cut_over(world)
    succeed(world)


def test_row_20_tracking_that_a_snapshot_does_not_confirm_costs_two_snapshots_and_no_more() -> None:
    """The settings say that it is on; no snapshot tells a change id."""
    world = land()
    freeze = world.freeze

    def without_ids(uuid: str, key: str | None) -> None:
        freeze(uuid, key)
        world.chains[uuid][-1].ids.clear()

    world.freeze = without_ids  # type: ignore[method-assign]
    for _ in range(200):
        step(world)
    assert [c.type for c in record(world).conditions] == ["VMMissingChangedBlockTracking"]
    assert acts(world, EnsureSnapshot) == 2 and not ours(world)
    assert [r.abandoned for r in record(world).rounds] == ["the snapshot tells no change id for some disk"] * 2
