"""GitRepo: the StatusRepo port on real git. Composition of reader, publisher and lease; nothing else.

What it is: what app.py builds and the engine sees. What it is not: a place for git commands. In the flow it is the first step of a pass
(fetch, read), the one before any act (publish), and the lease around both.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence

from reconciler.errors import LeaseLost
from reconciler.gitrepo.checkout import Reader
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.git import Git
from reconciler.gitrepo.lease import Lease
from reconciler.gitrepo.publish import Publisher
from reconciler.ports import Checkout, Clock


class GitRepo:
    """May be called from several threads; calls that use git wait for each other, `lease_age_s` never waits."""

    def __init__(self, config: RepoConfig, clock: Clock) -> None:
        self._config = config
        self._busy = threading.Lock()
        # One cache folder may serve several repositories; the name says nothing about the URL.
        folder = config.cache_dir / f"git-{hashlib.sha256(config.url.encode()).hexdigest()[:16]}"
        git = Git(config, folder / "clone.git")
        self._lease = Lease(Git(config, folder / "lease.git"), config, clock)
        self._reader = Reader(git, config)
        self._publisher = Publisher(git, config, clock, self._reader, self._need_lease)

    def fetch(self) -> Checkout:
        with self._busy:
            return self._reader.fetch()

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        with self._busy:
            return self._reader.read(ids)

    def publish(self, changes: Mapping[str, bytes | None], message: str, base: str) -> str:
        with self._busy:
            return self._publisher.publish(changes, message, base)

    def is_ancestor(self, commit: str, of: str) -> bool:
        with self._busy:
            return self._reader.is_ancestor(commit, of)

    def hold_lease(self) -> bool:
        with self._busy:
            return self._lease.hold()

    def lease_age_s(self) -> float | None:
        return self._lease.age_s()

    def release_lease(self) -> None:
        with self._busy:
            self._lease.release()

    def _need_lease(self) -> int:
        held = self._lease.hold()
        age = self._lease.age_s()
        if not held or age is None or age > self._config.lease_ttl_s:
            raise LeaseLost(
                "LeaseLost",
                f"the lease on branch {self._config.lease_branch!r} is not ours; another reconciler is active on this repository, "
                "or the git remote did not answer in time",
            )
        return self._lease.tenure
