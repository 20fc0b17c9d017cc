"""The target contract on a real kube-apiserver, with the rights of rbac.RULES and no more; faults are played by a proxy in between."""

from __future__ import annotations

import copy
import json
import ssl
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Secret
from reconciler.core.target import Instance
from reconciler.drivers.kubevirt import session
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.lab.tls import LabCa
from reconciler.ports import TargetDriver
from tests.contract.suite_target import TargetContract
from tests.contract.target_site import US, FaultScript, Json
from tests.e2e import node, volumes
from tests.e2e.admin import WITH_STATUS, retry_conflicts
from tests.e2e.control_plane import ControlPlane
from tests.e2e.proxy import Answer, FaultProxy

WORKER = """
import sys, time
print(open(sys.argv[1]).read(), flush=True)
time.sleep(60)
"""
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Kubernetes:
    """proxy.Dialect: refusals in the words of a kube-apiserver that is overloaded, or does not know the token."""

    def label(self, method: str, path: str, body: bytes) -> str:
        return f"{method} {path}"

    def refusal(self, letter: str) -> Answer | None:
        code, reason = {"R": (503, "ServiceUnavailable"), "B": (429, "TooManyRequests"), "E": (401, "Unauthorized")}[letter]
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code}
        return Answer(code, json.dumps(status).encode(), {"Content-Type": "application/json", "Retry-After": "1"})


@dataclass
class Front:
    """The proxy, and what it saw of the driver's writes."""

    proxy: FaultProxy
    writes: list[str] = field(default_factory=list)

    def note(self, method: str, path: str, body: bytes, answer: Answer) -> None:
        """ "create jobs/copy-web": a write that took effect, also where its reply got lost."""
        if method not in VERBS or answer.code >= 300:
            return
        words = path.split("/")[2:] if path.startswith("/api/") else path.split("/")[3:]
        words = words[3:] if words[1] == "namespaces" and len(words) > 3 else words[1:]
        name = json.loads(body)["metadata"]["name"] if method == "POST" else words[1]
        self.writes.append(f"{VERBS[method]} {words[0]}/{name}")


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane, e2e_ca: LabCa, tmp_path_factory: pytest.TempPathFactory) -> Iterator[node.Node]:
    volumes.storage_classes(control_plane.admin)
    folder = tmp_path_factory.mktemp("node")
    (folder / "worker.py").write_text(WORKER)
    (folder / "lines").write_text("")
    programs = {"reconciler": [sys.executable, str(folder / "worker.py"), str(folder / "lines")]}
    only = node.Node(control_plane.admin, folder, e2e_ca.server_context("kubelet")[0], programs)
    yield only
    only.close()


@pytest.fixture(scope="module")
def front(control_plane: ControlPlane, e2e_ca: LabCa) -> Iterator[Front]:
    trust = ssl.create_default_context(cafile=str(e2e_ca.path))
    notes: list[Front] = []
    context, _ = e2e_ca.server_context("front")
    proxy = FaultProxy(control_plane.url, trust, context, Kubernetes(), lambda *seen: notes[0].note(*seen))
    notes.append(Front(proxy))
    proxy.start()
    yield notes[0]
    proxy.stop()


class RealTarget:
    """target_site.TargetSite on a namespace of the real API server."""

    immediate_class, waiting_class = "bulk", "fast"

    def __init__(self, plane: ControlPlane, cluster: node.Node, front: Front) -> None:
        self._plane, self._admin, self._node, self._front = plane, plane.admin, cluster, front
        self.namespace = f"t-{uuid.uuid4().hex[:8]}"
        plane.namespace(self.namespace)
        front.writes.clear()
        front.proxy.faults.script("")
        self.faults: FaultScript = front.proxy.faults
        self._drivers: list[TargetDriver] = []
        self._global: list[Json] = []
        self.worker_prints([])
        self.driver = self.connect()

    def connect(self, *, page_size: int = 500, timeout_s: float = 10.0, instance: Instance = US) -> TargetDriver:
        provider = ProviderSpec(ObjectRef("mtv", "target"), "openshift", self._front.proxy.url, None, {}, Place("p.yaml", 1))
        secret = {"token": Secret(self._plane.token), "cacert": Secret(self._plane.ca.pem)}
        settings = TargetSettings("image", request_timeout_s=timeout_s, page_size=page_size)
        self._drivers.append(session.connect(provider, secret, kubeconfig=None, settings=settings, clock=SystemClock(), instance=instance))
        return self._drivers[-1]

    def put(self, obj: Json) -> Json:
        if "namespace" not in obj["metadata"]:
            self._global.append(obj)
        return retry_conflicts(lambda: self._put(copy.deepcopy(obj)))

    def _put(self, obj: Json) -> Json:
        kind, namespace, name = obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]
        status = obj.pop("status", None) if kind in WITH_STATUS else None  # without the subresource it is written like all else
        live = self._admin.get(kind, namespace, name)
        if live is None:
            made = self._admin.create(obj)
        else:
            obj["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
            made = self._admin.replace(obj)
        made = {**made, "kind": kind}
        if status is not None and live is None:
            made = self._admin.put_status(made, status) or made
        return made

    def find(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        found = self._admin.get(kind, self.namespace if namespace is None else namespace or None, name)
        return None if found is None else {**found, "kind": kind}

    def find_all(self, kind: str) -> list[Json]:
        return self._admin.all(kind, self.namespace)

    def settle(self) -> None:
        """Until the node has nothing to do and no real controller owes anything."""
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            if not self._node.step(self.namespace) and not self._owed():
                return
            time.sleep(0.03)

    def _owed(self) -> bool:
        claims = {claim["metadata"]["name"]: claim for claim in self.find_all("PersistentVolumeClaim")}
        pods, jobs = self.find_all("Pod"), self.find_all("Job")
        used = {
            v["persistentVolumeClaim"]["claimName"] for p in pods for v in p["spec"].get("volumes") or [] if "persistentVolumeClaim" in v
        }
        pending = {name for name, claim in claims.items() if (claim.get("status") or {}).get("phase") != "Bound"}
        waiting = {name for name in pending if claims[name]["spec"]["storageClassName"] == self.waiting_class}
        owned = {owner["uid"] for pod in pods for owner in pod["metadata"].get("ownerReferences") or []}
        jobless = [job for job in jobs if "deletionTimestamp" not in job["metadata"] and not self._seen(job, owned)]
        return bool((pending - waiting) | (waiting & used)) or bool(jobless)

    def _seen(self, job: Json, owned: set[str]) -> bool:
        """The Job controller was there: a condition (Suspended, Complete), or a pod."""
        return bool((job.get("status") or {}).get("conditions")) if job["spec"].get("suspend") else job["metadata"]["uid"] in owned

    def writes(self) -> Sequence[str]:
        return list(self._front.writes)

    def requests(self) -> int:
        return self._front.proxy.requests.total()

    def worker_prints(self, lines: Sequence[str]) -> None:
        Path(self._node.programs["reconciler"][-1]).write_text("\n".join(lines))

    def close(self) -> None:
        """The namespace stays until the session ends: deleting one takes ten seconds of controllers' time."""
        self._front.proxy.faults.script("")
        for driver in self._drivers:
            driver.close()
        for obj in self._global:
            self._admin.delete(obj)
        self._node.forget()


@pytest.fixture
def site(control_plane: ControlPlane, cluster: node.Node, front: Front) -> Iterator[RealTarget]:
    target = RealTarget(control_plane, cluster, front)
    yield target
    target.close()


class TestTargetOnKubernetes(TargetContract):
    """Everything in the contract."""
