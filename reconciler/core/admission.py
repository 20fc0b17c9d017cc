"""From "waits" to "claimed and frozen": which pending VMs of active runs may begin, and what the others wait for or are blocked by.

What it is: examine + schedule + claim, in that order. Pure. What it is not: the steps after the claim (core/itinerary.py).
A VM with a Critical finding is held, not failed: a commit can mend it, and the other VMs of its plan go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.core import pacing, planchecks, story, warming
from reconciler.core import runs as runs_
from reconciler.core.actions import VmKey
from reconciler.core.desired import Desired, PlanSpec, PlanVm
from reconciler.core.examine import Examination, Ground, examine, want_power
from reconciler.core.findings import Finding, critical
from reconciler.core.inventory import SourceVm
from reconciler.core.itinerary import Phase
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Milestone, Mode, ObjectRef, Power, Result, VmRef
from reconciler.core.record import Category, Claim, Condition, IntentKind, RunRecord, VmRecord
from reconciler.core.runs import slug_of
from reconciler.core.schedule import Load, Past, Place, Queue
from reconciler.core.schedule import admit as schedule
from reconciler.core.view import Observed


@dataclass(frozen=True, slots=True)
class Asking:
    """`since`: the run began, the last round ended, or the cutover is due. Who has waited longest goes first in its plan."""

    since: datetime
    load: Load


def admit(
    runs: Mapping[ObjectRef, RunRecord],
    vms: dict[VmKey, VmRecord],
    claims: dict[tuple[str, str], Claim],
    desired: Desired,
    observed: Observed,
    indexes: Mapping[ObjectRef, SiteIndex],
    now: datetime,
) -> Mapping[VmKey, str]:
    """Begins what may begin. Returns the warm VMs between two rounds that may not go on right now, and why."""
    waiting = _returning(runs, vms, desired, indexes, now)
    resting = {a.load.key for a in waiting}
    ready: dict[VmKey, tuple[Ground, PlanVm, Examination]] = {}
    for run in runs.values():
        if run.result is not None or run.gone_since is not None:
            continue
        pending = [s for s in run.vms if vms[(run.run, s)].frozen is None and vms[(run.run, s)].result is None]
        if not pending:
            continue
        plan = desired.plans.get(run.plan)
        ground = planchecks.ground(desired, observed, indexes, plan) if plan else None
        if plan is None or ground is None:
            _unseen(vms, desired, observed, plan, run, pending, now)
            continue
        _look(vms, claims, ground, run, pending, waiting, ready, desired.complete, now)
    waiting.sort(key=lambda a: (not a.load.urgent, a.since))  # stable: plan order where they have waited alike
    loads = [a.load for a in waiting]
    admitted, refused = schedule(_running(vms, indexes), loads, desired.limits.max_vm_inflight, _past(vms, loads, indexes))
    for key in admitted:
        if key in resting:
            continue
        ground, entry, result = ready[key]
        if taken := _claimed(result, ground, claims, vms[key]):  # by another run, in this very pass
            vms[key] = _blocked(vms[key], taken, now)
        else:
            _begin(vms, claims, key, ground, entry, result, now)
    for key, why in refused.items():
        if key in resting:
            continue
        record = vms[key]
        pending_condition = Condition("Pending", True, Category.ADVISORY, "Started", why)
        conditions = story.carry_times([*_conditions(ready[key][2]), pending_condition], record.conditions, now)
        vms[key] = replace(record, message=why, conditions=conditions)
    held = {r.key: "it is not its turn yet" for r in vms.values() if _at_rest(r)}
    return {**{k: why for k, why in held.items() if k not in admitted}, **{k: why for k, why in refused.items() if k in resting}}


def _returning(
    runs: Mapping[ObjectRef, RunRecord],
    vms: Mapping[VmKey, VmRecord],
    desired: Desired,
    indexes: Mapping[ObjectRef, SiteIndex],
    now: datetime,
) -> list[Asking]:
    """Warm VMs that ask for a slot again. A cutover that is due goes before all rounds and first copies, of other plans too."""
    waiting: list[Asking] = []
    for run in runs.values():
        if run.result is not None or run.gone_since is not None or run.mode is not Mode.WARM:
            continue
        for record in (vms[(run.run, s)] for s in run.vms):
            if not _at_rest(record) or any(c.category is Category.CRITICAL for c in record.conditions):
                continue
            cutover_at, ended = runs_.cutover_of(run, record, desired), record.rounds[-1].ended
            if cutover_at is not None and cutover_at <= now:
                waiting.append(Asking(cutover_at, _load(record, indexes, urgent=True)))
            elif ended is not None and _wants_round(record, desired, indexes, now):
                waiting.append(Asking(ended, _load(record, indexes)))
    return waiting


def _at_rest(record: VmRecord) -> bool:
    return record.result is None and not record.unwinding and warming.rests(record)


def _wants_round(record: VmRecord, desired: Desired, indexes: Mapping[ObjectRef, SiteIndex], now: datetime) -> bool:
    """One that cannot begin, because of somebody's snapshot, must not take the turn of one that can."""
    vm = _source_vm(record, indexes)
    obstructed = vm is not None and record.frozen is not None and warming.in_the_way(record.frozen, vm.snapshots)
    return not obstructed and pacing.wants_round(record, desired.limits.precopy_interval_s, now)


