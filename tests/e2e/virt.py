"""KubeVirt's controllers, as far as a migration sees them: run strategy -> VirtualMachineInstance -> virt-launcher pod -> status.

What it is: requests that the real CRD schemas judge. What it is not: a guest, or KubeVirt's webhooks.
"""

from __future__ import annotations

from typing import Any

from reconciler.lab.cluster.kubevirt import strategy
from reconciler.lab.cluster.launcherpod import launcher_pod
from tests.e2e.admin import Admin, Json


class Virt:
    """`store`: what lab code reads objects from; here, the API server."""

    def __init__(self, admin: Admin, store: Any) -> None:
        self._admin, self._store = admin, store

    def step(self, namespace: str) -> bool:
        machines = self._admin.all("VirtualMachine", namespace)
        instances = {vmi["metadata"]["name"]: vmi for vmi in self._admin.all("VirtualMachineInstance", namespace)}
        done = [self._machine(vm, instances.get(vm["metadata"]["name"])) for vm in machines]
        return any(done)

    def _machine(self, vm: Json, vmi: Json | None) -> bool:
        if "deletionTimestamp" in vm["metadata"]:
            return False  # the garbage collector takes the instance and its pod
        wanted = strategy(vm) == "Always"
        if vmi is None:
            if wanted:
                self._start(vm)
            return self._report(vm, wanted, None) or wanted
        if "deletionTimestamp" in vmi["metadata"]:
            return False
        if not wanted:
            self._admin.delete(vmi)
            pod = self._pod(vmi)
            if pod is not None:
                self._admin.delete(pod)
            return True
        return self._boot(vmi) or self._report(vm, wanted, vmi)

    def _start(self, vm: Json) -> None:
        template, meta = vm["spec"]["template"], vm["metadata"]
        owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": meta["name"], "uid": meta["uid"]}
        vmi = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {
                "namespace": meta["namespace"],
                "name": meta["name"],
                "labels": (template.get("metadata") or {}).get("labels") or {},
                "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
            },
            "spec": template["spec"],
            "status": {"phase": "Scheduling"},
        }
        made = self._admin.create(vmi, "?fieldValidation=Strict")
        pod = launcher_pod({**made, "kind": "VirtualMachineInstance"}, self._store)
        for field in ("uid", "creationTimestamp"):
            pod["metadata"].pop(field)
        self._admin.create(pod)

    def _pod(self, vmi: Json) -> Json | None:
        label = f"?labelSelector=kubevirt.io/created-by={vmi['metadata']['uid']}"
        return next(iter(self._admin.all("Pod", vmi["metadata"]["namespace"], label)), None)

    def _boot(self, vmi: Json) -> bool:
        pod = self._pod(vmi)
        if (vmi.get("status") or {}).get("phase") == "Running" or pod is None or (pod.get("status") or {}).get("phase") != "Running":
            return False
        now = self._store.timestamp()
        ready = {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        status = {"phase": "Running", "nodeName": pod["spec"]["nodeName"], "conditions": [ready]}
        self._admin.patch(vmi, {"status": status})
        return True

    def _report(self, vm: Json, wanted: bool, vmi: Json | None) -> bool:
        running = ((vmi or {}).get("status") or {}).get("phase") == "Running"
        shown = "Running" if running else "Starting" if wanted else "Stopped"
        if ((vm.get("status") or {}).get("printableStatus")) == shown:
            return False
        status = {"printableStatus": shown, "created": vmi is not None, "ready": running, "runStrategy": strategy(vm)}
        self._admin.put_status(vm, status)
        return True
