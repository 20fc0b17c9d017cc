"""Which privileges our account lacks, asked for many VMs in one call.

What it is: the vendor's names behind core/rights.py. What it is not: a check at act time; there a NoPermission fault tells.
Source: vSphere Web Services API, "Required Privileges" of PowerOffVM_Task, PowerOnVM_Task, ShutdownGuest, CreateSnapshot_Task,
RemoveSnapshot_Task, QueryChangedDiskAreas, ExportVm, ReconfigVM_Task (changeTrackingEnabled); AuthorizationManager.HasPrivilegeOnEntities.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.core.inventory import SourceVm
from reconciler.core.model import Right
from reconciler.drivers.vsphere.sdk import moid, reference, vim, vmodl

log = logging.getLogger(__name__)

_ON_VM: Mapping[Right, tuple[str, ...]] = {
    Right.POWER_OFF: ("VirtualMachine.Interact.PowerOff",),
    Right.POWER_ON: ("VirtualMachine.Interact.PowerOn",),
    Right.READ_DISKS: ("VirtualMachine.Provisioning.DiskRandomRead",),
    Right.EXPORT: ("VApp.Export",),
    Right.SNAPSHOT: ("VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RemoveSnapshot"),
    Right.READ_CHANGES: ("VirtualMachine.Provisioning.DiskRandomRead",),
    Right.TRACK: ("VirtualMachine.Config.ChangeTracking",),
}
_ON_DATASTORE: Mapping[Right, tuple[str, ...]] = {Right.READ_FILES: ("Datastore.Browse", "Datastore.FileManagement")}
_ENTITIES_PER_CALL = 250
# What cannot say (some hosts; an object that went away in between) says nothing: then the act itself will tell.
_SILENT: Any = (vmodl.fault.NotSupported, vmodl.fault.ManagedObjectNotFound, vmodl.fault.InvalidArgument)

Lacking = Mapping[str, Mapping[Right, tuple[str, ...]]]


def read_rights(content: Any, vms: Sequence[SourceVm]) -> Lacking:
    """VM id -> what lacks, empty when nothing does. VMs about which the site does not say are left out."""
    if not vms:
        return {}
    stores = sorted({disk.storage_id for vm in vms for disk in vm.disks if disk.storage_id})
    try:
        on_vms = _granted(content, vim.VirtualMachine, [vm.id for vm in vms], _ON_VM)
        on_stores = _granted(content, vim.Datastore, stores, _ON_DATASTORE)
    except _SILENT as err:
        log.info("privileges cannot be asked for", extra={"error": type(err).__name__})
        return {}
    return {vm.id: _lacking(vm, on_vms[vm.id], on_stores) for vm in vms if vm.id in on_vms}


def _lacking(vm: SourceVm, granted: frozenset[str], on_stores: Mapping[str, frozenset[str]]) -> Mapping[Right, tuple[str, ...]]:
    found = {right: tuple(f"{p} on {vm.name}" for p in wanted if p not in granted) for right, wanted in _ON_VM.items()}
    stores = {disk.storage_id: disk.storage_name for disk in vm.disks if disk.storage_id in on_stores}
    for right, wanted in _ON_DATASTORE.items():
        found[right] = tuple(f"{p} on datastore {name}" for id_, name in stores.items() for p in wanted if p not in on_stores[id_])
    return {right: names for right, names in found.items() if names}


def _granted(content: Any, kind: Any, ids: Sequence[str], wanted: Mapping[Right, tuple[str, ...]]) -> dict[str, frozenset[str]]:
    privileges = sorted({p for names in wanted.values() for p in names})
    return {id_: has for part in _parts(ids) for id_, has in _ask(content, [reference(content, kind, id_) for id_ in part], privileges)}


def _ask(content: Any, entities: list[Any], privileges: list[str]) -> Iterator[tuple[str, frozenset[str]]]:
    session = content.sessionManager.currentSession
    if session is None:  # how a session that has expired shows here, where other calls answer with the fault
        raise vim.fault.NotAuthenticated()
    for answer in content.authorizationManager.HasPrivilegeOnEntities(entities, session.key, privileges):
        yield moid(answer.entity), frozenset(p.privId for p in answer.privAvailability if p.isGranted)


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(ids), _ENTITIES_PER_CALL):
        yield ids[begin : begin + _ENTITIES_PER_CALL]
