"""What goes wrong for longer than one call: sites and the remote away for hours, lost races, refusals that a person lifts, a deaf guest.

Single calls that go wrong: test_fault_sweep.py, and for git test_fault_git.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reconciler.core.model import Milestone, Result
from reconciler.gitrepo.git import Git
from reconciler.lab.machines import Happening, Power
from tests.integration.loops import TTL_S, condition, go_on, happened, machine, passes, record_of
from tests.integration.simlab import PATH, SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def arrange(lab: SimLab, *, disks: int = 1, mib: int = 1, annotations: str = "{}") -> None:
    lab.vm("web", disks=disks, mib=mib)
    lab.plan("web", annotations=annotations)
    lab.migration()
    lab.commit()


def assert_same_end(lab: SimLab) -> None:
    lab.assert_moved("web")
    kinds = happened(lab, "web")
    assert kinds.count(Happening.OFF) == 1 and kinds.count(Happening.GUEST_SHUTDOWN) == 1, "no power action twice"
    assert len(lab.cluster.vm_starts) == 1
    assert len(lab.cluster.find_all("PersistentVolumeClaim", "shop")) == len(record_of(lab, "web").disks)


def test_a_worker_killed_for_memory_is_followed_by_another_attempt(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        lab.inline.killed = {1, 2}
        go_on(lab, lab.ended)
        made = [a.name for a in lab.cluster.audit if a.verb == "create" and a.resource == "jobs"]
        assert len(made) == len(set(made)) == 3 == lab.inline.starts, "each attempt has a name of its own"
        assert record_of(lab, "web").attempt == 3
        assert_same_end(lab)


# ---- away for longer than any deadline ---------------------------------------------------------------------------------------------------


def effects(lab: SimLab) -> tuple[object, ...]:
    acts = {k: n for k, n in lab.vcenter.calls.items() if k.startswith("VirtualMachine.")}
    return (len(lab.cluster.audit), acts, lab.inline.starts)


def time_passes(lab: SimLab, minutes: int) -> list[str]:
    """In steps that would count for a deadline if both sites were seen."""
    return [err.reason for err in passes(lab, minutes, seconds=60.0)]


def at(lab: SimLab, phase: str) -> Callable[[], bool]:
    return lambda: any(v.phase == phase for v in lab.vms())


@pytest.mark.parametrize("phase", ["PowerOffSource", "CopyDisks"])
def test_the_git_remote_is_away_for_an_hour(tmp_path: Path, phase: str) -> None:
    """With the guest asked and deaf, its deadline of 600 s does not run meanwhile."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web", ignores_shutdown=phase == "PowerOffSource")
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, at(lab, phase))
        passes(lab, 2)
        before = effects(lab)
        lab.repo.rename(lab.root / "elsewhere.git")
        assert time_passes(lab, 60) == ["GitUnavailable"] * 60
        assert effects(lab) == before, "no effect without the remote"
        (lab.root / "elsewhere.git").rename(lab.repo)
        if phase == "PowerOffSource":
            passes(lab, 10)
            assert record_of(lab, "web").error is None, "that time did not count"
            lab.world.power_off(machine(lab, "web"), "somebody")
        go_on(lab, lab.ended)
        lab.assert_moved("web")


@pytest.mark.parametrize("phase", ["PowerOffSource", "CopyDisks"])
def test_the_api_server_is_away_for_longer_than_any_deadline(tmp_path: Path, phase: str) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web", ignores_shutdown=phase == "PowerOffSource")
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, at(lab, phase))
        passes(lab, 2)
        before = effects(lab)
        lab.cluster.faults.script("R" * 10_000)
        time_passes(lab, 20)
        assert effects(lab) == before, "no effect without the target"
        assert "503" in record_of(lab, "web").message
        lab.cluster.faults.script("")
        if phase == "PowerOffSource":
            passes(lab, 10)
            assert record_of(lab, "web").error is None, "that time did not count"
            lab.world.power_off(machine(lab, "web"), "somebody")
        go_on(lab, lab.ended)
        lab.assert_moved("web")


