"""Who goes next where slots are few: first copies, rounds and cutovers of warm runs, inside a plan and between plans.

Walked over the toy of both sites: more VMs than slots, and rounds so often due that they could take every slot for ever.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from reconciler.core import warming
from reconciler.core.desired import InventoryRef, MigrationSpec, PlanVm
from reconciler.core.model import Milestone, Mode, ObjectRef, Result
from reconciler.core.record import IntentKind, VmRecord
from tests.unit.core.lives import Fate
from tests.unit.core.toyland import NS, PLACE, PLAN, RUN, START, desired_for
from tests.unit.core.warmland import WarmLand, warm_vm

SIX = [f"vm{i}" for i in range(6)]


def land(*plans: list[str], limit: int = 2) -> WarmLand:
    """One run for each plan; all of them begin at once."""
    vms = {n: warm_vm(n, number=i + 1) for i, n in enumerate(n for names in plans for n in names)}
    desired = desired_for(plans[0], mode=Mode.WARM, type="warm", precopy_interval_s=5.0)
    first = desired.plans[PLAN]
    for number, names in enumerate(plans[1:], 2):
        plan, run = ObjectRef(NS, f"wave-{number}"), ObjectRef(NS, f"run-{number}")
        spec = replace(first, ref=plan, vms=tuple(PlanVm(InventoryRef(name=n), PLACE) for n in names))
        desired = replace(
            desired,
            plans={**desired.plans, plan: spec},
            migrations={**desired.migrations, run: MigrationSpec(run, PLACE, plan)},
        )
    return WarmLand(vms, replace(desired, limits=replace(desired.limits, max_vm_inflight=limit)))


def go_on(world: WarmLand, passes: int) -> None:
    for _ in range(passes):
        world.one_pass(world.lease, Fate(eager=True))
        world.judge()
        world.go_on(1.0)


def rounds(world: WarmLand) -> Counter[str]:
    return Counter({v.wanted: sum(r.ended is not None for r in v.rounds) for v in world.records.vms.values()})


def cut_over(world: WarmLand, *runs: ObjectRef) -> None:
    """All of them, unless some are named."""
    cut = {ref: replace(m, cutover_at=world.now) for ref, m in world.desired.migrations.items() if ref in runs or not runs}
    world.desired = replace(world.desired, revision="cut", migrations={**world.desired.migrations, **cut})


def powered_off(world: WarmLand) -> list[VmRecord]:
    """In the order of their cutovers."""
    at = {v.key: i.declared_at for v in world.records.vms.values() for i in v.intents if i.kind is IntentKind.POWER_OFF_SOURCE}
    return sorted((v for v in world.records.vms.values() if v.key in at), key=lambda v: at[v.key])


def test_rounds_that_are_always_due_starve_no_first_copy_and_no_round() -> None:
    world = land(SIX)
    go_on(world, 130)
    done = rounds(world)
    assert min(done.values()) >= 2 and max(done.values()) - min(done.values()) <= 1, done


def test_vms_with_a_strangers_snapshot_take_no_turn_of_others() -> None:
    world = land(SIX)
    go_on(world, 60)
    before = rounds(world)
    for name in SIX[:2]:
        world.freeze(world.vms[name].uuid, None)
    go_on(world, 130)
    done = rounds(world)
    assert all(done[n] >= before[n] + 2 for n in SIX[2:]), (before, done)


def test_a_common_cutover_goes_before_rounds_and_first_copies_in_plan_order() -> None:
    """A VM in the middle of a round has its slot already, and is cut over at once."""
    others = [f"x{i}" for i in range(6)]
    world = land(SIX, others)
    go_on(world, 90)
    resting = [v.wanted for v in world.records.vms.values() if v.run == RUN and warming.rests(v)]
    assert len(resting) >= 4
    cut_over(world, RUN)
    began = world.now
    go_on(world, 100)
    offs = powered_off(world)
    assert len(offs) == len(SIX) and [v.wanted for v in offs if v.wanted in resting] == resting
    last = max(v.intents[0].declared_at for v in offs)
    theirs = [r.started for v in world.records.vms.values() if v.wanted in others for r in v.rounds]
    assert not [at for at in theirs if began < at < last], "a round began while cutovers that were due had no slot"
    assert [at for at in theirs if at > last]


def test_two_plans_with_the_same_cutover_time_take_turns() -> None:
    world = land(SIX, [f"x{i}" for i in range(6)])
    go_on(world, 150)
    cut_over(world)
    go_on(world, 180)
    order = ["".join(v.wanted[:1]) for v in powered_off(world)]
    assert len(order) == 12 and all(v.result is Result.SUCCEEDED for v in world.records.vms.values())
    assert all(abs(order[:n].count("v") - order[:n].count("x")) <= 2 for n in range(13)), order


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_while_a_plan_waits_for_its_turn_no_other_has_more_than_two(limit: int) -> None:
    names = [[f"{p}{i}" for i in range(3)] for p in "abcde"]
    world = land(*names, limit=limit)
    cut_over(world)
    go_on(world, 450 // limit)
    assert all(v.result is Result.SUCCEEDED for v in world.records.vms.values())
    begun = {p: sorted(v.started for v in world.records.vms.values() if v.wanted[0] == p and v.started) for p in "abcde"}
    for mine in begun.values():
        for last, following in pairwise((START, *mine)):
            assert all(sum(last < t < following for t in theirs) <= 2 for theirs in begun.values()), begun


def test_the_cutover_waits_for_a_slot_and_says_so() -> None:
    world = land(SIX, limit=1)
    go_on(world, 130)
    cut_over(world)
    at = world.now
    go_on(world, 6)
    waiting = [v for v in world.records.vms.values() if v.milestone is Milestone.NONE and not v.intents]
    assert len(waiting) >= 4 and all("the cutover waits: in-flight limit reached: 1 of 1" in v.message for v in waiting), [
        v.message for v in waiting
    ]
    go_on(world, 150)
    assert all(v.result is Result.SUCCEEDED for v in world.records.vms.values())
    offs = [i.declared_at for v in powered_off(world) for i in v.intents if i.kind is IntentKind.POWER_OFF_SOURCE]
    assert all(b - a >= timedelta(seconds=3) for a, b in pairwise(offs)) and offs[0] >= at, "one after another"
