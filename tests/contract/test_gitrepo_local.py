"""The StatusRepo contract on a bare repository reached by its path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.gitrepo.repo import GitRepo
from tests.contract.git_remote import Remote, SimClock
from tests.contract.suite_repo import RepoContract


class TestLocal(RepoContract):
    @pytest.fixture
    def remote(self, tmp_path: Path) -> Remote:
        return Remote(tmp_path)

    def test_a_relative_path_means_where_we_were_started(self, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        monkeypatch.chdir(remote.root)
        assert GitRepo(replace(remote.config(), url="remote.git"), SimClock()).fetch().desired.commit == remote.head("main")

    def test_a_file_url(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        assert GitRepo(replace(remote.config(), url=f"file://{remote.bare}"), SimClock()).fetch().desired.commit == remote.head("main")

    def test_an_empty_environment_is_enough(self, remote: Remote) -> None:
        remote.commit("main", {"a.yaml": b"1"})
        repo = GitRepo(replace(remote.config(), environment={}), SimClock())
        repo.fetch()
        assert repo.hold_lease()
        assert repo.publish({"a": b"1"}, "one", "") == remote.head("reconciler/status")
