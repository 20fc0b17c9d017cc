"""Virtual hardware as the SDK shows it, boiled down to small facts: a VM's device list is by far the largest thing in an inventory.

What it is: `config.hardware.device` -> Devices, which holds no SDK object, so that ten thousand VMs fit into memory.
What it is not: joined with datastores, networks or other settings; devices.py does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.drivers.vsphere.sdk import kind, moid, vim

_BUSES = {
    vim.vm.device.VirtualSCSIController: "scsi",
    vim.vm.device.VirtualSATAController: "sata",
    vim.vm.device.VirtualIDEController: "ide",
    vim.vm.device.VirtualNVMEController: "nvme",
    vim.vm.device.VirtualUSBController: "usb",
    vim.vm.device.VirtualUSBXHCIController: "usb",
}
_LISTED_KINDS = frozenset({"VirtualSriovEthernetCard", "VirtualPCIPassthrough", "VirtualSCSIPassthrough", "VirtualUSBController"})


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """`bus_number` counts controllers of one bus; `parents` nearest first. Units: bytes."""

    key: int
    label: str
    capacity_bytes: int
    controller_key: int
    bus: str
    bus_number: int
    unit: int
    backing_kind: str
    uuid: str
    file: str
    store_id: str
    parents: tuple[str, ...]
    key_id: str | None
    mode: str
    multi_writer: bool
    change_id: str | None
    device_name: str
    lun_uuid: str
    compatibility: str
    object_id: str


@dataclass(frozen=True, slots=True)
class CardFacts:
    """A NIC and what it is plugged into: a network's id, a distributed port group's key, or an opaque network's id."""

    key: int
    kind: str
    mac: str
    network_id: str
    port_group_key: str
    opaque_id: str
    network_name: str
    pci_slot: int
    connected: bool
    start_connected: bool


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    kind: str
    key: int
    pci_slot: int


@dataclass(frozen=True, slots=True)
class Devices:
    disks: tuple[DiskFacts, ...] = ()
    cards: tuple[CardFacts, ...] = ()
    listed: tuple[DeviceFacts, ...] = ()


def read_devices(devices: Sequence[Any]) -> Devices:
    controllers = {d.key: (_bus(d), d.busNumber or 0) for d in devices if isinstance(d, vim.vm.device.VirtualController)}
    return Devices(
        tuple(_disk(d, controllers) for d in devices if isinstance(d, vim.vm.device.VirtualDisk)),
        tuple(_card(d) for d in devices if isinstance(d, vim.vm.device.VirtualEthernetCard)),
        tuple(DeviceFacts(kind(d), d.key, _slot(d)) for d in devices if _is_listed(d)),
    )


def _bus(controller: Any) -> str:
    return next((bus for type_, bus in _BUSES.items() if isinstance(controller, type_)), "")


def _disk(device: Any, controllers: Mapping[int, tuple[str, int]]) -> DiskFacts:
    backing = device.backing
    bus, number = controllers.get(device.controllerKey, ("", 0))
    datastore, key_id = getattr(backing, "datastore", None), getattr(backing, "keyId", None)
    return DiskFacts(
        key=device.key,
        label=device.deviceInfo.label if device.deviceInfo is not None else f"disk {device.key}",
        capacity_bytes=device.capacityInBytes or (device.capacityInKB or 0) * 1024,
        controller_key=device.controllerKey or 0,
        bus=bus,
        bus_number=number,
        unit=device.unitNumber or 0,
        backing_kind=kind(backing).removeprefix("VirtualDisk").removesuffix("BackingInfo"),
        uuid=_text(backing, "uuid"),
        file=_text(backing, "fileName") or _text(backing, "descriptorFileName"),
        store_id=moid(datastore) if datastore is not None else "",
        parents=_parents(backing),
        key_id=str(key_id.keyId) if key_id is not None else None,
        mode=_text(backing, "diskMode"),
        multi_writer=_text(backing, "sharing") == "sharingMultiWriter",
        change_id=_text(backing, "changeId") or None,
        device_name=_text(backing, "deviceName"),
        lun_uuid=_text(backing, "lunUuid"),
        compatibility=_text(backing, "compatibilityMode"),
        object_id=_text(backing, "backingObjectId"),
    )


def _parents(backing: Any) -> tuple[str, ...]:
    parents, parent = [], getattr(backing, "parent", None)
    while parent is not None:
        parents.append(str(parent.fileName))
        parent = getattr(parent, "parent", None)
    return tuple(parents)


def _card(device: Any) -> CardFacts:
    backing, connectable = device.backing, device.connectable
    network, port = getattr(backing, "network", None), getattr(backing, "port", None)
    return CardFacts(
        key=device.key,
        kind=kind(device),
        mac=(device.macAddress or "").lower(),
        network_id=moid(network) if network is not None else "",
        port_group_key=_text(port, "portgroupKey"),
        opaque_id=_text(backing, "opaqueNetworkId"),
        network_name=_text(backing, "deviceName"),
        pci_slot=_slot(device),
        connected=bool(connectable.connected) if connectable is not None else True,
        start_connected=bool(connectable.startConnected) if connectable is not None else True,
    )


def _is_listed(device: Any) -> bool:
    """The kinds that rules read, and NICs that are connected."""
    if kind(device) in _LISTED_KINDS:
        return True
    connectable = device.connectable
    return isinstance(device, vim.vm.device.VirtualEthernetCard) and connectable is not None and bool(connectable.connected)


def _slot(device: Any) -> int:
    return getattr(device.slotInfo, "pciSlotNumber", None) or 0


def _text(thing: Any, name: str) -> str:
    """A text field that not every class has, or sets."""
    return getattr(thing, name, None) or ""
