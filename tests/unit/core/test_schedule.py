"""Slots: counted in disks per host, fair between plans, and a large VM is neither starved nor refused for ever."""

from __future__ import annotations

from reconciler.core.model import ObjectRef
from reconciler.core.schedule import Load, admit

A, B = ObjectRef("n", "a"), ObjectRef("n", "b")


def load(plan: ObjectRef, name: str, cost: int = 1, host: str = "h1") -> Load:
    return Load((plan, name), ("vc", host), cost)


def names(admitted: tuple[tuple[ObjectRef, str], ...]) -> list[str]:
    return [name for _, name in admitted]


def test_disks_are_counted_with_those_that_run() -> None:
    admitted, refused = admit([load(B, "x", 2)], {A: [load(A, "1"), load(A, "2")]}, 3)
    assert names(admitted) == ["1"] and refused == {(A, "2"): "in-flight limit reached: 3 of 3 disks on h1"}


def test_plans_take_turns() -> None:
    admitted, _ = admit([], {A: [load(A, "a1"), load(A, "a2")], B: [load(B, "b1"), load(B, "b2")]}, 2)
    assert names(admitted) == ["a1", "b1"]


def test_a_vm_over_the_limit_runs_alone() -> None:
    assert names(admit([], {A: [load(A, "big", 9), load(A, "small")]}, 3)[0]) == ["big"]
    assert names(admit([load(B, "x")], {A: [load(A, "big", 9)]}, 3)[0]) == []


def test_a_large_vm_is_not_overtaken_on_its_host_but_others_go_on() -> None:
    admitted, refused = admit([load(B, "x", 2)], {A: [load(A, "big", 2), load(A, "small"), load(A, "far", 1, "h2")]}, 3)
    assert names(admitted) == ["far"] and {n for _, n in refused} == {"big", "small"}
