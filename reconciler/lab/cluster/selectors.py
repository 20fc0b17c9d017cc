"""Label and field selectors in the API's own syntax.

What it is: text -> predicate over one object. Source: Kubernetes documentation, "Labels and Selectors" and "Field Selectors".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from reconciler.lab.cluster.failures import bad_request
from reconciler.lab.cluster.kinds import Kind

Json = dict[str, Any]
Predicate = Callable[[Json], bool]
_SET = re.compile(r"^\s*(?P<key>[\w./-]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)\s*$")
_EXISTS = re.compile(r"^\s*(?P<not>!?)\s*(?P<key>[\w./-]+)\s*$")


def _terms(text: str) -> Iterator[str]:
    """Split at commas that stand outside parentheses."""
    return (term for term in re.split(r",(?![^()]*\))", text) if term.strip())


def _label_term(term: str) -> Callable[[Json], bool]:
    if match := _SET.match(term):
        key, values = match["key"], {v.strip() for v in match["values"].split(",")}
        if match["op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.match(term):
        key, value = match["key"], match["value"]
        if match["op"] == "!=":
            return lambda labels: bool(labels.get(key) != value)
        return lambda labels: bool(labels.get(key) == value)
    if match := _EXISTS.match(term):
        key = match["key"]
        if match["not"]:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise bad_request(f"unable to parse requirement: found '{term}', expected: a label selector")


def label_predicate(text: str) -> Predicate:
    terms = [_label_term(term) for term in _terms(text)]
    return lambda obj: all(term(obj["metadata"].get("labels") or {}) for term in terms)


def _field(obj: Json, path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def field_predicate(kind: Kind, text: str) -> Predicate:
    """Errors: 400 for a field that the kind does not index, as a real server answers."""
    terms: list[tuple[str, bool, str]] = []
    for term in _terms(text):
        match = re.match(r"^\s*(?P<key>[\w.]+)(?P<op>==|=|!=)(?P<value>.*)$", term)
        if match is None:
            raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
        if match["key"] not in ("metadata.name", "metadata.namespace", *kind.labels):
            raise bad_request(f"field label not supported: {match['key']}")
        terms.append((match["key"], match["op"] != "!=", match["value"]))
    return lambda obj: all((_field(obj, key) == value) is same for key, same, value in terms)
