"""Where a copy's bytes come from: ranges that are read at will, or a stream that passes once.

What it is: the one place that knows the difference; copy.py and verify.py see chunks and `fetch`. What it is not: a transport (wire/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from reconciler.core import ranges
from reconciler.core.copyspec import CopyDisk
from reconciler.errors import TerminalError
from reconciler.mover.ledger import Chunk, plan, plan_only, plan_zero

if TYPE_CHECKING:
    from reconciler.ports import DiskReader, DiskStream, Parcel


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

    def recheck(self, stretches: Sequence[ranges.Range], request_bytes: int) -> Iterator[Chunk]:
        """All of these stretches, to be fetched a second time; holes are not believed."""
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

    def recheck(self, stretches: Sequence[ranges.Range], request_bytes: int) -> Iterator[Chunk]:
        return plan_only(stretches, request_bytes)

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


class StreamIntake:
    """Over a DiskStream; takes it over. Chunks come from the stream one by one, and are unpacked by whichever thread got them."""

    resumable = False

    def __init__(self, stream: DiskStream) -> None:
        self._stream = stream
        self._waiting: dict[int, Parcel | None] = {}  # by offset, until fetched; None: zero

    def chunks(self, disk: CopyDisk, request_bytes: int) -> Iterator[Chunk]:
        if (
            disk.resume_bytes not in (0, disk.capacity_bytes)
            or disk.ranges is not None
            or disk.check not in (None, ((0, disk.capacity_bytes),))
        ):
            raise TerminalError("SpecInvalid", f"{disk.label}: {disk.reader.value} is a stream: it is read whole and from the beginning")
        return iter(()) if disk.resume_bytes else self._begin(request_bytes)

    def _begin(self, request_bytes: int) -> Iterator[Chunk]:
        for parcel in self._stream.parcels(request_bytes):
            if parcel.zero:
                yield from plan_zero(parcel.offset, parcel.length)
            else:
                yield self._hold_back(parcel.offset, parcel.length, parcel)

    def recheck(self, stretches: Sequence[ranges.Range], request_bytes: int) -> Iterator[Chunk]:
        for parcel in self._stream.parcels(request_bytes):
            if not parcel.zero:
                yield self._hold_back(parcel.offset, parcel.length, parcel)
                continue
            for offset, length in ranges.split([(parcel.offset, parcel.length)], request_bytes):
                yield self._hold_back(offset, length, None)

    def _hold_back(self, offset: int, length: int, parcel: Parcel | None) -> Chunk:
        self._waiting[offset] = parcel
        return Chunk(offset, length)

    def open(self) -> Hold:
        return StreamHold(self._waiting)

    def close(self) -> None:
        self._stream.close()


class StreamHold:
    def __init__(self, waiting: dict[int, Parcel | None]) -> None:
        self._waiting = waiting

    def fetch(self, chunk: Chunk, view: memoryview) -> None:
        parcel = self._waiting.pop(chunk.offset)
        if parcel is None:
            view[:] = bytes(len(view))
        else:
            parcel.unpack(view)

    def close(self) -> None:
        """The stream is shared by all threads; the intake closes it."""
