"""What was decided is looked at again right before it is done: the bulk view said yes, the direct read or the lease says no.

Each act is met on its way through a life of the toy world, where the real engine/execute.py runs. Between the commit and the act one thing
is changed. The toy's drivers do whatever they are asked for, and judge it: without its guard the act is done, or meets an assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import ActError, Action, Outcome, PowerSource
from reconciler.core.desired import InventoryRef, MigrationSpec
from reconciler.core.model import Mode, Power
from reconciler.core.target import TargetVm, Writer
from reconciler.engine.execute import Hands, execute
from reconciler.engine.leased import Leased
from reconciler.ports import SourceDriver, TargetDriver
from tests.unit.core.lives import TTL_S, Fate, LiveLand
from tests.unit.core.toyland import HOST, PLACE, PLAN, RUN, SOURCE, desired_for, source_vm
from tests.unit.core.toysites import ToySites, ToySource
from tests.unit.core.warmland import WarmLand, warm_vm

Meddle = Callable[[LiveLand], object]

WAYS_BACK = ("PowerSource:on", "DropTargetVm", "DropVolumes")
DECLARED_ACTS = ("PowerSource:shutdown", "StartTarget", *WAYS_BACK)
OTHER_ACTS = (
    "EnsureNamespace",
    "EnsureVolumes",
    "EnsureBinder",
    "EnsureVm",
    "DropBinder",
    "EnsureCopy",
    "PutMarks",
    "DropCopy",
    "ReleaseVolumes",
)
WARM_ACTS = ("EnsureSnapshot", "DropSnapshot")


class Met(Exception):
    """The act that was waited for is the next one."""


class Waiting:
    """Mixed into a world: stops it right before the first act of that name."""

    wanted = ""
    next_act: Action | None = None

    def _execute(self, who: str, action: Action, fate: Fate) -> Outcome:
        if name_of(action) == self.wanted:
            self.next_act = action
            raise Met
        outcome: Outcome = super()._execute(who, action, fate)  # type: ignore[misc]
        return outcome


class Cold(Waiting, LiveLand):
    pass


class Warm(Waiting, WarmLand):
    pass


def name_of(action: Action) -> str:
    return f"PowerSource:{action.want.value}" if isinstance(action, PowerSource) else type(action).__name__


def before(wanted: str, *, warm: bool = False) -> tuple[LiveLand, Action]:
    """A world of one VM with two disks, and the act that it is about to do; its intent is committed."""
    plan: dict[str, Any] = {"mode": Mode.WARM, "type": "warm", "precopy_interval_s": 5.0} if warm else {}
    vm = warm_vm("web", disks=2) if warm else source_vm("web", disks=2)
    world = (Warm if warm else Cold)({"web": vm}, desired_for(["web"], **plan))
    world.wanted = wanted
    for _ in range(60):
        try:
            world.one_pass()
        except Met:
            assert world.next_act is not None
            return world, world.next_act
        world.go_on()
        if wanted in WAYS_BACK and world.pods:
            spec = MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))
            world.desired = replace(world.desired, revision="c2", migrations={RUN: spec})
    raise AssertionError(f"{wanted} never came: {[(v.phase, v.message) for v in world.records.vms.values()]}")


def act(world: LiveLand, action: Action, fate: Fate | None = None) -> ActError | None:
    return LiveLand._execute(world, "a", action, fate or Fate()).error


def refused(wanted: str, meddle: Meddle, *, warm: bool = False) -> ActError:
    world, action = before(wanted, warm=warm)
    meddle(world)
    error = act(world, action)
    assert error is not None, f"{wanted} was done"
    return error


# ---- what somebody did meanwhile --------------------------------------------------------------------------------------------------------


def source_on(world: LiveLand) -> None:
    world.power_on("web")


def source_ran(world: LiveLand) -> None:
    world.power_on("web")
    world.power_off("web")


def source_gone(world: LiveLand) -> None:
    world.vms = {}


def disk_added(world: LiveLand) -> None:
    vm = world.vms["web"]
    world.vms["web"] = replace(vm, disks=(*vm.disks, replace(vm.disks[0], uuid="added", key="9")))


def target_on(world: LiveLand) -> None:
    world.person_starts("web")


def target_about_to_start(world: LiveLand) -> None:
    world.targets["web"] = replace(world.targets["web"], run_strategy="Always")


def target_ran(world: LiveLand) -> None:
    world.person_starts("web")
    world.person_stops("web")


def target_gone(world: LiveLand) -> None:
    del world.targets["web"]


def target_foreign(world: LiveLand) -> None:
    world.targets["web"] = replace(world.targets["web"], ours=False, source="")


def pvc_gone(world: LiveLand) -> None:
    world.forget(max(world.volumes))


def pvc_written(world: LiveLand) -> None:
    name = max(world.volumes)
    world.volumes[name] = replace(world.volumes[name], writers=(Writer("backup", "Running", False, False),))


def pvc_used(world: LiveLand) -> None:
    claims = frozenset([max(world.volumes)])
    world.targets["alien"] = TargetVm("shop", "alien", "u", "1", False, "", "", "", "", "Halted", Power.OFF, False, "", claims=claims)


def mark_dirty(world: LiveLand) -> None:
    name = max(world.volumes)
    world.volumes[name] = replace(world.volumes[name], mark=None)


def snapshot_gone(world: LiveLand) -> None:
    assert isinstance(world, WarmLand)
    uuid = world.vms["web"].uuid
    world.remove(uuid, world.chains[uuid][0])


# ---- the guards -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "meddle"),
    [
        *(("PowerSource:shutdown", m) for m in (source_gone, target_on, target_gone)),
        *(("PowerSource:on", m) for m in (source_gone, target_on, target_about_to_start)),
        *(("StartTarget", m) for m in (source_on, source_ran, source_gone, disk_added)),
        *(("StartTarget", m) for m in (target_ran, target_gone, target_foreign, pvc_gone, pvc_written, pvc_used, mark_dirty)),
        *(("DropTargetVm", m) for m in (target_on, target_about_to_start)),
        *(("DropVolumes", m) for m in (pvc_written, pvc_used)),
    ],
)
def test_a_declared_act_is_void_when_the_direct_read_says_no(wanted: str, meddle: Meddle) -> None:
    error = refused(wanted, meddle)
    assert (error.kind, error.reason) == ("void", "GuardRefused")


@pytest.mark.parametrize(
    ("meddle", "reason"),
    [
        (source_on, "SourceChanged"),
        (source_ran, "SourceChanged"),
        (source_gone, "SourceGone"),
        (pvc_gone, "WriterNotFenced"),
        (pvc_written, "WriterNotFenced"),
        (pvc_used, "VolumeTaken"),
    ],
)
def test_a_copy_is_not_started_when_the_direct_read_says_no(meddle: Meddle, reason: str) -> None:
    assert refused("EnsureCopy", meddle).reason == reason


@pytest.mark.parametrize(("meddle", "reason"), [(snapshot_gone, "SnapshotGone"), (pvc_written, "WriterNotFenced")])
def test_a_round_is_not_started_when_the_direct_read_says_no(meddle: Meddle, reason: str) -> None:
    assert refused("EnsureCopy", meddle, warm=True).reason == reason


def test_what_changed_is_asked_for_before_the_writers_are_looked_for() -> None:
    """It may take minutes, and somebody may begin to write in them."""
    world, action = before("EnsureCopy", warm=True)
    assert act(world, action, Fate(asleep=lambda: pvc_written(world))) is not None and not world.pods


def test_a_source_that_is_as_wanted_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world, action = before("PowerSource:shutdown")
    world.power_off("web")
    monkeypatch.setattr(ToySource, "request_power", lambda *given: pytest.fail("it was asked"))
    assert act(world, action) is None


@pytest.mark.parametrize("wanted", [*DECLARED_ACTS, *OTHER_ACTS])
def test_the_right_world_lets_it_be_done(wanted: str) -> None:
    assert act(*before(wanted)) is None


# ---- the lease --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", DECLARED_ACTS)
def test_a_declared_act_needs_a_lease_younger_than_half_its_ttl(wanted: str) -> None:
    world, action = before(wanted)
    world.lease_age_s = 0.6 * TTL_S
    error = act(world, action)
    assert error is not None and error.reason == "GuardRefused" and "more than half" in error.message


@pytest.mark.parametrize(("wanted", "warm"), [*((w, False) for w in OTHER_ACTS), *((w, True) for w in WARM_ACTS)])
def test_any_act_needs_the_lease(wanted: str, warm: bool) -> None:
    world, action = before(wanted, warm=warm)
    world.lease_age_s = TTL_S
    error = act(world, action)
    assert error is not None and error.reason == "LeaseLost"


@pytest.mark.parametrize("wanted", [*DECLARED_ACTS, "EnsureCopy"])
def test_no_act_on_a_lease_that_ran_out_in_the_direct_read(wanted: str) -> None:
    """The read took minutes, or the machine slept in it: somebody else may have the lease by now."""
    world, action = before(wanted)

    def sleep() -> None:
        world.lease_age_s = 600.0

    error = act(world, action, Fate(asleep=sleep))
    assert error is not None and error.reason in ("GuardRefused", "LeaseLost")


def test_no_copy_on_a_lease_that_ran_out_while_it_was_asked_what_changed() -> None:
    world, action = before("EnsureCopy", warm=True)

    def sleep() -> None:
        world.lease = "b"

    error = act(world, action, Fate(asleep=sleep))
    assert error is not None and error.reason == "LeaseLost" and not world.jobs


class Ages:
    """A lease that is younger than its TTL for so many questions."""

    def __init__(self, good: int) -> None:
        self._ages: Iterator[float] = iter([0.0] * good)

    def lease_age_s(self) -> float:
        return next(self._ages, TTL_S)


@pytest.mark.parametrize("wanted", ["EnsureVolumes", "PutMarks", "DropVolumes"])
def test_an_act_of_several_effects_asks_before_each(wanted: str) -> None:
    world, action = before(wanted)
    world.actor, world.action = "a", action
    seen = dict(world.volumes)
    outcome = execute(action, Hands(ToySites(world), Ages(2), world.clock, TTL_S))  # type: ignore[arg-type]
    assert outcome.error is not None and outcome.error.reason in ("GuardRefused", "LeaseLost")
    changed = {name for name in seen.keys() | world.volumes.keys() if seen.get(name) != world.volumes.get(name)}
    assert len(changed) == 1, "the first effect landed, the second was not sent"


LOOKS = {"read_site", "read_inventory", "read_rights", "read_vm", "read_vms", "read_volume", "read_progress", "read_secret", "read_changes"}


@pytest.mark.parametrize("port", [SourceDriver, TargetDriver])
def test_whatever_is_no_look_asks_for_the_lease(port: type) -> None:
    names = {n for n, member in vars(port).items() if callable(member) and not n.startswith("_")}
    asked: list[str] = []

    class Driver:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *given: None

    class Sites:
        source_at = target_at = staticmethod(lambda ref: Driver())

    for name in sorted(names):
        leased = Leased(Sites(), lambda name=name: asked.append(name))  # type: ignore[arg-type, misc]
        driver = leased.source_at(SOURCE) if port is SourceDriver else leased.target_at(HOST)
        getattr(driver, name)()
    assert len(names) > 10 and set(asked) == names - LOOKS - {"describe_copy"}
