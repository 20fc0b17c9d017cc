"""Byte-range algebra: what is left to copy, what is zero, how it is cut into requests.

What it is: functions on (offset, length) pairs, the shape that `ports` speaks. Pure.
What it is not: a plan; mover/copy.py makes one of these, and drivers yield changed areas in this shape.
Units: bytes. Shape, unless a function says otherwise: ascending, disjoint, not touching, no empty range ("normal").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Range = tuple[int, int]


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Any ranges, in any order, overlapping or empty -> normal. Errors: ValueError for a negative offset or length."""
    return coalesce(ranges, 0)


def coalesce(ranges: Iterable[Range], gap: int) -> list[Range]:
    """`merge`, and join neighbours at most `gap` bytes apart: reading a small gap costs less than another request."""
    out: list[Range] = []
    for offset, length in sorted(ranges):
        if offset < 0 or length < 0:
            raise ValueError(f"range ({offset}, {length}) is negative")
        if not length:
            continue
        if out and offset <= out[-1][0] + out[-1][1] + gap:
            start, had = out[-1]
            out[-1] = (start, max(had, offset + length - start))
        else:
            out.append((offset, length))
    return out


def intersect(left: Iterable[Range], right: Iterable[Range]) -> list[Range]:
    """What is in both."""
    a, b = merge(left), merge(right)
    out: list[Range] = []
    i = j = 0
    while i < len(a) and j < len(b):
        start = max(a[i][0], b[j][0])
        end_a, end_b = sum(a[i]), sum(b[j])
        if start < min(end_a, end_b):
            out.append((start, min(end_a, end_b) - start))
        if end_a <= end_b:
            i += 1
        else:
            j += 1
    return out


def subtract(left: Iterable[Range], right: Iterable[Range]) -> list[Range]:
    """What is in `left` and not in `right`."""
    holes = merge(right)
    out: list[Range] = []
    at = 0
    for offset, length in merge(left):
        end = offset + length
        while at < len(holes) and sum(holes[at]) <= offset:
            at += 1
        position, probe = offset, at
        while probe < len(holes) and holes[probe][0] < end:
            start, stop = holes[probe][0], sum(holes[probe])
            if start > position:
                out.append((position, start - position))
            position = max(position, stop)
            probe += 1
        if position < end:
            out.append((position, end - position))
    return out


def clip(ranges: Iterable[Range], start: int, end: int) -> list[Range]:
    """What lies inside [start, end)."""
    return intersect(ranges, [(start, max(0, end - start))])


def split(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """Cut at the multiples of `size` (counted from 0, so that requests stay aligned), in the given order."""
    if size <= 0:
        raise ValueError(f"cannot split by {size} bytes")
    for offset, length in ranges:
        end = offset + length
        while offset < end:
            step = min(end, offset - offset % size + size) - offset
            yield offset, step
            offset += step


def total(ranges: Iterable[Range]) -> int:
    return sum(length for _, length in ranges)
