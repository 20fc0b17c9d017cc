"""A guest takes its time to shut down, and reconcilers come and go meanwhile: it is asked once, as long as git can tell that it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import PowerSource
from reconciler.core.desired import ShutdownPolicy
from reconciler.core.model import Power, PowerRequest, Result
from reconciler.core.record import IntentKind, VmRecord
from tests.unit.core.lives import Fate, LiveLand
from tests.unit.core.toyland import desired_for, source_vm


def slow(policy: ShutdownPolicy = ShutdownPolicy.FAIL) -> LiveLand:
    """Its guest goes off only when the test says so."""
    world = LiveLand({"web": source_vm("web")}, desired_for(["web"], shutdown_policy=policy))
    world.obey_shutdown = False
    return world


def only(world: LiveLand) -> VmRecord:
    return next(iter(world.records.vms.values()))


def asked(world: LiveLand) -> list[PowerRequest]:
    return [a.want for a in world.acts(PowerSource) if isinstance(a, PowerSource)]


def go(world: LiveLand, count: int, seconds: float = 1.0) -> None:
    for _ in range(count):
        world.one_pass()
        world.go_on(seconds)
        world.judge()


def until_asked(world: LiveLand, fate: Fate | None = None) -> None:
    while not asked(world):
        world.one_pass("a", fate)
        world.go_on()


def restart(world: LiveLand) -> None:
    world.processes["a"] = world.newborn()


def test_a_restart_during_the_shutdown_does_not_ask_again() -> None:
    world = slow()
    until_asked(world)
    go(world, 1)
    opened = [i for i in only(world).intents if i.kind is IntentKind.POWER_OFF_SOURCE and i.open]
    assert opened[0].accepted_at is not None, "the pass after the request commits that it was taken"
    for _ in range(4):
        restart(world)
        go(world, 10)
    assert asked(world) == [PowerRequest.SHUTDOWN]
    world.power_off("web")
    go(world, 30)
    assert only(world).result is Result.SUCCEEDED and asked(world) == [PowerRequest.SHUTDOWN]


@pytest.mark.parametrize("lost", ["the process", "the reply"])
def test_what_git_cannot_tell_is_asked_again(lost: str) -> None:
    """Deliberate: a guest that was never asked would be waited for in vain."""
    world = slow()
    until_asked(world, Fate(faults={"PowerSource": ("retryable", True)}) if lost == "the reply" else Fate())
    if lost == "the process":
        restart(world)
    go(world, 20)
    assert asked(world) == [PowerRequest.SHUTDOWN] * 2


def test_the_plug_is_not_pulled_when_the_tools_end_before_the_guest() -> None:
    world = slow(ShutdownPolicy.FORCE)
    until_asked(world)
    go(world, 2)
    world.vms["web"] = replace(world.vms["web"], tools_running=False)
    go(world, 10)
    restart(world)
    go(world, 10)
    assert asked(world) == [PowerRequest.SHUTDOWN] and world.vms["web"].power is Power.ON


def test_policy_force_still_pulls_the_plug_when_the_time_is_over() -> None:
    world = slow(ShutdownPolicy.FORCE)
    until_asked(world)
    go(world, 3)
    restart(world)
    go(world, 60, 20.0)
    assert asked(world) == [PowerRequest.SHUTDOWN, PowerRequest.OFF] and only(world).result is Result.SUCCEEDED
