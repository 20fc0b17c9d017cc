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
EXPORT_STEPS = 66  # ... and where the first copy is an export


class Estate:
    """The lab, a person who cuts over when all rounds are done, and what must never be, not even for a moment.

    `locked`: the base of a running VM cannot be read, so there is one round, an export.
    """

    def __init__(self, root: Path, *, locked: bool) -> None:
        self.lab = SimLab(root, ttl_s=30.0)
        self.lab.store = self.lab.locked if locked else self.lab.store
        self.rounds = 1 if locked else ROUNDS
        self.delta_bytes = (8 if locked else 6) * SIZE * MIB // 4  # of two disks; a lease that nobody ends keeps the cutover waiting
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
        """Reads what is committed: a reconciler without the lease says what it would do."""
        if not self.lab.reports[-1].holds_lease:
            return
        done = sum(r.ended is not None and not r.abandoned for v in self.lab.vms() for r in v.rounds)
        if done >= self.rounds and not self.cut_over:
            self.cut_over = True
            self.lab.migration(cutover=self.lab.clock.now())
            self.lab.commit("cut over")

    def go_on(self) -> None:
        """A new reconciler, which knows nothing, when the lease of the dead one is long over."""
        self.lab.clock.sleep(640.0)
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
        assert whole[-1].final and len(whole) > self.rounds
        assert not any(r.doubts for r in rounds)
        assert all(r.read_bytes <= self.delta_bytes for r in whole[1:]), "a delta read more than what changed"


@pytest.fixture(autouse=True)
def many_watermarks(monkeypatch: pytest.MonkeyPatch) -> None:
    prove_each(monkeypatch, MIB)


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    with Estate(tmp_path, locked=False) as made:
        yield made


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[Estate]:
    with Estate(tmp_path, locked=True) as made:
        yield made


def deaths(count: int, every: int) -> Any:
    """Before and after each of them; without --deep only around every n-th, the two in turn."""
    both = [(at, when) for at in range(count) for when in ("before", "after")]
    kept = [(at, "before" if at // every % 2 else "after") for at in range(every // 2, count, every)]
    points = [pytest.param(*one, marks=() if one in kept else pytest.mark.deep) for one in both]
    return pytest.mark.parametrize(("at", "when"), points)


def live_to_the_end(estate: Estate) -> tuple[list[str], list[str]]:
    """The effects of the reconciler and of the copy pods."""
    lab = estate.lab
    lab.wire, lab.inline.wire = Wire(), Wire()
    with tapped(lab.wire):
        lab.run(limit=300, seconds=2.0)
    estate.assert_same_end()
    return lab.wire.labels, lab.inline.wire.labels


def kill_a_copy(estate: Estate, at: int, when: str, seconds: float = 2.0) -> None:
    estate.lab.inline.wire = doomed = Wire(die_at=at, when=when)
    estate.lab.run(limit=300, seconds=seconds)
    estate.assert_same_end()
    if not doomed.dead:
        pytest.skip("the copies have fewer effects")


def test_the_run_without_a_death(estate: Estate) -> None:
    effects, steps = live_to_the_end(estate)
    assert EFFECTS - 10 <= len(effects) <= EFFECTS, effects
    assert STEPS - 10 <= len(steps) <= STEPS, steps


@deaths(EFFECTS, 12)
def test_converges_wherever_the_reconciler_dies(estate: Estate, at: int, when: str) -> None:
    estate.lab.inline.wire = Wire()
    if not estate.lab.run_until_death(at, when, limit=300, seconds=2.0):
        estate.assert_same_end()
        pytest.skip("the run has fewer effects")
    estate.go_on()
    estate.assert_same_end()


@deaths(STEPS, 28)
def test_converges_wherever_a_copy_dies(estate: Estate, at: int, when: str) -> None:
    kill_a_copy(estate, at, when)


def test_the_exported_run_without_a_death(exported: Estate) -> None:
    _, steps = live_to_the_end(exported)
    assert [s for s in steps if s.startswith("soap")], "the lease's acts are effects too"
    assert EXPORT_STEPS - 10 <= len(steps) <= EXPORT_STEPS, steps


@deaths(EXPORT_STEPS, 33)
def test_converges_wherever_an_export_dies(exported: Estate, at: int, when: str) -> None:
    kill_a_copy(exported, at, when, seconds=6.0)  # the lease of a dead pod is waited for
