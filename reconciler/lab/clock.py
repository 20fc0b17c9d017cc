"""The lab's own notion of time, so that tests can run simulated sites in simulated time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class LabClock(Protocol):
    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
