"""`archived: true` on real git and both simulated sites: what goes, what is written, and that nobody looks at the plan again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.model import Milestone, ObjectRef, Result
from tests.integration.loops import NS, TTL_S, condition, go_on, machine, passes, status_of
from tests.integration.simlab import SimLab
from tests.integration.taps import Crash, Wire, tapped

PLAN = ObjectRef(NS, "wave")


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SimLab]:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web")
        lab.plan("web")
        lab.migration()
        yield lab


def add_to_spec(lab: SimLab, line: str) -> None:
    path = lab.clone / "plans/wave.yaml"
    path.write_text(path.read_text().replace("spec:\n", f"spec:\n  {line}\n", 1))


def close(lab: SimLab) -> None:
    add_to_spec(lab, "archived: true")
    lab.commit("Archive wave")


def archived(lab: SimLab) -> bool:
    return PLAN in lab.records().archived


def files(lab: SimLab) -> list[str]:
    return lab.git("ls-tree", "-r", "--name-only", "reconciler/status", cwd=lab.repo).split()


def show(lab: SimLab, path: str) -> str:
    return lab.git("show", f"reconciler/status:{path}", cwd=lab.repo)


def asked(lab: SimLab) -> int:
    return sum(lab.vcenter.calls.values()) + sum(lab.cluster.calls.values())


def ours(lab: SimLab) -> list[str]:
    kinds = ("Job", "Pod", "PersistentVolumeClaim", "VirtualMachine")
    found = [o for kind in kinds for o in lab.cluster.find_all(kind)]
    return [o["metadata"]["name"] for o in found if (o["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "reconciler"]


def test_a_finished_plan_is_archived_and_never_looked_at_again(lab: SimLab) -> None:
    lab.commit()
    lab.run()
    lab.assert_moved("web")
    kept = ours(lab)
    close(lab)
    go_on(lab, lambda: archived(lab))
    mine = [f for f in files(lab) if f.startswith("archive/")]
    folder = f"archive/{NS}/wave"
    assert {f"{folder}/plan.yaml", f"{folder}/run-1/run.yaml"} < set(mine)
    vm = next(f for f in mine if f.startswith(f"{folder}/run-1/vms/"))
    assert show(lab, vm) == show(lab, vm.replace(f"{folder}/run-1", f"runs/{NS}/run-1")), "a copy; runs/ stays"
    assert "type: Archived" in show(lab, f"{folder}/plan.yaml")
    found = status_of(lab, "Plan", "wave")
    assert condition(found, "Archived").reason == "UserRequested" and "Ready" not in [c.type for c in found]
    assert ours(lab) == kept, "the finished VM and its disks stay"
    passes(lab, 3, seconds=3.0)
    calls = asked(lab)
    passes(lab, 5, seconds=3.0)
    assert lab.reports[-1].idle and asked(lab) == calls, "its sites are not asked any more"
    head = lab.records().commit
    lab.migration("run-2")
    lab.commit("Once more")
    go_on(lab, lambda: ("Migration", ObjectRef(NS, "run-2")) in lab.records().statuses)
    passes(lab, 3, seconds=3.0)
    assert ObjectRef(NS, "run-2") not in lab.records().runs
    assert condition(status_of(lab, "Migration", "run-2"), "PlanNotReady").reason == "Archived"
    assert status_of(lab, "Plan", "wave") == found
    assert lab.git("diff", "--name-only", head, "reconciler/status", "--", "archive", cwd=lab.repo) == ""
    subjects = lab.git("log", "--format=%s", "reconciler/status", cwd=lab.repo)
    assert "archived" in subjects


def leave_behind(lab: SimLab) -> None:
    """A run that fails in the copy, of a plan that keeps what was made."""
    add_to_spec(lab, "deleteVmOnFailMigration: false")
    lab.commit()
    go_on(lab, lambda: bool(lab.vms()) and lab.record("web").milestone is Milestone.CUTOVER)
    os.truncate(machine(lab, "web").disks[0].path, 300_000)
    go_on(lab, lab.ended)
    assert lab.record("web").result is Result.FAILED
    assert ours(lab), "the plan asked to keep them"


def test_leftovers_of_a_failed_run_go_with_the_archive(lab: SimLab) -> None:
    leave_behind(lab)
    close(lab)
    go_on(lab, lambda: archived(lab))
    assert not ours(lab)


def test_a_running_plan_is_not_archived_and_its_run_goes_on(lab: SimLab) -> None:
    lab.commit()
    go_on(lab, lambda: bool(lab.cluster.find_all("Job")))
    close(lab)
    passes(lab, 1)
    assert not archived(lab)
    go_on(lab, lambda: any(c.type == "ArchiveWaits" for c in status_of(lab, "Plan", "wave")))
    lab.run()
    lab.assert_moved("web")
    go_on(lab, lambda: archived(lab))
    assert condition(status_of(lab, "Plan", "wave"), "Archived").status


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(7))
def test_killed_in_the_middle_of_an_archive_it_goes_on(tmp_path: Path, at: int, when: str) -> None:
    """Dies around each effect of the archive of a failed run; a new reconciler, from git and the sites alone, ends the same."""
    with SimLab(tmp_path, ttl_s=5.0) as lab:
        lab.vm("web")
        lab.plan("web")
        lab.migration()
        leave_behind(lab)
        lab.stop()
        close(lab)
        lab.wire = Wire(die_at=at, when=when)
        with tapped(lab.wire):
            try:
                go_on(lab, lambda: archived(lab))
                lab.stop()
            except Crash:
                lab.stop()
        lab.wire = Wire()
        lab.take_over()
        go_on(lab, lambda: archived(lab))
        assert not ours(lab)
