"""The lab's passing of time: acts that are due later, one lock, and a condition that tells waiting clients that something moved.

Where it stands: the ground of lab/world.py. Time is the LabClock's; nothing here sleeps, so a test may move the clock by hand.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from reconciler.lab.clock import LabClock


class Timeline:
    """Thread-safe: every method takes `lock`; whoever reads several things together holds it too."""

    def __init__(self, clock: LabClock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.moved = threading.Condition(self.lock)  # notified at each change
        self.revision = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._due_number = 0
        self._due_at: datetime | None = None

    def now(self) -> datetime:
        """The lab's time; inside something that was due, the time at which it was due."""
        with self.lock:
            return self._due_at or self.clock.now()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do `act` under the lock when the clock has moved by `seconds`."""
        with self.lock:
            self._due_number += 1
            heapq.heappush(self._due, (self.clock.monotonic() + seconds, self._due_number, act))

    def settle(self) -> None:
        """Let everything that is due happen, in order."""
        with self.lock:
            while self._due and self._due[0][0] <= self.clock.monotonic():
                due, _, act = heapq.heappop(self._due)
                outer = self._due_at
                self._due_at = self.clock.now() - timedelta(seconds=self.clock.monotonic() - due)
                try:
                    act()
                finally:
                    self._due_at = outer

    def touch(self) -> None:
        """Something a client may wait for has changed."""
        with self.lock:
            self.revision += 1
            self.moved.notify_all()
