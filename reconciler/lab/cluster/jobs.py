"""The Job controller: suspend, create pods, account for them, finish, expire.

What it is: one level-triggered step per Job, with the tracking finalizer that makes every ended pod count once.
Source: Kubernetes documentation, "Jobs"; KEP-2307 (tracking), KEP-3939 (podReplacementPolicy).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reconciler.lab.clock import LabClock
from reconciler.lab.cluster.conditions import has_condition, set_condition
from reconciler.lab.cluster.deletion import STAMP, DeleteOptions, delete
from reconciler.lab.cluster.events import Recorder
from reconciler.lab.cluster.failures import ApiError
from reconciler.lab.cluster.kinds import JOB, POD
from reconciler.lab.cluster.registry import Registry, Target, WriteOptions
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
TRACKING = "batch.kubernetes.io/job-tracking"
_DONE = ("Succeeded", "Failed")
_BACKOFF_S = 10.0
_WRITER = WriteOptions("kube-controller-manager")


@dataclass(frozen=True, slots=True)
class _Pods:
    """The pods of one Job, sorted by what they mean to it."""

    active: list[Json]
    terminating: list[Json]
    uncounted: list[Json]  # ended, still carrying the finalizer


class Jobs:
    def __init__(self, store: Store, registry: Registry, clock: LabClock, events: Recorder) -> None:
        self._store, self._registry, self._clock, self._events = store, registry, clock, events
        self._last_failure: dict[str, float] = {}

    def step(self) -> None:
        for job in self._store.all(JOB):
            if job["metadata"].get("deletionTimestamp"):
                self._untrack(self._pods_of(job))
            elif has_condition(job["status"], "Complete") or has_condition(job["status"], "Failed"):
                self._untrack(self._pods_of(job))
                self._expire(job)
            else:
                self._sync(job)
        self._untrack_orphans()

    def _pods_of(self, job: Json) -> list[Json]:
        uid = job["metadata"]["uid"]
        return [pod for kind, pod in self._store.dependents(uid) if kind is POD and _controlled_by(pod, uid)]

    def _untrack(self, pods: list[Json]) -> None:
        for pod in pods:
            if TRACKING in (pod["metadata"].get("finalizers") or ()):
                new = clone(pod)
                new["metadata"]["finalizers"].remove(TRACKING)
                self._store.replace(POD, new)

    def _untrack_orphans(self) -> None:
        for pod in self._store.all(POD):
            if TRACKING in (pod["metadata"].get("finalizers") or ()):
                refs = pod["metadata"].get("ownerReferences") or []
                if not any(ref.get("controller") and self._store.by_uid(ref["uid"]) for ref in refs):
                    self._untrack([pod])

    def _sort(self, job: Json) -> _Pods:
        only_failed = job["spec"]["podReplacementPolicy"] == "Failed"
        active: list[Json] = []
        terminating: list[Json] = []
        uncounted: list[Json] = []
        for pod in self._pods_of(job):
            tracked = TRACKING in (pod["metadata"].get("finalizers") or ())
            if pod["status"].get("phase") in _DONE:
                uncounted += [pod] if tracked else []
            elif pod["metadata"].get("deletionTimestamp"):
                # Under "TerminatingOrFailed" a pod that is being deleted has failed already; its process may still run.
                terminating.append(pod)
                uncounted += [pod] if tracked and not only_failed else []
            else:
                active.append(pod)
        return _Pods(active, terminating, uncounted)

    def _sync(self, job: Json) -> None:
        new, now = clone(job), self._store.timestamp()
        status, spec, pods = new["status"], job["spec"], self._sort(job)
        for pod in pods.uncounted:
            field = "succeeded" if pod["status"].get("phase") == "Succeeded" else "failed"
            status[field] = status.get(field, 0) + 1
            if field == "failed":
                self._last_failure[job["metadata"]["uid"]] = self._clock.monotonic()
        self._untrack(pods.uncounted)
        if spec.get("suspend"):
            self._suspend(job, status, pods.active, now)
        else:
            if has_condition(status, "Suspended"):
                set_condition(status, "Suspended", "False", "JobResumed", "Job resumed", now)
                status.pop("startTime", None)
                self._events.record(job, "Normal", "Resumed", "Job resumed", "job-controller")
            status.setdefault("startTime", now)
            if not self._finish(job, status, pods, now):
                pods.active.extend(self._top_up(job, status, pods))
        self._write(new, status, pods)

    def _write(self, new: Json, status: Json, pods: _Pods) -> None:
        ended = has_condition(status, "Complete") or has_condition(status, "Failed") or bool(new["spec"].get("suspend"))
        status["active"] = 0 if ended else len(pods.active)
        status["ready"] = 0 if ended else sum(has_condition(pod["status"], "Ready") for pod in pods.active)
        status["terminating"] = len(pods.terminating)
        status["uncountedTerminatedPods"] = {}
        if not status["active"]:
            del status["active"]
        self._store.replace(JOB, new)

    def _suspend(self, job: Json, status: Json, active: list[Json], now: str) -> None:
        status.pop("startTime", None)
        if not has_condition(status, "Suspended"):
            set_condition(status, "Suspended", "True", "JobSuspended", "Job suspended", now)
            self._events.record(job, "Normal", "Suspended", "Job suspended", "job-controller")
        for pod in active:
            delete(self._store, POD, pod, DeleteOptions())

    def _finish(self, job: Json, status: Json, pods: _Pods, now: str) -> bool:
        """True when the Job has ended. A real controller waits for its last pod before the final condition (Kubernetes 1.31)."""
        spec = job["spec"]
        if status.get("succeeded", 0) >= spec["completions"]:
            if not pods.active and not pods.terminating:
                set_condition(status, "SuccessCriteriaMet", "True", "CompletionsReached", "Reached expected number of succeeded pods", now)
                set_condition(status, "Complete", "True", "CompletionsReached", "Reached expected number of succeeded pods", now)
                status["completionTime"] = now
                self._events.record(job, "Normal", "Completed", "Job completed", "job-controller")
            return True
        deadline = spec.get("activeDeadlineSeconds")
        reason = message = ""
        if status.get("failed", 0) > spec["backoffLimit"]:
            reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        elif deadline is not None and self._since(status["startTime"]) >= deadline:
            reason, message = "DeadlineExceeded", "Job was active longer than specified deadline"
        if not reason:
            return False
        set_condition(status, "FailureTarget", "True", reason, message, now)
        for pod in pods.active:
            delete(self._store, POD, pod, DeleteOptions())
        if not pods.active and not pods.terminating:
            set_condition(status, "Failed", "True", reason, message, now)
            self._events.record(job, "Warning", reason, message, "job-controller")
        return True

    def _top_up(self, job: Json, status: Json, pods: _Pods) -> list[Json]:
        spec, uid = job["spec"], job["metadata"]["uid"]
        occupied = len(pods.active) + (len(pods.terminating) if spec["podReplacementPolicy"] == "Failed" else 0)
        wanted = min(spec["parallelism"], spec["completions"] - status.get("succeeded", 0)) - occupied
        failures = status.get("failed", 0)
        if failures and self._clock.monotonic() - self._last_failure.get(uid, 0.0) < _BACKOFF_S * 2 ** (failures - 1):
            return []
        made: list[Json] = []
        for _ in range(wanted):
            try:
                made.append(self._registry.create(Target(POD, job["metadata"]["namespace"]), _pod_for(job), _WRITER).obj)
            except ApiError as err:
                self._events.record(job, "Warning", "FailedCreate", f"Error creating: {err.message}", "job-controller")
                break
            self._events.record(job, "Normal", "SuccessfulCreate", f"Created pod: {made[-1]['metadata']['name']}", "job-controller")
        return made

    def _expire(self, job: Json) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return
        ended = [c["lastTransitionTime"] for c in job["status"]["conditions"] if c["type"] in ("Complete", "Failed")]
        if self._since(ended[-1]) >= ttl:
            delete(self._store, JOB, job, DeleteOptions("Foreground"))

    def _since(self, stamp: str) -> float:
        return (self._clock.now() - datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)).total_seconds()


def _controlled_by(pod: Json, uid: str) -> bool:
    return any(ref["uid"] == uid and ref.get("controller") for ref in pod["metadata"].get("ownerReferences") or [])


def _pod_for(job: Json) -> Json:
    meta, template = job["metadata"], clone(job["spec"]["template"])
    owner = {"apiVersion": JOB.api_version, "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name'][:57]}-{uuid.uuid4().hex[:5]}",
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": template["metadata"].get("labels") or {},
            "annotations": template["metadata"].get("annotations") or {},
            "finalizers": [TRACKING],
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": template["spec"],
    }
