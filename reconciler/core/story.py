"""Bookkeeping of a VM record: phases with their times, intents, pipeline, disk results. Turns "what is so" into "what is written".

What it is: pure functions VmRecord -> VmRecord. What it is not: a decision; core/decide.py calls these after a move was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from reconciler.core import retry, secondread
from reconciler.core.copying import result_of
from reconciler.core.copyspec import DiskResult
from reconciler.core.itinerary import Phase, Stage
from reconciler.core.model import Known, Milestone, Mode, Power, Result
from reconciler.core.record import (
    Condition,
    DiskRecord,
    FrozenDisk,
    Instant,
    Intent,
    IntentKind,
    Outage,
    PhaseTime,
    Progress,
    StepError,
    StepRecord,
    TaskRecord,
    VmRecord,
    instant,
)
from reconciler.core.view import View

MIB = 1 << 20

_UNWINDING = (Phase.STOP_WRITERS, Phase.DROP_SNAPSHOTS, Phase.DIRTY_MARKS, Phase.GIVE_BACK, Phase.WATCH_GUEST, Phase.DELETE_TARGET)

STAGE_OF: dict[str, Stage] = {
    **dict.fromkeys((p.value for p in Phase), Stage.INITIALIZE),
    **dict.fromkeys((p.value for p in (Phase.COPY_DISKS, Phase.PRECOPY)), Stage.DISK_TRANSFER),
    **dict.fromkeys((p.value for p in (Phase.CONSOLIDATE, Phase.COPY_CHANGES)), Stage.CUTOVER),
    **dict.fromkeys((p.value for p in (Phase.HAND_OVER, Phase.START_TARGET, Phase.RELEASE)), Stage.VM_CREATION),
    **dict.fromkeys((p.value for p in _UNWINDING), Stage.UNWIND),
}
# A warm VM is powered off at its cutover, a cold one before its first byte.
_WARM_STAGE_OF = STAGE_OF | dict.fromkeys((p.value for p in (Phase.POWER_OFF, Phase.PROVE_OFF)), Stage.CUTOVER)

DESCRIPTIONS = {
    Stage.INITIALIZE: "Reserve the target",
    Stage.DISK_TRANSFER: "Transfer disks",
    Stage.CUTOVER: "Power off the source, transfer what changed last",
    Stage.VM_CREATION: "Hand over to the target VM",
    Stage.UNWIND: "Give back what was taken",
}


def stage_of(record: VmRecord, phase: str) -> Stage | None:
    return (_WARM_STAGE_OF if record.rounds else STAGE_OF).get(phase)


def enter(record: VmRecord, phase: Phase, now: datetime) -> VmRecord:
    """Close the running phase and open `phase`, unless it is the one that runs."""
    last = record.phases[-1] if record.phases else None
    if last and last.phase == phase.value and last.ended is None:
        return record
    closed = (*record.phases[:-1], replace(last, ended=last.ended or now)) if last else ()
    opened = () if phase is Phase.COMPLETED else (PhaseTime(phase.value, now),)
    return replace(record, phase=phase.value, phases=(*closed, *opened))


def declare(record: VmRecord, kind: IntentKind, now: datetime) -> VmRecord:
    """Add an open intent of this kind, unless there is one."""
    if any(i.kind is kind and i.open for i in record.intents):
        return record
    return replace(record, intents=(*record.intents, Intent(kind, now)))


def close(record: VmRecord, kind: IntentKind, now: datetime, void: str = "") -> VmRecord:
    """Close the open intent of this kind: done, or void with the reason."""

    def ended(i: Intent) -> Intent:
        if i.kind is not kind or not i.open:
            return i
        return replace(i, void=void) if void else replace(i, done_at=now)

    return replace(record, intents=tuple(ended(i) for i in record.intents))


def accept(record: VmRecord, kind: IntentKind, now: datetime) -> VmRecord:
    """The open intent of this kind was taken by the site."""
    taken = (replace(i, accepted_at=now) if i.kind is kind and i.open and i.accepted_at is None else i for i in record.intents)
    return replace(record, intents=tuple(taken))


def with_outage(record: VmRecord, view: View) -> VmRecord:
    """A guest that went off since the look before, or is back. Behind hand-over only the target can bring it back."""
    known, handed_over = record.outage, record.milestone.order >= Milestone.HANDED_OVER.order
    lasts = known is not None and known.back_at is None
    if known is not None and lasts and (_target_on(view) if handed_over else view.source_power is Power.ON):
        return replace(record, outage=replace(known, back_at=instant(view.now)))
    if not lasts and not handed_over and record.was_on and view.source_power is Power.OFF:
        return replace(record, outage=Outage(_last_on(record, view)))
    return record


def _target_on(view: View) -> bool:
    """Its guest runs; that it was told to start is not enough."""
    return isinstance(view.target, Known) and (vm := view.our_target_vm) is not None and vm.power is Power.ON and vm.ready


def _last_on(record: VmRecord, view: View) -> Instant:
    """A power-off is declared only of a guest that was seen on in that pass."""
    asked = [i.declared_at for i in record.intents if i.kind is IntentKind.POWER_OFF_SOURCE and not i.void]
    known = [at for at in (view.on_at, *asked[-1:]) if at is not None]
    return instant(max(known, default=view.now))


def end(record: VmRecord, result: Result, now: datetime) -> VmRecord:
    return replace(enter(record, Phase.COMPLETED, now), result=result, completed=now, unwinding=False, timers={})


def with_disks(record: VmRecord, view: View) -> VmRecord:
    """Disk results and watermarks as far as they are known now; results stay when the Job that told them is gone."""
    old = {d.uuid: d for d in record.disks}
    results = {d.uuid: d for job in view.jobs if (r := result_of(job)) and job.round_key == view.round_key for d in r.disks}
    progress = {p.uuid: p for p in view.progress}
    disks = []
    for disk in view.frozen.disks:
        item = replace(old.get(disk.uuid, DiskRecord(disk.uuid)), marked=_complete(view, disk))
        if seen := progress.get(disk.uuid):
            item = replace(item, watermark_bytes=seen.watermark_bytes)
        if (done := results.get(disk.uuid)) and done.done:
            item = replace(
                item,
                watermark_bytes=disk.capacity_bytes,
                read_bytes=done.read_bytes,
                written_bytes=done.written_bytes,
                zeroed_bytes=done.zeroed_bytes,
                ranges=done.ranges,
                seconds=round(done.seconds, 3),
                reader=done.reader,
                readback=done.readback,
                crc32c=done.crc32c or "",
                sha256=done.sha256 or "",
            )
        item = replace(item, eighths=secondread.proven(view, disk, item, done, marked=item.marked))
        disks.append(item)
    return replace(_with_round(record, view, results, disks), disks=tuple(disks), retry=retry.of(view))


def _complete(view: View, disk: FrozenDisk) -> bool:
    """Copied as far as can be now; between two rounds: by the round before."""
    if view.mode is Mode.COLD or view.round is not None:
        return view.marked(disk)
    volume = view.our_volume(disk)
    base = view.base(disk, volume) if volume is not None else None
    return base is not None and base.rest_from == disk.capacity_bytes


def _with_round(record: VmRecord, view: View, results: Mapping[str, DiskResult], disks: Iterable[DiskRecord]) -> VmRecord:
    """What the round under way came to, in one Job or in several; a final round ends when all its disks are marked."""
    r = view.round
    if r is None or not results:
        return record
    earlier = [d for d in disks if d.marked and d.uuid not in results]
    told: list[DiskRecord | DiskResult] = [*earlier, *(d for d in results.values() if d.done)]
    now = replace(
        r,
        read_bytes=sum(d.read_bytes for d in told),
        written_bytes=sum(d.written_bytes for d in told),
        seconds=round(max((d.seconds for d in told), default=0.0), 3),
        ended=r.ended or (view.now if r.final and view.all_marked else None),
    )
    return replace(record, rounds=(*record.rounds[:-1], now))


def with_pipeline(record: VmRecord, done_bytes: dict[str, int]) -> VmRecord:
    """Forklift's pipeline, derived from the phases. `done_bytes`: disk uuid -> bytes dealt with so far."""
    stages = [Stage.INITIALIZE, Stage.DISK_TRANSFER, *([Stage.CUTOVER] if record.rounds else []), Stage.VM_CREATION]
    if record.unwinding or any(stage_of(record, p.phase) is Stage.UNWIND for p in record.phases):
        stages.append(Stage.UNWIND)
    return replace(record, pipeline=tuple(_step(record, s, done_bytes) for s in stages))


