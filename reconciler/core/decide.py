"""(Desired, Observed, Records, memory, now) -> new Records and actions. The one place where runs go on.

What it is: pure. Begins runs, admits VMs, walks each VM's table by one move, ends runs. What it is not: conditions of manifests
(core/conditions.py), the tables (core/itinerary.py), or any effect (engine/execute.py).
At most one action per VM and pass; same input, same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reconciler.core import admission, copying, pacing, retry, runs, story, strangers, vddk, warming
from reconciler.core.actions import Action, Decision, Outcome, ProveOff, VmKey
from reconciler.core.desired import Desired
from reconciler.core.inventory import SourceVm
from reconciler.core.itinerary import Phase, current, table_for
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Absent, Known, Milestone, ObjectRef, Power, Result, Unknown
from reconciler.core.moves import Declare, Do, Fail, Hold, Move, Note, Reach, Refresh, Wait
from reconciler.core.record import Category, Claim, Condition, Failure, IntentKind, Records, RunRecord, VmRecord
from reconciler.core.view import Backoff, Observed, Pace, View


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process knows besides git and the sites; losing it costs time only.

    outcomes:  of the pass before this one. acted: acts that landed. backoffs: VMs whose last act failed.
    watched:   seconds since both sites of a VM were seen the last time, where that is close enough to count. read_s: likewise, of the repo.
    origin:    repo, branch and path that we read. descends: runs whose first revision is an ancestor of the head that we read.
    """

    outcomes: Mapping[VmKey, Outcome] = field(default_factory=dict)
    watched: Mapping[VmKey, float] = field(default_factory=dict)
    read_s: float = 0.0
    acted: Mapping[VmKey, frozenset[str]] = field(default_factory=dict)
    backoffs: Mapping[VmKey, Backoff] = field(default_factory=dict)
    origin: str = ""
    descends: frozenset[ObjectRef] = frozenset()
    busy: frozenset[VmKey] = frozenset()  # an act of an earlier pass is still under way
    seen_on: Mapping[VmKey, datetime] = field(default_factory=dict)  # when a source was last seen on, at the earliest


@dataclass(slots=True)
class Draft:
    """Records in the making; a mutable copy, private to one call of decide()."""

    runs: dict[ObjectRef, RunRecord]
    vms: dict[VmKey, VmRecord]
    claims: dict[tuple[str, str], Claim]
    actions: list[Action] = field(default_factory=list)
    wakes: list[datetime] = field(default_factory=list)
    bugs: list[tuple[VmKey, Exception]] = field(default_factory=list)
    seen_on: dict[VmKey, datetime] = field(default_factory=dict)
    refused: Mapping[VmKey, str] = field(default_factory=dict)  # warm VMs that may begin no round and no cutover now


def decide(
    desired: Desired,
    observed: Observed,
    records: Records,
    memory: Memory,
    indexes: Mapping[ObjectRef, SiteIndex],
    now: datetime,
) -> tuple[Records, Decision]:
    draft = Draft(dict(records.runs), dict(records.vms), dict(records.claims))
    runs.begin(draft.runs, draft.vms, desired, observed, indexes, memory.origin, now)
    active = [r for r in draft.runs.values() if r.result is None]
    for run in active:
        draft.runs[run.run] = runs.watch_manifest(run, desired, memory.origin, memory.descends, now, memory.read_s)
        _cancel(draft, draft.runs[run.run], desired, indexes.get(run.source), now)
    draft.refused = admission.admit(draft.runs, draft.vms, draft.claims, desired, observed, indexes, now)
    for run in active:
        for slug in run.vms:
            record = draft.vms[(run.run, slug)]
            if record.result is None:
                draft.vms[record.key] = _guarded(draft, draft.runs[run.run], record, desired, observed, records, memory, indexes, now)
        draft.runs[run.run] = runs.finish(draft.runs[run.run], draft.vms, now)
    wake = min(draft.wakes, default=None)
    after = replace(
        records, runs=draft.runs, vms=draft.vms, claims=draft.claims, instance=strangers.inherited(desired, observed, records.instance)
    )
    return after, Decision(tuple(draft.actions), wake, tuple(draft.bugs), draft.seen_on)


