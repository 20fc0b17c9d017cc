"""The StatusRepo contract on a real sshd on loopback, with its own host key; and keys that are wrong on either side."""

from __future__ import annotations

import getpass
import logging
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import TerminalError
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.repo import GitRepo
from tests.contract.git_remote import Remote, SimClock, held
from tests.contract.suite_repo import RepoContract
from tests.e2e import parts

CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AcceptEnv GIT_PROTOCOL
MaxStartups 200
KexAlgorithms curve25519-sha256
LogLevel ERROR
"""


class Sshd:
    """One server for the module. `known`: the known_hosts file that names its host key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = parts.free_ports(1)
        program = parts.program("sshd", "openssh-server")
        for name in ("host", "user", "stranger", "other-host"):
            make_key(folder / name)
        (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
        self.known = folder / "known_hosts"
        self.trust("host")
        (folder / "config").write_text(CONFIG.format(port=self.port, folder=folder))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd's privilege separation wants it when root starts it
        self._process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.PIPE, start_new_session=True
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = self._process.stderr.read().decode() if self._process.poll() is not None and self._process.stderr else "nothing"
                    pytest.fail(f"sshd did not come up; it said: {said}", pytrace=False)
                time.sleep(0.05)

    def trust(self, key: str) -> None:
        kind, blob, *_ = (self.folder / f"{key}.pub").read_text().split()
        self.known.write_text(f"[127.0.0.1]:{self.port} {kind} {blob}\n")

    def command(self, key: str = "user") -> str:
        options = {"IdentitiesOnly": "yes", "UserKnownHostsFile": self.known, "GlobalKnownHostsFile": "/dev/null", "IdentityAgent": "none"}
        words = ["ssh", "-F", "none", "-i", str(self.folder / key)]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        return shlex.join(words)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()


def make_key(path: Path) -> None:
    keygen = parts.program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, stdin=subprocess.DEVNULL)


class SshRemote(Remote):
    def __init__(self, root: Path, server: Sshd) -> None:
        super().__init__(root)
        self.server = server

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.server.port}{self.bare}"

    def config(self, cache: str = "cache", holder: str = "a") -> RepoConfig:
        return replace(super().config(cache, holder), ssh_command=self.server.command())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    sshd = Sshd(tmp_path_factory.mktemp("sshd"))
    try:
        sshd.wait()
        yield sshd
    finally:
        sshd.stop()


@pytest.fixture
def remote(tmp_path: Path, server: Sshd) -> Iterator[SshRemote]:
    yield SshRemote(tmp_path, server)
    server.trust("host")


class TestGitOverSsh(RepoContract):
    """Everything in the contract."""


def test_a_changed_host_key_is_for_a_person_and_nothing_is_sent(remote: SshRemote) -> None:
    remote.commit("main", {"a.yaml": b"1"})
    repo = GitRepo(remote.config(), SimClock())
    repo.fetch()
    remote.server.trust("other-host")
    with pytest.raises(TerminalError, match="HostKeyChanged") as caught:
        repo.fetch()
    assert "known_hosts" in caught.value.message


def test_an_unknown_host_key_is_not_taken_in_silence(remote: SshRemote) -> None:
    remote.server.known.write_text("")
    with pytest.raises(TerminalError, match="HostKeyChanged"):
        GitRepo(remote.config(), SimClock()).fetch()
    assert remote.server.known.read_text() == ""


def test_a_key_that_is_not_accepted_is_for_a_person(remote: SshRemote) -> None:
    with pytest.raises(TerminalError, match="AuthFailed"):
        GitRepo(replace(remote.config(), ssh_command=remote.server.command("stranger")), SimClock()).fetch()


def test_the_key_is_on_no_command_line_and_in_no_file_of_the_cache(remote: SshRemote, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    repo = held(remote, SimClock())
    repo.publish({"a": b"1"}, "one", "")
    lines = (remote.server.folder / "user").read_text().splitlines()[1:-1]
    kept = [file for file in (remote.root / "cache").rglob("*") if file.is_file()]
    shown = remote.log() + caplog.text + "".join(file.read_bytes().decode(errors="replace") for file in kept)
    assert not any(line in shown for line in lines)
