"""Where volumes can be used: why no node can ever have all those of a pod, proven by where they are (safety 22). Pure.

What it is: the terms of PersistentVolumes and of the classes of claims that wait, and their contradiction. What it is not: the scheduler.
Only what cannot change is proof: two claims that both name a topology key, with no value in common. Full or cordoned nodes are not.
Source: Kubernetes, "Storage Classes" (allowedTopologies), "Persistent Volumes" (nodeAffinity).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from reconciler.drivers.kubevirt import writers
from reconciler.drivers.kubevirt.labels import Obj

Places = Mapping[str, frozenset[str]]  # topology key -> the values where the volume can be used
_WORDS = {"topology.kubernetes.io/zone": "zone", "topology.kubernetes.io/region": "region", "kubernetes.io/hostname": "node"}


def unschedulable(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "PodScheduled" and c.get("status") == "False" and c.get("reason") == "Unschedulable" for c in conditions)


@dataclass(frozen=True, slots=True)
class Ground:
    """PersistentVolumes and StorageClasses, raw, by name. Empty: nothing is proven."""

    volumes: Mapping[str, Obj] = field(default_factory=dict)
    classes: Mapping[str, Obj] = field(default_factory=dict)


def apart(pod: Obj, claims: Iterable[Obj], ground: Ground) -> str:
    """ "" or, for example, "PVC a can only be used in zone x, PVC b only in zone y". `claims`: those of the pod's namespace."""
    mounted = writers.claims_of(pod) if unschedulable(pod) else frozenset()
    places = {name: _of_claim(c, ground) for c in claims if (name := c["metadata"]["name"]) in mounted}
    for (a, here), (b, there) in combinations(sorted(places.items()), 2):
        for key in sorted(here.keys() & there.keys()):
            if not here[key] & there[key]:
                return f"PVC {a} can only be used in {_text(key, here[key])}, PVC {b} only in {_text(key, there[key])}"
    return ""


def _text(key: str, values: Iterable[str]) -> str:
    return f"{_WORDS.get(key, key)} {' or '.join(sorted(values))}"


def _of_claim(claim: Obj, ground: Ground) -> Places:
    volume = ground.volumes.get(claim["spec"].get("volumeName") or "")
    if volume is not None:
        required = (volume["spec"].get("nodeAffinity") or {}).get("required") or {}
        terms = required.get("nodeSelectorTerms") or []
        return _common([_of_term(term.get("matchExpressions") or []) for term in terms])
    found = ground.classes.get(claim["spec"].get("storageClassName") or "") or {}
    allowed = found.get("allowedTopologies") or []
    return _common([{e["key"]: frozenset(e.get("values") or []) for e in term.get("matchLabelExpressions") or []} for term in allowed])


def _of_term(expressions: Iterable[Obj]) -> Places:
    return {e["key"]: frozenset(e.get("values") or []) for e in expressions if e.get("operator") == "In"}


def _common(terms: list[Places]) -> Places:
    """Terms are alternatives: a key counts where each of them names it, with all their values."""
    keys = frozenset.intersection(*(frozenset(term) for term in terms)) if terms else frozenset()
    return {key: frozenset().union(*(term[key] for term in terms)) for key in keys}
