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
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from reconciler.lab.clock import LabClock, WallClock
from reconciler.lab.cluster import defaults, seed
from reconciler.lab.cluster.collector import Collector
from reconciler.lab.cluster.conditions import set_condition
from reconciler.lab.cluster.endpoints import Audit, Denial, Endpoints
from reconciler.lab.cluster.events import Recorder
from reconciler.lab.cluster.jobs import Jobs
from reconciler.lab.cluster.kinds import CDI_KINDS, KINDS, NODE, POD, SECRET, Kind, by_kind, by_name
from reconciler.lab.cluster.kubelet import Kubelets
from reconciler.lab.cluster.kubevirt import KubeVirt, RunningVm
from reconciler.lab.cluster.launcher import Launcher, SubprocessLauncher
from reconciler.lab.cluster.podlogs import PodLogFiles
from reconciler.lab.cluster.quota import Quotas
from reconciler.lab.cluster.scheduling import OUT_OF_SERVICE, UNREACHABLE, Scheduler
from reconciler.lab.cluster.server import ApiServer
from reconciler.lab.cluster.storage import Volumes
from reconciler.lab.cluster.store import Store, clone
from reconciler.lab.faults import Faults
from reconciler.lab.tls import LabCa

Json = dict[str, Any]


class Controller(Protocol):
    """Looks at the store and does the next thing that is not true; called with the store's lock held."""

    def step(self) -> None: ...


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
        launcher: Launcher | None = None,
        cdi: bool = True,
        storage_classes: Sequence[seed.LabStorageClass] = (seed.FAST, seed.BULK),
        node_names: Sequence[str] = ("node-a", "node-b"),
        vm_start_s: float = 0.2,
        vm_stop_s: float = 0.1,
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
        events = Recorder(self.store, clock)
        self._volumes = Volumes(self.store, events, root / "volumes")
        self._kubevirt = KubeVirt(self.store, clock, events, vm_start_s, vm_stop_s)
        starter = launcher or SubprocessLauncher()
        self._kubelets = Kubelets(self.store, clock, events, self._volumes, root / "pods", programs, starter)
        logs = PodLogFiles(self.store, clock, self._kubelets)
        self._endpoints = Endpoints(self.store, self._kinds, logs, self._kubevirt, f"127.0.0.1:{self._server.port}")
        self._server.endpoints = self._endpoints
        self._controllers = self._in_order(events)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab-cluster-controllers")

    def _in_order(self, events: Recorder) -> tuple[Controller, ...]:
        return (
            Collector(self.store, self._clock),
            self._volumes,
            Scheduler(self.store, self._clock, events),
            self._kubevirt,
            Jobs(self.store, self._endpoints.registry, self._clock, events),
            self._kubelets,
            Quotas(self.store),
        )

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
        with self.store.lock:
            self._kubelets.stop()

    def present(self, days: int) -> None:
        """Another certificate of the same CA, for so many days; below zero: one that has expired."""
        self._server.present(self._ca.server_context("cluster", days)[0])

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
                    # Processes that end and delays that pass change nothing in the store: look again by oneself.
                    self.store.changed.wait(0.02 if self._kubelets.busy or self._kubevirt.busy else 0.25)
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
                if kind is SECRET:
                    defaults.fill_secret(new)
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
        """Grant again what `deny` took."""
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

    def set_node_ready(self, name: str, ready: bool) -> None:
        """False: the node is lost. Its pods stay as they were last seen, and their processes run on."""
        with self.store.lock:
            node = self._node(name)
            word = ("True", "KubeletReady", "kubelet is posting ready status")
            if not ready:
                word = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
            set_condition(node["status"], "Ready", *word, self.store.timestamp())
            taints = [taint for taint in node["spec"].get("taints") or [] if taint["key"] != UNREACHABLE]
            if not ready:
                taints += [{"key": UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
            node["spec"]["taints"] = taints
            self.store.replace(NODE, node)

    def fence_node(self, name: str) -> None:
        """The administrator's word that the node is off: taint out-of-service."""
        with self.store.lock:
            node = self._node(name)
            node["spec"].setdefault("taints", []).append({"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"})
            self.store.replace(NODE, node)

    def cordon(self, name: str, on: bool = True) -> None:
        with self.store.lock:
            node = self._node(name)
            node["spec"]["unschedulable"] = on
            self.store.replace(NODE, node)

    def _node(self, name: str) -> Json:
        found = self.store.get(NODE, "", name)
        if found is None:
            raise KeyError(f"no node {name}")
        return clone(found)

    def break_storage(self, storage_class: str, message: str | None) -> None:
        """Let provisioning fail for a class; None mends it."""
        with self.store.lock:
            if message is None:
                self._volumes.broken.pop(storage_class, None)
            else:
                self._volumes.broken[storage_class] = message

    def image(self, name: str, entrypoint: Sequence[str] | None) -> None:
        """What runs in containers of that image which name no command; None: no registry has it."""
        with self.store.lock:
            self._kubelets.images[name] = entrypoint

    def refuse_volumes(self, storage_class: str, on: bool = True) -> None:
        """Let no pod open volumes of a class for writing: devices that belong to root, a squashed export, a read-only mount."""
        with self.store.lock:
            (self._volumes.refusing.add if on else self._volumes.refusing.discard)(storage_class)

    def kill_for_memory(self, namespace: str, pod: str) -> None:
        """The pod's process is killed as by the kernel's out-of-memory killer. Errors: KeyError when it does not run."""
        with self.store.lock:
            found = self.store.get(POD, namespace, pod)
            if found is None:
                raise KeyError(f"no pod {namespace}/{pod}")
            self._kubelets.kill_for_memory(found)

    # ---- judging ----

    def volume_path(self, namespace: str, claim: str) -> Path:
        """The disk.img of a Filesystem claim, or the block file: the bytes to compare. Errors: KeyError while unbound."""
        with self.store.lock:
            path = self._volumes.path(namespace, claim)
        return path / "disk.img" if path.is_dir() else path

    def running_vms(self) -> list[RunningVm]:
        """The targets that are on now."""
        with self.store.lock:
            return list(self._kubevirt.on.values())

    @property
    def vm_starts(self) -> list[RunningVm]:
        """Every start of a target there ever was, oldest first."""
        return self._kubevirt.starts

    def find(self, kind: str | Kind, namespace: str, name: str) -> Json | None:
        """A copy of one object; `kind` in CamelCase."""
        found = self.store.get(by_name(kind) if isinstance(kind, str) else kind, namespace, name)
        return clone(found) if found is not None else None

    def find_all(self, kind: str | Kind, namespace: str = "") -> list[Json]:
        return [clone(entry.obj) for entry in self.store.entries(by_name(kind) if isinstance(kind, str) else kind, namespace)]

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
