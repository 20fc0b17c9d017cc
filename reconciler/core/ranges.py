"""Byte-range algebra: what is left to copy, what is zero, how it is cut into requests.

What it is: functions on (offset, length) pairs, the shape that `ports` speaks. Pure.
What it is not: a plan; mover/copy.py makes one of these, and drivers yield changed areas in this shape.
Units: bytes. Shape, unless a function says otherwise: ascending, disjoint, not touching, no empty range ("normal").
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

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


def limit(many: Sequence[Iterable[Range]], most: int, gap: int) -> list[list[Range]]:
    """`coalesce` each of many by `gap`, or by the smallest wider gap, the same for all, that leaves at most `most` ranges in all (but one
    each, where there are any). Errors: ValueError for `most` < 1."""
    if most < 1:
        raise ValueError(f"cannot put ranges into {most}")
    out = [coalesce(some, gap) for some in many]
    over = sum(map(len, out)) - most
    gaps = sorted(right[0] - sum(left) for some in out for left, right in pairwise(some))
    if over <= 0 or not gaps:
        return out
    return [coalesce(some, gaps[min(over, len(gaps)) - 1]) for some in out]


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


def pack(ranges: Iterable[Range]) -> str:
    """Normal ranges as short ASCII text, some 4 characters for a range of a real disk: base64 of variable-length numbers, which are the
    power of two that divides everything, then gap and length by turns in that unit. Errors: ValueError if they are not normal."""
    items = list(ranges)
    everything = 0
    for offset, length in items:
        everything |= offset | length
    shift = max(0, (everything & -everything).bit_length() - 1)
    out = bytearray()
    _put(out, shift)
    at = -1
    for offset, length in items:
        if offset <= at or length <= 0 or offset < 0:
            raise ValueError(f"range ({offset}, {length}) is out of order, empty or negative")
        _put(out, offset - max(at, 0) >> shift)
        _put(out, length >> shift)
        at = offset + length
    return base64.b64encode(out).decode("ascii")


def unpack(text: str) -> tuple[Range, ...]:
    """What `pack` was given. Errors: ValueError for anything else."""
    numbers = list(_get(base64.b64decode(text, validate=True)))
    if not len(numbers) % 2 or numbers[0] > 63:
        raise ValueError("packed ranges are cut short or have no sensible unit")
    shift, at = numbers[0], 0
    out: list[Range] = []
    for gap, length in zip(numbers[1::2], numbers[2::2], strict=True):
        if not length or (out and not gap):
            raise ValueError("packed ranges touch or are empty")
        out.append((at + (gap << shift), length << shift))
        at = sum(out[-1])
    return tuple(out)


def _put(out: bytearray, number: int) -> None:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _get(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("packed ranges end within a number")
