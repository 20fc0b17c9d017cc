"""Server-side apply and field ownership: merge, conflicts between managers, removal of what a manager no longer applies.

What it is: (live object, request) -> new object with its `managedFields`. What it is not: storage or admission.
Source: Kubernetes documentation, "Server-Side Apply"; structured-merge-diff for the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconciler.lab.cluster.failures import ApiError
from reconciler.lab.cluster.fieldsets import Path, from_fields, leaves, remove, shown, status_leaves, to_fields
from reconciler.lab.cluster.listkeys import SET, atomic_map, item_key, list_keys
from reconciler.lab.cluster.store import clone

Json = dict[str, Any]
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, as a managedFields entry names it."""

    manager: str
    operation: str  # Apply, Update
    api_version: str
    time: str
    subresource: str = ""

    @property
    def id(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource


@dataclass(slots=True)
class _Owned:
    entry: Json
    paths: set[Path]

    @property
    def id(self) -> tuple[str, str, str]:
        return self.entry["manager"], self.entry["operation"], self.entry.get("subresource", "")

    def shown(self) -> str:
        text = f'"{self.entry["manager"]}"'
        if subresource := self.entry.get("subresource"):
            text += f' with subresource "{subresource}"'
        if self.entry["operation"] == "Update":
            text += f" using {self.entry['apiVersion']} at {self.entry['time']}"
        return text


def _read(obj: Json) -> list[_Owned]:
    return [_Owned(dict(entry), from_fields(entry["fieldsV1"])) for entry in obj["metadata"].get("managedFields") or ()]


def _write(obj: Json, owned: list[_Owned]) -> None:
    entries = [{**o.entry, "fieldsV1": to_fields(o.paths)} for o in owned if o.paths]
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _own(owned: list[_Owned], writer: Writer, paths: set[Path], moved: bool) -> None:
    """Give `paths` to `writer`; the entry's time moves only when something changed, so that a repeated apply writes nothing."""
    mine = next((o for o in owned if o.id == writer.id), None)
    if mine is None:
        entry: Json = {"manager": writer.manager, "operation": writer.operation, "apiVersion": writer.api_version, "time": writer.time}
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": {}}
        if writer.subresource:
            entry["subresource"] = writer.subresource
        owned.append(_Owned(entry, paths))
        return
    if moved or mine.paths != paths:
        mine.entry["time"] = writer.time
    mine.paths = paths


def track(before: Json | None, after: Json, writer: Writer, custom: bool) -> None:
    """Record an Update (create, put, patch) in `after`: changed fields belong to the writer, and to nobody else any more."""
    read = status_leaves if writer.subresource == "status" else leaves
    old = read(before, custom) if before else {}
    new = read(after, custom)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    gone = set(old) - set(new)
    owned = _read(before) if before else []
    if not changed and not gone:
        _write(after, owned)
        return
    for other in owned:
        if other.id != writer.id:
            other.paths -= changed | gone
    mine = next((o.paths for o in owned if o.id == writer.id), set())
    _own(owned, writer, (mine | changed) - gone, moved=True)
    _write(after, owned)


def apply(live: Json | None, body: Json, writer: Writer, force: bool, custom: bool) -> Json:
    """The object after `body` was applied by `writer`. Errors: 409 when another manager owns a field with another value."""
    wanted = leaves(body, custom)
    if live is None:
        created: Json = clone(body)
        owned: list[_Owned] = []
        _own(owned, writer, set(wanted), moved=True)
        _write(created, owned)
        return created
    have, owned = leaves(live, custom), _read(live)
    merged: Json = _merge(clone(live), body, "", custom, in_metadata=False)
    will = leaves(merged, custom)
    differs = {path for path in wanted if will.get(path, _ABSENT) != have.get(path, _ABSENT)}
    others = [o for o in owned if o.id != writer.id and o.id[2] == ""]
    if not force:
        _refuse_conflicts([(o, sorted(o.paths & differs)) for o in others if o.paths & differs])
    mine: set[Path] = next((o.paths for o in owned if o.id == writer.id), set())
    for other in others:
        other.paths -= differs
    held: set[Path] = set().union(*(o.paths for o in others))
    dropped = sorted(mine - set(wanted) - held, key=len)
    for path in dropped:
        if not any(path != other and other[: len(path)] == path for other in held):
            remove(merged, path)
    _own(owned, writer, set(wanted), moved=bool(differs or dropped))
    _write(merged, owned)
    return merged


def _refuse_conflicts(clashes: list[tuple[_Owned, list[Path]]]) -> None:
    if not clashes:
        return
    count = sum(len(paths) for _, paths in clashes)
    parts = []
    for owner, paths in clashes:
        if len(paths) == 1:
            parts.append(f"conflict with {owner.shown()}: {shown(paths[0])}")
        else:
            parts.append(f"conflicts with {owner.shown()}:\n" + "\n".join(f"- {shown(path)}" for path in paths))
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner.shown()}", "field": shown(path)}
        for owner, paths in clashes
        for path in paths
    ]
    plural = "conflict" if count == 1 else "conflicts"
    raise ApiError(409, "Conflict", f"Apply failed with {count} {plural}: " + "\n".join(parts), {"causes": causes})


def _merge(live: Any, applied: Any, name: str, custom: bool, in_metadata: bool) -> Any:
    if isinstance(applied, dict) and isinstance(live, dict) and not atomic_map(name, custom):
        for key, value in applied.items():
            live[key] = _merge(live.get(key), value, key, custom, in_metadata or (name == "" and key == "metadata"))
        return live
    keys = list_keys(name, custom, in_metadata) if isinstance(applied, list) else None
    if not keys or not isinstance(live, list):
        return clone(applied)
    if keys == SET:
        return [*live, *(item for item in applied if item not in live)]
    for item in applied:
        wanted = item_key(item, keys)
        at = next((i for i, old in enumerate(live) if item_key(old, keys) == wanted), None)
        if at is None:
            live.append(clone(item))
        else:
            live[at] = _merge(live[at], item, "", custom, in_metadata)
    return live
