"""Asking for an importer Job: both sides read directly once more, what changed since the round before, and the worker's spec.

What it is: the one act with more to it than a call. What it is not: a decision, or a byte of a disk; only lists of areas pass here.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core import guards, ranges
from reconciler.core.actions import CopyDiskWish, EnsureCopy
from reconciler.core.copyspec import RANGE_GAP_BYTES, RANGES_OF_A_JOB, CopyDisk, CopySpec
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Absent, Power
from reconciler.engine.leased import Leased
from reconciler.errors import RetryableError
from reconciler.ports import CopySource, DiskChoice, SourceDriver, TargetDriver

Doubts = tuple[tuple[str, str], ...]


def ensure_copy(action: EnsureCopy, sites: Leased) -> Doubts:
    """No other writer (safety 4), and disks that lie where the path was chosen for (safety 3). Nothing is started when a change id is
    in doubt; then that is the answer: disk uuid and reason."""
    source = sites.source_at(action.source.provider)
    seen = source.read_vm(action.source)
    if isinstance(seen, Absent):
        raise RetryableError("SourceGone", f"source VM {action.source} is not there right now")
    _check(action, seen.value)
    changes, doubts = _changes(action, source)
    if doubts:
        return doubts
    where = source.describe_copy(seen.value, tuple(DiskChoice(d.disk_uuid, d.path) for d in action.disks), action.at)
    disks = tuple(_disk(d, where, changes.get(d.disk_uuid), action.at is not None) for d in action.disks)
    target = sites.target_at(action.site)  # last, because what changed may take minutes to tell
    volumes = tuple((pvc, target.read_volume(action.job.namespace, pvc)) for _, pvc, _ in action.job.volumes)
    if (why := guards.may_copy(volumes)) is not None:
        raise RetryableError("WriterNotFenced", f"{why}; the copy is not started beside it")
    must_be_free(target, action.job.namespace, [pvc for pvc, _ in volumes], action.job.owner.source)
    target.ensure_copy(action.job, disks, where, _spec(action, where, disks))
    return ()


def must_be_free(target: TargetDriver, namespace: str, pvcs: Sequence[str], source: str) -> None:
    """Asked right before a PVC that was there before is adopted or written."""
    if (why := guards.taken(target.read_vms(namespace), namespace, pvcs, source)) is not None:
        raise RetryableError("VolumeTaken", f"{why}; nothing is written to it")


def _check(action: EnsureCopy, vm: SourceVm) -> None:
    if action.at is not None:
        if not any(s.id == action.at for s in vm.snapshots):
            raise RetryableError("SnapshotGone", f"snapshot {action.at} of {action.source} is not there any more; it is looked at anew")
    elif vm.power is not Power.OFF or vm.epoch != action.epoch:
        raise RetryableError("SourceChanged", f"{action.source} is {vm.power.value} or ran since; it is looked at anew")


def _changes(action: EnsureCopy, source: SourceDriver) -> tuple[dict[str, tuple[ranges.Range, ...]], Doubts]:
    """For each disk with something proven: what changed since, and all behind what was proven. Bounded, so that a Secret can carry it."""
    since = {disk.disk_uuid: disk.since for disk in action.disks if disk.since is not None}
    if not since:
        return {}, ()
    seen = source.read_changes(action.source, action.at, since)
    if seen.doubts:
        return {}, tuple(seen.doubts.items())
    found = {d.disk_uuid: _with_rest(d, seen.areas[d.disk_uuid]) for d in action.disks if d.since is not None}
    bounded = ranges.limit(list(found.values()), RANGES_OF_A_JOB, RANGE_GAP_BYTES)
    return {uuid: tuple(some) for uuid, some in zip(found, bounded, strict=True)}, ()


def _with_rest(disk: CopyDiskWish, changed: Sequence[ranges.Range]) -> list[ranges.Range]:
    rest = disk.capacity_bytes - disk.rest_from
    return ranges.merge([*changed, (disk.rest_from, rest)] if rest > 0 else changed)


def _disk(wish: CopyDiskWish, where: CopySource, changed: tuple[ranges.Range, ...] | None, trial: bool) -> CopyDisk:
    reader, url = where.disks[wish.disk_uuid]
    return CopyDisk(
        uuid=wish.disk_uuid,
        label=wish.label,
        reader=reader,
        url=url,
        capacity_bytes=wish.capacity_bytes,
        target="",
        block=wish.block,
        resume_bytes=wish.resume_bytes,
        compare=wish.compare,
        ranges=changed,
        check=wish.check,
        check_copied=wish.check_copied,
        trial=trial,
    )


def _spec(action: EnsureCopy, where: CopySource, disks: tuple[CopyDisk, ...]) -> CopySpec:
    return CopySpec(
        run=action.job.owner.migration,
        vm=action.job.owner.vm,
        round_key=action.job.round_key,
        disks=disks,
        tls=where.tls,
        credentials_dir="",
        verify=action.verify,
        connections=where.connections,
        request_bytes=where.request_bytes,
        bandwidth_bytes_per_s=action.bandwidth_bytes_per_s,
        export=where.export,
        vddk=where.vddk,
    )
