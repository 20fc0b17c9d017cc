"""VirtualMachine.ReconfigVM_Task, as far as a migration or a busybody needs it: change tracking, extraConfig, annotation, disks.

What it is not: hardware planning. Where it stands: acts.py starts the task, this is its body.
Source: vSphere Web Services API 8.0.2, VirtualMachineConfigSpec, VirtualDeviceConfigSpec. A disk cannot grow below snapshots.
"""

from __future__ import annotations

from typing import Any

from reconciler.lab import sparse
from reconciler.lab.machines import Disk, Happening, Vm
from reconciler.lab.vcenter import faults
from reconciler.lab.vcenter.devices import BUSES, disk_key
from reconciler.lab.vcenter.vmomi import vim
from reconciler.lab.world import World


def reconfigure(world: World, vm: Vm, user: str, spec: Any) -> None:
    """Errors: NotSupported, InvalidArgument, InvalidDeviceSpec, InvalidDeviceOperation."""
    if spec.changeTrackingEnabled and not vm.supports_change_tracking:
        raise faults.not_supported()
    for change in spec.deviceChange:
        _device(world, vm, user, change)
    for option in spec.extraConfig:
        _option(vm, option.key, str(option.value))
    if spec.annotation is not None:
        vm.annotation = spec.annotation
    if spec.changeTrackingEnabled is not None:
        world.set_change_tracking(vm, bool(spec.changeTrackingEnabled), user)
    else:
        world.tell(vm, Happening.RECONFIGURED, user, "user")


def privileges(spec: Any) -> list[str]:
    """What the user must hold for this change."""
    disks = {"add": "AddNewDisk", "edit": "DiskExtend", "remove": "RemoveDisk"}
    wanted = [disks[str(change.operation)] for change in spec.deviceChange]
    wanted += ["ChangeTracking"] if spec.changeTrackingEnabled is not None else []
    wanted += ["AdvancedConfig"] if spec.extraConfig else []
    wanted += ["Annotation"] if spec.annotation is not None else []
    return [f"VirtualMachine.Config.{name}" for name in wanted]


def _option(vm: Vm, key: str, value: str) -> None:
    """An empty value takes the key away. `scsi0:0.ctkEnabled` is the switch of one disk."""
    if value:
        vm.extra_config[key] = value
    else:
        vm.extra_config.pop(key, None)


def _device(world: World, vm: Vm, user: str, change: Any) -> None:
    device, operation = change.device, str(change.operation)
    if not isinstance(device, vim.vm.device.VirtualDisk):
        raise faults.not_supported()
    if operation == "add":
        _add(world, vm, device)
        return
    disk = next((d for d in vm.disks if disk_key(d) == device.key), None)
    if disk is None:
        raise vim.fault.InvalidDeviceSpec(msg="Invalid configuration for device '0'.", deviceIndex=0, property="virtualDeviceSpec.device")
    if operation == "remove":
        world.remove_disk(vm, disk, user)
        return
    _grow(world, vm, disk, user, int(device.capacityInBytes or 0) or int(device.capacityInKB) * 1024)


def _add(world: World, vm: Vm, device: Any) -> None:
    """A new, empty disk on the datastore of the backing's file name, else beside the first disk."""
    bus = next((b for b, (_, key, _) in BUSES.items() if key == device.controllerKey), "pvscsi")
    capacity = int(device.capacityInBytes or 0) or int(device.capacityInKB) * 1024
    name = (device.backing.fileName or "").partition("]")[0].removeprefix("[")
    store = world.datastores.get(name) or vm.disks[0].datastore
    world.add_disk(vm, store, capacity // sparse.MIB, bus=bus, mode=str(device.backing.diskMode or "persistent"))


def _grow(world: World, vm: Vm, disk: Disk, user: str, capacity: int) -> None:
    if disk.layers:
        raise vim.fault.InvalidDeviceOperation(msg="Invalid operation for device '0'.", deviceIndex=0, badOp="edit")
    if capacity < disk.capacity_bytes:
        raise faults.invalid_argument("spec.deviceChange.device.capacityInKB")
    world.grow_disk(vm, disk, capacity // sparse.MIB, user)
