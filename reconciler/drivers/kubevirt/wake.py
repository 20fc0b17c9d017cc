"""Watches that wake the loop early: "something of ours changed", nothing more.

What it is: two background threads, one for Jobs and one for PVCs, by our label, each holding one watch. What it is not: a source of truth;
the next pass reads the whole state. A lost watch costs time only, so trouble here is never an error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from reconciler.drivers.kubevirt import labels
from reconciler.drivers.kubevirt import resources as kinds
from reconciler.drivers.kubevirt.api import Api, Watch
from reconciler.drivers.kubevirt.resources import Resource
from reconciler.errors import ReconcilerError

log = logging.getLogger(__name__)

_OURS = {"labelSelector": f"{labels.MANAGED_BY}={labels.MANAGER}"}
_WATCH_S = 300  # shorter than the idle limit of usual proxies
_PAUSE_S = 10.0  # after a watch that could not be opened
_LAST_S = 1.0  # a server that hangs while a watch is opened: the thread ends with the request, and nobody waits for it


class Wake:
    """`notify` is called from these threads, must return at once, and may be called for nothing."""

    def __init__(self, api: Api, notify: Callable[[], None]) -> None:
        self._api = api
        self._notify = notify
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[str, Watch] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(kind,), name=f"wake-{kind.plural}", daemon=True)
            for kind in (kinds.JOBS, kinds.VOLUMES)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stopping.set()
        with self._lock:
            for watch in self._open.values():
                watch.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_LAST_S)
        self._api.close()

    def _run(self, resource: Resource) -> None:
        while not self._stopping.is_set():
            try:
                watch = self._api.watch(resource, _OURS, _WATCH_S)
            except ReconcilerError as err:
                log.debug("watch not opened", extra={"kind": resource.kind, "reason": err.reason})
                self._stopping.wait(_PAUSE_S)
                continue
            self._follow(resource.plural, watch)

    def _follow(self, name: str, watch: Watch) -> None:
        """Notify at once: what changed between two watches was seen by neither."""
        with self._lock:
            self._open[name] = watch
        try:
            self._notify()
            while not self._stopping.is_set() and watch.wait():
                self._notify()
        finally:
            with self._lock:
                del self._open[name]
            watch.close()
