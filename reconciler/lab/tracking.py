"""Changed block tracking of one simulated disk: which blocks were written in which epoch, and the ids of the moments between epochs.

An epoch ends at a snapshot. What is asked for is the union of the epochs between two ids, so it holds each block written between them, and
no others as long as nobody tampers with the record; `rewind` and `forget` are how platforms come to tell less than what was written.
What it is not: a platform's call or fault. Where it stands: world.py notes each write, snapshots.py ends the epochs, skins show the ids.
Source: VMware Virtual Disk Development Kit Programming Guide, "Changed Block Tracking"; ids look like `52 0a … -… 1f/3`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

BLOCK_BYTES = 64 << 10


class Unknown(Exception):
    """The id belongs to another record, or to a moment that this one has not seen."""


@dataclass(slots=True)
class Tracking:
    """`life`: 32 hexadecimal digits, new whenever the record starts anew. `sequence`: the running epoch's number."""

    life: str
    sequence: int = 0
    epochs: dict[int, set[int]] = field(default_factory=dict)

    def note(self, offset: int, length: int) -> None:
        """Bytes `offset` to `offset + length` were written."""
        if length > 0:
            blocks = range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1)
            self.epochs.setdefault(self.sequence, set()).update(blocks)

    def advance(self) -> None:
        """A snapshot: the epoch ends."""
        self.sequence += 1

    def rewind(self, sequence: int) -> None:
        """Back to the state that had this number; what came after never was, as far as this record knows."""
        self.sequence = sequence
        self.epochs = {n: blocks for n, blocks in self.epochs.items() if n < sequence}

    def forget(self) -> None:
        """The writes of all epochs are lost, the ids stay good: from here on the record lies."""
        self.epochs.clear()

    def id_at(self, sequence: int) -> str:
        pairs = [self.life[n : n + 2] for n in range(0, 32, 2)]
        return f"{' '.join(pairs[:8])}-{' '.join(pairs[8:])}/{sequence}"

    def blocks(self, since: str, until: int, and_after: bool = False) -> set[int]:
        """Numbers of the blocks written from id `since` to the moment `until`, or to the end of its epoch. Errors: Unknown; ValueError."""
        stem, slash, number = since.rpartition("/")
        if not slash or not number.isdecimal():
            raise ValueError(since)
        first = int(number)
        if f"{stem}/" != self.id_at(0)[:-1] or first > until:
            raise Unknown(since)
        return set().union(*(self.epochs.get(n, set()) for n in range(first, until + and_after)))


def runs(blocks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of adjoining blocks, ascending."""
    start: int | None = None
    end = 0
    for block in sorted(blocks):
        if start is not None and block == end:
            end += 1
            continue
        if start is not None:
            yield start * BLOCK_BYTES, (end - start) * BLOCK_BYTES
        start, end = block, block + 1
    if start is not None:
        yield start * BLOCK_BYTES, (end - start) * BLOCK_BYTES


def clip(areas: Iterable[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """What of `areas` lies from `start` up to `end`."""
    for offset, length in areas:
        first, last = max(offset, start), min(offset + length, end)
        if first < last:
            yield first, last - first
