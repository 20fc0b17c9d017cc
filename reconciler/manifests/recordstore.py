"""The status branch -> Records, reading only what changed since the last look.

Where it stands: after gitrepo's fetch, before decide. Knows trees and blob ids as ports give them; no git commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.model import ObjectRef
from reconciler.core.record import Claim, ObjectStatus, Records, RunRecord, VmRecord
from reconciler.core.target import Instance
from reconciler.errors import TerminalError
from reconciler.manifests import recordpaths
from reconciler.manifests.record import Record, parse_record
from reconciler.ports import Blob, Tree

Read = Callable[[Sequence[str]], Mapping[str, bytes]]


@dataclass(slots=True)
class _State:
    """One commit's worth. Never changed after it is finished; the next one starts as a copy."""

    ids: dict[str, str] = field(default_factory=dict)  # path -> blob id
    parsed: dict[str, Record] = field(default_factory=dict)  # path -> record
    runs: dict[ObjectRef, RunRecord] = field(default_factory=dict)
    vms: dict[tuple[ObjectRef, str], VmRecord] = field(default_factory=dict)
    claims: dict[tuple[str, str], Claim] = field(default_factory=dict)
    statuses: dict[tuple[str, ObjectRef], ObjectStatus] = field(default_factory=dict)

    def copy(self) -> _State:
        return _State(dict(self.ids), dict(self.parsed), dict(self.runs), dict(self.vms), dict(self.claims), dict(self.statuses))

    def slot(self, record: Record) -> tuple[dict[Any, Any], object]:
        """The mapping and the key of a record."""
        match record:
            case RunRecord():
                return self.runs, record.run
            case VmRecord():
                return self.vms, record.key
            case Claim():
                return self.claims, (record.site_uuid, record.vm_uuid)
            case ObjectStatus():
                return self.statuses, (record.kind, record.ref)


class RecordStore:
    """Keeps the last commit's records. A failed update leaves it as it was."""

    def __init__(self) -> None:
        self._state = _State()
        self._records = Records("")
        self._instance: tuple[str, Instance] = ("", Instance())  # blob id, parsed

    def update(self, tree: Tree, read: Read) -> Records:
        """Errors: TerminalError RecordUnreadable, naming the file."""
        if tree.commit and tree.commit == self._records.commit:
            return self._records
        state = self._state.copy()
        ids = {blob.path: blob.id for blob in tree.blobs}
        for path in state.ids.keys() - ids.keys():
            _forget(state, path)
        changed = [path for path, one in ids.items() if state.ids.get(path) != one]
        kinds = {path: kind for path in changed if (kind := _kind_of(path)) is not None}
        contents = read(list(dict.fromkeys(ids[path] for path in kinds))) if kinds else {}
        instance = self._read_instance(ids.get(recordpaths.INSTANCE, ""), read)
        for path in changed:
            _forget(state, path)
            state.ids[path] = ids[path]
        for path, kind in kinds.items():
            _remember(state, path, parse_record(path, contents[ids[path]], kind.value))
        archived = frozenset(plan for path in ids if (plan := recordpaths.archived_plan(path)))
        self._state, self._instance = state, instance
        self._records = Records(tree.commit, state.runs, state.vms, state.claims, state.statuses, archived, instance[1])
        return self._records

    def _read_instance(self, blob: str, read: Read) -> tuple[str, Instance]:
        if not blob:
            return ("", Instance())
        if blob == self._instance[0]:
            return self._instance
        return (blob, parse_record(recordpaths.INSTANCE, read([blob])[blob], Instance))


def parse_records(commit: str, files: Mapping[str, tuple[str, bytes]], store: RecordStore | None = None) -> Records:
    """All at once: path -> (blob id, bytes). With a store, blobs that it knows are not parsed again."""
    contents = dict(files.values())
    tree = Tree(commit, tuple(Blob(path, one) for path, (one, _) in files.items()))
    return (store or RecordStore()).update(tree, lambda ids: {one: contents[one] for one in ids})


def _kind_of(path: str) -> recordpaths.RecordKind | None:
    try:
        return recordpaths.kind_of(path)
    except ValueError as err:
        raise TerminalError("RecordUnreadable", f"{path} on the status branch: {err}") from err


def _forget(state: _State, path: str) -> None:
    state.ids.pop(path, None)
    record = state.parsed.pop(path, None)
    if record is not None:
        mapping, key = state.slot(record)
        if mapping.get(key) is record:
            del mapping[key]


def _remember(state: _State, path: str, record: Record) -> None:
    if path_of(record) != path:
        raise TerminalError("RecordUnreadable", f"{path} on the status branch holds the record that belongs at {path_of(record)}")
    mapping, key = state.slot(record)
    mapping[key] = record
    state.parsed[path] = record


def path_of(record: Record) -> str:
    match record:
        case RunRecord():
            return recordpaths.path_of_run(record.run)
        case VmRecord():
            return recordpaths.path_of_vm(record.run, record.slug)
        case Claim():
            return recordpaths.path_of_claim(record.site_uuid, record.vm_uuid)
        case ObjectStatus():
            return recordpaths.path_of_status(record.kind, record.ref)
