"""Where a copy's bytes come from: ranges that are read at will, or a stream that passes once.

What it is: the one place that knows the difference; copy.py and verify.py see chunks and `fetch`. What it is not: a transport (wire/).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from reconciler.core import ranges
from reconciler.core.copyspec import CopyDisk
from reconciler.mover.ledger import Chunk, plan, plan_only

if TYPE_CHECKING:
    from reconciler.ports import DiskReader


class Hold(Protocol):
    """One thread's hold on the source."""

    def fetch(self, chunk: Chunk, view: memoryview) -> None:
        """Fill all of the view, which is as long as the chunk."""
        ...

    def close(self) -> None: ...


class Intake(Protocol):
    """The source of one disk."""

    @property
    def resumable(self) -> bool:
        """False where the bytes come once and in order: a watermark would be of no use."""
        ...

    def chunks(self, disk: CopyDisk, request_bytes: int) -> Iterator[Chunk]:
        """What this round has to deal with, ascending. Called and taken from by one thread at a time."""
        ...

    def recheck(self, stretch: tuple[int, int], request_bytes: int) -> Iterator[Chunk]:
        """All of a stretch, to be fetched a second time; holes are not believed."""
        ...

    def open(self) -> Hold:
        """Called from the thread that will use it."""
        ...

    def close(self) -> None: ...


class RangeIntake:
    """Over a DiskReader; takes it over."""

    resumable = True

    def __init__(self, reader: DiskReader) -> None:
        self._reader = reader

    def chunks(self, disk: CopyDisk, request_bytes: int) -> Iterator[Chunk]:
        if disk.ranges is None:
            return plan(disk.resume_bytes, disk.capacity_bytes, self._reader.data_ranges(), request_bytes)
        return plan_only(ranges.clip(disk.ranges, disk.resume_bytes, disk.capacity_bytes), request_bytes)

    def recheck(self, stretch: tuple[int, int], request_bytes: int) -> Iterator[Chunk]:
        return plan_only([stretch], request_bytes)

    def open(self) -> Hold:
        return RangeHold(self._reader.clone())

    def close(self) -> None:
        self._reader.close()


class RangeHold:
    def __init__(self, reader: DiskReader) -> None:
        self._reader = reader

    def fetch(self, chunk: Chunk, view: memoryview) -> None:
        self._reader.read_into(chunk.offset, view)

    def close(self) -> None:
        self._reader.close()
