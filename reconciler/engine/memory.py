"""What a reconciler process remembers between passes. All of it may be lost at any moment; losing it costs time, never safety.

What it is: outcomes, when each site was seen last, backoffs, acts that landed, acts still under way. What it is not: committed state; how
much of a deadline was seen stands in the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.core.actions import Action, Decision, Outcome, PowerSource, VmKey
from reconciler.core.decide import Memory
from reconciler.core.model import Known, ObjectRef, PowerRequest
from reconciler.core.record import Records
from reconciler.core.view import Backoff, Observed
from reconciler.ports import Clock

LONGEST_BACKOFF_S = 60.0
ACT_FORGOTTEN_S = 60.0  # a power task that shows no effect for so long is asked for again
LONGEST_GAP_S = 60.0  # safety 18: time counts only between looks at most two intervals apart


@dataclass(slots=True)
class Recollection:
    clock: Clock
    origin: str
    outcomes: dict[VmKey, Outcome] = field(default_factory=dict)
    acted: dict[VmKey, dict[str, tuple[str, float]]] = field(default_factory=dict)  # act -> (phase, when)
    backoffs: dict[VmKey, Backoff] = field(default_factory=dict)
    seen_on: dict[VmKey, datetime] = field(default_factory=dict)
    under_way: dict[VmKey, tuple[Action, Future[Outcome]]] = field(default_factory=dict)
    longest_gap_s: float = LONGEST_GAP_S
    seen_at: dict[ObjectRef | None, float] = field(default_factory=dict)  # None: the repo
    watched: dict[VmKey, float] = field(default_factory=dict)
    read_s: float = 0.0

    def view(self, descends: frozenset[ObjectRef]) -> Memory:
        return Memory(
            outcomes=dict(self.outcomes),
            watched=self.watched,
            read_s=self.read_s,
            acted={k: frozenset(v) for k, v in self.acted.items()},
            backoffs=dict(self.backoffs),
            origin=self.origin,
            descends=descends,
            busy=frozenset(self.under_way),
            seen_on=dict(self.seen_on),
        )

    def look(self, observed: Observed, records: Records) -> None:
        """How much time this look adds to the deadlines of each VM: since both its sites were seen the last time (safety 18)."""
        now = self.clock.monotonic()
        seen = {r for m in (observed.sources, observed.targets) for r, k in m.items() if isinstance(k, Known)}
        self.watched = {}
        for key, record in records.vms.items():
            if record.timers and record.source and record.frozen and {record.source.provider, record.frozen.destination} <= seen:
                self.watched[key] = self._since(now, record.source.provider, record.frozen.destination)
        self.read_s = self._since(now, None)
        self.seen_at |= dict.fromkeys([None, *seen], now)

    def _since(self, now: float, *places: ObjectRef | None) -> float:
        gap = now - min(self.seen_at.get(place, float("-inf")) for place in places)
        return gap if gap <= self.longest_gap_s else 0.0

    def keep(self, decision: Decision, records: Records) -> None:
        """After a decision was published: outcomes are used up; acts of another phase go."""
        self.outcomes.clear()
        active = (k for k, v in records.vms.items() if v.result is None)
        self.seen_on = {k: at for k in active if (at := decision.seen_on.get(k) or self.seen_on.get(k)) is not None}
        now = self.clock.monotonic()
        for key in list(self.acted):
            record = records.vms.get(key)
            phase = record.phase if record else ""
            self.acted[key] = {a: (p, at) for a, (p, at) in self.acted[key].items() if p == phase and not _stale(a, now - at)}
        for key in list(self.backoffs):
            ended = (record := records.vms.get(key)) is None or record.result is not None
            if ended and self.backoffs[key].until + timedelta(seconds=LONGEST_BACKOFF_S) < self.clock.now():
                del self.backoffs[key]  # an archive may still act for a VM that ended, so not at once

    def learn(self, action: Action, outcome: Outcome, phase: str) -> None:
        self.outcomes[outcome.key] = outcome
        error = outcome.error
        if error is None:
            self.backoffs.pop(outcome.key, None)
            if isinstance(action, PowerSource):
                acts = self.acted.setdefault(outcome.key, {})
                acts[f"PowerSource:{action.want.value}"] = (phase, self.clock.monotonic())
            return
        if error.kind == "terminal" or error.reason == "LeaseLost":
            return
        before = self.backoffs.get(outcome.key)
        count = before.count + 1 if before is not None and before.phase == phase else 1
        wait = error.retry_after_s if error.retry_after_s is not None else min(LONGEST_BACKOFF_S, 0.5 * 2.0**count)
        until = self.clock.now() + timedelta(seconds=wait * (0.75 + self.clock.jitter() / 2))
        self.backoffs[outcome.key] = Backoff(until, error.reason, error.message, count, held=error.kind == "internal", phase=phase)

    def release_held(self) -> None:
        """A new commit was read: what a bug held may be tried again."""
        for key in [k for k, b in self.backoffs.items() if b.held]:
            del self.backoffs[key]

    def harvest(self, phases: Mapping[VmKey, str]) -> Iterable[Outcome]:
        """Outcomes of acts that were still under way when an earlier pass ended."""
        for key, (action, future) in list(self.under_way.items()):
            if future.done():
                del self.under_way[key]
                outcome = future.result()
                self.learn(action, outcome, phases.get(key, ""))
                yield outcome


def _stale(act: str, age_s: float) -> bool:
    return act != f"PowerSource:{PowerRequest.SHUTDOWN.value}" and age_s > ACT_FORGOTTEN_S