def _source_vm(record: VmRecord, indexes: Mapping[ObjectRef, SiteIndex]) -> SourceVm | None:
    index = indexes.get(record.source.provider) if record.source else None
    return index.by_uuid(record.source.uuid) if index and record.source else None


def _place(record: VmRecord, indexes: Mapping[ObjectRef, SiteIndex]) -> Place:
    vm = _source_vm(record, indexes)
    return (record.source.site_uuid if record.source else "", vm.host_id if vm else "")


def _load(record: VmRecord, indexes: Mapping[ObjectRef, SiteIndex], *, urgent: bool = False) -> Load:
    """The cost of a VM is the number of its disks not yet copied; of a warm one in a round or its cutover, all."""
    assert record.frozen is not None
    cost = len(record.frozen.disks) - (0 if record.rounds else sum(d.marked for d in record.disks))
    return Load(record.key, record.plan, _place(record, indexes), cost, urgent)


def _past(vms: Mapping[VmKey, VmRecord], asking: list[Load], indexes: Mapping[ObjectRef, SiteIndex]) -> dict[Queue, Past]:
    """What the plans that ask got so far on each host: slots for first copies, rounds and cutovers."""
    plans = {load.plan for load in asking}
    past: dict[Queue, Past] = {}
    for record in vms.values() if plans else ():
        if record.plan in plans and record.started is not None:
            queue = (record.plan, _place(record, indexes))
            before, count = past.get(queue, (record.started, 0))
            offs = [i.declared_at for i in record.intents if i.kind is IntentKind.POWER_OFF_SOURCE]
            last = max([before, record.started, *(r.started for r in record.rounds[-1:]), *offs])
            past[queue] = (last, count + 1 + record.rounds_forgotten + len(record.rounds) + len(offs))
    return past


def _unseen(
    vms: dict[VmKey, VmRecord],
    desired: Desired,
    observed: Observed,
    plan: PlanSpec | None,
    run: RunRecord,
    pending: list[str],
    now: datetime,
) -> None:
    found = planchecks.plan_findings(desired, observed, plan).findings if plan else ()
    why = next((f.message for f in found if f.category is Category.CRITICAL), "the plan or a site cannot be read right now")
    for slug in pending:
        record = vms[(run.run, slug)]
        conditions = story.carry_times([Condition("Retrying", True, Category.WARN, "NotReady", why)], record.conditions, now)
        vms[record.key] = replace(record, message=why, conditions=conditions)


def _look(
    vms: dict[VmKey, VmRecord],
    claims: Mapping[tuple[str, str], Claim],
    ground: Ground,
    run: RunRecord,
    pending: list[str],
    waiting: list[Asking],
    ready: dict[VmKey, tuple[Ground, PlanVm, Examination]],
    whole: bool,
    now: datetime,
) -> None:
    entries = {slug_of(ground.plan, vm.ref): vm for vm in ground.plan.vms}
    others = (vms[(run.run, slug)] for slug in run.vms)
    names = {r.frozen.name: r.source.uuid for r in others if r.frozen and r.source}
    for slug in pending:
        record = vms[(run.run, slug)]
        entry = entries.get(slug)
        if entry is None:
            vms[record.key] = _left(record, run, now) if whole else record  # in a tree with errors an absent entry means nothing
            continue
        result = examine(ground, entry, names)
        findings = (*result.findings, *_claimed(result, ground, claims, record))
        result = replace(
            result, findings=findings, frozen=None if any(f.category is Category.CRITICAL for f in findings) else result.frozen
        )
        if result.frozen is None or result.source is None:
            vms[record.key] = _blocked(record, findings, now)
            continue
        names[result.frozen.name] = result.source.uuid
        site = ground.index.inventory.site.uuid
        load = Load(record.key, run.plan, (site, result.source.host_id), len(result.frozen.disks))
        waiting.append(Asking(run.started, load))
        ready[record.key] = (ground, entry, result)


