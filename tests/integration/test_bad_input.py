"""What a person gets wrong: the status branch names object, cause and remedy, and all other VMs go on.

One repo with all the mistakes at once, run once, is judged by one test per mistake. What is mended in mid-run has a lab of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.model import Result
from reconciler.lab.machines import Happening, Power
from reconciler.lab.tls import LabCa
from tests.integration.loops import NS, TTL_S, condition, critical, go_on, happened, machine, passes, record_of, status_of, succeeded, told
from tests.integration.simlab import MANIFESTS, PLAN, SimLab

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.shared,
]

PROVIDER = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: Provider
metadata: {{name: {name}, namespace: openshift-mtv}}
spec: {{type: vsphere, url: "{url}", secret: {{name: {name}, namespace: openshift-mtv}}}}
---
apiVersion: forklift.konveyor.io/v1beta1
kind: NetworkMap
metadata: {{name: {name}-net, namespace: openshift-mtv}}
spec:
  provider: {{source: {{name: {name}, namespace: openshift-mtv}}, destination: {{name: host, namespace: openshift-mtv}}}}
  map: [{{source: {{name: VM Network}}, destination: {{type: pod}}}}]
---
apiVersion: forklift.konveyor.io/v1beta1
kind: StorageMap
metadata: {{name: {name}-store, namespace: openshift-mtv}}
spec:
  provider: {{source: {{name: {name}, namespace: openshift-mtv}}, destination: {{name: host, namespace: openshift-mtv}}}}
  map: [{{source: {{name: ds}}, destination: {{storageClass: {storage_class}}}}}]
"""

BROKEN = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: Plan
metadata:
  name: broken
  namespace: openshift-mtv: yes
