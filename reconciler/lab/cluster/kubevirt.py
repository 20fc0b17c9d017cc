"""KubeVirt: VirtualMachine -> VirtualMachineInstance -> virt-launcher pod, and the start, stop and restart subresources.

What it is: run strategies, phases and printable states, with delays in the LabClock's time.
What it is not: a guest; a VMI that runs is only noted as "the target is on" (safety: never both sides).
Source: KubeVirt user guide, "Run Strategies"; kubevirt.io/v1 for statuses.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.lab.clock import LabClock
from reconciler.lab.cluster.conditions import has_condition, set_condition
from reconciler.lab.cluster.deletion import DeleteOptions, delete
from reconciler.lab.cluster.events import Recorder
from reconciler.lab.cluster.failures import conflict
from reconciler.lab.cluster.kinds import POD, PVC, VM, VMI
from reconciler.lab.cluster.launcherpod import claim_names, launcher_pod
from reconciler.lab.cluster.ownership import Writer, track
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
_VMI_FINALIZER = "foregroundDeleteVirtualMachine"
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class RunningVm:
    """A target that is on, and since when."""

    namespace: str
    name: str
    uid: str
    since: datetime


def strategy(vm: Json) -> str:
    spec = vm["spec"]
    if "runStrategy" in spec:
        return str(spec["runStrategy"])
    return "Always" if spec.get("running") else "Halted"


class KubeVirt:
    """`start_s`, `stop_s`: how long a guest takes to boot and to shut down."""

    def __init__(self, store: Store, clock: LabClock, events: Recorder, start_s: float, stop_s: float) -> None:
        self._store, self._clock, self._events = store, clock, events
        self.start_s, self.stop_s = start_s, stop_s
        self.on: dict[str, RunningVm] = {}  # by VMI uid
        self.starts: list[RunningVm] = []
        self._begun: dict[str, float] = {}  # VMI uid -> when its phase began to wait
        self._asked: dict[str, str] = {}  # VM uid -> start or stop, for strategies that take requests

    @property
    def busy(self) -> bool:
        """True while a guest boots or shuts down."""
        return bool(self._begun)

    def step(self) -> None:
        for vm in self._store.all(VM):
            self._sync_vm(vm)
        for vmi in self._store.all(VMI):
            self._sync_vmi(vmi)
        for uid in [uid for uid in self.on if self._store.by_uid(uid) is None]:
            del self.on[uid]
        for uid in [uid for uid in self._begun if self._store.by_uid(uid) is None]:
            del self._begun[uid]

    # ---- subresources ----

    def request(self, vm: Json, power: str) -> None:
        """Errors: 409 where KubeVirt refuses."""
        meta, how = vm["metadata"], strategy(vm)
        vmi = self._store.get(VMI, meta["namespace"], meta["name"])
        alive = vmi is not None and vmi["status"].get("phase") not in _ENDED
        if power in ("stop", "restart") and not alive:
            raise conflict(VM, meta["name"], "VM is not running" + (": " + how if power == "restart" and how == "Halted" else ""))
        if power == "start":
            if alive:
                raise conflict(VM, meta["name"], "VM is already running")
            if how == "Always":
                raise conflict(VM, meta["name"], "Always does not support manual start requests")
            self._change(vm, "start")
        elif power == "stop":
            self._change(vm, "stop")
        elif vmi is not None:
            self._asked[meta["uid"]] = "start"
            delete(self._store, VMI, vmi, DeleteOptions())

    def _change(self, vm: Json, power: str) -> None:
        """Manual and RerunOnFailure take the request; the other strategies are rewritten by it, as virt-api does."""
        if strategy(vm) in ("Manual", "RerunOnFailure"):
            self._asked[vm["metadata"]["uid"]] = power
            return
        new = clone(vm)
        if "running" in new["spec"]:
            new["spec"]["running"] = power == "start"
        else:
            new["spec"]["runStrategy"] = "Always" if power == "start" else "Halted"
        # virt-api patches the spec under its own name, and so takes the field from whoever applied it.
        track(vm, new, Writer("virt-api", "Update", VM.api_version, self._store.timestamp()), custom=True)
        self._store.replace(VM, new)

    # ---- VirtualMachine ----

    def _wants_vmi(self, vm: Json, vmi: Json | None) -> bool:
        asked = self._asked.get(vm["metadata"]["uid"])
        succeeded = vmi is not None and vmi["status"].get("phase") == "Succeeded"
        match strategy(vm):
            case "Always":
                return True
            case "RerunOnFailure" | "Once":
                return asked != "stop" and not succeeded
            case "Manual":
                return asked == "start" and not succeeded
        return False

    def _sync_vm(self, vm: Json) -> None:
        meta = vm["metadata"]
        vmi = self._store.get(VMI, meta["namespace"], meta["name"])
        if meta.get("deletionTimestamp"):
            if vmi is not None and not vmi["metadata"].get("deletionTimestamp"):
                delete(self._store, VMI, vmi, DeleteOptions())
            elif vmi is None and _FINALIZER in (meta.get("finalizers") or ()):
                new = clone(vm)
                new["metadata"]["finalizers"].remove(_FINALIZER)
                self._store.replace(VM, new)
                self._asked.pop(meta["uid"], None)
            return
        wanted = self._wants_vmi(vm, vmi)
        if vmi is None and wanted:
            vmi = self._create_vmi(vm)
        elif vmi is not None and not vmi["metadata"].get("deletionTimestamp") and (not wanted or vmi["status"]["phase"] in _ENDED):
            delete(self._store, VMI, vmi, DeleteOptions())
            vmi = self._store.get(VMI, meta["namespace"], meta["name"])
        self._write_status(vm, vmi, wanted)

    def _create_vmi(self, vm: Json) -> Json:
        meta, template = vm["metadata"], clone(vm["spec"]["template"])
        owner = {"apiVersion": VM.api_version, "kind": VM.kind, "name": meta["name"], "uid": meta["uid"]}
        inner = template.get("metadata") or {}
        self._events.record(
            vm, "Normal", "SuccessfulCreate", f"Started the virtual machine by creating {meta['name']}", "virtualmachine-controller"
        )
        return self._store.insert(
            VMI,
            {
                "apiVersion": VMI.api_version,
                "kind": VMI.kind,
                "metadata": {
                    "name": meta["name"],
                    "namespace": meta["namespace"],
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": self._store.timestamp(),
                    "generation": 1,
                    "labels": inner.get("labels") or {},
                    "annotations": inner.get("annotations") or {},
                    "finalizers": [_VMI_FINALIZER],
                    "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
                },
                "spec": template.get("spec") or {},
                "status": {"phase": "Pending"},
            },
        )

    def _write_status(self, vm: Json, vmi: Json | None, wanted: bool) -> None:
        new, now = clone(vm), self._store.timestamp()
        status = new.setdefault("status", {})
        ready = vmi is not None and has_condition(vmi["status"], "Ready")
        status["printableStatus"] = self._printable(vm, vmi, wanted)
        status["runStrategy"] = strategy(vm)
        status["observedGeneration"] = status["desiredGeneration"] = vm["metadata"].get("generation", 1)
        for field, value in (("created", vmi is not None), ("ready", ready)):
            if value:
                status[field] = True
            else:
                status.pop(field, None)
        if vmi is None:
            set_condition(status, "Ready", "False", "VMINotExists", "VMI does not exist", now)
        else:
            reason = "" if ready else "GuestNotRunning"
            set_condition(
                status, "Ready", "True" if ready else "False", reason, "" if ready else "Guest VM is not reported as running", now
            )
        self._store.replace(VM, new)

    def _printable(self, vm: Json, vmi: Json | None, wanted: bool) -> str:
        namespace = vm["metadata"]["namespace"]
        if vmi is None:
            return "Starting" if wanted else "Stopped"
        if vmi["metadata"].get("deletionTimestamp"):
            return "Stopping"
        if vmi["status"]["phase"] == "Running":
            return "Running"
        if any(self._store.get(PVC, namespace, name) is None for name in claim_names(vmi)):
            return "ErrorPvcNotFound"
        pod = self._pod_of(vmi)
        if pod is not None and has_condition(pod["status"], "PodScheduled", "False"):
            return "ErrorUnschedulable"
        return "Stopped" if vmi["status"]["phase"] in _ENDED else "Starting"

    # ---- VirtualMachineInstance ----

    def _pod_of(self, vmi: Json) -> Json | None:
        found = (pod for kind, pod in self._store.dependents(vmi["metadata"]["uid"]) if kind is POD)
        return next(found, None)

    def _sync_vmi(self, vmi: Json) -> None:
        meta, phase = vmi["metadata"], vmi["status"]["phase"]
        pod = self._pod_of(vmi)
        if meta.get("deletionTimestamp"):
            self._shut_down(vmi, pod)
            return
        new, now = clone(vmi), self._clock.monotonic()
        if phase == "Pending":
            missing = [name for name in claim_names(vmi) if self._store.get(PVC, meta["namespace"], name) is None]
            if missing:
                message = f"PVC {meta['namespace']}/{missing[0]} does not exist, waiting for it to appear"
                set_condition(new["status"], "Synchronized", "False", "FailedPvcNotFound", message, self._store.timestamp())
                self._events.record(vmi, "Warning", "FailedPvcNotFound", message, "virtualmachine-controller")
            else:
                self._store.insert(POD, launcher_pod(vmi, self._store))
                new["status"] = {"phase": "Scheduling"}
        elif phase in ("Scheduling", "Scheduled"):
            self._boot(new, pod, now)
        elif phase == "Running" and (pod is None or pod["status"].get("phase") in _ENDED):
            new["status"]["phase"] = "Failed"
            set_condition(new["status"], "Ready", "False", "PodTerminating", "virt-launcher pod is terminating", self._store.timestamp())
            self.on.pop(meta["uid"], None)
        self._store.replace(VMI, new)

    def _boot(self, vmi: Json, pod: Json | None, now: float) -> None:
        uid, status = vmi["metadata"]["uid"], vmi["status"]
        if pod is None or pod["status"].get("phase") in _ENDED:
            status["phase"] = "Failed"
            self._begun.pop(uid, None)
        elif pod["status"].get("phase") == "Running":
            begun = self._begun.setdefault(uid, now)
            status |= {
                "phase": "Scheduled",
                "nodeName": pod["spec"]["nodeName"],
                "activePods": {pod["metadata"]["uid"]: pod["spec"]["nodeName"]},
            }
            if now - begun >= self.start_s:
                self._begun.pop(uid)
                status["phase"] = "Running"
                set_condition(status, "Ready", "True", "", "", self._store.timestamp())
                on = RunningVm(vmi["metadata"]["namespace"], vmi["metadata"]["name"], uid, self._clock.now())
                self.on[uid] = on
                self.starts.append(on)
                self._events.record(vmi, "Normal", "Started", "VirtualMachineInstance started.", "virt-handler")

    def _shut_down(self, vmi: Json, pod: Json | None) -> None:
        """The guest shuts down, then its pod goes, then the VMI."""
        uid, now = vmi["metadata"]["uid"], self._clock.monotonic()
        if uid in self.on:
            if now - self._begun.setdefault(uid, now) < self.stop_s:
                return
            del self.on[uid]
        self._begun.pop(uid, None)
        if pod is not None:
            if not pod["metadata"].get("deletionTimestamp"):
                delete(self._store, POD, pod, DeleteOptions(grace_s=1))
            return
        new = clone(vmi)
        if _VMI_FINALIZER in (new["metadata"].get("finalizers") or ()):
            new["metadata"]["finalizers"].remove(_VMI_FINALIZER)
        new["status"]["phase"] = "Succeeded"
        self._store.replace(VMI, new)
