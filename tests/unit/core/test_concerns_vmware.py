"""The vSphere concerns, one row per trigger and per near miss, and the policy semantics behind them (undefined, null, sets)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.concerns import vmware
from reconciler.core.concerns.evaluate import evaluate
from reconciler.core.concerns.rule import ConcernCategory
from reconciler.core.model import Platform

MIB = 1 << 20
CRITICAL = {
    "vmware.datastore.missing",
    "vmware.disk.capacity.invalid",
    "vmware.guestDisks.freespace",
    "vmware.passthrough_device.detected",
}
INFORMATION = {
    "vmware.disk_serial.truncated",
    "vmware.dpm.enabled",
    "vmware.drs.enabled",
    "vmware.fault_tolerance.enabled",
    "vmware.guestDisks.key.not_found",
    "vmware.snapshot.detected",
}


def ids(**attributes: Any) -> list[str]:
    return [concern.id for concern in evaluate(Platform.VSPHERE, {"name": "vm", **attributes})]


def labels(**attributes: Any) -> list[str]:
    return [concern.label for concern in evaluate(Platform.VSPHERE, {"name": "vm", **attributes})]


def disk(**changes: Any) -> Mapping[str, Any]:
    return {"file": "[ds] a.vmdk", "bus": "scsi", "controllerKey": 1001, "unitNumber": 3, **changes}


def test_a_document_that_says_nothing_raises_nothing() -> None:
    assert ids() == []


def test_the_table_has_29_rules_in_their_categories() -> None:
    by_id = {rule.id: rule for rule in vmware.RULES}
    assert len(by_id) == len(vmware.RULES) == 29
    assert {id_ for id_, rule in by_id.items() if rule.category is ConcernCategory.CRITICAL} == CRITICAL
    assert {id_ for id_, rule in by_id.items() if rule.category is ConcernCategory.INFORMATION} == INFORMATION


ROWS: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    # id, a document that triggers it alone, documents that do not
    ("vmware.changed_block_tracking.disabled", {"changeTrackingEnabled": False}, [{"changeTrackingEnabled": True}]),
    ("vmware.consolidation_needed", {"consolidationNeeded": True}, [{"consolidationNeeded": False}, {"consolidationNeeded": None}]),
    ("vmware.cpu_affinity.detected", {"cpuAffinity": [0]}, [{"cpuAffinity": []}, {"cpuAffinity": None}]),
    (
        "vmware.cpu_memory.hotplug.enabled",
        {"cpuHotRemoveEnabled": True},
        [{"cpuHotAddEnabled": False, "cpuHotRemoveEnabled": False, "memoryHotAddEnabled": False}],
    ),
    ("vmware.datastore.missing", {"disks": [disk(datastore={"id": ""})]}, [{"disks": [disk(datastore={"id": "d"})]}, {"disks": [disk()]}]),
    (
        "vmware.device.sriov.detected",
        {"devices": [{"kind": "VirtualSriovEthernetCard"}]},
        [{"devices": [{"kind": "VirtualVmxnet3"}]}, {"devices": None}],
    ),
    ("vmware.disk.capacity.invalid", {"disks": [disk(capacity=0)]}, [{"disks": [disk(capacity=1)]}, {"disks": [{"capacity": 0}]}]),
    ("vmware.disk.count.exceeds.limit", {"disks": [disk()] * 166}, [{"disks": [disk()] * 165}, {"disks": None}]),
    ("vmware.disk.rdm.detected", {"disks": [disk(rdm=True)]}, [{"disks": [disk(rdm=False)]}, {"disks": [disk()]}]),
    ("vmware.disk.shared.detected", {"disks": [disk(shared=True)]}, [{"disks": [disk(shared=False)]}]),
    (
        "vmware.disk_mode.independent",
        {"disks": [disk(mode="independent_nonpersistent")]},
        [{"disks": [disk(mode="persistent")]}, {"disks": [disk()]}],
    ),
    (
        "vmware.disk_serial.truncated",
        {"diskEnableUuid": True, "disks": [disk()]},
        [{"diskEnableUuid": True, "disks": [disk(bus="sata")]}, {"diskEnableUuid": False, "disks": [disk()]}],
    ),
    ("vmware.dpm.enabled", {"host": {"cluster": {"dpmEnabled": True}}}, [{"host": {"cluster": {"dpmEnabled": False}}}, {"host": None}]),
    ("vmware.drs.enabled", {"host": {"cluster": {"drsEnabled": True}}}, [{"host": {"cluster": {}}}, {"host": {}}]),
    ("vmware.fault_tolerance.enabled", {"faultToleranceEnabled": True}, [{"faultToleranceEnabled": False}]),
    (
        "vmware.guestDisks.key.not_found",
        {"guestId": "windows2019srv_64Guest", "guestDisks": [{"key": 0, "diskPath": "D:\\"}]},
        [
            {"guestId": "windows2019srv_64Guest", "guestDisks": [{"key": 2000, "diskPath": "D:\\"}]},
            {"guestId": "rhel9_64Guest", "guestDisks": [{"key": 0, "diskPath": "/"}]},
        ],
    ),
    (
        "vmware.host_affinity.detected",
        {"id": "vm-1", "host": {"cluster": {"hostAffinityVms": [{"id": "vm-2"}, {"id": "vm-1"}]}}},
        [{"id": "vm-3", "host": {"cluster": {"hostAffinityVms": [{"id": "vm-1"}]}}}, {"host": {"cluster": {"hostAffinityVms": [{}]}}}],
    ),
    ("vmware.hostname.default", {"hostName": "localhost.localdomain"}, [{"hostName": "localhost"}]),
    ("vmware.hostname.empty", {"hostName": ""}, [{"hostName": None}, {"hostName": "web"}]),
    ("vmware.numa_affinity.detected", {"numaNodeAffinity": ["0"]}, [{"numaNodeAffinity": []}]),
    (
        "vmware.passthrough_device.detected",
        {"devices": [{"kind": "VirtualPCIPassthrough"}]},
        [{"devices": [{"kind": "VirtualSCSIPassthrough"}]}],
    ),
    ("vmware.snapshot.detected", {"snapshot": {"kind": "VirtualMachineSnapshot", "id": "s"}}, [{"snapshot": {"kind": "", "id": ""}}]),
    ("vmware.tpm.detected", {"tpmEnabled": True}, [{"tpmEnabled": False}]),
    (
        "vmware.usb_controller.detected",
        {"devices": [{"kind": "VirtualUSBController"}]},
        [{"devices": [{"kind": "VirtualUSBXHCIController"}]}],
    ),
    ("vmware.vm_missing_ip.detected", {"guestNetworks": []}, [{"guestNetworks": None}, {"guestNetworks": [{"ip": "10.0.0.1"}]}]),
]


@pytest.mark.parametrize(("id_", "trigger", "misses"), ROWS, ids=[row[0] for row in ROWS])
def test_a_rule_fires_on_its_trigger_alone(id_: str, trigger: dict[str, Any], misses: list[dict[str, Any]]) -> None:
    assert id_ in ids(**trigger)
    for miss in misses:
        assert id_ not in ids(**miss)


def test_a_disk_without_cbt_is_named_by_its_place() -> None:
    found = labels(
        disks=[disk(changeTrackingEnabled=False), disk(changeTrackingEnabled=False, bus="sata", controllerKey=15000, unitNumber=0)]
    )
    assert found == ["Disk - sata0:0 does not have CBT enabled", "Disk - scsi1:3 does not have CBT enabled"]
    assert labels(disks=[disk(changeTrackingEnabled=True)]) == []
    assert labels(disks=[{"changeTrackingEnabled": False, "bus": "scsi", "controllerKey": 1000, "unitNumber": 0}]) == []  # no file


@pytest.mark.parametrize(
    ("path", "free", "fires"),
    [
        ("/", 100 * MIB - 1, True),
        ("/", 100 * MIB, False),
        ("/boot", 50 * MIB - 1, True),
        ("/boot", 50 * MIB, False),
        ("C:\\", 100 * MIB - 1, True),
        ("c:/", 99 * MIB, True),
        ("c:", 100 * MIB, False),
        ("/var", 10 * MIB - 1, True),
        ("/var", 10 * MIB, False),
    ],
)
def test_free_space_depends_on_the_mount_point(path: str, free: int, fires: bool) -> None:
    assert ("vmware.guestDisks.freespace" in ids(guestDisks=[{"key": 1, "diskPath": path, "freeSpace": free}])) is fires


def test_free_space_that_is_not_told_is_not_judged() -> None:
    assert ids(guestDisks=[{"key": 1, "diskPath": "/"}, {"key": 1, "freeSpace": 5}]) == []


@pytest.mark.parametrize(
    ("attributes", "fires"),
    [
        ({}, False),
        ({"guestId": "rhel8_64Guest"}, False),
        ({"guestId": "windows2022srvNext_64Guest"}, False),
        ({"guestId": ""}, True),
        ({"guestId": "ubuntu64Guest"}, True),
        ({"guestId": "rhel6_64Guest", "guestName": "Red Hat Enterprise Linux 9 (64-bit)"}, False),
        ({"guestId": "other", "guestNameFromVmwareTools": "Microsoft windows server 2019 (64-bit)"}, False),
        ({"guestNameFromVmwareTools": "Debian", "guestName": "Red Hat Enterprise Linux 9"}, True),  # the tools know better
        ({"guestNameFromVmwareTools": "", "guestName": "Windows 10"}, False),
        ({"guestName": "Debian GNU/Linux 12"}, True),
        ({"guestName": None}, False),
    ],
)
def test_the_guest_system_is_judged_by_what_is_known(attributes: dict[str, Any], fires: bool) -> None:
    assert ("vmware.os.unsupported" in ids(**attributes)) is fires


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("web-1.lab", True),
        ("WEB", True),
        ("", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("web_1", False),
        ("-web", False),
        ("web\n", False),
    ],
)
def test_names(name: str, valid: bool) -> None:
    found = [concern.id for concern in evaluate(Platform.VSPHERE, {"name": name})]
    assert found == ([] if valid else ["vmware.vm.name.invalid"])


def test_a_document_without_a_name_is_thrown_away() -> None:
    assert evaluate(Platform.VSPHERE, {"tpmEnabled": True}) == ()
    assert evaluate(Platform.VSPHERE, {"name": 7, "tpmEnabled": True}) == ()


def test_concerns_are_a_sorted_set() -> None:
    concerns = evaluate(Platform.VSPHERE, {"name": "vm", "tpmEnabled": True, "disks": [disk(capacity=0), disk(capacity=0)]})
    assert [concern.id for concern in concerns] == ["vmware.disk.capacity.invalid", "vmware.tpm.detected"]


def test_hostile_names_stay_text() -> None:
    assert labels(disks=[disk(file="{0.__class__} {capacity}", capacity=-1)]) == [
        "Disk '{0.__class__} {capacity}' has an invalid capacity of -1 bytes"
    ]


@pytest.mark.parametrize("platform", [Platform.OPENSHIFT, Platform.EC2, Platform.NUTANIX])
def test_platforms_without_policies_have_no_concerns(platform: Platform) -> None:
    assert evaluate(platform, {"name": "_", "tpmEnabled": True}) == ()


LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = LEAF | st.lists(LEAF, max_size=2) | st.dictionaries(st.text(max_size=4), LEAF, max_size=2)
PLAIN = ["guestNetworks", "cpuAffinity", "host", "snapshot", "guestId", "guestName", "hostName"]
WALKED = {
    "disks": ["bus", "unitNumber", "controllerKey", "file", "changeTrackingEnabled", "capacity", "datastore", "mode"],
    "devices": ["kind"],
    "guestDisks": ["diskPath", "freeSpace", "key"],
}


def some(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON))


@settings(max_examples=300)
@given(some(PLAIN), st.fixed_dictionaries({}, optional={n: JSON | st.lists(some(read), max_size=2) for n, read in WALKED.items()}))
def test_no_document_breaks_a_rule(plain: dict[str, Any], walked: dict[str, Any]) -> None:
    document = {"name": "vm", **plain, **walked}
    assert evaluate(Platform.VSPHERE, document) == evaluate(Platform.VSPHERE, document)
