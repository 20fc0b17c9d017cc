"""Engine.run: the loop around the passes, as `reconciler run --once` drives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.engine.loop import PassReport
from reconciler.errors import LeaseLost, RetryableError, Superseded
from reconciler.gitrepo.repo import GitRepo
from tests.integration.simlab import SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def run_once(lab: SimLab) -> None:
    def on_pass(report: PassReport) -> bool:
        lab.reports.append(report)
        return True

    (lab.engine or lab.start()).run(once=True, max_wait_s=60.0, on_pass=on_pass)


def estate(lab: SimLab) -> None:
    lab.vm("web")
    lab.plan("web")
    lab.migration()
    lab.commit()


def test_once_ends_by_itself_with_everything_published(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab:
        estate(lab)
        run_once(lab)
        lab.assert_moved("web")
        assert next(iter(lab.records().vms.values())).result == lab.record("web").result
        before = len(lab.reports)
        run_once(lab)
        assert len(lab.reports) - before <= 2, "there is nothing left to do"


def test_a_guest_that_takes_its_time_to_shut_down_is_not_kept_waiting_when_it_is_off(tmp_path: Path) -> None:
    """Nothing wakes us when it goes off, and each second until we look is downtime: there pauses stay short, elsewhere they grow."""
    waits: list[tuple[str, float]] = []
    with SimLab(tmp_path) as lab:
        lab.vm("web").shutdown_s = 40.0
        lab.plan("web")
        lab.migration()
        lab.commit()

        def wait(seconds: float) -> None:
            waits.append((next((v.phase for v in lab.reports[-1].records.vms.values()), ""), seconds))
            lab.clock.sleep(seconds)

        def on_pass(report: PassReport) -> bool:
            lab.reports.append(report)
            return True

        lab.start(waiter=wait).run(once=True, max_wait_s=60.0, on_pass=on_pass)
        lab.assert_moved("web")
    shutting = [seconds for phase, seconds in waits if phase == "PowerOffSource"]
    assert sum(shutting) > 30.0 and max(shutting) == 1.0


@pytest.mark.parametrize(
    "error",
    [
        Superseded("Superseded", "runs/ moved"),
        RetryableError("GitUnavailable", "the remote hung up"),
        LeaseLost("LeaseLost", "the pass took longer than the lease"),
    ],
)
def test_a_pass_that_lost_its_race_its_remote_or_its_lease_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:  # fmt: skip
    """Safety 8: the decision of that pass is dropped with all its acts."""
    real, calls = GitRepo.publish, []

    def publish(self: GitRepo, changes: Mapping[str, bytes | None], message: str, base: str) -> str:
        calls.append(message)
        if len(calls) in (2, 4):
            raise error
        return real(self, changes, message, base)

    monkeypatch.setattr(GitRepo, "publish", publish)
    with SimLab(tmp_path) as lab:
        estate(lab)
        run_once(lab)
        lab.assert_moved("web")
        assert len(calls) > 4


def test_once_gives_up_on_a_remote_that_stays_away(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab:
        estate(lab)
        lab.start()
        lab.repo.rename(tmp_path / "away.git")
        began = lab.clock.monotonic()
        with pytest.raises(RetryableError):
            run_once(lab)
        assert 60 <= lab.clock.monotonic() - began <= 180
        (tmp_path / "away.git").rename(lab.repo)
