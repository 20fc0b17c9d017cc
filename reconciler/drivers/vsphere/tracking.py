"""Change tracking switched on for a VM: the request, and nothing else.

What it is: one reconfiguration, made only where something is missing; it takes effect for a disk at the next snapshot or power-on, and
that each disk really is tracked shows in `SourceDisk.change_tracking`. What it is not: the reading of changes (changes.py).
Source: vSphere Web Services API, VirtualMachineConfigSpec.changeTrackingEnabled, VirtualMachineCapability.changeTrackingSupported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from reconciler.core.model import VmRef
from reconciler.drivers.vsphere import subject
from reconciler.drivers.vsphere.digest import Properties
from reconciler.drivers.vsphere.sdk import vim
from reconciler.drivers.vsphere.workload import change_tracking
from reconciler.errors import TerminalError

log = logging.getLogger(__name__)

_PROPERTIES = ("config.changeTrackingEnabled", "config.extraConfig", "capability.changeTrackingSupported", "recentTask")


def enable_tracking(content: Any, site: str, vm: VmRef) -> None:
    """Errors: TerminalError NotSupported, VMGone."""
    target, properties = subject.read(content, site, vm, _PROPERTIES)
    extra: Mapping[str, str] = properties.get("config.extraConfig") or {}
    off = [key for key, value in extra.items() if key.endswith("ctkenabled") and value.lower() == "false"]
    if change_tracking(properties, extra) and not off:
        return
    if properties.get("capability.changeTrackingSupported") is False:
        raise TerminalError("NotSupported", f"changes of {vm} cannot be tracked (its hardware is older than version 7); migrate it cold")
    if any(_reconfigures(task) for task in subject.read_tasks(content, properties.get("recentTask") or []) if subject.alive(task)):
        return
    options = [vim.option.OptionValue(key=key.replace("ctkenabled", "ctkEnabled"), value="TRUE") for key in off]
    target.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True, extraConfig=options))
    log.info("change tracking requested", extra={"vm": str(vm)})


def _reconfigures(task: Properties) -> bool:
    return "reconfigur" in str(task.get("info.descriptionId") or "").lower()
