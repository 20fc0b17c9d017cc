"""Change tracking switched on for a VM: the request, and nothing else.

What it is: one reconfiguration, made only where something is missing; it takes effect for a disk at the next snapshot or power-on. The
setting of each disk is written as well, because hosts add it by themselves only then, and until then nobody could tell a disk that was
taken out on purpose. What it is not: the reading of changes (changes.py).
Source: vSphere Web Services API, VirtualMachineConfigSpec.changeTrackingEnabled, VirtualMachineCapability.changeTrackingSupported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from reconciler.core.model import VmRef
from reconciler.drivers.vsphere import subject
from reconciler.drivers.vsphere.devices import tracking_key
from reconciler.drivers.vsphere.digest import Properties
from reconciler.drivers.vsphere.hardware import Devices
from reconciler.drivers.vsphere.sdk import vim
from reconciler.errors import TerminalError

log = logging.getLogger(__name__)

_PROPERTIES = (
    "config.changeTrackingEnabled",
    "config.extraConfig",
    "config.hardware.device",
    "capability.changeTrackingSupported",
    "recentTask",
)
_ON, _VM_KEY = "TRUE", "ctkEnabled"


def enable_tracking(content: Any, site: str, vm: VmRef) -> None:
    """Errors: TerminalError NotSupported, VMGone."""
    target, properties = subject.read(content, site, vm, _PROPERTIES)
    extra: Mapping[str, str] = properties.get("config.extraConfig") or {}
    missing = [key for key in _keys(properties) if extra.get(key.lower(), "").upper() != _ON]
    if extra.get(_VM_KEY.lower(), _ON).upper() != _ON:
        missing.append(_VM_KEY)
    if properties.get("config.changeTrackingEnabled") and not missing:
        return
    if properties.get("capability.changeTrackingSupported") is False:
        raise TerminalError("NotSupported", f"changes of {vm} cannot be tracked (its hardware is older than version 7); migrate it cold")
    if any(_reconfigures(task) for task in subject.read_tasks(content, properties.get("recentTask") or []) if subject.alive(task)):
        return
    options = [vim.option.OptionValue(key=key, value=_ON) for key in missing]
    target.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True, extraConfig=options))
    log.info("change tracking requested", extra={"vm": str(vm), "options": missing})


def _keys(properties: Properties) -> list[str]:
    """Of the disks that can be tracked: snapshots leave independent disks out, and those that are a whole LUN."""
    devices: Devices = properties.get("config.hardware.device") or Devices()
    return [tracking_key(d) for d in devices.disks if not d.mode.startswith("independent") and d.compatibility != "physicalMode"]


def _reconfigures(task: Properties) -> bool:
    return "reconfigur" in str(task.get("info.descriptionId") or "").lower()
