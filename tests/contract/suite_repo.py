"""The StatusRepo contract, as a class that each kind of remote subclasses with a `remote` fixture."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reconciler.clock import SystemClock
from reconciler.errors import LeaseLost, RetryableError, Superseded, TerminalError, UserError
from reconciler.gitrepo import lease
from reconciler.gitrepo.repo import GitRepo
from tests.contract.git_remote import LEASE, REAL_GIT, SECRET, STATUS, TTL_S, Remote, SimClock, held


class FetchContract:
    def test_lists_yaml_below_the_path_and_all_of_status(self, remote: Remote) -> None:
        remote.commit("main", {"wave/a.yaml": b"1", "wave/sub/b.yml": b"2", "wave/c.txt": b"3", "waves/d.yaml": b"4", "e.yaml": b"5"})
        remote.commit(STATUS, {"README.md": b"r", "runs/x.yaml": b"1"})
        repo = GitRepo(replace(remote.config(), path="./wave/"), SimClock())
        checkout = repo.fetch()
        assert [blob.path for blob in checkout.desired.blobs] == ["wave/a.yaml", "wave/sub/b.yml"]
        assert [blob.path for blob in checkout.status.blobs] == ["README.md", "runs/x.yaml"]
        assert (checkout.desired.commit, checkout.status.commit) == (remote.head("main"), remote.head(STATUS))

    def test_reads_each_blob_once_in_one_process(self, remote: Remote) -> None:
        awkward = {"a.yaml": b"1\n", "empty.yaml": b"", "bin.yaml": bytes(range(256)) * 9, "same.yaml": b"1\n", "no-end.yaml": b"x"}
        remote.commit("main", awkward)
        repo = GitRepo(remote.config(), SimClock())
        blobs = repo.fetch().desired.blobs
        remote.forget()
        contents = repo.read([blob.id for blob in blobs])
        assert remote.commands() == ["cat-file"]
        assert {blob.path: contents[blob.id] for blob in blobs} == awkward
        assert len(contents) == 4
        assert repo.read([]) == {}

    def test_an_object_that_is_not_there_is_retryable(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        repo = GitRepo(remote.config(), SimClock())
        repo.fetch()
        with pytest.raises(RetryableError):
            repo.read(["1" * 40])

    def test_symlinks_and_submodules_do_not_exist(self, remote: Remote) -> None:
        files: dict[str, bytes | None] = {"a.yaml": b"1", "link.yaml": b"/etc/passwd", "module.yaml": b"1" * 40, "run.yaml": b"2"}
        remote.commit("main", files, {"link.yaml": "120000", "module.yaml": "160000", "run.yaml": "100755"})
        checkout = GitRepo(remote.config(), SimClock()).fetch()
        assert [blob.path for blob in checkout.desired.blobs] == ["a.yaml", "run.yaml"]

    def test_odd_names_come_through(self, remote: Remote) -> None:
        remote.commit("main", {'quo"te.yaml': b"1", "blank name.yaml": b"2", "ünï.yaml": b"3"})
        checkout = GitRepo(remote.config(), SimClock()).fetch()
        assert {blob.path for blob in checkout.desired.blobs} == {'quo"te.yaml', "blank name.yaml", "ünï.yaml"}

    def test_idle_fetch_is_one_ls_remote(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        remote.commit(STATUS, {"README.md": b"r"})
        repo = GitRepo(remote.config(), SimClock())
        first = repo.fetch()
        remote.forget()
        assert repo.fetch() == first
        assert remote.commands() == ["ls-remote"]

    def test_a_new_process_on_a_warm_cache_fetches_nothing(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        first = GitRepo(remote.config(), SimClock()).fetch()
        remote.forget()
        assert GitRepo(remote.config(), SimClock()).fetch() == first
        assert "fetch" not in remote.commands()

    def test_sees_what_others_push(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        repo = GitRepo(remote.config(), SimClock())
        before = repo.fetch()
        pushed = remote.commit("main", {"a.yaml": None, "b.yaml": b"2"})
        after = repo.fetch()
        assert before.status.commit == after.status.commit == ""
        assert after.desired.commit == pushed
        assert [blob.path for blob in after.desired.blobs] == ["b.yaml"]

    def test_follows_a_forge_restored_from_last_night(self, remote: Remote) -> None:
        last_night = remote.commit("main", {"a.yaml": b"1"})
        remote.commit("main", {"b.yaml": b"2"})
        repo = GitRepo(remote.config(), SimClock())
        today = repo.fetch().desired.commit
        remote.git("update-ref", "refs/heads/main", last_night)
        checkout = repo.fetch()
        assert checkout.desired.commit == last_night
        assert [blob.path for blob in checkout.desired.blobs] == ["a.yaml"]
        assert not repo.is_ancestor(today, last_night)

    def test_follows_the_default_branch(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        trunk = remote.commit("trunk", {"b.yaml": b"1"})
        repo = GitRepo(replace(remote.config(), branch=None), SimClock())
        assert repo.fetch().desired.commit == remote.head("main")
        remote.git("symbolic-ref", "HEAD", "refs/heads/trunk")
        assert repo.fetch().desired.commit == trunk

    def test_a_default_branch_that_is_the_status_branch_is_refused(self, remote: Remote) -> None:
        remote.commit(STATUS, {"README.md": b"r"})
        remote.git("symbolic-ref", "HEAD", f"refs/heads/{STATUS}")
        with pytest.raises(UserError, match="BranchClash"):
            GitRepo(replace(remote.config(), branch=None), SimClock()).fetch()

    def test_an_empty_remote_and_a_missing_branch_say_which(self, remote: Remote) -> None:
        with pytest.raises(RetryableError, match=r"BranchMissing.*HEAD"):
            GitRepo(replace(remote.config(), branch=None), SimClock()).fetch()
        remote.commit("main", {"a.yaml": b"1"})
        with pytest.raises(RetryableError, match=r"BranchMissing.*'wave/2'"):
            GitRepo(replace(remote.config(), branch="wave/2"), SimClock()).fetch()

    def test_a_moved_folder_is_an_error_and_no_removal(self, remote: Remote) -> None:
        """Safety 10."""
        remote.commit("main", {"wave/a.yaml": b"1"})
        repo = GitRepo(replace(remote.config(), path="wave"), SimClock())
        repo.fetch()
        remote.commit("main", {"wave/a.yaml": None, "waves/a.yaml": b"1"})
        with pytest.raises(RetryableError, match=r"PathMissing.*'wave'"):
            repo.fetch()

    def test_remote_away_is_retryable_and_over_when_it_is_back(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        repo = GitRepo(remote.config(), SimClock())
        first = repo.fetch()
        remote.away()
        with pytest.raises(RetryableError, match="GitUnavailable"):
            repo.fetch()
        remote.back()
        assert repo.fetch() == first

    def test_a_remote_that_hangs_is_retryable(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        repo = GitRepo(replace(remote.config(), timeout_s=0.5), SimClock())
        remote.script("H ls-remote")
        with pytest.raises(RetryableError, match="took longer"):
            repo.fetch()

    def test_a_lost_cache_is_filled_again_though_no_head_moved(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        repo = GitRepo(remote.config(), SimClock())
        (blob,) = repo.fetch().desired.blobs
        shutil.rmtree(remote.root / "cache")
        with pytest.raises(RetryableError, match="GitCacheLost"):
            repo.read([blob.id])
        repo.fetch()
        assert repo.read([blob.id]) == {blob.id: b"1"}

    @pytest.mark.parametrize("harm", ["gone", "objects", "lock", "half-made"])
    def test_the_cache_may_be_lost_at_any_moment(self, remote: Remote, harm: str) -> None:
        """`lock`: what a fetch that was killed leaves behind."""
        remote.commit("main", {"a.yaml": b"1"})
        repo = GitRepo(remote.config(), SimClock())
        repo.fetch()
        remote.commit("main", {"b.yaml": b"2"})
        (clone,) = (remote.root / "cache").glob("*/clone.git")
        match harm:
            case "gone":
                shutil.rmtree(clone)
            case "objects":
                shutil.rmtree(clone / "objects")
                (clone / "objects").mkdir()
            case "lock":
                (clone / "refs/seen/desired.lock").write_text("")
            case _:
                shutil.rmtree(clone / "objects")
        for _ in range(2):
            try:
                checkout = repo.fetch()
                break
            except RetryableError as err:
                assert err.reason == "GitCacheLost"
        assert repo.read([checkout.desired.blobs[1].id]) == {checkout.desired.blobs[1].id: b"2"}


class PublishContract:
    def test_first_commit_is_an_orphan_and_the_next_one_its_child(self, remote: Remote) -> None:
        clock = SimClock()
        repo = held(remote, clock)
        first = repo.publish({"README.md": b"r", "runs/a/b.yaml": b"1"}, "wave-1: web-01 copying\n\nVM: web-01\n", "")
        clock.advance(30)
        second = repo.publish({"README.md": None, "runs/a/b.yaml": b"2"}, "wave-1: web-01 succeeded", first)
        assert remote.files(STATUS) == {"runs/a/b.yaml": b"2"}
        assert remote.git("log", "--format=%H %P|%an|%ad|%s", "--date=iso-strict", STATUS).decode().splitlines() == [
            f"{second} {first}|reconciler|2026-03-01T12:00:30+00:00|wave-1: web-01 succeeded",
            f"{first} |reconciler|2026-03-01T12:00:00+00:00|wave-1: web-01 copying",
        ]
        remote.forget()
        assert repo.fetch().status.commit == second
        assert "fetch" not in remote.commands()

    def test_bytes_that_are_there_already_make_no_commit(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        assert repo.publish({"runs/never.yaml": None}, "nothing", "") == ""
        base = repo.publish({"a": b"1", "b": b""}, "one", "")
        remote.forget()
        assert repo.publish({"a": b"1", "b": b"", "c": None}, "two", base) == base
        assert not {"fast-import", "push"} & set(remote.commands())
        assert remote.count(STATUS) == 1

    def test_names_from_a_source_are_hostile(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        files: dict[str, bytes] = {
            'runs/"q"\\n.yaml': b"1",
            "runs/-rf *.yaml": b"2",
            "runs/ü\u202e.yaml": b"3",
            "runs/a\nM 100644 x y": b"4",
        }
        head = repo.publish(files, "subject\n\ndata 3\nfrom 0000\n", "")
        assert {blob.path for blob in repo.fetch().status.blobs} == set(files)
        assert repo.publish(dict.fromkeys(files), "gone", head) != head
        assert remote.files(STATUS) == {}

    def test_a_folder_takes_the_place_of_a_file(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        head = repo.publish({"status/x": b"1"}, "file", "")
        repo.publish({"status/x": None, "status/x/y": b"2"}, "folder", head)
        assert remote.files(STATUS) == {"status/x/y": b"2"}

    def test_rejected_push_goes_on_when_nothing_decisive_moved(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        base = repo.publish({"README.md": b"1", "runs/a": b"1"}, "one", "")
        theirs = remote.commit(STATUS, {"README.md": b"by hand", "note.txt": b"n"})
        head = repo.publish({"runs/a": b"2"}, "two", base)
        assert remote.head(STATUS) == head
        assert remote.git("rev-parse", f"{head}^").decode().strip() == theirs
        assert remote.files(STATUS) == {"README.md": b"by hand", "note.txt": b"n", "runs/a": b"2"}

    @pytest.mark.parametrize("path", ["runs/ns/m/run.yaml", "claims/u/v.yaml"])
    @pytest.mark.parametrize("theirs", [b"2", None])
    def test_rejected_push_with_a_decisive_change_is_superseded(self, remote: Remote, path: str, theirs: bytes | None) -> None:
        """Safety 8."""
        repo = held(remote, SimClock())
        base = repo.publish({"README.md": b"1", path: b"1"}, "one", "")
        moved = remote.commit(STATUS, {path: theirs})
        with pytest.raises(Superseded, match=path):
            repo.publish({"README.md": b"2"}, "two", base)
        assert remote.head(STATUS) == moved

    def test_a_branch_that_appeared_meanwhile_is_not_overwritten(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        theirs = remote.commit(STATUS, {"claims/u/v.yaml": b"theirs"})
        with pytest.raises(Superseded):
            repo.publish({"claims/u/v.yaml": b"ours"}, "mine", "")
        assert remote.head(STATUS) == theirs

    def test_a_branch_that_never_stands_still_ends_in_a_retryable_error(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        base = repo.publish({"README.md": b"1"}, "one", "")
        who = " ".join(f"{name}={value}" for name, value in remote.env().items())
        run = f"env {who} {REAL_GIT} --git-dir={remote.bare}"
        ref = f"refs/heads/{STATUS}"
        remote.before("push", f"unset GIT_DIR; {run} update-ref {ref} $({run} commit-tree -m x -p {ref} {ref}^{{tree}})")
        remote.forget()
        with pytest.raises(RetryableError, match="PushRejected"):
            repo.publish({"README.md": b"2"}, "two", base)
        assert remote.commands().count("push") == 10
        assert remote.files(STATUS) == {"README.md": b"1"}

    def test_a_protected_branch_is_terminal_and_says_why(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        remote.protect("GL-HOOK-ERR: you are not allowed to push code to protected branches")
        with pytest.raises(TerminalError, match=r"GitRefused.*reconciler/status.*protected branches"):
            repo.publish({"a": b"1"}, "one", "")

    def test_remote_away_is_retryable(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        remote.away()
        with pytest.raises(RetryableError, match="GitUnavailable"):
            repo.publish({"a": b"1"}, "one", "")
        remote.back()
        repo.publish({"a": b"1"}, "one", "")
        assert remote.count(STATUS) == 1

    def test_a_lost_reply_is_looked_up_at_once(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        base = repo.publish({"runs/a": b"1"}, "one", "")
        remote.script("L push")
        head = repo.publish({"runs/a": b"2"}, "two", base)
        assert remote.head(STATUS) == head != base
        assert remote.count(STATUS) == 2

    def test_a_lost_reply_on_a_dead_line_is_not_committed_twice(self, remote: Remote) -> None:
        """The same decision again, on the old base and at a later time: its own commit is not somebody else's."""
        clock = SimClock()
        repo = held(remote, clock)
        base = repo.publish({"runs/a": b"1"}, "one", "")
        remote.script("L push", "R ls-remote")
        with pytest.raises(RetryableError):
            repo.publish({"runs/a": b"2"}, "two", base)
        landed = remote.head(STATUS)
        assert landed != base
        clock.advance(5)
        assert repo.publish({"runs/a": b"2"}, "two", base) == landed
        assert remote.count(STATUS) == 2

    def test_a_push_that_arrived_twice_is_ours(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        base = repo.publish({"runs/a": b"1"}, "one", "")
        remote.twice()
        head = repo.publish({"runs/a": b"2"}, "two", base)
        assert remote.head(STATUS) == head != base
        assert repo.publish({"runs/a": b"3"}, "three", head) == remote.head(STATUS) != head
        assert remote.count(STATUS) == 3

    def test_an_unrelated_commit_on_top_of_ours_does_not_supersede(self, remote: Remote) -> None:
        clock = SimClock()
        repo = held(remote, clock)
        base = repo.publish({"runs/a": b"1"}, "one", "")
        remote.script("L push", "R ls-remote")
        with pytest.raises(RetryableError):
            repo.publish({"runs/a": b"2"}, "two", base)
        top = remote.commit(STATUS, {"note.txt": b"n"})
        clock.advance(5)
        assert repo.publish({"runs/a": b"2"}, "two", base) == top

    def test_another_decision_does_not_go_over_our_own_lost_commit(self, remote: Remote) -> None:
        """Milestones never go back, not even our own."""
        clock = SimClock()
        repo = held(remote, clock)
        base = repo.publish({"runs/a": b"none"}, "one", "")
        remote.script("L push", "R ls-remote")
        with pytest.raises(RetryableError):
            repo.publish({"runs/a": b"CUTOVER"}, "two", base)
        clock.advance(5)
        with pytest.raises(Superseded):
            repo.publish({"runs/a": b"none, but retrying"}, "three", base)
        assert remote.files(STATUS) == {"runs/a": b"CUTOVER"}

    def test_a_push_that_did_not_land_is_made_again(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        base = repo.publish({"runs/a": b"1"}, "one", "")
        remote.script("R push")
        with pytest.raises(RetryableError):
            repo.publish({"runs/a": b"2"}, "two", base)
        head = repo.publish({"runs/a": b"2"}, "two", base)
        assert remote.head(STATUS) == head
        assert remote.count(STATUS) == 2

    def test_nothing_is_written_while_another_holds_the_lease(self, remote: Remote) -> None:
        held(remote, SimClock())
        other = GitRepo(remote.config("cache-b", "b"), SimClock())
        other.fetch()
        with pytest.raises(LeaseLost):
            other.publish({"a": b"1"}, "one", "")
        assert remote.head(STATUS) == ""

    def test_a_sleeper_that_was_replaced_writes_nothing(self, remote: Remote) -> None:
        """Safety 5: A hangs, B takes over, A wakes and publishes."""
        ours, theirs = SimClock(), SimClock()
        repo = held(remote, ours)
        base = repo.publish({"a": b"1"}, "one", "")
        other = GitRepo(remote.config("cache-b", "b"), theirs)
        assert not other.hold_lease()
        theirs.advance(TTL_S)
        assert other.hold_lease()
        ours.advance(TTL_S + 20)
        with pytest.raises(LeaseLost):
            repo.publish({"a": b"2"}, "two", base)
        assert repo.lease_age_s() is None
        assert remote.head(STATUS) == base

    def test_what_nothing_is_written_for_must_be_the_head_still(self, remote: Remote) -> None:
        """Safety 5: acts on a decision of before are of the head alone. Who had the lease before us may have written since we fetched."""
        base = remote.commit(STATUS, {"runs/a": b"1"})
        repo = held(remote, SimClock())
        assert repo.publish({}, "", base) == base
        theirs = remote.commit(STATUS, {"runs/a": b"2"})
        repo.release_lease()
        assert repo.hold_lease()
        with pytest.raises(Superseded, match=base[:12]):
            repo.publish({}, "", base)
        assert remote.head(STATUS) == theirs
        assert repo.fetch().status.commit == repo.publish({}, "", theirs) == theirs

    def test_what_is_proven_is_asked_once_for_as_long_as_nobody_else_may_write(self, remote: Remote) -> None:
        clock = SimClock()
        base = remote.commit(STATUS, {"runs/a": b"1"})
        repo = held(remote, clock)
        remote.forget()
        assert [repo.publish({}, "", base) for _ in range(3)] == [base] * 3
        assert remote.commands() == ["push"] and remote.count(STATUS) == 1
        for _ in range(5):
            clock.advance(TTL_S / 2)
            assert repo.hold_lease()
            repo.publish({}, "", base)
        assert remote.log().count(f":refs/heads/{STATUS}") == 1
        head = repo.publish({"runs/a": b"2"}, "two", base)
        remote.forget()
        repo.publish({}, "", head)
        assert "push" not in remote.commands()
        repo.release_lease()
        other = GitRepo(remote.config("cache-b", "b"), SimClock())
        assert other.hold_lease()
        other.release_lease()
        repo.publish({}, "", head)
        assert remote.log().count(f":refs/heads/{STATUS}") == 1, "another had the lease in between"

    def test_a_forge_that_was_restored_is_the_head_that_pushes_meet(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        last_night = repo.publish({"runs/a": b"1"}, "one", "")
        repo.publish({"runs/a": b"2"}, "two", last_night)
        remote.git("update-ref", f"refs/heads/{STATUS}", last_night)
        assert repo.fetch().status.commit == repo.publish({}, "", last_night) == last_night

    def test_a_replica_that_is_behind_takes_nobody_back(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        remote.older()
        base = repo.publish({"runs/a": b"1"}, "one", "")
        remote.script("S ls-remote")
        assert repo.fetch().status.commit == base, "it says that there is no such branch"
        remote.older()
        head = repo.publish({"runs/a": b"2"}, "two", base)
        repo.fetch()
        remote.script("S ls-remote")
        remote.forget()
        assert repo.fetch().status.commit == head
        assert remote.commands() == ["ls-remote", "merge-base", "push"] and remote.head(STATUS) == head
        remote.script("S ls-remote", "R push")
        assert repo.fetch().status.commit == head, "that pushes cannot be asked is no error; it is fetched anew"

    def test_to_prove_it_the_remote_must_answer(self, remote: Remote) -> None:
        base = remote.commit(STATUS, {"runs/a": b"1"})
        repo = held(remote, SimClock())
        remote.away()
        with pytest.raises(RetryableError, match="GitUnavailable"):
            repo.publish({}, "", base)

    def test_a_lease_that_was_too_old_when_its_reply_came_allows_nothing(self, remote: Remote) -> None:
        remote.before("push", "sleep 0.6")
        repo = GitRepo(replace(remote.config(), lease_ttl_s=0.3), SystemClock())
        with pytest.raises(LeaseLost):
            repo.publish({"a": b"1"}, "one", "")
        assert remote.head(STATUS) == ""

    def test_five_hundred_files_are_one_commit(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        base = repo.publish({f"status/{n % 50}/{n}.yaml": b"%d" % n for n in range(10_000)}, "many", "")
        repo.fetch()
        started = time.monotonic()
        repo.publish({f"runs/ns/m/vms/vm-{n}.yaml": b"phase: %d\n" % n for n in range(500)}, "wave", base)
        took_s = time.monotonic() - started
        started = time.monotonic()
        repo.fetch()
        repo.fetch()
        print(f"500 files: {took_s:.3f} s; two fetches: {time.monotonic() - started:.3f} s")
        assert took_s < 10
        assert remote.count(STATUS) == 2

    def test_is_ancestor(self, remote: Remote) -> None:
        """Safety 7: what a restored forge never heard of is behind nothing."""
        repo = held(remote, SimClock())
        first = repo.publish({"a": b"1"}, "one", "")
        second = repo.publish({"a": b"2"}, "two", first)
        assert repo.is_ancestor(first, first)
        assert repo.is_ancestor(first, second)
        assert not repo.is_ancestor(second, first)
        assert not repo.is_ancestor(repo.fetch().desired.commit, second)
        for odd in ("", "1" * 40, "HEAD", "--all", remote.git("rev-parse", f"{second}^{{tree}}").decode().strip()):
            assert not repo.is_ancestor(odd, second)
        third = repo.publish({"a": b"3"}, "three", second)
        assert repo.is_ancestor(first, third)
        remote.forget()
        assert repo.is_ancestor(first, third)
        assert remote.commands() == []

    def test_no_secret_on_a_command_line_and_no_trace(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        repo.publish({"a": b"1"}, "one", "")
        repo.release_lease()
        assert SECRET not in remote.log()
        assert "--force" not in remote.log()
        assert " +" not in "".join(line for line in remote.log().splitlines() if line.startswith("push"))
        assert not (remote.root / "trace").exists()


class LeaseContract:
    def test_the_chain_names_holder_and_end(self, remote: Remote) -> None:
        clock = SimClock()
        repo = held(remote, clock)
        first = remote.head(LEASE)
        clock.advance(TTL_S / 3)
        assert repo.hold_lease()
        repo.release_lease()
        assert remote.git("log", "--reverse", "--format=%s", LEASE).decode().splitlines() == [
            "lease held by a until 2026-03-01T12:03:00Z [skip ci]",
            "lease held by a until 2026-03-01T12:04:00Z [skip ci]",
            "lease released by a [skip ci]",
        ]
        assert remote.git("rev-parse", f"{LEASE}~2").decode().strip() == first
        assert remote.files(LEASE) == {}

    def test_renewed_after_a_third_and_silent_before(self, remote: Remote) -> None:
        clock = SimClock()
        repo = held(remote, clock)
        remote.forget()
        clock.advance(TTL_S / 3 - 1)
        assert repo.hold_lease()
        assert remote.commands() == []
        assert repo.lease_age_s() == TTL_S / 3 - 1
        clock.advance(1)
        assert repo.hold_lease()
        assert repo.lease_age_s() == 0
        assert remote.count(LEASE) == 2

    def test_only_one_holds(self, remote: Remote) -> None:
        held(remote, SimClock())
        other = GitRepo(remote.config("cache-b", "b"), SimClock())
        assert not other.hold_lease()
        assert other.lease_age_s() is None

    def test_one_of_many_at_the_same_instant(self, remote: Remote) -> None:
        contenders = [GitRepo(remote.config(f"cache-{n}", "same name"), SimClock()) for n in range(4)]
        won: list[bool] = []

        def contend(repo: GitRepo) -> None:
            won.append(repo.hold_lease())

        threads = [threading.Thread(target=contend, args=(repo,)) for repo in contenders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False, False, False, True]
        assert remote.count(LEASE) == 1

    def test_taken_over_after_a_ttl_without_a_change(self, remote: Remote) -> None:
        """Also when the other's wall clock is far off: only our own time since the last change counts."""
        clock = SimClock()
        held(remote, SimClock(at=datetime(2030, 1, 1, tzinfo=UTC)))
        other = GitRepo(remote.config("cache-b", "b"), clock)
        assert not other.hold_lease()
        clock.advance(TTL_S - 1)
        assert not other.hold_lease()
        clock.advance(1)
        assert other.hold_lease()
        assert other.lease_age_s() == 0
        assert remote.count(LEASE) == 2

    def test_a_renewal_starts_the_wait_anew(self, remote: Remote) -> None:
        ours, theirs = SimClock(), SimClock()
        repo = held(remote, ours)
        other = GitRepo(remote.config("cache-b", "b"), theirs)
        assert not other.hold_lease()
        for clock in (ours, theirs):
            clock.advance(TTL_S - 1)
        assert repo.hold_lease()
        theirs.advance(2)
        assert not other.hold_lease()
        theirs.advance(TTL_S - 1)
        assert not other.hold_lease()
        theirs.advance(1)
        assert other.hold_lease()

    def test_the_holders_own_ttl_is_respected(self, remote: Remote) -> None:
        clock = SimClock()
        held(remote, clock)
        other = GitRepo(replace(remote.config("cache-b", "b"), lease_ttl_s=5), clock)
        assert not other.hold_lease()
        clock.advance(TTL_S - 1)
        assert not other.hold_lease()
        clock.advance(1)
        assert other.hold_lease()

    def test_taken_at_once_when_released(self, remote: Remote) -> None:
        repo = held(remote, SimClock())
        repo.release_lease()
        assert repo.lease_age_s() is None
        other = GitRepo(remote.config("cache-b", "b"), SimClock())
        assert other.hold_lease()
        assert not repo.hold_lease()
        repo.release_lease()
        assert remote.git("log", "-1", "--format=%s", LEASE).decode().startswith("lease held by b until")

    def test_a_sleeper_does_not_release_what_another_took(self, remote: Remote) -> None:
        clock = SimClock()
        sleeper = held(remote, SimClock())
        other = GitRepo(remote.config("cache-b", "b"), clock)
        assert not other.hold_lease()
        clock.advance(TTL_S)
        assert other.hold_lease()
        taken = remote.head(LEASE)
        sleeper.release_lease()
        assert remote.head(LEASE) == taken

    @pytest.mark.parametrize(("late_s", "free"), [(600, False), (601, True)])
    def test_taken_when_the_written_end_passed_ten_minutes_ago(self, remote: Remote, late_s: float, free: bool) -> None:
        """Safety 17: a cron run died; each later run is a new process that has seen nothing."""
        held(remote, SimClock())
        clock = SimClock()
        clock.advance(TTL_S + late_s)
        assert GitRepo(remote.config("cache-b", "b"), clock).hold_lease() is free

    def test_a_commit_without_an_end_is_waited_for(self, remote: Remote) -> None:
        remote.commit(LEASE, {"hello.txt": b"by hand"})
        clock = SimClock()
        repo = GitRepo(remote.config(), clock)
        assert not repo.hold_lease()
        clock.advance(TTL_S)
        assert repo.hold_lease()

    def test_age_counts_from_the_start_of_the_push(self, remote: Remote) -> None:
        remote.before("push", "sleep 0.4")
        repo = GitRepo(remote.config(), SystemClock())
        assert repo.hold_lease()
        age = repo.lease_age_s()
        assert age is not None and 0.4 <= age < 10

    def test_a_lost_reply_is_recognised_as_ours(self, remote: Remote) -> None:
        clock = SimClock()
        repo = GitRepo(remote.config(), clock)
        remote.script("L push")
        with pytest.raises(RetryableError):
            repo.hold_lease()
        assert repo.lease_age_s() is None
        clock.advance(7)
        assert repo.hold_lease()
        assert repo.lease_age_s() == 7
        assert remote.count(LEASE) == 1

    def test_a_lease_that_arrived_twice_is_ours(self, remote: Remote) -> None:
        clock = SimClock()
        remote.twice()
        repo = GitRepo(remote.config(), clock)
        assert repo.hold_lease()
        taken = remote.head(LEASE)
        clock.advance(TTL_S / 2)
        assert repo.hold_lease()
        assert repo.lease_age_s() == 0 and remote.head(LEASE) != taken
        repo.release_lease()
        assert GitRepo(remote.config("cache-b", "b"), clock).hold_lease(), "it was released"

    def test_a_lost_reply_to_a_renewal_is_recognised_as_ours(self, remote: Remote) -> None:
        clock = SimClock()
        repo = held(remote, clock)
        clock.advance(TTL_S / 3)
        remote.script("L push")
        assert repo.hold_lease()
        assert repo.lease_age_s() == TTL_S / 3
        clock.advance(2)
        assert repo.hold_lease()
        assert repo.lease_age_s() == 2
        assert remote.count(LEASE) == 2

    def test_the_same_commit_pushed_twice_is_as_old_as_its_first_push(self, remote: Remote) -> None:
        """Within one second the second try is the same commit, and nobody knows which push put it there."""
        clock = SimClock()
        repo = GitRepo(remote.config(), clock)
        remote.script("R push")
        with pytest.raises(RetryableError):
            repo.hold_lease()
        clock.advance(0.5)
        assert repo.hold_lease()
        assert repo.lease_age_s() == 0.5

    def test_remote_away_for_less_than_a_ttl_loses_nothing(self, remote: Remote) -> None:
        clock = SimClock()
        repo = held(remote, clock)
        remote.away()
        clock.advance(TTL_S - 1)
        assert repo.hold_lease()
        assert repo.lease_age_s() == TTL_S - 1
        clock.advance(1)
        with pytest.raises(RetryableError):
            repo.hold_lease()
        remote.back()
        assert repo.hold_lease()
        assert repo.lease_age_s() == 0

    def test_a_lost_cache_does_not_lose_the_lease(self, remote: Remote) -> None:
        clock = SimClock()
        repo = held(remote, clock)
        shutil.rmtree(remote.root / "cache")
        clock.advance(TTL_S / 2)
        assert repo.hold_lease()
        shutil.rmtree(remote.root / "cache")
        repo.release_lease()
        assert GitRepo(remote.config("cache-b", "b"), clock).hold_lease()

    def test_the_local_chain_is_dropped_now_and_then(self, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lease, "_CHAIN_KEPT", 2)
        clock = SimClock()
        repo = held(remote, clock)
        for _ in range(8):
            clock.advance(TTL_S / 4)
            assert repo.hold_lease()
            age = repo.lease_age_s()
            assert age is not None and age < TTL_S
        assert remote.count(LEASE) >= 4

    def test_taken_anew_when_the_forge_lost_the_branch(self, remote: Remote) -> None:
        """The second holder's clone is one commit deep and cannot give the chain back."""
        clock = SimClock()
        held(remote, clock).release_lease()
        other = GitRepo(remote.config("cache-b", "b"), clock)
        assert other.hold_lease()
        remote.git("update-ref", "-d", f"refs/heads/{LEASE}")
        remote.git("prune", "--expire=now")
        clock.advance(TTL_S / 3)
        assert other.hold_lease()
        assert other.lease_age_s() == 0

    def test_a_protected_lease_branch_is_terminal(self, remote: Remote) -> None:
        remote.protect("protected")
        with pytest.raises(TerminalError, match=r"GitRefused.*reconciler/lease"):
            GitRepo(remote.config(), SimClock()).hold_lease()


class RepoContract(FetchContract, PublishContract, LeaseContract):
    """All of it; a subclass gives the `remote` fixture."""
