"""Engine.run: the loop around the passes, as `reconciler run --once` drives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.core.record import VmRecord
from reconciler.engine.loop import PassReport
from reconciler.errors import LeaseLost, RetryableError, Superseded, TerminalError
from reconciler.gitrepo.repo import GitRepo
from reconciler.lab.machines import Power
from tests.integration.loops import critical, go_on, machine, passes, record_of
from tests.integration.simlab import SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def run_once(lab: SimLab) -> None:
    before = len(lab.reports)

    def on_pass(report: PassReport) -> bool:
        lab.reports.append(report)
        assert len(lab.reports) - before < 300, "it never ends"
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


@pytest.mark.parametrize("once", [False, True])
def test_a_token_that_expires_ends_a_cron_run_and_not_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool) -> None:
    real, calls, told = GitRepo.publish, [], []

    def publish(self: GitRepo, changes: Mapping[str, bytes | None], message: str, base: str) -> str:
        calls.append(message)
        if len(calls) == 4:
            raise TerminalError("AuthFailed", "renew the token")
        return real(self, changes, message, base)

    monkeypatch.setattr(GitRepo, "publish", publish)
    with SimLab(tmp_path) as lab:
        estate(lab)

        def on_pass(report: PassReport) -> bool:
            lab.reports.append(report)
            return not lab.ended()

        def live() -> None:
            lab.start(waiter=lab.clock.sleep).run(once=once, max_wait_s=60.0, on_pass=on_pass, on_failure=told.append)

        if once:
            with pytest.raises(TerminalError, match="renew the token"):
                live()
        else:
            live()
            lab.assert_moved("web")
            assert [failure.reason for failure in told] == ["AuthFailed"]


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


# ---- cron: a new process every five minutes ---------------------------------------------------------------------------------------------

WEEKEND_S = 200_000.0


def cron(lab: SimLab, runs: int, every_s: float = 300.0) -> list[float]:
    """`run --once` as cron starts it, each a process that knows nothing; for how long each ran. Ends early when the runs have ended."""
    took = []
    for _ in range(runs):
        began = lab.clock.monotonic()
        lab.start()
        run_once(lab)
        lab.stop()
        took.append(lab.clock.monotonic() - began)
        if lab.ended():
            break
        lab.clock.sleep(max(0.0, every_s - took[-1]))
    return took


def deaf(lab: SimLab, **annotations: str) -> None:
    """A guest that ignores its shutdown."""
    lab.vm("web", ignores_shutdown=True)
    lab.plan("web", annotations=str({f"reconciler.dev/{k.replace('_', '-')}": v for k, v in annotations.items()}))
    lab.migration()
    lab.commit()


def seen(record: VmRecord) -> float:
    return record.timers.get("shutdown", 0.0)


def test_a_deadline_adds_up_over_cron_runs_and_then_the_policy_applies(tmp_path: Path) -> None:
    """Each run looks for the minute of --max-wait; what was seen stands in git, and a weekend without a run is no part of it."""
    with SimLab(tmp_path) as lab:
        deaf(lab, guest_shutdown_policy="force", guest_shutdown_timeout="150")
        took = cron(lab, 2)
        half = seen(record_of(lab, "web"))
        assert 60.0 < half <= sum(took) and machine(lab, "web").power is Power.ON
        lab.clock.sleep(WEEKEND_S)
        took += cron(lab, 2)
        lab.assert_moved("web")
        assert len(took) == 3 and took[-1] > 150.0 - half, "the rest had to be seen too"
        assert not record_of(lab, "web").timers


def test_a_loop_that_starts_anew_goes_on_with_the_deadlines_that_git_knows(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab:
        deaf(lab)
        for _ in range(3):
            lab.start()
            passes(lab, 14, seconds=30.0)
            if lab.record("web").unwinding:
                return
            lab.stop()
        raise AssertionError(f"never came to its deadline: {seen(record_of(lab, 'web'))} s")


def test_deadlines_make_no_flood_of_commits(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab:
        deaf(lab)
        go_on(lab, lambda: lab.reports[-1].records.vms != {} and seen(lab.record("web")) > 0.0)
        before = lab.reports[-1].commits
        passes(lab, 29, seconds=10.0)
        assert lab.reports[-1].commits == before, "mere progress, every five minutes"
        passes(lab, 3, seconds=10.0)
        assert lab.reports[-1].commits == before + 1
        assert seen(record_of(lab, "web")) >= 290.0


def test_a_removal_counts_only_while_somebody_looks_and_makes_no_flood(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab:
        deaf(lab)
        cron(lab, 1)
        lab.remove("migrations/run-1.yaml")
        lab.commit("remove")
        cron(lab, 1)
        lab.clock.sleep(WEEKEND_S)
        took = cron(lab, 1)
        assert record_of(lab, "web").cancel_at is None and 60.0 <= took[-1] <= 70.0
        assert lab.reports[-1].commits <= 2
        cron(lab, 3)
        assert record_of(lab, "web").cancel_at is not None


def test_once_ends_at_once_where_all_that_is_left_is_held(tmp_path: Path) -> None:
    """A hold is written down when it begins, and not again in each pass."""
    with SimLab(tmp_path) as lab:
        deaf(lab)
        cron(lab, 1)
        lab.remove("plans/wave.yaml")
        lab.commit("remove")
        took = cron(lab, 2)
        assert critical(record_of(lab, "web").conditions) == ["ManifestGone"]
        assert took[-1] < 10.0 and lab.reports[-1].commits <= 1
