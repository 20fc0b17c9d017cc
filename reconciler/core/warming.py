"""Warm runs: rounds that copy a snapshot while the guest runs, and the cutover that ends them.

What it is: pure functions View -> Move for the rows between the reservation and the power-off, and for the final copy. A round is written
down before its snapshot is made, so that it is found again, and dropped, wherever we die. What it is not: the copy inside a round
(core/copying.py).

A round:   begin -> our snapshot -> its change ids -> copy everything, or what changed since the round before -> the snapshot and its
           chain are looked at once more -> marks -> the snapshot goes at once -> end. None of ours between rounds, never two.
A cutover: honoured in the middle of a round too. What the first copy has proven by then is kept as a partial mark, if its snapshot
           still stands; of any other round nothing counts, because the next copy covers all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from reconciler.core import pacing, secondread
from reconciler.core.actions import DropCopy, DropSnapshot, EnableTracking, EnsureSnapshot, ProveOff, PutMarks
from reconciler.core.copying import STOPPING, abandon, broken_snapshot, last_words, next_move, path_of
from reconciler.core.datapath import DATASTORE, EXPORT
from reconciler.core.inventory import SourceSnapshot, SourceVm
from reconciler.core.model import Absent, Known, Mark, MarkState, Milestone, Power
from reconciler.core.moves import Do, Hold, Move, Note, Wait, changed_disks, disturbed, out_of_sight, ref, undisturbed
from reconciler.core.record import FrozenVm, IntentKind, RoundRecord, VmRecord
from reconciler.core.target import Volume
from reconciler.core.view import View

NO_CHANGE_IDS = "the snapshot tells no change id for some disk"
MAX_SKEW_S = 60.0  # safety 19
KEPT_ROUNDS = 20  # older ones are history, which git has


# ---- change tracking ------------------------------------------------------------------------------------------------------------------


def tracked(v: View) -> bool:
    """The VM and each disk. Not asked in the middle of a round, which ends first, nor in a cutover, which can do without."""
    if v.round is not None or latched(v.record) or not isinstance(v.source, Known):
        return v.round is not None or latched(v.record)
    vm = v.source.value
    ours = {d.uuid for d in v.frozen.disks}
    return vm.change_tracking and all(d.change_tracking for d in vm.disks if d.uuid in ours)


def enable_tracking(v: View) -> Move:
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    if not v.frozen.enable_tracking:
        return Hold(
            "VMMissingChangedBlockTracking",
            "MissingChangedBlockTracking",
            f"Changed Block Tracking of {ref(v).name} is off, on the VM or on a disk; switch it on, or cancel this VM",
        )
    if v.foreign_snapshots:
        return Hold("VMHasSnapshots", "NotValid", _foreign_words(v, "Changed Block Tracking cannot be switched on"))
    return Do(
        EnableTracking(v.key, ref(v).provider, ref(v)), "Changed Block Tracking is switched on; the first snapshot shows whether it counts"
    )


def _untracked(v: View) -> Hold | None:
    """Tracking counts from the first stun on, which a snapshot is; where two snapshots in turn tell no change id, it does not."""
    ended = [r for r in v.record.rounds if r.ended is not None][-2:]
    if len(ended) < 2 or any(r.abandoned != NO_CHANGE_IDS for r in ended):
        return None
    return Hold(
        "VMMissingChangedBlockTracking",
        "MissingChangedBlockTracking",
        f"two snapshots of {ref(v).name} told no change ids though Changed Block Tracking is on; "
        "power the VM off and on once, then cancel this VM and start another Migration",
    )


# ---- cutover --------------------------------------------------------------------------------------------------------------------------


def latched(record: VmRecord) -> bool:
    """Once the power-off is declared, edits of the cutover are ignored."""
    return any(i.kind is IntentKind.POWER_OFF_SOURCE and not i.void for i in record.intents)


def wants_cutover(record: VmRecord, cutover_at: datetime | None, now: datetime) -> bool:
    return latched(record) or (cutover_at is not None and cutover_at <= now)


def _cutover_held(v: View) -> str:
    """Why a cutover that is due does not begin; "" when it may, or has begun."""
    if latched(v.record):
        return ""
    if abs(v.pace.skew_s) > MAX_SKEW_S:
        return f"the cutover waits: our clock and that of {ref(v).provider} differ by {v.pace.skew_s:.0f} s; set the clocks right"
    return f"the cutover waits: {v.pace.refused}" if v.pace.refused else ""


def _cutover_due(v: View) -> bool:
    return wants_cutover(v.record, v.pace.cutover_at, v.now) and not _cutover_held(v)


def precopied(v: View) -> bool:
    """The cutover is due, and nothing of ours is left on the source or at work."""
    settled = v.round is None and not v.jobs and not v.unfenced
    return _cutover_due(v) and settled and isinstance(v.source, Known) and no_snapshot(v)


# ---- rounds ---------------------------------------------------------------------------------------------------------------------------


def precopy(v: View) -> Move:
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    assert isinstance(v.source, Known)
    vm = v.source.value
    if v.record.merging and v.foreign_snapshots:
        return Note(replace(v.record, merging=False))
    r, ours = v.round, v.our_snapshots
    mine = next((s for s in ours if r is not None and s.key == v.snapshot_key(r.number)), None)
    if not undisturbed(v):
        move = disturbed(v)  # what holds us may last for days, and no snapshot of ours should
        return interrupt(v, mine, move.message) if isinstance(move, Hold) and r is not None and not v.unfenced else move
    if stray := [s for s in ours if s is not mine]:
        return _drop_snapshot(v, stray[0])
    if not ours and _left_behind(v, vm):
        return stop_copy(v) if v.jobs or v.unfenced else _consolidate(v)
    held = _untracked(v) or changed_disks(v, vm)
    if vm.power is Power.SUSPENDED:
        held = Hold("SourceChanged", "Suspended", f"{vm.name} is suspended; resume it or power it off, then this run goes on")
    if r is None:
        return held if held is not None and not v.jobs and not _in_the_way(v) else _between(v)
    if held is not None:
        return interrupt(v, mine, held.message)
    if _cutover_due(v) and _may_interrupt(v):
        return interrupt(v, mine, "the cutover is due")
    if r.snapshot and mine is not None and mine.id != r.snapshot:
        return interrupt(v, mine, "its snapshot is another one than it began with")
    if not r.snapshot:
        return _snapshot(v, r, mine)
    if v.all_marked:
        return _finish(v, r, mine)
    if mine is None:
        return interrupt(v, None, "its snapshot was removed by somebody else while it was read")
    return next_move(v)


def _between(v: View) -> Move:
    """No round is under way: clean up, wait for the interval or the cutover, begin the next one."""
    if v.jobs or v.unfenced:
        return stop_copy(v)
    assert isinstance(v.source, Known)
    if wants_cutover(v.record, v.pace.cutover_at, v.now):
        return Wait(_cutover_held(v) or "the cutover begins", until=v.now + timedelta(seconds=5))
    cutover = f"; cutover at {v.pace.cutover_at:%Y-%m-%d %H:%M:%S} UTC" if v.pace.cutover_at else "; no cutover is set"
    if whole(v) and v.record.base_unreadable:
        text = f"copied once; the rest is read at the cutover, because the base of a running VM cannot be read here{cutover}"
        return Wait(text, until=v.pace.cutover_at)
    if _in_the_way(v):
        return Wait(_foreign_words(v, "the next round waits until it is gone"))
    due, why = pacing.next_round(v.record, v.pace.interval_s, v.now)
    if due > v.now:
        if v.record.next_round_at != due:  # the intervals are live
            return Note(replace(v.record, next_round_at=due))
        text = f"next round at {due:%Y-%m-%d %H:%M:%S} UTC ({why}){cutover}"
        return Wait(text, until=min(due, v.pace.cutover_at) if v.pace.cutover_at else due)
    if v.pace.refused:
        return Wait(f"the next round waits: {v.pace.refused}")
    return begin_round(v, final=False)


def begin_round(v: View, *, final: bool) -> Note:
    """Numbers only grow, over runs too: a mark of an earlier round is never taken for one of this."""
    seen = (v.volume(d) for d in v.frozen.disks)
    marks = [x.mark.round for x in seen if x is not None and x.mark is not None]
    number = max([r.number for r in v.record.rounds] + marks, default=0) + 1
    eighth = None if final else secondread.next_eighth(v.record)
    rounds = (*v.record.rounds, RoundRecord(number, v.now, final=final, eighth=eighth))
    clean = isinstance(v.source, Known) and not v.source.value.consolidation_needed
    merging = v.record.merging if final else clean
    forgotten = v.record.rounds_forgotten + sum(pacing.counts(r) for r in rounds[:-KEPT_ROUNDS])
    kept = rounds[-KEPT_ROUNDS:]
    return Note(replace(v.record, rounds=kept, rounds_forgotten=forgotten, merging=merging, next_round_at=None, retry=None))


def _snapshot(v: View, r: RoundRecord, mine: SourceSnapshot | None) -> Move:
    """Make it, then learn its change ids from a direct read. A disk without one is not tracked, whatever the settings say."""
    if mine is None:
        if _in_the_way(v):
            return interrupt(v, None, "another tool made a snapshot first")
        act = EnsureSnapshot(v.key, ref(v).provider, ref(v), v.snapshot_key(r.number))
        return Do(act, f"round {r.number}: the snapshot is made", ("snapshot",))
    proof = v.proof
    seen = next((s for s in proof.snapshots if s.key == mine.key), None) if proof is not None else None
    if proof is None or seen is None:
        return Do(ProveOff(v.key, ref(v).provider, ref(v)), f"round {r.number}: the change ids of the snapshot are read")
    ids = {d.uuid: d.change_id for d in seen.disks if d.change_id}
    if any(d.uuid not in ids for d in v.frozen.disks):
        return Note(abandon(v, NO_CHANGE_IDS))  # written down first: once the snapshot is gone nothing tells why, and another would be made
    known = replace(r, snapshot=seen.id, change_ids={u: i for u, i in ids.items() if i}, epoch=proof.epoch or "")
    return Note(replace(v.record, rounds=(*v.record.rounds[:-1], known)))


def _finish(v: View, r: RoundRecord, mine: SourceSnapshot | None) -> Move:
    if v.jobs or v.unfenced:
        return stop_copy(v)
    if mine is not None:
        return _drop_snapshot(v, mine)
    done = replace(r, ended=v.now)
    record = replace(v.record, rounds=(*v.record.rounds[:-1], done))
    return Note(replace(record, next_round_at=pacing.next_round(record, v.pace.interval_s, v.now)[0]))


def rests(record: VmRecord) -> bool:
    """Between rounds: claimed, reserved, and neither copying nor in its cutover. Such a VM occupies no slot."""
    ended = record.rounds and record.rounds[-1].ended is not None and not record.rounds[-1].final
    return bool(ended) and record.milestone is Milestone.NONE and not latched(record)


def whole(v: View) -> bool:
    """Each disk was copied once, completely: what is left is what changed since."""
    bases = [v.base(d, x) for d, x in v.volumes]
    return len(bases) == len(v.frozen.disks) and all(
        b is not None and b.rest_from == d.capacity_bytes for b, d in zip(bases, v.frozen.disks, strict=True)
    )


def without_precopy(record: VmRecord) -> str:
    return (
        f"the disks of {record.name} cannot be read while it runs ({record.base_unreadable}): they are copied once, by an export of the "
        "first snapshot, and what changes later is read at the cutover, with the guest off. Its downtime grows with the time until then"
    )


# ---- ending a round early -------------------------------------------------------------------------------------------------------------


def _may_interrupt(v: View) -> bool:
    """A stream that is cut off leaves nothing to keep: the whole disk would have to be read again, with the guest off."""
    return not any(path_of(v, d) == EXPORT and v.base(d, x) is None for d, x in v.volumes) or not v.jobs


def interrupt(v: View, mine: SourceSnapshot | None, why: str) -> Move:
    """Stop the reader, keep what it has proven, and only then let go of the snapshot that it read (safety 14)."""
    if v.round is not None and v.round.snapshot and (last := last_words(v)) is not None:
        return last
    if v.jobs or v.unfenced:
        return stop_copy(v)
    if mine is not None:
        if (kept := keep_partial(v)) is not None:
            return kept
        return _drop_snapshot(v, mine)
    return _give_up(v, why)


def _give_up(v: View, why: str) -> Move:
    """A snapshot that was asked for and never seen may be in the making: then the site is busy with it, and it comes, and goes first."""
    if _perhaps_made(v) and not (v.outcome is not None and v.outcome.action == "DropSnapshot" and v.outcome.error is None):
        act = DropSnapshot(v.key, ref(v).provider, ref(v), v.snapshot_key(v.number))
        return Do(act, "it is made sure that no snapshot of ours is on its way", ("snapshot",))
    return Note(abandon(v, why))


def _perhaps_made(v: View) -> bool:
    return v.round is not None and not v.round.final and not v.round.snapshot


def stop_copy(v: View) -> Move:
    for job in v.jobs:
        if not job.deleting:
            act = DropCopy(v.key, v.frozen.destination, job.namespace, job.name, v.owner)
            return Do(act, f"importer Job {job.name} goes", (STOPPING,))
    return Wait(f"WriterNotFenced: {'; '.join(v.unfenced)}" if v.unfenced else "the importer Job is ending")


def partial(v: View) -> tuple[tuple[Volume, Mark], ...]:
    """What an interrupted first copy has proven, as marks to be made: [0, watermark) as of the round's snapshot."""
    r = v.round
    if r is None or r.final or not r.snapshot:
        return ()
    found = []
    for disk, volume in v.volumes:
        proven = v.watermark(volume)
        if proven is None or proven.proven_bytes == 0 or volume.mark is not None or path_of(v, disk) == EXPORT:
            continue
        change_id = r.change_ids.get(disk.uuid)
        if change_id is not None:
            mark = Mark(disk.uuid, volume.uid, r.number, r.epoch, change_id, MarkState.CLEAN, proven.proven_bytes, v.reserved)
            found.append((volume, mark))
    return tuple(found)


