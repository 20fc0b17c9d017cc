"""vSphere faults in vCenter's own words, built where several calls need them.

What it is not: the fault script of a test (lab/faults.py).
"""

from __future__ import annotations

from typing import Any

from reconciler.lab.machines import Power
from reconciler.lab.vcenter.machine_view import POWER
from reconciler.lab.vcenter.vmomi import vim, vmodl

_WORDS = {Power.ON: "Powered on", Power.OFF: "Powered off", Power.SUSPENDED: "Suspended"}


def not_authenticated() -> Any:
    return vim.fault.NotAuthenticated(msg="The session is not authenticated.", object=vim.Folder("group-d1"), privilegeId="System.View")


def invalid_login() -> Any:
    return vim.fault.InvalidLogin(msg="Cannot complete login due to an incorrect user name or password.")


def not_found(ref: Any) -> Any:
    return vmodl.fault.ManagedObjectNotFound(
        msg=f"The object '{type(ref)._wsdlName}:{ref._moId}' has already been deleted or has not been completely created", obj=ref
    )


def no_permission(ref: Any, privilege: str) -> Any:
    return vim.fault.NoPermission(msg="Permission to perform this operation was denied.", object=ref, privilegeId=privilege)


def invalid_power(existing: Power, requested: Power | None) -> Any:
    return vim.fault.InvalidPowerState(
        msg=f"The attempted operation cannot be performed in the current state ({_WORDS[existing]}).",
        existingState=POWER[existing],
        requestedState=POWER[requested] if requested else None,
    )


def tools_unavailable() -> Any:
    return vim.fault.ToolsUnavailable(msg="Cannot complete operation because VMware Tools is not running in this virtual machine.")


def task_in_progress(task: Any) -> Any:
    return vim.fault.TaskInProgress(msg="Another task is already in progress.", task=task)


def invalid_argument(name: str) -> Any:
    return vmodl.fault.InvalidArgument(msg=f"A specified parameter was not correct: {name}", invalidProperty=name)


def not_supported() -> Any:
    return vmodl.fault.NotSupported(msg="The operation is not supported on the object.")


def file_fault(file: str) -> Any:
    return vim.fault.FileFault(msg=f"Error caused by file {file}", file=file)


def file_locked(file: str) -> Any:
    return vim.fault.FileLocked(msg=f"Unable to access file {file} since it is locked", file=file)


def too_many_levels() -> Any:
    return vim.fault.TooManySnapshotLevels(msg="Snapshot hierarchy is too deep.")
