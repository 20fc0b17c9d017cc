"""Manifests made from a CRD's own schema: for each field good values, a value of another type, and an unknown neighbour. Pure.

What it is: an exhaustive walk, one deviation per manifest from a minimal one, so that a refusal names its cause.
What it is not: combinations of fields, or rules that only Forklift's webhooks know.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
_DEPTH = 9  # below spec; the affinity of pods ends at eight
# Fields whose schema says "text" and whose meaning says "one of these words".
_WORDS = {"operator": "In", "step": "PreHook"}


@dataclass(frozen=True, slots=True)
class Case:
    """`path`: dotted, below the manifest. `what`: the deviation, for a person and for the list of known differences."""

    kind: str
    path: str
    what: str
    manifest: Json

    def __str__(self) -> str:
        return f"{self.kind} {self.path} {self.what}"


def cases(kind: str, spec_schema: Json, base: Json) -> Iterator[Case]:
    yield Case(kind, "", "minimal", base)
    for path, what, spec in _object(spec_schema, base["spec"], 0):
        yield Case(kind, ".".join(("spec", *path)), what, {**copy.deepcopy(base), "spec": spec})


Step = tuple[tuple[str, ...], str, Any]


def _object(schema: Json, base: Any, depth: int) -> Iterator[Step]:
    """Variations of an object that starts as `base`."""
    yield (), "unknown field", {**base, "noSuchField": "x"}
    for name in schema.get("required", ()):
        if name in base:
            yield (name,), "missing", {key: value for key, value in base.items() if key != name}
    for name, inner in schema.get("properties", {}).items():
        for path, what, value in _value(inner, base.get(name), depth + 1, name):
            yield (name, *path), what, {**copy.deepcopy(base), name: value}


def _value(schema: Json, base: Any, depth: int, name: str = "") -> Iterator[Step]:
    if depth > _DEPTH:
        return
    for what, value in _plain(schema, name):
        yield (), what, value
    match schema.get("type"):
        case "object" if "properties" in schema:
            yield (), "minimal", base if isinstance(base, dict) else minimal(schema)
            yield from _object(schema, base if isinstance(base, dict) else minimal(schema), depth)
        case "array":
            first = base[0] if base else minimal(schema["items"])
            for path, what, value in _value(schema["items"], first, depth):
                yield ("[]", *path), what, [value]
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            for path, what, value in _value(schema["additionalProperties"], None, depth):
                yield ("{}", *path), what, {"key": value}


def _plain(schema: Json, name: str) -> Iterator[tuple[str, Any]]:
    """Good values and a bad one of a scalar; the bad ones of a container."""
    if schema.get("x-kubernetes-int-or-string"):
        yield from (("number", 1), ("quantity", "20Gi"), ("bad", {"a": 1}))
        return
    match schema.get("type"):
        case "string" if "enum" in schema:
            yield from ((f"= {value!r}", value) for value in schema["enum"])
            yield from (("bad word", "no-such-word"), ("bad", 5))
        case "string":
            yield from (("text", good_text(schema, name)), ("bad", 5), ("bad bool", True))
            if schema.get("format") == "date-time" or "pattern" in schema:
                yield "bad word", "!"
            else:
                yield "empty", ""
        case "boolean":
            yield from (("true", True), ("false", False), ("bad", "true"), ("bad number", 1))
        case "integer":
            yield from (("one", 1), ("bad", "1"), ("bad fraction", 1.5), ("negative", -1), ("zero", 0))
        case "array":
            yield from (("empty", []), ("bad", {"a": 1}), ("bad text", "x"))
        case "object":
            yield from (("bad", [1]), ("bad text", "x"))
    yield "null", None


def minimal(schema: Json, name: str = "") -> Any:
    match schema.get("type"):
        case "object":
            return {name: minimal(schema["properties"][name], name) for name in schema.get("required", ())}
        case "array":
            return [minimal(schema["items"])] if schema.get("minItems") else []
        case "boolean":
            return True
        case "integer":
            return max(1, schema.get("minimum", 1))
    return good_text(schema, name)


def good_text(schema: Json, name: str) -> str:
    if name in _WORDS:
        return _WORDS[name]
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema.get("format") == "date-time":
        return "2026-09-12T22:00:00Z"
    return "10" if "pattern" in schema else "x"
