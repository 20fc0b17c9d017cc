"""The three client-side patch formats: JSON patch (RFC 6902), merge patch (RFC 7386), and strategic merge for built-in kinds.

What it is: pure functions over JSON data. What it is not: server-side apply (ownership.py).
"""

from __future__ import annotations

from typing import Any

from reconciler.lab.cluster.failures import ApiError, bad_request
from reconciler.lab.cluster.listkeys import SET, item_key, list_keys
from reconciler.lab.cluster.store import clone

Json = dict[str, Any]


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return clone(patch)
    result: Json = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge(target: Any, patch: Any) -> Any:
    """Merge patch with lists merged by their key, `$patch: delete|replace` and `$deleteFromPrimitiveList`."""
    if not isinstance(patch, dict):
        return clone(patch)
    if patch.get("$patch") == "replace":
        return clone({k: v for k, v in patch.items() if k != "$patch"})
    result: Json = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list) and (keys := list_keys(key, custom=False, in_metadata=False)):
            result[key] = _merge_list(result.get(key) or [], value, keys)
        else:
            result[key] = strategic_merge(result.get(key), value)
    return result


def _merge_list(live: list[Any], patch: list[Any], keys: tuple[str, ...]) -> list[Any]:
    if keys == SET:
        return [*live, *(clone(item) for item in patch if item not in live)]
    if any(item.get("$patch") == "replace" for item in patch):
        return [clone(item) for item in patch if "$patch" not in item]
    result = list(live)
    for item in patch:
        # Strategic merge knows one key a list; where apply needs several (ports), the first one is it.
        wanted = item_key(item, keys[:1])
        at = next((i for i, old in enumerate(result) if item_key(old, keys[:1]) == wanted), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(clone(item))
        else:
            result[at] = strategic_merge(result[at], item)
    return result


def json_patch(target: Json, operations: Any) -> Json:
    """RFC 6902, whole or not at all. Errors: 422 for a failed test or a missing path, 400 for what is no patch."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document: Json = clone(target)
    for operation in operations:
        try:
            document = _apply(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as err:
            message = (
                f"the server rejected our request due to an error in our request: {operation.get('op')} {operation.get('path')}: {err}"
            )
            raise ApiError(422, "Invalid", message) from err
    return document


def _tokens(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is not a JSON pointer")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _look(document: Any, tokens: list[str]) -> Any:
    for token in tokens:
        document = document[int(token)] if isinstance(document, list) else document[token]
    return document


def _apply(document: Json, operation: Json) -> Json:
    op, tokens = operation["op"], _tokens(operation["path"])
    if op == "test":
        if _look(document, tokens) != operation["value"]:
            raise ValueError("testing value failed")
        return document
    if op in ("move", "copy"):
        source = _tokens(operation["from"])
        value = clone(_look(document, source))
        if op == "move":
            _remove(_look(document, source[:-1]), source[-1])
    else:
        value = clone(operation.get("value"))
    if not tokens:
        return document if op == "remove" else dict(value)
    parent, last = _look(document, tokens[:-1]), tokens[-1]
    if op == "remove":
        _remove(parent, last)
    elif op in ("add", "move", "copy"):
        _add(parent, last, value)
    elif op == "replace":
        _look(parent, [last])
        if isinstance(parent, list):
            parent[int(last)] = value
        else:
            parent[last] = value
    else:
        raise ValueError(f"unknown operation {op!r}")
    return document


def _remove(parent: Any, token: str) -> None:
    del parent[int(token) if isinstance(parent, list) else token]


def _add(parent: Any, token: str, value: Any) -> None:
    if not isinstance(parent, list):
        parent[token] = value
    elif token == "-":
        parent.append(value)
    else:
        if int(token) > len(parent):
            raise IndexError("index out of bounds")
        parent.insert(int(token), value)
