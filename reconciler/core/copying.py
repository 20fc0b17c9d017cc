"""One round's copy: one importer Job at a time for all disks of a VM, from the first byte to the marks. Cold runs have one round.

What it is: the pure decision over Jobs, marks and watermarks. What it is not: the Job itself (drivers/kubevirt), the bytes (mover), or
when a round begins and ends (core/warming.py).
Rules: no Job while another pod may still write (safety 4); a mark only after the worker's result, for exactly this epoch (safety 1);
a watermark counts only with its round key (safety 14).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.core import datapath, names, retry, secondread, vddk
from reconciler.core.actions import CopyDiskWish, DropCopy, EnsureCopy, ProveOff, PutMarks, PutWatermarks
from reconciler.core.copyspec import EXIT_DONE, EXIT_WRONG, CopyResult, parse_line
from reconciler.core.datapath import DATASTORE, EXPORT
from reconciler.core.inventory import SourceVm
from reconciler.core.model import MarkState, Power, Watermark
from reconciler.core.moves import Do, Fail, Move, Note, Refresh, Wait, disturbed, dying, out_of_sight, ref, source_changed, undisturbed
from reconciler.core.record import FrozenDisk, RoundRecord, VmRecord
from reconciler.core.target import Binder, CopyJob, Job, JobPhase, Volume, VolumeMode
from reconciler.core.view import View

LOCKED_S = 120.0  # how long a base that answers "busy" from the first byte on is taken for busy, and not for locked
_BUSY, _REFUSED = frozenset({"SourceBusy"}), frozenset({"SourceLocked", "SourceRefused", "SourceForbidden"})
STOPPING, LAST_WORDS_S = "stopping", 15.0  # observed time for which a copy that is to be stopped waits for its last watermarks to be kept
_MOVED = frozenset({"SourceNotFound", "SourceChanged", "ChainNotReadable"})  # the files are not where, or what, they were
WATERMARK_STEP_BYTES = 256 << 20  # a watermark is patched when it grew this much: what a killed worker may copy twice


def next_move(v: View) -> Move:
    if not _running_guest(v) and v.source_power in (Power.ON, Power.SUSPENDED):
        return source_changed(v)
    if not undisturbed(v):
        return disturbed(v)
    if (lost := dying(v)) is not None:
        return Fail("VolumeLost", f"{lost}; start another Migration")
    jobs = v.jobs
    job = jobs[-1] if jobs else None
    if job is None:
        return _start(v, attempt=v.record.attempt)
    if job.deleting:
        return Wait(f"Job {job.name} is ending", (_fails(v),))
    if job.round_key != v.round_key:
        return Do(_drop(v, job), "a Job of an earlier epoch is stopped", attempt=job.attempt + 1)
    match job.phase:
        case JobPhase.SUSPENDED:
            return _start(v, attempt=job.attempt)
        case JobPhase.SUCCEEDED:
            return _finished(v, job)
        case JobPhase.FAILED:
            return _failed(v, job)
        case JobPhase.PENDING | JobPhase.RUNNING:
            return _running(v, job)


def _running_guest(v: View) -> bool:
    """A pre-copy round reads a snapshot, so the guest may run."""
    return v.round is not None and not v.round.final


def _drop(v: View, job: Job) -> DropCopy:
    return DropCopy(v.key, v.frozen.destination, job.namespace, job.name, v.owner)


def _start(v: View, attempt: int) -> Move:
    if (unseen := out_of_sight(v)) is not None:
        return unseen
    if v.unfenced and not v.jobs:
        return Wait(f"WriterNotFenced: {'; '.join(v.unfenced)} may still write; nothing is started beside it")
    if not _running_guest(v):
        if (proof := v.proof) is not None and proof.power is Power.OFF and proof.epoch not in (None, v.record.epoch):
            return Refresh(proof.epoch or "", "the source ran before it was copied; what was copied before counts no more")
        if _source_moved_on(v):
            return Do(ProveOff(v.key, ref(v).provider, ref(v)), "the source is read again, because it ran since it was proven off")
    if (doubted := _doubted(v)) is not None:
        return doubted
    if (why := moved(v)) is not None:
        return Note(abandon(v, why))
    if (held := vddk.missing(v)) is not None:
        return held
    if (later := retry.pending(v)) is not None:
        return Wait(later.message, (_fails(v),), later.due)
    f = v.frozen
    todo = [(d, x) for d, x in v.volumes if not v.marked(d)]
    if len(v.volumes) != len(f.disks):
        return Fail("VolumeLost", "a target PVC of this VM is gone; start another Migration")
    job = CopyJob(
        namespace=f.namespace,
        name=names.job_name(v.record.run, v.record.slug, f"r{v.number}", attempt),
        volumes=tuple((d.uuid, d.pvc, x.volume_mode) for d, x in todo),
        placement=f.placement,
        owner=v.owner,
        round_key=v.round_key,
        attempt=attempt,
        wishes=v.pods,
        vddk_image=vddk.image_for(v),
    )
    wishes = tuple(_wish(v, d, x) for d, x in todo)
    resumed = sum(w.resume_bytes for w in wishes)
    how = f"; {resumed >> 20} MiB were proven before and are kept" if resumed else ""
    at = v.round.snapshot if v.round is not None and not v.round.final else None
    act = EnsureCopy(v.key, f.destination, ref(v), job, wishes, v.epoch, f.verify, f.bandwidth_bytes_per_s, at)
    if untrue := ", ".join(v.disbelieved):
        how = f"; VirtualMachine {f.name} was changed, perhaps started, since {untrue} was copied, so that counts no more"
    what = "what changed on " if wishes and all(w.since for w in wishes) else ""
    return Do(act, f"importer Job {job.name} copies {what}{len(todo)} disk(s){how}", (_fails(v),))


def _doubted(v: View) -> Note | None:
    """The platform forgot a change id, or may lie about it: the disk is read in full and compared."""
    seen, r = v.outcome, v.round
    if seen is None or seen.action != "EnsureCopy" or not seen.doubted or r is None:
        return None
    fresh = {uuid: why for uuid, why in seen.doubted if uuid not in r.doubts}
    if not fresh:
        return None
    return _doubt(v, r, fresh)


def _doubt(v: View, r: RoundRecord, why: Mapping[str, str]) -> Note:
    return Note(replace(v.record, rounds=(*v.record.rounds[:-1], replace(r, doubts={**r.doubts, **why}))))


def moved(v: View) -> str | None:
    """Why a round of a running guest cannot begin to read what its snapshot froze: the next one asks anew where the disks lie."""
    seen = v.outcome
    if not _running_guest(v) or seen is None or seen.action != "EnsureCopy" or seen.error is None or seen.error.reason not in _MOVED:
        return None
    return f"its files are not as they were ({seen.error.message})"


def _source_moved_on(v: View) -> bool:
    """The direct read before the copy found another epoch: somebody ran the source and stopped it again, unseen (safety 9)."""
    seen = v.outcome
    return seen is not None and seen.action == "EnsureCopy" and seen.error is not None and seen.error.reason == "SourceChanged"


def _wish(v: View, disk: FrozenDisk, volume: Volume) -> CopyDiskWish:
    """Without a watermark of this round all that the round is about is copied; old content that a mark vouched for is compared, which
    writes less. A stream can be compared with nothing."""
    path = path_of(v, disk)
    known, base = v.watermark(volume), v.base(disk, volume) if path != EXPORT else None
    if path == EXPORT and known and known.proven_bytes < disk.capacity_bytes:
        known = None  # a stream begins anew, or is all there
    check, check_copied = secondread.wanted(v, disk, path)
    return CopyDiskWish(
        disk_uuid=disk.uuid,
        label=disk.label,
        path=path,
        capacity_bytes=disk.capacity_bytes,
        block=volume.volume_mode is VolumeMode.BLOCK,
        resume_bytes=known.proven_bytes if known else 0,
        compare=volume.mark is not None and known is None and base is None and path != EXPORT,
        since=base.since if base else None,
        rest_from=base.rest_from if base else 0,
        check=check,
        check_copied=check_copied,
    )


def path_of(v: View, disk: FrozenDisk) -> str:
    """As planned; but the frozen base of a running VM that was seen not to be readable is exported."""
    return EXPORT if _running_guest(v) and v.record.base_unreadable and disk.path == DATASTORE else disk.path


def _running(v: View, job: Job) -> Move:
    """Patch watermarks that grew; count observed seconds without progress towards the deadline."""
    f = v.frozen
    done, compared = sum(p.done_bytes for p in v.progress), sum(p.verified_bytes for p in v.progress)
    stall = _stall(v, job, done + compared)
    timers = (stall, _fails(v))
    if v.timers.get(stall, 0.0) >= f.copy_stall_s:
        why = f"made no progress for {f.copy_stall_s:.0f} s: {job.message or 'its log shows no new bytes'}"
        if _running_guest(v):  # safety 18: before the cutover time fails nobody
            return Do(_drop(v, job), f"Job {job.name} {why}; another attempt follows", timers, attempt=job.attempt + 1)
        return Fail("CopyStalled", f"Job {job.namespace}/{job.name} {why}")
    if grown := _grown(v, WATERMARK_STEP_BYTES):
        return Do(PutWatermarks(v.key, f.destination, grown), "watermarks are kept", timers)
    if job.phase is JobPhase.PENDING:
        return Wait(f"Job {job.name} is pending {job.message}".rstrip(), timers)
    total = sum(p.total_bytes for p in v.progress)  # of a delta, what changed
    again = f"; {compared >> 20} MiB compared with the source" if compared else ""
    return Wait(f"{done >> 20} of {total >> 20} MiB{again}" if total else f"Job {job.name} begins", timers)


def _stall(v: View, job: Job, moved_bytes: int) -> str:
    """A timer that starts anew whenever bytes move. While the log tells nothing, the one that ran goes on."""
    ours = f"copy-stall:{job.name}:"
    known = next((name for name in v.timers if name.startswith(ours)), None) if not v.progress else None
    return known or f"{ours}{moved_bytes}"


def _grown(v: View, at_least: int) -> tuple[tuple[Volume, Watermark], ...]:
    result = result_of(v.jobs[-1]) if v.jobs else None
    untrue = {d.uuid for d in result.disks if d.mismatch} if result else ()
    progress = {p.uuid: p for p in v.progress if p.uuid not in untrue}
    found = []
    for disk, volume in v.volumes:
        seen, known = progress.get(disk.uuid), v.watermark(volume)
        if seen and v.provable(volume) and seen.watermark_bytes - (known.proven_bytes if known else 0) >= at_least:
            found.append((volume, Watermark(v.round_key, seen.watermark_bytes)))
    return tuple(found)


def last_words(v: View) -> Do | None:
    """What a Job that is about to go has proven and no annotation says yet; a Job of other PVCs or rounds proves nothing here.

    Said once, and tried for a while: a copy that has proven more at every look must not put off its own end.
    """
    seen = v.outcome
    said = seen is not None and seen.action == "PutWatermarks" and seen.error is None
    if said or v.timers.get(STOPPING, 0.0) >= LAST_WORDS_S or not v.jobs or v.jobs[-1].round_key != v.round_key:
        return None
    found = _grown(v, 1)
    return Do(PutWatermarks(v.key, v.frozen.destination, found), "what the copy has proven is kept", (STOPPING,)) if found else None


def _fails(v: View) -> str:
    """A timer that starts anew whenever more is proven: attempts that get on are not counted against the deadline."""
    return f"copy-fails:{v.proven_bytes}"


def result_of(job: Job | Binder) -> CopyResult | None:
    """The worker's last word: its termination message is one result line."""
    for line in reversed(job.termination_message.splitlines()):
        parsed = parse_line(line)
        if isinstance(parsed, CopyResult):
            return parsed
    return None


