"""`verify: source` in a warm run: which stretches of a disk each round compares with the source, and what is left for the cutover.

What it is: pure. Each round also compares the next eighth of every disk with what its snapshot froze, so that the whole disk is proven
while the guest runs. The final copy compares what it copies, and beyond that only the eighths that no round came to. A stream is compared
whole.
What it is not: the comparison (mover/verify.py). A cold run reads the whole disk twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.core import ranges
from reconciler.core.copyspec import DiskResult, Verify
from reconciler.core.datapath import EXPORT
from reconciler.core.model import Mode
from reconciler.core.ranges import Range
from reconciler.core.record import DiskRecord, FrozenDisk, VmRecord
from reconciler.core.view import View

EIGHTHS = 8
ALL = tuple(range(EIGHTHS))
_GRID_BYTES = 64 << 10


def stretches(numbers: Iterable[int], capacity_bytes: int) -> tuple[Range, ...]:
    """Those eighths of a disk, in normal form; some of a very small disk are empty."""
    edges = [capacity_bytes * n // EIGHTHS // _GRID_BYTES * _GRID_BYTES for n in ALL] + [capacity_bytes]
    return tuple(ranges.merge((edges[n], edges[n + 1] - edges[n]) for n in numbers))


def next_eighth(record: VmRecord) -> int | None:
    """For the round that begins: the first that some disk lacks, else the one after that of the last round. None: not asked for."""
    if record.frozen is None or record.frozen.verify is not Verify.SOURCE:
        return None
    lacking = {n for d in record.frozen.disks for n in _left(record, d)}
    done = (r.eighth for r in reversed(record.rounds) if r.eighth is not None and r.ended is not None and not r.abandoned)
    return min(lacking) if lacking else (next(done, EIGHTHS - 1) + 1) % EIGHTHS


def wanted(v: View, disk: FrozenDisk, path: str) -> tuple[tuple[Range, ...] | None, bool]:
    """`check` and `check_copied` of the disk's copy."""
    r = v.round
    if v.frozen.verify is not Verify.SOURCE or r is None or path == EXPORT:
        return None, False
    if not r.final:
        return stretches(() if r.eighth is None else (r.eighth,), disk.capacity_bytes), False
    return stretches(_left(v.record, disk), disk.capacity_bytes), True


def proven(v: View, disk: FrozenDisk, was: DiskRecord, done: DiskResult | None, *, marked: bool) -> tuple[int, ...]:
    """The eighths that count now. None does while no mark vouches for the disk: it is copied, or compared, anew.

    `done`: what a Job of this round has told of it. It counts once the round's mark is made, so with the snapshot looked at again.
    """
    r = v.round
    if v.mode is Mode.COLD or v.frozen.verify is not Verify.SOURCE or r is None:
        return was.eighths
    if not marked:
        volume = v.our_volume(disk)
        return was.eighths if volume is not None and v.base(disk, volume) is not None else ()
    if done is None or not done.done:
        return was.eighths
    if r.final or done.verified_bytes >= disk.capacity_bytes:
        return ALL
    return was.eighths if r.eighth is None else tuple(sorted({*was.eighths, r.eighth}))


def _left(record: VmRecord, disk: FrozenDisk) -> tuple[int, ...]:
    known = next((d.eighths for d in record.disks if d.uuid == disk.uuid), ())
    return tuple(n for n in ALL if n not in known)


def downtime_bytes(record: VmRecord, changed_bytes: float) -> float:
    """What a cutover reads when so much has changed."""
    if record.frozen is None or record.frozen.verify is not Verify.SOURCE:
        return changed_bytes
    return 2 * changed_bytes + sum(ranges.total(stretches(_left(record, d), d.capacity_bytes)) for d in record.frozen.disks)