spec: {}
"""


def provider(lab: SimLab, name: str, *, url: str = "", storage_class: str = "fast", **secret: str) -> None:
    """A Provider with maps, plan and Migration of its own name."""
    lab.write(f"{name}.yaml", PROVIDER.format(name=name, url=url or lab.vcenter.url, storage_class=storage_class))
    text = PLAN.format(name=name, namespace="shop", vms=f"[{{name: {name}-vm}}]", annotations="{}", type="cold")
    lab.write(
        f"plans/{name}.yaml",
        text.replace("name: vc,", f"name: {name},")
        .replace("{name: net,", f"{{name: {name}-net,")
        .replace("{name: store,", f"{{name: {name}-store,"),
    )
    lab.migration(name=f"run-{name}", plan=name)
    if secret:
        give_secret(lab, name, **secret)


def give_secret(lab: SimLab, name: str, **data: str) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    lab.cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NS}, "data": encoded})


def credentials(lab: SimLab, **change: str) -> dict[str, str]:
    return {"user": "svc@vsphere.local", "password": "s3cret-of-the-vcenter", "ca.crt": lab.ca.pem} | change


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimLab]:
    root = tmp_path_factory.mktemp("mistakes")
    with SimLab(root, ttl_s=TTL_S) as lab:
        mistakes(lab)
        stranger = LabCa(root / "stranger").pem
        provider(lab, "locked", **credentials(lab, password="not-this-one"))
        provider(lab, "pinned", **credentials(lab, thumbprint="AB" * 20))
        provider(lab, "untrusted", **credentials(lab, **{"ca.crt": stranger}))
        provider(lab, "away", url="https://127.0.0.1:1/sdk", **credentials(lab))
        provider(lab, "secretless")
        provider(lab, "classless", storage_class="gold", **credentials(lab))
        lab.vm("classless-vm")
        lab.plan("db", name="other")
        lab.migration(name="run-other", plan="other")
        lab.commit()
        go_on(lab, lambda: succeeded(lab, "good") and succeeded(lab, "db", "run-other"))
        passes(lab, 8, seconds=15.0)
        yield lab


def mistakes(lab: SimLab) -> None:
    """Plan `wave`: one good VM among bad ones. Files that are wrong as files."""
    lab.write("broken.yaml", BROKEN)
    for copy in ("one", "two"):
        text = PLAN.format(name="double", namespace="shop", vms="[{name: good}]", annotations="{}", type="cold")
        lab.write(f"plans/double-{copy}.yaml", text)
    for name in ("good", "db", "taken"):
        lab.vm(name)
    other_net = lab.vm("other-net")
    lab.world.add_nic(other_net, lab.world.add_network("DMZ", lab.host.cluster.datacenter))
    other_ds = lab.vm("other-ds", on=False)
    lab.world.add_disk(other_ds, lab.world.add_datastore("slow", lab.host.cluster.datacenter), 1, 1)
    for folder in ("east", "west"):
        lab.vm("twin", folder=folder)
    foreign(lab, "taken")
    lab.plan("good", "other-net", "other-ds", "ghost", "twin", "taken")
    lab.migration()


def foreign(lab: SimLab, name: str) -> None:
    lab.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    vm = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name, "namespace": "shop"}}
    lab.cluster.put({**vm, "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}}}}})


def test_the_good_ones_went_on(lab: SimLab) -> None:
    lab.assert_equal_bytes("good")
    lab.assert_equal_bytes("db")
    assert lab.target_on("good") and lab.target_on("db")
    assert sorted(r.name for r in lab.cluster.running_vms()) == ["db", "good"]
    bad = ("other-net", "twin", "taken", "classless-vm")
    assert all(v.power is Power.ON and Happening.OFF not in happened(lab, v.name) for v in lab.world.vms.values() if v.name in bad)


def test_a_file_that_does_not_parse(lab: SimLab) -> None:
    readme = lab.git("show", "reconciler/status:README.md", cwd=lab.repo)
    line = next(text for text in readme.splitlines() if "broken.yaml" in text)
    assert "broken.yaml:5" in line and "not valid YAML" in line and "mapping values are not allowed" in line


def test_two_files_with_one_identity(lab: SimLab) -> None:
    found = status_of(lab, "Plan", "double")
    text = condition(found, "NotValid").message
    assert "plans/double-one.yaml" in text and "plans/double-two.yaml" in text and "Ready" not in [c.type for c in found]


def test_a_network_that_the_map_lacks(lab: SimLab) -> None:
    why = condition(record_of(lab, "other-net").conditions, "VMNetworksNotMapped")
    assert "other-net" in why.message and "DMZ" in why.message and f"{NS}/net" in told(why) and "NetworkMap" in told(why)


def test_a_datastore_that_the_map_lacks(lab: SimLab) -> None:
    why = condition(record_of(lab, "other-ds").conditions, "VMStorageNotMapped")
    assert "other-ds" in why.message and "datastore slow" in why.message and f"StorageMap {NS}/store" in why.message
    assert "add the datastore to the map" in why.suggestion


def test_a_vm_that_does_not_exist(lab: SimLab) -> None:
    why = condition(record_of(lab, "ghost").conditions, "VMNotFound")
    assert "'ghost'" in why.message and f"{NS}/vc" in why.message and "plans/wave.yaml" in why.message and "correct" in why.suggestion


def test_a_name_that_two_vms_have(lab: SimLab) -> None:
    why = condition(record_of(lab, "twin").conditions, "DuplicateVM")
    assert "east/twin" in why.message and "west/twin" in why.message and "full path" in why.suggestion


def test_a_target_name_that_a_foreign_vm_has(lab: SimLab) -> None:
    why = condition(record_of(lab, "taken").conditions, "VMAlreadyExists")
    assert "shop/taken" in why.message and "not ours" in why.message and "targetName" in why.suggestion


def test_a_storage_class_that_does_not_exist(lab: SimLab) -> None:
    why = condition(record_of(lab, "classless-vm", "run-classless").conditions, "DestinationStorageNotValid")
    assert "'gold'" in why.message and "ds" in why.message and f"{NS}/host" in why.message and "bulk, fast" in why.suggestion
    assert "DestinationStorageNotValid" in critical(status_of(lab, "StorageMap", "classless-store"))


def test_a_wrong_password_is_tried_once(lab: SimLab) -> None:
    """A second attempt a minute later, and again, would lock the account."""
    why = condition(status_of(lab, "Provider", "locked"), "ConnectionAuthFailed")
    assert "secret" in why.message and "correct" in why.message and "not-this-one" not in why.message
    assert lab.vcenter.calls["SessionManager.Login"] == 3, "one for `vc`, one for `classless`, one for `locked`"
    assert "SourceProviderNotReady" in critical(status_of(lab, "Plan", "locked"))
    assert "locked" in told(condition(status_of(lab, "Migration", "run-locked"), "PlanNotReady"))


def test_a_wrong_thumbprint(lab: SimLab) -> None:
    why = condition(status_of(lab, "Provider", "pinned"), "ConnectionTestFailed")
    assert why.reason == "ThumbprintMismatch" and "AB:AB" not in why.reason and "Provider" in why.message


def test_an_untrusted_ca(lab: SimLab) -> None:
    why = condition(status_of(lab, "Provider", "untrusted"), "ConnectionTestFailed")
    assert why.reason == "CertificateInvalid" and "ca.crt" in why.message and "thumbprint" in why.message


def test_an_unreachable_provider(lab: SimLab) -> None:
    why = condition(status_of(lab, "Provider", "away"), "ConnectionTestFailed")
    assert why.reason == "Unreachable" and "127.0.0.1:1" in why.message and "check that it runs" in why.message


def test_a_missing_secret(lab: SimLab) -> None:
    why = condition(status_of(lab, "Provider", "secretless"), "SecretNotValid")
    assert why.reason == "SecretNotFound" and f"{NS}/secretless" in why.message and "create it" in why.message


def test_no_secret_is_on_the_status_branch(lab: SimLab) -> None:
    everything = lab.git("log", "-p", "reconciler/status", cwd=lab.repo)
    assert "not-this-one" not in everything and "s3cret-of-the-vcenter" not in everything


# ---- mended in mid-run ------------------------------------------------------------------------------------------------------------------


def test_a_secret_that_comes_later_needs_no_commit(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("late-vm")
        provider(lab, "late")
        lab.commit()
        passes(lab, 3)
        assert not lab.records().runs, "nothing begins without it"
        give_secret(lab, "late", **credentials(lab))
        go_on(lab, lambda: succeeded(lab, "late-vm", "run-late"), seconds=2.0)
        lab.assert_moved("late-vm")


def test_a_corrected_password_needs_no_commit(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("locked-vm")
        provider(lab, "locked", **credentials(lab, password="not-this-one"))
        lab.remove("sites.yaml")
        lab.write("host.yaml", MANIFESTS.format(url="").split("---\n")[1])
        lab.commit()
        passes(lab, 10, seconds=20.0)
        assert lab.vcenter.calls["SessionManager.Login"] == 1
        give_secret(lab, "locked", **credentials(lab))
        go_on(lab, lambda: succeeded(lab, "locked-vm", "run-locked"), seconds=2.0)
        assert lab.vcenter.calls["SessionManager.Login"] == 2
        lab.assert_moved("locked-vm")


def change_password(lab: SimLab, password: str) -> None:
    with lab.world.lock:
        lab.vcenter.sessions.password = password
        lab.vcenter.sessions.drop_all()


def test_a_password_that_is_changed_in_mid_run_fails_nobody(tmp_path: Path) -> None:
    """Sessions end and the new password is not in the Secret yet: the VM waits with its guest off, and is not given up."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web")
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: any(v.phase == "ProveSourceOff" for v in lab.vms()))
        change_password(lab, "brand-new")
        logins = lab.vcenter.calls["SessionManager.Login"]
        passes(lab, 20, seconds=5.0)
        record = record_of(lab, "web")
        assert record.result is None and not record.unwinding, record.message
        assert lab.vcenter.calls["SessionManager.Login"] == logins + 1
        assert "ConnectionAuthFailed" in critical(status_of(lab, "Provider", "vc"))
        give_secret(lab, "vc-credentials", **credentials(lab, password="brand-new"))
        go_on(lab, lab.ended, seconds=2.0)
        lab.assert_moved("web")


