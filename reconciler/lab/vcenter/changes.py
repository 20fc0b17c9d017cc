"""VirtualMachine.QueryChangedDiskAreas: what was written to a disk since a change id, page by page.

The list is exact, in blocks of 64 KiB, for as long as the world's record of it tells the truth. A page covers `page_bytes` of the disk,
less when it would hold more than `page_areas`; it may be empty though changes follow. "*" asks for allocated areas: VMFS knows its
holes, any other datastore answers with all of the disk.
Where it stands: acts.py has checked session and machine; the record is lab/tracking.py's.
Source: vSphere Web Services API 8.0.2, QueryChangedDiskAreas, DiskChangeInfo; VDDK guide, "About Changed Block Tracking".
"""

from __future__ import annotations

from typing import Any

from reconciler.lab import tracking
from reconciler.lab.machines import Disk, Moment, Power, Snapshot, Vm
from reconciler.lab.vcenter import faults
from reconciler.lab.vcenter.devices import disk_key
from reconciler.lab.vcenter.vmomi import support, vim
from reconciler.lab.world import World

Areas = list[tuple[int, int]]


class Changes:
    """Called under the world's lock."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.page_bytes = 16 << 20
        self.page_areas = 2000

    def query(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        """Errors: NotFound (device), ManagedObjectNotFound (snapshot), InvalidArgument (offset, id), FileFault (not recorded)."""
        snapshot = self._snapshot(vm, args.get("snapshot"))
        moment = self._moment(vm, snapshot, int(args["deviceKey"]))
        start = int(args["startOffset"])
        if not 0 <= start < moment.capacity_bytes:
            raise faults.invalid_argument("startOffset")
        if snapshot is None and vm.power is not Power.OFF:
            raise faults.file_fault(moment.disk.backing)  # without a snapshot it works for machines that are off only
        if not vm.change_tracking or moment.tracking is None:
            raise faults.file_fault(moment.disk.backing)
        return self._page(self._areas(vm, moment.disk, snapshot, args["changeId"]), start, moment.capacity_bytes)

    def _snapshot(self, vm: Vm, ref: Any) -> Snapshot | None:
        if ref is None:
            return None
        found = next((s for s in vm.snapshots if f"snapshot-{s.key}" == ref._moId), None)
        if found is None:
            raise faults.not_found(ref)
        return found

    def _moment(self, vm: Vm, snapshot: Snapshot | None, key: int) -> Moment:
        disks = [m.disk for m in snapshot.disks] if snapshot else vm.disks
        disk = next((d for d in disks if disk_key(d) == key), None)
        if disk is None:
            raise vim.fault.NotFound(msg="The object or item referred to could not be found.")
        return self._world.moment(vm, disk, snapshot)

    def _areas(self, vm: Vm, disk: Disk, snapshot: Snapshot | None, since: str) -> Areas:
        if since == "*":
            if disk.datastore.kind != "VMFS":
                return [(0, self._world.moment(vm, disk, snapshot).capacity_bytes)]
            return self._world.allocated_areas(vm, disk, snapshot)
        try:
            return self._world.changed_areas(vm, disk, snapshot, since)
        except tracking.Unknown:
            raise faults.file_fault(disk.backing) from None
        except ValueError:
            raise faults.invalid_argument("changeId") from None

    def _page(self, areas: Areas, start: int, capacity: int) -> Any:
        end = min(capacity, start + self.page_bytes)
        page = list(tracking.clip(areas, start, end))
        if len(page) > self.page_areas:
            page = page[: self.page_areas]
            end = page[-1][0] + page[-1][1]
        extent = vim.VirtualMachine.DiskChangeInfo.DiskChangeExtent
        found = [extent(start=support.long(o), length=support.long(n)) for o, n in page]
        return vim.VirtualMachine.DiskChangeInfo(startOffset=support.long(start), length=support.long(end - start), changedArea=found)