def _finished(v: View, job: Job) -> Move:
    """The Job's word counts only if it names each disk as done."""
    result = result_of(job)
    if job.exit_code != EXIT_DONE or result is None or not result.done:
        return _failed(v, job)
    if any(x.mark is not None and x.mark.state is not MarkState.CLEAN for _, x in v.volumes):
        return Do(_drop(v, job), "a conversion has touched what this Job copied; it is copied anew", attempt=job.attempt + 1)
    return _mark(v, result) or Do(_drop(v, job), "the Job of an earlier attempt goes")


def _mark(v: View, result: CopyResult) -> Move | None:
    """Marks for the disks that the worker names as done, whatever became of the others; only when no pod can write any more."""
    done = {d.uuid for d in result.disks if d.done}
    clean = ((d, x) for d, x in v.volumes if x.mark is None or x.mark.state is MarkState.CLEAN)
    marks = tuple((x, v.want_mark(d, x)) for d, x in clean if d.uuid in done and not v.marked(d))
    if not marks:
        return None
    if v.unfenced:
        return Wait(f"WriterNotFenced: {'; '.join(v.unfenced)}")
    if (not_yet := _snapshot_proof(v)) is not None:
        return not_yet
    return Do(PutMarks(v.key, v.frozen.destination, marks, v.owner), f"{len(marks)} disk(s) are complete and marked")


