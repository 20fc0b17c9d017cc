"""Lists and single reads: selectors, pages with a continue token, and the stale answers that a fault asks for.

What it is: store -> bytes. A paged list is one snapshot: later pages do not see later writes.
What it is not: watches (streams.py).
"""

from __future__ import annotations

import base64
import json
import uuid
from collections import OrderedDict
from typing import Any

from reconciler.lab.cluster.failures import ApiError, bad_request, expired, not_found
from reconciler.lab.cluster.routes import Route
from reconciler.lab.cluster.selectors import Predicate, field_predicate, label_predicate
from reconciler.lab.cluster.store import Entry, Store, dump, key_of

Json = dict[str, Any]
_SNAPSHOTS_KEPT = 16


def predicate(route: Route) -> Predicate | None:
    """Both selectors of the query as one; None when there are none."""
    label, field = route.query.get("labelSelector", ""), route.query.get("fieldSelector", "")
    if not label and not field:
        return None
    by_label, by_field = label_predicate(label), field_predicate(route.kind, field)
    return lambda obj: by_label(obj) and by_field(obj)


class Lists:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshots: OrderedDict[str, tuple[int, list[Entry]]] = OrderedDict()

    def forget(self) -> None:
        """Every continue token is answered 410 from now on."""
        with self._store.lock:
            self._snapshots.clear()

    def get(self, route: Route, stale: bool) -> bytes:
        entry = self._store.entry(route.kind, route.namespace, route.name)
        if stale:
            change = self._store.last_change(route.kind, route.namespace, route.name)
            entry = change.before if change else entry
        if entry is None:
            raise not_found(route.kind, route.name)
        return entry.raw()

    def page(self, route: Route, stale: bool) -> bytes:
        with self._store.lock:
            token = route.query.get("continue", "")
            snapshot, start, rv, entries = self._resume(token) if token else self._begin(route, stale)
            limit = _limit(route.query.get("limit"))
            page = entries[start : start + limit] if limit else entries[start:]
            meta: Json = {"resourceVersion": str(rv)}
            left = len(entries) - start - len(page)
            if left > 0:
                meta["continue"] = self._keep(snapshot, start + len(page), rv, entries)
                if not route.query.get("labelSelector") and not route.query.get("fieldSelector"):
                    meta["remainingItemCount"] = left
        return _render(route, meta, page)

    def _begin(self, route: Route, stale: bool) -> tuple[str, int, int, list[Entry]]:
        entries, rv = self._store.entries(route.kind, route.namespace), self._store.rv
        if stale and (change := self._store.last_change(route.kind, route.namespace, None)):
            where = key_of(change.entry.obj)
            entries = [e for e in entries if key_of(e.obj) != where] + ([change.before] if change.before else [])
            entries.sort(key=lambda e: key_of(e.obj))
            rv = change.rv - 1
        wanted = predicate(route)
        if wanted is not None:
            entries = [entry for entry in entries if wanted(entry.obj)]
        return uuid.uuid4().hex, 0, rv, entries

    def _resume(self, token: str) -> tuple[str, int, int, list[Entry]]:
        try:
            raw = json.loads(base64.urlsafe_b64decode(token))
            snapshot, start = str(raw["snapshot"]), int(raw["start"])
        except (ValueError, KeyError, TypeError) as err:
            raise bad_request("continue key is not valid: " + type(err).__name__) from err
        if snapshot not in self._snapshots:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
                "the continue parameter, or use the continue token in this response to retrieve the remainder of the results."
            )
        rv, entries = self._snapshots[snapshot]
        return snapshot, start, rv, entries

    def _keep(self, snapshot: str, start: int, rv: int, entries: list[Entry]) -> str:
        self._snapshots[snapshot] = (rv, entries)
        self._snapshots.move_to_end(snapshot)
        while len(self._snapshots) > _SNAPSHOTS_KEPT:
            self._snapshots.popitem(last=False)
        return base64.urlsafe_b64encode(dump({"snapshot": snapshot, "start": start})).decode()


def _limit(text: str | None) -> int:
    try:
        return max(0, int(text or 0))
    except ValueError as err:
        raise ApiError(400, "BadRequest", f'strconv.ParseInt: parsing "{text}": invalid syntax') from err


def _render(route: Route, meta: Json, page: list[Entry]) -> bytes:
    head: Json = {"kind": f"{route.kind.kind}List", "apiVersion": route.kind.api_version, "metadata": meta}
    items = (entry.raw() if route.kind.custom else entry.item() for entry in page)
    return dump(head)[:-1] + b',"items":[' + b",".join(items) + b"]}\n"
