"""Records of the status branch <-> YAML bytes. The same record always gives the same bytes.

What it is: core/record.py's dataclasses as camelCase YAML, fields in declared order, those at their default left out, times in RFC 3339
to the second, an Instant to the millisecond. What it is not: git, or the choice of what to write. A field that we do not know is an error
that names the file: a newer version wrote it, and dropping it would lose what it remembers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from reconciler.core.model import ObjectRef
from reconciler.core.record import Claim, Condition, Instant, ObjectStatus, RunRecord, VmRecord
from reconciler.core.target import Instance
from reconciler.errors import TerminalError
from reconciler.manifests.emit import dump
from reconciler.manifests.schema.registry import KINDS
from reconciler.manifests.schema.shapes import API_VERSION
from reconciler.manifests.spelling import camel
from reconciler.manifests.yamltext import parse

Record = VmRecord | RunRecord | Claim | ObjectStatus
R = TypeVar("R", VmRecord, RunRecord, Claim, ObjectStatus, Instance)


def render_vm(record: VmRecord) -> bytes:
    return dump(to_plain(record))


def render_run(record: RunRecord) -> bytes:
    return dump(to_plain(record))


def render_claim(record: Claim) -> bytes:
    return dump(to_plain(record))


def render_instance(record: Instance) -> bytes:
    return dump(to_plain(record))


def render_status(record: ObjectStatus) -> bytes:
    return dump(status_to_plain(record))


def parse_record(path: str, data: bytes, cls: type[R]) -> R:
    """Errors: TerminalError RecordUnreadable, naming the file, for anything but exactly such a record."""
    documents, faults = parse(data)
    if faults or len(documents) != 1 or not isinstance(documents[0].data, dict):
        why = faults[0].message if faults else "it must hold one mapping"
        raise TerminalError("RecordUnreadable", f"{path} on the status branch cannot be read: {why}; restore it from the branch's history")
    raw = documents[0].data
    try:
        return cast(R, _status_from_plain(raw) if cls is ObjectStatus else from_plain(raw, cls))
    except Exception as err:  # cattrs has a family of errors; every one of them means the same here
        raise TerminalError("RecordUnreadable", f"{path} on the status branch is not a {cls.__name__}: {_why(raw, cls, err)}") from err


def to_plain(record: object) -> dict[str, Any]:
    """A dataclass of core/record.py (or one inside it) as plain data."""
    return cast(dict[str, Any], _CONVERTER.unstructure(record))


def from_plain(raw: dict[str, Any], cls: type[Any]) -> Any:
    return _CONVERTER.structure(raw, cls)


def status_to_plain(record: ObjectStatus) -> dict[str, Any]:
    """With the frame that a person expects from `kubectl get -o yaml`."""
    body = to_plain(record)
    status = {key: body[key] for key in ("phase", "observedRevision", "counts", "details", "conditions") if key in body}
    return {"apiVersion": API_VERSION, "kind": record.kind, "metadata": body["ref"], "status": status}


def _status_from_plain(raw: dict[str, Any]) -> ObjectStatus:
    if raw.get("apiVersion") != API_VERSION or raw.get("kind") not in KINDS or set(raw) != {"apiVersion", "kind", "metadata", "status"}:
        raise ValueError("it must have exactly apiVersion, kind, metadata and status")
    return cast(ObjectStatus, from_plain({"kind": raw["kind"], "ref": raw["metadata"], **raw["status"]}, ObjectStatus))


def _why(raw: dict[str, Any], cls: type[Any], err: Exception) -> str:
    """Read once more, slowly, for a message with the path of the field."""
    from cattrs import transform_error

    if cls is ObjectStatus:
        return str(err)
    try:
        _converter(detailed=True).structure(raw, cls)
    except Exception as slow:
        return "; ".join(transform_error(slow)[:3])
    return str(err)


# ---- cattrs ---------------------------------------------------------------------------------------------------------------------------


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _instant_text(at: datetime) -> str:
    return f"{at.astimezone(UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def _time(value: Any, _: Any) -> datetime:
    if not isinstance(value, str) or not value.endswith("Z"):
        raise ValueError("must be an RFC 3339 time ending in Z")
    return datetime.fromisoformat(value)


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    """cattrs would turn 5 into "5"; a record holds what it says. A hook for str is asked for every StrEnum too."""

    def check(value: Any, target: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"must be {kind.__name__}, not {type(value).__name__}")
        return value if target is kind else target(value)

    return check


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"must be float, not {type(value).__name__}")
    return float(value)


def _converter(*, detailed: bool = False) -> Converter:
    conv = Converter(detailed_validation=detailed, forbid_extra_keys=True)
    for one in (str, int, bool):
        conv.register_structure_hook(one, _exactly(one))
    conv.register_structure_hook(float, _float)
    conv.register_structure_hook_func(lambda t: t is object, lambda value, _: value)
    conv.register_unstructure_hook_func(lambda t: t is object, lambda value: value)
    conv.register_structure_hook(datetime, _time)
    conv.register_unstructure_hook(datetime, time_text)
    conv.register_structure_hook(Instant, _time)
    conv.register_unstructure_hook(Instant, _instant_text)
    conv.register_unstructure_hook_factory(dataclasses.is_dataclass, lambda cls: _writer(conv, cls))
    conv.register_structure_hook_factory(dataclasses.is_dataclass, lambda cls: _reader(conv, cls))
    return conv


def _renames(cls: Any) -> dict[str, Any]:
    return {f.name: override(rename=camel(f.name)) for f in dataclasses.fields(cls)}


def _writer(conv: Converter, cls: Any) -> Callable[[Any], Any]:
    write = make_dict_unstructure_fn(cls, conv, _cattrs_omit_if_default=True, **_renames(cls))
    if cls is not Condition:
        return write

    def write_condition(value: Condition) -> dict[str, Any]:
        """Kubernetes' conditions have "True" and "False" as text."""
        return {**write(value), "status": str(value.status)}

    return write_condition


def _reader(conv: Converter, cls: Any) -> Callable[[Any, Any], Any]:
    read = make_dict_structure_fn(
        cls, conv, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=conv.detailed_validation, **_renames(cls)
    )
    if cls is not Condition:
        return read

    def read_condition(value: Any, target: Any) -> Any:
        status = value.get("status")
        if status not in ("True", "False"):
            raise ValueError('status must be "True" or "False"')
        return read({**value, "status": status == "True"}, target)

    return read_condition


_CONVERTER = _converter()


def ref_plain(ref: ObjectRef) -> dict[str, str]:
    return {"namespace": ref.namespace, "name": ref.name}