def _snapshot_proof(v: View) -> Move | None:
    """Safety 14: a mark needs the same snapshot and chain still to be there, behind the last byte that was read."""
    if not _running_guest(v):
        return None
    if v.proof is None:
        return Do(ProveOff(v.key, ref(v).provider, ref(v)), "the snapshot is looked at once more, before what was read of it is marked")
    if (broken := broken_snapshot(v, v.proof)) is not None:
        return Note(abandon(v, broken))
    return None


def broken_snapshot(v: View, vm: SourceVm) -> str | None:
    """Why what is read of the round's snapshot cannot be trusted; None when it stands as it was made. `vm`: a direct read."""
    r = v.round
    found = next((s for s in vm.snapshots if r is not None and s.id == r.snapshot and s.key == v.snapshot_key(r.number)), None)
    if found is None or r is None:
        return "its snapshot was removed by somebody else while it was read"
    live = {d.uuid: d for d in vm.disks}
    for disk in found.disks:
        if disk.uuid in live and disk.backing.file not in live[disk.uuid].backing.parents:
            return f"{disk.backing.file} is no longer the frozen base of disk {disk.label}"
        if r.change_ids.get(disk.uuid, disk.change_id) != disk.change_id:
            return f"disk {disk.label} tells another change id of the same snapshot"
    return None


