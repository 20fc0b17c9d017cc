"""Provider type -> driver factory, imported when asked. A new platform is a row here, never an `if` elsewhere."""

from __future__ import annotations

import importlib
from typing import Any

from reconciler.core.model import Platform
from reconciler.errors import UserError

SOURCES: dict[str, str] = {Platform.VSPHERE: "reconciler.drivers.vsphere.source"}
TARGETS: dict[str, str] = {Platform.OPENSHIFT: "reconciler.drivers.kubevirt.session"}


def source_factory(platform: str) -> Any:
    """The module's `connect`. Errors: UserError NotSupported for a type without a driver."""
    return _connect(SOURCES, platform, "source")


def target_factory(platform: str) -> Any:
    return _connect(TARGETS, platform, "target")


def _connect(table: dict[str, str], platform: str, side: str) -> Any:
    if platform not in table:
        raise UserError("NotSupported", f"there is no {side} driver for providers of type {platform!r}; known: {', '.join(table)}")
    return importlib.import_module(table[platform]).connect