def _cancel(draft: Draft, run: RunRecord, desired: Desired, index: SiteIndex | None, now: datetime) -> None:
    """`spec.cancel`, once seen, is kept; a removed manifest cancels only what is before CUTOVER, watched for 300 s."""
    removed = run.removal_s >= runs.GONE_S
    if runs.counting(run):
        draft.wakes.append(now + timedelta(seconds=runs.GONE_S - run.removal_s))
    asked = runs.cancelled(run, draft.vms, desired, index)
    for slug in run.vms:
        record = draft.vms[(run.run, slug)]
        by_removal = removed and record.milestone is Milestone.NONE
        if record.result or record.cancel_at or record.unwinding or not (by_removal or slug in asked):
            continue
        if record.milestone.order >= Milestone.HANDED_OVER.order:
            continue  # conditions say CancelTooLate
        record = replace(record, cancel_at=now)
        if record.frozen is None:
            record = replace(story.end(record, Result.CANCELED, now), message="cancelled before it began")
        else:
            record = replace(record, unwinding=True, message="cancelled")
        draft.vms[record.key] = record


def _guarded(
    draft: Draft,
    run: RunRecord,
    record: VmRecord,
    desired: Desired,
    observed: Observed,
    records: Records,
    memory: Memory,
    indexes: Mapping[ObjectRef, SiteIndex],
    now: datetime,
) -> VmRecord:
    """The per-VM boundary: a bug met on one VM holds that VM as it is; the others go on. The engine logs what is in `bugs`."""
    acts = len(draft.actions)
    owned = (record.source.site_uuid, record.source.uuid) if record.source else None
    claim = draft.claims.get(owned) if owned else None
    try:
        return _step(draft, run, record, desired, observed, records, memory, indexes, now)
    except Exception as err:
        del draft.actions[acts:]
        if owned and claim:
            draft.claims[owned] = claim
        draft.bugs.append((record.key, err))
        text = f"a bug was met on this VM ({type(err).__name__}: {err}); it is held as it is, others go on. Please report the log"
        return _blocked(record, Condition("InternalError", True, Category.CRITICAL, "InternalError", text), now)


def _step(
    draft: Draft,
    run: RunRecord,
    record: VmRecord,
    desired: Desired,
    observed: Observed,
    records: Records,
    memory: Memory,
    indexes: Mapping[ObjectRef, SiteIndex],
    now: datetime,
) -> VmRecord:
    if record.frozen is None or record.source is None:
        return record
    view = _view(draft, record, observed, records, memory, indexes, now)
    if record.key in memory.busy:  # what others do meanwhile is not forgotten
        return replace(record, spoilt=view.spoilt) if isinstance(view.target, Known) else record
    view = replace(
        view,
        mode=run.mode,
        pace=_pace(draft, run, record, desired, indexes),
        pods=desired.limits.pods,
        vddk=vddk.named(desired.providers.get(record.source.provider), desired.limits).image,
    )
    if view.source_power is Power.ON:
        draft.seen_on[record.key] = now
    record, claim = _absorb(record, view)
    if claim is not None:
        draft.claims[(claim.site_uuid, claim.vm_uuid)] = claim
    if isinstance(view.target, Unknown):
        return _blocked(record, Condition("Retrying", True, Category.WARN, view.target.reason, view.target.message), now)
    record = replace(story.with_disks(record, view), spoilt=view.spoilt)
    view = replace(view, record=record, claim=claim)
    held = runs.hold_of(run, record, view, desired, observed.rewound, indexes)
    if held is not None and not (record.unwinding and held.type == "ManifestGone"):
        return _blocked(record, Condition(held.type, True, Category.CRITICAL, held.reason, held.message, items=held.items), now)
    record = _walk(draft, run, view, memory.backoffs.get(record.key), now)
    done = {p.uuid: p.done_bytes for p in view.progress}
    return story.with_pipeline(record, done)


