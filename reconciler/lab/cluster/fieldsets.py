"""Sets of fields in the FieldsV1 form of `managedFields`, and the paths inside an object that they name.

What it is: object -> {path: value} for its leaves, paths <-> FieldsV1, a printable path, removal of one path.
What it is not: who owns what (ownership.py).
Shape: a path is a tuple of FieldsV1 elements: 'f:spec', 'k:{"name":"a"}', 'v:"x"'. A keyed list item is a path of its own.
Source: sigs.k8s.io/structured-merge-diff, fieldpath.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from reconciler.lab.cluster.listkeys import SET, atomic_map, item_key, list_keys

Json = dict[str, Any]
Path = tuple[str, ...]
_SERVER_OWNED = frozenset(
    {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "generateName"}
    | {"deletionTimestamp", "deletionGracePeriodSeconds"}
)
_ITEM = object()  # stands for "this item is in the list"


def leaves(obj: Json, custom: bool) -> dict[Path, Any]:
    """Path -> value of everything in `obj` that a manager can own; type, identity and what the server writes itself left out."""
    found: dict[Path, Any] = {}
    for name, value in obj.items():
        if name in ("apiVersion", "kind", "status"):
            continue
        if name == "metadata":
            value = {k: v for k, v in value.items() if k not in _SERVER_OWNED}
            if not value:
                continue
        _walk(value, (f"f:{name}",), name, custom, found)
    return found


def status_leaves(obj: Json, custom: bool) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    if "status" in obj:
        _walk(obj["status"], ("f:status",), "status", custom, found)
    return found


def _walk(value: Any, path: Path, name: str, custom: bool, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value and not atomic_map(name, custom):
        for key, inner in value.items():
            _walk(inner, (*path, f"f:{key}"), key, custom, found)
        return
    keys = list_keys(name, custom, path[0] == "f:metadata") if isinstance(value, list) else None
    if not keys or not value:
        found[path] = value
        return
    for item in value:
        if keys == SET:
            found[(*path, f"v:{json.dumps(item)}")] = _ITEM
        else:
            key = (*path, f"k:{json.dumps(item_key(item, keys), separators=(',', ':'))}")
            found[key] = _ITEM
            for field, inner in item.items():
                _walk(inner, (*key, f"f:{field}"), field, custom, found)


def to_fields(paths: Iterable[Path]) -> Json:
    tree: Json = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return tree


def from_fields(tree: Json, prefix: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for element, inner in tree.items():
        if element == ".":
            found.add(prefix)
        elif inner:
            found |= from_fields(inner, (*prefix, element))
        else:
            found.add((*prefix, element))
    return found


def shown(path: Path) -> str:
    """As error messages spell it: .spec.containers[name="a"].image"""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items()) + "]"
        else:
            text += f"[={rest}]"
    return text


def remove(value: Any, path: Path) -> None:
    """Take the field or item at `path` out of `value`, and the maps and lists that it leaves empty."""
    kind, _, rest = path[0].partition(":")
    if kind == "f":
        if not isinstance(value, dict) or rest not in value:
            return
        if len(path) == 1:
            del value[rest]
        else:
            remove(value[rest], path[1:])
            if value[rest] in ({}, []):
                del value[rest]
    elif isinstance(value, list):
        at = _find(value, kind, json.loads(rest))
        if at is not None and len(path) == 1:
            del value[at]
        elif at is not None:
            remove(value[at], path[1:])


def _find(items: list[Any], kind: str, wanted: Any) -> int | None:
    if kind == "v":
        return items.index(wanted) if wanted in items else None
    keys = tuple(wanted)
    return next((i for i, item in enumerate(items) if item_key(item, keys) == wanted), None)
