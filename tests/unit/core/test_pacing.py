"""When the next round comes: the intervals, a downtime budget with its least pause, and rounds that came to nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from reconciler.core import pacing
from reconciler.core.copyspec import Verify
from reconciler.core.model import Mode
from reconciler.core.record import RoundRecord, VmRecord
from tests.unit.core.test_decide import only
from tests.unit.core.toyland import PLAN, desired_for
from tests.unit.core.warmland import WarmLand, warm_vm

AT = datetime(2026, 3, 1, tzinfo=UTC)
MIB = 1 << 20
HOUR = 3600.0


def world_of(**plan: float) -> WarmLand:
    desired = desired_for(["web"], mode=Mode.WARM, type="warm", precopy_interval_s=None)
    desired = replace(desired, plans={PLAN: replace(desired.plans[PLAN], **plan)})  # type: ignore[arg-type]
    return WarmLand({"web": warm_vm("web")}, desired)


def vm_of(*rounds: RoundRecord, budget_s: float | None = None, interval_s: float | None = None, verify: Verify = Verify.NONE) -> VmRecord:
    """Of a VM whose plan says so; frozen by the real decide()."""
    world = world_of()
    world.one_pass(world.lease)
    vm = only(world)
    assert vm.frozen is not None
    frozen = replace(vm.frozen, downtime_budget_s=budget_s, precopy_interval_s=interval_s, verify=verify)
    return replace(vm, rounds=rounds, frozen=frozen)


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def first(length_s: float = 100.0) -> RoundRecord:
    """10 GiB at 100 MiB/s."""
    return RoundRecord(1, at(0), ended=at(length_s), read_bytes=10_000 * MIB, seconds=100.0)


def delta(number: int, begin_s: float, mib: int, length_s: float = 20.0) -> RoundRecord:
    return RoundRecord(number, at(begin_s), ended=at(begin_s + length_s), read_bytes=mib * MIB, seconds=mib / 100.0)


def lost(number: int, begin_s: float, why: str = "its snapshot is gone") -> RoundRecord:
    return RoundRecord(number, at(begin_s), ended=at(begin_s + 5.0), abandoned=why)


def due_s(vm: VmRecord, now_s: float = 0.0) -> float:
    return (pacing.next_round(vm, HOUR, at(now_s))[0] - AT).total_seconds()


def why(vm: VmRecord) -> str:
    return pacing.next_round(vm, HOUR, at(0))[1]


# ---- intervals ------------------------------------------------------------------------------------------------------------------------


def test_the_first_comes_at_once_and_the_next_an_interval_after_the_end() -> None:
    assert due_s(vm_of(), 7.0) == 7.0
    assert due_s(vm_of(first())) == 100.0 + HOUR
    assert due_s(vm_of(first(), delta(2, 3700, 10))) == 3720.0 + HOUR


def test_the_plans_interval_goes_before_the_controllers() -> None:
    vm = vm_of(first(), interval_s=600.0)
    assert due_s(vm) == 700.0 and why(vm) == "every 600 s"
    assert not pacing.wants_round(vm, HOUR, at(699)) and pacing.wants_round(vm, HOUR, at(700))


def test_one_whose_base_cannot_be_read_wants_no_second_round() -> None:
    assert not pacing.wants_round(replace(vm_of(first()), base_unreadable="locked"), HOUR, at(1e6))


# ---- rounds that came to nothing ------------------------------------------------------------------------------------------------------


def test_a_round_that_came_to_nothing_is_made_again_at_once_and_then_later_and_later() -> None:
    assert due_s(vm_of(first(), lost(2, 3700)), 3705.0) == 3705.0
    assert due_s(vm_of(lost(1, 0), lost(2, 10))) == 15.0 + 60.0
    assert due_s(vm_of(lost(1, 0), lost(2, 10), lost(3, 80))) == 85.0 + 120.0
    many = vm_of(*(lost(n, n * 10) for n in range(1, 20)))
    assert due_s(many) == 195.0 + HOUR, "no later than the interval"
    assert "19 rounds in a row" in why(many) and "its snapshot is gone" in why(many)
    assert due_s(vm_of(lost(1, 0), lost(2, 10), first(), lost(4, 4000)), 4005.0) == 4005.0, "one that counts ends the row"


# ---- budget ---------------------------------------------------------------------------------------------------------------------------


def test_with_a_budget_the_second_round_comes_early_to_learn_the_rate() -> None:
    vm = vm_of(first(5000.0), budget_s=60.0)
    assert due_s(vm) == 5000.0 + pacing.PAUSE_S and "to learn" in why(vm)
    assert due_s(vm_of(first(5000.0), budget_s=60.0, interval_s=30.0)) == 5030.0, "never later than the interval"


def test_a_round_ends_before_the_changes_outgrow_the_budget() -> None:
    """1 MiB/s at 100 MiB/s: 5 s of copying, behind 10 s of start, are 500 s of changes. The last round took 20 s."""
    vm = vm_of(first(), delta(2, 200, 200), budget_s=15.0)
    assert pacing.change_rate(vm) == MIB
    assert due_s(vm) == 200.0 + 500.0 - 20.0
    assert pacing.expected_downtime_s(vm, at(700)) == pytest.approx(15.0)
    assert "early, for the downtime budget of 15 s" in why(vm)
    assert not pacing.budget_missed(vm, HOUR)


def test_a_budget_that_no_guest_outgrows_changes_nothing() -> None:
    assert due_s(vm_of(first(), delta(2, 200, 200), budget_s=1000.0)) == 220.0 + HOUR
    assert due_s(vm_of(first(), delta(2, 200, 0), budget_s=11.0)) == 220.0 + HOUR, "nothing changes there"
    assert due_s(vm_of(first(), delta(2, 200, 200))) == 220.0 + HOUR


@pytest.mark.parametrize(("length_s", "pause_s"), [(20.0, 60.0), (300.0, 300.0)])
@pytest.mark.parametrize("budget_s", [1.0, 10.0, 10.4])
def test_rounds_never_run_back_to_back(budget_s: float, length_s: float, pause_s: float) -> None:
    vm = vm_of(first(), delta(2, 200, 200, length_s), budget_s=budget_s)
    assert due_s(vm) == 200.0 + length_s + pause_s
    missed = pacing.budget_missed(vm, HOUR)
    assert f"budget of {budget_s:.0f} s cannot be met" in missed and "cannot be met" in why(vm)
    assert "10 s" in missed


def test_what_is_missed_is_told_with_its_cause() -> None:
    busy = vm_of(first(), delta(2, 200, 10_000), budget_s=30.0)
    assert "rounds 60 s apart: a cutover may take 60 s, 10 s of them" in pacing.budget_missed(busy, HOUR)
    assert "takes 10 s without any byte" in pacing.budget_missed(vm_of(budget_s=5.0), HOUR), "even before the first round"
    assert not pacing.budget_missed(vm_of(first(), budget_s=30.0), HOUR), "nobody can tell yet"


def test_a_round_that_compared_all_tells_nothing_of_the_rate() -> None:
    doubted = replace(delta(3, 1200, 10_000), doubts={"disk-web-0": "forgotten"})
    vm = vm_of(first(), delta(2, 200, 200), doubted, budget_s=15.0)
    assert pacing.change_rate(vm) == MIB
    assert pacing.change_rate(vm_of(first(), doubted)) is None


def test_the_second_read_counts_against_the_budget() -> None:
    """`verify: source`: what is copied is read twice, and eighths that no round came to once."""
    slow = due_s(vm_of(first(), delta(2, 200, 200), budget_s=60.0, verify=Verify.SOURCE))
    assert slow < due_s(vm_of(first(), delta(2, 200, 200), budget_s=60.0))


# ---- as a run -------------------------------------------------------------------------------------------------------------------------


def live(world: WarmLand, seconds: int) -> VmRecord:
    for _ in range(seconds):
        world.one_pass(world.lease)
        world.judge()
        world.go_on(1.0)
    return only(world)


@pytest.mark.parametrize("budget_s", [1.0, 10.0])
def test_a_budget_out_of_reach_costs_a_snapshot_a_minute_at_most_and_says_so(budget_s: float) -> None:
    world = world_of(downtime_budget_s=budget_s)
    vm = live(world, 900)
    starts = [r.started for r in vm.rounds]
    assert all((b - a).total_seconds() >= 60.0 for a, b in pairwise(starts))
    assert len(starts) >= 10, "it has no effect"
    told = [c for c in vm.conditions if c.type == "DowntimeBudgetMissed"]
    assert told and told[0].category.value == "Warn" and "cannot be met" in told[0].message


def test_the_controllers_interval_is_live() -> None:
    world = world_of()
    world.desired = replace(world.desired, limits=replace(world.desired.limits, precopy_interval_s=1800.0))
    vm = live(world, 60)
    assert vm.rounds[0].ended is not None and vm.next_round_at == vm.rounds[0].ended + timedelta(seconds=1800)
    world.desired = replace(world.desired, limits=replace(world.desired.limits, precopy_interval_s=120.0))
    vm = live(world, 2)
    assert vm.rounds[0].ended is not None and vm.next_round_at == vm.rounds[0].ended + timedelta(seconds=120), "status told the old one"
    assert len(live(world, 130).rounds) == 2