def _view(
    draft: Draft,
    record: VmRecord,
    observed: Observed,
    records: Records,
    memory: Memory,
    indexes: Mapping[ObjectRef, SiteIndex],
    now: datetime,
) -> View:
    source, frozen = record.source, record.frozen
    assert source is not None and frozen is not None
    target = observed.targets.get(frozen.destination, Unknown("NotObserved", f"target {frozen.destination} was not looked at"))
    seen = observed.sources.get(source.provider, Unknown("NotObserved", "not looked at"))
    vm: Known[SourceVm] | Absent | Unknown
    if isinstance(seen, Known):
        found = indexes[source.provider].by_uuid(source.uuid)
        vm = Known(found) if found else Absent()
    else:
        vm = seen
    view = View(
        record=record,
        claim=draft.claims.get((source.site_uuid, source.uuid)),
        source=vm,
        target=target,
        outcome=memory.outcomes.get(record.key),
        progress=(),
        result=None,
        timers={name: round(seen_s + memory.watched.get(record.key, 0.0), 3) for name, seen_s in record.timers.items()},
        acted=memory.acted.get(record.key, frozenset()),
        now=now,
        commit=records.commit,
        instance=records.instance,
        on_at=memory.seen_on.get(record.key),
    )
    if isinstance(target, Known):
        pvcs = [d.pvc for d in frozen.disks]
        view = replace(view, taken=strangers.takers(target.value.machines_with(pvcs), frozen.namespace, pvcs, view.owner.source))
    if isinstance(target, Known) and view.jobs:
        job = view.jobs[-1]
        progress, result = observed.progress.get((frozen.destination, job.namespace, job.name), ((), None))
        view = replace(view, progress=progress, result=result)
    return view


def _pace(draft: Draft, run: RunRecord, record: VmRecord, desired: Desired, indexes: Mapping[ObjectRef, SiteIndex]) -> Pace:
    """The cutover and the limits are live: they may be edited while the run goes on."""
    index = indexes.get(record.source.provider) if record.source else None
    skew = index.inventory.site.skew_s if index else 0.0
    return Pace(runs.cutover_of(run, record, desired), desired.limits.precopy_interval_s, skew, draft.refused.get(record.key, ""))


def _absorb(record: VmRecord, view: View) -> tuple[VmRecord, Claim | None]:
    """Close intents that the world or the last outcome shows as done or void; keep the claim's memory of who powered what."""
    now, claim, outcome = view.now, view.claim, view.outcome
    power = view.source_power
    if power is Power.OFF:
        record = story.close(record, IntentKind.POWER_OFF_SOURCE, now)
    elif view.shutdown_accepted:
        record = story.accept(record, IntentKind.POWER_OFF_SOURCE, now)
    opened = [i.kind for i in record.intents if i.open]
    if power is Power.ON and IntentKind.POWER_ON_SOURCE in opened:
        record = story.close(record, IntentKind.POWER_ON_SOURCE, now)
        claim = replace(claim, powered_off_by_us=False) if claim else None
    if outcome is not None and outcome.action in _INTENT_OF:
        kinds = _INTENT_OF[outcome.action]
        for kind in kinds:
            if outcome.error is None and kind in (IntentKind.START_TARGET, IntentKind.DELETE_TARGET):
                record = story.close(record, kind, now)
            elif outcome.error is not None and outcome.error.kind == "void":
                record = story.close(record, kind, now, void=outcome.error.message)
    if isinstance(view.target, Known) and (vm := view.our_target_vm) is not None and vm.power is Power.ON:
        record = story.close(record, IntentKind.START_TARGET, now)
    return story.with_outage(record, view), _seen_target(claim, view)


def _seen_target(claim: Claim | None, view: View) -> Claim | None:
    """The reserved VM as it is now; one that was set back only when nothing is left that its forgotten time may have made untrue."""
    if claim is None or (claim.run, claim.slug) != view.key or not isinstance(view.target, Known):
        return claim
    behind = view.record.milestone.order >= Milestone.HANDED_OVER.order
    if behind or view.reserved in ("", claim.reserved) or (view.set_back and (view.jobs or view.proofs)):
        return claim
    return replace(claim, reserved=view.reserved)


