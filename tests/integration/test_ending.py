"""The end of a reconciler: its lease goes after its acts, because whoever takes over acts at once. On real threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.clock import SystemClock
from reconciler.core.model import ObjectRef
from reconciler.engine.loop import Engine, Rules
from reconciler.engine.sites import ACT, THREADS_PER_LANE, Sites

LANE = (ACT, ObjectRef("ns", "vc"), ObjectRef("ns", "host"))
NEVER_S = 30.0


class Story:
    """Repo, connector and acts that tell in which order they came to their ends."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.gate = threading.Event()
        self.release_lease = lambda: self.told.append("lease released")
        self.close = lambda: self.told.append("sites closed")

    def act(self, name: str) -> Callable[[], None]:
        def work() -> None:
            self.gate.wait(NEVER_S)
            self.told.append(name)

        return work


@pytest.fixture
def story() -> Iterator[Story]:
    story = Story()
    yield story
    story.gate.set()


def ended(story: Story, *, budget_s: float, opens_after_s: float, acts: int = 1) -> list[str]:
    """What was told by the end of `close`, with some acts under way that end when the gate opens."""
    fake: Any = story
    sites = Sites(fake, SystemClock())
    engine = Engine(fake, sites, SystemClock(), Rules(act_budget_s=budget_s), "origin")
    for number in range(acts):
        sites.submit(LANE, story.act(f"act {number}"))
    timer = threading.Timer(opens_after_s, story.gate.set)
    timer.start()
    engine.close()
    timer.join()
    return story.told


def test_the_lease_is_released_when_our_acts_have_ended(story: Story) -> None:
    assert ended(story, budget_s=NEVER_S, opens_after_s=0.3) == ["act 0", "lease released", "sites closed"]


def test_an_act_that_does_not_end_keeps_the_lease_until_it_runs_out(story: Story) -> None:
    assert ended(story, budget_s=0.1, opens_after_s=0.6) == ["act 0", "sites closed"]


def test_an_act_that_has_not_begun_is_dropped(story: Story) -> None:
    told = ended(story, budget_s=NEVER_S, opens_after_s=0.3, acts=THREADS_PER_LANE + 3)
    assert len([t for t in told if t.startswith("act")]) == THREADS_PER_LANE and told[-2:] == ["lease released", "sites closed"]
