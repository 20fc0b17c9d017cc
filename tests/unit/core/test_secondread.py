"""`verify: source` in warm runs: an eighth a round, the rest at the cutover, and what a difference means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import pacing, secondread
from reconciler.core.actions import CopyDiskWish, EnsureCopy
from reconciler.core.copyspec import CopyResult, DiskResult, Verify, result_line
from reconciler.core.desired import MigrationSpec
from reconciler.core.model import Mode, ObjectRef, Power, Result
from reconciler.core.ranges import clip, merge, total
from reconciler.core.record import VmRecord
from reconciler.core.target import JobPhase
from reconciler.manifests.record import parse_record, render_vm
from tests.unit.core.lives import LiveLand
from tests.unit.core.test_copying import step
from tests.unit.core.test_decide import land, only
from tests.unit.core.toyland import GIB, NS, PLACE, PLAN, START, Toyland, desired_for, source_vm
from tests.unit.core.warmland import WarmLand, warm_vm

EIGHTH = GIB // 8


def warm(verify: Verify = Verify.SOURCE, disks: int = 1) -> WarmLand:
    plan = desired_for(["web"], mode=Mode.WARM, type="warm", precopy_interval_s=5.0, verify=verify)
    return WarmLand({"web": warm_vm("web", disks=disks)}, plan)


def until(world: LiveLand, enough: Callable[[], bool], limit: int = 400) -> None:
    for _ in range(limit):
        step(world)  # type: ignore[arg-type]
        if enough():
            return
    raise AssertionError(f"not within {limit} passes: {only(world).message}")


def rounds(world: WarmLand, count: int) -> None:
    until(world, lambda: bool(world.records.vms) and sum(pacing.counts(r) for r in only(world).rounds) >= count)


def cut_over(world: WarmLand) -> None:
    run = only(world).run
    spec = world.desired.migrations[run]
    world.desired = replace(world.desired, revision="cut", migrations={run: replace(spec, cutover_at=START)})
    until(world, lambda: only(world).result is not None)


def wishes(world: Toyland) -> list[CopyDiskWish]:
    """Of the first disk, in the order of the Jobs."""
    return [a.disks[0] for a in world.acts(EnsureCopy) if isinstance(a, EnsureCopy)]


def eighths(*numbers: int) -> tuple[tuple[int, int], ...]:
    return tuple(merge((n * EIGHTH, EIGHTH) for n in numbers))


@given(st.integers(1, 1 << 45), st.sets(st.integers(0, 7)))
def test_eighths_are_disjoint_and_cover_the_disk(capacity: int, some: set[int]) -> None:
    found = list(secondread.stretches(some, capacity))
    others = list(secondread.stretches(set(range(8)) - some, capacity))
    assert found == clip(found, 0, capacity)
    assert merge(found + others) == [(0, capacity)] and total(found) + total(others) == capacity
    assert all(total(secondread.stretches([n], capacity)) <= capacity // 8 + (128 << 10) for n in some) or capacity < 1 << 20


def test_each_round_compares_the_next_eighth_and_begins_again_after_the_last() -> None:
    world = warm()
    rounds(world, 10)
    assert [w.check for w in wishes(world)[:10]] == [eighths(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 0, 1)]
    assert not any(w.check_copied for w in wishes(world))
    (disk,) = only(world).disks
    assert disk.eighths == tuple(range(8))


def test_after_eight_rounds_the_cutover_compares_what_it_copies_and_no_more() -> None:
    world = warm()
    rounds(world, 8)
    cut_over(world)
    assert only(world).result is Result.SUCCEEDED, only(world).message
    last = wishes(world)[-1]
    assert last.since and last.check == () and last.check_copied


def test_a_cutover_that_comes_early_compares_what_no_round_came_to() -> None:
    world = warm(disks=2)
    rounds(world, 3)
    cut_over(world)
    last = wishes(world)[-1]
    assert last.check == eighths(3, 4, 5, 6, 7) and last.check_copied
    assert [d.eighths for d in only(world).disks] == [tuple(range(8))] * 2


def test_without_the_setting_nothing_is_read_twice() -> None:
    world = warm(Verify.READBACK)
    rounds(world, 3)
    cut_over(world)
    assert all(w.check is None and not w.check_copied for w in wishes(world))
    assert not only(world).disks[0].eighths


def test_the_eighth_of_an_abandoned_round_comes_again() -> None:
    world = warm()
    rounds(world, 2)
    until(world, lambda: bool(world.pods))
    world.remove("uuid-web", world.chains["uuid-web"][0])
    rounds(world, 3)
    assert [w.check for w in wishes(world)[:4]] == [eighths(n) for n in (0, 1, 2, 2)]
    assert only(world).disks[0].eighths == (0, 1, 2)


def test_a_restart_forgets_no_eighth() -> None:
    world = warm()
    rounds(world, 3)
    text = render_vm(only(world))
    assert parse_record("vm.yaml", text, VmRecord).disks[0].eighths == (0, 1, 2)
    world.processes["a"] = world.newborn()
    rounds(world, 4)
    assert only(world).disks[0].eighths == (0, 1, 2, 3)


def test_a_disk_that_is_compared_in_full_begins_anew() -> None:
    """What was proven was proven of bytes that may have been written over since."""
    world = warm()
    rounds(world, 3)
    world.forget_changes("web")
    rounds(world, 4)
    assert only(world).disks[0].eighths == (3,)
    rounds(world, 5)
    assert only(world).disks[0].eighths == (0, 3)


# ---- a difference ---------------------------------------------------------------------------------------------------------------------


def differ(world: LiveLand) -> None:
    """The copy at work ends: all is copied, and the second read of the first disk failed."""
    if not world.pods:
        until(world, lambda: bool(world.pods))
    pod = world.pods[0]
    world.end_pod(pod, 65)
    told = DiskResult(pod.action.disks[0].disk_uuid, False, 1, 1, 0, 1, 1.0, "http-range", "ok", mismatch=True)
    text = result_line(CopyResult((told,), "disk: source and target differ in the block at 65536", "SourceMismatch"))
    world.jobs[pod.job] = replace(world.jobs[pod.job], termination_message=text)


def test_a_difference_in_a_round_is_a_doubt_and_the_disk_is_compared() -> None:
    world = warm()
    rounds(world, 2)
    differ(world)
    rounds(world, 3)
    third = next(r for r in only(world).rounds if r.number == 3)
    assert "65536" in third.doubts["disk-web-0"] and third.ended and not third.abandoned
    again = wishes(world)[3]
    assert again.compare and again.since is None and again.resume_bytes == 0 and again.check == eighths(2)
    cut_over(world)
    assert only(world).result is Result.SUCCEEDED


def test_a_disk_that_differs_after_it_was_compared_fails_with_the_guest_up() -> None:
    world = warm()
    rounds(world, 2)
    differ(world)
    until(world, lambda: len(wishes(world)) == 4)
    differ(world)
    until(world, lambda: only(world).result is not None)
    vm = only(world)
    assert vm.result is Result.FAILED and vm.error is not None and vm.error.reason == "SourceMismatch"
    assert world.vms["web"].power is Power.ON
    assert not any(v.mark for v in world.volumes.values())


def test_a_cold_copy_that_differs_leaves_nothing_that_the_next_run_would_trust() -> None:
    world = land("web", verify=Verify.SOURCE)
    world.vms["web"] = source_vm("web", power=Power.OFF)
    live = LiveLand(world.vms, world.desired)
    until(live, lambda: bool(live.pods) and live.pods[0].step == 2)
    assert all(v.watermark for v in live.volumes.values())
    differ(live)
    until(live, lambda: only(live).result is not None)
    assert only(live).result is Result.FAILED
    again = ObjectRef(NS, "run-2")
    live.desired = replace(live.desired, migrations={**live.desired.migrations, again: MigrationSpec(again, PLACE, PLAN)})
    until(live, lambda: all(r.result for r in live.records.runs.values()) and len(live.records.runs) == 2)
    assert live.records.runs[again].result is Result.SUCCEEDED
    assert [w.resume_bytes for w in wishes(live)] == [0, 0]


# ---- the stall ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("each", "stalls"), [(1 << 20, False), (0, True)])
def test_a_second_read_that_gets_on_is_no_stall(each: int, stalls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveLand({"web": source_vm("web", power=Power.OFF)}, desired_for(["web"], verify=Verify.SOURCE, copy_stall_s=100.0))
    until(live, lambda: bool(live.pods) and live.pods[0].step == 2)
    real, passed = LiveLand._lines, iter(range(10**6))
    monkeypatch.setattr(
        LiveLand, "_lines", lambda self, pod: tuple(replace(p, verified_bytes=next(passed) * each) for p in real(self, pod))
    )
    monkeypatch.setattr(LiveLand, "_copy_on", lambda self, pod: None)
    for _ in range(20):
        live.one_pass()
        live.go_on(10.0)
    assert all(j.phase is JobPhase.RUNNING for j in live.jobs.values())
    vm = only(live)
    assert (vm.error is not None and vm.error.reason == "CopyStalled") is stalls, vm.message
    if not stalls:
        assert "compared with the source" in vm.message


# ---- what it costs ---------------------------------------------------------------------------------------------------------------------


def test_the_expected_downtime_counts_what_is_still_to_be_compared() -> None:
    def expected(verify: Verify, count: int) -> float:
        world = warm(verify)
        rounds(world, count)
        vm = only(world)
        slow = tuple(replace(r, read_bytes=1 << 20, seconds=1.0) for r in vm.rounds)
        return pacing.expected_downtime_s(replace(vm, rounds=slow), world.now) or 0.0

    assert expected(Verify.SOURCE, 2) - expected(Verify.READBACK, 2) > 6 * EIGHTH / (1 << 20)
    assert expected(Verify.SOURCE, 9) - expected(Verify.READBACK, 9) < EIGHTH / (1 << 20)
