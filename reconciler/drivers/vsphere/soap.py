"""pyVmomi's connection, with the answers of bulk reads parsed in a third of its time.

What it is: the same objects, made from the tree that the standard library's C parser gives, by a plan made once for each type. pyVmomi
itself calls Python for each tag and checks each value against its type again: that was nine tenths of reading an inventory.
What it is not: a type system (types, defaults and versions are pyVmomi's), nor the way of acts, logins and faults, which stay with pyVmomi.
Errors: what a broken body raises is in faults.CALL_ERRORS.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from functools import cache
from http.client import HTTPException
from typing import Any, Protocol
from xml.etree.ElementTree import Element, XMLParser

from reconciler import permit
from reconciler.drivers.vsphere.sdk import SoapStubAdapter, decoder, types, vim, vmodl

_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_XSD, _VIM = "http://www.w3.org/2001/XMLSchema", "urn:vim25"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_ACTS = {"ShutdownGuest"}  # besides tasks
_CHUNK_BYTES = 1 << 16
_BULK = (
    vmodl.query.PropertyCollector.RetrieveResult,
    vmodl.query.PropertyCollector.UpdateSet,
    vim.AuthorizationManager.EntityPrivilege.Array,
)


class Stub(SoapStubAdapter):  # type: ignore[misc]
    """Thread-safe, as pyVmomi's is."""

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outerStub: Any = None) -> Any:
        if info.wsdlName.endswith("_Task") or info.wsdlName in _ACTS:
            permit.ask()
        if info.result not in _BULK:
            return super().InvokeMethod(mo, info, args, outerStub)
        request = self.SerializeRequest(mo, info, args)
        headers = {
            "Cookie": self.cookie,
            "SOAPAction": self.versionId,
            "Content-Type": "text/xml; charset=UTF-8",
            "Accept-Encoding": "gzip",
        }
        conn = self.GetConnection()
        try:
            conn.request("POST", self.path, request, headers)
            answer = conn.getresponse()
            if answer.status not in (200, 500):
                raise HTTPException(f"{answer.status} {answer.reason}")
            body = gzip.GzipFile(fileobj=answer) if answer.getheader("Content-Encoding", "").lower() == "gzip" else answer
            refused = answer.status == 500
            found = decoder.SoapResponseDeserializer(self).Deserialize(body, info.result) if refused else read(body, info.result, self)
            answer.read()
        except BaseException:
            conn.close()
            self.DropConnections()
            raise
        self.ReturnConnection(conn)
        if refused:
            raise found if isinstance(found, Exception) else HTTPException("500 without a fault")
        return found


def read(body: Any, result: Any, stub: Any) -> Any:
    """What pyVmomi would make of this answer to a method that returns `result`. `body`: a file."""
    parser = XMLParser()
    while chunk := body.read(_CHUNK_BYTES):
        parser.feed(chunk)
    answer = next((e for e in parser.close().iter() if e.tag.endswith("Response")), None)
    if answer is None:
        raise ValueError("it holds no answer")
    plan = _plans(stub.version).of(result)
    if issubclass(result, list):
        return plan.build(answer, stub)
    return plan.build(answer[0], stub) if len(answer) else None


class _Plan(Protocol):
    """How an element becomes an object. `fixed`: whatever type the element names."""

    fixed: bool

    def build(self, element: Element, stub: Any) -> Any: ...


class _Scalar:
    def __init__(self, make: Callable[[str], Any], fixed: bool) -> None:
        self._make, self.fixed = make, fixed

    def build(self, element: Element, stub: Any) -> Any:
        return self._make(element.text or "")


class _Reference:
    fixed = False

    def build(self, element: Element, stub: Any) -> Any:
        return _type_named(element.attrib["type"])(element.text or "", stub, element.get("serverGuid"))


class _List:
    fixed = False

    def __init__(self, plans: _Plans, type_: Any) -> None:
        self._plans, self._type, self._item = plans, type_, plans.of(type_.Item)

    def build(self, element: Element, stub: Any) -> Any:
        made = self._type()
        for child in element:
            made.append(self._plans.told(child, self._item).build(child, stub))
            child.clear()
        return made


