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


def _cut(at: int, end: int, size: int, *, zero: bool) -> Iterator[Chunk]:
    while at < end:
        step = min(end, at - at % size + size) - at
        yield Chunk(at, step, zero)
        at += step


class Ledger:
    """Numbers are read without the lock for display only."""

    def __init__(self, chunks: Iterator[Chunk], start: int, capacity: int, clock: Clock) -> None:
        self._chunks = chunks
        self._next = next(chunks, None)
        self._clock = clock
        self._cond = threading.Condition()
        self._ended: dict[int, int] = {}  # offset -> end of chunks that landed beyond the prefix
        self._unproven: list[Landed] = []
        self._prefix = start
        self._flushed_at = clock.monotonic()
        self.capacity, self.watermark = capacity, start
        self.done = start
        self.read = self.written = self.zeroed = self.requests = 0

    @property
    def handed_out(self) -> bool:
        return self._next is None

    @property
    def landed(self) -> bool:
        return self._prefix == self.capacity

    @property
    def complete(self) -> bool:
        return self.watermark == self.capacity

    def take(self, patience_s: float) -> Chunk | None:
        """The next chunk; None when nothing may be handed out (all is, or the run-ahead is used up for `patience_s`)."""
        with self._cond:
            if not self._cond.wait_for(self._may_take, patience_s) or self._next is None:
                return None
            chunk, self._next = self._next, next(self._chunks, None)
            return chunk

    def _may_take(self) -> bool:
        return self._next is None or self._next.end <= self.watermark + RUN_AHEAD_BYTES

    def land(self, landed: Landed) -> bool:
        """Book a chunk whose writes have returned. True when a flush is due."""
        chunk = landed.chunk
        with self._cond:
            self._ended[chunk.offset] = chunk.end
            while (end := self._ended.pop(self._prefix, None)) is not None:
                self._prefix = end
            self._unproven.append(landed)
            self.done += chunk.length
            self.written += landed.written_bytes
            self.zeroed += landed.zeroed_bytes
            if not chunk.zero:
                self.read += chunk.length
                self.requests += 1
            return self._due()

    def _due(self) -> bool:
        behind = self._prefix - self.watermark
        if behind <= 0:
            return False
        return behind >= FLUSH_BYTES or self.landed or self._clock.monotonic() - self._flushed_at >= FLUSH_S

    def begin_flush(self, *, force: bool = False) -> tuple[int, list[Landed]] | None:
        """(end of the prefix, its chunks in ascending order) if a flush is due, or if forced and there is anything to flush."""
        with self._cond:
            if not self._due() and not (force and self._prefix > self.watermark):
                return None
            upto = self._prefix
            inside = sorted((c for c in self._unproven if c.chunk.end <= upto), key=lambda c: c.chunk.offset)
            self._unproven = [c for c in self._unproven if c.chunk.end > upto]
            return upto, inside

    def prove(self, upto: int) -> None:
        """Call after the flush has returned and what the target returns was compared."""
        with self._cond:
            self.watermark = upto
            self._flushed_at = self._clock.monotonic()
            self._cond.notify_all()
