"""The lease: one active reconciler per repository, by compare-and-swap on a branch of its own.

What it is: a chain of empty commits, each naming holder and end. The parent of each is the one before, so a plain fast-forward push
succeeds for one contender only. What it is not: a proof at the moment of an act; the guards ask `age_s` again right before each.
Age counts from the start of the push on a clock that goes on during suspend: a reply that took long, or a machine that slept, never makes
the lease look young.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from reconciler.errors import RetryableError
from reconciler.gitrepo.checkout import parse_ls_remote
from reconciler.gitrepo.commit import Draft, push_commit, write_commit
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.failure import Push
from reconciler.gitrepo.git import Git
from reconciler.ports import Clock

log = logging.getLogger(__name__)

_LONG_OVER = timedelta(minutes=10)
_LEASE_REF = "refs/seen/lease"
_CHAIN_KEPT = 1000  # pushes after which the local chain, of which only the last commit is needed, is dropped: half a day of renewals
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a lease commit says. `until` None: released, or not written by us and so without an end to go by."""

    released: bool
    until: datetime | None
    ttl_s: float


@dataclass(frozen=True, slots=True)
class _Held:
    commit: str
    since_s: float  # Clock.monotonic at the start of the push


@dataclass(frozen=True, slots=True)
class _Seen:
    commit: str
    since_s: float  # Clock.monotonic when it was first seen to be the head
    claim: Claim


class Lease:
    """Not thread-safe but for `age_s`; GitRepo serialises. Its clone is its own and one commit deep, since the chain grows for ever."""

    def __init__(self, git: Git, config: RepoConfig, clock: Clock) -> None:
        self._git = git
        self._config = config
        self._clock = clock
        # Two processes may be given one holder name and act in the same second; without this their commits would be one and the same.
        self._nonce = clock.new_id()
        self._held: _Held | None = None
        self._seen: _Seen | None = None
        self._pushes = 0
        self.tenure = 0  # grows each time that we take the lease: from one renewal to the next nobody else can have held it
        self._ours: dict[str, float] = {}  # our last commit, and later ones that may be there too -> start of the push

    def age_s(self) -> float | None:
        held = self._held
        return None if held is None else self._clock.monotonic() - held.since_s

    def hold(self) -> bool:
        """Take the lease, or renew it after a third of its TTL. False: somebody else has it. Errors: those of a push and a fetch."""
        age = self.age_s()
        if age is not None and age < self._config.lease_ttl_s / 3:
            return True
        if self._held is not None and self._renew(self._held):
            return True
        return self._take()

    def release(self) -> None:
        """Say so on the branch, if we hold it; the next reconciler need not wait. Afterwards we do not, whatever became of the push."""
        held, self._held = self._held, None
        if held is not None and (head := self._look()) in self._ours:
            self._push(head, released=True)

    def _renew(self, held: _Held) -> bool:
        if not self._still_local(held.commit):
            return False
        try:
            if self._push(held.commit):
                return True
        except RetryableError:
            if self._clock.monotonic() - held.since_s < self._config.lease_ttl_s:
                return True  # the remote is away, but what we hold is still ours
            raise
        return False

    def _take(self) -> bool:
        self.tenure += 1
        looked_at = self._clock.monotonic()
        head = self._look()
        if self._adopt(head):
            return True
        self._held = None
        if head and head not in self._ours and not self._is_free(head, looked_at):
            return False
        return self._push(head) or self._adopt(self._look())

    def _adopt(self, head: str) -> bool:
        """A commit of ours that is there though we were not told so is a lease like any other, from the start of its push."""
        since_s = self._ours.get(head)
        if since_s is None or self._clock.monotonic() - since_s >= self._config.lease_ttl_s:
            return False
        self._held = _Held(head, since_s)
        return True

    def _is_free(self, head: str, looked_at: float) -> bool:
        """Released, unchanged for a TTL since we first saw it, or long past its written end (a cron run that died: safety 17)."""
        if self._seen is None or self._seen.commit != head:
            self._seen = _Seen(head, self._clock.monotonic(), parse_claim(self._git.local(["cat-file", "commit", head])))
        seen, claim = self._seen, self._seen.claim
        unchanged_s = looked_at - seen.since_s
        long_over = claim.until is not None and self._clock.now() > claim.until + _LONG_OVER
        return claim.released or long_over or unchanged_s >= max(self._config.lease_ttl_s, claim.ttl_s)

    def _look(self) -> str:
        """The branch's head at the remote, with its commit in our clone; "" if there is no such branch."""
        self._git.ensure()
        ref = f"refs/heads/{self._config.lease_branch}"
        heads, _ = parse_ls_remote(self._git.remote(["ls-remote", "--", self._git.url, ref]))
        head = heads.get(ref, "")
        if not head or self._still_local(head):
            return head
        self._git.fetch(f"+{ref}:{_LEASE_REF}", options=["--depth=1"])
        return self._git.local(["rev-parse", "--verify", _LEASE_REF]).decode().strip()

    def _still_local(self, commit: str) -> bool:
        return not self._git.ensure() and self._git.run(["cat-file", "-e", f"{commit}^{{commit}}"]).code == 0

    def _push(self, parent: str, released: bool = False) -> bool:
        """Put our commit on top of `parent`. False: somebody was faster, or that very push, which arrived twice: an HTTP client repeats a
        request whose kept-alive connection was cut before the answer (RFC 9110, 9.2.2, leaves that to what it knows; libcurl does)."""
        draft = Draft(parent, {}, self._message(released), self._clock.now())
        commit = write_commit(self._git, self._config, draft)
        started = self._clock.monotonic()
        try:
            verdict = push_commit(self._git, commit, self._config.lease_branch)
        except RetryableError:
            self._perhaps(commit, started, released)
            raise
        if verdict is Push.RACED:
            self._perhaps(commit, started, released)
            return False
        # Pushed twice within a second it is one commit, and it may be the first push that put it there.
        started = self._ours.get(commit, started)
        self._ours = {} if released else {commit: started}
        self._held = None if released else _Held(commit, started)
        self._pushes += 1
        if self._pushes % _CHAIN_KEPT == 0:
            self._git.drop()
        log.info("lease pushed", extra={"commit": commit, "released": released})
        return True

    def _perhaps(self, commit: str, started: float, released: bool) -> None:
        if not released:
            self._ours.setdefault(commit, started)

    def _message(self, released: bool) -> str:
        until = (self._clock.now() + timedelta(seconds=self._config.lease_ttl_s)).strftime(_TIME)
        holder = " ".join(self._config.holder.split())
        subject = f"lease released by {holder} [skip ci]" if released else f"lease held by {holder} until {until} [skip ci]"
        state = "Released: yes\n" if released else f"Until: {until}\nTtl-Seconds: {self._config.lease_ttl_s:g}\n"
        return f"{subject}\n\nHolder: {holder}\nNonce: {self._nonce}\n{state}"


def parse_claim(commit: bytes) -> Claim:
    """A commit object -> what its trailers say. A commit that a person made has none: then only time since it was first seen counts."""
    text = commit.decode(errors="replace").partition("\n\n")[2].partition("\n\n")[2]
    trailers = {name: value for name, sep, value in (line.partition(": ") for line in text.splitlines()) if sep}
    try:
        until = datetime.strptime(trailers["Until"], _TIME).replace(tzinfo=UTC)
        ttl_s = float(trailers["Ttl-Seconds"])
    except (KeyError, ValueError):
        until, ttl_s = None, 0.0
    if not math.isfinite(ttl_s):
        until, ttl_s = None, 0.0
    return Claim(trailers.get("Released") == "yes", until, ttl_s)
