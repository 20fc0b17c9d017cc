"""Files -> typed documents with their places, and every problem found on the way.

Where it stands: after gitrepo (bytes by blob id), before resolve (documents joined into Desired). Knows no git and no platform.
Parsing and validation of a blob happen once and are kept by blob id in the caller's cache; the path plays no part in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.core.desired import Place, Problem, Severity
from reconciler.core.model import ObjectRef
from reconciler.errors import TerminalError
from reconciler.manifests.documents import ParsedDocument, ParsedFile, parse_file
from reconciler.manifests.faults import UNKNOWN_FIELD
from reconciler.manifests.schema.shapes import Manifest
from reconciler.manifests.yamltext import Fault, Position, place_in

DEFAULT_NAMESPACE = "openshift-mtv"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the desired tree. `data` may be None when the cache already knows the blob (see `missing`)."""

    path: str
    id: str
    data: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One manifest. `memo` belongs to resolve: what it derived from this document alone, so that an unchanged file costs nothing."""

    kind: str
    ref: ObjectRef
    model: Manifest
    path: str
    start: Position
    places: Mapping[str, Position]
    memo: dict[str, object] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        return f"{self.kind}/{self.ref}"

    def place(self, path: str = "") -> Place:
        return Place(self.path, *place_in(self.places, path, self.start))

    def problem(self, path: str, reason: str, message: str, hint: str = "", severity: Severity = Severity.ERROR) -> Problem:
        return Problem(self.place(path), self.identity, path, reason, message, hint, severity)


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """What one path at one blob contributes."""

    documents: tuple[Document, ...]
    identities: tuple[tuple[str, Place], ...]  # of everything with a name, broken or not
    problems: tuple[Problem, ...]
    broken: frozenset[str]
    ignored: int


@dataclass(slots=True)
class CacheEntry:
    """One blob: parsed once; placed once per (path, allow_unknown)."""

    parsed: ParsedFile
    placed: dict[tuple[str, bool], PlacedFile] = field(default_factory=dict)


Cache = dict[str, CacheEntry]


@dataclass(frozen=True, slots=True)
class Loaded:
    """documents: sound ones, in the order of the paths. broken: identities with an error. ignored: documents of other APIs."""

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()
    broken: frozenset[str] = frozenset()
    ignored: int = 0
    files: int = 0


def wants(path: str) -> bool:
    """Is this file a manifest? YAML by suffix, nothing below a hidden folder (.github, .git). Paths are relative to the tree's root."""
    return path.endswith((".yaml", ".yml")) and "/." not in f"/{path}"


def missing(ids: Iterable[str], cache: Cache) -> list[str]:
    """The blobs whose bytes `load` will need."""
    return [one for one in dict.fromkeys(ids) if one not in cache]


def load(files: Iterable[SourceFile], *, allow_unknown: bool = False, cache: Cache | None = None) -> Loaded:
    """Load a whole tree. The cache is left with exactly the blobs of this tree."""
    cache = {} if cache is None else cache
    placed: list[PlacedFile] = []
    seen: set[str] = set()
    for file in sorted((f for f in files if wants(f.path)), key=lambda f: f.path):
        entry = cache.get(file.id)
        if entry is None:
            entry = cache[file.id] = CacheEntry(parse_file(_bytes_of(file)))
        seen.add(file.id)
        key = (file.path, allow_unknown)
        here = entry.placed.get(key)
        if here is None:
            here = entry.placed[key] = _place(entry.parsed, file.path, allow_unknown)
        placed.append(here)
    for gone in cache.keys() - seen:
        del cache[gone]
    return _join(placed)


def _bytes_of(file: SourceFile) -> bytes:
    if file.data is None:
        raise TerminalError("BlobNotRead", f"{file.path}: its contents were not given and blob {file.id} is not in the cache")
    return file.data


def _place(parsed: ParsedFile, path: str, allow_unknown: bool) -> PlacedFile:
    documents: list[Document] = []
    identities: list[tuple[str, Place]] = []
    problems = [_problem(fault, path, "", allow_unknown) for fault in parsed.faults]
    broken: set[str] = set()
    for doc in parsed.documents:
        ref = _ref(doc)
        identity = f"{doc.kind}/{ref}" if ref else ""
        own = [_problem(fault, path, identity or doc.kind, allow_unknown) for fault in doc.faults]
        problems += own
        if ref:
            identities.append((identity, Place(path, *doc.start)))
        if any(p.severity is Severity.ERROR for p in own):
            broken.add(identity)
        elif ref and doc.model:
            documents.append(Document(doc.kind, ref, doc.model, path, doc.start, doc.places))
    return PlacedFile(tuple(documents), tuple(identities), tuple(problems), frozenset(broken - {""}), parsed.ignored)


def _ref(doc: ParsedDocument) -> ObjectRef | None:
    return ObjectRef(doc.namespace or DEFAULT_NAMESPACE, doc.name) if doc.name else None


def _problem(fault: Fault, path: str, identity: str, allow_unknown: bool) -> Problem:
    lenient = (allow_unknown and fault.reason == UNKNOWN_FIELD) or fault.reason == "InternalKind"
    severity = Severity.WARNING if lenient else Severity.ERROR
    return Problem(Place(path, fault.line, fault.column), identity, fault.field, fault.reason, fault.message, fault.hint, severity)


def _join(placed: list[PlacedFile]) -> Loaded:
    """Put the files together; the same identity twice is an error at both places, and neither counts."""
    first: dict[str, Place] = {}
    twice: dict[str, list[Place]] = {}
    for file in placed:
        for identity, place in file.identities:
            if identity in first:
                twice.setdefault(identity, [first[identity]]).append(place)
            else:
                first[identity] = place
    problems = [p for file in placed for p in file.problems]
    problems += [p for identity, places in twice.items() for p in _twice(identity, places)]
    return Loaded(
        documents=tuple(d for file in placed for d in file.documents if not twice or d.identity not in twice),
        problems=tuple(sorted(problems, key=lambda p: (p.place.path, p.place.line, p.place.column))),
        broken=frozenset(twice).union(*(file.broken for file in placed if file.broken)),
        ignored=sum(file.ignored for file in placed),
        files=len(placed),
    )


def _twice(identity: str, places: list[Place]) -> Iterable[Problem]:
    for place in places:
        others = ", ".join(str(p) for p in places if p != place)
        message = f"{identity} is defined {len(places)} times; also at {others}"
        yield Problem(place, identity, "metadata.name", "DuplicateIdentity", message, "rename one or remove it")
