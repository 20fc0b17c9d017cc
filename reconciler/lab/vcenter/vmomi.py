"""pyVmomi as the lab uses it: its type system and its spelling of values, on the server's side of the wire.

Typed `Any` in this one place, because pyVmomi makes its classes at run time. The only importer of pyVmomi in the lab.
"""

from __future__ import annotations

from typing import Any

import pyVmomi
import pyVmomi.SoapAdapter
import pyVmomi.VmomiSupport

_root: Any = pyVmomi
vim: Any = _root.vim
vmodl: Any = _root.vmodl
support: Any = pyVmomi.VmomiSupport
adapter: Any = pyVmomi.SoapAdapter
