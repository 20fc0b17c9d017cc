"""The one node of the test cluster: scheduler and kubelet, against a real API server.

What it is: binding, volumes as folders, container 0 as a local process with its mount paths replaced, logs, termination messages, status.
What it is not: images, probes or restarts. Files, processes and status shapes are those of the lab's kubelet; the API server judges them.
"""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

from reconciler.lab.cluster import seed
from reconciler.lab.cluster.kinds import Kind
from reconciler.lab.cluster.launcher import Process, SubprocessLauncher
from reconciler.lab.cluster.podfiles import NotReady, PodFiles, environment, prepare
from reconciler.lab.cluster.podstatus import Ended, set_running, set_terminated
from tests.e2e.admin import Admin, Json, Refused, path
from tests.e2e.virt import Virt
from tests.e2e.volumes import SELECTED_NODE, Volumes

NAME = "e2e-node"
_DONE = ("Succeeded", "Failed")
_WAITERS = frozenset({"sleep", "pause"})


class ApiStore:
    """What the lab's pure helpers read, from the API server."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return self._admin.get(kind.kind, namespace, name)

    def timestamp(self) -> str:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Running:
    files: PodFiles
    container: Json
    process: Process | None


class Node:
    """`step` looks at one namespace and does what is due; `follow` does so again and again in a thread. `close` ends every process."""

    def __init__(self, admin: Admin, folder: Path, context: ssl.SSLContext, programs: Mapping[str, Sequence[str]]) -> None:
        self._admin, self._folder = admin, folder
        self.programs = dict(programs)
        self.store = ApiStore(admin)
        self.volumes = Volumes(admin, folder / "volumes")
        self._virt = Virt(admin, self.store)
        self._launcher = SubprocessLauncher()
        self._running: dict[str, Running] = {}  # by pod uid
        self._logs: dict[str, PodFiles] = {}  # by "namespace/name/container"
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.troubles: list[str] = []
        self._server = _log_server(self._logs, context)
        self._register()

    def _register(self) -> None:
        node = seed.node(NAME)
        status = node.pop("status")
        port = self._server.server_address[1]
        made = {**self._admin.ensure(node), "kind": "Node"}
        status["addresses"] = [{"type": "InternalIP", "address": "127.0.0.1"}]
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
        self._admin.put_status(made, status)
        self._spawn(self._server.serve_forever)

    def _spawn(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def follow(self, namespace: str) -> None:
        self._spawn(self._follow, namespace)

    def _follow(self, namespace: str) -> None:
        while not self._stopping.wait(0.15):
            try:
                self.step(namespace)
                self.volumes.sweep()
            except Refused as err:
                if err.code not in (404, 409):  # somebody else wrote first
                    self.troubles.append(str(err))

    def close(self) -> None:
        self._stopping.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        self.forget()

    def forget(self) -> None:
        """End all processes."""
        with self._lock:
            for running in self._running.values():
                if running.process is not None:
                    running.process.kill()
            self._running.clear()

    # ---- one round

    def step(self, namespace: str) -> bool:
        """True if anything was done."""
        with self._lock:
            done = [self.volumes.step(namespace), self._virt.step(namespace)]
            done += [self._pod(pod) for pod in self._admin.all("Pod", namespace)]
            return any(done)

    def _pod(self, pod: Json) -> bool:
        node, phase = pod["spec"].get("nodeName"), (pod.get("status") or {}).get("phase")
        deleting = "deletionTimestamp" in pod["metadata"]
        if not node:
            return not deleting and self._schedule(pod)
        if node != NAME:
            return False
        running = self._running.get(pod["metadata"]["uid"])
        if phase in _DONE:
            return deleting and self._let_go(pod)
        if running is None:
            return self._let_go(pod) if deleting else self._start(pod)
        if running.process is not None and (code := running.process.poll()) is not None:
            return self._ended(pod, running, 128 - code if code < 0 else code)
        return deleting and self._terminate(pod, running)

    # ---- the scheduler

    def _schedule(self, pod: Json) -> bool:
        """Claims first: with delayed binding it is the scheduler that names the node, and the pod waits for its volumes."""
        namespace, bound = pod["metadata"]["namespace"], True
        for name in [v["persistentVolumeClaim"]["claimName"] for v in pod["spec"].get("volumes") or [] if "persistentVolumeClaim" in v]:
            claim = self._admin.get("PersistentVolumeClaim", namespace, name)
            if claim is None:
                return False
            if (claim.get("status") or {}).get("phase") != "Bound":
                bound = False
                if SELECTED_NODE not in (claim["metadata"].get("annotations") or {}):
                    self._admin.patch({**claim, "kind": "PersistentVolumeClaim"}, {"metadata": {"annotations": {SELECTED_NODE: NAME}}})
                    return True
        if bound:
            target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": target}
            self._admin.call("POST", path("Pod", namespace, pod["metadata"]["name"], "binding"), binding)
        return bound

    # ---- the kubelet

    def _start(self, pod: Json) -> bool:
        container, store = pod["spec"]["containers"][0], self.store
        try:
            files = prepare(pod, store, self._folder / "pods" / pod["metadata"]["uid"], self.volumes.path)  # type: ignore[arg-type]
            env = environment(container, pod, store, files)  # type: ignore[arg-type]
        except NotReady:
            return False
        argv = [files.translator.text(str(arg)) for arg in [*(container.get("command") or []), *(container.get("args") or [])]]
        name = PurePosixPath(argv[0]).name if argv else ""
        meta = pod["metadata"]
        self._logs[f"{meta['namespace']}/{meta['name']}/{container['name']}"] = files
        process: Process | None = None
        if name in self.programs:
            process = self._launcher.start([*self.programs[name], *argv[1:]], env, files.home, files.log(container["name"]))
        elif name not in _WAITERS:
            raise AssertionError(f"the test node has no program {name!r}")
        self._running[meta["uid"]] = Running(files, container, process)
        set_running(pod, store.timestamp(), initializing=False)
        self._admin.put_status(pod, pod["status"])
        return True

    def _ended(self, pod: Json, running: Running, code: int) -> bool:
        message = running.files.termination[running.container["name"]]
        data = message.read_bytes()[-4096:] if message.exists() else b""
        log = running.files.log(running.container["name"])
        if not data and code and running.container.get("terminationMessagePolicy") == "FallbackToLogsOnError" and log.exists():
            data = log.read_bytes()[-2048:]
        ended = Ended(code, "Completed" if code == 0 else "Error", data.decode(errors="replace"))
        self._running.pop(pod["metadata"]["uid"])
        set_terminated(pod, running.container["name"], ended, self.store.timestamp())
        self._admin.put_status(pod, pod["status"])
        return True

    def _terminate(self, pod: Json, running: Running) -> bool:
        """No grace is waited for: workers here have nothing to say after SIGTERM that a test looks at."""
        if running.process is not None:
            running.process.kill()
        self._ended(pod, running, 137)
        return self._let_go(pod)

    def _let_go(self, pod: Json) -> bool:
        """Again while a finalizer holds it: then nothing has changed."""
        if pod["metadata"].get("deletionGracePeriodSeconds") == 0:
            return False
        self._admin.delete(pod, grace_s=0)
        return True


def python_module(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _log_server(logs: Mapping[str, PodFiles], context: ssl.SSLContext) -> ThreadingHTTPServer:
    """GET /containerLogs/NAMESPACE/POD/CONTAINER: what the API server asks a kubelet for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            key = parts.path.removeprefix("/containerLogs/")
            files = logs.get(key)
            data = b""
            if files is not None and (log := files.log(key.rpartition("/")[2])).exists():
                data = log.read_bytes()
            if "tailLines" in query:
                data = b"".join(data.splitlines(keepends=True)[-int(query["tailLines"]) :])
            data = data[: int(query.get("limitBytes", len(data)))]
            self.send_response(200 if files is not None else 404)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server
