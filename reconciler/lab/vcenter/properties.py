"""Reading properties: paths of one object -> XML, and filter specs -> the objects they select.

What it is not: a session, a page or an update (collector.py). Rendered objects are cached until their revision moves, because a vCenter
answers for 10,000 VMs from memory.
Source: vSphere Web Services API 8.0.2, PropertyCollector: PropertySpec, ObjectSpec, TraversalSpec, MissingProperty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.lab.vcenter import faults, soap
from reconciler.lab.vcenter.inventory import Inventory, Node
from reconciler.lab.vcenter.vmomi import support, vim, vmodl

_NOTHING = object()
UNSET_ASSIGNED = "a new object's properties without a value are assigned, without a value"
UNSET_ON_LATER_PAGES = "from the second page on, properties without a value are listed, without a value"
NO_EVENTS = "there is no event history"
NO_SESSION_MISSING = "a read without a session is answered, with NotAuthenticated in each missingSet"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One object: (path, `val` element) of what is set, in the order asked, and the `missingSet` elements."""

    ref: str
    values: tuple[tuple[str, str], ...]
    missing: str

    def content(self, listed: Sequence[str] = ()) -> str:
        """`listed`: paths that are named though they have no value."""
        known = {path for path, _ in self.values}
        props = "".join(f"<propSet><name>{path}</name>{val}</propSet>" for path, val in self.values)
        props += "".join(f"<propSet><name>{path}</name></propSet>" for path in listed if path not in known)
        return f"{self.ref}{props}{self.missing}"


class Reader:
    """Thread-safe under the world's lock, which its callers hold. `denied` names property paths that the user may not read.

    oddities: ways of other servers (found in vcsim) that clients must stand, switched on by tests; the constants above.
    """

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.denied: set[str] = set()
        self.oddities: set[str] = set()
        self._cache: dict[tuple[str, str, tuple[str, ...]], tuple[int, Rendered]] = {}

    def render(self, node: Node, paths: tuple[str, ...], version: str) -> Rendered:
        """Errors: vmodl.query.InvalidProperty for a path that the type does not have."""
        key = (node.id, version, paths)
        known = self._cache.get(key)
        if known is not None and known[0] == node.revision:
            return known[1]
        built: dict[str, Any] = {}
        values, missing = [], []
        for path in paths:
            if self._is_denied(path):
                missing.append(_missing(node.ref, path, version))
                continue
            value = _read(node, path, built)
            if value is not None:
                values.append((path, soap.render(value, "val", object, version)))
        ref = soap.render(node.ref, "obj", support.ManagedObject, version)
        made = Rendered(ref, tuple(values), "".join(missing))
        self._cache[key] = (node.revision, made)
        return made

    def without_session(self, specs: Sequence[Any], version: str) -> str:
        """NO_SESSION_MISSING: the objects that were asked for, each property missing because nobody is logged in."""
        out = []
        for spec in specs:
            for start in spec.objectSet:
                node = self.inventory.find(start.obj._moId)
                paths = _paths(node, spec.propSet) if node is not None else None
                if node is None or paths is None:
                    raise faults.not_authenticated()
                ref = soap.render(node.ref, "obj", support.ManagedObject, version)
                missing = "".join(_missing_for(faults.not_authenticated(), path, version) for path in paths)
                out.append(f"<objects>{ref}{missing}</objects>")
        return "".join(out)

    def forget(self) -> None:
        """Drop what is cached (after `denied` changed)."""
        self._cache.clear()

    def _is_denied(self, path: str) -> bool:
        return any(path == d or path.startswith(f"{d}.") for d in self.denied)

    def value(self, node: Node, name: str) -> Any:
        """One property as a typed value; None when it is unset."""
        return _read(node, name, {})

    # ---- what a filter selects --------------------------------------------------------------------------------------------------------

    def select(self, spec: Any) -> Iterator[tuple[Node, tuple[str, ...]]]:
        """(object, paths) for each selected object that a PropertySpec of the filter speaks about, each object once.

        Errors: ManagedObjectNotFound for a start object that does not exist; InvalidProperty for a bad traversal path.
        """
        seen: set[str] = set()
        named = {s.name: s for o in spec.objectSet for s in _all_selections(o.selectSet) if isinstance(s, TraversalSpec) and s.name}
        for start in spec.objectSet:
            node = self.inventory.find(start.obj._moId)
            if node is None:
                if spec.reportMissingObjectsInResults:
                    continue
                raise vmodl.fault.ManagedObjectNotFound(
                    msg="The object has already been deleted or has not been completely created", obj=start.obj
                )
            for found in self._walk(node, start.selectSet, bool(start.skip), named, set()):
                if found.id in seen:
                    continue
                seen.add(found.id)
                paths = _paths(found, spec.propSet)
                if paths is not None:
                    yield found, paths

    def _walk(self, node: Node, selections: Sequence[Any], skip: bool, named: dict[str, Any], done: set[tuple[str, int]]) -> Iterator[Node]:
        if not skip:
            yield node
        for given in selections:
            step = given if isinstance(given, TraversalSpec) else named.get(given.name)
            if step is None or not isinstance(node.ref, step.type) or (node.id, id(step)) in done:
                continue
            done.add((node.id, id(step)))
            target = self.value(node, step.path)
            for ref in target if isinstance(target, list) else [target] if target is not None else []:
                child = self.inventory.find(ref._moId)
                if child is not None:
                    yield from self._walk(child, step.selectSet, bool(step.skip), named, done)


