"""Objects, resource versions and history: what etcd and the watch cache are to a real API server.

What it is: one lock, one counter, immutable object values (replace, never edit), and a bounded history per kind for watches.
What it is not: rules; registry.py and the controllers decide what may be written.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from reconciler.lab.clock import LabClock
from reconciler.lab.cluster.kinds import Kind

Json = dict[str, Any]
Key = tuple[str, str]
T = TypeVar("T")


def clone(value: T) -> T:
    """A deep copy of JSON data; several times faster than copy.deepcopy, which matters with thousands of objects."""
    return cast(T, _copy(value))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_copy(v) for v in value]
    return value


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Entry:
    """One version of one object, with its encodings kept: a list of thousands is then joined, not encoded."""

    __slots__ = ("_item", "_raw", "obj")

    def __init__(self, obj: Json) -> None:
        self.obj = obj
        self._raw: bytes | None = None
        self._item: bytes | None = None

    def raw(self) -> bytes:
        if self._raw is None:
            self._raw = dump(self.obj)
        return self._raw

    def item(self) -> bytes:
        """As it stands in a list of a built-in kind: without apiVersion and kind."""
        if self._item is None:
            self._item = dump({k: v for k, v in self.obj.items() if k not in ("apiVersion", "kind")})
        return self._item


@dataclass(frozen=True, slots=True)
class Change:
    """One step of history. `before` is what stood there, None for an addition."""

    rv: int
    type: str  # ADDED, MODIFIED, DELETED
    entry: Entry
    before: Entry | None


class Expired(Exception):
    """The history no longer reaches back to the version asked for."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {asked} ({oldest})")


def key_of(obj: Json) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


