"""The status that a kubelet writes for a pod: phase, conditions and container states. Pure edits of one pod."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from reconciler.lab.cluster.conditions import set_condition

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended: Completed, Error, OOMKilled or StartError."""

    exit_code: int
    reason: str
    message: str


def _container_id(pod: Json, name: str) -> str:
    return "cri-o://" + hashlib.sha256(f"{pod['metadata']['uid']}/{name}".encode()).hexdigest()


def _row(pod: Json, container: Json, state: Json, ready: bool) -> Json:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": container["image"],
        "containerID": "" if "waiting" in state else _container_id(pod, container["name"]),
        "ready": ready,
        "started": "running" in state,
        "restartCount": 0,
        "state": state,
        "lastState": {},
    }


def _init_rows(pod: Json, state: Json, ready: bool) -> None:
    rows = [_row(pod, container, state, ready) for container in pod["spec"].get("initContainers") or []]
    if rows:
        pod["status"]["initContainerStatuses"] = rows


def set_waiting(pod: Json, reason: str, now: str) -> None:
    status = pod["status"]
    status["phase"] = "Pending"
    status.setdefault("startTime", now)
    status["containerStatuses"] = [_row(pod, c, {"waiting": {"reason": reason}}, False) for c in pod["spec"]["containers"]]
    for type_ in ("Ready", "ContainersReady"):
        set_condition(status, type_, "False", "ContainersNotReady", "", now)


def set_unpulled(pod: Json, name: str, message: str, now: str) -> None:
    """The container `name` waits for its image; behind an init container the others wait for that."""
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
    init = [container["name"] for container in pod["spec"].get("initContainers") or []]
    set_waiting(pod, "PodInitializing" if init else "ContainerCreating", now)
    for field, kind in (("initContainerStatuses", "initContainers"), ("containerStatuses", "containers")):
        rows = [_row(pod, c, waiting, False) for c in pod["spec"].get(kind) or [] if c["name"] == name]
        if rows:
            pod["status"][field] = rows


def set_running(pod: Json, now: str, initializing: bool) -> None:
    if initializing:
        set_waiting(pod, "PodInitializing", now)
        _init_rows(pod, {"running": {"startedAt": now}}, False)
        return
    status = pod["status"]
    status |= {"phase": "Running", "hostIP": "192.0.2.10", "podIP": "10.128.0.10", "podIPs": [{"ip": "10.128.0.10"}]}
    status.setdefault("startTime", now)
    status["containerStatuses"] = [_row(pod, c, {"running": {"startedAt": now}}, True) for c in pod["spec"]["containers"]]
    _init_rows(pod, {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": now}}, True)
    for type_ in ("Initialized", "Ready", "ContainersReady"):
        set_condition(status, type_, "True", "", "", now)


def set_terminated(pod: Json, name: str, ended: Ended, now: str) -> None:
    """The container `name` ended; the others end with it, without a message."""
    status = pod["status"]
    status["phase"] = "Succeeded" if ended.exit_code == 0 else "Failed"
    began = status.get("startTime", now)

    def state(container: Json) -> Json:
        chosen = container["name"] == name
        terminated: Json = {
            "exitCode": ended.exit_code if chosen else 0,
            "reason": ended.reason if chosen else "Completed",
            "startedAt": began,
            "finishedAt": now,
            "containerID": _container_id(pod, container["name"]),
        }
        if chosen and ended.message:
            terminated["message"] = ended.message
        return {"terminated": terminated}

    names = [container["name"] for container in pod["spec"]["containers"]]
    if name in names:
        status["containerStatuses"] = [_row(pod, c, state(c), False) for c in pod["spec"]["containers"]]
    else:
        init = pod["spec"].get("initContainers") or []
        status["initContainerStatuses"] = [_row(pod, c, state(c), False) for c in init if c["name"] == name]
    reason = "PodCompleted" if ended.exit_code == 0 else "PodFailed"
    for type_ in ("Ready", "ContainersReady"):
        set_condition(status, type_, "False", reason, "", now)
