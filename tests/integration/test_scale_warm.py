"""Many warm VMs with tiny disks and a common cutover time: the in-flight limit as the lab sees it, turns, and nothing left between rounds.

Default: 12 VMs in 2 plans, limit 3. `--deep`: a 200-VM plan, and 2 plans of 100 VMs. The guests go on writing until they are off.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from reconciler.core import warming
from reconciler.core.model import Result
from reconciler.lab.machines import Happening
from tests.integration.gauge import Gauge, widest
from tests.integration.simlab import SimLab
from tests.integration.test_scale import CONTROLLER, Passes, live_through, names, told

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def fill(lab: SimLab, plans: int, each: int, limit: int, interval_s: int) -> None:
    lab.warm(interval_s)
    for p in range(plans):
        for name in names(p, each):
            lab.tracked_vm(name, writes_per_tick=1)
        lab.plan(*names(p, each), name=f"wave-{p:02d}", namespace=f"ns-{p:02d}")
        lab.migration(f"run-{p:02d}", f"wave-{p:02d}")
    lab.write("controller.yaml", CONTROLLER.format(limit=limit))
    lab.commit()


class Story:
    """Watches each pass; cuts all runs over, at one time, once every VM has had two rounds."""

    def __init__(self, lab: SimLab, gauge: Gauge, plans: int) -> None:
        self.lab, self.gauge, self.plans = lab, gauge, plans
        self.cut_at: datetime | None = None
        self.resting: list[str] = []  # at the cutover, in plan order
        self.rounds: Counter[str] = Counter()
        self.most_before = 0

    def after_pass(self) -> None:
        vms = self.lab.vms()
        for record in vms:
            snapshots = self.vm(record.name).snapshots if record.frozen else []
            assert not (warming.rests(record) and snapshots), f"{record.name} has a snapshot between two rounds"
        rounds = Counter({v.name: sum(r.ended is not None and not r.abandoned for r in v.rounds) for v in vms})
        if self.cut_at is None and vms and min(rounds.values()) >= 2:
            self._cut(rounds)

    def vm(self, name: str):  # type: ignore[no-untyped-def]
        return next(v for v in self.lab.world.vms.values() if v.name == name)

    def _cut(self, rounds: Counter[str]) -> None:
        self.cut_at, self.rounds = self.lab.clock.now(), rounds
        self.resting = [v.name for v in self.lab.vms() if warming.rests(v)]
        self.most_before, self.gauge.most = max(self.gauge.most.values()), Counter()
        for p in range(self.plans):
            self.lab.migration(f"run-{p:02d}", f"wave-{p:02d}", cutover=self.cut_at)
        self.lab.commit("cut over")

    def asked_off(self) -> list[tuple[datetime, str]]:
        """When each guest was first asked to shut down: the vCenter's own events."""
        found: dict[str, datetime] = {}
        by_key = {v.key: v.name for v in self.lab.world.vms.values()}
        for event in self.lab.world.history:
            if event.kind is Happening.GUEST_SHUTDOWN:
                found.setdefault(by_key[event.vm], event.at)
        return sorted((at, name) for name, at in found.items())


def move_all(lab: SimLab, plans: int, each: int, limit: int, interval_s: int, passes: int) -> tuple[Passes, Gauge, Story]:
    fill(lab, plans, each, limit, interval_s)
    gauge = Gauge(lab, limit=limit, warm=True)
    story = Story(lab, gauge, plans)
    with gauge.watching():
        done = live_through(lab, passes, seconds=1.0, after=story.after_pass)
    assert [v.result for v in lab.vms()] == [Result.SUCCEEDED] * plans * each
    assert len(lab.cluster.vm_starts) == plans * each
    lab.assert_nothing_left()
    assert not gauge.odd, gauge.odd[:5]
    assert story.most_before == gauge.most["esx-1"] == limit, "the limit was made use of, in rounds and at the cutover"
    assert not [v.name for v in lab.world.vms.values() if v.snapshots]
    assert max(story.rounds.values()) - min(story.rounds.values()) <= 1, story.rounds
    return done, gauge, story


def assert_fair_cutovers(story: Story, plans: int, each: int) -> int:
    """In plan order, those in the middle of a round first, which have a slot; plans take turns. Returns how many turns one had at most."""
    asked = story.asked_off()
    at = {name: when for when, name in asked}
    for p in range(plans):
        waiting = [n for n in names(p, each) if n in story.resting]
        assert [at[n] for n in waiting] == sorted(at[n] for n in waiting)
        assert all(at[n] <= at[waiting[-1]] for n in names(p, each))
    place = {n: (i, p) for p in range(plans) for i, n in enumerate(names(p, each))}
    return widest([n[:3] for _, n in sorted(asked, key=lambda a: (a[0], place[a[1]])) if n in story.resting])


def test_limit_turns_and_no_snapshot_between_rounds(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=600.0) as lab:
        _, _, story = move_all(lab, 2, 6, 3, 20, 400)
        assert assert_fair_cutovers(story, 2, 6) <= 2, story.asked_off()
        for record in lab.vms():
            lab.assert_equal_bytes(record.name)


@pytest.mark.deep
@pytest.mark.parametrize(("plans", "each"), [(1, 200), (2, 100)])
def test_scale_warm(tmp_path: Path, plans: int, each: int) -> None:
    with SimLab(tmp_path, ttl_s=600.0) as lab:
        done, gauge, story = move_all(lab, plans, each, 20, 120, 4000)
        turns = assert_fair_cutovers(story, plans, each)
        for record in lab.vms()[::7]:
            lab.assert_equal_bytes(record.name)
        asked = story.asked_off()
        before = f"{sum(story.rounds.values())} rounds before the cutover, at most {story.most_before} disks in flight"
        cut = f"{gauge.most['esx-1']} at the cutover, in {gauge.looks} looks"
        print(f"{plans} x {each} warm VMs: {len(done.own_s)} passes, {done.commits} commits, {before}, {cut}; turns {turns}")
        print(f"cutovers from {asked[0][0]:%H:%M:%S} to {asked[-1][0]:%H:%M:%S}")
        print(told(done))
        assert turns <= 2
        assert max(done.own_s) < 2.0
