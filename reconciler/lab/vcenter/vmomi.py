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

_blank: dict[type, tuple[dict[str, Any], tuple[tuple[str, Any], ...]]] = {}


def make(cls: Any, **fields: Any) -> Any:
    """A data object as its constructor makes it, without the checks of each field (the tests read all that is written back)."""
    if cls not in _blank:
        empty = dict(cls().__dict__)
        lists = tuple((name, type(value)) for name, value in empty.items() if isinstance(value, list))
        _blank[cls] = {name: value for name, value in empty.items() if not isinstance(value, list)}, lists
    scalars, lists = _blank[cls]
    made = cls.__new__(cls)
    own = made.__dict__
    own.update(scalars)
    for name, kind in lists:
        own[name] = kind()
    own.update(fields)
    return made
