"""Kill the reconciler before and after every call that leaves the process; a new one, from git and the sites alone, ends the same.

One VM with two small disks, in process, simulated time. A death around a *look* leaves the same world as one after the last effect, so the
default sweep dies around effects (git pushes, REST writes, SOAP acts); `--deep` dies around every call.
The copy pod dies around each of its effects too, and its machine with it: what it had not flushed is lost.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.lab.machines import Happening
from tests.integration.simlab import SimLab
from tests.integration.taps import Wire, prove_each, tapped

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

MIB = 1 << 20
TTL_S = 12.0  # the lease is renewed in the middle of a run too
EFFECTS = 29  # a few more than a run has; the run without a death says so when that is no longer true
STEPS = 12  # the same of the copy pod


def small_world(root: Path) -> SimLab:
    return SimLab(root, ttl_s=TTL_S)


def arrange(lab: SimLab) -> None:
    lab.vm("web", disks=2, mib=1)
    begin(lab)


def begin(lab: SimLab) -> None:
    lab.plan("web")
    lab.migration()
    lab.commit()


def arrange_two_flushes(lab: SimLab) -> None:
    """Few writes, and more than one watermark on each disk."""
    vm = lab.vm("web", disks=2, mib=2)
    vm.writes_per_tick = 0
    for disk in vm.disks:
        lab.world.guest_write(vm, disk, MIB + 4096, b"the second half" * 100)
    begin(lab)


def assert_same_end(lab: SimLab) -> None:
    lab.assert_moved("web")
    assert len(lab.cluster.running_vms()) == 1
    kinds = [e.kind for e in lab.world.history]
    assert kinds.count(Happening.GUEST_SHUTDOWN) <= 1 and kinds.count(Happening.OFF) <= 1, "no power action twice"
    assert len(lab.cluster.vm_starts) == 1
    assert not lab.copied_anew, "a disk that was marked was copied again"
    assert lab.git("ls-remote", str(lab.repo), "reconciler/status").strip()


def test_the_run_without_a_death(tmp_path: Path) -> None:
    with small_world(tmp_path) as lab:
        arrange(lab)
        wire = Wire()
        lab.wire = wire
        with tapped(wire):
            lab.run()
        assert_same_end(lab)
        assert EFFECTS - 4 <= len(wire.labels) <= EFFECTS, wire.labels
        assert sum(label.endswith("/lease") for label in wire.labels) >= 2, "a renewal is among them"


def test_the_copy_without_a_death(tmp_path: Path) -> None:
    with small_world(tmp_path) as lab:
        arrange_two_flushes(lab)
        wire = lab.inline.wire = Wire()
        lab.run()
        assert_same_end(lab)
        assert wire.labels.count("flush") == 4
        assert STEPS - 3 <= len(wire.labels) <= STEPS, wire.labels


@pytest.fixture(autouse=True)
def many_watermarks(monkeypatch: pytest.MonkeyPatch) -> None:
    prove_each(monkeypatch, MIB)


@pytest.mark.deep
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(400))
def test_converges_around_every_call(tmp_path: Path, at: int, when: str) -> None:
    """Looks too: a reply that never came."""
    die_and_go_on(tmp_path, at, when, only_effects=False)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(EFFECTS))
def test_converges_wherever_it_dies(tmp_path: Path, at: int, when: str) -> None:
    die_and_go_on(tmp_path, at, when, only_effects=True)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(STEPS))
def test_converges_wherever_a_copy_dies(tmp_path: Path, at: int, when: str) -> None:
    with small_world(tmp_path) as lab:
        arrange_two_flushes(lab)
        lab.inline.wire = Wire(die_at=at, when=when)
        lab.run()
        assert_same_end(lab)


def die_and_go_on(root: Path, at: int, when: str, *, only_effects: bool) -> None:
    with small_world(root) as lab:
        arrange(lab)
        died = lab.run_until_death(at, when, only_effects=only_effects)
        if not died:
            assert_same_end(lab)
            pytest.skip("the run has fewer effects")
        lab.clock.sleep(6.0)
        lab.take_over()
        lab.run()
        assert_same_end(lab)
