"""Proof that the target returns what was sent.

`readback`: each flushed chunk, read past the page cache where the target allows it, against the CRC-32 (zlib) of what was sent.
`source`:   after the copy, the source again against the target, byte by byte: the whole disk, with the SHA-256 that both then have, or the
            stretches of it that this warm round has to prove.
What it is not: a repair. A mismatch is an error that names disk and offset; nothing is marked.
"""

from __future__ import annotations

import hashlib
import mmap
import threading
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.core.copyspec import CopyDisk
from reconciler.core.ranges import Range
from reconciler.errors import TerminalError
from reconciler.mover.intake import Intake
from reconciler.mover.ledger import Chunk, Landed
from reconciler.mover.pool import Stop
from reconciler.mover.throttle import Throttle
from reconciler.mover.zeroes import differing, is_zero

if TYPE_CHECKING:
    from reconciler.ports import DiskWriter

_ZERO_READ_BYTES = 1 << 20


def prove_readback(writer: DiskWriter, label: str, landed: Sequence[Landed]) -> None:
    """Errors: TerminalError ReadbackMismatch."""
    size = max((item.chunk.length for item in landed if not item.chunk.zero), default=0)
    area = mmap.mmap(-1, max(size, _ZERO_READ_BYTES))  # page-aligned, for O_DIRECT
    with area, memoryview(area) as view:
        for item in landed:
            if item.proven:
                continue
            if item.crc32 is None:
                _prove_zero(writer, label, item.chunk, view)
                continue
            with view[: item.chunk.length] as part:
                writer.read_back(item.chunk.offset, part)
                if zlib.crc32(part) != item.crc32:
                    raise _mismatch(label, item.chunk.offset, item.chunk.end)


def _prove_zero(writer: DiskWriter, label: str, chunk: Chunk, view: memoryview) -> None:
    for offset in range(chunk.offset, chunk.end, _ZERO_READ_BYTES):
        with view[: min(_ZERO_READ_BYTES, chunk.end - offset)] as part:
            writer.read_back(offset, part)
            if not is_zero(part):
                raise _mismatch(label, offset, offset + len(part))


def _mismatch(label: str, start: int, end: int) -> TerminalError:
    text = f"{label}: the target does not return what was written, between {start} and {end}; check the storage, then copy again"
    return TerminalError("ReadbackMismatch", text)


class SourceCheck:
    """The second read of stretches of one disk, as Work for the pool. `sha256` is set when all of the disk was equal."""

    def __init__(
        self,
        disk: CopyDisk,
        stretches: Sequence[Range],
        intake: Intake,
        writer: DiskWriter,
        throttle: Throttle,
        stop: Stop,
        request_bytes: int,
    ) -> None:
        self.disk, self.intake, self.writer = disk, intake, writer
        self.throttle, self.stop, self.request_bytes = throttle, stop, request_bytes
        self._whole = list(stretches) == [(0, disk.capacity_bytes)]
        self._chunks = intake.recheck(stretches, request_bytes)
        self._take = threading.Lock()
        self._turn = threading.Condition()
        self._hash = hashlib.sha256()
        self.handed_out = self.mismatch = False
        self.checked = 0

    @property
    def sha256(self) -> str | None:
        return self._hash.hexdigest() if self._whole and self.checked == self.disk.capacity_bytes else None

    def open_lane(self) -> CheckLane:
        return CheckLane(self)

    def take(self) -> Chunk | None:
        with self._take:
            chunk = next(self._chunks, None)
            self.handed_out = chunk is None
            return chunk

    def digest(self, chunk: Chunk, view: memoryview) -> None:
        """Hashing is in order: wait until all before `chunk` are in. The lane with the lowest chunk never waits."""
        if self._whole:
            with self._turn:
                while not self._turn.wait_for(lambda: self.checked == chunk.offset, 0.5):
                    if self.stop.requested:
                        return
            self._hash.update(view)
        with self._turn:
            self.checked += chunk.length
            self._turn.notify_all()


class CheckLane:
    def __init__(self, check: SourceCheck) -> None:
        self._check = check
        self._hold = check.intake.open()
        self._source = memoryview(bytearray(check.request_bytes))
        self._target = memoryview(mmap.mmap(-1, check.request_bytes))

    def step(self) -> bool:
        check = self._check
        if (chunk := check.take()) is None:
            return False
        source, target = self._source[: chunk.length], self._target[: chunk.length]
        check.throttle.take(chunk.length)
        self._hold.fetch(chunk, source)
        check.writer.read_back(chunk.offset, target)
        for start, _ in differing(source, target):
            check.mismatch = True
            text = f"{check.disk.label}: source and target differ in the block at {chunk.offset + start}; copy again"
            raise TerminalError("SourceMismatch", text)
        check.digest(chunk, source)
        return True

    def close(self) -> None:
        self._hold.close()
