"""NFC leases of the simulated vCenter: ExportVm and ExportSnapshot, their life on the lab's clock, and the disks behind their URLs.

A lease is initializing, then ready, then done or error; without HttpNfcLeaseProgress it times out. It belongs to nobody's session, so a
dead client's lease holds the machine until then, or until somebody cancels its task. One on a machine keeps every other task away; one on
a snapshot keeps that machine's snapshots from being removed.
Where it stands: registered with acts.py and calls.py; server.py asks it for what /nfc/… streams.
Source: vSphere Web Services API 8.0.2, HttpNfcLease, HttpNfcLeaseInfo, HttpNfcLeaseDeviceUrl; `*` stands for the host the client talks to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.lab import vmdkstream
from reconciler.lab.machines import Disk, Power, Vm
from reconciler.lab.vcenter import faults, soap
from reconciler.lab.vcenter.acts import Acts
from reconciler.lab.vcenter.devices import device_path
from reconciler.lab.vcenter.inventory import Node
from reconciler.lab.vcenter.machine_view import vm_ref
from reconciler.lab.vcenter.sessions import Session
from reconciler.lab.vcenter.snapshot_acts import SnapshotActs
from reconciler.lab.vcenter.tasks import KEPT_S, Task, Tasks
from reconciler.lab.vcenter.vmomi import support, vim, vmodl
from reconciler.lab.world import World

EXPORT = "VApp.Export"
NVRAM = b"MRVN".ljust(8684, b"\0")
_BLOCKED = (
    "PowerOnVM_Task",
    "Destroy_Task",
    "RelocateVM_Task",
    "ReconfigVM_Task",
    "ExportVm",
    "CreateSnapshot_Task",
    "RemoveAllSnapshots_Task",
)


@dataclass(frozen=True, slots=True)
class Leased:
    """A disk as it is streamed: the file that holds its bytes, and its size."""

    disk: Disk
    path: Path
    capacity_bytes: int


@dataclass(slots=True)
class Lease:
    id: str
    vm: Vm
    ticket: str
    disks: list[Leased]
    task: Task
    of_snapshot: bool
    state: str = "initializing"
    error: Any = None
    progress: int = 0
    heard_s: float = 0.0
    sent: set[str] = field(default_factory=set)  # names of what was streamed to its end
    revision: int = 0


class Leases:
    """Called under the world's lock. `host`: what URLs name; `timeout_s`, `ready_s`: how long a lease lives unheard, and is prepared."""

    def __init__(self, world: World, tasks: Tasks, acts: Acts, snapshots: SnapshotActs, thumbprint: str) -> None:
        self._world, self._tasks, self._snapshots = world, tasks, snapshots
        self._thumbprint = thumbprint
        self.host = "*"
        self.timeout_s = 300.0
        self.ready_s = 0.2
        self.known: dict[str, Lease] = {}
        self._fail: list[Any] = []
        snapshots.held = self._holder
        acts.methods["ExportVm"] = (EXPORT, self._export_vm)
        self.methods: dict[str, Callable[[Session, soap.Call], Any]] = {
            "ExportSnapshot": self._export_snapshot,
            "HttpNfcLeaseProgress": lambda s, c: self._heard(self._open(c), c.args["percent"]),
            "HttpNfcLeaseComplete": lambda s, c: self._end(self._open(c, "ready"), "done", None),
            "HttpNfcLeaseAbort": lambda s, c: self._end(self._open(c), "error", c.args.get("fault") or _canceled()),
            "CancelTask": self._cancel,
        }

    # ---- beginning --------------------------------------------------------------------------------------------------------------------

    def _export_vm(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        """Errors: InvalidPowerState, NotSupported (encrypted)."""
        if vm.power is not Power.OFF:
            raise faults.invalid_power(vm.power, Power.OFF)
        return self._begin(vm, user, "exportVm", [Leased(d, d.path, d.capacity_bytes) for d in vm.disks], False)

    def _export_snapshot(self, session: Session, call: soap.Call) -> Any:
        """Independent disks are not in a snapshot, nor in its export. Errors: ManagedObjectNotFound, NotSupported (encrypted)."""
        try:
            vm, snapshot = self._snapshots.find(call.this._moId, EXPORT)
        except KeyError:
            raise faults.not_found(call.this) from None
        moments = [m for m in snapshot.disks if not m.disk.independent]
        disks = [Leased(m.disk, self._world.file_at(m.disk, snapshot), m.capacity_bytes) for m in moments]
        return self._begin(vm, session.user, "exportSnapshot", disks, True)

    def _begin(self, vm: Vm, user: str, operation: str, disks: list[Leased], of_snapshot: bool) -> Any:
        if any(d.disk.key_id for d in disks):
            raise faults.not_supported()
        ticket = self._world.uuid()
        task = self._tasks.open(vm, operation, user, holds=not of_snapshot)
        lease = Lease(f"session[{ticket}]{self._world.uuid()}", vm, ticket, disks, task, of_snapshot)
        self.known[lease.id] = lease
        self._heard(lease, 0)
        self._world.later(self.ready_s, lambda: self._get_ready(lease))
        return vim.HttpNfcLease(lease.id)

    def fail_next(self, fault: Any) -> None:
        """The next lease ends in `fault` instead of getting ready."""
        self._fail.append(fault)

    def _get_ready(self, lease: Lease) -> None:
        if lease.state != "initializing":
            return
        if self._fail:
            self._end(lease, "error", self._fail.pop(0))
            return
        lease.state = "ready"
        self._heard(lease, 0)

    # ---- life and end -----------------------------------------------------------------------------------------------------------------

    def _heard(self, lease: Lease, percent: int) -> None:
        lease.heard_s, lease.progress = self._world.clock.monotonic(), percent
        self._show(lease)
        self._world.later(self.timeout_s, lambda: self._expire(lease))

    def _expire(self, lease: Lease) -> None:
        if lease.state in ("initializing", "ready") and self._world.clock.monotonic() - lease.heard_s >= self.timeout_s:
            self._end(lease, "error", vim.fault.Timedout(msg="Operation timed out."))

    def _end(self, lease: Lease, state: str, error: Any) -> None:
        lease.state, lease.error = state, error
        self._tasks.close(lease.task, error)
        self._show(lease)
        self._world.later(KEPT_S, lambda: self._forget(lease))

    def _forget(self, lease: Lease) -> None:
        self.known.pop(lease.id, None)

    def _show(self, lease: Lease) -> None:
        lease.revision += 1
        self._world.changed(lease.vm)

    def _open(self, call: soap.Call, *states: str) -> Lease:
        """Errors: ManagedObjectNotFound; Timedout; InvalidState for a lease that has ended, or is not so far."""
        lease = self.known.get(call.this._moId)
        if lease is None:
            raise faults.not_found(call.this)
        if isinstance(lease.error, vim.fault.Timedout):
            raise vim.fault.Timedout(msg="Operation timed out.")
        if lease.state not in (states or ("initializing", "ready")):
            raise vim.fault.InvalidState(msg="The operation is not allowed in the current state.")
        return lease

    def _cancel(self, session: Session, call: soap.Call) -> None:
        """Task.CancelTask: only exports can be canceled here. Errors: InvalidState."""
        lease = next((k for k in self.known.values() if k.task.key == call.this._moId), None)
        if lease is None or lease.task.state != "running":
            raise vim.fault.InvalidState(msg="The operation is not allowed in the current state.")
        self._end(lease, "error", _canceled())

    # ---- what others see --------------------------------------------------------------------------------------------------------------

    def live(self, vm: Vm) -> list[Lease]:
        return [k for k in self.known.values() if k.vm is vm and k.state in ("initializing", "ready")]

    def disabled(self, vm: Vm) -> list[str]:
        """VirtualMachine.disabledMethod, as far as power and leases tell."""
        on = ["PowerOnVM_Task", "ExportVm"] if vm.power is Power.ON else []
        off = ["PowerOffVM_Task", "SuspendVM_Task", "ResetVM_Task", "ShutdownGuest"] if vm.power is Power.OFF else []
        leased = list(_BLOCKED) if any(not k.of_snapshot for k in self.live(vm)) else []
        return list(dict.fromkeys(on + off + leased))

    def _holder(self, vm: Vm) -> Any:
        return next((vim.Task(k.task.key) for k in self.live(vm) if k.of_snapshot), None)

    def node(self, moid: str) -> Node | None:
        lease = self.known.get(moid)
        return Node(vim.HttpNfcLease(moid), lease, {**_TABLE, "info": self._info}, lease.revision) if lease else None

    def _info(self, lease: Lease) -> Any:
        """Valid while the lease is ready only."""
        if lease.state != "ready":
            return None
        urls = [self._url(lease, device_path(lease.vm, d.disk), f"disk-{n}.vmdk", True) for n, d in enumerate(lease.disks)]
        if not lease.of_snapshot:
            urls.append(self._url(lease, f"/vm-{lease.vm.key}/nvram", f"{lease.vm.name}.nvram", False))
        return vim.HttpNfcLease.Info(
            lease=vim.HttpNfcLease(lease.id),
            entity=vm_ref(lease.vm),
            deviceUrl=urls,
            totalDiskCapacityInKB=support.long(sum(d.capacity_bytes for d in lease.disks) // 1024),
            leaseTimeout=int(self.timeout_s),
        )

    def _url(self, lease: Lease, key: str, name: str, disk: bool) -> Any:
        return vim.HttpNfcLease.DeviceUrl(
            key=key,
            importKey=key.replace(f"/vm-{lease.vm.key}/", f"/{lease.vm.name}/"),
            url=f"https://{self.host}/nfc/{lease.ticket}/{name.replace(' ', '%20')}",
            sslThumbprint=self._thumbprint,
            disk=disk,
            targetId=name,
            datastoreKey=f"datastore-{lease.disks[0].disk.datastore.key}" if lease.disks else None,
            fileSize=None if disk else support.long(len(NVRAM)),  # told for files that are no disks
        )

    # ---- bytes ------------------------------------------------------------------------------------------------------------------------

    def stream(self, path: str) -> Iterator[bytes] | None:
        """What GET /nfc/<ticket>/<name> sends; None for what no ready lease offers. It breaks off (OSError) when the lease ends."""
        ticket, _, name = path.removeprefix("/nfc/").partition("/")
        lease = next((k for k in self.known.values() if k.ticket == ticket and k.state == "ready"), None)
        if lease is None:
            return None
        if name.endswith(".nvram") and not lease.of_snapshot:
            return iter((NVRAM,))
        number = name.removeprefix("disk-").removesuffix(".vmdk")
        if not number.isdigit() or int(number) >= len(lease.disks):
            return None
        return self._guarded(lease, name, lease.disks[int(number)])

    def _guarded(self, lease: Lease, name: str, leased: Leased) -> Iterator[bytes]:
        for piece in vmdkstream.stream(leased.path, leased.capacity_bytes, name):
            with self._world.lock:
                self._world.settle()
                if lease.state != "ready":
                    raise OSError("the lease has ended")
            yield piece
        with self._world.lock:
            lease.sent.add(name)


def _canceled() -> Any:
    return vmodl.fault.RequestCanceled(msg="The task was canceled by a user.")


_TABLE: dict[str, Callable[[Any], Any]] = {
    "state": lambda k: getattr(vim.HttpNfcLease.State, k.state),
    "error": lambda k: k.error,
    "mode": lambda k: "pushOrGet",
    "initializeProgress": lambda k: 0 if k.state == "initializing" else 100,
    "transferProgress": lambda k: k.progress,
    "capabilities": lambda k: vim.HttpNfcLease.Capabilities(pullModeSupported=False, corsSupported=False),
}
