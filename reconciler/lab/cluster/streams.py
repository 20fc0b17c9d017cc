"""Answers that stay open: watches, and logs that are followed. Each is an iterator of byte chunks; the server frames and ends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reconciler.lab.cluster.failures import bad_request, expired
from reconciler.lab.cluster.kinds import Kind
from reconciler.lab.cluster.lists import predicate
from reconciler.lab.cluster.routes import Route
from reconciler.lab.cluster.selectors import Predicate
from reconciler.lab.cluster.store import Change, Expired, Store, dump

Json = dict[str, Any]
_BOOKMARK_EVERY_S = 60.0
_LOG_EVERY_S = 0.05
_LOOK_EVERY_S = 0.25  # how often an idle stream looks whether the client or the server has gone


def _event(type_: str, raw: bytes) -> bytes:
    return b'{"type":"' + type_.encode() + b'","object":' + raw + b"}\n"


def _bookmark(kind: Kind, rv: int) -> bytes:
    meta: Json = {"resourceVersion": str(rv), "creationTimestamp": None}
    return _event("BOOKMARK", dump({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}))


def _seen(change: Change, namespace: str, wanted: Predicate | None) -> bytes | None:
    """One change as this watch sees it: entering or leaving a selector is an addition or a deletion."""
    obj = change.entry.obj
    if namespace and obj["metadata"].get("namespace") != namespace:
        return None
    if wanted is None:
        return _event(change.type, change.entry.raw())
    now = change.type != "DELETED" and wanted(obj)
    before = change.before is not None and wanted(change.before.obj)
    if not now and not before:
        return None
    type_ = "MODIFIED" if now and before else "ADDED" if now else "DELETED"
    return _event(type_, change.entry.raw())


def watch(store: Store, route: Route, gone: Callable[[], bool]) -> Iterator[bytes]:
    """Wall time is used here on purpose: a client's timeout is real even where the cluster's clock is simulated."""
    wanted = predicate(route)
    asked = route.query.get("resourceVersion", "")
    if asked and not asked.isdigit():
        raise bad_request(f"invalid resource version {asked!r}")
    timeout = float(route.query.get("timeoutSeconds") or 0) or 1800.0
    return _watch(store, route, wanted, int(asked or 0), timeout, gone)


def _watch(store: Store, route: Route, wanted: Predicate | None, rv: int, timeout_s: float, gone: Callable[[], bool]) -> Iterator[bytes]:
    bookmarks = route.flag("allowWatchBookmarks")
    if rv == 0:
        with store.lock:
            entries, rv = store.entries(route.kind, route.namespace), store.rv
        yield from (_event("ADDED", e.raw()) for e in entries if wanted is None or wanted(e.obj))
        if route.flag("sendInitialEvents") and bookmarks:
            yield _bookmark(route.kind, rv)
    end = time.monotonic() + timeout_s
    marked = time.monotonic()
    while not gone():
        try:
            changes, rv_now = _wait(store, route.kind, rv, min(end - time.monotonic(), _LOOK_EVERY_S))
        except Expired as err:
            yield _event("ERROR", dump(expired(str(err)).body()))
            return
        for change in changes:
            if (event := _seen(change, route.namespace, wanted)) is not None:
                yield event
        rv, now = rv_now, time.monotonic()
        if bookmarks and (now - marked >= _BOOKMARK_EVERY_S or now >= end):
            yield _bookmark(route.kind, rv)
            marked = now
        if now >= end:
            return


def _wait(store: Store, kind: Kind, rv: int, seconds: float) -> tuple[list[Change], int]:
    """Changes of the kind after `rv`, and the version up to which that is complete. A version ahead of the store waits."""
    with store.lock:
        changes = store.since(kind, rv)
        if not changes and seconds > 0:
            store.changed.wait(seconds)
            changes = store.since(kind, rv)
        return changes, max(rv, store.rv)


def follow_log(path: Path, offset: int, running: Callable[[], bool], gone: Callable[[], bool]) -> Iterator[bytes]:
    """From `offset` until the container has ended and everything is sent. The file is held open: its pod may be removed meanwhile."""
    while not path.exists():
        if gone() or not running():
            return
        time.sleep(_LOG_EVERY_S)
    with path.open("rb") as log:
        log.seek(offset)
        while not gone():
            alive = running()
            while chunk := log.read(1 << 16):
                yield chunk
            if not alive:
                return
            time.sleep(_LOG_EVERY_S)
