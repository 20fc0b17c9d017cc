"""The virt-launcher pod of a VirtualMachineInstance: what mounts the VM's claims while it runs. Pure, but for defaults."""

from __future__ import annotations

import uuid
from typing import Any

from reconciler.lab.cluster.defaults import fill_pod_spec
from reconciler.lab.cluster.kinds import PVC, VMI
from reconciler.lab.cluster.store import Store

Json = dict[str, Any]


def claim_names(vmi: Json) -> list[str]:
    """Claims that the guest's volumes name; a DataVolume has a claim of its own name."""
    names: list[str] = []
    for volume in vmi["spec"].get("volumes") or []:
        if "persistentVolumeClaim" in volume:
            names.append(volume["persistentVolumeClaim"]["claimName"])
        elif "dataVolume" in volume:
            names.append(volume["dataVolume"]["name"])
    return names


def _spec(vmi: Json, store: Store) -> Json:
    meta, spec = vmi["metadata"], vmi["spec"]
    mounts: list[Json] = []
    devices: list[Json] = []
    for name in claim_names(vmi):
        claim = store.get(PVC, meta["namespace"], name)
        if claim is not None and claim["spec"].get("volumeMode") == "Block":
            devices.append({"name": name, "devicePath": f"/dev/{name}"})
        else:
            mounts.append({"name": name, "mountPath": f"/var/run/kubevirt-private/vmi-disks/{name}"})
    pod_spec: Json = {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "compute",
                "image": "quay.io/kubevirt/virt-launcher:v1.5.2",
                "command": ["pause"],  # no guest runs in the lab
                "volumeMounts": mounts,
                "volumeDevices": devices,
            }
        ],
        "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claim_names(vmi)],
        "securityContext": {"runAsUser": 107, "runAsNonRoot": True, "fsGroup": 107},
        "nodeSelector": {**(spec.get("nodeSelector") or {}), "kubevirt.io/schedulable": "true"},
    }
    if spec.get("affinity"):
        pod_spec["affinity"] = spec["affinity"]
    if spec.get("tolerations"):
        pod_spec["tolerations"] = spec["tolerations"]
    fill_pod_spec(pod_spec, "Never")
    return pod_spec


def launcher_pod(vmi: Json, store: Store) -> Json:
    meta = vmi["metadata"]
    owner = {"apiVersion": VMI.api_version, "kind": VMI.kind, "name": meta["name"], "uid": meta["uid"]}
    labels = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": meta["uid"], "vm.kubevirt.io/name": meta["name"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"virt-launcher-{meta['name'][:200]}-{uuid.uuid4().hex[:5]}",
            "namespace": meta["namespace"],
            "uid": str(uuid.uuid4()),
            "creationTimestamp": store.timestamp(),
            "labels": {**(meta.get("labels") or {}), **labels},
            "annotations": {"kubevirt.io/domain": meta["name"]},
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": _spec(vmi, store),
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }
