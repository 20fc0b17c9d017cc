"""The thread that keeps a source's lease alive while the copy runs, and ends it as the copy ended.

What it is: begin, heartbeat, end. What it is not: the lease itself (a driver's), or the streams.
Where it stands: worker.py enters it before the first disk is opened, and leaves it when the last byte is proven, or when it failed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from reconciler.mover.pool import Stop

if TYPE_CHECKING:
    from reconciler.ports import LeasedDisk, SourceLease

log = logging.getLogger(__name__)

_JOIN_S = 5.0


class Keeper:
    """A context; `disks` is there inside of it. Where it is left without an error or a stop, the lease is completed, else aborted.

    A heartbeat that fails stops the job: what is read after the end of a lease may be anything.
    """

    def __init__(self, lease: SourceLease, percent: Callable[[], int], stop: Stop) -> None:
        self._lease, self._percent, self._stop = lease, percent, stop
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self.disks: Mapping[str, LeasedDisk] = {}

    def __enter__(self) -> Keeper:
        try:
            self.disks = self._lease.open()
        except BaseException:
            self._lease.abort()
            self._lease.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join(_JOIN_S)
        try:
            if error is None and not self._stop.requested:
                self._lease.complete()
            else:
                self._lease.abort()
        except Exception as err:  # the bytes are proven; a lease that will not end is ended by the site
            log.warning("lease could not be completed", extra={"error": str(err)})
            self._lease.abort()
        finally:
            self._lease.close()

    def _beat(self) -> None:
        try:
            while not self._end.wait(self._lease.heard_every_s):
                self._lease.progress(self._percent())
        except BaseException as err:  # a thread's boundary
            if not self._end.is_set():
                self._stop.request(err)
