"""PVC sizes: rounding, overhead, and that a disk always fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.sizes import MIB, request_bytes
from reconciler.core.target import VolumeMode

FILE, BLOCK = VolumeMode.FILESYSTEM, VolumeMode.BLOCK


@pytest.mark.parametrize(
    ("capacity", "mode", "overhead", "want"),
    [
        (10 * MIB, BLOCK, 0.06, 10 * MIB),
        (10 * MIB + 1, BLOCK, None, 11 * MIB),
        (94 * MIB, FILE, 0.06, 100 * MIB),
        (94 * MIB, FILE, None, 100 * MIB),
        (90 * MIB, FILE, 0.1, 100 * MIB),
        (10 * MIB, FILE, 0.0, 10 * MIB),
        (1, FILE, 0.5, 2 * MIB),
    ],
)
def test_the_formula(capacity: int, mode: VolumeMode, overhead: float | None, want: int) -> None:
    assert request_bytes(capacity, mode, overhead) == want


def test_block_volumes_get_the_fixed_overhead_only() -> None:
    assert request_bytes(5 * MIB, BLOCK, 0.9, 4096) == 5 * MIB + 4096


@pytest.mark.parametrize(("capacity", "overhead"), [(0, 0.06), (-1, 0.06), (1, 1.0), (1, -0.1)])
def test_nonsense_is_refused(capacity: int, overhead: float) -> None:
    with pytest.raises(ValueError, match=r"."):
        request_bytes(capacity, FILE, overhead)


@given(st.integers(1, 1 << 50), st.integers(0, 99))
def test_what_is_left_after_the_overhead_holds_the_disk_and_no_byte_is_wasted(capacity: int, percent: int) -> None:
    asked = request_bytes(capacity, FILE, percent / 100)
    assert asked * (100 - percent) >= capacity * 100
    assert (asked - 1) * (100 - percent) < -(-capacity // MIB) * MIB * 100
