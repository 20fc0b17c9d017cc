"""Controllers that only take away or protect: garbage collector, namespaces, claim and volume protection, event expiry.

What it is: level-triggered steps over the store, called with its lock held. Source: Kubernetes documentation, "Garbage Collection".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.lab.clock import LabClock
from reconciler.lab.cluster.deletion import FOREGROUND, ORPHAN, STAMP, DeleteOptions, delete
from reconciler.lab.cluster.kinds import EVENT, KINDS, NAMESPACE, POD, PV, PVC, Kind
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
_EVENT_TTL = timedelta(hours=1)  # kube-apiserver --event-ttl


class Collector:
    def __init__(self, store: Store, clock: LabClock) -> None:
        self._store, self._clock = store, clock
        self._last_expiry = clock.monotonic()

    def step(self) -> None:
        self._collect_orphans_of_absent_owners()
        for kind, obj in self._store.deleting():
            self._finish(kind, obj)
        if self._clock.monotonic() - self._last_expiry > 60:
            self._last_expiry = self._clock.monotonic()
            self._expire_events()

    def _collect_orphans_of_absent_owners(self) -> None:
        """A dependent goes when every owner is gone (background propagation)."""
        for uid in self._store.owner_uids():
            if self._store.by_uid(uid) is not None:
                continue
            for kind, obj in self._store.dependents(uid):
                refs = obj["metadata"].get("ownerReferences") or []
                left = [ref for ref in refs if self._store.by_uid(ref["uid"]) is not None]
                if left:
                    new = clone(obj)
                    new["metadata"]["ownerReferences"] = left
                    self._store.replace(kind, new)
                elif not obj["metadata"].get("deletionTimestamp"):
                    delete(self._store, kind, obj, DeleteOptions("Background"))

    def _finish(self, kind: Kind, obj: Json) -> None:
        finalizers = obj["metadata"].get("finalizers") or []
        if ORPHAN in finalizers:
            self._release_dependents(obj)
            self._drop(kind, obj, ORPHAN)
        elif FOREGROUND in finalizers and not self._blocking(obj):
            self._drop(kind, obj, FOREGROUND)
        elif "kubernetes.io/pvc-protection" in finalizers and kind is PVC and not self._mounted(obj):
            self._drop(kind, obj, "kubernetes.io/pvc-protection")
        elif "kubernetes.io/pv-protection" in finalizers and kind is PV and not self._claimed(obj):
            self._drop(kind, obj, "kubernetes.io/pv-protection")
        elif kind is NAMESPACE and (obj.get("spec") or {}).get("finalizers"):
            self._empty_namespace(obj)

    def _drop(self, kind: Kind, obj: Json, finalizer: str) -> None:
        new = clone(obj)
        new["metadata"]["finalizers"].remove(finalizer)
        self._store.replace(kind, new)

    def _release_dependents(self, owner: Json) -> None:
        uid = owner["metadata"]["uid"]
        for kind, obj in self._store.dependents(uid):
            new = clone(obj)
            refs = [ref for ref in new["metadata"]["ownerReferences"] if ref["uid"] != uid]
            new["metadata"]["ownerReferences"] = refs
            if not refs:
                del new["metadata"]["ownerReferences"]
            self._store.replace(kind, new)

    def _blocking(self, owner: Json) -> bool:
        """Delete the dependents in the foreground; True while one that blocks its owner is still there."""
        uid, blocked = owner["metadata"]["uid"], False
        for kind, obj in self._store.dependents(uid):
            refs = obj["metadata"]["ownerReferences"]
            if any(ref["uid"] != uid and self._store.by_uid(ref["uid"]) for ref in refs):
                continue  # somebody else still owns it
            blocks = any(ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in refs)
            if not obj["metadata"].get("deletionTimestamp"):
                delete(
                    self._store, kind, obj, DeleteOptions("Foreground" if self._store.dependents(obj["metadata"]["uid"]) else "Background")
                )
            if blocks and self._store.by_uid(obj["metadata"]["uid"]) is not None:
                blocked = True
        return blocked

    def _mounted(self, claim: Json) -> bool:
        """A placed pod holds the claim as long as its object exists: a Completed or Failed one too (no phase test in Kubernetes)."""
        meta = claim["metadata"]
        return any(meta["name"] in claims_of(pod) for pod in self._store.all(POD, meta["namespace"]) if pod["spec"].get("nodeName"))

    def _claimed(self, volume: Json) -> bool:
        ref = volume["spec"].get("claimRef") or {}
        return self._store.by_uid(ref.get("uid", "")) is not None

    def _empty_namespace(self, namespace: Json) -> None:
        name, left = namespace["metadata"]["name"], False
        for kind in KINDS:
            if not kind.namespaced:
                continue
            for obj in self._store.all(kind, name):
                if not obj["metadata"].get("deletionTimestamp"):
                    delete(self._store, kind, obj, DeleteOptions("Background"))
                left = left or self._store.by_uid(obj["metadata"]["uid"]) is not None
        if not left:
            new = clone(namespace)
            new["spec"]["finalizers"] = []
            self._store.replace(NAMESPACE, new)

    def _expire_events(self) -> None:
        limit = self._clock.now() - _EVENT_TTL
        for event in self._store.all(EVENT):
            if datetime.strptime(event["lastTimestamp"], STAMP).replace(tzinfo=UTC) < limit:
                self._store.remove(EVENT, event)


def claims_of(pod: Json) -> list[str]:
    """Names of the claims that a pod's volumes use."""
    volumes = pod["spec"].get("volumes") or []
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
