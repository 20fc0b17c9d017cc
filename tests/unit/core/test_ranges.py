"""Range algebra against the plainest model: sets of byte numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import ranges
from reconciler.core.copyspec import RANGE_GAP_BYTES, RANGES_OF_A_JOB
from reconciler.core.ranges import Range

LIMIT = 60
UNIT, MIB = 64 << 10, 1 << 20
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


@given(st.lists(ANY, max_size=3), st.integers(1, 8), st.integers(0, 4))
def test_limit_keeps_every_byte_in_at_most_so_many(many: list[list[Range]], most: int, gap: int) -> None:
    few = ranges.limit(many, most, gap)
    plain = [ranges.coalesce(some, gap) for some in many]
    for before, after in zip(many, few, strict=True):
        assert_normal(after)
        assert points(before) <= points(after)
    assert sum(map(len, few)) <= max(most, sum(1 for some in plain if some))
    if sum(map(len, plain)) <= most:
        assert few == plain
    closed = [size for before, after in zip(plain, few, strict=True) for _, size in ranges.subtract(after, before)]
    left = [b[0] - sum(a) for some in few for a, b in itertools.pairwise(some)]
    assert not closed or not left or max(closed) < min(left), "the narrowest gaps go first, on whatever disk they are"


def test_limit_needs_room() -> None:
    with pytest.raises(ValueError, match="cannot put"):
        ranges.limit([[(0, 1)]], 0, 0)


@given(ANY, st.sampled_from([1, 512, 64 << 10, 1 << 40]))
def test_what_was_packed_comes_out(some: list[Range], unit: int) -> None:
    merged = [(offset * unit, length * unit) for offset, length in ranges.merge(some)]
    assert ranges.unpack(ranges.pack(merged)) == tuple(merged)


def test_a_large_delta_is_short_text() -> None:
    """1 % of 1 TiB in areas of 64 KiB, limited to what a Job may carry."""
    areas = [(at + at // MIB % 7 * UNIT, UNIT) for at in range(0, 1 << 40, 100 * UNIT)]
    [few] = ranges.limit([areas], RANGES_OF_A_JOB, RANGE_GAP_BYTES)
    assert len(few) <= RANGES_OF_A_JOB and len(ranges.pack(few)) < 300 << 10


@pytest.mark.parametrize("wrong", [[(0, 0)], [(5, 5), (10, 1)], [(5, 5), (0, 1)], [(-1, 1)]])
def test_what_is_not_normal_is_not_packed(wrong: list[Range]) -> None:
    with pytest.raises(ValueError, match="out of order"):
        ranges.pack(wrong)


@pytest.mark.parametrize("text", ["", "A", "!!!!", "AAE=", "AIA=", "AAAA", "/38AAQ=="])
def test_what_was_not_packed_by_us_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ranges.unpack(text)
