"""The kinds that the simulated API server serves, as one table.

What it is: names, scope, subresources and field labels; discovery and routing are derived from it.
What it is not: defaults or validation (admission.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

KUBEVIRT = "kubevirt.io"
CDI = "cdi.kubevirt.io"
SUBRESOURCES = "subresources.kubevirt.io"


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource. `custom`: defined by a CRD (no strategic patch, atomic lists). `transient`: create only, not stored."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    custom: bool = False
    transient: bool = False
    labels: tuple[str, ...] = ()  # field selectors besides metadata.name and metadata.namespace
    generation: bool = False  # metadata.generation counts changes of the spec
    resource: str = field(init=False)
    api_version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resource", f"{self.plural}.{self.group}" if self.group else self.plural)
        object.__setattr__(self, "generation", self.generation or self.custom)
        object.__setattr__(self, "api_version", f"{self.group}/{self.version}" if self.group else self.version)


NAMESPACE = Kind("", "v1", "namespaces", "Namespace", False, ("ns",), ("status", "finalize"), labels=("status.phase",))
NODE = Kind("", "v1", "nodes", "Node", False, ("no",), ("status",), labels=("spec.unschedulable",))
POD = Kind("", "v1", "pods", "Pod", True, ("po",), ("status", "log"), labels=("spec.nodeName", "status.phase", "spec.serviceAccountName"))
SECRET = Kind("", "v1", "secrets", "Secret", labels=("type",))
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap", short=("cm",))
EVENT = Kind(
    "",
    "v1",
    "events",
    "Event",
    short=("ev",),
    labels=(
        "involvedObject.uid",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "reason",
        "type",
        "source",
    ),
)
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",))
PVC = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",), subresources=("status",))
PV = Kind("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",), ("status",))
QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota", short=("quota",), subresources=("status",))
JOB = Kind("batch", "v1", "jobs", "Job", subresources=("status",), labels=("status.successful",), generation=True)
STORAGE_CLASS = Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, ("sc",))
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
CRD = Kind(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    False,
    ("crd", "crds"),
    ("status",),
    generation=True,
)
ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, transient=True)
RBAC = tuple(
    Kind("rbac.authorization.k8s.io", "v1", plural, kind, namespaced)
    for plural, kind, namespaced in (
        ("roles", "Role", True),
        ("rolebindings", "RoleBinding", True),
        ("clusterroles", "ClusterRole", False),
        ("clusterrolebindings", "ClusterRoleBinding", False),
    )
)
VM = Kind(KUBEVIRT, "v1", "virtualmachines", "VirtualMachine", True, ("vm", "vms"), ("status",), custom=True)
VMI = Kind(KUBEVIRT, "v1", "virtualmachineinstances", "VirtualMachineInstance", True, ("vmi", "vmis"), (), custom=True)
KUBEVIRT_CR = Kind(KUBEVIRT, "v1", "kubevirts", "KubeVirt", True, ("kv", "kvs"), ("status",), custom=True)
CLUSTER_INSTANCETYPE = Kind(
    "instancetype.kubevirt.io", "v1beta1", "virtualmachineclusterinstancetypes", "VirtualMachineClusterInstancetype", False, custom=True
)
INSTANCETYPE = Kind("instancetype.kubevirt.io", "v1beta1", "virtualmachineinstancetypes", "VirtualMachineInstancetype", custom=True)
CLUSTER_PREFERENCE = Kind(
    "instancetype.kubevirt.io", "v1beta1", "virtualmachineclusterpreferences", "VirtualMachineClusterPreference", False, custom=True
)
PREFERENCE = Kind("instancetype.kubevirt.io", "v1beta1", "virtualmachinepreferences", "VirtualMachinePreference", custom=True)
STORAGE_PROFILE = Kind(CDI, "v1beta1", "storageprofiles", "StorageProfile", False, subresources=("status",), custom=True)
CDI_CONFIG = Kind(CDI, "v1beta1", "cdiconfigs", "CDIConfig", False, custom=True)
NAD = Kind("k8s.cni.cncf.io", "v1", "network-attachment-definitions", "NetworkAttachmentDefinition", True, ("net-attach-def",), custom=True)

KINDS: tuple[Kind, ...] = (
    NAMESPACE,
    NODE,
    POD,
    SECRET,
    CONFIG_MAP,
    EVENT,
    SERVICE_ACCOUNT,
    PVC,
    PV,
    QUOTA,
    JOB,
    STORAGE_CLASS,
    LEASE,
    CRD,
    ACCESS_REVIEW,
    *RBAC,
    VM,
    VMI,
    KUBEVIRT_CR,
    CLUSTER_INSTANCETYPE,
    INSTANCETYPE,
    CLUSTER_PREFERENCE,
    PREFERENCE,
    STORAGE_PROFILE,
    CDI_CONFIG,
    NAD,
)
CDI_KINDS = frozenset({STORAGE_PROFILE, CDI_CONFIG})


def by_kind(api_version: str, kind: str) -> Kind | None:
    return next((k for k in KINDS if k.kind == kind and k.api_version == api_version), None)


def by_name(kind: str) -> Kind:
    """The kind of that CamelCase name, whatever its group. Errors: KeyError."""
    found = next((k for k in KINDS if k.kind == kind), None)
    if found is None:
        raise KeyError(f"the simulated cluster does not serve kind {kind}")
    return found
