"""One file's bytes -> its Forklift documents, validated against their models. Path-free, so that it can be kept by blob id.

What it is: choosing the kind, and pydantic. What it is not: YAML (yamltext.py), wording (faults.py), identity across files (load.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from reconciler.manifests.faults import UNKNOWN_FIELD, explain
from reconciler.manifests.schema.registry import INTERNAL_KINDS, KINDS
from reconciler.manifests.schema.shapes import API_VERSION, Manifest
from reconciler.manifests.spelling import did_you_mean
from reconciler.manifests.yamltext import Fault, Position, YamlDocument, parse, place_in

_GROUP = API_VERSION.split("/")[0]


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """`model` is None when a fault other than unknown fields was found."""

    kind: str
    namespace: str
    name: str
    model: Manifest | None
    start: Position
    places: Mapping[str, Position]
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedFile:
    documents: tuple[ParsedDocument, ...]
    faults: tuple[Fault, ...]
    ignored: int


def parse_file(data: bytes) -> ParsedFile:
    raw, faults = parse(data)
    documents: list[ParsedDocument] = []
    loose = list(faults)
    ignored = 0
    for doc in (item for top in raw for item in _unpack(top)):
        match _sort(doc):
            case ParsedDocument() as ours:
                documents.append(ours)
            case Fault() as fault:
                loose.append(fault)
            case None:
                ignored += doc.data is not None
    return ParsedFile(tuple(documents), tuple(loose), ignored)


def _unpack(doc: YamlDocument) -> Iterator[YamlDocument]:
    """The items of a `kind: List`, which is what `kubectl get -o yaml` prints for several objects; else the document itself."""
    data = doc.data
    if not isinstance(data, dict) or data.get("kind") != "List" or not isinstance(data.get("items"), list):
        yield doc
        return
    places: dict[str, dict[str, Position]] = {}
    for path, position in doc.places.items():
        if path.startswith("items[") and "]." in path:
            head, _, tail = path.partition("].")
            places.setdefault(head + "]", {})[tail] = position
    for index, item in enumerate(data["items"]):
        key = f"items[{index}]"
        line, column = place_in(doc.places, key, (doc.line, doc.column))
        yield YamlDocument(item, line, column, places.get(key, {}))


def _sort(doc: YamlDocument) -> ParsedDocument | Fault | None:
    """Ours, wrong, or somebody else's (None)."""
    data = doc.data
    if not isinstance(data, dict):
        return None
    version, kind = data.get("apiVersion"), data.get("kind")
    if version == API_VERSION and isinstance(kind, str) and kind in KINDS:
        return _validate(doc, kind, data)
    if version == "v1" and kind == "Secret" and (data.get("data") or data.get("stringData")):
        return _fault(
            doc, "data" if data.get("data") else "stringData", "SecretInGit", "a Secret with its contents is in git", _SECRET_HINT
        )
    group = version.split("/")[0] if isinstance(version, str) else ""
    if group == _GROUP:
        return _wrong_kind(doc, version, kind)
    if version is None and isinstance(kind, str) and kind in KINDS and "spec" in data:
        return _fault(doc, "", "MissingField", "apiVersion is required", f"write apiVersion: {API_VERSION}")
    return None


_SECRET_HINT = "change the password, remove the file, and use a SealedSecret, an ExternalSecret or a Secret made by hand in the cluster"


def _wrong_kind(doc: YamlDocument, version: object, kind: object) -> Fault:
    if version != API_VERSION:
        return _fault(doc, "apiVersion", "NotAllowed", f'apiVersion "{version}" is not known', f"write {API_VERSION}")
    if not isinstance(kind, str):
        return _fault(doc, "kind", "MissingField", "kind is required", f"one of {', '.join(KINDS)}")
    if kind in INTERNAL_KINDS:
        return _fault(doc, "kind", "InternalKind", f"{kind} objects are made by controllers; ignored", "remove it from the repo")
    return _fault(doc, "kind", "UnknownKind", f'unknown kind "{kind}"', did_you_mean(kind, KINDS))


def _fault(doc: YamlDocument, path: str, reason: str, message: str, hint: str = "") -> Fault:
    return Fault(*place_in(doc.places, path, (doc.line, doc.column)), path, reason, message, hint)


def _validate(doc: YamlDocument, kind: str, data: dict[str, object]) -> ParsedDocument:
    model = KINDS[kind].model
    start = (doc.line, doc.column)
    parsed = ParsedDocument(kind, _text(data, "namespace"), _text(data, "name"), None, start, doc.places)
    try:
        return replace(parsed, model=model.model_validate(data))
    except ValidationError as err:
        faults = explain(err, model, doc.places, start)
        locs = [item["loc"] for item in err.errors(include_url=False) if item["type"] == "extra_forbidden"]
    if any(fault.reason != UNKNOWN_FIELD for fault in faults):
        return replace(parsed, faults=tuple(faults))
    known = data
    for loc in locs:
        known = _without(known, loc)
    return replace(parsed, faults=tuple(faults), model=model.model_validate(known))


def _text(data: dict[str, object], key: str) -> str:
    metadata = data.get("metadata")
    value = metadata.get(key) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""


def _without(data: object, loc: tuple[int | str, ...]) -> dict[str, object]:
    """A copy without the field at `loc`; only the blocks on the way to it are copied."""
    return _cut(data, loc)  # type: ignore[return-value]


def _cut(node: object, loc: tuple[int | str, ...]) -> object:
    head, rest = loc[0], loc[1:]
    if isinstance(node, dict):
        return {k: _cut(v, rest) if k == head else v for k, v in node.items() if rest or k != head}
    if isinstance(node, list):
        return [_cut(v, rest) if i == head else v for i, v in enumerate(node)]
    return node
