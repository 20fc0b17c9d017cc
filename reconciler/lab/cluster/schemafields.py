"""The fields that the schemas of the main kinds know, so that misspelt ones are dropped, warned of or refused.

What it is: top-level and spec fields, one level deep, of kinds that a migration writes. Kinds not listed take anything.
Source: OpenAPI of Kubernetes 1.3x; kubevirt.io/v1.
"""

from __future__ import annotations

from typing import Any

from reconciler.lab.cluster.kinds import CONFIG_MAP, JOB, NAMESPACE, POD, PVC, SECRET, VM, Kind

Json = dict[str, Any]
_TOP = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_METADATA = frozenset(
    {"annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName", "generation"}
    | {"labels", "managedFields", "name", "namespace", "ownerReferences", "resourceVersion", "selfLink", "uid"}
)
_POD_SPEC = frozenset(
    {"activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy", "enableServiceLinks"}
    | {"ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers", "hostname", "hostnameOverride"}
    | {"imagePullSecrets", "initContainers", "nodeName", "nodeSelector", "os", "overhead", "preemptionPolicy", "priority"}
    | {"priorityClassName", "readinessGates", "resourceClaims", "resources", "restartPolicy", "runtimeClassName", "schedulerName"}
    | {"schedulingGates", "securityContext", "serviceAccount", "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace"}
    | {"subdomain", "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes"}
)
_CONTAINER = frozenset(
    {"args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports", "readinessProbe"}
    | {"resizePolicy", "resources", "restartPolicy", "restartPolicyRules", "securityContext", "startupProbe", "stdin", "stdinOnce"}
    | {"terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices", "volumeMounts", "workingDir"}
)
_JOB_SPEC = frozenset(
    {"activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "completionMode", "completions", "managedBy", "manualSelector"}
    | {"maxFailedIndexes", "parallelism", "podFailurePolicy", "podReplacementPolicy", "selector", "successPolicy", "suspend", "template"}
    | {"ttlSecondsAfterFinished"}
)
_PVC_SPEC = frozenset(
    {"accessModes", "dataSource", "dataSourceRef", "resources", "selector", "storageClassName", "volumeAttributesClassName"}
    | {"volumeMode", "volumeName"}
)
_VM_SPEC = frozenset(
    {
        "dataVolumeTemplates",
        "instancetype",
        "liveUpdateFeatures",
        "preference",
        "runStrategy",
        "running",
        "template",
        "updateVolumesStrategy",
    }
)
_VMI_SPEC = frozenset(
    {"accessCredentials", "affinity", "architecture", "dnsConfig", "dnsPolicy", "domain", "evictionStrategy", "hostname", "livenessProbe"}
    | {"networks", "nodeSelector", "priorityClassName", "readinessProbe", "resourceClaims", "schedulerName", "startStrategy", "subdomain"}
    | {"terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "utilityVolumes", "volumes"}
)
_FLAT = {
    SECRET: frozenset({"apiVersion", "kind", "metadata", "data", "stringData", "immutable", "type"}),
    CONFIG_MAP: frozenset({"apiVersion", "kind", "metadata", "data", "binaryData", "immutable"}),
}
_SPECS = {POD: _POD_SPEC, JOB: _JOB_SPEC, PVC: _PVC_SPEC, VM: _VM_SPEC, NAMESPACE: frozenset({"finalizers"})}


def prune(kind: Kind, obj: Json) -> tuple[str, ...]:
    """Drop unknown fields from `obj`; return their paths."""
    unknown: list[str] = []
    _strip(obj["metadata"], _METADATA, "metadata", unknown)
    if kind in _FLAT:
        _strip(obj, _FLAT[kind], "", unknown)
    if kind not in _SPECS:
        return tuple(unknown)
    _strip(obj, _TOP, "", unknown)
    spec = obj.get("spec") or {}
    _strip(spec, _SPECS[kind], "spec", unknown)
    if kind is POD:
        _strip_pod(spec, "spec", unknown)
    elif kind is JOB:
        _strip_pod((spec.get("template") or {}).get("spec") or {}, "spec.template.spec", unknown)
    elif kind is VM:
        _strip((spec.get("template") or {}).get("spec") or {}, _VMI_SPEC, "spec.template.spec", unknown)
    return tuple(unknown)


def _strip_pod(spec: Json, at: str, unknown: list[str]) -> None:
    _strip(spec, _POD_SPEC, at, unknown)
    for index, container in enumerate(spec.get("containers") or []):
        _strip(container, _CONTAINER, f"{at}.containers[{index}]", unknown)


def _strip(value: Json, known: frozenset[str], at: str, unknown: list[str]) -> None:
    for name in [name for name in value if name not in known]:
        del value[name]
        unknown.append(f"{at}.{name}" if at else name)
