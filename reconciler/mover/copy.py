"""One disk's copy: read a chunk, find its zeroes, write the rest; flush and prove the prefix, then move the watermark.

What it is: the Work and Lane that pool.py runs, and the flusher beside them. What it is not: threads (pool.py), books (ledger.py).
Zero is skipped only when the writer is `fresh` (this very process made the file) and each byte is dealt with once; else it is made.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.core import ranges
from reconciler.core.copyspec import CopyDisk, DiskProgress, DiskResult, Verify
from reconciler.errors import TerminalError
from reconciler.mover.intake import Intake
from reconciler.mover.ledger import Chunk, Landed, Ledger
from reconciler.mover.pool import Stop
from reconciler.mover.throttle import Throttle
from reconciler.mover.verify import SourceCheck, prove_readback
from reconciler.mover.zeroes import differing, is_zero, runs

if TYPE_CHECKING:
    from reconciler.ports import Clock, DiskWriter

_PATIENCE_S = 0.5  # how long a lane or flusher waits before it looks at the stop again


@dataclass(frozen=True, slots=True)
class Job:
    """What the disks of one job share."""

    clock: Clock
    stop: Stop
    throttle: Throttle
    request_bytes: int
    verify: Verify


class DiskCopy:
    """Takes over intake and writer; `close` closes both. `bell` wakes its flusher.

    Errors: TerminalError SpecInvalid for a watermark, a range or a stretch outside the disk.
    """

    def __init__(self, disk: CopyDisk, intake: Intake, writer: DiskWriter, job: Job, bell: threading.Event) -> None:
        _validate(disk)
        self.disk, self.intake, self.writer, self.job, self.bell = disk, intake, writer, job, bell
        chunks = intake.chunks(disk, job.request_bytes)
        wanted = ((0, disk.capacity_bytes),) if disk.ranges is None else disk.ranges
        self.begun_at = ranges.total(ranges.clip(wanted, 0, disk.resume_bytes))
        total = ranges.total(wanted)
        self.ledger = Ledger(chunks, disk.resume_bytes, disk.capacity_bytes, job.clock, done=self.begun_at, total=total)
        self.started_at = job.clock.monotonic()
        self.ended_at: float | None = None
        self.check: SourceCheck | None = None

    @property
    def handed_out(self) -> bool:
        return self.ledger.handed_out

    def open_lane(self) -> CopyLane:
        return CopyLane(self)

    def flush(self, *, force: bool = False) -> None:
        """Bytes, fdatasync, proof, and only then the watermark. Called by one flusher thread at a time."""
        if (due := self.ledger.begin_flush(force=force)) is None:
            return
        upto, landed = due
        self.writer.flush()
        if self.job.verify is not Verify.NONE:
            prove_readback(self.writer, self.disk.label, landed)
        self.ledger.prove(upto, landed)
        if self.ledger.complete:
            self.ended_at = self.job.clock.monotonic()

    def progress(self, rate_bytes_per_s: float) -> DiskProgress:
        books = self.ledger
        mark = books.watermark if (self.intake.resumable or books.complete) and not self._differs else 0
        return DiskProgress(self.disk.uuid, books.total, books.done, books.zeroed, mark, round(rate_bytes_per_s), self.verified)

    @property
    def verified(self) -> int:
        return self.check.checked if self.check else 0

    @property
    def moved(self) -> int:
        """Grows with every byte dealt with, in both reads."""
        return self.ledger.done + self.verified

    @property
    def to_check(self) -> list[ranges.Range]:
        """The stretches that are to be compared with the source."""
        disk, whole = self.disk, ((0, self.disk.capacity_bytes),)
        if disk.check is None and not disk.check_copied:
            return list(whole) if self.job.verify is Verify.SOURCE else []
        copied = () if not disk.check_copied else whole if disk.ranges is None else disk.ranges
        return ranges.merge([*(disk.check or ()), *copied])

    @property
    def _differs(self) -> bool:
        return self.check is not None and self.check.mismatch

    @property
    def _checked(self) -> bool:
        return self.verified == ranges.total(self.to_check)

    def begin_check(self, stretches: Sequence[ranges.Range]) -> SourceCheck:
        """The second read, when all of the first is flushed."""
        job = self.job
        self.check = SourceCheck(self.disk, stretches, self.intake, self.writer, job.throttle, job.stop, job.request_bytes)
        return self.check

    def result(self) -> DiskResult:
        books, end = self.ledger, self.ended_at or self.job.clock.monotonic()
        return DiskResult(
            uuid=self.disk.uuid,
            done=books.complete and self._checked,
            read_bytes=books.read,
            written_bytes=books.written,
            zeroed_bytes=books.zeroed,
            ranges=books.requests,
            seconds=round(end - self.started_at, 3),
            reader=self.disk.reader.value,
            readback="off" if self.job.verify is Verify.NONE else self.writer.readback_mode,
            sha256=self.check.sha256 if self.check else None,
            verified_bytes=self.verified,
            mismatch=self._differs,
        )

    def close(self) -> None:
        self.intake.close()
        self.writer.close()


def _validate(disk: CopyDisk) -> None:
    end, extents = disk.capacity_bytes, list(disk.ranges or ())
    if not 0 <= disk.resume_bytes <= end:
        raise TerminalError("SpecInvalid", f"{disk.label}: resume at {disk.resume_bytes} is outside the disk")
    if extents != ranges.clip(extents, 0, end):
        raise TerminalError("SpecInvalid", f"{disk.label}: its ranges are out of order, touch each other, or lie outside the disk")
    stretches = list(disk.check or ())
    if stretches != ranges.clip(stretches, 0, end):
        raise TerminalError("SpecInvalid", f"{disk.label}: its stretches to check are out of order, empty, or lie outside the disk")


class CopyLane:
    """A connection and a buffer for one disk (a second buffer in compare mode)."""

    def __init__(self, copy: DiskCopy) -> None:
        self._copy = copy
        self._hold = copy.intake.open()
        self._view = memoryview(bytearray(copy.job.request_bytes))
        self._target = memoryview(bytearray(copy.job.request_bytes if copy.disk.compare else 0))

    def step(self) -> bool:
        copy = self._copy
        chunk = copy.ledger.take(_PATIENCE_S)
        if chunk is None:
            copy.bell.set()  # what is behind the last chunk needs no more than a flush
            return not copy.ledger.handed_out
        landed = self._clear(chunk) if chunk.zero else self._carry(chunk)
        if copy.ledger.land(landed):
            copy.bell.set()
        return True

    def close(self) -> None:
        self._hold.close()

    def _clear(self, chunk: Chunk) -> Landed:
        if not self._copy.writer.fresh:
            self._copy.writer.zero(chunk.offset, chunk.length)
        return Landed(chunk, 0, chunk.length, None)

    def _carry(self, chunk: Chunk) -> Landed:
        copy, view = self._copy, self._view[: chunk.length]
        copy.job.throttle.take(chunk.length)
        self._hold.fetch(chunk, view)
        if copy.disk.compare and not copy.writer.fresh:
            return self._write_differences(chunk, view)
        crc = None
        if copy.job.verify is not Verify.NONE and not is_zero(view):
            crc = zlib.crc32(view)
        written, zeroed = self._write_runs(chunk.offset, view)
        return Landed(chunk, written, zeroed, crc)

    def _write_runs(self, offset: int, view: memoryview) -> tuple[int, int]:
        writer, written, zeroed = self._copy.writer, 0, 0
        for start, length, zero in runs(view):
            if not zero:
                writer.write(offset + start, view[start : start + length])
                written += length
                continue
            zeroed += length
            if not writer.fresh:
                writer.zero(offset + start, length)
        return written, zeroed

    def _write_differences(self, chunk: Chunk, view: memoryview) -> Landed:
        target, written, zeroed = self._target[: chunk.length], 0, 0
        self._copy.writer.read_back(chunk.offset, target)
        for start, length in differing(view, target):
            more_written, more_zeroed = self._write_runs(chunk.offset + start, view[start : start + length])
            written, zeroed = written + more_written, zeroed + more_zeroed
        crc = None if is_zero(view) else zlib.crc32(view)
        return Landed(chunk, written, zeroed, crc, proven=not (written or zeroed))


def run_flusher(copies: Sequence[DiskCopy], job: Job, bell: threading.Event) -> None:
    """Flush what is due on these disks until all are complete; after a stop once more, so that the watermark says what it can."""
    while not job.stop.requested and not all(copy.ledger.complete for copy in copies):
        bell.wait(_PATIENCE_S)
        bell.clear()
        for copy in copies:
            copy.flush()
    for copy in copies:
        copy.flush(force=True)
