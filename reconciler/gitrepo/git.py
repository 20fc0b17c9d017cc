"""The one place that starts the `git` program: a fixed environment, an argument list, a time limit, and our errors.

What it is: a process runner bound to one bare repository. What it is not: a policy; checkout, publish and lease say what to run.

Plain subprocess rather than GitPython's `git.cmd.Git`: that one merges the whole inherited environment (GIT_DIR, GIT_TRACE_CURL and the
like) into each call, starts `git version` at import, needs `ps` to enforce a time limit, and takes no bytes for stdin. We need the
opposite of all four for every command, since even the short ones run in the same pinned environment.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import RetryableError
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.failure import redact, remote_failure

log = logging.getLogger(__name__)

_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.filesRefLockTimeout": "1000",  # milliseconds; another process on the same cache is waited for, a stale lock is not
    "core.askPass": "",
    "http.sslVerify": "true",
    "http.lowSpeedLimit": "1",  # bytes a second: a silent server is given up on, a slow one is not
    "http.lowSpeedTime": "60",
    "gc.autoDetach": "true",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "protocol.version": "2",
}
_SSH = "ssh"
# The first value of an option wins in ssh(1), so these only fill in what the configured command leaves open.
_SSH_OPTIONS = "-o BatchMode=yes -o StrictHostKeyChecking=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
# Signs that the local clone is broken, as opposed to the remote: left locks after a kill, lost or half-written objects.
_CLONE_BROKEN = ("cannot lock ref", ".lock'", "not a git repository: '", "bad object", "corrupt", "unable to read tree", "unable to write")


@dataclass(frozen=True, slots=True)
class Done:
    """A git process that ended: exit code, stdout as bytes, stderr as text."""

    code: int
    out: bytes
    err: str


class Git:
    """The git program on one bare repository below the cache folder. The repository may vanish at any moment; `ensure` makes it again."""

    def __init__(self, config: RepoConfig, directory: Path) -> None:
        self.url = config.address
        self.directory = directory
        self._timeout_s = config.timeout_s
        self._environment = _environment(config, directory)

    def ensure(self) -> bool:
        """Make the bare repository if it is not there. True if it was made, so that nothing remembered about it holds."""
        if (self.directory / "HEAD").is_file():
            return False
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise RetryableError("GitCacheLost", f"cannot make the git cache {self.directory}: {err.strerror}; check the folder") from err
        self.local(["init", "--bare", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=none", "."])
        return True

    def local(self, args: Sequence[str], stdin: bytes = b"") -> bytes:
        """Run a command that must succeed on a sound clone. Otherwise the clone, a cache, is dropped: RetryableError GitCacheLost."""
        done = self.run(args, stdin)
        if done.code != 0:
            raise self.broken(f"git {args[0]}: {done.err}")
        return done.out

    def remote(self, args: Sequence[str], timeout_s: float | None = None) -> bytes:
        """Run a command that reads from the remote. Errors: those of failure.remote_failure, and GitCacheLost."""
        done = self.run(args, timeout_s=timeout_s)
        if done.code == 0:
            return done.out
        self.check_clone(args[0], done)
        raise remote_failure(self.url, done.err)

    def fetch(self, *refspecs: str, options: Sequence[str] = ()) -> None:
        """May take ten times as long as other commands: the first one brings the whole history, and it would start anew each time."""
        self.remote(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", *options, "--", self.url, *refspecs], 10 * self._timeout_s)

    def check_clone(self, command: str, done: Done) -> None:
        """Raise GitCacheLost if a failed exchange with the remote failed because of our side."""
        own = [line for line in done.err.splitlines() if not line.startswith("remote:")]
        if any(sign in line for line in own for sign in _CLONE_BROKEN):
            raise self.broken(f"git {command}: {done.err}")

    def broken(self, why: str) -> RetryableError:
        """Drop the clone and give the error to raise; the next fetch makes it anew."""
        self.drop()
        log.warning("git cache dropped", extra={"directory": str(self.directory), "why": redact(why)})
        return RetryableError("GitCacheLost", f"the git cache {self.directory} was unusable and is made anew: {redact(why)}", 0.0)

    def drop(self) -> None:
        """Remove the clone, which is a cache: what was in it is fetched again when it is needed."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def tidy(self) -> None:
        """Let git pack what our own commits left loose, if it thinks it is time; that goes on in the background."""
        self.run(["gc", "--auto", "--quiet"])

    def run(self, args: Sequence[str], stdin: bytes = b"", timeout_s: float | None = None) -> Done:
        """Start git, feed `stdin`, wait at most `timeout_s` (default: as configured).

        Errors: RetryableError GitUnavailable when it takes longer or git is not installed; GitCacheLost when the clone has vanished.
        """
        limit_s = timeout_s or self._timeout_s
        try:
            process = subprocess.Popen(
                ["git", *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.directory,
                env=self._environment,
                start_new_session=True,  # no terminal to prompt on, and one group to kill: ssh, git-remote-https, index-pack
            )
        except FileNotFoundError as err:
            if not self.directory.is_dir():
                raise RetryableError("GitCacheLost", f"the git cache {self.directory} has vanished; it is made anew", 0.0) from err
            raise RetryableError("GitUnavailable", "the git program was not found on PATH; install git") from err
        with process:
            try:
                out, err_bytes = process.communicate(stdin, timeout=limit_s)
            except subprocess.TimeoutExpired as err:
                _kill(process)
                text = f"git {args[0]} with {redact(self.url)} took longer than {limit_s:g} s and was stopped; it is tried again. "
                raise RetryableError("GitUnavailable", text + "Check the network and the server if that lasts") from err
            except BaseException:
                _kill(process)
                raise
        log.debug("git ran", extra={"command": args[0], "code": process.returncode})
        return Done(process.returncode, out, err_bytes.decode(errors="replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _environment(config: RepoConfig, directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in config.environment.items() if not name.startswith("GIT_") or name == "GIT_SSL_CAINFO"}
    kept.setdefault("PATH", os.defpath)
    http = ":http" if config.url.startswith("http://") else ""
    pinned = {
        "LC_ALL": "C",
        "GIT_DIR": str(directory.absolute()),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:https:ssh" + http,
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_SSH_COMMAND": f"{config.ssh_command or _SSH} {_SSH_OPTIONS}",
        "GIT_SSH_VARIANT": "ssh",
        "GIT_CONFIG_COUNT": str(len(_SETTINGS)),
    }
    for number, (name, value) in enumerate(_SETTINGS.items()):
        pinned[f"GIT_CONFIG_KEY_{number}"], pinned[f"GIT_CONFIG_VALUE_{number}"] = name, value
    if config.askpass is not None:
        pinned["GIT_ASKPASS"] = str(config.askpass)
    return kept | pinned
