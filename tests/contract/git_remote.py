"""A git remote for tests of the repository: a real bare repository, what people do to it, and what it saw.

What it is: the ground that suite_repo.py stands on; what differs from one kind of remote to another is how it is reached. The `git` that
the product starts is a wrapper on PATH in front of the real one: it writes down each command line and can lose a command's reply, or
refuse it, by script.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.repo import GitRepo

STATUS = "reconciler/status"
LEASE = "reconciler/lease"
TTL_S = 180.0
REAL_GIT = shutil.which("git") or "git"
SECRET = "s3cr3t-forge-token"

_WRAPPER = """#!/bin/sh
here=${0%/*}
printf '%s\\n' "$*" >> "$here/log"
if [ -x "$here/before-$1" ]; then "$here/before-$1"; fi
if [ -s "$here/script" ]; then
  read -r line < "$here/script"
  if [ "${line#* }" = "$1" ]; then
    sed -i 1d "$here/script"
    case "$line" in
      L*) REAL "$@" > "$here/lost" 2>&1; echo 'fatal: the remote end hung up unexpectedly' >&2; exit 128 ;;
      R*) echo 'fatal: unable to access the remote: Connection refused' >&2; exit 128 ;;
      H*) exec sleep 30 ;;
      S*) cat "$here/older"; exit ;;
    esac
  fi
fi
exec REAL "$@"
"""


@dataclass
class SimClock:
    """Time that moves only when told."""

    at: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    up_s: float = 1000.0
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.up_s

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def new_id(self) -> str:
        return f"id-{id(self):x}-{next(self.ids)}"

    def jitter(self) -> float:
        return 0.5

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.up_s += seconds


class Remote:
    """A bare repository, what people do to it, and what it saw. Subclasses say how it is reached (`url`) and how it goes `away`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bare = root / "remote.git"
        self.bin = root / "bin"
        self.home = root / "home"
        self.bin.mkdir()
        self.home.mkdir()
        wrapper = self.bin / "git"
        wrapper.write_text(_WRAPPER.replace("REAL", REAL_GIT))
        wrapper.chmod(0o755)
        subprocess.run([REAL_GIT, "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare)], check=True, env=self.env())

    @property
    def url(self) -> str:
        return str(self.bare)

    def away(self) -> None:
        self.bare.rename(self.root / "gone.git")

    def back(self) -> None:
        (self.root / "gone.git").rename(self.bare)

    def env(self) -> dict[str, str]:
        person = {"GIT_AUTHOR_NAME": "P", "GIT_AUTHOR_EMAIL": "p@x", "GIT_COMMITTER_NAME": "P", "GIT_COMMITTER_EMAIL": "p@x"}
        return {"PATH": os.defpath, "HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", **person}

    def config(self, cache: str = "cache", holder: str = "a") -> RepoConfig:
        """`GIT_TRACE` and the token stand for what a real environment may hold by accident."""
        inherited = {
            "PATH": f"{self.bin}{os.pathsep}{os.defpath}",
            "HOME": str(self.home),
            "GIT_TRACE": str(self.root / "trace"),
            "GIT_DIR": "/nonexistent",
            "FORGE_TOKEN": SECRET,
        }
        return RepoConfig(
            url=self.url, branch="main", cache_dir=self.root / cache, holder=holder, lease_ttl_s=TTL_S, timeout_s=20, environment=inherited
        )

    def git(self, *args: str, stdin: bytes = b"", index: str | None = None) -> bytes:
        env = self.env() | ({"GIT_INDEX_FILE": index} if index else {})
        return subprocess.run([REAL_GIT, "--git-dir", str(self.bare), *args], input=stdin, check=True, capture_output=True, env=env).stdout

    def commit(self, branch: str, files: Mapping[str, bytes | None], modes: Mapping[str, str] | None = None) -> str:
        """What somebody else pushed: `files` on top of `branch`."""
        parent, index = self.head(branch), str(self.root / "person.index")
        self.git("read-tree", parent or "--empty", index=index)
        for path, data in files.items():
            if data is None:
                self.git("update-index", "--index-info", stdin=f"0 {'0' * 40}\t{path}\n".encode(), index=index)
                continue
            mode = (modes or {}).get(path, "100644")
            object_id = data.decode() if mode == "160000" else self.git("hash-object", "-w", "--stdin", stdin=data).decode().strip()
            self.git("update-index", "--add", "--cacheinfo", f"{mode},{object_id},{path}", index=index)
        tree = self.git("write-tree", index=index).decode().strip()
        commit = self.git("commit-tree", tree, "-m", "by a person", *(["-p", parent] if parent else [])).decode().strip()
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def head(self, branch: str) -> str:
        return self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}").decode().strip()

    def count(self, branch: str) -> int:
        return int(self.git("rev-list", "--count", branch))

    def files(self, branch: str) -> dict[str, bytes]:
        names = [name.decode() for name in self.git("ls-tree", "-r", "-z", "--name-only", branch).split(b"\0") if name]
        return {name: self.git("cat-file", "blob", f"{branch}:{name}") for name in names}

    def protect(self, text: str) -> None:
        hook = self.bare / "hooks" / "pre-receive"
        hook.write_text(f"#!/bin/sh\necho '{text}' >&2\nexit 1\n")
        hook.chmod(0o755)

    def twice(self) -> None:
        """Each push arrives twice and only the second is answered: HTTP clients repeat a request whose kept-alive connection was cut."""
        hook = self.bare / "hooks" / "update"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text('#!/bin/sh\nexec git update-ref "$1" "$3" "$2"\n')
        hook.chmod(0o755)

    def script(self, *faults: str) -> None:
        """`"L push"`: the next push takes effect and its reply is lost. `R`: refused. `H`: hangs. `S`: says `older`. In order."""
        (self.bin / "script").write_text("".join(f"{fault}\n" for fault in faults))

    def older(self) -> None:
        """Keep the heads as they are now for `S ls-remote`: what a replica says that is behind."""
        (self.bin / "older").write_bytes(self.git("ls-remote", str(self.bare)))

    def before(self, command: str, shell: str) -> None:
        hook = self.bin / f"before-{command}"
        hook.write_text(f"#!/bin/sh\n{shell}\n")
        hook.chmod(0o755)

    def forget(self) -> None:
        (self.bin / "log").write_text("")

    def log(self) -> str:
        return (self.bin / "log").read_text()

    def commands(self) -> list[str]:
        return [line.split()[0] for line in self.log().splitlines()]


def held(remote: Remote, clock: SimClock) -> GitRepo:
    """A repo on a remote with one manifest, lease taken."""
    remote.commit("main", {"plan.yaml": b"a: 1\n"})
    repo = GitRepo(remote.config(), clock)
    repo.fetch()
    assert repo.hold_lease()
    return repo