def abandon(v: View, why: str) -> VmRecord:
    """Nothing of the round under way counts: what it would have copied is a part of what the next one copies."""
    assert v.round is not None
    return replace(v.record, rounds=(*v.record.rounds[:-1], replace(v.round, ended=v.now, abandoned=why)))


def _locked_base(v: View, job: Job, result: CopyResult | None, why: str) -> Move | None:
    """ESXi may refuse to open the base of a running VM, so reading it is always a trial. Then the first copy is an export, and later
    rounds, which an export cannot do, are left out."""
    if not _running_guest(v) or result is None or all(path_of(v, d) != DATASTORE for d in v.frozen.disks):
        return None
    patient = result.reason in _BUSY and v.timers.get(_fails(v), 0.0) < LOCKED_S
    begun = any(v.watermark(x) for d, x in v.volumes if not v.marked(d))
    if patient or result.reason not in _BUSY | _REFUSED or begun:
        return None
    noted = replace(v.record, base_unreadable=why)
    if all(v.base(d, x) for d, x in v.volumes):
        noted = replace(noted, rounds=abandon(v, "the frozen base can no longer be read while the guest runs").rounds)
    return Note(replace(noted, attempt=job.attempt + 1))


def _mismatch(v: View, result: CopyResult) -> Move | None:
    """The second read found a disk to differ from its source. In a warm run that is a doubt, so all of it is compared, once; what was
    proven of it counts no more in any case."""
    wrong, r = {d.uuid for d in result.disks if d.mismatch}, v.round
    if r is not None and (fresh := wrong - r.doubts.keys()):
        return _doubt(v, r, dict.fromkeys(fresh, result.error or "source and target differ"))
    untrue = tuple((x, None) for d, x in v.volumes if d.uuid in wrong and (x.mark is not None or x.watermark is not None))
    return Do(PutMarks(v.key, v.frozen.destination, untrue, v.owner), "what differs from the source counts no more") if untrue else None


def _moved(v: View, result: CopyResult | None, why: str) -> Move | None:
    """The files were moved (storage vMotion) while they were read. The guest runs: nothing of the round counts, and the next one asks where
    they are. It is off: the next attempt does, if a direct read finds them elsewhere."""
    if result is None or result.reason not in _MOVED:
        return None
    if _running_guest(v):
        return Note(abandon(v, f"its files went away, or changed, while they were read ({why})"))
    if result.reason == "SourceNotFound" and v.proof is None and out_of_sight(v) is None:
        return Do(ProveOff(v.key, ref(v).provider, ref(v)), "the source is read again, because a file of it is gone")
    return None


def _elsewhere(v: View) -> bool:
    """By a direct read, some disk is in another file than when this run began, and all can still be read as planned."""
    vm, frozen = v.proof, {d.uuid: d for d in v.frozen.disks}
    known = [(frozen[d.uuid], d) for d in vm.disks if d.uuid in frozen] if vm is not None else []
    if vm is None or any(datapath.lost(f.path, d, vm) is not None for f, d in known):
        return False
    return any(f.label != d.backing.file for f, d in known)


def _failed(v: View, job: Job) -> Move:
    result = result_of(job)
    why = (result.error if result else "") or job.message or f"exit code {job.exit_code}"
    if result is not None and (marked := _mark(v, result)) is not None:
        return marked
    if (locked := _locked_base(v, job, result, why)) is not None:
        return locked
    if _running_guest(v) and v.record.base_unreadable and v.record.attempt > job.attempt:
        return Do(_drop(v, job), f"the frozen base cannot be read while the guest runs ({why}); the snapshot is exported instead")
    if result is not None and (differs := _mismatch(v, result)) is not None:
        return differs
    if (gone := _moved(v, result, why)) is not None:
        return gone
    if job.exit_code == EXIT_WRONG and not _elsewhere(v):
        return Fail(result.reason if result and result.reason else "CopyFailed", f"the copy cannot succeed: {why}")
    timers = (_fails(v),)
    if grown := _grown(v, 1):
        return Do(PutWatermarks(v.key, v.frozen.destination, grown), "what the failed attempt has proven is kept", timers)
    if v.timers.get(timers[0], 0.0) >= v.frozen.copy_stall_s and not _running_guest(v):
        return Fail("CopyFailed", f"the copy failed again and again for {v.frozen.copy_stall_s:.0f} s without getting on, last: {why}")
    again = retry.after(v, job, (result.reason if result else None) or "CopyFailed", why)
    return Do(_drop(v, job), again.message, timers, attempt=job.attempt + 1, retry=again)
