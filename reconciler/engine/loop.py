"""The loop: fetch -> load -> resolve -> observe -> decide -> publish -> execute, and the wait between passes.

What it is: the orchestrator, read from top to bottom in `one_pass`. Talks to ports only. What it is not: any of the steps themselves.
Intents are in git before any act; outcomes show in the next pass, which follows at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from reconciler.core import archive, conditions, runs
from reconciler.core.actions import Action, Decision, Outcome, VmKey
from reconciler.core.decide import decide
from reconciler.core.desired import Desired
from reconciler.core.itinerary import Phase
from reconciler.core.model import ObjectRef, Result
from reconciler.core.record import Category, Records
from reconciler.core.target import Instance
from reconciler.core.view import Observed
from reconciler.engine import publish
from reconciler.engine.execute import Hands, execute
from reconciler.engine.memory import LONGEST_GAP_S, Recollection
from reconciler.engine.observe import Watch, live, observe
from reconciler.engine.publish import Pace, Urgency
from reconciler.engine.sites import ACT, Lane, Sites, settle
from reconciler.errors import LeaseLost, RetryableError, Superseded, TerminalError
from reconciler.manifests.load import CacheEntry, SourceFile, load, missing, wants
from reconciler.manifests.recordstore import RecordStore
from reconciler.manifests.resolve import resolve
from reconciler.ports import Checkout, Clock, StatusRepo

log = logging.getLogger(__name__)

QUICKEST_S, SLOWEST_S = 0.2, 3.0
IN_SHUTDOWN_S = 1.0  # a guest that shuts down wakes nobody, and from its power-off on our pause is its downtime


@dataclass(frozen=True, slots=True)
class Rules:
    """What the loop is told. Times in seconds."""

    lease_ttl_s: float = 180.0
    poll_s: float = 15.0
    act_budget_s: float = 20.0
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class PassReport:
    """What a pass did. `moved`: something changed or was acted on, so that the next pass should follow at once.

    idle: nobody was asked and nothing was decided; the rest is that of an earlier pass. seconds: how long it took.
    commits: made by this process so far. lease_age_s: None when the lease is not ours. read_seconds: the newest read of each site.
    """

    records: Records
    desired: Desired
    observed: Observed
    decision: Decision
    outcomes: tuple[Outcome, ...]
    moved: bool
    holds_lease: bool
    before: Records
    idle: bool = False
    seconds: float = 0.0
    commits: int = 0
    lease_age_s: float | None = None
    read_seconds: Mapping[ObjectRef, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PassFailure:
    """A pass that ended in an error. `lease_age_s`: None when the lease is not ours."""

    reason: str
    lease_age_s: float | None


class Engine:
    """`waiter`: how to wait between passes, when something may end the wait early; else the clock's sleep."""

    def __init__(
        self, repo: StatusRepo, sites: Sites, clock: Clock, rules: Rules, origin: str, waiter: Callable[[float], None] | None = None
    ) -> None:
        self._repo, self._sites, self._clock, self._rules = repo, sites, clock, rules
        self._wait = waiter or clock.sleep
        self._recall = Recollection(clock, origin, longest_gap_s=max(LONGEST_GAP_S, 2 * rules.poll_s))
        self._watch = Watch()
        self._store = RecordStore()
        self._cache: dict[str, CacheEntry] = {}
        self._desired: Desired | None = None
        self._draft: Records | None = None  # decided but not yet due to be committed
        self._committed_at = dict.fromkeys(Urgency, 0.0)
        self._last: PassReport | None = None
        self._commits = 0
        self._minted = ""

    def one_pass(self) -> PassReport:
        """One pass. Errors: RetryableError / TerminalError of git; everything else is told by the report."""
        began = self._clock.monotonic()
        checkout = self._repo.fetch()  # git -> blobs
        committed = self._store.update(checkout.status, self._repo.read)
        desired = self._load(checkout, committed)  # blobs -> Desired
        now = self._clock.now()
        if (quiet := self._nothing_to_do(desired, committed, now)) is not None:
            return self._measured(quiet, began)
        records = self._draft if self._draft is not None and self._draft.commit == committed.commit else committed
        records = self._identified(records)
        phases = {k: v.phase for k, v in records.vms.items()}
        late = tuple(self._recall.harvest(phases))
        observed, indexes = observe(desired, records, self._sites, self._repo, self._watch, now)  # read-only
        self._recall.look(observed, records)
        memory = self._recall.view(self._descends(records, desired))
        after, decision = decide(desired, observed, records, memory, indexes, now)  # pure
        for key, bug in decision.bugs:
            log.error("a bug was met on a VM; it is held", extra={"vm": key[1]}, exc_info=bug)
        after, decision = archive.advance(desired, observed, after, decision, memory, now)  # pure
        after = replace(after, statuses=conditions.summarize(desired, observed, after, indexes, now))  # pure
        holds = self._publish(committed, after, desired, decision)  # intents are in git before any act; may raise Superseded
        outcomes = self._execute(decision, after) if holds else ()
        moved = bool(outcomes or late) or _told(records) != _told(after)
        report = PassReport(after, desired, observed, decision, late + outcomes, moved, holds, committed)
        self._last = report
        return self._measured(report, began)

    def _measured(self, report: PassReport, began: float) -> PassReport:
        seconds = self._clock.monotonic() - began
        reads = {} if report.idle else dict(self._sites.read_seconds)
        return replace(report, seconds=seconds, commits=self._commits, lease_age_s=self._lease_age_s(), read_seconds=reads)

    def _lease_age_s(self) -> float | None:
        age = self._repo.lease_age_s()
        return age if age is not None and age < self._rules.lease_ttl_s else None

    # ---- steps --------------------------------------------------------------------------------------------------------------------------

    def _load(self, checkout: Checkout, records: Records) -> Desired:
        if self._desired is not None and self._desired.revision == checkout.desired.commit:
            self._desired = archive.sealed(self._desired, records.archived)
            return self._desired
        blobs = [b for b in checkout.desired.blobs if wants(b.path)]
        contents = self._repo.read(missing([b.id for b in blobs], self._cache))
        loaded = load((SourceFile(b.path, b.id, contents.get(b.id)) for b in blobs), cache=self._cache)
        self._desired = archive.sealed(resolve(loaded, checkout.desired.commit), records.archived)
        self._recall.release_held()
        log.info("manifests read", extra={"revision": checkout.desired.commit[:12], "problems": len(self._desired.problems)})
        return self._desired

    def _identified(self, records: Records) -> Records:
        """A branch without an instance gets one with its first commit. Until that has landed it stays the same, so that drivers do too."""
        if records.instance.id:
            self._minted = ""
            return records
        self._minted = self._minted or self._clock.new_id().replace("-", "")
        return replace(records, instance=Instance(self._minted))

    def _nothing_to_do(self, desired: Desired, committed: Records, now: datetime) -> PassReport | None:
        """Idle: the heads are those of the last pass, nothing is live, nothing is owed to git."""
        last = self._last
        if last is None or last.moved or self._draft is not None or self._recall.under_way:
            return None
        if last.desired is not desired or last.records.commit != committed.commit or live(desired, committed, self._watch, now):
            return None
        return replace(last, idle=True, moved=False, outcomes=())

    def _descends(self, records: Records, desired: Desired) -> frozenset[ObjectRef]:
        """Asked only of runs whose manifest is gone (safety 10)."""
        gone = [r for r in records.runs.values() if r.result is None and r.run not in desired.migrations]
        return frozenset(r.run for r in gone if self._repo.is_ancestor(r.revision, desired.revision))

    def _publish(self, committed: Records, after: Records, desired: Desired, decision: Decision) -> bool:
        urgency = publish.urgency(committed, after)
        need = urgency is not Urgency.NONE or bool(decision.actions)
        if need and not self._repo.hold_lease():
            log.info("another reconciler holds the lease; nothing is written")
            self._draft = None
            return False
        self._draft = None
        if self._due(urgency):
            changes = publish.changes(committed, after, desired.problems)
            text = publish.message(committed, after, desired.problems, desired.revision)
            self._repo.publish(changes, text, committed.commit)
            self._commits += 1
            self._committed_at = dict.fromkeys(Urgency, self._clock.monotonic())
        else:
            if decision.actions:
                self._repo.publish({}, "", committed.commit)  # nothing to write, but what is acted on must be the head still
            self._draft = after if urgency is not Urgency.NONE else None
        self._recall.keep(decision, after)
        return need

    def _due(self, urgency: Urgency) -> bool:
        age = self._clock.monotonic() - self._committed_at[urgency]
        match urgency:
            case Urgency.NOW:
                return True
            case Urgency.SOON:
                return age >= self._rules.pace.soon_s
            case Urgency.PROGRESS:
                return age >= self._rules.pace.progress_s
            case Urgency.NONE:
                return False

    def _execute(self, decision: Decision, after: Records) -> tuple[Outcome, ...]:
        """In parallel, bounded per pair of sites; what is not waited for any longer goes on and is harvested by a later pass.

        Where an act of an earlier pass is still under way, new ones are not waited for either.
        """
        hands = Hands(self._sites, self._repo, self._clock, self._rules.lease_ttl_s)
        late = {_lane(a, after) for a, _ in self._recall.under_way.values()}
        started = {a.key: (a, self._sites.submit(_lane(a, after), _work(a, hands))) for a in decision.actions}
        settle((f for a, f in started.values() if _lane(a, after) not in late), self._rules.act_budget_s)
        self._recall.under_way.update(started)
        return tuple(self._recall.harvest({k: v.phase for k, v in after.vms.items()}))

    # ---- the loop -----------------------------------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        once: bool,
        max_wait_s: float,
        on_pass: Callable[[PassReport], bool],
        on_failure: Callable[[PassFailure], None] = lambda failure: None,
    ) -> None:
        """Passes until `on_pass` says False; with `once`, until nothing moves any more within `max_wait_s`. Those that git (a lost race,
        a remote that is away) let come to nothing are told to `on_failure`, and made anew; without `once` also those that it refused
        (a token that expired) after it had let us in."""
        quiet, still_since = 0, self._clock.monotonic()
        while True:
            try:
                report = self.one_pass()
            except (Superseded, LeaseLost) as err:
                on_failure(PassFailure(err.reason, self._lease_age_s()))
                log.info("the pass starts anew", extra={"reason": err.reason, "error": err.message})
                self._clock.sleep(QUICKEST_S)
                continue
            except RetryableError as err:
                on_failure(PassFailure(err.reason, self._lease_age_s()))
                log.warning("the pass failed", extra={"reason": err.reason, "error": err.message})
                if once and self._clock.monotonic() - still_since >= max_wait_s:
                    raise
                self._clock.sleep(err.retry_after_s or SLOWEST_S)
                continue
            except TerminalError as err:
                if once or self._last is None:
                    raise
                on_failure(PassFailure(err.reason, self._lease_age_s()))
                log.error("git refuses us; nothing is done until that is mended", extra={"reason": err.reason, "error": err.message})
                self._clock.sleep(self._rules.poll_s)
                continue
            if not on_pass(report):
                return
            quiet = 0 if report.moved else quiet + 1
            if report.moved or _bytes(report) != self._bytes_before:
                still_since = self._clock.monotonic()
            self._bytes_before = _bytes(report)
            settled = not report.moved and (not _watched(report) or self._clock.monotonic() - still_since >= max_wait_s)
            if once and settled and self._draft is None:
                return
            if once and settled:
                self._committed_at = {u: float("-inf") for u in Urgency}  # end with a publishing pass
            pause = self._pause(report, quiet)
            self._wait(min(pause, max(QUICKEST_S, max_wait_s)) if once else pause)

    _bytes_before: int = 0

    def _pause(self, report: PassReport, quiet: int) -> float:
        if _may_move(report) or self._draft is not None:
            return float(min(IN_SHUTDOWN_S if _shutting_down(report) else SLOWEST_S, QUICKEST_S * 1.4**quiet))
        wake = report.decision.wake_at
        until = (wake - self._clock.now()).total_seconds() if wake else self._rules.poll_s
        return max(QUICKEST_S, min(self._rules.poll_s, until))

    def close(self) -> None:
        """The lease goes after our acts: who takes over at once must not meet one that still lands. Where one does not end, the
        lease is not released, but runs out."""
        if self._sites.acts_ended(self._rules.act_budget_s):
            self._repo.release_lease()
        else:
            log.warning("an act has not ended; the lease is not released, it runs out", extra={"waited_s": self._rules.act_budget_s})
        self._sites.close()