# ---- lost push races --------------------------------------------------------------------------------------------------------------------


def commit_on_status(lab: SimLab, path: str, text: str) -> None:
    """Somebody else's commit on the status branch."""
    index = {"GIT_INDEX_FILE": str(lab.root / "meddler.index"), "PATH": PATH, "HOME": str(lab.root)}

    def git(*args: str, said: str = "") -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=s@example.org")
        done = subprocess.run(["git", *who, *args], cwd=lab.repo, env=index, input=said, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("read-tree", "reconciler/status")
    git("update-index", "--add", "--cacheinfo", f"100644,{git('hash-object', '-w', '--stdin', said=text)},{path}")
    made = git("commit-tree", git("write-tree"), "-p", "reconciler/status", "-m", "mine")
    git("update-ref", "refs/heads/reconciler/status", made)


def meddle(monkeypatch: pytest.MonkeyPatch, times: int, act: Callable[[], None]) -> list[int]:
    """Before each of the next `times` pushes of status, `act`."""
    done: list[int] = []
    git = Git.run

    def run(self: Git, args: Sequence[str], *more: object, **options: object) -> object:
        if args[0] == "push" and str(args[-1]).endswith("reconciler/status") and len(done) < times:
            done.append(1)
            act()
        return git(self, args, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Git, "run", run)
    return done


def test_ten_lost_races_outside_of_runs_and_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, at(lab, "ReserveVM"))
        done = meddle(monkeypatch, 10, lambda: commit_on_status(lab, "notes/mine.md", f"line {len(done)}\n"))
        met = go_on(lab, lab.ended)
        assert len(done) == 10 and [e.reason for e in met] == ["PushRejected"]
        assert_same_end(lab)
        assert lab.git("show", "reconciler/status:notes/mine.md", cwd=lab.repo) == "line 10\n", "their file is still there"


def test_a_lost_race_inside_of_runs_drops_the_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, at(lab, "ReserveVM"))
        seen: list[object] = []

        def touch() -> None:
            seen.append(effects(lab)[1:])  # a trial mount whose result was not committed yet is repeated, and nothing else
            path = "runs/openshift-mtv/run-1/run.yaml"
            text = lab.git("show", f"reconciler/status:{path}", cwd=lab.repo)
            commit_on_status(lab, path, text + "# looked at by somebody\n")

        done = meddle(monkeypatch, 2, touch)
        met = go_on(lab, lambda: len(done) == 2)
        assert [e.reason for e in met] == ["Superseded"] * 2
        assert seen[0] == seen[1], "nothing of the dropped decision was done"
        go_on(lab, lab.ended)
        assert_same_end(lab)


# ---- refusals of the target that a person lifts -----------------------------------------------------------------------------------------


def test_a_quota_that_is_used_up(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        lab.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": "shop"}}
        lab.cluster.put({**quota, "spec": {"hard": {"persistentvolumeclaims": "0"}}})
        passes(lab, 8, seconds=2.0)
        record = record_of(lab, "web")
        assert record.result is None and machine(lab, "web").power is Power.ON and not happened(lab, "web").count(Happening.OFF)
        why = condition(record.conditions, "Retrying")
        assert why.reason == "QuotaExceeded" and "persistentvolumeclaims=0" in why.message
        assert "PersistentVolumeClaim shop/" in why.message and "small" in why.message and "raise it" in why.message
        lab.cluster.put({**quota, "spec": {"hard": {"persistentvolumeclaims": "5"}}})
        go_on(lab, lab.ended, seconds=2.0)
        assert_same_end(lab)


def test_a_namespace_that_we_may_not_make(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        lab.cluster.deny("create", "namespaces")
        passes(lab, 8, seconds=2.0)
        record = record_of(lab, "web")
        assert record.result is None and machine(lab, "web").power is Power.ON
        why = condition(record.conditions, "Retrying")
        assert why.reason == "Forbidden" and "Namespace shop" in why.message and 'grant the verb "create" on namespaces' in why.message
        lab.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})  # somebody who may makes it
        go_on(lab, lab.ended, seconds=2.0)
        assert_same_end(lab)


