"""A VM's disks and NICs, joined with the places they are in and the settings about them: facts -> model and workload document.

What it is: pure; what is missing is tolerated. What it is not: a reader of SDK objects (hardware.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.inventory import Backing, SourceDisk, SourceNic
from reconciler.drivers.vsphere.hardware import CardFacts, Devices, DiskFacts
from reconciler.drivers.vsphere.places import Places

# In this order Forklift numbers disks, so names and indexes made from it are the same here.
_BUS_ORDER = {"sata": 0, "ide": 1, "scsi": 2, "nvme": 3, "usb": 4}
_NIC_MODELS = {
    "VirtualE1000": "e1000",
    "VirtualE1000e": "e1000e",
    "VirtualPCNet32": "pcnet32",
    "VirtualSriovEthernetCard": "sriov",
    "VirtualVmxnet": "vmxnet",
    "VirtualVmxnet2": "vmxnet2",
    "VirtualVmxnet3": "vmxnet3",
    "VirtualVmxnet3Vrdma": "vmxnet3vrdma",
}
_RAW = frozenset({"RawDiskMappingVer1", "RawDiskVer2", "PartitionedRawDiskVer2"})


@dataclass(frozen=True, slots=True)
class Hardware:
    """Disks and NICs twice: as the core wants them, and as parts of the workload document, in the same order."""

    disks: tuple[SourceDisk, ...]
    nics: tuple[SourceNic, ...]
    disk_documents: list[dict[str, object]]
    nic_documents: list[dict[str, object]]
    device_documents: list[dict[str, object]]


def place_devices(devices: Devices, extra: Mapping[str, str], places: Places, vm_tracking: bool) -> Hardware:
    """`extra` is extraConfig with lower-case keys."""
    facts = sorted(devices.disks, key=lambda d: (_BUS_ORDER.get(d.bus, 9), d.controller_key, d.unit, d.key))
    disks = tuple(_disk(fact, extra, places, vm_tracking) for fact in facts)
    nics = tuple(_nic(card, places) for card in devices.cards)
    return Hardware(
        disks,
        nics,
        [_disk_document(fact, disk, extra) for fact, disk in zip(facts, disks, strict=True)],
        [_nic_document(card, nic, order) for order, (card, nic) in enumerate(zip(devices.cards, nics, strict=True))],
        [{"kind": listed.kind, "key": listed.key, "pciSlotNumber": listed.pci_slot} for listed in devices.listed],
    )


def _disk(fact: DiskFacts, extra: Mapping[str, str], places: Places, vm_tracking: bool) -> SourceDisk:
    store = places.datastore(fact.store_id) if fact.store_id else None
    return SourceDisk(
        key=str(fact.key),
        uuid=fact.uuid or (f"file:{fact.file}" if fact.file else f"key:{fact.key}"),
        label=fact.label,
        capacity_bytes=fact.capacity_bytes,
        storage_id=fact.store_id,
        storage_name=store.name if store else "",
        bus=fact.bus,
        controller_key=fact.controller_key,
        unit=fact.unit,
        mode=fact.mode,
        backing=Backing(
            kind=fact.backing_kind,
            file=fact.file,
            parents=fact.parents,
            key_id=fact.key_id,
            datastore_type=store.type if store else "",
            datacenter_path=store.datacenter_path if store else "",
        ),
        serial=fact.uuid.replace("-", "").lower(),  # what the guest reads with disk.EnableUUID
        shared=fact.multi_writer,
        rdm=fact.backing_kind in _RAW,
        change_tracking=vm_tracking and tracking(fact, extra),
        change_id=fact.change_id,
    )


def _disk_document(fact: DiskFacts, disk: SourceDisk, extra: Mapping[str, str]) -> dict[str, object]:
    return {
        "key": fact.key,
        "unitNumber": fact.unit,
        "controllerKey": fact.controller_key,
        "file": fact.file,
        "datastore": {"kind": "Datastore", "id": fact.store_id},
        "capacity": fact.capacity_bytes,
        "shared": disk.shared,
        "rdm": disk.rdm,
        "physicalMode": disk.rdm and (fact.backing_kind != "RawDiskMappingVer1" or fact.compatibility == "physicalMode"),
        "bus": fact.bus,
        "mode": fact.mode,
        "serial": disk.serial,
        "winDriveLetter": "",
        "changeTrackingEnabled": tracking(fact, extra),
        "parent": fact.parents[0] if fact.parents else "",
        "deviceName": fact.device_name,
        "lunUuid": fact.lun_uuid,
        "vvolId": fact.object_id if disk.backing.datastore_type.upper() == "VVOL" else "",
    }


def tracking(fact: DiskFacts, extra: Mapping[str, str]) -> bool:
    return extra.get(tracking_key(fact).lower(), "").lower() == "true"


def tracking_key(fact: DiskFacts) -> str:
    """Of the setting in extraConfig that says whether this disk's changes are tracked, once the VM's are."""
    return f"{fact.bus}{fact.bus_number}:{fact.unit}.ctkEnabled"


def _nic(card: CardFacts, places: Places) -> SourceNic:
    id_, name = places.network(card)
    return SourceNic(str(card.key), card.mac, id_, name, _NIC_MODELS.get(card.kind, card.kind), card.connected or card.start_connected)


def _nic_document(card: CardFacts, nic: SourceNic, order: int) -> dict[str, object]:
    return {
        "network": {"kind": "Network", "id": nic.network_id},
        "mac": nic.mac,
        "order": order,
        "deviceKey": card.key,
        "pciAddress": str(card.pci_slot or ""),
        "startConnected": card.start_connected,
    }
