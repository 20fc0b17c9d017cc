"""SDK values -> model: the hardware and guest shapes that the lab has not, and properties that are missing."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from reconciler.core.inventory import SourceVm
from reconciler.core.model import Power
from reconciler.drivers.vsphere.digest import Properties, digest, plain
from reconciler.drivers.vsphere.machine import convert_vm
from reconciler.drivers.vsphere.places import Places

device = vim.vm.device
Disk = device.VirtualDisk
ROOT = "group-d1"
OBJECTS: dict[tuple[str, str], Properties] = {
    ("Folder", "group-d2"): {"name": "Sites", "parent": ROOT},
    ("Datacenter", "datacenter-3"): {"name": "DC", "parent": "group-d2"},
    ("Folder", "group-v4"): {"name": "vm", "parent": "datacenter-3"},
    ("Folder", "group-s5"): {"name": "datastore", "parent": "datacenter-3"},
    ("Datastore", "datastore-6"): {"name": "ds%2f1", "parent": "group-s5", "summary.type": "VMFS"},
    ("ClusterComputeResource", "domain-c7"): {
        "name": "prod",
        "parent": "group-h0",
        "configuration.drsConfig.enabled": True,
        "configuration.drsConfig.defaultVmBehavior": "fullyAutomated",
    },
    ("HostSystem", "host-8"): {"name": "esx", "parent": "domain-c7"},
    ("HostSystem", "host-9"): {"name": "lonely"},
    ("Network", "network-10"): {"name": "lan", "parent": "x"},
    ("DistributedVirtualPortgroup", "dvportgroup-11"): {"name": "pg", "key": "dvportgroup-key"},
    ("OpaqueNetwork", "network-o12"): {"name": "nsx segment", "summary": "nsx-id"},
}
PLACES = Places(OBJECTS, ROOT)


def convert(earlier: SourceVm | None = None, **values: Any) -> SourceVm:
    paths = {name.replace("__", "."): value for name, value in values.items()}
    return convert_vm("vm-1", {path: digest(path, value) for path, value in paths.items()}, PLACES, earlier)


def disk(key: int = 2000, controller: int = 1000, unit: int = 0, **backing: Any) -> Any:
    kind = backing.pop("kind", Disk.FlatVer2BackingInfo)
    store = {} if kind is Disk.RawDiskVer2BackingInfo else {"datastore": vim.Datastore("datastore-6"), "fileName": "[ds/1] a/a.vmdk"}
    made = kind(**{**store, "diskMode": "persistent", **backing} if store else backing)
    info = vim.Description(label=f"Hard disk {key}", summary="")
    return Disk(
        key=key, controllerKey=controller, unitNumber=unit, capacityInKB=1024, capacityInBytes=1 << 20, backing=made, deviceInfo=info
    )


SCSI = device.ParaVirtualSCSIController(key=1000, busNumber=0)
CONTROLLERS = [
    SCSI,
    device.VirtualIDEController(key=200, busNumber=0),
    device.VirtualAHCIController(key=15000, busNumber=0),
    device.VirtualNVMEController(key=31000, busNumber=0),
]


def test_a_vm_of_which_nothing_can_be_read_is_still_a_vm() -> None:
    vm = convert()
    assert (vm.id, vm.name, vm.power, vm.disks, vm.uuid) == ("vm-1", "vm-1", Power.UNKNOWN, (), "")
    assert vm.attributes["guestNetworks"] is None
    assert vm.attributes["disks"] == []


@pytest.mark.parametrize(
    ("kind", "name", "rdm"),
    [
        (Disk.FlatVer2BackingInfo, "FlatVer2", False),
        (Disk.SeSparseBackingInfo, "SeSparse", False),
        (Disk.SparseVer2BackingInfo, "SparseVer2", False),
        (Disk.RawDiskMappingVer1BackingInfo, "RawDiskMappingVer1", True),
        (Disk.RawDiskVer2BackingInfo, "RawDiskVer2", True),
        (Disk.LocalPMemBackingInfo, "LocalPMem", False),
    ],
)
def test_every_backing_is_named(kind: Any, name: str, rdm: bool) -> None:
    (found,) = convert(config__hardware__device=[SCSI, disk(kind=kind, uuid="6000C29-AB")]).disks
    assert (found.backing.kind, found.rdm, found.uuid, found.serial) == (name, rdm, "6000C29-AB", "6000c29ab")


def test_a_chain_is_listed_nearest_first() -> None:
    base = Disk.FlatVer2BackingInfo(fileName="[ds] base.vmdk", diskMode="persistent")
    middle = Disk.FlatVer2BackingInfo(fileName="[ds] middle.vmdk", diskMode="persistent", parent=base)
    vm = convert(config__hardware__device=[SCSI, disk(parent=middle)])
    assert vm.disks[0].backing.parents == ("[ds] middle.vmdk", "[ds] base.vmdk")
    assert vm.attributes["disks"][0]["parent"] == "[ds] middle.vmdk"  # type: ignore[index]


def test_an_encrypted_disk_has_a_key() -> None:
    key = vim.encryption.CryptoKeyId(keyId="k-1")
    assert convert(config__hardware__device=[SCSI, disk(keyId=key)]).disks[0].backing.key_id == "k-1"


def test_where_a_disk_lies_is_joined_from_the_places() -> None:
    (found,) = convert(config__hardware__device=[SCSI, disk()]).disks
    assert (found.storage_id, found.storage_name) == ("datastore-6", "ds/1")
    assert (found.backing.datastore_type, found.backing.datacenter_path) == ("VMFS", "Sites/DC")


def test_a_datastore_that_cannot_be_seen_leaves_the_disk() -> None:
    (found,) = convert(config__hardware__device=[SCSI, disk(datastore=vim.Datastore("datastore-99"))]).disks
    assert (found.storage_id, found.storage_name, found.backing.datacenter_path) == ("datastore-99", "", "")


@pytest.mark.parametrize(("uuid", "file", "want"), [("u", "[d] f", "u"), (None, "[d] f", "file:[d] f"), (None, "", "key:2000")])
def test_a_disk_always_has_an_identity(uuid: str | None, file: str, want: str) -> None:
    assert convert(config__hardware__device=[SCSI, disk(uuid=uuid, fileName=file)]).disks[0].uuid == want


def test_disks_are_numbered_as_forklift_numbers_them() -> None:
    devices = [*CONTROLLERS, disk(3, 31000, 0), disk(2, 1000, 9), disk(1, 1000, 1), disk(4, 200, 0), disk(5, 15000, 0)]
    assert [(d.bus, d.unit) for d in convert(config__hardware__device=devices).disks] == [
        ("sata", 0),
        ("ide", 0),
        ("scsi", 1),
        ("scsi", 9),
        ("nvme", 0),
    ]


def option(key: str, value: str) -> Any:
    return vim.option.OptionValue(key=key, value=value)


@pytest.mark.parametrize(
    ("setting", "extra", "vm_tracks", "disk_tracks"),
    [
        (True, [option("scsi0:0.ctkEnabled", "TRUE")], True, True),
        (True, [option("SCSI0:0.CTKENABLED", "true")], True, True),
        (True, [option("scsi0:1.ctkEnabled", "TRUE")], True, False),
        (False, [option("ctkEnabled", "TRUE"), option("scsi0:0.ctkEnabled", "TRUE")], True, True),
        (True, [option("ctkEnabled", "FALSE"), option("scsi0:0.ctkEnabled", "TRUE")], False, False),
        (None, [], False, False),
    ],
)
def test_change_tracking_is_read_from_both_places(setting: bool | None, extra: list[Any], vm_tracks: bool, disk_tracks: bool) -> None:
    vm = convert(config__hardware__device=[SCSI, disk()], config__changeTrackingEnabled=setting, config__extraConfig=extra)
    assert (vm.change_tracking, vm.disks[0].change_tracking) == (vm_tracks, disk_tracks)
    assert vm.attributes["changeTrackingEnabled"] is vm_tracks


def card(backing: Any, **changes: Any) -> Any:
    plug = device.VirtualDevice.ConnectInfo(connected=True, startConnected=True, allowGuestControl=True)
    return device.VirtualVmxnet3(key=4000, macAddress="00:50:56:AA:BB:CC", backing=backing, connectable=changes.get("plug", plug))


@pytest.mark.parametrize(
    ("backing", "want"),
    [
        (device.VirtualEthernetCard.NetworkBackingInfo(deviceName="old", network=vim.Network("network-10")), ("network-10", "lan")),
        (device.VirtualEthernetCard.NetworkBackingInfo(deviceName="unseen"), ("", "unseen")),
        (
            device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(
                port=vim.dvs.PortConnection(portgroupKey="dvportgroup-key", switchUuid="s")
            ),
            ("dvportgroup-11", "pg"),
        ),
        (
            device.VirtualEthernetCard.OpaqueNetworkBackingInfo(opaqueNetworkId="nsx-id", opaqueNetworkType="nsx.LogicalSwitch"),
            ("network-o12", "nsx segment"),
        ),
        (None, ("", "")),
    ],
)
def test_every_kind_of_network_is_found(backing: Any, want: tuple[str, str]) -> None:
    (nic,) = convert(config__hardware__device=[card(backing)]).nics
    assert (nic.network_id, nic.network_name) == want
    assert (nic.mac, nic.model) == ("00:50:56:aa:bb:cc", "vmxnet3")


def test_only_devices_that_rules_read_are_listed() -> None:
    unplugged = device.VirtualDevice.ConnectInfo(connected=False, startConnected=False, allowGuestControl=True)
    devices = [
        SCSI,
        disk(),
        device.VirtualPCIPassthrough(key=13000),
        device.VirtualUSBController(key=7000),
        device.VirtualUSBXHCIController(key=14000),
        device.VirtualSriovEthernetCard(key=4001),
        card(None),
        card(None, plug=unplugged),
    ]
    listed = convert(config__hardware__device=devices).attributes["devices"]
    assert [d["kind"] for d in listed] == [  # type: ignore[attr-defined]
        "VirtualPCIPassthrough",
        "VirtualUSBController",
        "VirtualSriovEthernetCard",
        "VirtualVmxnet3",
    ]


def guest_disk(**told: Any) -> Any:
    return vim.vm.GuestInfo.DiskInfo(**told)


def test_a_file_system_that_reports_no_free_space_does_not_tell() -> None:
    mapping = vim.vm.GuestInfo.VirtualDiskMapping(key=2000)
    disks = [guest_disk(diskPath="C:\\", capacity=9, freeSpace=0, mappings=[mapping]), guest_disk(diskPath="/", freeSpace=5, capacity=0)]
    assert convert(guest__disk=disks).attributes["guestDisks"] == [
        {"key": 2000, "diskPath": "C:\\", "capacity": 9},
        {"key": 0, "diskPath": "/", "freeSpace": 5},
    ]


def test_no_addresses_and_nobody_to_ask_are_two_things() -> None:
    assert convert(guest__net=[]).attributes["guestNetworks"] == []
    assert convert().attributes["guestNetworks"] is None


def test_facts_of_a_stopped_guest_are_kept() -> None:
    address = vim.net.IpConfigInfo.IpAddress(ipAddress="10.0.0.5", prefixLength=24, state="preferred")
    nic = vim.vm.GuestInfo.NicInfo(connected=True, deviceConfigId=4000, ipConfig=vim.net.IpConfigInfo(ipAddress=[address]))
    up = convert(guest__net=[nic], config__guestId="rhel9_64Guest")
    down = convert(up, guest__net=[])
    assert down.attributes["guestNetworks"] == up.attributes["guestNetworks"] != []
    assert down.guest_id == down.attributes["guestId"] == "rhel9_64Guest"


def test_settings_from_extra_config() -> None:
    extra = [option("numa.nodeAffinity", "0, 1"), option("disk.EnableUUID", "TRUE"), option("secret.thing", "x")]
    attributes = convert(config__extraConfig=extra).attributes
    assert attributes["numaNodeAffinity"] == ["0", "1"]
    assert attributes["diskEnableUuid"] is True
    assert "secret.thing" not in str(attributes)


def test_the_host_and_its_cluster_are_part_of_the_document() -> None:
    host = convert(runtime__host=vim.HostSystem("host-8")).attributes["host"]
    assert isinstance(host, dict)
    assert host["cluster"]["drsEnabled"] is True
    assert host["cluster"]["drsBehavior"] == "fullyAutomated"
    assert convert(runtime__host=vim.HostSystem("host-404")).attributes["host"] == {}
    lonely = convert(runtime__host=vim.HostSystem("host-9")).attributes["host"]
    assert isinstance(lonely, dict)
    assert lonely["cluster"]["drsEnabled"] is False


def test_the_path_ends_below_the_root_folder() -> None:
    assert convert(name="web%2f1", parent=vim.Folder("group-v4")).path == "/Sites/DC/vm/web%2f1"
    assert convert(name="in-a-vapp", parent=None).path == "/in-a-vapp"


def test_a_loop_of_folders_ends() -> None:
    looped = Places({("Folder", "a"): {"name": "a", "parent": "b"}, ("Folder", "b"): {"name": "b", "parent": "a"}}, ROOT)
    assert looped.vm_path("a", "x").endswith("/x")


@pytest.mark.parametrize(
    ("stored", "written"), [("a%2fb", "a/b"), ("a%2Fb%5c", "a/b\\"), ("50%25", "50%"), ("%252f", "%2f"), ("%41", "%41")]
)
def test_names_are_shown_as_written(stored: str, written: str) -> None:
    assert plain(stored) == written
