"""Threads that carry bytes: N lanes shared fairly by the disks of a job, the first error wins, everything stops cleanly.

What it is: who works on what, and how it ends. What it is not: what a lane does (copy.py, verify.py); the lanes bound the memory, one
request buffer each, so there is no queue that could grow.
Where it stands: worker.py starts one pool per phase and waits for it, printing progress meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

log = logging.getLogger(__name__)


class Stop:
    """One latch for the whole job. The first reason wins; later ones are only logged."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.RLock()  # a signal handler may come in while its own thread is here
        self.error: BaseException | None = None

    def request(self, error: BaseException) -> None:
        with self._lock:
            if self.error is None:
                self.error = error
            else:
                log.debug("error after the stop", extra={"error": str(error)})
        self._event.set()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but not through a stop. True if it came."""
        return self._event.wait(seconds)


class Lane(Protocol):
    """One thread's hold on one disk: a connection and a buffer."""

    def step(self) -> bool:
        """Deal with the next chunk. False when this disk has none left to hand out."""
        ...

    def close(self) -> None: ...


class Work(Protocol):
    """One disk in one phase. `open_lane` is called from the thread that will use the lane."""

    @property
    def handed_out(self) -> bool: ...
    def open_lane(self) -> Lane: ...


class Pool:
    """`lanes` threads over all `works`, and one thread for each of `background` (flushers), which end by themselves.

    Fair: a free thread goes to the unfinished disk that the fewest threads are on, so no more than `lanes` connections exist.
    Threads are daemons: a peer that hangs in the middle of a read cannot keep the process from ending.
    """

    def __init__(self, works: Sequence[Work], lanes: int, stop: Stop, background: Sequence[Callable[[], None]] = ()) -> None:
        self._works = list(works)
        self._on = [0] * len(self._works)
        self._lock = threading.Lock()
        self._stop = stop
        count = max(1, lanes) if self._works else 0
        self._lanes = [threading.Thread(target=self._guard, args=(self._carry,), name=f"lane-{n}", daemon=True) for n in range(count)]
        self._flushers = [threading.Thread(target=self._guard, args=(task,), name="flush", daemon=True) for task in background]

    def start(self) -> None:
        for thread in self._lanes + self._flushers:
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the end or a stop. True when all threads have ended."""
        for thread in self._lanes + self._flushers:
            if thread.is_alive():
                thread.join(seconds)
                break
        return not any(thread.is_alive() for thread in self._lanes + self._flushers)

    def settle(self, lanes_s: float, flush_s: float) -> None:
        """After a stop: the last flush gets `flush_s` in all, then the lanes `lanes_s` in all; what hangs longer is left behind."""
        for thread in self._flushers:
            thread.join(flush_s / len(self._flushers))
        for thread in self._lanes:
            thread.join(lanes_s / len(self._lanes))

    def _guard(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as err:  # a thread's boundary: whatever it was, it stops the job and is reported once
            self._stop.request(err)

    def _carry(self) -> None:
        while not self._stop.requested:
            at = self._claim()
            if at is None:
                return
            lane = self._works[at].open_lane()
            try:
                while not self._stop.requested and lane.step():
                    pass
            finally:
                lane.close()
                with self._lock:
                    self._on[at] -= 1

    def _claim(self) -> int | None:
        with self._lock:
            left = [at for at, work in enumerate(self._works) if not work.handed_out]
            if not left:
                return None
            at = min(left, key=lambda candidate: self._on[candidate])
            self._on[at] += 1
            return at
