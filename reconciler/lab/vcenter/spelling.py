"""Typed values as XML, quickly: what pyVmomi's serializer writes, from a plan per type that is worked out once.

A vCenter of 10,000 machines is read whole in seconds, and pyVmomi asks each field of each object for its version, namespace and type anew.
Whatever is not plain (faults, links, types of other namespaces) is left to pyVmomi. The tests compare the two, byte for byte.
Where it stands: called by soap.py.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from reconciler.lab.vcenter.vmomi import adapter, support

NAMESPACE = "urn:vim25"
Plan = tuple[tuple[str, Any, bool, bool], ...]  # name, static type, may be unset, is a list

_plans: dict[tuple[type, str], Plan | None] = {}
_names: dict[type, str | None] = {}
_XSD = {str: "xsd:string", bool: "xsd:boolean", int: "xsd:int", support.long: "xsd:long"}


class NotPlain(Exception):
    """This value is left to pyVmomi's own serializer."""


def spell(value: Any, name: str, kind: Any, version: str) -> str:
    """`value` as element `name`. Errors: NotPlain; TypeError for an unset field that must be set."""
    out: list[str] = []
    _write(out, name, kind, value, version)
    return "".join(out)


def _write(out: list[str], name: str, kind: Any, value: Any, version: str) -> None:
    cls = type(value)
    if cls in _XSD:
        attribute = f' xsi:type="{_XSD[cls]}"' if kind is object else ""
        text = adapter.XmlEscape(value) if cls is str else ("true" if value else "false") if cls is bool else str(int(value))
        out.append(f"<{name}{attribute}>{text}</{name}>")
    elif isinstance(value, support.ManagedObject):
        attribute = ' xsi:type="ManagedObjectReference"' if kind is object else ""
        out.append(f'<{name}{attribute} type="{_name(cls)}">{value._moId}</{name}>')
    elif isinstance(value, list):
        _write_list(out, name, kind, value, version)
    elif isinstance(value, support.DataObject):
        _write_object(out, name, kind, value, version)
    elif isinstance(value, support.Enum):
        attribute = f' xsi:type="{_name(cls)}"' if kind is object else ""
        out.append(f"<{name}{attribute}>{value}</{name}>")
    elif isinstance(value, datetime) and kind is not object:
        out.append(f"<{name}>{adapter.Iso8601.ISO8601Format(value)}</{name}>")
    else:
        raise NotPlain


def _write_list(out: list[str], name: str, kind: Any, value: list[Any], version: str) -> None:
    if kind is not object:
        for item in value:
            _write(out, name, kind.Item, item, version)
        return
    item_type = value.Item  # type: ignore[attr-defined]
    if issubclass(item_type, support.ManagedObject):
        array, tag = "ArrayOfManagedObjectReference", "ManagedObjectReference"
    elif issubclass(item_type, support.DataObject):
        tag = _name(item_type)
        array = f"ArrayOf{tag[0].upper()}{tag[1:]}"
    else:
        raise NotPlain
    out.append(f'<{name} xsi:type="{array}">')
    for item in value:
        _write(out, tag, item_type, item, version)
    out.append(f"</{name}>")


def _write_object(out: list[str], name: str, kind: Any, value: Any, version: str) -> None:
    cls = type(value)
    attribute = "" if cls is kind else f' xsi:type="{_name(cls)}"'
    out.append(f"<{name}{attribute}>")
    fields = value.__dict__
    for field, static, optional, is_list in _plan(cls, version):
        item = fields[field]
        if item is None or (is_list and not item):
            if not optional:
                raise TypeError(f"{cls.__name__}.{field} is not optional")
            continue
        _write(out, field, static, item, version)
    out.append(f"</{name}>")


def _plan(cls: type, version: str) -> Plan:
    key = (cls, version)
    if key not in _plans:
        _plans[key] = _make_plan(cls, version)
    plan = _plans[key]
    if plan is None:
        raise NotPlain
    return plan


def _make_plan(cls: Any, version: str) -> Plan | None:
    if issubclass(cls, support.GetVmodlType("vmodl.MethodFault")) or support.GetCompatibleType(cls, version) is not cls:
        return None
    made = []
    for field in cls._GetPropertyList():
        if not support.IsChildVersion(version, field.version):
            continue
        if field.flags & support.F_LINK or support.GetWsdlNamespace(field.version) != NAMESPACE or adapter.isDynamicType(field.type):
            return None
        made.append((field.name, field.type, bool(field.flags & support.F_OPTIONAL), issubclass(field.type, list)))
    return tuple(made)


def _name(cls: type) -> str:
    """The type's name on the wire. Errors: NotPlain for another namespace."""
    if cls not in _names:
        namespace, name = support.GetQualifiedWsdlName(cls)
        _names[cls] = name if namespace == NAMESPACE else None
    found = _names[cls]
    if found is None:
        raise NotPlain
    return found