def _step(record: VmRecord, stage: Stage, done_bytes: dict[str, int]) -> StepRecord:
    times = [p for p in record.phases if stage_of(record, p.phase) is stage]
    running = any(p.ended is None for p in times)
    later = _reached_after(record, stage)
    phase = "Running" if running else "Completed" if times and later else "Pending"
    step = StepRecord(
        name=stage.value,
        description=DESCRIPTIONS[stage],
        phase=phase,
        progress=Progress(int(phase == "Completed"), 1),
        started=times[0].started if times else None,
        completed=times[-1].ended if phase == "Completed" else None,
    )
    if record.error and stage_of(record, record.error.phase) is stage:
        step = replace(step, phase="Completed", error=StepError(record.error.phase, (record.error.message,)))
    if stage is Stage.DISK_TRANSFER and record.frozen is not None:
        tasks = tuple(_task(record, step, d.uuid, d.label, d.capacity_bytes, done_bytes) for d in record.frozen.disks)
        total = Progress(sum(t.progress.completed for t in tasks), sum(t.progress.total for t in tasks))
        step = replace(step, annotations={"unit": "MB"}, tasks=tasks, progress=total)
    return step


def _reached_after(record: VmRecord, stage: Stage) -> bool:
    """A stage is complete when a milestone lies behind it, or the VM has ended; a warm one is reserved when its first round begins."""
    if record.rounds:
        if stage is Stage.INITIALIZE:
            return True
        behind = {Stage.DISK_TRANSFER: Milestone.CUTOVER, Stage.CUTOVER: Milestone.HANDED_OVER}.get(stage, Milestone.DONE)
    else:
        behind = {Stage.INITIALIZE: Milestone.CUTOVER, Stage.DISK_TRANSFER: Milestone.HANDED_OVER}.get(stage, Milestone.DONE)
    return record.milestone.order >= behind.order or record.result is not None


