"""What we send: PVC, binder, importer Job, Secret, VirtualMachine. Properties that safety or a cluster's admission depend on."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from reconciler.core.copyspec import CopyDisk, CopySpec, Reader, TlsSpec, VddkSpec
from reconciler.core.model import Secret
from reconciler.core.target import (
    BinderSpec,
    CopyJob,
    Owner,
    Placement,
    PodWishes,
    TargetDisk,
    TargetNic,
    TargetVmSpec,
    VolumeMode,
    VolumeSpec,
)
from reconciler.drivers.kubevirt import copyjob, labels, machine, objects, pods
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.mover import trial
from reconciler.ports import CopySource

OWNER = Owner("mtv/" + "w" * 70, "mtv/run-1", "web-3f9c2a1b", "site-uuid/vm-uuid", "None", "abc123")
SETTINGS = TargetSettings("registry.example/reconciler:1")
PLACEMENT = Placement({"zone": "a"}, {"nodeAffinity": {}}, "mover")
VOLUMES = (("uuid-0", "web-disk-0", VolumeMode.FILESYSTEM), ("uuid-1", "web-disk-1", VolumeMode.BLOCK))
JOB = CopyJob("shop", "copy-web", VOLUMES, PLACEMENT, OWNER, "round-1", 2)
BINDER = BinderSpec("shop", "bind-web", tuple((name, mode) for _, name, mode in VOLUMES), PLACEMENT, OWNER, "c0ffee")
VOLUME = VolumeSpec(
    "shop", "web-disk-0", "uuid-0", "vm-uuid", 1 << 30, 1143 << 20, "fast", VolumeMode.FILESYSTEM, "ReadWriteOnce", "[ds] a.vmdk", 0, OWNER
)


def vm_spec(**changes: Any) -> TargetVmSpec:
    fields: dict[str, Any] = {
        "namespace": "shop",
        "name": "web",
        "cpu_sockets": 2,
        "cpu_cores": 4,
        "memory_bytes": 3 << 30,
        "firmware": "bios",
        "secure_boot": False,
        "tpm": False,
        "uuid": "421c5e0a-0d4f-11b2-053f-27e1d9a0c3b4",
        "serial": "VMware-42",
        "disks": (TargetDisk("vol-0", "web-disk-0", "virtio", 1, "serial-0"), TargetDisk("vol-1", "web-disk-1", "virtio", None, "", True)),
        "nics": (TargetNic("net-0", "00:50:56:00:00:01", "virtio", True), TargetNic("net-1", "", "virtio", False, "nets/db")),
        "owner": OWNER,
        "source_name": "Web",
    }
    return TargetVmSpec(**(fields | changes))


def domain(spec: TargetVmSpec) -> dict[str, Any]:
    found: dict[str, Any] = machine.desired(spec)["spec"]["template"]["spec"]["domain"]
    return found


def both_pods() -> list[dict[str, Any]]:
    return [pods.binder(BINDER, SETTINGS)["spec"], pods.importer(JOB, SETTINGS)["spec"]["template"]["spec"]]


def test_everything_carries_identity_in_full_as_annotations_and_as_legal_labels() -> None:
    vm = machine.create(vm_spec(labels={"app": "web", labels.MANAGED_BY: "somebody"}))
    made = [objects.volume(VOLUME), pods.binder(BINDER, SETTINGS), pods.importer(JOB, SETTINGS), vm]
    made.append(objects.copy_secret("shop", "copy-web", "job-uid", OWNER, {}))
    for obj in made:
        assert labels.carries_key(obj, OWNER), obj["kind"]
        notes = obj["metadata"]["annotations"]
        assert notes[labels.PLAN] == OWNER.plan
        assert (notes[labels.MILESTONE], notes[labels.COMMIT]) == ("None", "abc123")
        for key in (labels.PLAN, labels.MIGRATION, labels.VM):
            value = obj["metadata"]["labels"][key]
            assert 0 < len(value) <= 63
            assert "/" not in value


def test_a_pvc_says_what_it_is_for() -> None:
    pvc = objects.volume(VOLUME)
    assert pvc["spec"] == {
        "storageClassName": "fast",
        "volumeMode": "Filesystem",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1143Mi"}},
    }
    notes = pvc["metadata"]["annotations"]
    assert (notes[labels.DISK_UUID], notes[labels.SOURCE_VM_UUID]) == ("uuid-0", "vm-uuid")
    assert (notes[labels.DISK_SOURCE], notes[labels.DISK_INDEX]) == ("[ds] a.vmdk", "0")
    assert pvc["metadata"]["labels"]["vmUUID"] == "vm-uuid"


def test_pods_pass_pod_security_restricted_and_run_as_the_guests_process_does() -> None:
    for spec in both_pods():
        security = spec["securityContext"]
        assert {security["runAsUser"], security["runAsGroup"], security["fsGroup"]} == {107}
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["restartPolicy"] == "Never"
        container = spec["containers"][0]["securityContext"]
        assert container == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({}, {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}),
        (
            {"limits": {"memory": "64Mi"}},  # below our own request, which would contradict it
            {"requests": {"cpu": "100m"}, "limits": {"cpu": "2", "memory": "64Mi"}},
        ),
        ({"requests": {"cpu": "4", "memory": "1Gi"}}, {"requests": {"cpu": "4", "memory": "1Gi"}}),
    ],
)
def test_pods_get_the_resources_that_were_asked_for(asked: dict[str, dict[str, str]], got: dict[str, dict[str, str]]) -> None:
    wishes = PodWishes(asked, "Never")
    binder = pods.binder(replace(BINDER, wishes=wishes), SETTINGS)["spec"]
    importer = pods.importer(replace(JOB, wishes=wishes), SETTINGS)["spec"]["template"]["spec"]
    for spec in (binder, importer):
        assert spec["containers"][0]["resources"] == got
        assert spec["containers"][0]["imagePullPolicy"] == "Never"
    assert both_pods()[0]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_pods_mount_every_volume_in_its_mode_and_stand_where_the_vm_will() -> None:
    for spec in both_pods():
        main = spec["containers"][0]
        assert {"name": "disk-0", "mountPath": "/var/run/reconciler/disks/0"} in main["volumeMounts"]
        assert main["volumeDevices"] == [{"name": "disk-1", "devicePath": "/dev/reconciler/disk1"}]
        assert {"name": "disk-1", "persistentVolumeClaim": {"claimName": "web-disk-1"}} in spec["volumes"]
        assert (spec["nodeSelector"], spec["serviceAccountName"]) == ({"zone": "a"}, "mover")
        assert spec["affinity"] == {"nodeAffinity": {}}


def test_the_binder_is_the_importers_twin_and_opens_each_volume() -> None:
    binder, importer = both_pods()
    ours, theirs = binder["containers"][0], importer["containers"][0]
    for field in ("image", "imagePullPolicy", "resources", "securityContext", "volumeDevices", "terminationMessagePolicy"):
        assert ours[field] == theirs[field], field
    for field in ("securityContext", "nodeSelector", "affinity", "serviceAccountName", "restartPolicy"):
        assert binder[field] == importer[field], field
    volumes = ["Filesystem:web-disk-0:/var/run/reconciler/disks/0", "Block:web-disk-1:/dev/reconciler/disk1"]
    assert ours["command"] == ["reconciler", "worker", "--try", *volumes]
    assert [str(trial.Volume.parse(v).path) for v in volumes] == ["/var/run/reconciler/disks/0", "/dev/reconciler/disk1"]
    assert pods.binder(BINDER, SETTINGS)["metadata"]["annotations"][labels.TRIAL] == "c0ffee"


VDDK = "registry.example/infra/vddk:8"


def vddk_pods(wishes: PodWishes | None = None) -> list[dict[str, Any]]:
    wished = wishes or PodWishes()
    binder = pods.binder(replace(BINDER, vddk_image=VDDK, wishes=wished), SETTINGS)["spec"]
    return [binder, pods.importer(replace(JOB, vddk_image=VDDK, wishes=wished), SETTINGS)["spec"]["template"]["spec"]]


def test_vddk_comes_by_an_init_container_into_a_volume_that_both_see() -> None:
    """Forklift's convention: the image's own entrypoint copies vmware-vix-disklib-distrib into /opt."""
    for spec in vddk_pods():
        (init,), (main,) = spec["initContainers"], spec["containers"]
        assert (init["image"], init["name"]) == (VDDK, "vddk-side-car")
        assert not {"command", "args", "env", "envFrom"} & set(init)
        (into,) = init["volumeMounts"]
        assert into["mountPath"] == "/opt"
        assert {"name": into["name"], "emptyDir": {}} in spec["volumes"]
        seen = next(m for m in main["volumeMounts"] if m["name"] == into["name"])
        assert seen["readOnly"] is True
        assert f"{seen['mountPath']}/vmware-vix-disklib-distrib" == pods.VDDK_LIBDIR
        hidden = PurePosixPath("/opt/reconciler")  # where the image has the worker's own program (Dockerfile)
        assert not any(hidden.is_relative_to(m["mountPath"]) for m in main["volumeMounts"])


def test_the_init_container_sees_no_disk_and_no_credential_and_is_as_locked_up_as_the_worker() -> None:
    for spec in vddk_pods(PodWishes({}, "Always")):
        (init,), (main,) = spec["initContainers"], spec["containers"]
        assert [m["mountPath"] for m in init["volumeMounts"]] == ["/opt"]
        assert "volumeDevices" not in init
        assert init["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        for field in ("imagePullPolicy", "resources", "terminationMessagePolicy"):
            assert init[field] == main[field], field
        assert init["imagePullPolicy"] == "Always"


def test_the_trial_loads_vddk_too() -> None:
    command = vddk_pods()[0]["containers"][0]["command"]
    assert command[:4] == ["reconciler", "worker", "--vddk", pods.VDDK_LIBDIR]
    assert command[4] == "--try"


def test_an_nbdkit_for_each_disk_has_room_unless_the_controller_says_how_much() -> None:
    for spec in vddk_pods():
        assert spec["containers"][0]["resources"]["limits"]["memory"] == "1Gi"  # 512Mi and 2 x 256Mi
    for spec in vddk_pods(PodWishes({"limits": {"memory": "700Mi"}})):
        assert spec["containers"][0]["resources"]["limits"]["memory"] == "700Mi"
    assert SETTINGS.resources["limits"]["memory"] == "512Mi"


def test_the_worker_is_told_where_its_pod_has_vddk() -> None:
    disk = CopyDisk("uuid-0", "disk", Reader.NBD, "", 1 << 20, "", False)
    vddk = VddkSpec("https://vc/sdk", "vm-1", None, (("uuid-0", "[ds] web/web.vmdk"),), config="a=1")
    source = CopySource({}, TlsSpec(), None, {"password": Secret("pa55")}, 4, 1 << 20, vddk=vddk)
    spec = CopySpec("run", "vm", "round", (disk,), TlsSpec(), "", vddk=vddk)
    filled = copyjob.fill_in(JOB, (disk,), source, spec)
    assert filled.vddk == replace(vddk, libdir=pods.VDDK_LIBDIR)
    assert CopySpec.from_json(filled.to_json()) == filled
    assert "pa55" not in filled.to_json() + json.dumps(pods.importer(replace(JOB, vddk_image=VDDK), SETTINGS))


def test_without_vddk_there_is_nothing_of_it() -> None:
    assert "vddk" not in json.dumps(both_pods())
    assert "initContainers" not in json.dumps(both_pods())


def test_a_binder_is_never_force_deleted() -> None:
    assert pods.binder(BINDER, SETTINGS)["spec"]["terminationGracePeriodSeconds"] > 0


def test_an_importer_starts_suspended_and_is_never_started_twice_by_kubernetes() -> None:
    job = pods.importer(JOB, SETTINGS)
    spec = job["spec"]
    assert (spec["suspend"], spec["backoffLimit"], spec["podReplacementPolicy"]) == (True, 0, "Failed")
    assert spec["template"]["spec"]["containers"][0]["command"] == ["reconciler", "worker", "/var/run/reconciler/spec/spec.json"]
    assert spec["template"]["metadata"]["labels"][labels.ROLE] == "importer"
    notes = job["metadata"]["annotations"]
    assert (notes[labels.ROUND_KEY], notes[labels.ATTEMPT]) == ("round-1", "2")


def test_the_secret_is_mounted_read_only_and_dies_with_its_job() -> None:
    main = pods.importer(JOB, SETTINGS)["spec"]["template"]["spec"]["containers"][0]
    mounts = {m["name"]: m for m in main["volumeMounts"]}
    assert (mounts["spec"]["mountPath"], mounts["spec"]["readOnly"]) == ("/var/run/reconciler/spec", True)
    assert (mounts["credentials"]["mountPath"], mounts["credentials"]["readOnly"]) == ("/var/run/reconciler/credentials", True)
    data = objects.copy_secret_data("{}", {"user": Secret("u"), "password": Secret("pä")}, "PEM")
    secret = objects.copy_secret("shop", "copy-web", "job-uid", OWNER, data)
    assert {key: base64.b64decode(value).decode() for key, value in secret["data"].items()} == {
        "spec.json": "{}",
        "user": "u",
        "password": "pä",
        "ca.crt": "PEM",
    }
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "job-uid"


def test_a_vm_is_made_halted_and_an_apply_never_names_a_run_strategy() -> None:
    assert machine.create(vm_spec())["spec"]["runStrategy"] == "Halted"
    applied = json.dumps(machine.desired(vm_spec()))
    assert "runStrategy" not in applied
    assert '"running"' not in applied


@pytest.mark.parametrize(
    ("firmware", "secure", "bootloader", "smm"),
    [
        ("bios", False, {"bios": {}}, False),
        ("efi", False, {"efi": {"secureBoot": False}}, False),
        ("efi", True, {"efi": {"secureBoot": True}}, True),
    ],
)
def test_firmware(firmware: str, secure: bool, bootloader: dict[str, Any], smm: bool) -> None:
    found = domain(vm_spec(firmware=firmware, secure_boot=secure))
    assert found["firmware"]["bootloader"] == bootloader
    assert ("smm" in found["features"]) is smm
    assert found["firmware"]["serial"] == "VMware-42"


def test_cpu_and_memory_give_way_to_an_instance_type() -> None:
    plain = domain(vm_spec())
    assert (plain["cpu"]["sockets"], plain["cpu"]["cores"], plain["memory"]) == (2, 4, {"guest": "3Gi"})
    sized = machine.desired(vm_spec(instance_type="u1.large"))["spec"]
    assert {"cpu", "memory"} & set(sized["template"]["spec"]["domain"]) == set()
    assert sized["instancetype"] == {"kind": "VirtualMachineClusterInstancetype", "name": "u1.large"}
    assert machine.instance_type("shop/own") == {"kind": "VirtualMachineInstancetype", "name": "own"}
    assert machine.instance_type("/u1.large")["kind"] == "VirtualMachineClusterInstancetype"


def test_disks_and_volumes_belong_together() -> None:
    template = machine.desired(vm_spec())["spec"]["template"]["spec"]
    assert template["domain"]["devices"]["disks"] == [
        {"name": "vol-0", "disk": {"bus": "virtio"}, "bootOrder": 1, "serial": "serial-0"},
        {"name": "vol-1", "disk": {"bus": "virtio"}, "shareable": True, "cache": "none"},
    ]
    assert template["volumes"][0] == {"name": "vol-0", "persistentVolumeClaim": {"claimName": "web-disk-0"}}


def test_nics_keep_their_macs_and_a_vm_without_nics_gets_none() -> None:
    template = machine.desired(vm_spec())["spec"]["template"]["spec"]
    devices = template["domain"]["devices"]
    assert devices["interfaces"][0] == {"name": "net-0", "macAddress": "00:50:56:00:00:01", "model": "virtio", "masquerade": {}}
    assert devices["interfaces"][1] == {"name": "net-1", "model": "virtio", "bridge": {}}
    assert template["networks"] == [{"name": "net-0", "pod": {}}, {"name": "net-1", "multus": {"networkName": "nets/db"}}]
    assert devices["autoattachPodInterface"] is True
    assert domain(vm_spec(nics=()))["devices"]["autoattachPodInterface"] is False


@pytest.mark.parametrize(("tpm", "want"), [(True, {"persistent": True}), (False, {"enabled": False})])
def test_a_tpm_is_kept_or_refused_in_so_many_words(tpm: bool, want: dict[str, bool]) -> None:
    assert domain(vm_spec(tpm=tpm))["devices"]["tpm"] == want


def test_an_emulated_guest_gets_a_usb_tablet() -> None:
    disks = (TargetDisk("vol-0", "web-disk-0", "sata", 1, ""),)
    assert domain(vm_spec(disks=disks))["devices"]["inputs"][0]["bus"] == "usb"
    assert domain(vm_spec())["devices"]["inputs"][0]["bus"] == "virtio"


@pytest.mark.parametrize(("nested", "policy"), [(True, "optional"), (False, "disable")])
def test_nested_virtualization(nested: bool, policy: str) -> None:
    features = domain(vm_spec(nested_virtualization=nested))["cpu"]["features"]
    assert {(f["name"], f["policy"]) for f in features} == {("vmx", policy), ("svm", policy)}
    assert "features" not in domain(vm_spec())["cpu"]