class Store:
    """Every public method may be called from any thread; hold `lock` to make several of them one step."""

    def __init__(self, clock: LabClock, history: int = 20_000) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.rv = 1
        self._clock = clock
        self._limit = history
        self._tables: dict[str, dict[Key, Entry]] = {}
        self._history: dict[str, deque[Change]] = {}
        self._floor: dict[str, int] = {}  # history is complete for versions above this
        self._by_uid: dict[str, tuple[Kind, Key]] = {}
        self._owned: dict[str, set[tuple[Kind, Key]]] = {}  # owner uid -> dependents
        self._deleting: dict[tuple[Kind, Key], None] = {}  # a dict, for its order
        self._versions: dict[str, int] = {}

    def timestamp(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    # ---- reads ----

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """The live value: never edit it, `clone` first."""
        entry = self.entry(kind, namespace, name)
        return entry.obj if entry else None

    def entry(self, kind: Kind, namespace: str, name: str) -> Entry | None:
        with self.lock:
            return self._tables.get(kind.resource, {}).get((namespace, name))

    def entries(self, kind: Kind, namespace: str = "") -> list[Entry]:
        """In etcd's order: by namespace, then name."""
        with self.lock:
            rows = list(self._tables.get(kind.resource, {}).items())
        if namespace:
            rows = [row for row in rows if row[0][0] == namespace]
        rows.sort(key=lambda row: row[0])
        return [entry for _, entry in rows]

    def all(self, kind: Kind, namespace: str = "") -> list[Json]:
        """In no order that means anything; what controllers look through."""
        with self.lock:
            rows = list(self._tables.get(kind.resource, {}).items())
        return [entry.obj for (where, _), entry in rows if not namespace or where == namespace]

    def deleting(self) -> list[tuple[Kind, Json]]:
        """Everything that has a deletionTimestamp."""
        with self.lock:
            found = [(kind, self.get(kind, *key)) for kind, key in self._deleting]
        return [(kind, obj) for kind, obj in found if obj is not None]

    def version(self, kind: Kind) -> int:
        """The resource version of the last change of this kind."""
        return self._versions.get(kind.resource, 0)

    def by_uid(self, uid: str) -> tuple[Kind, Json] | None:
        with self.lock:
            if (found := self._by_uid.get(uid)) is None:
                return None
            kind, (namespace, name) = found
            obj = self.get(kind, namespace, name)
            return (kind, obj) if obj else None

    def dependents(self, uid: str) -> list[tuple[Kind, Json]]:
        with self.lock:
            found = [(kind, self.get(kind, *key)) for kind, key in self._owned.get(uid, ())]
        return [(kind, obj) for kind, obj in found if obj is not None]

    def owner_uids(self) -> list[str]:
        with self.lock:
            return [uid for uid, dependents in self._owned.items() if dependents]

    def since(self, kind: Kind, rv: int) -> list[Change]:
        """Changes after `rv`, oldest first. Errors: Expired."""
        with self.lock:
            floor = self._floor.get(kind.resource, 0)
            if rv < floor:
                raise Expired(rv, floor)
            return list(_newer(self._history.get(kind.resource, deque()), rv))

    def last_change(self, kind: Kind, namespace: str, name: str | None) -> Change | None:
        """The newest step that touched this object, or this namespace when `name` is None."""
        with self.lock:
            for change in reversed(self._history.get(kind.resource, deque())):
                where = key_of(change.entry.obj)
                if (not namespace or where[0] == namespace) and name in (None, where[1]):
                    return change
        return None

    def forget_history(self) -> None:
        """Compaction: every watch from an older version is answered 410 from now on."""
        with self.lock:
            for resource in self._tables:
                self._history[resource] = deque()
                self._floor[resource] = self.rv
            self.rv += 1
            self.changed.notify_all()

    # ---- writes ----

    def insert(self, kind: Kind, obj: Json) -> Json:
        return self._write(kind, obj, "ADDED", None)

    def replace(self, kind: Kind, obj: Json) -> Json:
        """Write a new value; an equal one is no write. Removes the object when nothing holds it back any more."""
        with self.lock:
            before = self._tables[kind.resource][key_of(obj)]
            obj["metadata"]["resourceVersion"] = before.obj["metadata"]["resourceVersion"]
            if obj == before.obj:
                return before.obj
            meta = obj["metadata"]
            if kind.generation and obj.get("spec") != before.obj.get("spec"):
                meta["generation"] = before.obj["metadata"].get("generation", 0) + 1
            if meta.get("deletionTimestamp") and not _held(obj):
                return self._remove(kind, obj, before)
            return self._write(kind, obj, "MODIFIED", before)

    def remove(self, kind: Kind, obj: Json) -> Json:
        with self.lock:
            before = self._tables[kind.resource].get(key_of(obj))
            return self._remove(kind, clone(obj), before) if before else obj

    def _write(self, kind: Kind, obj: Json, type_: str, before: Entry | None) -> Json:
        with self.lock:
            self.rv += 1
            obj["metadata"]["resourceVersion"] = str(self.rv)
            entry, key = Entry(obj), key_of(obj)
            self._tables.setdefault(kind.resource, {})[key] = entry
            self._index(kind, key, before, entry)
            self._record(kind, Change(self.rv, type_, entry, before))
            return obj

    def _remove(self, kind: Kind, obj: Json, before: Entry) -> Json:
        self.rv += 1
        obj["metadata"]["resourceVersion"] = str(self.rv)
        key = key_of(obj)
        del self._tables[kind.resource][key]
        self._index(kind, key, before, None)
        self._record(kind, Change(self.rv, "DELETED", Entry(obj), before))
        return obj

    def _index(self, kind: Kind, key: Key, before: Entry | None, after: Entry | None) -> None:
        old, new = _owners(before), _owners(after)
        for uid in old - new:
            self._owned[uid].discard((kind, key))
            if not self._owned[uid]:
                del self._owned[uid]
        for uid in new - old:
            self._owned.setdefault(uid, set()).add((kind, key))
        if after is not None and after.obj["metadata"].get("deletionTimestamp"):
            self._deleting[(kind, key)] = None
        else:
            self._deleting.pop((kind, key), None)
        if after is None and before is not None:
            self._by_uid.pop(before.obj["metadata"]["uid"], None)
        elif after is not None:
            self._by_uid[after.obj["metadata"]["uid"]] = (kind, key)

    def _record(self, kind: Kind, change: Change) -> None:
        history = self._history.setdefault(kind.resource, deque())
        history.append(change)
        if len(history) > self._limit:
            self._floor[kind.resource] = history.popleft().rv
        self._versions[kind.resource] = change.rv
        self.changed.notify_all()


def _held(obj: Json) -> bool:
    """Finalizers, a pod's grace period, or a namespace's own finalizer keep a deleted object."""
    meta = obj["metadata"]
    in_spec = obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers")
    return bool(meta.get("finalizers") or meta.get("deletionGracePeriodSeconds") or in_spec)


def _owners(entry: Entry | None) -> set[str]:
    if entry is None:
        return set()
    return {ref["uid"] for ref in entry.obj["metadata"].get("ownerReferences") or () if ref.get("uid")}


def _newer(history: deque[Change], rv: int) -> Iterator[Change]:
    """The tail above `rv`, found from the right: watches ask for the last few."""
    tail: list[Change] = []
    for change in reversed(history):
        if change.rv <= rv:
            break
        tail.append(change)
    return reversed(tail)