def _left(record: VmRecord, run: RunRecord, now: datetime) -> VmRecord:
    """Forklift: a VM that left the plan before it began is cancelled, with reason Modified. A corrected entry is the next Migration's."""
    text = f"{record.wanted} left Plan {run.plan} before it began; an entry that was corrected is moved by the next Migration"
    final = Condition("Canceled", True, Category.ADVISORY, "Modified", text, durable=True)
    ended = story.end(record, Result.CANCELED, now)
    return replace(ended, message=text, conditions=story.carry_times([final], (), now))


def _claimed(result: Examination, ground: Ground, claims: Mapping[tuple[str, str], Claim], record: VmRecord) -> tuple[Finding, ...]:
    """Safety 6: one run owns a source VM, whatever plan or Provider name it comes by."""
    if result.source is None:
        return ()
    claim = claims.get((ground.index.inventory.site.uuid, result.source.uuid))
    if claim is None or claim.released is not None or (claim.run, claim.slug) == record.key:
        return ()
    how = "was migrated by" if claim.forever else "belongs to"
    text = f"{result.source.name} {how} run {claim.run}; a source VM is migrated once and by one run at a time"
    return (critical("VMClaimed", "NotUnique", text, "remove it from this plan, or end that run"),)


def _conditions(result: Examination) -> list[Condition]:
    return [Condition(f.type, True, f.category, f.reason, f.message, f.suggestion) for f in result.findings]


def _blocked(record: VmRecord, findings: tuple[Finding, ...], now: datetime) -> VmRecord:
    conditions = [Condition(f.type, True, f.category, f.reason, f.message, f.suggestion) for f in findings]
    worst = next((f for f in findings if f.category is Category.CRITICAL), findings[0])
    message = f"{worst.message}; {worst.suggestion}" if worst.suggestion else worst.message
    return replace(record, message=message, conditions=story.carry_times(conditions, record.conditions, now))


def _running(vms: Mapping[VmKey, VmRecord], indexes: Mapping[ObjectRef, SiteIndex]) -> list[Load]:
    """VMs that occupy a slot: claimed, before hand-over, not giving back, not held, and not resting between two rounds."""
    loads = []
    for record in vms.values():
        if record.frozen is None or record.source is None or record.result is not None or record.unwinding:
            continue
        if record.milestone.order >= Milestone.HANDED_OVER.order or any(c.category is Category.CRITICAL for c in record.conditions):
            continue
        if not warming.rests(record):
            loads.append(_load(record, indexes))
    return loads


def _begin(
    vms: dict[VmKey, VmRecord],
    claims: dict[tuple[str, str], Claim],
    key: VmKey,
    ground: Ground,
    entry: PlanVm,
    result: Examination,
    now: datetime,
) -> None:
    """Claim and freeze, in one commit. "Was on" belongs to the claim and is inherited while the last power-off was ours (safety 24)."""
    source, frozen = result.source, result.frozen
    assert source is not None and frozen is not None and ground.plan.source is not None
    site = ground.index.inventory.site.uuid
    old = claims.get((site, source.uuid))
    inherited = old is not None and old.powered_off_by_us and source.power is not Power.ON
    was_on = source.power is Power.ON or (inherited and old is not None and old.was_on)
    record = vms[key]
    ref = VmRef(ground.plan.source, site, source.id, source.uuid, source.name)
    claims[(site, source.uuid)] = Claim(
        site,
        source.uuid,
        source.name,
        record.run,
        record.slug,
        now,
        was_on,
        powered_off_by_us=inherited,
        reserved=old.reserved if old is not None else "",
    )
    record = replace(
        record,
        id=source.id,
        name=source.name,
        new_name=frozen.name if frozen.name != source.name else "",
        started=now,
        restore_power_state=Power.ON if was_on else Power.OFF,
        source=ref,
        frozen=replace(frozen, want_power=want_power(entry, was_on)),
        conditions=story.carry_times([c for c in _conditions(result) if c.category is not Category.CRITICAL], record.conditions, now),
        message="claimed",
    )
    vms[key] = story.enter(record, Phase.CLAIM, now)
