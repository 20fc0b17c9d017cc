"""Whatever stops a warm copy stops it within a few passes, though it proves more at every look, and keeps what it has proven by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.core.actions import DropCopy, PutMarks, PutWatermarks
from reconciler.core.copyspec import DiskProgress
from reconciler.core.desired import InventoryRef
from reconciler.core.model import Power, Result
from tests.integration.test_safety_warm import GIB, copies, cut_over, edit, ended, land, live, ours, record, step, succeed
from tests.unit.core.lives import Fate, Pod
from tests.unit.core.warmland import WarmLand

MIB = 1 << 20
PASSES = 4  # to say the last words, and to stop


def restless(disks: int) -> WarmLand:
    """A first copy in the middle of its first half, whose disks prove more at each look, each at its own pace."""
    world = land(disks=disks, slow=10**9)
    looks = 0

    def lines(pod: Pod, said: Callable[[Pod], tuple[DiskProgress, ...]] = world._lines) -> tuple[DiskProgress, ...]:
        nonlocal looks
        looks += 1
        far = [min(GIB // 2, looks * (1 + i) * MIB) for i in range(disks)]
        return tuple(replace(p, watermark_bytes=f, done_bytes=f) for p, f in zip(said(pod), far, strict=True))

    live(world, lambda w: bool(w.pods))
    world._lines = lines  # type: ignore[method-assign]
    for _ in range(20):
        step(world)
    return world


def add_a_disk(world: WarmLand) -> None:
    vm = world.vms["web"]
    world.version["added"] = [1, 1]
    world.vms["web"] = replace(vm, disks=(*vm.disks, replace(vm.disks[0], key="9", uuid="added", unit=9)))


def take_the_snapshot_away(world: WarmLand) -> None:
    uuid = world.vms["web"].uuid
    world.remove(uuid, world.chains[uuid][0])


STOPS: dict[str, Callable[[WarmLand], None]] = {
    "cutover": cut_over,
    "cancel": lambda world: edit(world, cancel=(InventoryRef(name="web"),)),
    "a disk was added": add_a_disk,
    "the snapshot is gone": take_the_snapshot_away,
}


def until_stopped(world: WarmLand, limit: int, fate: Fate | None = None) -> int:
    """The number of watermarks that were put by then."""
    begun = len(world.log)
    for _ in range(limit):
        step(world, fate)
        acts = world.log[begun:]
        if any(isinstance(a, DropCopy) for a in acts):
            return sum(isinstance(a, PutWatermarks) for a in acts)
    raise AssertionError(f"{limit} passes, and the copy goes on: {record(world).message}")


@pytest.mark.parametrize("disks", [1, 5])
@pytest.mark.parametrize("why", STOPS)
def test_a_copy_that_proves_more_at_every_look_is_stopped_at_once(why: str, disks: int) -> None:
    world = restless(disks)
    STOPS[why](world)
    assert until_stopped(world, PASSES) <= 1


@pytest.mark.parametrize("disks", [1, 5])
def test_a_cutover_keeps_what_was_proven(disks: int) -> None:
    world = restless(disks)
    cut_over(world)
    assert until_stopped(world, PASSES) == 1, "nothing was kept"
    world.slow = 1
    succeed(world)
    kept = [d.rest_from for d in copies(world)[-1].disks]
    assert all(20 * (1 + i) * MIB <= bytes_ < GIB // 2 for i, bytes_ in enumerate(kept)), kept


def test_a_failure_stops_it_and_keeps_it() -> None:
    """A volume of another disk is lost; UNWIND stops the copy, and what is proven of the good disk is marked."""
    world = restless(2)
    lost, good = world.volumes
    world.volumes[lost] = replace(world.volumes[lost], phase="Lost")
    assert until_stopped(world, PASSES) == 1
    live(world, ended())
    assert record(world).result is Result.FAILED
    (marks,) = [a for a in world.log if isinstance(a, PutMarks)]
    assert [(x.name, m is not None and (m.proven_bytes or 0) >= 40 * MIB) for x, m in marks.marks] == [(good, True)]


def test_watermarks_that_nobody_takes_do_not_hold_up_a_cancel() -> None:
    world = restless(2)
    STOPS["cancel"](world)
    refuse = Fate(faults={"PutWatermarks": ("retryable", False)})
    until_stopped(world, 60, refuse)
    for _ in range(60):
        step(world, refuse)
        if ended()(world):
            break
    assert record(world).result is Result.CANCELED and not ours(world)
    assert world.vms["web"].power is Power.ON
