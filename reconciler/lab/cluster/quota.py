"""ResourceQuota: what a namespace uses, and the refusal of what would exceed it.

What it is: counting over the store.
Refusals come at creation, and at growth of a claim, before the name is looked at, as in a real server.
Source: Kubernetes documentation, "Resource Quotas".
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

from reconciler.lab.cluster.failures import forbidden
from reconciler.lab.cluster.kinds import JOB, KINDS, POD, PVC, QUOTA, Kind
from reconciler.lab.cluster.quantity import parse, render, storage_of
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
Usage = Counter[str]
_CLASS = ".storageclass.storage.k8s.io/"
_COUNTED = ("pods", "secrets", "configmaps", "persistentvolumeclaims", "resourcequotas")


def usage_of(kind: Kind, obj: Json) -> dict[str, Fraction]:
    """What one object uses, by quota resource name. Finished pods use nothing."""
    used = {f"count/{kind.resource}": Fraction(1)}
    if kind is POD and (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return used
    if not kind.group and kind.plural in _COUNTED:
        used[kind.plural] = Fraction(1)
    if kind is PVC:
        size = parse(storage_of(obj))
        name = obj["spec"].get("storageClassName") or ""
        used |= {"requests.storage": size, f"{name}{_CLASS}requests.storage": size, f"{name}{_CLASS}persistentvolumeclaims": Fraction(1)}
    elif kind is POD:
        for resource, amount in _pod_resources(obj).items():
            used[resource] = amount
    return used


def _pod_resources(pod: Json) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for container in pod["spec"].get("containers") or []:
        for side in ("requests", "limits"):
            for name, amount in ((container.get("resources") or {}).get(side) or {}).items():
                total[f"{side}.{name}"] = total.get(f"{side}.{name}", Fraction(0)) + parse(amount)
    for name in ("cpu", "memory"):
        if f"requests.{name}" in total:
            total[name] = total[f"requests.{name}"]
    return total


def used_in(store: Store, namespace: str, wanted: set[str]) -> dict[str, Fraction]:
    total = {name: Fraction(0) for name in wanted}
    kinds = [kind for kind in KINDS if kind.namespaced and (kind in (POD, PVC, JOB) or _asked(kind, wanted))]
    for kind in kinds:
        for obj in store.all(kind, namespace):
            for name, amount in usage_of(kind, obj).items():
                if name in total:
                    total[name] += amount
    return total


def _asked(kind: Kind, wanted: set[str]) -> bool:
    return kind.plural in wanted or f"count/{kind.resource}" in wanted


def check(store: Store, kind: Kind, obj: Json, before: Json | None = None) -> None:
    """Errors: 403 naming quota, requested, used and limit of each resource that would be exceeded."""
    namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
    quotas = store.all(QUOTA, namespace) if namespace else []
    if not quotas or kind is QUOTA:
        return
    asked = usage_of(kind, obj)
    had = usage_of(kind, before) if before else {}
    delta = {resource: amount - had.get(resource, Fraction(0)) for resource, amount in asked.items()}
    for quota in quotas:
        hard = (quota.get("spec") or {}).get("hard") or {}
        if kind is POD and before is None:
            _need_compute(quota["metadata"]["name"], hard, obj, asked)
        used = used_in(store, namespace, set(hard))
        over = sorted(r for r in hard if delta.get(r, 0) > 0 and used[r] + delta[r] > parse(hard[r]))
        if over:
            requested = ",".join(f"{r}={render(delta[r])}" for r in over)
            now = ",".join(f"{r}={render(used[r])}" for r in over)
            limited = ",".join(f"{r}={hard[r]}" for r in over)
            why = f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, used: {now}, limited: {limited}"
            raise forbidden(kind, name, why)


def _need_compute(quota: str, hard: Json, pod: Json, asked: dict[str, Fraction]) -> None:
    compute = ("limits.cpu", "limits.memory", "requests.cpu", "requests.memory", "cpu", "memory")
    missing = [resource for resource in compute if resource in hard and resource not in asked]
    if missing:
        containers = ",".join(container["name"] for container in pod["spec"]["containers"])
        why = "; ".join(f"must specify {resource} for: {containers}" for resource in missing)
        raise forbidden(POD, pod["metadata"]["name"], f"failed quota: {quota}: {why}")


class Quotas:
    """The quota controller: status.hard and status.used."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def step(self) -> None:
        for quota in self._store.all(QUOTA):
            hard = (quota.get("spec") or {}).get("hard") or {}
            used = used_in(self._store, quota["metadata"]["namespace"], set(hard))
            new = clone(quota)
            new["status"] = {"hard": dict(hard), "used": {resource: render(amount) for resource, amount in sorted(used.items())}}
            self._store.replace(QUOTA, new)
