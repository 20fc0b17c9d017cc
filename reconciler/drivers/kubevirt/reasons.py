"""Why something waits or failed, in the cluster's own words: from conditions, container states and warning events. Pure.

What it is: text for a person. What it is not: a decision; nothing branches on these texts. Hostile names in them: reports escape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconciler.drivers.kubevirt.labels import Obj

MAX_EVENTS = 3
_LIMIT = 300
_QUIET = frozenset({"", "ContainerCreating", "PodInitializing", "Completed"})

Events = Mapping[str, Sequence[str]]


def by_uid(events: Iterable[Obj]) -> Events:
    """uid of the object concerned -> its newest warnings, newest first, each text once."""
    groups: defaultdict[str, list[Obj]] = defaultdict(list)
    for event in events:
        if uid := (event.get("involvedObject") or {}).get("uid"):
            groups[uid].append(event)
    return {uid: _newest(group) for uid, group in groups.items()}


def of_pod(pod: Obj) -> str:
    """ "Unschedulable: …", "ImagePullBackOff: …", "Evicted: …", or "" while all is well."""
    status = pod.get("status") or {}
    if status.get("reason") or status.get("message"):
        return _text(status)
    for container in status.get("initContainerStatuses") or []:
        if text := _waiting(container) or _ended(container, plain_error=True):
            return _cut(f"init container {container['name']}: {text}")
    for container in status.get("containerStatuses") or []:
        if text := _waiting(container) or _ended(container, plain_error=False):
            return text
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _text(condition)
    return ""


def _waiting(container: Obj) -> str:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return _text(waiting) if waiting.get("reason", "") not in _QUIET else ""


def _ended(container: Obj, *, plain_error: bool) -> str:
    """`plain_error`: an "Error" is told too, with its message; our own program's last word is read elsewhere, and says more."""
    ended = (container.get("state") or {}).get("terminated") or {}
    if not ended.get("exitCode") or ended.get("reason", "") in ("", "" if plain_error else "Error"):
        return ""
    said = f": {ended['message']}" if plain_error and ended.get("message") else ""
    return _text({"reason": ended["reason"], "message": f"exit code {ended['exitCode']}{said}"})


def of_job(job: Obj, pods: Sequence[Obj], events: Events) -> str:
    """The Job's own verdict, else its pod's trouble, else the newest warning (a Job that may not make its pod says so only there)."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            said = [of_pod(pod) for pod in pods]
            return "; ".join([_text(condition), *(text for text in said if text)])
    for pod in pods:
        if text := of_pod(pod):
            return text
    warned = events.get(job["metadata"]["uid"], ()) if not pods else [t for p in pods for t in events.get(p["metadata"]["uid"], ())]
    return warned[0] if warned else ""


def of_machine(vm: Obj) -> str:
    """KubeVirt's printable status, with the message of the first condition that reports trouble."""
    status = vm.get("status") or {}
    printable = str(status.get("printableStatus") or "")
    for condition in status.get("conditions") or []:
        bad_ready = condition.get("type") == "Ready" and condition.get("status") == "False"
        failure = condition.get("type") == "Failure" and condition.get("status") == "True"
        if (failure or bad_ready) and condition.get("message"):
            return _cut(f"{printable}: {condition['message']}" if printable else str(condition["message"]))
    return printable


def _newest(group: Sequence[Obj]) -> tuple[str, ...]:
    ordered = sorted(group, key=_time, reverse=True)
    return tuple(dict.fromkeys(_text(event) for event in ordered))[:MAX_EVENTS]


def _time(event: Obj) -> str:
    """RFC 3339 in UTC compares as text; the newer events API fills eventTime or series instead of lastTimestamp."""
    series = event.get("series") or {}
    found = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    return next((str(time) for time in found if time), "")


def _text(thing: Mapping[str, Any]) -> str:
    parts = [str(thing[key]) for key in ("reason", "message") if thing.get(key)]
    return _cut(": ".join(parts))


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LIMIT else f"{flat[: _LIMIT - 1]}…"