def keep_partial(v: View) -> Move | None:
    marks = partial(v)
    if not marks:
        return None
    if v.proof is None:
        return Do(ProveOff(v.key, ref(v).provider, ref(v)), "the snapshot is looked at once more, before what was read of it is marked")
    if broken_snapshot(v, v.proof) is not None:
        return None
    kept = sum(m.proven_bytes or 0 for _, m in marks) >> 20
    return Do(PutMarks(v.key, v.frozen.destination, marks, v.owner), f"{kept} MiB of the interrupted first copy are kept")


# ---- snapshots of ours ----------------------------------------------------------------------------------------------------------------


def no_snapshot(v: View) -> bool:
    """None of ours, nor one on its way, and its files merged. A source that is gone for good has none."""
    match v.source:
        case Known(vm):
            return not v.our_snapshots and not _left_behind(v, vm) and not _perhaps_made(v)
        case Absent():
            return True
        case _:
            return not v.record.rounds


def drop_snapshots(v: View) -> Move:
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    if v.record.unwinding and (kept := keep_partial(v)) is not None:
        return kept
    if v.our_snapshots:
        return _drop_snapshot(v, v.our_snapshots[0])
    return _give_up(v, "its run was undone") if _perhaps_made(v) else _consolidate(v)


def _left_behind(v: View, vm: SourceVm) -> bool:
    """A removal of ours may leave files. Those that were there before, or may come from a snapshot of others, are not ours to merge."""
    return vm.consolidation_needed and v.record.merging and not v.foreign_snapshots


