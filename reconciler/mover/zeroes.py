"""Finding zeroes in a buffer, quickly, and cutting it into runs of data and zero.

What it is: a pure look at memory. What it is not: a decision on whether a zero must be written (copy.py).
Speed: `bytes.startswith(view)` is one memcmp without a copy (about 20 GiB/s here); comparing two memoryviews walks element by element.
"""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_BYTES = 64 << 10  # smaller finds little more and makes files of many extents
_ZEROES = bytes(1 << 20)


def is_zero(view: memoryview) -> bool:
    step = len(_ZEROES)
    return all(_ZEROES.startswith(view[at : at + step]) for at in range(0, len(view), step))


def runs(view: memoryview) -> Iterator[tuple[int, int, bool]]:
    """(start, length, zero) covering the view: neighbours differ in kind, cut at multiples of BLOCK_BYTES."""
    if is_zero(view):
        if view:
            yield 0, len(view), True
        return
    start, kind = 0, is_zero(view[:BLOCK_BYTES])
    for at in range(BLOCK_BYTES, len(view), BLOCK_BYTES):
        zero = is_zero(view[at : at + BLOCK_BYTES])
        if zero != kind:
            yield start, at - start, kind
            start, kind = at, zero
    yield start, len(view) - start, kind


def differing(left: memoryview, right: memoryview) -> Iterator[tuple[int, int]]:
    """(start, length) of the runs, in blocks, where two views of one length differ."""
    start: int | None = None
    for at in range(0, len(left), BLOCK_BYTES):
        same = left[at : at + BLOCK_BYTES].tobytes().startswith(right[at : at + BLOCK_BYTES])
        if same and start is not None:
            yield start, at - start
            start = None
        elif not same and start is None:
            start = at
    if start is not None:
        yield start, len(left) - start
