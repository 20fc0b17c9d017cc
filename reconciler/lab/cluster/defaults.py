"""What the API server fills in before it stores an object: defaults, generated selectors, protection finalizers.

What it is: (kind, object) -> edits in place, at creation. What it is not: refusals (admission.py).
Source: the defaulting functions of core/v1, batch/v1 and KubeVirt's mutating webhooks, as their API references describe them.
"""

from __future__ import annotations

import base64
from typing import Any

from reconciler.lab.cluster.kinds import JOB, NAMESPACE, POD, PV, PVC, SECRET, STORAGE_CLASS, VM, Kind
from reconciler.lab.cluster.store import Store

Json = dict[str, Any]
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
TERMINATION_PATH = "/dev/termination-log"


def fill(kind: Kind, obj: Json, store: Store) -> None:
    meta = obj["metadata"]
    if kind is NAMESPACE:
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        obj["status"] = {"phase": "Active"}
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
    elif kind is PVC:
        _fill_claim(obj, store)
    elif kind is PV:
        _add_finalizer(meta, "kubernetes.io/pv-protection")
        obj.setdefault("status", {"phase": "Available"})
    elif kind is SECRET:
        fill_secret(obj)
        obj.setdefault("type", "Opaque")
    elif kind is POD:
        fill_pod_spec(obj.get("spec") or {}, "Always")
        obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif kind is JOB:
        _fill_job(obj)
    elif kind is STORAGE_CLASS:
        obj.setdefault("reclaimPolicy", "Delete")
        obj.setdefault("volumeBindingMode", "Immediate")
    elif kind is VM:
        _add_finalizer(meta, "kubevirt.io/virtualMachineControllerFinalize")


def _add_finalizer(meta: Json, finalizer: str) -> None:
    finalizers = meta.setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def _fill_claim(obj: Json, store: Store) -> None:
    spec = obj.setdefault("spec", {})
    _add_finalizer(obj["metadata"], "kubernetes.io/pvc-protection")
    spec.setdefault("volumeMode", "Filesystem")
    if "storageClassName" not in spec:
        default = [c for c in store.all(STORAGE_CLASS) if (c["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"]
        if default:
            spec["storageClassName"] = default[-1]["metadata"]["name"]
    obj["status"] = {"phase": "Pending"}


def fill_secret(obj: Json) -> None:
    """`stringData` is write-only: it becomes `data`, and is never stored."""
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.setdefault("data", {})
        data |= {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}


def fill_pod_spec(spec: Json, restart_policy: str) -> None:
    spec.setdefault("restartPolicy", restart_policy)
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    for container in (spec.get("containers") or []) + (spec.get("initContainers") or []):
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", TERMINATION_PATH)
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", "IfNotPresent")
    for volume in spec.get("volumes") or []:
        for source in ("secret", "configMap"):
            if isinstance(volume.get(source), dict):
                volume[source].setdefault("defaultMode", 0o644)


def _fill_job(obj: Json) -> None:
    spec, meta = obj.setdefault("spec", {}), obj["metadata"]
    spec.setdefault("parallelism", 1)
    spec.setdefault("completions", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    if "podReplacementPolicy" not in spec:
        spec["podReplacementPolicy"] = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    template = spec.setdefault("template", {})
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    uid, name = meta["uid"], meta["name"]
    labels |= {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name, "controller-uid": uid, "job-name": name}
    spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    fill_pod_spec(template.get("spec") or {}, "Always")
    obj["status"] = {}