class _Data:
    """Plans of its fields are made when they are first met, since types hold one another."""

    fixed = False

    def __init__(self, plans: _Plans, type_: Any) -> None:
        self._plans, self._type = plans, type_
        self._infos = {info.name: info for info in type_._GetPropertyList()}
        self._lists = [(name, info.type) for name, info in self._infos.items() if issubclass(info.type, list)]
        lists = dict(self._lists)
        self._defaults = {name: value for name, value in vars(type_()).items() if name not in lists}
        self._fields: dict[str, tuple[str, _Plan, _Plan | None]] = {}  # tag -> name, plan of the value or item, plan of a whole list

    def build(self, element: Element, stub: Any) -> Any:
        made = self._type.__new__(self._type)
        values = made.__dict__
        values.update(self._defaults)
        for name, type_ in self._lists:
            values[name] = type_()
        for child in element:
            name, plan, whole = self._fields.get(child.tag) or self._learn(child.tag)
            plan = self._plans.told(child, plan)
            if whole is None:
                values[name] = plan.build(child, stub)
            elif isinstance(plan, _List):
                values[name] = whole.build(child, stub)
            else:
                values[name].append(plan.build(child, stub))
                child.clear()  # the tree shrinks as the objects grow
        return made

    def _learn(self, tag: str) -> tuple[str, _Plan, _Plan | None]:
        info = self._infos[_local(tag)]
        many = issubclass(info.type, list)
        learned = self._fields[tag] = (
            info.name,
            self._plans.of(info.type.Item if many else info.type),
            self._plans.of(info.type) if many else None,
        )
        return learned


class _Fault:
    """A fault within an answer comes with the words about it."""

    fixed = False

    def __init__(self, plans: _Plans) -> None:
        self._plans = plans

    def build(self, element: Element, stub: Any) -> Any:
        parts = {_local(child.tag): child for child in element}
        fault = self._plans.bare(parts["fault"].attrib[_XSI_TYPE]).build(parts["fault"], stub)
        fault.msg = parts["localizedMessage"].text or "" if "localizedMessage" in parts else None
        return fault


class _Plans:
    """Of one version of the API; newer types are read as the newest of their bases that it knows. Two threads may make the same plan."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._by_type: dict[Any, _Plan] = {}
        self._by_name: dict[str, _Plan] = {}
        self._bare: dict[str, _Plan] = {}

    def told(self, element: Element, plan: _Plan) -> _Plan:
        """`plan`, unless the element names its type."""
        name = element.get(_XSI_TYPE)
        if name is None or plan.fixed:
            return plan
        return self._by_name.get(name) or self._by_name.setdefault(name, self.of(_type_named(name)))

    def of(self, type_: Any) -> _Plan:
        return self._by_type.get(type_) or self._by_type.setdefault(type_, self._make(types.GetCompatibleType(type_, self._version)))

    def bare(self, name: str) -> _Plan:
        """Of the fault itself."""
        return self._bare.get(name) or self._bare.setdefault(name, _Data(self, types.GetCompatibleType(_type_named(name), self._version)))

    def _make(self, type_: Any) -> _Plan:
        if issubclass(type_, types.ManagedObject):
            return _Reference()
        if issubclass(type_, Exception):
            return _Fault(self)
        if issubclass(type_, types.DataObject):
            return _Data(self, type_)
        return _List(self, type_) if issubclass(type_, list) else _Scalar(_maker(type_), decoder.isDynamicType(type_))


@cache
def _plans(version: str) -> _Plans:
    return _Plans(version)


def _maker(type_: Any) -> Callable[[str], Any]:
    """Text -> value. Errors: ValueError, LookupError, TypeError."""
    if issubclass(type_, types.Enum):
        return {value: getattr(type_, value) for value in type_.values}.__getitem__
    special: dict[Any, Callable[[str], Any]] = {
        bool: lambda text: _BOOLEANS[text.lower()],
        types.binary: lambda text: types.binary(base64.b64decode(text)),
        types.datetime: _moment,
        types.ManagedMethod: _method,
        type: lambda text: _type_named(text) if text else None,
    }
    make: Callable[[str], Any] = special.get(type_, type_)
    return make


def _moment(text: str) -> Any:
    if not (moment := types.Iso8601.ParseISO8601(text)):
        raise ValueError(text)
    return moment


def _method(text: str) -> Any:
    try:
        return types.GuessWsdlMethod(text.rpartition(":")[2])
    except KeyError:
        return types.UnknownManagedMethod(text)


@cache
def _type_named(name: str) -> Any:
    """Of a type's name in an answer, whose prefix says nothing: no name is one of XML Schema and one of vSphere."""
    bare = name.rpartition(":")[2]
    try:
        return types.GetWsdlType(_XSD, bare)
    except KeyError:
        return decoder.SoapDeserializer().LookupWsdlType(_VIM, bare, True)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