TraversalSpec: Any = vmodl.query.PropertyCollector.TraversalSpec


def _all_selections(selections: Sequence[Any]) -> Iterator[Any]:
    for given in selections:
        yield given
        if isinstance(given, TraversalSpec):
            yield from _all_selections(given.selectSet)


def _paths(node: Node, specs: Sequence[Any]) -> tuple[str, ...] | None:
    """The paths of the most special PropertySpec that fits; None when none does."""
    best: Any = None
    for spec in specs:
        if isinstance(node.ref, spec.type) and (best is None or issubclass(spec.type, best.type)):
            best = spec
    if best is None:
        return None
    if best.all:
        return tuple(sorted(p for p in node.table if "." not in p))
    return tuple(best.pathSet)


def _read(node: Node, path: str, built: dict[str, Any]) -> Any:
    """Walk `path` from the longest prefix that the object's table offers; `built` keeps what was made for this object."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        prefix = ".".join(parts[:cut])
        make: Callable[[Any], Any] | None = node.table.get(prefix)
        if make is not None:
            if prefix not in built:
                built[prefix] = make(node.record)
            value = _typed(type(node.ref), prefix, built[prefix]) if cut == 1 else built[prefix]
            return _descend(value, parts[cut:], path)
    _check_type(type(node.ref), parts[0], path)
    return None


def _descend(value: Any, parts: Sequence[str], path: str) -> Any:
    for part in parts:
        if value is None:
            return None
        found = getattr(value, part, _NOTHING)
        if found is _NOTHING or isinstance(value, list):
            raise vmodl.query.InvalidProperty(msg=f"Invalid property: {path}", name=path)
        value = _typed(type(value), part, found)
    return value


def _typed(owner: Any, name: str, value: Any) -> Any:
    """A plain list or number as the type that the property has, so that it can be written as an `any`."""
    if type(value) not in (list, int):
        return value
    kind = owner._GetPropertyInfo(name).type
    return kind(value) if type(value) is list or kind is support.long else value


def _check_type(kind: type, name: str, path: str) -> None:
    """A property that the type has and the lab does not show is unset; one that it has not is an error."""
    try:
        kind._GetPropertyInfo(name)  # type: ignore[attr-defined]
    except AttributeError:
        raise vmodl.query.InvalidProperty(msg=f"Invalid property: {path}", name=path) from None


def _missing(ref: Any, path: str, version: str) -> str:
    fault = vim.fault.NoPermission(msg="Permission to perform this operation was denied.", object=ref, privilegeId="System.Read")
    return _missing_for(fault, path, version)


def _missing_for(fault: Any, path: str, version: str) -> str:
    found = vmodl.query.PropertyCollector.MissingProperty(path=path, fault=fault)
    return soap.render(found, "missingSet", vmodl.query.PropertyCollector.MissingProperty, version)
