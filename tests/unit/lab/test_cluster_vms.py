"""KubeVirt of the simulated cluster: run strategies, start and stop, refusals, and the record of what is on. Simulated time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException

from tests.unit.lab.clusterkit import Json, Site, claim, site_at

PLACE = ("kubevirt.io", "v1", "shop", "virtualmachines")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_at(tmp_path, vm_start_s=5.0, vm_stop_s=2.0) as made:
        made.core.create_namespaced_persistent_volume_claim("shop", claim("disk"))
        made.cluster.step()
        yield made


def machine(strategy: str = "Halted", **changes: Any) -> Json:
    disks = [{"name": "root", "disk": {"bus": "virtio"}, "bootOrder": 1}]
    guest = {
        "domain": {"devices": {"disks": disks}, "memory": {"guest": "1Gi"}},
        "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "disk"}}],
    }
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"runStrategy": strategy, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {**guest, **changes}}},
    }


def create(site: Site, body: Json) -> Json:
    made: Json = site.custom.create_namespaced_custom_object(*PLACE, body)
    return made


def status(site: Site) -> Json:
    found: Json = site.custom.get_namespaced_custom_object(*PLACE, "web")["status"]
    return found


def power(site: Site, what: str) -> tuple[int, str]:
    reply = site.request("PUT", f"/apis/subresources.kubevirt.io/v1/namespaces/shop/virtualmachines/web/{what}")
    site.cluster.step()
    return reply


def set_strategy(site: Site, strategy: str) -> None:
    body = {"spec": {"runStrategy": strategy}}
    site.custom.patch_namespaced_custom_object(*PLACE, "web", body, _content_type="application/merge-patch+json")
    site.cluster.step()


def test_a_halted_machine_reserves_its_name_and_nothing_runs(site: Site) -> None:
    create(site, machine())
    site.cluster.step()
    seen = status(site)
    assert (seen["printableStatus"], seen.get("ready"), seen.get("created")) == ("Stopped", None, None)
    assert [(c["type"], c["status"], c["reason"]) for c in seen["conditions"]] == [("Ready", "False", "VMINotExists")]
    assert site.cluster.running_vms() == site.cluster.find_all("VirtualMachineInstance") == []


def test_starting_takes_its_time_and_is_recorded(site: Site) -> None:
    create(site, machine())
    set_strategy(site, "Always")
    assert (status(site)["printableStatus"], status(site)["created"]) == ("Starting", True)
    (launcher,) = site.cluster.find_all("Pod", "shop")
    assert launcher["metadata"]["labels"]["kubevirt.io"] == "virt-launcher"
    assert launcher["spec"]["volumes"] == [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]
    assert site.cluster.running_vms() == []
    site.later(5)
    assert (status(site)["printableStatus"], status(site)["ready"]) == ("Running", True)
    (on,) = site.cluster.running_vms()
    assert (on.namespace, on.name, on.since) == ("shop", "web", datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC))
    vmi = site.cluster.find("VirtualMachineInstance", "shop", "web")
    assert vmi is not None
    assert (vmi["status"]["phase"], vmi["status"]["nodeName"], vmi["metadata"]["labels"]) == ("Running", "node-a", {"app": "web"})
    assert site.cluster.vm_starts == [on]


def test_stopping_takes_its_time_too(site: Site) -> None:
    create(site, machine("Always"))
    site.later(0)
    site.later(5)
    set_strategy(site, "Halted")
    assert status(site)["printableStatus"] == "Stopping"
    assert len(site.cluster.running_vms()) == 1
    site.later(2)
    assert status(site)["printableStatus"] == "Stopped"
    assert site.cluster.running_vms() == site.cluster.find_all("Pod", "shop") == []


@pytest.mark.parametrize(
    ("strategy", "after_start", "after_stop"),
    [("Halted", "Always", "Halted"), ("Manual", "Manual", "Manual"), ("RerunOnFailure", "RerunOnFailure", "RerunOnFailure")],
)
def test_the_power_subresources_by_strategy(site: Site, strategy: str, after_start: str, after_stop: str) -> None:
    create(site, machine(strategy))
    site.later(0)
    if strategy == "RerunOnFailure":
        site.later(5)  # it runs by itself
    else:
        assert site.cluster.find_all("VirtualMachineInstance") == []
        assert power(site, "start") == (202, "")
        site.later(5)
    assert len(site.cluster.running_vms()) == 1
    assert status(site)["runStrategy"] == after_start
    code, body = power(site, "start")
    assert (code, "already running" in body) == (409, True)
    power(site, "restart")
    site.later(2)
    site.later(5)
    assert len(site.cluster.vm_starts) == 2
    power(site, "stop")
    site.later(2)
    assert (site.cluster.running_vms(), status(site)["runStrategy"]) == ([], after_stop)
    code, body = power(site, "stop")
    assert (code, "VM is not running" in body) == (409, True)


def test_a_start_takes_the_run_strategy_from_who_applied_it(site: Site) -> None:
    machines = site.dynamic().resources.get(api_version="kubevirt.io/v1", kind="VirtualMachine")
    machines.server_side_apply(body=machine(), namespace="shop", field_manager="ours")
    assert power(site, "start") == (202, "")
    with pytest.raises(ApiException) as caught:
        machines.server_side_apply(body=machine(), namespace="shop", field_manager="ours")
    message = json.loads(caught.value.body)["message"]
    assert message.startswith('Apply failed with 1 conflict: conflict with "virt-api" using kubevirt.io/v1 at ')
    assert message.endswith(": .spec.runStrategy")


def test_a_missing_claim_is_reported_and_nothing_starts(site: Site) -> None:
    create(site, machine("Always", volumes=[{"name": "root", "persistentVolumeClaim": {"claimName": "gone"}}]))
    site.later(0)
    site.later(60)
    assert status(site)["printableStatus"] == "ErrorPvcNotFound"
    assert site.cluster.running_vms() == []


def test_a_node_that_nobody_has_is_unschedulable(site: Site) -> None:
    create(site, machine("Always", nodeSelector={"no": "where"}))
    site.later(0)
    assert status(site)["printableStatus"] == "ErrorUnschedulable"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (machine(volumes=[]), "disks[0].Name 'root' not found"),
        (machine("Sometimes"), "Invalid RunStrategy (Sometimes)"),
        ({**machine(), "spec": {**machine()["spec"], "running": False}}, "mutually exclusive"),
        (machine(networks=[{"name": "n", "pod": {}}]), "'n' not found"),
        (machine(domain={"devices": {}}), "no memory requested"),
    ],
)
def test_the_webhook_refuses_what_could_not_run(site: Site, body: Json, words: str) -> None:
    with pytest.raises(ApiException) as caught:
        create(site, body)
    said = json.loads(caught.value.body)
    assert (said["code"], said["reason"]) == (422, "Invalid")
    assert 'admission webhook "virtualmachine-validator.kubevirt.io" denied the request' in said["message"]
    assert words in said["message"]


def test_an_instance_type_must_exist(site: Site) -> None:
    body = machine(domain={"devices": {"disks": [{"name": "root", "disk": {}}]}})
    body["spec"]["instancetype"] = {"name": "u9.none", "kind": "VirtualMachineClusterInstancetype"}
    with pytest.raises(ApiException) as caught:
        create(site, body)
    assert "u9.none" in caught.value.body
    body["spec"]["instancetype"]["name"] = "u1.small"
    create(site, body)


def test_deleting_a_machine_stops_it_first_and_takes_claims_it_owns(site: Site) -> None:
    made = create(site, machine("Always"))
    ref = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "web", "uid": made["metadata"]["uid"]}
    site.core.patch_namespaced_persistent_volume_claim("disk", "shop", {"metadata": {"ownerReferences": [ref]}})
    site.later(0)
    site.later(5)
    site.custom.delete_namespaced_custom_object(*PLACE, "web")
    site.cluster.step()
    assert len(site.cluster.running_vms()) == 1
    assert site.cluster.find("VirtualMachine", "shop", "web") is not None
    site.later(2)
    for kind in ("VirtualMachine", "VirtualMachineInstance", "Pod", "PersistentVolumeClaim"):
        assert site.cluster.find_all(kind, "shop") == []
    assert site.cluster.running_vms() == []


def test_a_guest_whose_pod_goes_is_started_again(site: Site) -> None:
    create(site, machine("Always"))
    site.later(0)
    site.later(5)
    (launcher,) = site.cluster.find_all("Pod", "shop")
    site.core.delete_namespaced_pod(launcher["metadata"]["name"], "shop")
    site.cluster.step()
    assert site.cluster.running_vms() == []
    site.later(5)
    site.later(5)
    assert len(site.cluster.running_vms()) == 1
    assert len(site.cluster.vm_starts) == 2
