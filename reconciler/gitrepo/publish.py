"""Publish: changed files -> one commit on the status branch -> a plain push.

What it is: the writing half of the repository, and the one home of the rejected-push rule. What it is not: a merge. What others wrote under
runs/ or claims/ since the decision was made is never rendered over: then the whole decision is void (Superseded).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping

from reconciler.errors import RetryableError, Superseded
from reconciler.gitrepo.checkout import Reader
from reconciler.gitrepo.commit import Draft, is_head, push_commit, write_commit
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.failure import Push, redact
from reconciler.gitrepo.git import Git
from reconciler.ports import Clock, Tree

log = logging.getLogger(__name__)

_ATTEMPTS = 10
_DECISIVE = ("runs/", "claims/", "instance.yaml")


class Publisher:
    """`need_lease` raises LeaseLost; it is asked before every push, since a rejected one may have taken long. It tells the tenure:
    while that stays the same, nobody else wrote."""

    def __init__(self, git: Git, config: RepoConfig, clock: Clock, reader: Reader, need_lease: Callable[[], int]) -> None:
        self._git = git
        self._config = config
        self._clock = clock
        self._reader = reader
        self._need_lease = need_lease
        self._unanswered: list[str] = []  # our commits that may be on the branch, now or later: no reply, or a push that arrived twice
        self._proven: tuple[str, int] | None = None  # what the side that takes pushes called the head, and the tenure it did so in

    def publish(self, changes: Mapping[str, bytes | None], message: str, base: str) -> str:
        """See ports.StatusRepo. `base` is the head that the decision was made on, "" if there was no branch."""
        decided_on = onto = self._reader.status_at(base)
        for _ in range(_ATTEMPTS):
            todo = differing(changes, onto)
            tenure = self._need_lease()
            if not todo:
                self._prove(onto.commit, tenure)
                return onto.commit
            commit = write_commit(self._git, self._config, Draft(onto.commit, todo, message, self._clock.now()))
            if self._push(commit) is Push.ACCEPTED:
                self._reader.moved_to(commit)
                self._proven = (commit, tenure)
                self._unanswered.clear()
                self._git.tidy()
                log.info("status published", extra={"commit": commit, "files": len(todo)})
                return commit
            self._unanswered.append(commit)
            onto = self._reader.fetch_status()
            decided_on = self._own_among(changes, onto) or decided_on
            self._refuse_if_superseded(decided_on, onto)
        raise RetryableError(
            "PushRejected",
            f"branch {self._config.status_branch!r} of git remote {redact(self._config.url)} moved {_ATTEMPTS} times while we pushed; "
            "find out who else writes to it",
        )

    def _prove(self, commit: str, tenure: int) -> None:
        """Acts on what an earlier pass, or another process, decided need its commit to be the head still. What we fetched may be an old
        answer, or older than the lease: who had it before may have written in between."""
        if not commit or self._proven == (commit, tenure):
            return
        if not is_head(self._git, commit, self._config.status_branch):
            raise Superseded(
                "Superseded",
                f"{commit[:12]} was read as the head of branch {self._config.status_branch!r} of git remote {redact(self._config.url)}, "
                "but it is not where pushes go; the pass starts anew",
            )
        self._proven = (commit, tenure)

    def _push(self, commit: str) -> Push:
        """A push without a reply may have landed all the same; one look at the remote tells, if it answers."""
        try:
            return push_commit(self._git, commit, self._config.status_branch)
        except RetryableError:
            self._unanswered.append(commit)
            if self._landed(commit):
                return Push.ACCEPTED
            raise

    def _landed(self, commit: str) -> bool:
        try:
            return self._reader.remote_status() == commit
        except RetryableError:
            return False

    def _own_among(self, changes: Mapping[str, bytes | None], head: Tree) -> Tree | None:
        """Our earlier commit of these very changes, if it is on the branch after all: it does not count as somebody else's.

        One with other content does count: the decision in hand was made without knowing that the earlier one had landed.
        """
        for commit in reversed(self._unanswered):
            if self._reader.is_ancestor(commit, head.commit):
                tree = self._reader.status_at(commit)
                return None if differing(changes, tree) else tree
        return None

    def _refuse_if_superseded(self, decided_on: Tree, head: Tree) -> None:
        moved = sorted(_decisive(decided_on) ^ _decisive(head))
        if moved:
            raise Superseded(
                "Superseded",
                f"{moved[0][0]} on branch {self._config.status_branch!r} changed after the decision was made "
                f"({decided_on.commit[:12] or 'no branch'} -> {head.commit[:12] or 'no branch'}); the pass starts anew",
            )


def differing(changes: Mapping[str, bytes | None], tree: Tree) -> dict[str, bytes | None]:
    """Those of `changes` that are not in `tree` already."""
    there = {blob.path: blob.id for blob in tree.blobs}
    return {path: data for path, data in changes.items() if there.get(path) != (None if data is None else blob_id(data))}


def blob_id(data: bytes) -> str:
    """git's object id of a blob (SHA-1 repositories, which `Git.ensure` makes)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _decisive(tree: Tree) -> set[tuple[str, str]]:
    return {(blob.path, blob.id) for blob in tree.blobs if blob.path.startswith(_DECISIVE)}
