"""The simulated cluster as a whole: composes store, API server and controllers, and is what the lab and the tests hold.

What it is: start and stop, arranging (`put`, `set_node_ready`, …) and judging (`find`, `calls`, `audit`, `running_vms`).
What it is not: any of the rules. Time comes from the LabClock: with a wall clock a thread drives the controllers, else `step()` does.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconciler.lab.clock import LabClock, WallClock
from reconciler.lab.cluster import defaults, seed
from reconciler.lab.cluster.collector import Collector
from reconciler.lab.cluster.endpoints import Audit, Denial, Endpoints
from reconciler.lab.cluster.kinds import CDI_KINDS, KINDS, Kind, by_kind, by_name
from reconciler.lab.cluster.server import ApiServer
from reconciler.lab.cluster.store import Store, clone
from reconciler.lab.faults import Faults
from reconciler.lab.tls import LabCa

Json = dict[str, Any]


class Cluster:
    """One cluster on 127.0.0.1. `root` gets the volumes, pods and logs."""

    def __init__(
        self,
        root: Path,
        ca: LabCa,
        clock: LabClock,
        *,
        programs: Mapping[str, Sequence[str]],
        port: int = 0,
        cdi: bool = True,
        storage_classes: Sequence[seed.LabStorageClass] = (seed.FAST, seed.BULK),
        node_names: Sequence[str] = ("node-a", "node-b"),
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._ca, self._clock = ca, clock
        self._kinds = tuple(k for k in KINDS if cdi or k not in CDI_KINDS)
        self.token = secrets.token_urlsafe(24)
        self.faults = Faults()
        self.store = Store(clock)
        for obj in seed.objects(node_names, storage_classes, cdi):
            self.put(obj)
        context, self.thumbprint = ca.server_context("cluster")
        self._server = ApiServer(port, context, self.token, self.faults)
        self.url = f"https://127.0.0.1:{self._server.port}"
        self._endpoints = Endpoints(self.store, lambda: self._kinds, self, self, f"127.0.0.1:{self._server.port}")
        self._server.endpoints = self._endpoints
        self._controllers = (Collector(self.store, clock),)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab-cluster-controllers")

    def read_log(self, pod: Json, query: dict[str, str], gone: Callable[[], bool]) -> bytes | Iterator[bytes]:
        return b""

    def request(self, vm: Json, power: str) -> None:
        return None

    # ---- life ----

    def start(self) -> None:
        self._server.start()
        if isinstance(self._clock, WallClock):
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        with self.store.lock:
            self.store.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            before = self.store.rv
            self.step()
            with self.store.lock:
                if self.store.rv == before:
                    self.store.changed.wait(0.05)
            self._stopping.wait(0.005)  # lets a burst of writes gather, so that a step sees many

    def step(self) -> None:
        """Run every controller until nothing changes any more."""
        for _ in range(50):
            with self.store.lock:
                before = self.store.rv
                for controller in self._controllers:
                    controller.step()
                if self.store.rv == before:
                    return

    # ---- arranging ----

    def put(self, obj: Json) -> Json:
        """Create or replace, without admission, quota and audit; `status` is kept as given."""
        kind = by_kind(obj["apiVersion"], obj["kind"])
        if kind is None:
            raise KeyError(f"the simulated cluster does not serve {obj['apiVersion']} {obj['kind']}")
        new: Json = clone(obj)
        meta = new["metadata"]
        if kind.namespaced:
            meta.setdefault("namespace", "default")
        with self.store.lock:
            live = self.store.get(kind, meta.get("namespace", ""), meta["name"])
            if live is not None:
                meta |= {field: live["metadata"][field] for field in ("uid", "creationTimestamp")}
                return clone(self.store.replace(kind, new))
            meta.setdefault("uid", str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", self.store.timestamp())
            status = clone(new.get("status"))
            defaults.fill(kind, new, self.store)
            if status is not None:
                new["status"] = status
            if kind.generation:
                meta.setdefault("generation", 1)
            return clone(self.store.insert(kind, new))

    def deny(self, verb: str, resource: str, namespace: str = "") -> None:
        """Let RBAC refuse `verb` on `resource` (plural) from now on."""
        self._endpoints.denials.append(Denial(verb, resource, namespace))

    def allow_all(self) -> None:
        self._endpoints.denials.clear()

    def expire_history(self) -> None:
        """Compact: older watches and continue tokens are answered 410."""
        self.store.forget_history()
        self._endpoints.lists.forget()

    def write_kubeconfig(self, path: Path) -> None:
        """With CA data and token in the file; mode 0600. JSON, which is YAML."""
        cluster = {"server": self.url, "certificate-authority-data": _b64(self._ca.pem)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "reconciler", "user": {"token": self.token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "reconciler", "namespace": "openshift-mtv"}}],
            "current-context": "lab",
        }
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(json.dumps(config, indent=1))

    # ---- judging ----

    def find(self, kind: str | Kind, namespace: str, name: str) -> Json | None:
        """A copy of one object; `kind` in CamelCase."""
        found = self.store.get(by_name(kind) if isinstance(kind, str) else kind, namespace, name)
        return clone(found) if found is not None else None

    def find_all(self, kind: str | Kind, namespace: str = "") -> list[Json]:
        return [clone(obj) for obj in self.store.all(by_name(kind) if isinstance(kind, str) else kind, namespace)]

    @property
    def uid(self) -> str:
        """The cluster's identity: the uid of kube-system."""
        found = self.find("Namespace", "", "kube-system")
        assert found is not None
        return str(found["metadata"]["uid"])

    @property
    def calls(self) -> Counter[str]:
        """Requests by "verb resource", for example "list persistentvolumeclaims"."""
        return self._endpoints.calls

    @property
    def audit(self) -> list[Audit]:
        return self._endpoints.audit


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
