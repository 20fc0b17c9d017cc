"""A copy that fails is attempted again later and later; cold and warm, across restarts, and whatever the clock does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from reconciler.core.actions import DropCopy, EnsureCopy
from reconciler.core.model import Milestone, Mode, Result, Watermark
from reconciler.core.record import Retry, VmRecord
from reconciler.core.retry import LONGEST_S, pause_s
from reconciler.manifests.record import parse_record, render_vm
from tests.unit.core.lives import Fate
from tests.unit.core.test_decide import land, only
from tests.unit.core.toyland import START, Toyland, desired_for
from tests.unit.core.warmland import WarmLand, warm_vm

FAILS = [75] * 1000


def attempts(world: Toyland, seconds: int, each: Callable[[], None] = lambda: None) -> list[float]:
    """When each importer Job was made, in seconds, in so much time of one pass a second."""
    made = []
    for second in range(seconds):
        before = len(world.acts(EnsureCopy))
        world.tick()
        made += [float(second)] * (len(world.acts(EnsureCopy)) - before)
        each()
    return made


def gaps(times: list[float]) -> list[float]:
    return [b - a for a, b in pairwise(times)]


def restart(world: Toyland) -> None:
    """In mid-copy nothing but the sites and what git says is left."""
    if not world.records.vms or only(world).phase != "CopyDisks":
        return
    world.outcomes, world.acted = {}, {}
    world.records = replace(world.records, vms={k: parse_record("vm.yaml", render_vm(v), VmRecord) for k, v in world.records.vms.items()})


def wait_for_pause(world: Toyland) -> Retry:
    """Until an attempt has failed, its Job is gone, and the next one is not due."""
    for _ in range(200):
        world.tick()
        if world.records.vms and (found := only(world).retry) is not None and not world.jobs:
            return found
    raise AssertionError(f"no pause: {only(world).message}")


def failing() -> Toyland:
    world = land("web", copy_stall_s=1e9)
    world.job_exit = list(FAILS)
    return world


def test_the_pause_doubles_up_to_a_cap_and_differs_from_vm_to_vm() -> None:
    pauses = [pause_s(n, "web-1") for n in range(1, 30)]
    assert 0.7 < pauses[0] < 1.3
    assert all(b > a for a, b in pairwise(pauses[:6]))
    assert all(0.75 * LONGEST_S <= p <= 1.25 * LONGEST_S for p in pauses[8:])
    assert len({pause_s(20, f"vm-{i}") for i in range(50)}) > 40, "500 VMs of one dead vCenter must not come back in one second"
    assert pause_s(3, "web-1") == pause_s(3, "web-1")
    assert pause_s(10**6, "web-1") <= 1.25 * LONGEST_S


def test_attempts_that_fail_at_once_come_later_and_later() -> None:
    world = failing()
    found = gaps(attempts(world, 600))
    assert found == sorted(found) or max(found[:5]) < min(found[7:]), found
    assert found[0] <= 5 and all(45 <= g <= 80 for g in found[7:]), found
    assert len(found) < 20


def test_a_restart_in_every_second_changes_nothing() -> None:
    plain = attempts(failing(), 150)
    world = failing()
    restarted = attempts(world, 150, lambda: restart(world))
    assert len(restarted) == pytest.approx(len(plain), abs=1), (plain, restarted)
    assert max(gaps(restarted)) > 25


def test_status_says_when_the_next_attempt_is_due_and_why() -> None:
    world = failing()
    attempts(world, 60)
    retry, vm = wait_for_pause(world), only(world)
    assert retry.due > world.now
    due = f"{retry.due:%Y-%m-%d %H:%M:%S} UTC"
    assert due in vm.message and "the source went away" in vm.message
    told = next(c for c in vm.conditions if c.type == "Retrying")
    assert due in told.message and told.reason == "ConnectionLost"
    assert str(vm.attempt) in vm.message


def test_an_attempt_that_got_on_is_followed_soon() -> None:
    world = failing()
    attempts(world, 200)
    assert wait_for_pause(world).count > 5
    last = world.acts(EnsureCopy)[-1]
    assert isinstance(last, EnsureCopy)
    world.volumes = {k: replace(v, watermark=Watermark(last.job.round_key, 300 << 20)) for k, v in world.volumes.items()}
    assert len(attempts(world, 10)) > 2, "paused as briefly as after a first failure"


def test_a_copy_that_goes_through_leaves_no_word_of_it() -> None:
    world = failing()
    attempts(world, 60)
    world.job_exit = []
    world.run(passes=200)
    vm = only(world)
    assert vm.result is Result.SUCCEEDED and vm.retry is None
    assert [c.type for c in vm.conditions] == ["Succeeded"]


def test_the_deadline_goes_on_through_the_pauses() -> None:
    world = land("web", copy_stall_s=400.0)
    world.job_exit = list(FAILS)
    made = attempts(world, 700)
    vm = only(world)
    assert vm.result is Result.FAILED and vm.error is not None and vm.error.reason == "CopyFailed"
    assert vm.retry is None
    assert 300 < made[-1] < 520


def test_a_clock_that_was_set_back_holds_nobody_up() -> None:
    world = failing()
    attempts(world, 200)
    wait_for_pause(world)
    world.now -= timedelta(days=1)
    made = attempts(world, 10)
    assert made, only(world).message


def test_a_drop_that_takes_several_passes_counts_once() -> None:
    first = wait_for_pause(failing())
    stuck = land("web", copy_stall_s=1e9)
    stuck.job_exit = list(FAILS)
    stuck._apply = _keeps_jobs(stuck)  # type: ignore[method-assign]
    attempts(stuck, 20)
    assert len(stuck.acts(DropCopy)) > 5
    assert only(stuck).retry == first


def _keeps_jobs(world: Toyland) -> Callable[..., object]:
    real = world._apply
    return lambda action: None if isinstance(action, DropCopy) else real(action)


# ---- warm -----------------------------------------------------------------------------------------------------------------------------


def warm() -> WarmLand:
    return WarmLand({"web": warm_vm("web")}, desired_for(["web"], mode=Mode.WARM, type="warm", precopy_interval_s=30.0))


def live(world: WarmLand, seconds: int, code: int | None = 75) -> list[datetime]:
    """Passes of one second each; every copy pod ends at once with `code`, unless that is None. Returns when Jobs were made."""
    made = []
    for _ in range(seconds):
        before = set(world.jobs)
        world.one_pass(world.lease, Fate(eager=True))
        made += [world.now for name in world.jobs if name not in before]
        if code is not None:
            for pod in list(world.pods):
                world.end_pod(pod, code)
        world.judge()
        world.go_on(1.0)
    return made


def test_a_round_is_attempted_again_later_and_later() -> None:
    world = warm()
    made = live(world, 400)
    found = [(b - a).total_seconds() for a, b in pairwise(made)]
    assert len(found) < 20 and found[0] <= 5 and max(found[-3:]) >= 45, found


def test_a_new_round_and_the_cutover_begin_without_the_pause_of_the_round_before() -> None:
    world = warm()
    live(world, 205)
    vm = only(world)
    assert vm.retry is not None and vm.rounds[-1].ended is None
    assert (vm.retry.due - world.now).total_seconds() > 30
    spec = world.desired.migrations[vm.run]
    world.desired = replace(world.desired, revision="c2", migrations={vm.run: replace(spec, cutover_at=START)})
    made = live(world, 25, code=None)
    assert made and only(world).milestone.order >= Milestone.CUTOVER.order
    assert only(world).result is Result.SUCCEEDED, only(world).message
    assert only(world).retry is None
