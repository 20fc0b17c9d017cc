"""Numbers and times as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.report import numbers

from .sample import GIB

T0 = datetime(2026, 11, 24, 14, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (40 * GIB, "40 GiB"), (int(1.5 * GIB), "1.5 GiB"), (5000 * GIB, "4.9 TiB")],
)
def test_size(count: int, text: str) -> None:
    assert numbers.size(count) == text


def test_size_of_says_a_common_unit_once() -> None:
    assert numbers.size_of(36 * GIB, 80 * GIB) == "36 of 80 GiB"
    assert numbers.size_of(80 * GIB, 80 * GIB) == "80 GiB"
    assert numbers.size_of(500 * 1024**2, 80 * GIB) == "500 MiB of 80 GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (3.24, "3.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (252, "4 min 12 s"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (200000, "2 d 7 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "14:00:08"), (299, "14:05:04"), (300, "14:05"), (3600, "15:00"), (86400, "25 Nov 14:00"), (-3, "14:00:02")],
)
def test_a_moment_is_as_short_as_it_can_be_understood(seconds: int, text: str) -> None:
    assert numbers.moment(T0 + timedelta(seconds=seconds), T0) == text
