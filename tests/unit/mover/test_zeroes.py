"""Zero detection against looking at each byte."""

from __future__ import annotations

import itertools
import random

import pytest

from reconciler.mover.zeroes import BLOCK_BYTES, differing, is_zero, runs

LENGTHS = [0, 1, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 77, (1 << 20) + 1, (2 << 20) + 5]


@pytest.mark.parametrize("length", LENGTHS)
def test_one_bit_anywhere_is_seen(length: int) -> None:
    data = bytearray(length)
    assert is_zero(memoryview(data))
    for at in {0, length // 2, length - 1} & set(range(length)):
        data[at] = 1
        assert not is_zero(memoryview(data))
        data[at] = 0


@pytest.mark.parametrize("seed", range(20))
def test_runs_cover_the_view_and_zero_runs_are_zero(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(rng.choice(LENGTHS))
    for _ in range(rng.randrange(4)):
        if data:
            data[rng.randrange(len(data))] = 1
    found = list(runs(memoryview(data)))
    assert [start for start, _, _ in found] == [sum(length for _, length, _ in found[:n]) for n in range(len(found))]
    assert sum(length for _, length, _ in found) == len(data)
    assert all(not any(data[start : start + length]) for start, length, zero in found if zero)
    assert all(any(data[at : min(at + BLOCK_BYTES, start + length)]) for start, length, zero in found if not zero
               for at in range(start, start + length, BLOCK_BYTES))  # fmt: skip
    assert all(a[2] != b[2] for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("seed", range(20))
def test_differing_finds_each_changed_block_and_no_other(seed: int) -> None:
    rng = random.Random(seed)
    left = bytearray(rng.randbytes(rng.choice(LENGTHS)))
    right = bytearray(left)
    changed = set()
    for _ in range(rng.randrange(4)):
        if right:
            at = rng.randrange(len(right))
            right[at] ^= 0x10
            changed.add(at // BLOCK_BYTES)
    changed = {n for n in changed if left[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES] != right[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES]}
    found = list(differing(memoryview(left), memoryview(right)))
    assert {at // BLOCK_BYTES for start, length in found for at in range(start, start + length, BLOCK_BYTES)} == changed
    assert all(start % BLOCK_BYTES == 0 and 0 < length <= len(left) - start for start, length in found)
