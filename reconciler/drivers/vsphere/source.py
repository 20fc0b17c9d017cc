"""vSphere as a source: SourceDriver over one vCenter, or one ESXi host.

What it is: the few calls the engine makes, each a direct read or one request, composed of session, inventory, epoch and disks.
What it is not: a decision; nothing here waits, polls or tries again. Every act first checks that the VM behind the id is still the one
that the run froze: a rebuilt vCenter gives old ids to other machines (safety 13).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler.core.desired import ProviderSpec
from reconciler.core.inventory import Inventory, SiteInfo, SourceVm
from reconciler.core.model import Absent, Known, Power, PowerRequest, Secret, VmRef
from reconciler.core.vddk import configuration
from reconciler.drivers.vsphere import copies, subject
from reconciler.drivers.vsphere.changes import read_changes
from reconciler.drivers.vsphere.collector import VM_PROPERTIES, read_one
from reconciler.drivers.vsphere.digest import Properties, Snapshots
from reconciler.drivers.vsphere.doors import Door, Doors, ReadSecret
from reconciler.drivers.vsphere.epoch import CHANGE_VERSION, read_epoch, read_host_epoch
from reconciler.drivers.vsphere.inventory import InventoryCache
from reconciler.drivers.vsphere.leases import open_lease
from reconciler.drivers.vsphere.machine import FROZEN, power_of
from reconciler.drivers.vsphere.rights import Lacking, read_rights
from reconciler.drivers.vsphere.sdk import reference, vim, vmodl
from reconciler.drivers.vsphere.session import Session
from reconciler.drivers.vsphere.snapshots import OwnSnapshots
from reconciler.drivers.vsphere.tracking import enable_tracking
from reconciler.errors import RetryableError
from reconciler.ports import Capabilities, Changes, Clock, CopySource, DiskChoice, SourceDriver

log = logging.getLogger(__name__)

CONNECTIONS = 4
REQUEST_BYTES = 4 << 20
_POWER_PROPERTIES = ("runtime.powerState", "guest.toolsRunningStatus", "recentTask")
_TASKS = {
    PowerRequest.ON: frozenset({"VirtualMachine.powerOn", "Datacenter.ExecuteVmPowerOnLRO"}),
    PowerRequest.OFF: frozenset({"VirtualMachine.powerOff"}),
    PowerRequest.SHUTDOWN: frozenset({"VirtualMachine.powerOff"}),
}
_FROZEN_PROPERTIES = ("config.hardware.device", "config.extraConfig", "config.changeTrackingEnabled")


def connect(
    provider: ProviderSpec, secret: Mapping[str, Secret], clock: Clock, read_secret: ReadSecret | None = None, follow: bool = False
) -> SourceDriver:  # fmt: skip
    """No call is made yet. `read_secret`: Secrets of the provider's Hosts. `follow`: this process goes on reading the inventory.

    Errors: UserError for a url, secret or setting that is wrong.
    """
    doors = Doors(provider, secret, read_secret, clock) if provider.hosts and read_secret is not None else None
    session = Session(provider, secret)
    return VsphereSource(session, clock, InventoryCache(session, clock, follow), doors, configuration(provider.settings))


class VsphereSource:
    """Thread-safe; one per provider and secret."""

    caps = Capabilities(warm=True, quiesce=False, guest_shutdown=True, needs_conversion=True)

    def __init__(
        self, session: Session, clock: Clock, inventory: InventoryCache, doors: Doors | None = None, vddk_config: str = ""
    ) -> None:
        self._session, self._clock = session, clock
        self._doors = doors
        self._vddk_config = vddk_config
        self._inventory = inventory
        self._snapshots = OwnSnapshots(session)

    def read_site(self) -> SiteInfo:
        return replace(self._session.read_site(), asked_at=self._clock.now())

    def read_inventory(self) -> Inventory:
        inventory = self._inventory.read(self.read_site())
        if self._doors is None:
            return inventory
        return replace(inventory, host_access=self._doors.check(self._inventory.host_facts()))

    def read_vm(self, vm: VmRef) -> Known[SourceVm] | Absent:
        found = self._session.run(f"read {vm}", lambda content: self._read(content, vm))
        if found is None:
            return Absent()
        properties, epoch = found
        return Known(self._inventory.convert_one(vm.id, properties, epoch))

    def request_power(self, vm: VmRef, want: PowerRequest) -> None:
        """Success when it is so already or is being done. Errors: ToolsNotRunning (Retryable): whether to pull the plug is policy."""
        self._session.run(f"{want} of {vm}", lambda content: self._request(content, vm, want))

    def describe_copy(self, vm: SourceVm, disks: Sequence[DiskChoice], at: str | None = None) -> CopySource:
        session = self._session
        url = f"https://{session.endpoint.authority}{session.endpoint.path}"
        site_uuid = session.run(f"describe the copy of {vm.name}", lambda content: str(content.about.instanceUuid))
        export = copies.export(vm, disks, at, url, session.is_host, site_uuid)
        vddk = copies.vddk(vm, disks, at, url, self._vddk_config)
        door = self._door(vm) if export is None and vddk is None else self._own_door()
        return CopySource(
            disks=copies.readers(door, vm, disks, at),
            tls=door.trust.tls,
            ca_pem=door.trust.ca_pem,
            credentials=door.credentials,
            connections=CONNECTIONS,
            request_bytes=REQUEST_BYTES,
            export=export,
            vddk=vddk,
        )

    def enable_tracking(self, vm: VmRef) -> None:
        self._session.run(f"change tracking of {vm}", lambda content: enable_tracking(content, self._session.site, vm))

    def ensure_snapshot(self, vm: VmRef, key: str) -> None:
        self._snapshots.ensure(vm, key)

    def drop_snapshot(self, vm: VmRef, key: str, merge: bool = False) -> None:
        self._snapshots.drop(vm, key, merge)

    def read_changes(self, vm: VmRef, at: str | None, since: Mapping[str, str]) -> Changes:
        return self._session.run(f"changes of {vm}", lambda content: read_changes(content, self._session.site, vm, at, since))

    def read_rights(self, vms: Sequence[SourceVm]) -> Lacking:
        return self._session.run("ask for privileges", lambda content: read_rights(content, vms))

    def close(self) -> None:
        if self._doors is not None:
            self._doors.close()
        self._inventory.close()
        self._session.close()

    def _read(self, content: Any, vm: VmRef) -> tuple[dict[str, Any], str] | None:
        """Properties, then the epoch: a power-on that falls between the two shows in the epoch."""
        subject.check_site(content, self._session.site, vm)
        target = reference(content, vim.VirtualMachine, vm.id)
        try:
            properties = read_one(content, target, (*VM_PROPERTIES, CHANGE_VERSION))
            if not subject.same(properties, vm):
                return None
            properties[FROZEN] = _read_frozen(content, vm, properties)
            read = read_host_epoch if self._session.is_host else read_epoch
            return properties, read(content, target, str(properties.get(CHANGE_VERSION) or ""))
        except vmodl.fault.ManagedObjectNotFound:
            return None

    def _request(self, content: Any, vm: VmRef, want: PowerRequest) -> None:
        target, properties = subject.read(content, self._session.site, vm, _POWER_PROPERTIES)
        power, wanted = power_of(properties.get("runtime.powerState")), Power.ON if want is PowerRequest.ON else Power.OFF
        if power is wanted or _under_way(content, vm, properties.get("recentTask") or [], want):
            return
        if want is PowerRequest.SHUTDOWN and properties.get("guest.toolsRunningStatus") != "guestToolsRunning":
            raise RetryableError(
                "ToolsNotRunning", f"{vm} cannot be shut down: VMware Tools do not run in its guest; start them, or power it off"
            )
        try:
            _start(target, want)
        except vim.fault.InvalidPowerState as err:
            if power_of(err.existingState) is not wanted:
                raise
            return
        except vim.fault.TaskInProgress as err:
            if (lease := open_lease(content, vm, err, properties.get("recentTask") or [])) is not None:
                raise lease from err
            raise
        log.info("power change requested", extra={"vm": str(vm), "want": want.value})

    def _door(self, vm: SourceVm) -> Door:
        """Where this VM's disks are read: at the provider's own url, unless a Host manifest is for the host that it is on now."""
        direct = self._doors.of(vm.host_id) if self._doors is not None else None
        return direct or self._own_door()

    def _own_door(self) -> Door:
        session = self._session
        return Door(session.endpoint.authority, session.trust, session.credentials, "")


def _read_frozen(content: Any, vm: VmRef, properties: Properties) -> dict[str, Properties]:
    """What each snapshot of ours froze, by its id. Errors: RetryableError SnapshotGone, when one goes while we look."""
    snapshots: Snapshots | None = properties.get("snapshot")
    own = [snapshot.id for snapshot in snapshots.all if snapshot.key is not None] if snapshots is not None else []
    try:
        return {id_: read_one(content, reference(content, vim.vm.Snapshot, id_), _FROZEN_PROPERTIES) for id_ in own}
    except vmodl.fault.ManagedObjectNotFound as err:
        raise RetryableError("SnapshotGone", f"{vm}: our snapshot went away while it was read") from err


def _under_way(content: Any, vm: VmRef, tasks: list[Any], want: PowerRequest) -> bool:
    """Whether a task that leads there is queued or running. Errors: RetryableError LeaseOpen, when an export made one fail."""
    ours = [info for info in subject.read_tasks(content, tasks) if info.get("info.descriptionId") in _TASKS[want]]
    if any(map(subject.alive, ours)):
        return True
    for error in (info.get("info.error") for info in ours if info.get("info.state") == "error"):
        log.warning("an earlier power task failed", extra={"vm": str(vm), "want": want.value, "error": subject.words(error)})
        if isinstance(error, vim.fault.TaskInProgress) and (lease := open_lease(content, vm, error, tasks)) is not None:
            raise lease
    return False


def _start(target: Any, want: PowerRequest) -> None:
    match want:
        case PowerRequest.ON:
            target.PowerOnVM_Task()
        case PowerRequest.OFF:
            target.PowerOffVM_Task()
        case PowerRequest.SHUTDOWN:
            target.ShutdownGuest()