# ---- the source -------------------------------------------------------------------------------------------------------------------------

DEAF = '{reconciler.dev/guest-shutdown-timeout: "60"%s}'


def test_a_deaf_guest_is_given_back(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web", ignores_shutdown=True)
        lab.plan("web", annotations=DEAF % "")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: any(v.unwinding for v in lab.vms()), seconds=15.0)
        go_on(lab, lab.ended, seconds=59.0)
        record = record_of(lab, "web")
        assert record.result is Result.FAILED and record.error is not None and record.error.reason == "GuestShutdownTimeout"
        assert "web" in record.message and "60 s" in record.message and "guest-shutdown-policy: force" in record.message
        assert machine(lab, "web").power is Power.ON and happened(lab, "web").count(Happening.GUEST_SHUTDOWN) == 1
        assert Happening.OFF not in happened(lab, "web") and lab.inline.starts == 0
        assert not lab.cluster.find_all("PersistentVolumeClaim", "shop") and not lab.cluster.find_all("VirtualMachine", "shop")
        lab.assert_nothing_left()


def test_a_deaf_guest_that_obeys_after_all_is_powered_on_again(tmp_path: Path) -> None:
    """Safety 24: at 700 s, when the failure was written long ago."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web", ignores_shutdown=True)
        lab.plan("web", annotations=DEAF % "")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: any(v.unwinding for v in lab.vms()), seconds=15.0)
        passes(lab, 3, seconds=35.0)
        lab.world.power_off(machine(lab, "web"), "", "guest")
        go_on(lab, lab.ended, seconds=59.0)
        assert record_of(lab, "web").result is Result.FAILED and machine(lab, "web").power is Power.ON
        assert happened(lab, "web").count(Happening.ON) == 2
        claim = next(iter(lab.records().claims.values()))
        assert claim.released is not None and not claim.powered_off_by_us
        lab.assert_nothing_left()


def test_a_deaf_guest_loses_its_plug_under_policy_force(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web", ignores_shutdown=True)
        lab.plan("web", annotations=DEAF % ", reconciler.dev/guest-shutdown-policy: force")
        lab.migration()
        lab.commit()
        go_on(lab, lab.ended, seconds=15.0)
        assert_same_end(lab)


def test_a_source_file_that_shrinks(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web", disks=2)
        lab.vm("db")
        lab.plan("web", "db")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: bool(lab.vms()) and lab.record("web").milestone is Milestone.CUTOVER)
        short = machine(lab, "web").disks[1]
        os.truncate(short.path, 300_000)
        go_on(lab, lab.ended)
        record = record_of(lab, "web")
        assert record.result is Result.FAILED and record.error is not None and record.error.phase == "CopyDisks"
        assert short.file.removesuffix(".vmdk") in record.message and "300000" in record.message, record.message
        assert machine(lab, "web").power is Power.ON and not lab.target_on("web")
        lab.assert_moved("db")


def test_direct_reads_that_are_stale(tmp_path: Path) -> None:
    """A replica that lags: the source is on for some reads longer than it is, and the epoch is an old one."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        stale: list[str] = []

        def direct(label: str) -> bool:
            hit = label.endswith(("RetrievePropertiesEx", "QueryEvents")) and len(stale) < 4
            stale.extend([label] * hit)
            return hit

        met: dict[str, int] = {}
        left = ["ProveSourceOff", "CopyDisks", "HandOver"]

        def ended() -> bool:
            if left and at(lab, left[0])():
                stale.clear()
                lab.vcenter.faults.script("SSSS", direct)
                left.pop(0)
            met["most"] = max(met.get("most", 0), len(stale))
            return lab.ended()

        go_on(lab, ended)
        assert not left and met["most"] > 1
        assert_same_end(lab)