def _consolidate(v: View) -> Do:
    key = v.snapshot_key(v.record.rounds[-1].number)
    return Do(DropSnapshot(v.key, ref(v).provider, ref(v), key, merge=True), "what our snapshot left behind is consolidated")


def _drop_snapshot(v: View, snapshot: SourceSnapshot) -> Move:
    """Never before its reader is proven dead."""
    if v.jobs or v.unfenced:
        return stop_copy(v)
    assert snapshot.key is not None
    return Do(DropSnapshot(v.key, ref(v).provider, ref(v), snapshot.key), f"our snapshot {snapshot.name} goes", ("snapshot",))


def in_the_way(frozen: FrozenVm, snapshots: Sequence[SourceSnapshot]) -> bool:
    """Those that are not of the round: a chain below ours is no flat file; VDDK reads any."""
    return bool(snapshots) and any(d.path == DATASTORE for d in frozen.disks)


def _in_the_way(v: View) -> bool:
    return in_the_way(v.frozen, v.foreign_snapshots)


def _foreign_words(v: View, what: str) -> str:
    names = ", ".join(s.name for s in v.foreign_snapshots[:3])
    return f"{ref(v).name} has a snapshot of somebody else ({names}); {what}"


# ---- behind the cutover ---------------------------------------------------------------------------------------------------------------


def final_copy(v: View) -> Move:
    """The source is off: what changed since the last mark, read from the disks themselves."""
    if v.round is None:
        return begin_round(v, final=True)
    return next_move(v)
