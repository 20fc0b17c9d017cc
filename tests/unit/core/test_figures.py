"""Figures of a move: a downtime that is never understated, whose it was, and what rounds tell of the cutover to come."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from reconciler.core import figures, warming
from reconciler.core.actions import ActError, EnsureCopy, PowerSource, StartTarget
from reconciler.core.figures import Downtime
from reconciler.core.model import Milestone, Mode, ObjectRef, Power, Result
from reconciler.core.record import Instant, Intent, IntentKind, Outage, RoundRecord, VmRecord
from reconciler.core.warming import KEPT_ROUNDS
from tests.unit.core.lives import Fate
from tests.unit.core.toyland import NS, Toyland, desired_for, source_vm
from tests.unit.core.warmland import WarmLand, warm_vm

START = datetime.fromisoformat("2026-11-24T14:00:00+00:00")
MIB = 1 << 20


def land(**source: object) -> Toyland:
    return Toyland({"web": replace(source_vm("web"), **source)}, desired_for(["web"]))  # type: ignore[arg-type]


def only(world: Toyland) -> VmRecord:
    return next(iter(world.records.vms.values()))


def until(world: Toyland, kind: type, passes: int = 60) -> datetime:
    """Ticks until an act of this kind was done; its time."""
    for _ in range(passes):
        world.tick()
        if world.acts(kind):
            return world.now
    raise AssertionError(f"no {kind.__name__}: {only(world).message}")


def outage(world: Toyland) -> Outage:
    found = only(world).outage
    assert found is not None
    return found


# ---- downtime -------------------------------------------------------------------------------------------------------------------------


def test_from_the_guest_off_to_the_target_on_and_all_but_the_moving_of_bytes_is_ours() -> None:
    world = land()
    off = until(world, PowerSource)
    on = until(world, StartTarget) + timedelta(seconds=1)  # seen by the next pass
    world.run()
    assert outage(world) == Outage(Instant(off), Instant(on))
    down = figures.downtime(only(world))
    seconds = (on - off).total_seconds()
    assert down == Downtime(off, seconds, copy_s=1.0, ours_s=seconds - 1.0)


def test_a_guest_that_takes_its_time_is_down_only_once_it_is_off() -> None:
    world = land()
    world.obey_shutdown = False
    asked = until(world, PowerSource)
    for _ in range(7):
        world.tick()
    world.power_off("web")
    world.tick()
    assert outage(world).off_at == asked + timedelta(seconds=7), "when it was last seen on"


def test_a_process_that_saw_nothing_counts_from_where_the_shutdown_was_declared() -> None:
    world = land()
    asked = until(world, PowerSource)
    world.seen_on.clear()
    world.now += timedelta(hours=1)
    world.tick()
    assert outage(world).off_at == asked


def test_while_it_lasts_it_has_no_end() -> None:
    world = land()
    off = until(world, PowerSource)
    until(world, EnsureCopy)
    assert figures.downtime(only(world)) == Downtime(off)


def test_a_vm_that_was_off_has_none_and_one_that_stays_off_as_asked_neither() -> None:
    world = land(power=Power.OFF, tools_running=False)
    world.run()
    assert only(world).result is Result.SUCCEEDED
    assert only(world).outage is None and figures.downtime(only(world)) is None
    left_off = VmRecord(ObjectRef(NS, "r"), "s", ObjectRef(NS, "p"), "web", result=Result.SUCCEEDED, outage=Outage(Instant(START)))
    assert figures.downtime(left_off) is None


def test_a_source_that_is_given_back_ends_it_and_nothing_of_it_counts_as_ours() -> None:
    world = land()
    world.fail["EnsureCopy"] = ActError("terminal", "DiskPathNotSupported", "no")
    off = until(world, PowerSource)
    world.run()
    assert only(world).result is Result.FAILED and world.vms["web"].power is Power.ON
    down = figures.downtime(only(world))
    assert down is not None and down.since == off and down.seconds is not None and down.ours_s is None


def test_a_source_that_somebody_starts_after_the_cutover_is_down_from_its_second_end() -> None:
    world = land()
    world.job_exit = [75]
    until(world, EnsureCopy)
    world.power_on("web")
    world.tick()
    assert only(world).milestone is Milestone.CUTOVER and outage(world).back_at == world.now
    last_on = world.now
    world.power_off("web")
    world.run()
    assert only(world).result is Result.SUCCEEDED, only(world).message
    assert outage(world).off_at == last_on


def test_what_is_said_before_a_commit_is_what_is_read_after_it() -> None:
    world = land()
    world.now += timedelta(microseconds=345_678)
    until(world, PowerSource)
    world.run()
    assert {outage(world).off_at.microsecond, (outage(world).back_at or world.now).microsecond} == {345_000}


def test_a_void_intent_tells_nothing() -> None:
    """Only an intent that stood can have switched the guest off."""
    world = land()
    until(world, PowerSource)
    record = only(world)
    void = Intent(IntentKind.POWER_OFF_SOURCE, START, void="a cancel came")
    world.records = replace(world.records, vms={record.key: replace(record, intents=(void,))})
    world.seen_on.clear()
    world.tick()
    assert outage(world).off_at == world.now


# ---- rounds ---------------------------------------------------------------------------------------------------------------------------


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def done(number: int, began: float, mib: int, **more: object) -> RoundRecord:
    made = RoundRecord(number, at(began), snapshot=f"s{number}", ended=at(began + 2), read_bytes=mib * MIB, seconds=mib / 100)
    return replace(made, **more)  # type: ignore[arg-type]


def warm(*rounds: RoundRecord, **more: object) -> VmRecord:
    base = VmRecord(ObjectRef(NS, "r"), "s", ObjectRef(NS, "p"), "web", phase="Precopy", rounds=rounds, next_round_at=at(120))
    return replace(base, **more)  # type: ignore[arg-type]


def rounds(vm: VmRecord) -> figures.Rounds:
    found = figures.rounds(vm)
    assert found is not None
    return found


def test_a_cold_vm_has_no_rounds() -> None:
    assert figures.rounds(warm()) is None


def test_between_two_rounds() -> None:
    first, second = done(1, 0, 1000), done(2, 60, 360)
    known = rounds(warm(first, second))
    assert (known.whole, known.last, known.under_way, known.rests, known.once) == (2, second, None, True, False)
    assert known.change_rate == pytest.approx(360 * MIB / 3600)
    assert known.next_at == at(120)
    assert known.expected_downtime_s(at(60)) == pytest.approx(10.0)
    assert known.expected_downtime_s(at(160)) == pytest.approx(10.0 + 600 / 100), "10 MiB in each 100 s, at 100 MiB/s"


def test_before_two_rounds_nothing_is_known_of_the_changes() -> None:
    known = rounds(warm(done(1, 0, 1000)))
    assert known.change_rate is None and known.expected_downtime_s(at(5)) is None and known.next_at == at(120)


def test_what_was_dropped_counts_not_and_is_told() -> None:
    known = rounds(warm(done(1, 0, 1000), done(2, 60, 5, abandoned="its snapshot was removed")))
    assert (known.whole, known.dropped, known.last) == (1, 1, done(1, 0, 1000))


def test_a_round_under_way_and_a_cutover() -> None:
    running = RoundRecord(2, at(60))
    known = rounds(warm(done(1, 0, 1000), running, next_round_at=None))
    assert (known.under_way, known.rests, known.next_at) == (running, False, None)
    off = (Intent(IntentKind.POWER_OFF_SOURCE, at(61)),)
    cut = rounds(warm(done(1, 0, 1000), done(2, 60, 9), intents=off))
    assert not cut.rests and cut.next_at is None and cut.expected_downtime_s(at(62)) is None
    final = rounds(warm(done(1, 0, 1000), done(2, 60, 9, final=True), intents=off, milestone=Milestone.CUTOVER))
    assert (final.whole, final.last) == (1, done(1, 0, 1000))


def test_a_base_that_cannot_be_read_has_one_round_and_then_only_the_cutover() -> None:
    known = rounds(warm(done(1, 0, 1000), base_unreadable="HTTP 500"))
    assert known.once and known.rests and known.next_at is None


def test_rounds_that_the_record_has_forgotten_still_count() -> None:
    world = WarmLand({"web": warm_vm("web")}, desired_for(["web"], mode=Mode.WARM, type="warm", precopy_interval_s=1.0))
    for _ in range(600):
        world.one_pass(world.lease, Fate(eager=True))
        world.go_on(1.0)
        record = next(iter(world.records.vms.values()), None)
        if record is not None and record.rounds and record.rounds[-1].number > KEPT_ROUNDS + 5 and warming.rests(record):
            break
    assert record is not None and len(record.rounds) == KEPT_ROUNDS and not any(r.abandoned for r in record.rounds)
    assert rounds(record).whole == record.rounds[-1].number > KEPT_ROUNDS + 5


def test_the_final_round_is_the_copy_of_a_warm_downtime() -> None:
    gone = Outage(Instant(at(61)), Instant(at(62)))
    vm = warm(done(1, 0, 1000), done(2, 61, 400, final=True), milestone=Milestone.HANDED_OVER, outage=gone)
    assert figures.downtime(vm) == Downtime(at(61), 60.0, copy_s=4.0, ours_s=56.0)
    assert figures.copied_off_bytes(vm) == 400 * MIB
