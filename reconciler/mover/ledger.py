"""The books of one disk: what was handed out, what has landed, what is flushed and proven.

What it is: the only place that knows the watermark. What it is not: I/O. Thread-safe.
Order (design section 6): bytes land -> `begin_flush` takes the contiguous prefix -> fdatasync, read back -> `prove` moves the watermark.
Units: bytes. Bounded: at most RUN_AHEAD_BYTES are handed out beyond the watermark, so a slow flush holds the readers back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.ports import Clock


FLUSH_BYTES, FLUSH_S = 256 << 20, 5.0
RUN_AHEAD_BYTES = 1 << 30
_ZERO_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """One request. `zero`: the source says that nothing but zeroes is there, so it is not read."""

    offset: int
    length: int
    zero: bool = False

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of a chunk. `crc32` of what was sent; None: nothing but zeroes; `proven`: the target was read, and held it already."""

    chunk: Chunk
    written_bytes: int
    zeroed_bytes: int
    crc32: int | None
    proven: bool = False


def plan(start: int, capacity: int, data: Iterable[tuple[int, int]] | None, request_bytes: int) -> Iterator[Chunk]:
    """Cover [start, capacity) in ascending order. `data` None: read everything; else what is between its ranges is zero.

    Lazy: a disk of any size costs no memory. Requests are cut at multiples of `request_bytes`, so that they stay aligned.
    """
    at = start
    for offset, length in [(0, capacity)] if data is None else data:
        end = min(offset + length, capacity)
        if end <= at:
            continue
        begin = min(max(at, offset), end)
        yield from _cut(at, begin, _ZERO_CHUNK_BYTES, zero=True)
        yield from _cut(begin, end, request_bytes, zero=False)
        at = end
    yield from _cut(at, capacity, _ZERO_CHUNK_BYTES, zero=True)


def plan_only(ranges: Iterable[tuple[int, int]], request_bytes: int) -> Iterator[Chunk]:
    """Read these and nothing else, whatever they hold. Normal form."""
    for offset, length in ranges:
        yield from _cut(offset, offset + length, request_bytes, zero=False)


def plan_zero(offset: int, length: int) -> Iterator[Chunk]:
    """The source says that nothing is there."""
    yield from _cut(offset, offset + length, _ZERO_CHUNK_BYTES, zero=True)


def _cut(at: int, end: int, size: int, *, zero: bool) -> Iterator[Chunk]:
    while at < end:
        step = min(end, at - at % size + size) - at
        yield Chunk(at, step, zero)
        at += step


class Ledger:
    """The chunks come in ascending order, and may leave gaps that nobody has to deal with: the watermark jumps over them.

    Numbers are read without the lock for display only. `done` and `total`: of the bytes to deal with; by default the whole disk's.
    """

    def __init__(self, chunks: Iterator[Chunk], start: int, capacity: int, clock: Clock, *, done: int, total: int) -> None:
        self._chunks = chunks
        self._turn = threading.Lock()  # a stream's next chunk may take its time, and the flusher must not wait for it
        self._clock = clock
        self._cond = threading.Condition()
        self._out: dict[int, int] = {}  # handed out and not landed, ascending: offset -> bytes handed out before it
        self._given = self._proven = 0  # bytes handed out, and how many of them are proven
        self._all_given = self._broken = False
        self._last = start
        self._unproven: list[Landed] = []
        self._flushed_at = clock.monotonic()
        self.capacity, self.watermark = capacity, start
        self.done, self.total = done, total
        self.read = self.written = self.zeroed = self.requests = 0

    @property
    def handed_out(self) -> bool:
        return self._all_given

    @property
    def complete(self) -> bool:
        return self.watermark == self.capacity

    def take(self, patience_s: float) -> Chunk | None:
        """The next chunk; None when nothing may be handed out (all is, or the run-ahead is used up for `patience_s`)."""
        with self._turn:
            with self._cond:
                if self._all_given or self._broken or not self._cond.wait_for(self._may_take, patience_s):
                    return None
            try:
                chunk = next(self._chunks, None)
            except BaseException:
                self._broken = True  # asked again, a generator that raised says that there is nothing left
                raise
            with self._cond:
                if chunk is None:
                    self._all_given = True
                    return None
                self._out[chunk.offset] = self._given
                self._given += chunk.length
                self._last = chunk.end
                return chunk

    def _may_take(self) -> bool:
        return self._given - self._proven < RUN_AHEAD_BYTES

    def _prefix(self) -> tuple[int, int]:
        """(position, bytes handed out below it) of the first thing that has not landed."""
        if self._out:
            return next(iter(self._out.items()))
        return self.capacity if self._all_given else self._last, self._given

    def land(self, landed: Landed) -> bool:
        """Book a chunk whose writes have returned. True when a flush is due."""
        chunk = landed.chunk
        with self._cond:
            del self._out[chunk.offset]
            self._unproven.append(landed)
            self.done += chunk.length
            self.written += landed.written_bytes
            self.zeroed += landed.zeroed_bytes
            if not chunk.zero:
                self.read += chunk.length
                self.requests += 1
            return self._due()

    def _due(self) -> bool:
        position, given = self._prefix()
        if position <= self.watermark:
            return False
        waited = self._clock.monotonic() - self._flushed_at >= FLUSH_S
        return given - self._proven >= FLUSH_BYTES or position == self.capacity or (waited and given > self._proven)

    def begin_flush(self, *, force: bool = False) -> tuple[int, list[Landed]] | None:
        """(end of the prefix, its chunks in ascending order) if a flush is due, or if forced and there is anything to flush."""
        with self._cond:
            upto, _ = self._prefix()
            if not self._due() and not (force and upto > self.watermark):
                return None
            inside = sorted((c for c in self._unproven if c.chunk.end <= upto), key=lambda c: c.chunk.offset)
            self._unproven = [c for c in self._unproven if c.chunk.end > upto]
            return upto, inside

    def prove(self, upto: int, inside: Iterable[Landed]) -> None:
        """Call with what `begin_flush` gave, after the flush has returned and what the target returns was compared."""
        with self._cond:
            self.watermark = upto
            self._proven += sum(item.chunk.length for item in inside)
            self._flushed_at = self._clock.monotonic()
            self._cond.notify_all()
