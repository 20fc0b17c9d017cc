"""Bookkeeping of a VM record: phases with their times, intents, pipeline, disk results. Turns "what is so" into "what is written".

What it is: pure functions VmRecord -> VmRecord. What it is not: a decision; core/decide.py calls these after a move was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from reconciler.core.copying import result_of
from reconciler.core.itinerary import Phase, Stage
from reconciler.core.model import Milestone, Result
from reconciler.core.record import (
    Condition,
    DiskRecord,
    Intent,
    IntentKind,
    PhaseTime,
    Progress,
    StepError,
    StepRecord,
    TaskRecord,
    VmRecord,
)
from reconciler.core.view import View

MIB = 1 << 20

STAGE_OF: dict[str, Stage] = {
    **dict.fromkeys((p.value for p in Phase), Stage.INITIALIZE),
    Phase.COPY_DISKS.value: Stage.DISK_TRANSFER,
    **dict.fromkeys((p.value for p in (Phase.HAND_OVER, Phase.START_TARGET, Phase.RELEASE)), Stage.VM_CREATION),
    **dict.fromkeys(
        (p.value for p in (Phase.STOP_WRITERS, Phase.DIRTY_MARKS, Phase.GIVE_BACK, Phase.WATCH_GUEST, Phase.DELETE_TARGET)), Stage.UNWIND
    ),
}

DESCRIPTIONS = {
    Stage.INITIALIZE: "Reserve the target, then power off the source",
    Stage.DISK_TRANSFER: "Transfer disks",
    Stage.VM_CREATION: "Hand over to the target VM",
    Stage.UNWIND: "Give back what was taken",
}


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


def end(record: VmRecord, result: Result, now: datetime) -> VmRecord:
    return replace(enter(record, Phase.COMPLETED, now), result=result, completed=now, unwinding=False)


def with_disks(record: VmRecord, view: View) -> VmRecord:
    """Disk results and watermarks as far as they are known now; results stay when the Job that told them is gone."""
    old = {d.uuid: d for d in record.disks}
    results = {d.uuid: d for job in view.jobs if (r := result_of(job)) and job.round_key == view.round_key for d in r.disks}
    progress = {p.uuid: p for p in view.progress}
    disks = []
    for disk in view.frozen.disks:
        item = replace(old.get(disk.uuid, DiskRecord(disk.uuid)), marked=view.marked(disk))
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
        disks.append(item)
    return replace(record, disks=tuple(disks))


def with_pipeline(record: VmRecord, done_bytes: dict[str, int]) -> VmRecord:
    """Forklift's pipeline, derived from the phases. `done_bytes`: disk uuid -> bytes dealt with so far."""
    stages = [Stage.INITIALIZE, Stage.DISK_TRANSFER, Stage.VM_CREATION]
    if record.unwinding or any(STAGE_OF.get(p.phase) is Stage.UNWIND for p in record.phases):
        stages.append(Stage.UNWIND)
    return replace(record, pipeline=tuple(_step(record, s, done_bytes) for s in stages))


def _step(record: VmRecord, stage: Stage, done_bytes: dict[str, int]) -> StepRecord:
    times = [p for p in record.phases if STAGE_OF.get(p.phase) is stage]
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
    if record.error and STAGE_OF.get(record.error.phase) is stage:
        step = replace(step, phase="Completed", error=StepError(record.error.phase, (record.error.message,)))
    if stage is Stage.DISK_TRANSFER and record.frozen is not None:
        tasks = tuple(_task(record, step, d.uuid, d.label, d.capacity_bytes, done_bytes) for d in record.frozen.disks)
        total = Progress(sum(t.progress.completed for t in tasks), sum(t.progress.total for t in tasks))
        step = replace(step, annotations={"unit": "MB"}, tasks=tasks, progress=total)
    return step


def _reached_after(record: VmRecord, stage: Stage) -> bool:
    """A stage is complete when a milestone lies behind it, or the VM has ended."""
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
