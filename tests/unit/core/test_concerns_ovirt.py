"""The oVirt concerns, one row per trigger and per near miss."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.concerns import ovirt
from reconciler.core.concerns.evaluate import evaluate
from reconciler.core.concerns.rule import ConcernCategory
from reconciler.core.model import Platform


def ids(**attributes: Any) -> list[str]:
    return [concern.id for concern in evaluate(Platform.OVIRT, {"name": "vm", **attributes})]


def attached(**changes: Any) -> dict[str, Any]:
    """One good attachment with some of it changed."""
    disk = {"storageType": "image", "status": "ok", "provisionedSize": 1, **changes.pop("disk", {})}
    return {"diskAttachments": [{"id": "a", "interface": "virtio_scsi", "disk": disk, **changes}]}


def nic(**changes: Any) -> dict[str, Any]:
    return {"nics": [{"id": "n", "interface": "virtio", "plugged": True, "profile": {}, **changes}]}


ROWS: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ("ovirt.bios.boot_menu.enabled", {"bootMenuEnabled": True}, [{"bootMenuEnabled": False}]),
    ("ovirt.cluster.ksm_enabled", {"cluster": {"ksmEnabled": True}}, [{"cluster": {"ksmEnabled": False}}, {"cluster": None}]),
    ("ovirt.cpu.custom_model.detected", {"customCpuModel": "Opteron"}, [{"customCpuModel": ""}, {"customCpuModel": None}]),
    (
        "ovirt.cpu.pinning_policy.unsupported",
        {"cpuPinningPolicy": "isolate_threads"},
        [{"cpuPinningPolicy": "manual"}, {"cpuPinningPolicy": None}],
    ),
    ("ovirt.cpu.shares.defined", {"cpuShares": 1}, [{"cpuShares": 0}, {"cpuShares": None}]),
    ("ovirt.cpu.tuning.detected", {"cpuAffinity": [{"set": 0}]}, [{"cpuAffinity": []}]),
    (
        "ovirt.disk.capacity.invalid",
        attached(disk={"provisionedSize": 0}),
        [attached(), {"diskAttachments": [{"disk": {"provisionedSize": 0}}]}],
    ),
    ("ovirt.disk.count.exceeds.limit", {"diskAttachments": [{}] * 166}, [{"diskAttachments": [{}] * 165}]),
    ("ovirt.disk.illegal_images.detected", {"hasIllegalImages": True}, [{"hasIllegalImages": False}]),
    ("ovirt.disk.illegal_or_locked_status", attached(disk={"status": "locked"}), [attached()]),
    ("ovirt.disk.interface_type.unsupported", attached(interface="ide"), [attached(), attached(interface="sata"), {"diskAttachments": []}]),
    ("ovirt.disk.scsi_reservation.enabled", attached(scsiReservation=True), [attached(scsiReservation=False)]),
    ("ovirt.disk.shared.detected", attached(disk={"shared": True}), [attached(disk={"shared": False})]),
    ("ovirt.disk.storage_type.unsupported", attached(disk={"storageType": "cinder"}), [attached(), attached(disk={"storageType": "lun"})]),
    ("ovirt.display_type.spice.enabled", {"display": "spice"}, [{"display": "vnc"}]),
    ("ovirt.ha.enabled", {"haEnabled": True}, [{"haEnabled": False}]),
    ("ovirt.ha.reservation.enabled", {"cluster": {"haReservation": True}}, [{"cluster": {}}]),
    ("ovirt.host_devices.mapped", {"hostDevices": [{}]}, [{"hostDevices": []}, {"hostDevices": None}]),
    ("ovirt.iothreads.configured", {"ioThreads": 2}, [{"ioThreads": 1}]),
    ("ovirt.memory.ballooning.enabled", {"balloonedMemory": True}, [{"balloonedMemory": False}]),
    ("ovirt.nic.custom_properties.detected", nic(profile={"properties": [{}]}), [nic(profile={"properties": []}), nic()]),
    ("ovirt.nic.interface_type.unsupported", nic(interface="spapr_vlan"), [nic(), nic(interface="e1000e")]),
    ("ovirt.nic.network_filter.detected", nic(profile={"networkFilter": "f"}), [nic(profile={"networkFilter": ""}), nic()]),
    ("ovirt.nic.pci_passthrough.detected", nic(interface="pci_passthrough"), [nic()]),
    ("ovirt.nic.port_mirroring.detected", nic(profile={"portMirroring": True}), [nic(profile={"portMirroring": False})]),
    ("ovirt.nic.qos.detected", nic(profile={"qos": "q"}), [nic(profile={"qos": ""})]),
    ("ovirt.nic.unplugged.detected", nic(plugged=False), [nic()]),
    ("ovirt.numa.tuning.detected", {"numaNodeAffinity": ["0"]}, [{"numaNodeAffinity": []}]),
    ("ovirt.os.unsupported", {"osType": "rhel_6x64"}, [{"osType": "rhel_9x64"}]),
    (
        "ovirt.placement_policy.affinity_set",
        {"placementPolicyAffinity": "migratable"},
        [{"placementPolicyAffinity": "user_migratable"}, {"placementPolicyAffinity": "pinned"}],
    ),
    ("ovirt.secure_boot.detected", {"bios": "q35_secure_boot"}, [{"bios": "q35_ovmf"}]),
    ("ovirt.snapshot.online_memory.detected", {"snapshots": [{"persistMemory": True}]}, [{"snapshots": [{"persistMemory": False}]}]),
    (
        "ovirt.storage.resume_behavior.unsupported",
        {"storageErrorResumeBehaviour": ""},
        [{"storageErrorResumeBehaviour": "auto_resume"}, {}],
    ),
    ("ovirt.tpm.required_by_os", {"osType": "windows_11"}, [{"osType": "windows_10x64"}]),
    ("ovirt.usb.enabled", {"usbEnabled": True}, [{"usbEnabled": False}]),
    ("ovirt.vm.custom_properties.detected", {"properties": [{"name": "x"}]}, [{"properties": []}]),
    (
        "ovirt.vm.status_invalid",
        {"status": "suspended"},
        [{"status": "up"}, {"status": "down"}, {"status": "powering_up"}, {"status": None}],
    ),
    ("ovirt.watchdog.enabled", {"watchDogs": [{}]}, [{"watchDogs": []}]),
]


@pytest.mark.parametrize(("id_", "trigger", "misses"), ROWS, ids=[row[0] for row in ROWS])
def test_a_rule_fires_on_its_trigger(id_: str, trigger: dict[str, Any], misses: list[dict[str, Any]]) -> None:
    assert id_ in ids(**trigger)
    for miss in misses:
        assert id_ not in ids(**miss)


def test_a_good_vm_raises_nothing() -> None:
    assert ids(**attached(), **nic(), status="down") == []


def test_a_bad_name() -> None:
    assert [c.id for c in evaluate(Platform.OVIRT, {"name": "a_b"})] == ["ovirt.name.invalid"]


def test_a_passed_through_nic_is_of_no_known_type_either() -> None:
    assert ids(**nic(interface="pci_passthrough")) == ["ovirt.nic.interface_type.unsupported", "ovirt.nic.pci_passthrough.detected"]


def test_lun_sizes() -> None:
    lun = {"storageType": "lun", "provisionedSize": 0, "lun": {"logicalUnits": {"logicalUnit": [{"size": 0}]}}}
    assert "ovirt.disk.capacity.invalid" in ids(**attached(disk=lun))
    assert ids(**attached(disk={"storageType": "lun", "provisionedSize": 0})) == []


def test_the_table_is_complete_and_every_row_is_tested() -> None:
    assert {rule.id for rule in ovirt.RULES} == {row[0] for row in ROWS} | {"ovirt.name.invalid"}
    assert len(ovirt.RULES) == 39
    assert sum(rule.category is ConcernCategory.CRITICAL for rule in ovirt.RULES) == 4
