"""SOAP of the simulated vCenter: request envelopes -> typed calls, typed values -> response envelopes.

The type system and the spelling of values are pyVmomi's, used on the server's side; the wire is plain HTTP and XML.
What it is not: a method. Where it stands: called by server.py around calls.py.
Source: vSphere Web Services API; SOAP 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate
from xml.sax.saxutils import escape

from reconciler.lab.vcenter.spelling import NAMESPACE, NotPlain, spell
from reconciler.lab.vcenter.vmomi import adapter, support, vmodl

API_VERSION = "8.0.2.0"
NSMAP = {**adapter.SOAP_NSMAP, NAMESPACE: ""}
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<soapenv:Envelope '
    + " ".join(f'xmlns:{prefix}="{uri}"' for uri, prefix in adapter.SOAP_NSMAP.items())
    + ">\n<soapenv:Body>\n"
)
TAIL = "\n</soapenv:Body>\n</soapenv:Envelope>"


class BadRequest(Exception):
    """The envelope cannot be understood."""


@dataclass(slots=True)
class Call:
    """One request. `method` is the name on the wire; `info` is pyVmomi's description, None for Fetch."""

    method: str
    this: Any
    args: dict[str, Any]
    info: Any
    version: str


@lru_cache(maxsize=8)
def version_of(action: str) -> str:
    """pyVmomi's version name for a SOAPAction such as "urn:vim25/8.0.2.0"; the server's own for anything else."""
    name = action.strip('"').removeprefix("urn:")
    found = support.versionMap.get(name)
    return str(found or support.versionMap[f"vim25/{API_VERSION}"])


class _RequestParser(adapter.ExpatDeserializerNSHandlers):  # type: ignore[misc]
    """Envelope > Body > method > parameters; each parameter is handed to pyVmomi's deserializer. Document types are refused."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        self.stack: list[str] = []
        self.method = ""
        self.info: Any = None
        self.values: list[tuple[str, bool, Any]] = []
        self.types: dict[str, Any] = {}

    def parse(self, body: bytes) -> Call:
        self.parser = ParserCreate(namespace_separator=adapter.NS_SEP)
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        handlers = (self._start, self._end, self._text, self.StartNamespaceDeclHandler, self.EndNamespaceDeclHandler)
        adapter.SetHandlers(self.parser, handlers)
        try:
            self.parser.Parse(body, True)
        except (ExpatError, KeyError, TypeError, ValueError, AttributeError) as err:
            raise BadRequest(f"{type(err).__name__}: {err}") from err
        finally:
            del self.parser
        if not self.method:
            raise BadRequest("no method in the body")
        args: dict[str, Any] = {}
        for name, is_list, reader in self.values:
            value = reader.GetResult()
            if is_list:
                args.setdefault(name, []).append(value)
            else:
                args[name] = value
        return Call(self.method, args.pop("_this", None), args, self.info, self.version)

    def _refuse(self, *_: object) -> None:
        raise BadRequest("document types are not allowed")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        depth = len(self.stack)
        if depth == 2 and self.stack[1] == f"{adapter.XMLNS_SOAPENV}{adapter.NS_SEP}Body":
            self._begin_method(tag.rpartition(adapter.NS_SEP)[2])
        if depth == 3 and self.method:
            name = tag.rpartition(adapter.NS_SEP)[2]
            wanted = self.types[name]
            is_list = issubclass(wanted, list)
            reader = adapter.SoapDeserializer(None, self.version)
            reader.Deserialize(self.parser, wanted.Item if is_list else wanted, False, self.nsMap)
            reader.StartElementHandler(tag, attributes)
            self.values.append((name, is_list, reader))
            return
        self.stack.append(tag)

    def _begin_method(self, name: str) -> None:
        self.method = name
        self.types = {"_this": support.ManagedObject}
        if name == "Fetch":
            self.types["prop"] = str
            return
        self.info = support.GetWsdlMethod(NAMESPACE, name).info
        self.types.update({p.name: p.type for p in self.info.params})

    def _end(self, tag: str) -> None:
        self.stack.pop()

    def _text(self, data: str) -> None:
        pass


def parse(body: bytes, action: str) -> Call:
    """Errors: BadRequest."""
    return _RequestParser(version_of(action)).parse(body)


def render(value: Any, name: str, kind: Any, version: str) -> str:
    """`value` as one element (a list: as many); `kind` is the static type, `object` writes xsi:type."""
    if value is None or (isinstance(value, list) and not value and kind is not object):
        return ""
    try:
        return spell(value, name, kind, version)
    except NotPlain:
        return render_slowly(value, name, kind, version)


def render_slowly(value: Any, name: str, kind: Any, version: str) -> str:
    """By pyVmomi's own serializer, which knows every case."""
    writer = StringIO()
    serializer = adapter.SoapSerializer(writer, version, NSMAP)
    serializer.outermostAttrs = ""
    info = support.Object(name=name, type=kind, version=version, flags=support.F_OPTIONAL)
    serializer.Serialize(value, info)
    # pyVmomi spells a reference in an `any` by its base class; vCenter by the name of the reference type.
    return writer.getvalue().replace('xsi:type="ManagedObject" type=', 'xsi:type="ManagedObjectReference" type=')


def reply(method: str, inner: str) -> bytes:
    return f'{HEAD}<{method}Response xmlns="{NAMESPACE}">{inner}</{method}Response>{TAIL}'.encode()


def fault(error: Any, version: str) -> bytes:
    """A vmodl.MethodFault as soapenv:Fault, its type in the detail as vCenter writes it."""
    writer = StringIO()
    serializer = adapter.SoapSerializer(writer, version, NSMAP)
    serializer.outermostAttrs = f' xmlns="{NAMESPACE}"'
    name = support.GetWsdlName(type(error)) + "Fault"
    text, error.msg = error.msg or name, None
    info = support.Object(name=name, type=object, version=version, flags=0)
    serializer._SerializeDataObject(error, info, f' xmlns="{NAMESPACE}"', NAMESPACE)
    return (
        f"{HEAD}<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>{escape(text)}</faultstring>"
        f"<detail>{writer.getvalue()}</detail></soapenv:Fault>{TAIL}"
    ).encode()


def bad_request(message: str) -> Any:
    return vmodl.fault.InvalidRequest(msg=message)


def versions_document() -> bytes:
    """/sdk/vimServiceVersions.xml: what the client negotiates by."""
    every = [support.versionIdMap[v] for v in support.GetServiceVersions("vim25")]
    prior = "".join(f"<version>{v}</version>" for v in every[every.index(API_VERSION) + 1 :] if v[:1].isdigit())
    return (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<namespaces version="1.0"><namespace><name>urn:vim25</name>'
        f"<version>{API_VERSION}</version><priorVersions>{prior}</priorVersions></namespace></namespaces>"
    ).encode()