def _work(action: Action, hands: Hands) -> Callable[[], Outcome]:
    return lambda: execute(action, hands)


def _lane(action: Action, records: Records) -> Lane:
    """Both sites of the VM: an act on one of them often reads the other first, and hangs with it."""
    record = records.vms.get(action.key)
    source = record.source.provider if record and record.source else action.site
    return (ACT, source, record.frozen.destination if record and record.frozen else action.site)


def _told(records: Records) -> tuple[object, ...]:
    """What counts as movement: everything but progress."""
    vms = {k: (v.phase, v.milestone, v.result, v.intents, v.attempt, v.conditions) for k, v in records.vms.items()}
    return (vms, {k: (r.result, r.gone_since) for k, r in records.runs.items()}, records.claims, records.statuses)


def _bytes(report: PassReport) -> int:
    return sum(d.done_bytes + d.verified_bytes for disks, _ in report.observed.progress.values() for d in disks)


def _may_move(report: PassReport) -> bool:
    """An active VM that is neither held nor blocked, or an archive in the making: looking again soon is worth it."""
    for record in report.records.vms.values():
        if record.result is None and not any(c.category is Category.CRITICAL for c in record.conditions):
            return True
    return archive.may_move(report.desired, report.records)


def _watched(report: PassReport) -> bool:
    """... or a removal whose time counts only while somebody looks."""
    return _may_move(report) or any(runs.counting(run) for run in report.records.runs.values())


def _shutting_down(report: PassReport) -> bool:
    return any(v.result is None and v.phase == Phase.POWER_OFF for v in report.records.vms.values())


def failures(records: Records) -> frozenset[VmKey]:
    return frozenset(k for k, v in records.vms.items() if v.result is Result.FAILED)
