"""YAML bytes -> plain data with the line and column of every field. Knows no kinds.

What it is: YAML 1.2 core scalars over libyaml's event stream (ruamel.yaml.clib). What it is not: a general YAML loader: no tags beyond
the core ones, no merge keys, keys are always text. Hostile input is bounded: size, depth, aliases and expanded nodes. The events are
taken one by one, because composing node graphs recurses in C and a deeply nested file would end the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import TerminalError

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_ALIASES = 1000
MAX_NODES = 200_000  # aliases expanded, per file

Position = tuple[int, int]  # line, column; from 1

_CORE = "tag:yaml.org,2002:"
_NUMBER_START = frozenset("-+.0123456789")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_CONFLICT = re.compile(rb"^(<<<<<<< |>>>>>>> )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem without its file: what load.py turns into a core Problem. Fields as there."""

    line: int
    column: int
    field: str
    reason: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document. `places`: dotted path (`spec.vms[3].name`) -> position of its key, or of the item in a list."""

    data: object
    line: int
    column: int
    places: Mapping[str, Position] = field(default_factory=dict)


def place_in(places: Mapping[str, Position], path: str, default: Position) -> Position:
    """Position of a field, or of the nearest thing around it that has one (missing fields, insides of aliases)."""
    while path:
        if path in places:
            return places[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return default


class _Stop(Exception):
    """The rest of the file is not read."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class _Reader:
    """One pass over the events of one file."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._anchors: dict[str, tuple[object, int]] = {}
        self._places: dict[str, Position] = {}
        self._nodes = 0
        self._aliases = 0
        self.long_quote: Any = None  # the newest quoted scalar of several lines
        self.faults: list[Fault] = []

    def documents(self) -> Iterator[YamlDocument]:
        while (event := self._parser.get_event()) is not None:
            if type(event).__name__ != "DocumentStartEvent":
                continue
            self._anchors, self._places = {}, {}
            first = self._parser.get_event()
            data = self._node(first, "", 0)
            line, column = _position(first)
            yield YamlDocument(data, line, column, self._places)

    def _node(self, event: Any, path: str, depth: int) -> object:
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._alias(event, path)
        before = self._nodes
        self._count(1, event, path)
        if kind == "ScalarEvent":
            value = self._scalar(event, path)
        else:
            if depth >= MAX_DEPTH:
                raise _Stop(_fault(event, path, "TooDeep", f"nested more than {MAX_DEPTH} levels deep"))
            self._check_tag(event, path, "map" if kind == "MappingStartEvent" else "seq")
            value = self._mapping(path, depth) if kind == "MappingStartEvent" else self._sequence(path, depth)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _mapping(self, path: str, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        prefix = f"{path}." if path else ""
        while type(event := self._parser.get_event()).__name__ != "MappingEndEvent":
            key = self._key(event, path, depth)
            here = prefix + key
            if key in found:
                line = self._places[here][0]
                self.faults.append(_fault(event, here, "DuplicateKey", f'key "{key}" is set twice; the first is in line {line}'))
            else:
                self._places[here] = _position(event)
            found[key] = self._node(self._parser.get_event(), here, depth + 1)
        return found

    def _key(self, event: Any, path: str, depth: int) -> str:
        """Keys are text as written, as in JSON: `1` and `on` are "1" and "on"."""
        if type(event).__name__ == "ScalarEvent":
            self._count(1, event, path)
            if event.value == "<<" and event.implicit[0]:
                fault = _fault(event, path, "MergeKey", "merge keys (<<) are not part of YAML 1.2", "write the fields out")
                self.faults.append(fault)
            return str(event.value)
        raise _Stop(_fault(event, path, "BadKey", "a key must be plain text, not a mapping, list or alias", _template_hint(event)))

    def _sequence(self, path: str, depth: int) -> list[object]:
        found: list[object] = []
        while type(event := self._parser.get_event()).__name__ != "SequenceEndEvent":
            here = f"{path}[{len(found)}]"
            self._places[here] = _position(event)
            found.append(self._node(event, here, depth + 1))
        return found

    def _alias(self, event: Any, path: str) -> object:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise _Stop(_fault(event, path, "TooManyAliases", f"more than {MAX_ALIASES} aliases in one file"))
        if event.anchor not in self._anchors:
            raise _Stop(_fault(event, path, "YamlInvalid", f"alias *{event.anchor} has no anchor before it"))
        value, weight = self._anchors[event.anchor]
        self._count(weight, event, path)
        return value

    def _count(self, nodes: int, event: Any, path: str) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _Stop(_fault(event, path, "TooLarge", f"more than {MAX_NODES} values in one file, with its aliases written out"))

    def _scalar(self, event: Any, path: str) -> object:
        text: str = event.value
        if event.style in ("'", '"') and event.end_mark.line > event.start_mark.line:
            self.long_quote = event
        if event.implicit[0]:
            return plain_scalar(text)
        if event.implicit[1] or event.tag in ("!", f"{_CORE}str"):
            return text
        value = plain_scalar(text)
        wanted = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(event.tag.removeprefix(_CORE))
        if wanted is None or type(value) is not wanted:
            self.faults.append(_fault(event, path, "BadTag", f"tag {event.tag} is not accepted here", "remove the tag"))
        return value

    def _check_tag(self, event: Any, path: str, name: str) -> None:
        if event.tag not in (None, "!", _CORE + name):
            self.faults.append(_fault(event, path, "BadTag", f"tag {event.tag} is not accepted here", "remove the tag"))


def plain_scalar(text: str) -> object:
    """YAML 1.2 core schema, so `on`, `yes` and `2026-09-12` are text. Source: YAML 1.2.2, 10.3.2."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in _NUMBER_START and len(text) <= 400:
        if _INT.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text[2:] if base != 10 else text, base)
        if _FLOAT.fullmatch(text) or _INFINITE.fullmatch(text):
            return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").lower().replace(".nan", "nan"))
    return text


