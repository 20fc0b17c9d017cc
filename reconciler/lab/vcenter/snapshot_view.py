"""Snapshots of the simulated vCenter as managed objects: whose they are, what is above them, and the machine's configuration at the time.

Only the disks are remembered as they were (capacity, chain, changeId); of the rest the lab shows the present.
Where it stands: inventory.py finds these nodes, like tasks.
Source: vSphere Web Services API 8.0.2, VirtualMachineSnapshot; VirtualDiskFlatVer2BackingInfo.changeId.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from reconciler.lab import chains
from reconciler.lab.machines import Disk, Moment, Snapshot, Vm
from reconciler.lab.tracking import Tracking
from reconciler.lab.vcenter.inventory import Node
from reconciler.lab.vcenter.machine_view import PROPERTIES, snapshot_ref, vm_ref
from reconciler.lab.vcenter.vmomi import vim
from reconciler.lab.world import World

Record = tuple[Vm, Snapshot]


def node(world: World, moid: str) -> Node | None:
    """None for what is no snapshot, or no longer one."""
    number = moid.removeprefix("snapshot-")
    if number == moid or not number.isdigit():
        return None
    try:
        vm, snapshot = world.snapshot(int(number))
    except KeyError:
        return None
    return Node(snapshot_ref(snapshot), (vm, snapshot), _TABLE, vm.revision)


def _children(record: Record) -> Any:
    vm, snapshot = record
    return vim.vm.Snapshot.Array([snapshot_ref(s) for s in vm.snapshots if s.parent == snapshot.key])


def _at(read: Callable[[Vm], Any]) -> Callable[[Record], Any]:
    return lambda record: read(machine_at(*record))


def machine_at(vm: Vm, snapshot: Snapshot) -> Vm:
    """A picture of `vm` with its disks as they were."""
    return replace(vm, disks=[_disk_at(moment, snapshot) for moment in snapshot.disks])


def _disk_at(moment: Moment, snapshot: Snapshot) -> Disk:
    disk = moment.disk
    layer = chains.frozen_by(disk, snapshot.key)
    record = Tracking(moment.tracking.life, moment.sequence) if moment.tracking else None
    seen = replace(disk, capacity_bytes=moment.capacity_bytes, tracking=record)
    if layer is not None:
        seen.file, seen.path, seen.layers = layer.file, layer.path, list(chains.below(disk, snapshot.key))
    return seen


_TABLE: Mapping[str, Callable[[Any], Any]] = {
    "vm": lambda record: vm_ref(record[0]),
    "childSnapshot": _children,
    **{path: _at(read) for path, read in PROPERTIES.items() if path == "config" or path.startswith("config.")},
}
