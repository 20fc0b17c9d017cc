"""Who may be writing to a volume: the pods that mount it, and whether each is fenced (safety 4). Pure.

fenced means proven unable to write: the pod ended on a node that is Ready now, or its node is deleted or tainted out-of-service. A pod
marked Failed on a node that lost contact is not fenced: the control plane says so without the node, and the process may still run.
Source: Kubernetes, "Non-graceful node shutdown"; KubeVirt's labels on virt-launcher and hotplug pods.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from reconciler.core.target import Instance, Writer
from reconciler.drivers.kubevirt import labels
from reconciler.drivers.kubevirt.labels import Obj

ROLE_VMI = "vmi"
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_KUBEVIRT = "kubevirt.io"
_GUEST_PODS = frozenset({"virt-launcher", "hotplug-disk"})
_ENDED = frozenset({"Succeeded", "Failed"})


def by_claim(pods: Iterable[Obj], nodes: Mapping[str, Obj], us: Instance) -> Mapping[str, tuple[Writer, ...]]:
    """PVC name -> writers, for the pods of one namespace. `nodes` must be complete: a node not in it is deleted."""
    found: defaultdict[str, list[Writer]] = defaultdict(list)
    for pod in pods:
        for claim in claims_of(pod):
            found[claim].append(writer(pod, nodes, us))
    return {claim: tuple(sorted(writers, key=lambda w: w.pod)) for claim, writers in found.items()}


def claims_of(pod: Obj) -> frozenset[str]:
    volumes = pod["spec"].get("volumes") or []
    return frozenset(v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim"))


def writer(pod: Obj, nodes: Mapping[str, Obj], us: Instance) -> Writer:
    phase = (pod.get("status") or {}).get("phase") or "Pending"
    return Writer(
        pod=pod["metadata"]["name"],
        phase=phase,
        fenced=_fenced(phase, pod["spec"].get("nodeName"), nodes),
        ours=labels.is_ours(pod, us),
        role=_role(pod, us),
    )


def _fenced(phase: str, node_name: str | None, nodes: Mapping[str, Obj]) -> bool:
    if not node_name:
        return phase in _ENDED  # never ran; while Pending it may be placed at any moment
    node = nodes.get(node_name)
    return node is None or _out_of_service(node) or (phase in _ENDED and _ready(node))


def _out_of_service(node: Obj) -> bool:
    return any(taint.get("key") == _OUT_OF_SERVICE for taint in (node.get("spec") or {}).get("taints") or [])


def _ready(node: Obj) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _role(pod: Obj, us: Instance) -> str:
    found = labels.labels_of(pod)
    if found.get(_KUBEVIRT) in _GUEST_PODS:
        return ROLE_VMI
    return found.get(labels.ROLE, "") if labels.is_ours(pod, us) else ""
