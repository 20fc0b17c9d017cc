"""REST paths of the kinds we touch, spelled once, so that no request needs API discovery. Pure.

Source: Kubernetes API concepts, resource URIs; kinds of KubeVirt (kubevirt.io/v1), CDI (cdi.kubevirt.io/v1beta1) and Multus.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """`group_version` is "v1" for the core group, else "group/version". `kind` is what a person calls it."""

    group_version: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Of one object, of a namespace's collection, or (namespace None) of the whole cluster's."""
        root = f"/api/{self.group_version}" if "/" not in self.group_version else f"/apis/{self.group_version}"
        parts = [root]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        return "/".join(parts)

    @property
    def group(self) -> str:
        return self.group_version.rpartition("/")[0]


NAMESPACES = Resource("v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("v1", "nodes", "Node", namespaced=False)
VOLUMES = Resource("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PERSISTENT_VOLUMES = Resource("v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PODS = Resource("v1", "pods", "Pod")
SECRETS = Resource("v1", "secrets", "Secret")
EVENTS = Resource("v1", "events", "Event")
JOBS = Resource("batch/v1", "jobs", "Job")
STORAGE_CLASSES = Resource("storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False)
MACHINES = Resource("kubevirt.io/v1", "virtualmachines", "VirtualMachine")
INSTANCES = Resource("kubevirt.io/v1", "virtualmachineinstances", "VirtualMachineInstance")
INSTANCE_TYPES = Resource("instancetype.kubevirt.io/v1beta1", "virtualmachineinstancetypes", "VirtualMachineInstancetype")
CLUSTER_INSTANCE_TYPES = Resource(
    "instancetype.kubevirt.io/v1beta1", "virtualmachineclusterinstancetypes", "VirtualMachineClusterInstancetype", namespaced=False
)
STORAGE_PROFILES = Resource("cdi.kubevirt.io/v1beta1", "storageprofiles", "StorageProfile", namespaced=False)
CDI_CONFIGS = Resource("cdi.kubevirt.io/v1beta1", "cdiconfigs", "CDIConfig", namespaced=False)
ATTACHMENTS = Resource("k8s.cni.cncf.io/v1", "network-attachment-definitions", "NetworkAttachmentDefinition")
