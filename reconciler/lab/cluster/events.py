"""Events that controllers record, repeated ones counted instead of piled up."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from reconciler.lab.clock import LabClock
from reconciler.lab.cluster.deletion import STAMP
from reconciler.lab.cluster.kinds import EVENT, NAMESPACE
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
_REPEAT_S = 10.0  # a controller that looks every few milliseconds must not write an event each time


class Recorder:
    def __init__(self, store: Store, clock: LabClock) -> None:
        self._store, self._clock = store, clock

    def record(self, about: Json, type_: str, reason: str, message: str, component: str) -> None:
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        if self._store.get(NAMESPACE, "", namespace) is None:
            return
        digest = hashlib.sha256(f"{meta['uid']}\0{reason}\0{message}".encode()).hexdigest()[:16]
        name = f"{meta['name'][:200]}.{digest}"
        live, now = self._store.get(EVENT, namespace, name), self._store.timestamp()
        if live is not None:
            if self._age_s(live["lastTimestamp"]) >= _REPEAT_S:
                self._store.replace(EVENT, clone(live) | {"count": live["count"] + 1, "lastTimestamp": now})
            return
        involved = {"kind": about["kind"], "apiVersion": about["apiVersion"], "name": meta["name"], "uid": meta["uid"]}
        if "namespace" in meta:
            involved["namespace"] = meta["namespace"]
        self._store.insert(
            EVENT,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": type_,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "eventTime": None,
                "source": {"component": component},
                "reportingComponent": component,
                "reportingInstance": "",
            },
        )

    def _age_s(self, stamp: str) -> float:
        return (self._clock.now() - datetime.strptime(stamp, STAMP).replace(tzinfo=UTC)).total_seconds()