def _task(record: VmRecord, step: StepRecord, uuid: str, label: str, capacity: int, done_bytes: dict[str, int]) -> TaskRecord:
    item = next((d for d in record.disks if d.uuid == uuid), DiskRecord(uuid))
    done = capacity if item.marked else max(done_bytes.get(uuid, 0), item.watermark_bytes)
    complete = item.marked or (record.result is Result.SUCCEEDED)
    phase = "Completed" if complete else "Running" if step.phase == "Running" and done else "Pending"
    return TaskRecord(
        name=label,
        phase=phase,
        progress=Progress((capacity if complete else done) // MIB, capacity // MIB),
        annotations={"unit": "MB"},
        started=step.started,
    )


def carry_times(new: Iterable[Condition], old: tuple[Condition, ...], now: datetime) -> tuple[Condition, ...]:
    """Conditions with `lastTransitionTime`: kept while nothing else about the condition changed. Durable ones stay when not set again."""
    before = {c.type: c for c in old}
    fresh: dict[str, Condition] = {}
    for condition in new:
        was = before.get(condition.type)
        same = was is not None and replace(was, last_transition_time=None) == replace(condition, last_transition_time=None)
        fresh[condition.type] = replace(condition, last_transition_time=was.last_transition_time if same and was else now)
    for kept in old:
        if kept.durable and kept.type not in fresh:
            fresh[kept.type] = kept
    return tuple(fresh[k] for k in sorted(fresh))