_INTENT_OF: dict[str, tuple[IntentKind, ...]] = {
    "PowerSource": (IntentKind.POWER_OFF_SOURCE, IntentKind.POWER_ON_SOURCE),
    "StartTarget": (IntentKind.START_TARGET,),
    "DropTargetVm": (IntentKind.DELETE_TARGET,),
    "DropVolumes": (IntentKind.DELETE_TARGET,),
}


def _blocked(record: VmRecord, condition: Condition, now: datetime) -> VmRecord:
    return replace(record, conditions=story.carry_times([condition], record.conditions, now), message=condition.message)


def _walk(draft: Draft, run: RunRecord, view: View, backoff: Backoff | None, now: datetime) -> VmRecord:
    """One move, or several when milestones are reached on the way; ends at the first that waits, acts, fails or holds."""
    record = view.record
    if (failed := _terminal(view)) is not None:
        return _fail(record, failed, now)
    for _ in range(len(Phase)):
        step = current(table_for(view, run.mode), view)
        move = step.move(view)
        record = view.record
        if not (record.unwinding and step.phase is Phase.COMPLETED):
            record = story.enter(record, step.phase, now)
        if isinstance(move, Reach) and move.result is None:
            epoch, tried = move.epoch or record.epoch, move.tried or record.tried
            record = replace(record, milestone=move.milestone, epoch=epoch, tried=tried, message=move.message)
            _keep_claim(draft, record)
            view = replace(view, record=record, outcome=None)
            continue
        if isinstance(move, Refresh):
            record = replace(record, epoch=move.epoch, message=move.message, attempt=record.attempt + 1)
            view = replace(view, record=record, outcome=None)
            continue
        if isinstance(move, Note):
            record = replace(move.record, phase=record.phase, phases=record.phases)
            view = replace(view, record=record)
            continue
        return _apply(draft, view, record, move, backoff, now)
    raise RuntimeError(f"{record.slug}: the itinerary does not come to rest")


def _terminal(view: View) -> Fail | None:
    """A TerminalError of the last act fails the VM; in UNWIND and after hand-over it is retried like any other."""
    outcome = view.outcome
    if outcome is None or outcome.error is None or outcome.error.kind not in ("terminal", "user"):
        return None
    if view.record.unwinding or view.record.milestone.order >= Milestone.HANDED_OVER.order or copying.moved(view) is not None:
        return None
    return Fail(outcome.error.reason, outcome.error.message)


def _fail(record: VmRecord, why: Fail, now: datetime) -> VmRecord:
    error = Failure(record.phase, why.reason, why.message)
    return replace(record, unwinding=True, error=error, message=why.message, conditions=(), timers={})


def _keep_claim(draft: Draft, record: VmRecord) -> None:
    source = record.source
    if source is not None and record.milestone.order >= Milestone.HANDED_OVER.order:
        key = (source.site_uuid, source.uuid)
        draft.claims[key] = replace(draft.claims[key], forever=True)