def test_a_target_name_that_is_taken_in_between(tmp_path: Path) -> None:
    """After validation, before the reservation: only that VM fails, with its guest up, and the foreign VM is left alone."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        for name in ("web", "db"):
            lab.vm(name)
        lab.plan("web", "db")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: bool(lab.vms()) and lab.record("web").phase == "CreateDataVolumes")
        foreign(lab, "web")
        go_on(lab, lab.ended)
        record = record_of(lab, "web")
        assert record.result is Result.FAILED and record.error is not None and record.error.reason == "NameTaken"
        assert "shop/web" in record.message and "not ours" in record.message and "targetName" in record.message
        assert machine(lab, "web").power is Power.ON and Happening.GUEST_SHUTDOWN not in happened(lab, "web")
        theirs = lab.cluster.find("VirtualMachine", "shop", "web")
        assert theirs is not None and "annotations" not in theirs["metadata"] and "labels" not in theirs["metadata"]
        assert not [p for p in lab.cluster.find_all("PersistentVolumeClaim", "shop") if "web" in p["metadata"]["name"]]
        lab.assert_moved("db")


def test_a_pushed_fix_frees_a_held_vm_without_another_migration(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        vm = lab.vm("web")
        lab.world.add_nic(vm, lab.world.add_network("DMZ", lab.host.cluster.datacenter))
        lab.plan("web")
        lab.migration()
        lab.commit()
        passes(lab, 4)
        assert critical(record_of(lab, "web").conditions) == ["VMNetworksNotMapped"]
        text = (lab.clone / "sites.yaml").read_text()
        fixed = text.replace(
            "destination: {type: pod}}", "destination: {type: pod}}\n    - {source: {name: DMZ}, destination: {type: ignored}}"
        )
        lab.write("sites.yaml", fixed)
        lab.commit("map the DMZ")
        go_on(lab, lab.ended)
        lab.assert_moved("web")
        assert critical(record_of(lab, "web").conditions) == []


def test_a_privilege_that_lacks_is_met_with_the_guest_up_and_needs_no_commit_when_granted(tmp_path: Path) -> None:
    """One VM whose role lacks the right to power it on: it could not be given back after a failure. The other one goes."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        vm = lab.vm("web")
        lab.vm("db")
        lab.vcenter.denied.add(f"VirtualMachine.Interact.PowerOn@vm-{vm.key}")
        lab.plan("web", "db")
        lab.commit()
        passes(lab, 2)
        plan = status_of(lab, "Plan", "wave")
        assert "InsufficientPrivileges" in critical(plan), "before any Migration"
        lab.migration()
        lab.commit()
        go_on(lab, lambda: succeeded(lab, "db"))
        held = record_of(lab, "web")
        assert "VirtualMachine.Interact.PowerOn on web" in held.message
        assert machine(lab, "web").power is Power.ON and Happening.GUEST_SHUTDOWN not in happened(lab, "web")
        lab.vcenter.denied.clear()
        go_on(lab, lab.ended, seconds=5.0)
        lab.assert_moved("web")