def _position(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _fault(event: Any, path: str, reason: str, message: str, hint: str = "") -> Fault:
    line, column = _position(event)
    return Fault(line, column, path, reason, message, hint)


def _template_hint(event: Any) -> str:
    is_template = type(event).__name__ == "MappingStartEvent" and event.flow_style
    return "text with {{ }} must stand in quotes" if is_template else ""


def _new_parser(data: bytes) -> Any:
    try:
        from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined]
    except ImportError as err:
        raise TerminalError("YamlParserMissing", "the C parser of ruamel.yaml is not installed: pip install ruamel.yaml.clib") from err
    return CParser(data)


def parse(data: bytes) -> tuple[tuple[YamlDocument, ...], tuple[Fault, ...]]:
    """All documents up to the first syntax error, and everything that is wrong with the text."""
    from ruamel.yaml.error import YAMLError

    if len(data) > MAX_BYTES:
        return (), (Fault(1, 1, "", "TooLarge", f"a manifest file may have at most {MAX_BYTES} bytes", "split the file"),)
    conflict = _CONFLICT.search(data)
    if conflict:
        line = data.count(b"\n", 0, conflict.start()) + 1
        return (), (Fault(line, 1, "", "ConflictMarkers", "the file holds git conflict markers", "resolve the conflict"),)
    documents: list[YamlDocument] = []
    parser = _new_parser(data)
    reader = _Reader(parser)
    try:
        documents.extend(reader.documents())
    except _Stop as stop:
        reader.faults.append(stop.fault)
    except YAMLError as err:
        reader.faults.append(_open_quote(err, reader.long_quote) or _syntax_fault(err, data))
    finally:
        parser.dispose()
    return tuple(documents), tuple(reader.faults)


def _open_quote(err: Any, long_quote: Any) -> Fault | None:
    """A closing quote that is missing is noticed at the next quote, or at the end of the file; what helps is where it opened."""
    context, problem = getattr(err, "context", None) or "", getattr(err, "problem", None) or ""
    mark = getattr(err, "problem_mark", None)
    if context == "while scanning a quoted scalar" and ("end of stream" in problem or "document indicator" in problem):
        at = err.context_mark
        return Fault(at.line + 1, at.column + 1, "", "YamlInvalid", "not valid YAML: the quote that opens here is never closed")
    if long_quote is not None and mark is not None and mark.line == long_quote.end_mark.line:
        text = f"the quote that opens here is closed only in line {mark.line + 1}, where more text follows"
        return _fault(long_quote, "", "YamlInvalid", f"not valid YAML: {text}", "is its own closing quote missing?")
    return None


def _syntax_fault(err: Any, data: bytes) -> Fault:
    """libyaml's own words without its excerpt of the text, which may hold anything. What is never closed is told where it opened."""
    mark = getattr(err, "problem_mark", None) or getattr(err, "context_mark", None)
    if mark is not None:
        lines = data.decode(errors="replace").splitlines()
        if mark.line >= len(lines):
            mark = getattr(err, "context_mark", None) or mark
        words = " ".join(part for part in (getattr(err, "context", None), getattr(err, "problem", None)) if part)
        hint = "indent with spaces, not tabs" if "\\t" in words or "tab" in words.split() else ""
        beyond = mark.line >= len(lines)
        line, column = (len(lines), 1) if beyond else (mark.line + 1, mark.column + 1)
        return Fault(line, column, "", "YamlInvalid", f"not valid YAML: {words}", hint)
    at = getattr(err, "position", 0) or 0
    line = data.count(b"\n", 0, at) + 1
    return Fault(line, 1, "", "YamlInvalid", f"not valid YAML: {getattr(err, 'reason', 'unreadable bytes')}", "save the file as UTF-8")
