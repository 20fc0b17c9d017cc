"""Kill a warm run before and after every effect, of the reconciler and of its copy pods; from git and the sites alone it ends the same.

One VM with two small disks whose guest goes on writing, in process, simulated time: a first copy, two delta rounds, a cutover by commit.
The default run takes a sample of the effects; `--deep` takes all. A copy pod dies with its machine: what it had not flushed is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.lab.machines import Happening, Snapshot, Vm
from tests.integration.loops import machine
from tests.integration.simlab import SimLab
from tests.integration.taps import Wire, prove_each, tapped

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

MIB = 1 << 20
SIZE = 4
ROUNDS = 3
EFFECTS = 74
STEPS = 84


class Estate:
    """The lab, a person who cuts over when three rounds are done, and what must never be, not even for a moment."""

    def __init__(self, root: Path) -> None:
        self.lab = SimLab(root, ttl_s=30.0)
        self.most_snapshots = 0
        self.cut_over = False

    def __enter__(self) -> Estate:
        self.lab.__enter__()
        self._watch_snapshots()
        self.lab.person = self.person
        self.lab.warm(interval_s=10)
        self.lab.tracked_vm("web", disks=2, mib=SIZE).writes_per_tick = 1
        self.lab.plan("web")
        self.lab.migration()
        self.lab.commit()
        return self

    def __exit__(self, *exc: object) -> None:
        self.lab.__exit__(*exc)

    def _watch_snapshots(self) -> None:
        make = self.lab.world.create_snapshot

        def made(vm: Vm, name: str, description: str = "") -> Snapshot:
            snapshot = make(vm, name, description)
            self.most_snapshots = max(self.most_snapshots, len(vm.snapshots))
            return snapshot

        self.lab.world.create_snapshot = made  # type: ignore[method-assign]

    def person(self) -> None:
        done = sum(r.ended is not None and not r.abandoned for v in self.lab.vms() for r in v.rounds)
        if done >= ROUNDS and not self.cut_over:
            self.cut_over = True
            self.lab.migration(cutover=self.lab.clock.now())
            self.lab.commit("cut over")

    def go_on(self) -> None:
        """A new reconciler, which knows nothing, when the lease of the dead one is over."""
        self.lab.clock.sleep(31.0)
        self.lab.run_until_death(None, "before", limit=300, seconds=2.0)

    def assert_same_end(self) -> None:
        lab, vm = self.lab, machine(self.lab, "web")
        lab.assert_moved("web")
        assert (vm.snapshots, vm.consolidation_needed, self.most_snapshots) == ([], False, 1)
        kinds = [e.kind for e in lab.world.history]
        assert [kinds.count(k) for k in (Happening.GUEST_SHUTDOWN, Happening.OFF, Happening.ON)] == [1, 1, 1], "no power action twice"
        off = next(e.at for e in lab.world.history if e.kind is Happening.OFF)
        assert [start.since >= off for start in lab.cluster.vm_starts] == [True], "the target was started once, with the source off"
        assert not lab.copied_anew, "a disk that was marked was copied from zero"
        rounds = lab.record("web").rounds
        whole = [r for r in rounds if not r.abandoned]
        assert whole[-1].final and len(whole) > ROUNDS
        assert not any(r.doubts for r in rounds)
        assert all(r.read_bytes < SIZE * MIB for r in whole[1:]), "a delta read a whole disk"


@pytest.fixture(autouse=True)
def many_watermarks(monkeypatch: pytest.MonkeyPatch) -> None:
    prove_each(monkeypatch, MIB)


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    with Estate(tmp_path) as made:
        yield made


def deaths(count: int, every: int) -> Any:
    """Before and after each of them; without --deep only around every n-th, the two in turn."""
    both = [(at, when) for at in range(count) for when in ("before", "after")]
    kept = [(at, "before" if at // every % 2 else "after") for at in range(every // 2, count, every)]
    points = [pytest.param(*one, marks=() if one in kept else pytest.mark.deep) for one in both]
    return pytest.mark.parametrize(("at", "when"), points)


def test_the_run_without_a_death(estate: Estate) -> None:
    lab = estate.lab
    lab.wire, lab.inline.wire = Wire(), Wire()
    with tapped(lab.wire):
        lab.run(limit=300, seconds=2.0)
    estate.assert_same_end()
    assert EFFECTS - 10 <= len(lab.wire.labels) <= EFFECTS, lab.wire.labels
    assert STEPS - 10 <= len(lab.inline.wire.labels) <= STEPS, lab.inline.wire.labels


@deaths(EFFECTS, 9)
def test_converges_wherever_the_reconciler_dies(estate: Estate, at: int, when: str) -> None:
    estate.lab.inline.wire = Wire()
    if not estate.lab.run_until_death(at, when, limit=300, seconds=2.0):
        estate.assert_same_end()
        pytest.skip("the run has fewer effects")
    estate.go_on()
    estate.assert_same_end()


@deaths(STEPS, 19)
def test_converges_wherever_a_copy_dies(estate: Estate, at: int, when: str) -> None:
    estate.lab.inline.wire = Wire(die_at=at, when=when)
    estate.lab.run(limit=300, seconds=2.0)
    estate.assert_same_end()
