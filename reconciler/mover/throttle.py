"""A bandwidth limit for all lanes of a job together.

What it is: a virtual schedule (each request is booked behind the earlier ones). What it is not: a queue; who waits, sleeps.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.ports import Clock


_BURST_S = 0.25


class Throttle:
    """Thread-safe. None = no limit. Units: bytes per second."""

    def __init__(self, bytes_per_s: int | None, clock: Clock) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._booked_until = clock.monotonic()

    def take(self, length: int) -> None:
        """Return when `length` bytes may be read."""
        if not self._rate:
            return
        with self._lock:
            now = self._clock.monotonic()
            self._booked_until = max(self._booked_until, now - _BURST_S) + length / self._rate
            pause = self._booked_until - now
        if pause > 0:
            self._clock.sleep(pause)
