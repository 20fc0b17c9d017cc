"""Kill the reconciler before and after every call that leaves the process; a new one, from git and the sites alone, ends the same.

One VM with two small disks, in process, simulated time. A death around a *look* leaves the same world as one after the last effect, so the
default sweep dies around effects (git pushes, REST writes, SOAP acts); `--deep` dies around every call.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.lab.machines import Happening
from tests.integration.simlab import SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

EFFECTS = 60  # more than a run has; the sweep says so if that is no longer true


def small_world(root: Path) -> SimLab:
    return SimLab(root, ttl_s=5.0)


def arrange(lab: SimLab) -> None:
    lab.vm("web", disks=2, mib=1)
    lab.plan("web")
    lab.migration()
    lab.commit()


def assert_same_end(lab: SimLab) -> None:
    lab.assert_moved("web")
    assert len(lab.cluster.running_vms()) == 1
    offs = [e for e in lab.world.history if e.kind in (Happening.POWERED_OFF, Happening.GUEST_SHUTDOWN)]
    assert len(offs) <= 2, "one shutdown and its power-off, never twice"
    assert lab.git("ls-remote", str(lab.repo), "reconciler/status").strip()


def test_the_run_without_a_death(tmp_path: Path) -> None:
    with small_world(tmp_path) as lab:
        arrange(lab)
        assert not lab.run_until_death(None, "before")
        assert_same_end(lab)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(EFFECTS))
def test_converges_wherever_it_dies(tmp_path: Path, at: int, when: str) -> None:
    with small_world(tmp_path) as lab:
        arrange(lab)
        died = lab.run_until_death(at, when)
        if not died:
            assert_same_end(lab)
            pytest.skip("the run has fewer effects")
        lab.clock.sleep(6.0)
        lab.run_until_death(None, "before")
        assert_same_end(lab)