def _apply(draft: Draft, view: View, record: VmRecord, move: Move, backoff: Backoff | None, now: datetime) -> VmRecord:
    conditions: list[Condition] = []
    record = replace(record, timers=_timers(view, record, move))
    if backoff is not None and not backoff.held and backoff.phase != record.phase:
        backoff = None  # what failed was done all the same (a lost reply), or is not needed any more
    waiting = backoff is not None and (backoff.held or backoff.until > now)
    if backoff is not None:
        kind = "InternalError" if backoff.held else "Retrying"
        category = Category.CRITICAL if backoff.held else Category.WARN
        conditions.append(Condition(kind, True, category, backoff.reason, backoff.message))
        if waiting and not backoff.held:
            draft.wakes.append(backoff.until)
    elif record.retry is not None:
        conditions.append(retry.condition(record.retry))
    if record.base_unreadable and record.milestone is Milestone.NONE:
        conditions.append(Condition("WarmWithoutPrecopy", True, Category.WARN, "BaseNotReadable", warming.without_precopy(record)))
    if record.milestone is Milestone.NONE and not record.unwinding and (why := pacing.budget_missed(record, view.pace.interval_s)):
        conditions.append(Condition("DowntimeBudgetMissed", True, Category.WARN, "BudgetTooShort", why))
    match move:
        case Wait(message, _, until):
            record = replace(record, message=message)
            if until is not None:
                draft.wakes.append(until)
        case Do(action, message, _, attempt, again):
            if _follows_up(view, action) and backoff is not None and not backoff.held:
                waiting = False
            record = replace(record, message=backoff.message if backoff and waiting else message)
            if not waiting:
                record = replace(record, attempt=attempt or record.attempt, retry=again or record.retry)
                draft.actions.append(action)
        case Declare(intent, action, message, milestone, _):
            if waiting:
                record = replace(record, message=backoff.message if backoff else message)
            else:
                record = _declare(draft, story.declare(record, intent, now), move, now)
                draft.actions.append(action)
        case Fail(reason, message) if record.milestone.order >= Milestone.HANDED_OVER.order:
            # Behind hand-over nothing is given back: the source is never powered on again, so a person decides.
            conditions.append(Condition("Failed", True, Category.CRITICAL, reason, message))
            record = replace(record, message=message)
        case Fail():
            return _fail(record, move, now)
        case Hold(type_, reason, message, items):
            conditions.append(Condition(type_, True, Category.CRITICAL, reason, message, items=items))
            record = replace(record, message=message)
        case Reach(milestone, message, _, result) if result is not None:
            return _end(draft, view, replace(record, milestone=milestone, message=message), result, now)
        case _:
            raise TypeError(f"unexpected move {move!r}")
    return replace(record, conditions=story.carry_times(conditions, view.record.conditions, now))


def _timers(view: View, record: VmRecord, move: Move) -> Mapping[str, float]:
    """Of those that the move names, the seconds seen so far. A source that is out of sight stops the clock and turns nothing back."""
    named = set(getattr(move, "timers", ()))
    if record.phase == Phase.DELETE_TARGET and "guest-on" in view.timers:
        named.add("guest-on")  # the watch is over; deleting takes several passes and must not begin it anew
    if not named and isinstance(view.source, Unknown):
        return view.timers
    return {name: view.timers.get(name, 0.0) for name in sorted(named)}


def _follows_up(view: View, action: Action) -> bool:
    """A read that answers the refusal of the act before it is not held back by that refusal, which the next pass has forgotten."""
    return isinstance(action, ProveOff) and view.outcome is not None and view.outcome.action != "ProveOff"


def _declare(draft: Draft, record: VmRecord, move: Declare, now: datetime) -> VmRecord:
    source = record.source
    assert source is not None
    record = replace(record, milestone=move.milestone or record.milestone, message=move.message)
    key = (source.site_uuid, source.uuid)
    if move.intent is IntentKind.POWER_OFF_SOURCE:
        draft.claims[key] = replace(draft.claims[key], powered_off_by_us=True)
    _keep_claim(draft, record)
    return record


def _end(draft: Draft, view: View, record: VmRecord, result: Result, now: datetime) -> VmRecord:
    source = record.source
    assert source is not None
    key = (source.site_uuid, source.uuid)
    claim = draft.claims.get(key)
    if result is Result.SUCCEEDED:
        record = replace(record, milestone=Milestone.DONE)
        draft.claims[key] = replace(draft.claims[key], forever=True)
    elif claim is not None:
        still_off = claim.powered_off_by_us and view.source_power is not Power.ON
        draft.claims[key] = replace(claim, released=now, powered_off_by_us=still_off)
    if record.error is not None and result is not Result.SUCCEEDED:
        record = replace(record, message=record.error.message)
    kind = {Result.SUCCEEDED: "Succeeded", Result.FAILED: "Failed", Result.CANCELED: "Canceled"}[result]
    reason = record.error.reason if record.error else "UserRequested" if result is Result.CANCELED else ""
    final = Condition(kind, True, Category.ADVISORY, reason, record.message, durable=True)
    record = replace(record, conditions=story.carry_times([final], (), now))
    return story.with_pipeline(story.end(record, result, now), {})
