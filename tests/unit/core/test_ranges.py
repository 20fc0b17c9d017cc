"""Range algebra against the plainest model: sets of byte numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import ranges
from reconciler.core.ranges import Range

LIMIT = 60
ANY = st.lists(st.tuples(st.integers(0, LIMIT), st.integers(0, 12)), max_size=10)


def points(some: Iterable[Range]) -> set[int]:
    return {at for offset, length in some for at in range(offset, offset + length)}


def assert_normal(some: list[Range]) -> None:
    assert all(length > 0 for _, length in some)
    assert all(a[0] + a[1] < b[0] for a, b in itertools.pairwise(some))


@given(ANY)
def test_merge_keeps_every_byte_and_no_other(some: list[Range]) -> None:
    merged = ranges.merge(some)
    assert_normal(merged)
    assert points(merged) == points(some)
    assert ranges.total(merged) == len(points(some))


@given(ANY, st.integers(0, 8))
def test_coalesce_adds_only_gaps_that_are_small(some: list[Range], gap: int) -> None:
    joined = ranges.coalesce(some, gap)
    assert points(some) <= points(joined)
    assert all(b[0] - (a[0] + a[1]) > gap for a, b in itertools.pairwise(joined))
    extra = ranges.subtract(joined, some)
    assert all(length <= gap for _, length in extra)


@given(ANY, ANY)
def test_intersect(left: list[Range], right: list[Range]) -> None:
    both = ranges.intersect(left, right)
    assert_normal(both)
    assert points(both) == points(left) & points(right)


@given(ANY, ANY)
def test_subtract(left: list[Range], right: list[Range]) -> None:
    rest = ranges.subtract(left, right)
    assert_normal(rest)
    assert points(rest) == points(left) - points(right)


@given(ANY, ANY)
def test_what_is_taken_away_and_what_is_left_make_the_whole(left: list[Range], right: list[Range]) -> None:
    assert ranges.merge(ranges.subtract(left, right) + ranges.intersect(left, right)) == ranges.merge(left)


@given(ANY, st.integers(0, LIMIT), st.integers(0, LIMIT))
def test_clip(some: list[Range], start: int, end: int) -> None:
    assert points(ranges.clip(some, start, end)) == {at for at in points(some) if start <= at < end}


@given(ANY, st.integers(1, 9))
def test_split_cuts_at_multiples_and_loses_nothing(some: list[Range], size: int) -> None:
    merged = ranges.merge(some)
    pieces = list(ranges.split(merged, size))
    assert points(pieces) == points(merged) and ranges.total(pieces) == ranges.total(merged)
    assert all(0 < length <= size and offset // size == (offset + length - 1) // size for offset, length in pieces)
    assert pieces == sorted(pieces)


@pytest.mark.parametrize("wrong", [(-1, 5), (0, -1)])
def test_negative_numbers_are_refused(wrong: Range) -> None:
    with pytest.raises(ValueError, match="negative"):
        ranges.merge([wrong])


def test_split_needs_a_size() -> None:
    with pytest.raises(ValueError, match="cannot split"):
        list(ranges.split([(0, 1)], 0))


def test_numbers_of_a_large_disk() -> None:
    assert ranges.subtract([(0, 64 << 40)], [(1 << 40, 512)]) == [(0, 1 << 40), ((1 << 40) + 512, (63 << 40) - 512)]
