"""Bulk answers become what pyVmomi makes of them: every data type of the API, with every field set, and what goes wrong on the way."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest
from pyVmomi import SoapAdapter, VmomiSupport, vim, vmodl

from reconciler.drivers.vsphere import soap
from reconciler.drivers.vsphere.faults import CALL_ERRORS
from reconciler.drivers.vsphere.session import API_VERSION, API_VERSION_FROM_7
from tests.contract.sdkequal import difference

Retrieved, Updates = vmodl.query.PropertyCollector.RetrieveResult, vmodl.query.PropertyCollector.UpdateSet
Privileges = vim.AuthorizationManager.EntityPrivilege.Array
ENVELOPE = """<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
  xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<soapenv:Body><XResponse xmlns="urn:vim25">{}</XResponse></soapenv:Body></soapenv:Envelope>"""
FAULT = """<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<soapenv:Body><soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>who are you</faultstring><detail>
<NotAuthenticatedFault xmlns="urn:vim25" xsi:type="NotAuthenticated"><privilegeId>System.View</privilegeId></NotAuthenticatedFault>
</detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"""
SCALARS: dict[Any, tuple[str, str]] = {  # name in XML Schema, text
    bool: ("xsd:boolean", "true"),
    float: ("xsd:float", "1.5"),
    VmomiSupport.double: ("xsd:double", "-2.25"),
    VmomiSupport.byte: ("xsd:byte", "-7"),
    VmomiSupport.short: ("xsd:short", "70"),
    int: ("xsd:int", "-700"),
    VmomiSupport.long: ("xsd:long", "70000000000"),
    VmomiSupport.datetime: ("xsd:dateTime", "2026-03-01T12:00:00.25Z"),
    VmomiSupport.binary: ("xsd:base64Binary", "AP8="),
    str: ("xsd:string", " a &lt;b&gt; &amp; <![CDATA[<c>]]> \u00fc\n"),
    VmomiSupport.PropertyPath: ("xsd:string", "config.hardware"),
    VmomiSupport.Link: ("xsd:string", "key-1"),
    VmomiSupport.ManagedMethod: ("xsd:string", "PowerOnVM_Task"),
    type: ("xsd:string", "VirtualMachine"),
    object: ("xsd:int", "7"),
}
DATA = sorted(  # LocalizedMethodFault is how each of the faults is written
    (t for t in VmomiSupport.GetWsdlTypes() if issubclass(t, VmomiSupport.DataObject) and t is not SoapAdapter.LocalizedMethodFault),
    key=lambda t: t.__name__,
)


class Server:
    """What pyVmomi asks a stub for while it reads."""

    def __init__(self, version: str) -> None:
        self.version = version

    def SupportServerGUIDs(self) -> bool:
        return False


def both(xml: str, result: Any = Retrieved, version: str = API_VERSION_FROM_7) -> tuple[Any, Any]:
    server = Server(version)
    theirs = SoapAdapter.SoapResponseDeserializer(server).Deserialize(io.BytesIO(xml.encode()), result)
    return soap.read(io.BytesIO(xml.encode()), result, server), theirs


def same(xml: str, result: Any = Retrieved) -> Any:
    ours, theirs = both(ENVELOPE.format(xml), result)
    assert difference(ours, theirs) == ""
    return ours


def prop(val: str) -> str:
    return f"<returnval><objects><obj type='VirtualMachine'>vm-1</obj><propSet><name>p</name>{val}</propSet></objects></returnval>"


class Writer:
    """XML of one object with all fields set, down to a depth, as a server of that version writes it."""

    def __init__(self, version: str) -> None:
        self._version = version

    def knows(self, type_: Any) -> bool:
        return not hasattr(type_, "_version") or VmomiSupport.IsChildVersion(self._version, type_._version)

    def element(self, tag: str, type_: Any, depth: int, *, named: bool, bare: bool = False) -> str:
        """`named`: it says its type. `bare`: a fault without the words about it."""
        if issubclass(type_, Exception) and not bare:
            fault = self.element("fault", type_, depth, named=True, bare=True)
            kind, inner = "LocalizedMethodFault", f"{fault}<localizedMessage>words</localizedMessage>"
        elif issubclass(type_, VmomiSupport.ManagedObject):
            return f'<{tag} type="{type_._wsdlName}" serverGuid="guid-1">moid-1</{tag}>'
        elif issubclass(type_, VmomiSupport.DataObject):
            kind, inner = type_._wsdlName, "".join(self.field(info, depth - 1) for info in type_._GetPropertyList() if depth)
        elif issubclass(type_, VmomiSupport.Enum):
            kind, inner = type_._wsdlName, type_.values[-1]
        else:
            kind, inner = SCALARS[type_]
        return f"<{tag} xsi:type='{kind}'>{inner}</{tag}>" if named or type_ is object else f"<{tag}>{inner}</{tag}>"

    def field(self, info: Any, depth: int) -> str:
        many = issubclass(info.type, list)
        type_ = info.type.Item if many else info.type
        if not self.knows(type_):
            return ""
        ways = (False, False) if SoapAdapter.isDynamicType(type_) else (True, False)
        return "".join(self.element(info.name, type_, depth, named=named) for named in (ways if many else ways[depth % 2 :][:1]))


@pytest.mark.parametrize(("version", "step"), [(API_VERSION_FROM_7, 1), (API_VERSION, 10)])
def test_every_data_type_of_the_api_is_read_as_pyvmomi_reads_it(version: str, step: int) -> None:
    """Of the older version, every tenth."""
    writer, compared = Writer(version), 0
    for type_ in DATA[::step]:
        if VmomiSupport.GetQualifiedWsdlName(type_)[0] == "urn:vim25" and writer.knows(type_):
            ours, theirs = both(ENVELOPE.format(prop(writer.element("val", type_, 2, named=True))), version=version)
            assert difference(ours, theirs) == "", type_
            compared += 1
    assert compared > 2500 // step


def test_a_newer_type_is_read_as_the_newest_base_that_the_version_knows() -> None:
    newer = vim.vm.device.VirtualPrecisionClock  # 7.0
    xml = ENVELOPE.format(prop(f"<val xsi:type='{newer._wsdlName}'><key>7</key></val>"))
    ours, theirs = both(xml, version=API_VERSION)
    assert difference(ours, theirs) == ""
    assert type(ours.objects[0].propSet[0].val) is not newer


@pytest.mark.parametrize(
    "val",
    [
        "<val xsi:type='ArrayOfVirtualDevice'><VirtualDevice xsi:type='VirtualDisk'><key>1</key></VirtualDevice></val>",
        "<val xsi:type='ArrayOfVirtualDevice'></val>",
        "<val xsi:type='ArrayOfOptionValue'/>",
        "<val xsi:type='ArrayOfString'><string>a</string><string></string></val>",
        "<val xsi:type='ArrayOfInt'><int>1</int></val>",
        "<val xsi:type='ArrayOfManagedObjectReference'><ManagedObjectReference type='Network' xsi:type='ManagedObjectReference'>n-1"
        "</ManagedObjectReference></val>",
        "<val type='Folder' xsi:type='ManagedObjectReference'>group-1</val>",
        "<val xsi:type='xsd:boolean'>0</val>",
        "<val xsi:type='xsd:boolean'>TRUE</val>",
        "<val xsi:type='xsd:string'></val>",
        "<val xsi:type='xsd:string'>one<!-- two -->three</val>",
        "<val xsi:type='xsd:dateTime'>2026-03-01T12:00:00+02:00</val>",
        "",
    ],
)
def test_shapes_of_a_value(val: str) -> None:
    same(prop(val))


def test_a_property_that_is_missing_says_why() -> None:
    for fault in ("NotAuthenticated", "NoPermission", "InvalidProperty"):
        xml = (
            "<returnval><token>t</token><objects><obj type='VirtualMachine'>vm-1</obj><missingSet><path>p</path><fault>"
            f"<fault xsi:type='{fault}'/><localizedMessage>why</localizedMessage></fault></missingSet></objects></returnval>"
        )
        (missing,) = same(xml).objects[0].missingSet
        assert isinstance(missing.fault, Exception)
        assert missing.fault.msg == "why"


def test_updates_and_privileges() -> None:
    change = "<changeSet><name>name</name><op>assign</op><val xsi:type='xsd:string'>a</val></changeSet>"
    change += "<changeSet><name>x</name><op>remove</op></changeSet>"
    found = f"<objectSet><kind>enter</kind><obj type='VirtualMachine'>vm-1</obj>{change}</objectSet>"
    filters = f"<filterSet><filter type='PropertyFilter'>f-1</filter>{found}{found}</filterSet>"
    updates = same(f"<returnval><version>7</version>{filters}<truncated>true</truncated></returnval>", Updates)
    assert updates.filterSet[0].objectSet[1].changeSet[0].val == "a"
    assert same("", Updates) is None
    one = "<entity type='VirtualMachine'>vm-1</entity><privAvailability><privId>A.B</privId><isGranted>true</isGranted></privAvailability>"
    assert len(same(f"<returnval>{one}</returnval><returnval>{one}</returnval>", Privileges)) == 2
    assert same("", Privileges) == []


class Front:
    """An HTTP connection with one answer."""

    def __init__(self, status: int, body: bytes, encoding: str = "") -> None:
        self.status, self.reason, self._body, self._encoding = status, "so", io.BytesIO(body), encoding
        self.asked: list[tuple[Any, ...]] = []
        self.closed = False

    def request(self, *asked: Any) -> None:
        self.asked.append(asked)

    def getresponse(self) -> Front:
        return self

    def getheader(self, name: str, default: str) -> str:
        return self._encoding or default

    def read(self, size: int = -1) -> bytes:
        return self._body.read(size)

    def close(self) -> None:
        self.closed = True


def ask(front: Front) -> Any:
    stub = soap.Stub(host="vc", version=API_VERSION, poolSize=1)
    stub.pool.insert(0, (front, 1e18))
    try:
        return vmodl.query.PropertyCollector("pc", stub).ContinueRetrievePropertiesEx("token")
    finally:
        assert front.closed == (not stub.pool), "either it is kept, or closed"


GOOD = ENVELOPE.format(prop("<val xsi:type='xsd:int'>7</val>")).encode()


@pytest.mark.parametrize("front", [Front(200, GOOD), Front(200, gzip.compress(GOOD), "gzip"), Front(200, gzip.compress(GOOD), "GZIP")])
def test_an_answer_may_be_compressed(front: Front) -> None:
    assert ask(front).objects[0].propSet[0].val == 7
    assert not front.closed
    ((method, path, body, headers),) = front.asked
    assert (method, path, headers["Accept-Encoding"]) == ("POST", "/sdk", "gzip")
    assert b">token</token>" in body


def test_a_refusal_is_a_fault() -> None:
    front = Front(500, FAULT.encode())
    with pytest.raises(vim.fault.NotAuthenticated) as found:
        ask(front)
    assert (found.value.msg, found.value.privilegeId, front.closed) == ("who are you", "System.View", False)


@pytest.mark.parametrize(
    "front",
    [
        Front(503, b"busy"),
        Front(500, b"<html/>"),
        Front(500, b"busy"),
        Front(200, b""),
        Front(200, GOOD[:-80]),
        Front(200, gzip.compress(GOOD)[:-20], "gzip"),
        Front(200, GOOD, "gzip"),
        Front(200, b"<html/>"),
        Front(200, FAULT.encode()),
        Front(200, GOOD.replace(b">7<", b">seven<")),
        Front(200, GOOD.replace(b"xsd:int", b"xsd:nothing")),
        Front(200, GOOD.replace(b"propSet", b"newSet")),
    ],
)
def test_whatever_cannot_be_read_is_an_error_that_the_session_knows(front: Front) -> None:
    with pytest.raises(CALL_ERRORS):
        ask(front)
