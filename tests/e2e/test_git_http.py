"""The StatusRepo contract on git's own http-backend over HTTPS with a password, and what only such a server can refuse."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import RetryableError, TerminalError
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.repo import GitRepo
from reconciler.lab.tls import LabCa
from tests.contract.git_remote import Remote, SimClock, held
from tests.contract.suite_repo import RepoContract
from tests.e2e.git_http import GitServer

PASSWORD = "forge-Pa55word-of-writer"
ASKPASS = """#!/bin/sh
case "$1" in Username*) echo {user} ;; *) cat '{file}' ;; esac
"""


class HttpRemote(Remote):
    """`user`: who the askpass program says we are."""

    def __init__(self, root: Path, server: GitServer, ca: LabCa, user: str = "writer", password: str = PASSWORD) -> None:
        super().__init__(root)
        self.server, self.ca = server, ca
        self.askpass = root / "askpass"
        self.login(user, password)

    def login(self, user: str, password: str) -> None:
        file = self.root / "password"
        file.touch(mode=0o600)
        file.write_text(password)
        self.askpass.write_text(ASKPASS.format(user=user, file=file))
        self.askpass.chmod(0o700)

    @property
    def url(self) -> str:
        return self.server.url + str(self.bare)

    def config(self, cache: str = "cache", holder: str = "a") -> RepoConfig:
        config = super().config(cache, holder)
        return replace(config, askpass=self.askpass, environment={**config.environment, "GIT_SSL_CAINFO": str(self.ca.path)})

    def away(self) -> None:
        self.server.silent = True

    def back(self) -> None:
        self.server.silent = False


@pytest.fixture(scope="module")
def server(e2e_ca: LabCa) -> Iterator[GitServer]:
    git = GitServer(e2e_ca.server_context("forge")[0], {"writer": PASSWORD, "reader": "reader-Pa55word"})
    git.start()
    yield git
    git.stop()


@pytest.fixture
def remote(tmp_path: Path, server: GitServer, e2e_ca: LabCa) -> Iterator[HttpRemote]:
    yield HttpRemote(tmp_path, server, e2e_ca)
    server.silent, server.status = False, None


class TestGitOverHttp(RepoContract):
    """Everything in the contract."""


def test_a_wrong_password_is_for_a_person_and_is_shown_nowhere(remote: HttpRemote, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    remote.login("writer", "wrong-" + PASSWORD)
    with pytest.raises(TerminalError, match="AuthFailed") as caught:
        GitRepo(remote.config(), SimClock()).fetch()
    assert PASSWORD not in str(caught.value) + caplog.text + remote.log()


def test_no_password_at_all_does_not_wait_for_one(remote: HttpRemote) -> None:
    with pytest.raises(TerminalError, match="AuthFailed"):
        GitRepo(replace(remote.config(), askpass=None), SimClock()).fetch()


def test_who_may_only_read_is_told_so_at_the_first_push(remote: HttpRemote) -> None:
    remote.commit("main", {"a.yaml": b"1"})
    remote.login("reader", "reader-Pa55word")
    repo = GitRepo(remote.config(), SimClock())
    assert repo.fetch().desired.commit == remote.head("main")
    with pytest.raises(TerminalError, match="AuthFailed"):
        repo.hold_lease()


def test_the_password_is_on_no_command_line_and_in_no_file_of_the_cache(remote: HttpRemote, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    repo = held(remote, SimClock())
    repo.publish({"a": b"1"}, "one", "")
    assert remote.files("reconciler/status") == {"a": b"1"}
    assert PASSWORD not in remote.log() + caplog.text
    kept = [file for file in (remote.root / "cache").rglob("*") if file.is_file()]
    assert kept
    assert not any(PASSWORD.encode() in file.read_bytes() for file in kept)


def test_a_certificate_of_an_unknown_ca_gets_no_request(remote: HttpRemote, tmp_path: Path) -> None:
    other = LabCa(tmp_path / "other-ca")
    config = remote.config()
    before = len(remote.server.requests)
    with pytest.raises(RetryableError, match=r"its certificate is not trusted; renew it"):
        GitRepo(replace(config, environment={**config.environment, "GIT_SSL_CAINFO": str(other.path)}), SimClock()).fetch()
    assert len(remote.server.requests) == before


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_retryable(remote: HttpRemote, status: int) -> None:
    remote.server.status = status
    with pytest.raises(RetryableError, match="GitUnavailable"):
        GitRepo(remote.config(), SimClock()).fetch()


def test_a_large_push_goes_through_in_chunks(remote: HttpRemote) -> None:
    """More than http.postBuffer (1 MiB), of bytes that do not compress."""
    import random

    data = random.Random(1).randbytes(3 << 20)
    repo = held(remote, SimClock())
    repo.publish({"big": data}, "big", "")
    assert remote.files("reconciler/status")["big"] == data
