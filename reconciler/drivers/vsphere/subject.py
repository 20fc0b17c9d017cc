"""The VM that an act is about: read by its id, and taken only if it is still the machine that the run froze.

What it is: the check before every act and direct read; a rebuilt vCenter gives old ids to other machines (safety 13).
What it is not: the act. Runs inside `Session.run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.model import VmRef
from reconciler.drivers.vsphere.collector import read_one, read_some
from reconciler.drivers.vsphere.digest import Properties
from reconciler.drivers.vsphere.sdk import reference, vim, vmodl
from reconciler.errors import RetryableError, TerminalError

UUID = "config.instanceUuid"
_ALIVE = ("queued", "running")
_TASK = ("info.state", "info.descriptionId", "info.error")


def check_site(content: Any, site: str, vm: VmRef) -> None:
    """Errors: RetryableError ProviderChanged."""
    if content.about.instanceUuid != vm.site_uuid:
        raise RetryableError(
            "ProviderChanged",
            f"{site} is another one ({content.about.instanceUuid}) than {vm} was found in ({vm.site_uuid}); set the provider's url back",
        )


def same(properties: Mapping[str, Any], vm: VmRef) -> bool:
    """Whether the id still names this VM. Errors: RetryableError when the site does not tell (permissions, a VM without its files)."""
    uuid = properties.get(UUID)
    if not uuid:
        raise RetryableError(
            "VMUnreadable", f"{vm}: the site does not tell its instanceUuid; check the VM's files and the account's rights"
        )
    return bool(uuid == vm.uuid)


def read(content: Any, site: str, vm: VmRef, paths: tuple[str, ...]) -> tuple[Any, Properties]:
    """The VM and these properties of it. Errors: TerminalError VMGone; RetryableError ProviderChanged, VMUnreadable."""
    check_site(content, site, vm)
    target = reference(content, vim.VirtualMachine, vm.id)
    try:
        properties = read_one(content, target, (UUID, *paths))
    except vmodl.fault.ManagedObjectNotFound as err:
        raise _gone(vm) from err
    if not same(properties, vm):
        raise _gone(vm)
    return target, properties


def _gone(vm: VmRef) -> TerminalError:
    return TerminalError("VMGone", f"{vm} with instanceUuid {vm.uuid} is not there any more; put it back, or plan the VM anew")


def read_tasks(content: Any, tasks: list[Any]) -> list[Properties]:
    """State, kind and error of each of a VM's `recentTask`. A task may vanish while we look: then it is over, and so are older ones."""
    if not tasks:
        return []
    try:
        return [{**info, "id": id_} for id_, info in read_some(content, tasks, _TASK)]
    except vmodl.fault.ManagedObjectNotFound:
        return []


def alive(task: Properties) -> bool:
    return task.get("info.state") in _ALIVE


def words(fault: Any) -> str:
    """A task's fault as it was told: `msg` for people, else its type."""
    return str(getattr(fault, "msg", None) or type(fault).__name__.rpartition(".")[2])
