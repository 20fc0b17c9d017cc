"""What a fresh cluster holds: namespaces, nodes, storage classes with their CDI profiles, KubeVirt and its CRDs.

What it is: plain objects for `Cluster.put`. What it is not: anything of a migration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.lab.cluster.defaults import DEFAULT_CLASS
from reconciler.lab.cluster.kinds import CDI, CDI_CONFIG, CLUSTER_INSTANCETYPE, KINDS, KUBEVIRT_CR, STORAGE_CLASS, STORAGE_PROFILE

Json = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
NAMESPACES = ("kube-system", "default", "openshift-mtv", "kubevirt")


@dataclass(frozen=True, slots=True)
class LabStorageClass:
    """A class of the lab. `modes`: (accessMode, volumeMode) pairs of its StorageProfile, best first.

    `zones`: its volumes can be used in one of these only; Immediate takes them in turn, WaitForFirstConsumer that of the chosen node.
    """

    name: str
    wait_for_consumer: bool = False
    default: bool = False
    expandable: bool = True
    provisioner: str = "csi.lab.example.com"
    modes: tuple[tuple[str, str], ...] = (("ReadWriteOnce", "Filesystem"), ("ReadWriteOnce", "Block"))
    zones: tuple[str, ...] = ()


FAST = LabStorageClass("fast", wait_for_consumer=True, default=True)
BULK = LabStorageClass("bulk")


def objects(nodes: Sequence[str], classes: Sequence[LabStorageClass], cdi: bool) -> Iterator[Json]:
    for name in NAMESPACES:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    for name in nodes:
        yield node(name, zone=name.rpartition("-")[2])
    for storage_class in classes:
        yield _storage_class(storage_class)
        if cdi:
            yield _profile(storage_class)
    if cdi:
        yield {
            "apiVersion": CDI_CONFIG.api_version,
            "kind": "CDIConfig",
            "metadata": {"name": "config"},
            "spec": {},
            "status": {"filesystemOverhead": {"global": "0.06", "storageClass": {c.name: "0.06" for c in classes}}},
        }
    yield {
        "apiVersion": KUBEVIRT_CR.api_version,
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {},
        "status": {"phase": "Deployed", "observedKubeVirtVersion": "v1.5.2"},
    }
    for name, cores, memory in (("u1.small", 1, "2Gi"), ("u1.medium", 1, "4Gi"), ("u1.large", 2, "8Gi")):
        yield {
            "apiVersion": CLUSTER_INSTANCETYPE.api_version,
            "kind": CLUSTER_INSTANCETYPE.kind,
            "metadata": {"name": name},
            "spec": {"cpu": {"guest": cores}, "memory": {"guest": memory}},
        }
    yield from _crds(cdi)


def node(name: str, zone: str = "a") -> Json:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubevirt.io/schedulable": "true"}
    labels[ZONE] = zone
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "capacity": {"cpu": "16", "memory": "64Gi", "pods": "250", "devices.kubevirt.io/kvm": "1k"},
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "250", "devices.kubevirt.io/kvm": "1k"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}],
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "00000000-0000-0000-0000-000000000000",
                "containerRuntimeVersion": "cri-o://1.33.1",
                "kernelVersion": "5.14.0",
                "kubeProxyVersion": "v1.33.2",
                "kubeletVersion": "v1.33.2",
                "machineID": "00000000000000000000000000000000",
                "operatingSystem": "linux",
                "osImage": "Lab Linux",
                "systemUUID": "00000000-0000-0000-0000-000000000000",
            },
        },
    }


def _storage_class(c: LabStorageClass) -> Json:
    return {
        "apiVersion": STORAGE_CLASS.api_version,
        "kind": "StorageClass",
        "metadata": {"name": c.name, **({"annotations": {DEFAULT_CLASS: "true"}} if c.default else {})},
        "provisioner": c.provisioner,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer" if c.wait_for_consumer else "Immediate",
        "allowVolumeExpansion": c.expandable,
        **({"allowedTopologies": [{"matchLabelExpressions": [{"key": ZONE, "values": list(c.zones)}]}]} if c.zones else {}),
    }


def _profile(c: LabStorageClass) -> Json:
    sets = [{"accessModes": [access], "volumeMode": mode} for access, mode in c.modes]
    return {
        "apiVersion": STORAGE_PROFILE.api_version,
        "kind": "StorageProfile",
        "metadata": {"name": c.name},
        "spec": {},
        "status": {"storageClass": c.name, "provisioner": c.provisioner, "claimPropertySets": sets},
    }


def _crds(cdi: bool) -> Iterator[Json]:
    for kind in KINDS:
        if not kind.custom or (kind.group == CDI and not cdi):
            continue
        version = {"name": kind.version, "served": True, "storage": True}
        yield {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": kind.resource},
            "spec": {
                "group": kind.group,
                "names": {"plural": kind.plural, "kind": kind.kind, "listKind": f"{kind.kind}List", "singular": kind.kind.lower()},
                "scope": "Namespaced" if kind.namespaced else "Cluster",
                "versions": [version],
            },
            "status": {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": [kind.version]},
        }
