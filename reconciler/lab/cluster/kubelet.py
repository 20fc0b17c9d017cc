"""The kubelets of all nodes: pods become local processes, and processes become pod status.

What it is: mount, start, poll, signal, report. Container 0 of a pod is the one that runs; a command that only waits needs no process.
What it is not: files (podfiles.py), logs (podlogs.py), start of processes (launcher.py). Restart policies are not played: a pod ends once.
A pod on a node that is not Ready is not looked at: its process goes on, as on a machine that lost its network.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from reconciler.lab.clock import LabClock
from reconciler.lab.cluster.collector import claims_of
from reconciler.lab.cluster.events import Recorder
from reconciler.lab.cluster.kinds import NODE, POD, PVC
from reconciler.lab.cluster.launcher import Launcher, Process
from reconciler.lab.cluster.podfiles import NotReady, PodFiles, environment, prepare
from reconciler.lab.cluster.podstatus import Ended, set_running, set_terminated, set_unpulled, set_waiting
from reconciler.lab.cluster.scheduling import OUT_OF_SERVICE, node_ready, tainted
from reconciler.lab.cluster.storage import Volumes
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
_DONE = ("Succeeded", "Failed")
_WAITING_PROGRAMS = frozenset({"sleep", "pause", "tail"})


@dataclass(slots=True)
class Running:
    """A pod that a kubelet has begun. `process` None: the container only waits."""

    node: str
    files: PodFiles
    todo: list[Json]  # init containers, then container 0
    process: Process | None
    began: float
    kill_at: float | None = None
    oom: bool = False
    sizes: list[tuple[float, int]] = field(default_factory=list)  # (monotonic, bytes of log), for sinceSeconds


class Kubelets:
    def __init__(
        self,
        store: Store,
        clock: LabClock,
        events: Recorder,
        volumes: Volumes,
        root: Path,
        programs: Mapping[str, Sequence[str]],
        launcher: Launcher,
    ) -> None:
        self._store, self._clock, self._events, self._volumes = store, clock, events, volumes
        self._root, self._programs, self._launcher = root, programs, launcher
        self.images: dict[str, Sequence[str] | None] = {}  # what runs where a container names no command; None: it cannot be pulled
        self.running: dict[str, Running] = {}  # by pod uid
        self._homes: set[str] = set()  # uids whose files are still there

    @property
    def busy(self) -> bool:
        """True while a real process may end at any moment, of which the store knows nothing."""
        return any(r.process is not None for r in self.running.values())

    def files_of(self, pod: Json) -> Path:
        return self._root / str(pod["metadata"]["uid"])

    def step(self) -> None:
        nodes = {node["metadata"]["name"]: node for node in self._store.all(NODE)}
        for pod in self._store.all(POD):
            if node_ready(nodes.get(pod["spec"].get("nodeName", ""))):
                self._sync(pod)
        for uid in [uid for uid in self.running if self._store.by_uid(uid) is None]:
            node = nodes.get(self.running[uid].node)
            if node is None or node_ready(node) or tainted(node, OUT_OF_SERVICE):
                self._forget(uid)
        for uid in [uid for uid in self._homes if uid not in self.running and self._store.by_uid(uid) is None]:
            self._homes.discard(uid)
            shutil.rmtree(self._root / uid, ignore_errors=True)

    def stop(self) -> None:
        for running in self.running.values():
            if running.process is not None:
                running.process.kill()
        self.running.clear()

    def kill_for_memory(self, pod: Json) -> None:
        """What the kernel does to a container above its memory limit."""
        running = self.running[pod["metadata"]["uid"]]
        running.oom = True
        if running.process is not None:
            running.process.kill()

    # ---- one pod ----

    def _sync(self, pod: Json) -> None:
        uid, deleting = pod["metadata"]["uid"], pod["metadata"].get("deletionTimestamp")
        if pod["status"].get("phase") in _DONE:
            if deleting:
                self._let_go(pod)
            return
        running = self.running.get(uid)
        if running is None:
            if deleting:
                self._let_go(pod)
            else:
                self._start(pod)
            return
        self._note_log(running)
        if running.process is not None and (code := running.process.poll()) is not None:
            self._ended(pod, running, code)
        elif deleting:
            self._terminate(pod, running)
        else:
            self._check_deadline(pod, running)

    def _start(self, pod: Json) -> None:
        if self._unpulled(pod):
            return
        try:
            self._check_attached(pod)
            self._homes.add(pod["metadata"]["uid"])
            files = prepare(pod, self._store, self.files_of(pod), self._volumes.mount)
            todo = [*(pod["spec"].get("initContainers") or []), pod["spec"]["containers"][0]]
            running = Running(pod["spec"]["nodeName"], files, todo, None, self._clock.monotonic())
            self._next(pod, running)
        except NotReady as err:
            new = clone(pod)
            set_waiting(new, "ContainerCreating", self._store.timestamp())
            self._store.replace(POD, new)
            self._events.record(pod, "Warning", "FailedMount", str(err), "kubelet")

    def _unpulled(self, pod: Json) -> bool:
        """A container waits for its image, and those behind it with it."""
        spec = pod["spec"]
        todo = [*(spec.get("initContainers") or []), *spec["containers"]]
        missing = next((c for c in todo if c["image"] in self.images and self.images[c["image"]] is None), None)
        if missing is None:
            return False
        new = clone(pod)
        set_unpulled(new, missing["name"], f'Back-off pulling image "{missing["image"]}"', self._store.timestamp())
        if new["status"] != pod["status"]:
            self._store.replace(POD, new)
            self._events.record(pod, "Warning", "Failed", f'Failed to pull image "{missing["image"]}": not found', "kubelet")
        return True

    def _check_attached(self, pod: Json) -> None:
        """ReadWriteOnce means one node: a volume that a pod on another node still uses is not attached."""
        namespace, node = pod["metadata"]["namespace"], pod["spec"]["nodeName"]
        mine = set(claims_of(pod))
        if not mine:
            return
        for other in self._store.all(POD, namespace):
            attached = other["metadata"]["uid"] in self.running or other["status"].get("phase") == "Running"
            if other["spec"].get("nodeName") in (None, node) or not attached:
                continue
            for name in mine & set(claims_of(other)):
                claim = self._store.get(PVC, namespace, name)
                if claim and "ReadWriteMany" not in claim["spec"]["accessModes"]:
                    used = other["metadata"]["name"]
                    raise NotReady(f'Multi-Attach error for volume "{name}" Volume is already used by pod(s) {used}')

    def _next(self, pod: Json, running: Running) -> None:
        """Start the first container of `todo`; init containers whose image we do not have count as done."""
        while True:
            container, last = running.todo[0], len(running.todo) == 1
            argv = self._argv(container, running.files)
            known = self._programs.get(PurePosixPath(argv[0]).name) if argv else None
            if known is not None:
                env = environment(container, pod, self._store, running.files)
                log_path = running.files.log(container["name"])
                try:
                    running.process = self._launcher.start([*known, *argv[1:]], env, running.files.home, log_path)
                except OSError as err:
                    return self._refuse(pod, running, f"failed to start: {err}")
                break
            if last:
                if argv and not _waits(argv):
                    if PurePosixPath(argv[0]).name != "true":
                        return self._refuse(pod, running, f'exec: "{argv[0]}": executable file not found in $PATH')
                    self._finish(pod, running, Ended(0, "Completed", ""))
                    return None
                break
            running.todo.pop(0)
        self.running[pod["metadata"]["uid"]] = running
        new = clone(pod)
        set_running(new, self._store.timestamp(), initializing=len(running.todo) > 1)
        self._store.replace(POD, new)
        self._events.record(pod, "Normal", "Started", f"Started container {container['name']}", "kubelet")
        return None

    def _argv(self, container: Json, files: PodFiles) -> list[str]:
        argv = [*(container.get("command") or self.images.get(container["image"]) or [])]
        if argv:
            argv += container.get("args") or []
        return [files.translator.text(str(arg)) for arg in argv]

    def _refuse(self, pod: Json, running: Running, message: str) -> None:
        self._events.record(pod, "Warning", "Failed", f"Error: {message}", "kubelet")
        self._finish(pod, running, Ended(128, "StartError", message))

    def _note_log(self, running: Running) -> None:
        log_path = running.files.log(running.todo[0]["name"])
        size = log_path.stat().st_size if log_path.exists() else 0
        if not running.sizes or running.sizes[-1][1] != size:
            running.sizes.append((self._clock.monotonic(), size))

    def _check_deadline(self, pod: Json, running: Running) -> None:
        deadline = pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None and self._clock.monotonic() - running.began >= deadline:
            if running.process is not None:
                running.process.kill()
            message = "Pod was active on the node longer than the specified deadline"
            self._finish(pod, running, Ended(137, "Error", ""), ("DeadlineExceeded", message))

    def _terminate(self, pod: Json, running: Running) -> None:
        """SIGTERM, then SIGKILL after the grace period. A container that only waits ends at once."""
        if running.process is None:
            self._let_go(self._finish(pod, running, Ended(137, "Error", "")))
            return
        now, grace = self._clock.monotonic(), pod["metadata"].get("deletionGracePeriodSeconds") or 0
        if running.kill_at is None:
            running.kill_at = now + grace
            self._events.record(pod, "Normal", "Killing", f"Stopping container {running.todo[0]['name']}", "kubelet")
            running.process.terminate()
        if now >= running.kill_at:
            running.process.kill()
            if (code := running.process.poll()) is not None:
                self._ended(pod, running, code)

    def _ended(self, pod: Json, running: Running, code: int) -> None:
        exit_code = 128 - code if code < 0 else code
        if exit_code == 0 and len(running.todo) > 1:
            running.todo.pop(0)
            running.process = None
            self._next(pod, running)
            return
        reason = "OOMKilled" if running.oom else "Completed" if exit_code == 0 else "Error"
        self._finish(pod, running, Ended(exit_code, reason, self._message(running, exit_code)))

    def _message(self, running: Running, exit_code: int) -> str:
        """The last 4096 bytes of the termination message file; of the log where the policy says so and the file is empty."""
        container = running.todo[0]
        path = running.files.termination[container["name"]]
        data = path.read_bytes()[-4096:] if path.exists() else b""
        log_path = running.files.log(container["name"])
        if not data and exit_code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError" and log_path.exists():
            data = log_path.read_bytes()[-2048:]
        return data.decode(errors="replace")

    def _finish(self, pod: Json, running: Running, ended: Ended, failed: tuple[str, str] | None = None) -> Json:
        self.running.pop(pod["metadata"]["uid"], None)
        new = clone(pod)
        set_terminated(new, running.todo[0]["name"], ended, self._store.timestamp())
        if failed is not None:
            new["status"] |= {"reason": failed[0], "message": failed[1], "phase": "Failed"}
        return self._store.replace(POD, new)

    def _let_go(self, pod: Json) -> None:
        """Nothing runs any more: the object may go as soon as its finalizers allow."""
        new = clone(pod)
        if new["status"].get("phase") not in _DONE:
            new["status"]["phase"] = "Failed"
        new["metadata"]["deletionGracePeriodSeconds"] = 0
        self._store.replace(POD, new)

    def _forget(self, uid: str) -> None:
        running = self.running.pop(uid)
        if running.process is not None:
            running.process.kill()


def _waits(argv: list[str]) -> bool:
    """A command that does nothing but wait, directly or through a shell."""
    program = PurePosixPath(argv[0]).name
    return program in _WAITING_PROGRAMS or (program in ("sh", "bash") and any("sleep" in arg for arg in argv[1:]))
