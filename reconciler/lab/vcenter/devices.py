"""Virtual hardware of a lab machine as vSphere device objects: controllers, disks with their backings, network cards.

Where it stands: called by machine_view.py for `config.hardware`. Keys and unit numbers follow vSphere's own ranges.
Source: vSphere Web Services API 8.0.2, VirtualDevice and its subtypes.
"""

from __future__ import annotations

from typing import Any

from reconciler.lab import chains
from reconciler.lab.machines import Disk, Network, Nic, Vm
from reconciler.lab.vcenter.vmomi import make, vim

_dev: Any = vim.vm.device
_disk: Any = vim.vm.device.VirtualDisk
PCI_KEY = 100
# bus of the world -> (controller class, first controller key, first disk key)
BUSES: dict[str, tuple[str, int, int]] = {
    "pvscsi": ("ParaVirtualSCSIController", 1000, 2000),
    "lsilogic": ("VirtualLsiLogicController", 1001, 2016),
    "sata": ("VirtualAHCIController", 15000, 16000),
    "nvme": ("VirtualNVMEController", 31000, 32000),
    "ide": ("VirtualIDEController", 200, 3000),
}
NICS = {"vmxnet3": "VirtualVmxnet3", "e1000": "VirtualE1000", "e1000e": "VirtualE1000e"}


def datastore_ref(key: int) -> Any:
    return vim.Datastore(f"datastore-{key}")


def network_ref(network: Network) -> Any:
    if network.switch:
        return vim.dvs.DistributedVirtualPortgroup(f"dvportgroup-{network.key}")
    return vim.Network(f"network-{network.key}")


def switch_uuid(network: Network) -> str:
    return f"50 0e {network.datacenter.key:02x} {sum(network.switch.encode()) & 0xFF:02x} 7f 01 02 03-04 05 06 07 08 09 0a 0b"


def devices(vm: Vm) -> list[Any]:
    """In vSphere's order: controllers, then disks and cards by key."""
    made = [_pci(), *_controllers(vm)]
    made += [_virtual_disk(disk) for disk in vm.disks]
    made += [_card(nic, number) for number, nic in enumerate(vm.nics)]
    if vm.tpm:
        made.append(make(_dev.VirtualTPM, key=11000, deviceInfo=_label("Virtual TPM", "Trusted Platform Module")))
    return made


def _label(label: str, summary: str) -> Any:
    return make(vim.Description, label=label, summary=summary)


def _pci() -> Any:
    return make(_dev.VirtualPCIController, key=PCI_KEY, deviceInfo=_label("PCI controller 0", "PCI controller 0"), busNumber=0)


def _controllers(vm: Vm) -> list[Any]:
    made = []
    for bus in sorted({d.bus for d in vm.disks} | {"ide"}, key=lambda b: BUSES[b][1]):
        name, key, first_disk = BUSES[bus]
        fields: dict[str, Any] = {"key": key, "busNumber": 0, "device": [first_disk + d.unit for d in vm.disks if d.bus == bus]}
        if bus in ("pvscsi", "lsilogic"):
            fields.update(busNumber=key - 1000, sharedBus="noSharing", scsiCtlrUnitNumber=7, hotAddRemove=True)
            label = f"SCSI controller {key - 1000}"
        else:
            label = {"sata": "SATA controller 0", "nvme": "NVME controller 0", "ide": "IDE 0"}[bus]
        if bus != "ide":
            fields["controllerKey"] = PCI_KEY
        made.append(make(getattr(_dev, name), deviceInfo=_label(label, label), **fields))
    return made


def disk_key(disk: Disk) -> int:
    return BUSES[disk.bus][2] + disk.unit


def device_path(vm: Vm, disk: Disk) -> str:
    """As leases name a device: /vm-12/ParaVirtualSCSIController0:1."""
    name, key, _ = BUSES[disk.bus]
    bus = key - 1000 if disk.bus in ("pvscsi", "lsilogic") else 0
    return f"/vm-{vm.key}/{name}{bus}:{disk.unit}"


def _virtual_disk(disk: Disk) -> Any:
    _, controller, first = BUSES[disk.bus]
    return make(
        _disk,
        key=first + disk.unit,
        deviceInfo=_label(disk.label, f"{disk.capacity_bytes // 1024:,} KB"),
        backing=_backing(disk),
        controllerKey=controller,
        unitNumber=disk.unit,
        capacityInKB=disk.capacity_bytes // 1024,
        capacityInBytes=disk.capacity_bytes,
        diskObjectId=f"1-{first + disk.unit}",
    )


def _backing(disk: Disk) -> Any:
    """The chain is told from the running point down; a parent has its child's class. Only FlatVer2 knows `thinProvisioned`."""
    cls = getattr(_disk, f"{disk.kind}BackingInfo")
    parent = None
    chain = chains.backings(disk)
    for name in reversed(chain):
        parent = make(cls, fileName=name, datastore=datastore_ref(disk.datastore.key), diskMode=disk.mode, parent=parent, uuid=disk.uuid)
    fields: dict[str, Any] = {
        "fileName": disk.backing,
        "datastore": datastore_ref(disk.datastore.key),
        "backingObjectId": "",
        "diskMode": disk.mode,
        "uuid": disk.uuid,
        "contentId": disk.uuid.replace("-", "")[:32],
        "changeId": disk.change_id,
        "parent": parent,
        "keyId": _key_id(disk),
    }
    if disk.kind == "RawDiskMappingVer1":
        del fields["keyId"]
        fields.update(compatibilityMode="virtualMode", deviceName="vml.0200000000", lunUuid="0200000000")
    if disk.kind == "FlatVer2":
        fields.update(split=False, writeThrough=False, thinProvisioned=disk.thin, sharing="sharingNone", digestEnabled=False)
        fields["eagerlyScrub"] = None if disk.thin else False
        if disk.layers:
            fields["deltaDiskFormat"] = "seSparseFormat" if disk.datastore.kind == "VMFS" else "redoLogFormat"
    return make(cls, **fields)


def _key_id(disk: Disk) -> Any:
    if disk.key_id is None:
        return None
    return make(vim.encryption.CryptoKeyId, keyId=disk.key_id, providerId=make(vim.encryption.KeyProviderId, id="lab-kms"))


def _card(nic: Nic, number: int) -> Any:
    if nic.network.switch:
        port: Any = make(
            vim.dvs.PortConnection,
            switchUuid=switch_uuid(nic.network),
            portgroupKey=f"dvportgroup-{nic.network.key}",
            portKey=str(number),
            connectionCookie=1,
        )
        backing: Any = make(_dev.VirtualEthernetCard.DistributedVirtualPortBackingInfo, port=port)
        summary = f"DVSwitch: {switch_uuid(nic.network)}"
    else:
        summary = nic.network.name
        backing = make(
            _dev.VirtualEthernetCard.NetworkBackingInfo,
            deviceName=nic.network.name,
            network=network_ref(nic.network),
            useAutoDetect=False,
            inPassthroughMode=None,
        )
    return make(
        getattr(_dev, NICS[nic.model]),
        key=4000 + number,
        deviceInfo=_label(f"Network adapter {number + 1}", summary),
        backing=backing,
        connectable=make(
            _dev.VirtualDevice.ConnectInfo,
            startConnected=nic.connected,
            allowGuestControl=True,
            connected=nic.connected,
            status="ok" if nic.connected else "untried",
        ),
        controllerKey=PCI_KEY,
        unitNumber=7 + number,
        addressType="assigned",
        macAddress=nic.mac,
        wakeOnLanEnabled=True,
    )
