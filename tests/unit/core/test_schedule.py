"""Slots: counted in disks per host, fair between plans, and a large VM is neither starved nor refused for ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.actions import VmKey
from reconciler.core.model import ObjectRef
from reconciler.core.schedule import Load, Past, Queue, admit

A, B, C = ObjectRef("n", "a"), ObjectRef("n", "b"), ObjectRef("n", "c")
AT = datetime(2026, 3, 1, tzinfo=UTC)


def load(plan: ObjectRef, name: str, cost: int = 1, host: str = "h1", urgent: bool = False) -> Load:
    return Load((plan, name), plan, ("vc", host), cost, urgent)


def names(admitted: tuple[VmKey, ...]) -> list[str]:
    return [name for _, name in admitted]


def go(running: Iterable[Load], waiting: Iterable[Load], limit: int, served: dict[ObjectRef, datetime] | None = None) -> list[str]:
    """`served`: on h1."""
    return names(admit(running, waiting, limit, {(plan, ("vc", "h1")): (at, 1) for plan, at in (served or {}).items()})[0])


def test_disks_are_counted_with_those_that_run() -> None:
    admitted, refused = admit([load(B, "x", 2)], [load(A, "1"), load(A, "2")], 3, {})
    assert names(admitted) == ["1"] and refused == {(A, "2"): "in-flight limit reached: 3 of 3 disks on h1"}


def test_plans_take_turns() -> None:
    assert go([], [load(A, "a1"), load(A, "a2"), load(B, "b1"), load(B, "b2")], 2) == ["a1", "b1"]


def test_a_free_slot_goes_to_the_plan_with_the_least_in_flight_there() -> None:
    running = [load(A, "x"), load(A, "y"), load(B, "z"), load(B, "far", 9, "h2")]
    assert go(running, [load(A, "a1"), load(B, "b1")], 4) == ["b1"]


def test_among_plans_with_nothing_in_flight_the_one_served_longest_ago_goes_first() -> None:
    waiting = [load(A, "a1"), load(B, "b1"), load(C, "c1")]
    assert go([], waiting, 1, {A: AT, B: AT - timedelta(seconds=1), C: AT}) == ["b1"]
    assert go([], waiting, 1, {A: AT, B: AT}) == ["c1"], "never served is longest of all"


def test_what_is_urgent_goes_before_all_else_and_is_counted_like_it() -> None:
    running = [load(B, "x"), load(B, "y")]
    waiting = [load(A, "a1"), load(B, "b1", urgent=True), load(B, "b2", urgent=True), load(B, "b3")]
    assert go(running, waiting, 4) == ["b1", "b2"]
    assert go(running, waiting, 5) == ["b1", "b2", "a1"]


def test_a_vm_over_the_limit_runs_alone() -> None:
    assert go([], [load(A, "big", 9), load(A, "small")], 3) == ["big"]
    assert go([load(B, "x")], [load(A, "big", 9)], 3) == []


def test_a_large_vm_is_not_overtaken_on_its_host_but_others_go_on() -> None:
    admitted, refused = admit([load(B, "x", 2)], [load(A, "big", 2), load(A, "small"), load(A, "far", 1, "h2")], 3, {})
    assert names(admitted) == ["far"] and {n for _, n in refused} == {"big", "small"}


def test_what_a_plan_got_on_another_host_does_not_count() -> None:
    elsewhere = {(B, ("vc", "h2")): (AT, 9), (A, ("vc", "h1")): (AT - timedelta(seconds=1), 1)}
    assert names(admit([], [load(A, "a1"), load(B, "b1")], 1, elsewhere)[0]) == ["b1"]


@pytest.mark.parametrize("duration", [lambda n: 4, lambda n: 3 + n % 2, lambda n: 2 + n % 5])
@pytest.mark.parametrize("limit", [1, 3, 5])
def test_a_slot_that_cannot_be_shared_goes_to_each_plan_in_turn(limit: int, duration: Callable[[int], int]) -> None:
    """Whether the VMs end together or not."""
    waiting = {load(plan, f"{plan.name}{i}"): 0 for plan in (A, B) for i in range(60)}
    ends: dict[Load, int] = {}
    past: dict[Queue, Past] = {}
    begun: Counter[ObjectRef] = Counter()
    for now in range(80):
        ends = {x: end for x, end in ends.items() if end > now}
        for key in admit(ends, waiting, limit, past)[0]:
            each = next(x for x in waiting if x.key == key)
            del waiting[each]
            ends[each] = now + duration(len(waiting))
            queue = (each.plan, each.place)
            begun[each.plan] += 1
            past[queue] = (AT + timedelta(seconds=now), begun[each.plan])
        assert abs(begun[A] - begun[B]) <= 2, (now, begun)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=8),
    costs=st.lists(st.integers(1, 3), min_size=1, max_size=20),
    durations=st.lists(st.integers(1, 5), min_size=1, max_size=20),
    hosts=st.integers(1, 3),
    limit=st.integers(1, 6),
)
def test_no_plan_starves_and_the_limit_holds(sizes: list[int], costs: list[int], durations: list[int], hosts: int, limit: int) -> None:
    """Many rounds of admissions: between two turns of a plan that waits on a host, each other one gets at most twice what fits at once."""
    plans = [ObjectRef("n", f"p{i}") for i in range(len(sizes))]
    wanted = [(p, i) for p, size in zip(plans, sizes, strict=True) for i in range(size)]
    waiting = [load(p, f"{p.name}-{i}", costs[i % len(costs)], f"h{n % hosts}") for n, (p, i) in enumerate(wanted)]
    ends: dict[Load, int] = {}
    past: dict[Queue, Past] = {}
    since: dict[Queue, Counter[ObjectRef]] = defaultdict(Counter)
    for now in range(1000):
        ends = {x: end for x, end in ends.items() if end > now}
        for key in admit(ends, waiting, limit, past)[0]:
            begun = next(x for x in waiting if x.key == key)
            waiting.remove(begun)
            ends[begun] = now + durations[len(waiting) % len(durations)]
            past[(begun.plan, begun.place)] = (AT + timedelta(seconds=now), past.get((begun.plan, begun.place), (AT, 0))[1] + 1)
            since[(begun.plan, begun.place)].clear()
            for other in {x.plan for x in waiting if x.place == begun.place} - {begun.plan}:
                since[(other, begun.place)][begun.plan] += begun.cost
                assert since[(other, begun.place)][begun.plan] <= 2 * max(limit, 3)
        for place in {x.place for x in ends}:
            there = [x.cost for x in ends if x.place == place]
            assert sum(there) <= limit or len(there) == 1
        if not waiting:
            return
    raise AssertionError("it does not end")
