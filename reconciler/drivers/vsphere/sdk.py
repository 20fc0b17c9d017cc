"""pyVmomi, imported once and untyped: the stubs it ships call optional what always is there, and required what is optional.

What it is: the only import of the SDK, for session.py, faults.py and the modules that read inventory. What it is not: an abstraction.
"""

from __future__ import annotations

from typing import Any

import pyVmomi.SoapAdapter
import pyVmomi.VmomiSupport
from pyVmomi import vim as _vim
from pyVmomi import vmodl as _vmodl

vim: Any = _vim
vmodl: Any = _vmodl
decoder: Any = pyVmomi.SoapAdapter
types: Any = pyVmomi.VmomiSupport
SoapStubAdapter: Any = decoder.SoapStubAdapter
_wsdl_name: Any = types.GetWsdlName


def moid(reference: Any) -> str:
    return str(reference._GetMoId())


def kind(thing: Any) -> str:
    """The type's name as in the API's documents: "VirtualMachine", "VirtualDiskFlatVer2BackingInfo"."""
    return str(_wsdl_name(type(thing)))


def reference(content: Any, type_: Any, id_: str) -> Any:
    """An object by its id, on the connection that `content` came over."""
    return type_(id_, content.propertyCollector._stub)
