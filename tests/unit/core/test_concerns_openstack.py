"""The OpenStack concerns, one row per trigger and per near miss."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.concerns import openstack
from reconciler.core.concerns.evaluate import evaluate
from reconciler.core.concerns.rule import ConcernCategory
from reconciler.core.model import Platform


def ids(**attributes: Any) -> list[str]:
    return [concern.id for concern in evaluate(Platform.OPENSTACK, {"name": "vm", **attributes})]


def image(**properties: Any) -> dict[str, Any]:
    return {"image": {"properties": properties}}


def flavor(*keys: str, value: str = "1") -> dict[str, Any]:
    return {"flavor": {"extraSpecs": dict.fromkeys(keys, value)}}


def volume(**changes: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", "status": "in-use", "size": 1, "attachments": [{}], **changes}]}


ROWS: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ("openstack.bios.boot_menu.enabled", image(hw_boot_menu="true"), [image(hw_boot_menu="false"), image(hw_boot_menu=True)]),
    ("openstack.cpu.shares.defined", flavor("quota:cpu_shares"), [flavor("quota:cpu_quota"), {"flavor": None}]),
    ("openstack.disk.capacity.invalid", volume(size=0), [volume(), {"volumes": [{"status": "in-use", "size": 0}]}]),
    ("openstack.disk.count.exceeds.limit", {"volumes": [{}] * 166}, [{"volumes": [{}] * 165}]),
    ("openstack.disk.shared.detected", volume(attachments=[{}, {}]), [volume(), volume(attachments=None)]),
    ("openstack.disk.status.unsupported", volume(status="error"), [volume(), volume(status="available"), {"volumes": []}]),
    ("openstack.disk.unsupported_interface", image(hw_disk_bus="ide"), [image(hw_disk_bus="virtio"), image()]),
    ("openstack.host_devices.mapped", flavor("pci_passthrough:alias"), [flavor()]),
    (
        "openstack.network.floating_ips.detected",
        {"addresses": {"net": [{"OS-EXT-IPS:type": "fixed"}, {"OS-EXT-IPS:type": "floating"}]}},
        [{"addresses": {"net": [{"OS-EXT-IPS:type": "fixed"}, {}]}}, {"addresses": None}],
    ),
    ("openstack.network.vif_model.unsupported", image(hw_vif_model="vmxnet3"), [image(hw_vif_model="e1000e"), image()]),
    ("openstack.numa_tuning.detected", flavor("hw:numa_nodes"), [flavor("hw:cpu_policy")]),
    (
        "openstack.os.unsupported",
        image(os_distro="ubuntu", os_version="22.04"),
        [
            image(os_distro="rhel", os_version="9.2"),
            image(os_distro="centos", os_version="7"),
            image(os_distro="windows", os_version="Server 2022"),
            image(os_distro="fedora", os_version="37"),
            image(os_distro="ubuntu"),
            image(os_version="22.04"),
        ],
    ),
    ("openstack.secure_boot.detected", image(os_secure_boot="required"), [image(os_secure_boot="optional"), {}]),
    ("openstack.vm.status.invalid", {"status": "PAUSED"}, [{"status": "ACTIVE"}, {"status": "SHUTOFF"}, {"status": None}]),
    ("openstack.watchdog.detected", image(hw_watchdog_action="reset"), [image(), {}]),
]


@pytest.mark.parametrize(("id_", "trigger", "misses"), ROWS, ids=[row[0] for row in ROWS])
def test_a_rule_fires_on_its_trigger(id_: str, trigger: dict[str, Any], misses: list[dict[str, Any]]) -> None:
    assert id_ in ids(**trigger)
    for miss in misses:
        assert id_ not in ids(**miss)


def test_what_an_image_or_a_flavor_may_say_counts_from_either() -> None:
    assert ids(**flavor("os:secure_boot", value="required")) == ["openstack.secure_boot.detected"]
    assert ids(**flavor("hw:watchdog_action")) == ["openstack.watchdog.detected"]
    assert ids(**flavor("hw:pci_numa_affinity_policy")) == ["openstack.numa_tuning.detected"]


def test_fedora_is_supported_in_three_versions() -> None:
    assert ids(**image(os_distro="fedora", os_version="39")) == ["openstack.os.unsupported"]


def test_a_good_vm_raises_nothing_and_a_bad_name_does() -> None:
    assert ids(**volume(), status="ACTIVE") == []
    assert [c.id for c in evaluate(Platform.OPENSTACK, {"name": "a b"})] == ["openstack.vm.name.invalid"]


def test_the_table_is_complete_and_every_row_is_tested() -> None:
    assert {rule.id for rule in openstack.RULES} == {row[0] for row in ROWS} | {"openstack.vm.name.invalid"}
    assert len(openstack.RULES) == 16
    assert sum(rule.category is ConcernCategory.CRITICAL for rule in openstack.RULES) == 2
