"""Scheduler and node lifecycle: which node a pod gets, and what becomes of pods whose node is lost.

What it is: nodeName, the PodScheduled condition, selected-node for claims that wait, eviction, and pod garbage collection.
What it is not: running anything (kubelet.py). A pod on a lost node stays, and its process may go on writing: that is the point of a lab.
Source: Kubernetes documentation, "Assigning Pods to Nodes", "Taints and Tolerations", "Non-graceful node shutdown".
"""

from __future__ import annotations

from typing import Any

from reconciler.lab.clock import LabClock
from reconciler.lab.cluster.collector import claims_of
from reconciler.lab.cluster.conditions import set_condition
from reconciler.lab.cluster.deletion import DeleteOptions, delete
from reconciler.lab.cluster.events import Recorder
from reconciler.lab.cluster.kinds import NODE, POD, PV, PVC, STORAGE_CLASS
from reconciler.lab.cluster.storage import SELECTED_NODE
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
UNREACHABLE = "node.kubernetes.io/unreachable"
EVICTION_AFTER_S = 300.0  # the tolerationSeconds that admission gives every pod
_DONE = ("Succeeded", "Failed")


def node_ready(node: Json | None) -> bool:
    conditions = ((node or {}).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def tainted(node: Json, key: str) -> bool:
    return any(taint.get("key") == key for taint in node["spec"].get("taints") or [])


class Scheduler:
    def __init__(self, store: Store, clock: LabClock, events: Recorder) -> None:
        self._store, self._clock, self._events = store, clock, events
        self._lost_since: dict[str, float] = {}

    def step(self) -> None:
        nodes = {node["metadata"]["name"]: node for node in self._store.all(NODE)}
        pods = self._store.all(POD)
        for pod in pods:
            if pod["status"].get("phase") in _DONE or pod["metadata"].get("deletionTimestamp"):
                continue
            if not pod["spec"].get("nodeName") and not pod["spec"].get("schedulingGates"):
                self._schedule(pod, nodes)
        self._watch_nodes(nodes)
        for pod in pods:
            if pod["spec"].get("nodeName"):
                self._look_after(pod, nodes.get(pod["spec"]["nodeName"]))

    # ---- scheduling ----

    def _schedule(self, pod: Json, nodes: dict[str, Json]) -> None:
        namespace = pod["metadata"]["namespace"]
        claims = [(name, self._store.get(PVC, namespace, name)) for name in claims_of(pod)]
        waiting: list[Json] = []
        for name, claim in claims:
            if claim is None:
                return self._unschedulable(pod, len(nodes), f'persistentvolumeclaim "{name}" not found')
            if claim["metadata"].get("deletionTimestamp"):
                return self._unschedulable(pod, len(nodes), f'persistentvolumeclaim "{name}" is being deleted')
            if claim["status"].get("phase") != "Bound":
                if not self._waits_for_consumer(claim):
                    return self._unschedulable(pod, len(nodes), "pod has unbound immediate PersistentVolumeClaims")
                waiting.append(claim)
        fitting = [node for node in nodes.values() if _fits(pod, node)]
        if not fitting:
            why = f"{len(nodes)} node(s) didn't match Pod's node affinity/selector, were unschedulable or had untolerated taints"
            return self._unschedulable(pod, len(nodes), why)
        terms = [term for _, claim in claims if claim is not None and (term := self._topology(claim))]
        fitting = [node for node in fitting if all(_matches_any(term, node["metadata"].get("labels") or {}) for term in terms)]
        if not fitting:
            return self._unschedulable(pod, len(nodes), f"{len(nodes)} node(s) had volume node affinity conflict")
        node = self._prefer(fitting, namespace, {name for name, _ in claims})["metadata"]["name"]
        for claim in waiting:
            if SELECTED_NODE not in (claim["metadata"].get("annotations") or {}):
                new = clone(claim)
                new["metadata"].setdefault("annotations", {})[SELECTED_NODE] = node
                self._store.replace(PVC, new)
        if not waiting:
            self._bind(pod, node)
        return None

    def _topology(self, claim: Json) -> list[Json]:
        """Node selector terms of its volume; of its class while it has none."""
        volume = self._store.get(PV, "", claim["spec"].get("volumeName") or "")
        if volume is not None:
            required = (volume["spec"].get("nodeAffinity") or {}).get("required") or {}
            return list(required.get("nodeSelectorTerms") or [])
        storage_class = self._store.get(STORAGE_CLASS, "", claim["spec"].get("storageClassName") or "") or {}
        allowed = storage_class.get("allowedTopologies") or []
        return [{"matchExpressions": [e | {"operator": "In"} for e in term.get("matchLabelExpressions") or []]} for term in allowed]

    def _waits_for_consumer(self, claim: Json) -> bool:
        storage_class = self._store.get(STORAGE_CLASS, "", claim["spec"].get("storageClassName") or "")
        return storage_class is not None and storage_class["volumeBindingMode"] == "WaitForFirstConsumer"

    def _prefer(self, fitting: list[Json], namespace: str, claims: set[str]) -> Json:
        """The node where a claim of the pod is in use already, or was provisioned for; else the first."""
        busy = {
            pod["spec"].get("nodeName")
            for pod in self._store.all(POD, namespace)
            if pod["status"].get("phase") not in _DONE and claims & set(claims_of(pod))
        }
        found = [self._store.get(PVC, namespace, name) for name in claims]
        chosen = {(claim["metadata"].get("annotations") or {}).get(SELECTED_NODE) for claim in found if claim}
        return next((n for wanted in (busy, chosen) for n in fitting if n["metadata"]["name"] in wanted), fitting[0])

    def _bind(self, pod: Json, node: str) -> None:
        new = clone(pod)
        new["spec"]["nodeName"] = node
        set_condition(new["status"], "PodScheduled", "True", "", "", self._store.timestamp())
        self._store.replace(POD, new)
        message = f"Successfully assigned {pod['metadata']['namespace']}/{pod['metadata']['name']} to {node}"
        self._events.record(pod, "Normal", "Scheduled", message, "default-scheduler")

    def _unschedulable(self, pod: Json, nodes: int, why: str) -> None:
        message = f"0/{nodes} nodes are available: {why}."
        new = clone(pod)
        set_condition(new["status"], "PodScheduled", "False", "Unschedulable", message, self._store.timestamp())
        self._store.replace(POD, new)
        self._events.record(pod, "Warning", "FailedScheduling", message, "default-scheduler")

    # ---- lost nodes ----

    def _watch_nodes(self, nodes: dict[str, Json]) -> None:
        now = self._clock.monotonic()
        for name, node in nodes.items():
            if node_ready(node):
                self._lost_since.pop(name, None)
            else:
                self._lost_since.setdefault(name, now)

    def _look_after(self, pod: Json, node: Json | None) -> None:
        phase, deleting = pod["status"].get("phase"), pod["metadata"].get("deletionTimestamp")
        if node is None or (tainted(node, OUT_OF_SERVICE) and not node_ready(node)):
            self._collect(pod)
            return
        if node_ready(node) or phase in _DONE:
            return
        new = clone(pod)
        set_condition(new["status"], "Ready", "False", "NodeNotReady", "", self._store.timestamp())
        pod = self._store.replace(POD, new)
        lost_for = self._clock.monotonic() - self._lost_since.get(node["metadata"]["name"], self._clock.monotonic())
        if not deleting and lost_for >= EVICTION_AFTER_S:
            delete(self._store, POD, pod, DeleteOptions())
            self._events.record(pod, "Normal", "TaintManagerEviction", "Marking for deletion Pod", "taint-eviction-controller")

    def _collect(self, pod: Json) -> None:
        """Pod garbage collection: the node cannot run it any more, so the pod fails and goes without its kubelet."""
        if pod["status"].get("phase") not in _DONE:
            new = clone(pod)
            new["status"]["phase"] = "Failed"
            set_condition(
                new["status"], "DisruptionTarget", "True", "DeletionByPodGC", "PodGC: node no longer exists", self._store.timestamp()
            )
            pod = self._store.replace(POD, new)
        delete(self._store, POD, pod, DeleteOptions(grace_s=0))


def _fits(pod: Json, node: Json) -> bool:
    if not node_ready(node) or node["spec"].get("unschedulable"):
        return False
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    if not _affine(pod, labels):
        return False
    tolerations = pod["spec"].get("tolerations") or []
    hard = [t for t in node["spec"].get("taints") or [] if t.get("effect") in ("NoSchedule", "NoExecute")]
    return all(any(_tolerates(toleration, taint) for toleration in tolerations) for taint in hard)


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return bool(toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", ""))


def _affine(pod: Json, labels: Json) -> bool:
    required = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return _matches_any(required.get("nodeSelectorTerms") or [], labels)


def _matches_any(terms: list[Json], labels: Json) -> bool:
    return any(all(_expression(e, labels) for e in term.get("matchExpressions") or []) for term in terms)


def _expression(expression: Json, labels: Json) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
    return False
