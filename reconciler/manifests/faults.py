"""pydantic's errors -> Faults for people: the field, what it must be, and a hint. No model, no file.

What it is: wording. Values are quoted only where they are short words of a closed set, so that nothing secret is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from reconciler.manifests.spelling import did_you_mean
from reconciler.manifests.yamltext import Fault, Position, place_in

UNKNOWN_FIELD = "UnknownField"
_YAML_1_1_BOOLEANS = {"on": True, "yes": True, "y": True, "off": False, "no": False, "n": False, "true": True, "false": False}
_MUST_BE = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "float_type": "a number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "datetime_type": "an RFC 3339 time in quotes",
}


def path_of(loc: tuple[int | str, ...]) -> str:
    """("spec", "vms", 3, "id") -> spec.vms[3].id"""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def explain(err: ValidationError, model: type[BaseModel], places: Mapping[str, Position], start: Position) -> list[Fault]:
    """One Fault per field, in the order of the file."""
    found: dict[str, Fault] = {}
    for item in err.errors(include_url=False):
        loc = _without_union_branch(item["loc"], item["type"], places)
        path = path_of(loc)
        if path not in found:
            line, column = place_in(places, path, start)
            reason, message, hint = _words(item, loc, model)
            found[path] = Fault(line, column, path, reason, message, hint)
    return sorted(found.values(), key=lambda f: (f.line, f.column))


def _without_union_branch(loc: tuple[int | str, ...], kind: str, places: Mapping[str, Position]) -> tuple[int | str, ...]:
    """pydantic appends the tried branch of `bool | int | str`; that is no field of the file."""
    if kind in _MUST_BE and loc and loc[-1] in ("bool", "int", "str") and path_of(loc) not in places and path_of(loc[:-1]) in places:
        return loc[:-1]
    return loc


def _words(item: Any, loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, str, str]:
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return UNKNOWN_FIELD, f'unknown field "{loc[-1]}"', did_you_mean(str(loc[-1]), fields_at(model, loc[:-1]))
    if kind == "missing":
        return "MissingField", "is required", ""
    if kind == "literal_error":
        return "NotAllowed", f"must be {item['ctx']['expected']}, not {_shown(value)}", _literal_hint(value, item["ctx"]["expected"])
    if kind in _MUST_BE:
        return "WrongType", f"must be {_MUST_BE[kind]}, not {_shown(value)}", _type_hint(kind, value)
    if kind == "string_too_short":
        return "NotAllowed", "must not be empty", ""
    message = str(item["msg"])
    return "NotAllowed", message[:1].lower() + message[1:], ""


def _shown(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() if len(value) <= 40:
            return f'"{value}"'
        case int() | float():
            return str(value)
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return "text"


def _type_hint(kind: str, value: object) -> str:
    if kind == "bool_type" and isinstance(value, str) and value.lower() in _YAML_1_1_BOOLEANS:
        meant = str(_YAML_1_1_BOOLEANS[value.lower()]).lower()
        old = value.lower() not in ("true", "false")
        why = f"in YAML 1.2 a bare {value} is text" if old else "in quotes it is text"
        return f"{why}; write {meant} without quotes"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'put it in quotes: "{_shown(value)}"'
    if kind == "int_type" and isinstance(value, str) and value.strip().isdigit():
        return f"remove the quotes: {value.strip()}"
    return ""


def _literal_hint(value: object, expected: str) -> str:
    choices = [word for word in expected.replace(" or ", ", ").replace("'", "").split(", ") if word]
    if isinstance(value, bool) and "on" in choices:
        return 'write "on" or "off", in quotes'
    if isinstance(value, bool | int | float):
        return f'put it in quotes: "{_shown(value)}"' if _shown(value) in choices else ""
    return did_you_mean(value, choices) if isinstance(value, str) and value else ""


def fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that the block at `loc` knows, read from the JSON schema; used for hints only."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    node: Any = schema
    for part in loc:
        node = _branch(node, definitions)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return list(_branch(node, definitions).get("properties", {}))


def _branch(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Follow $ref and the non-null side of an optional."""
    while True:
        if "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in node:
            node = next((side for side in node["anyOf"] if side.get("type") != "null"), {})
        else:
            return node
