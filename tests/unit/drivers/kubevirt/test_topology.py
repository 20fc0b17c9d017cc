"""Which volumes can never meet on one node, as PersistentVolumes and classes tell it."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.drivers.kubevirt.topology import Ground, apart, unschedulable

Json = dict[str, Any]
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


def pod(*claims: str, reason: str = "Unschedulable") -> Json:
    return {
        "metadata": {"name": "bind-web"},
        "spec": {"volumes": [{"name": "tmp", "emptyDir": {}}, *({"persistentVolumeClaim": {"claimName": c}} for c in claims)]},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason}]},
    }


def claim(name: str, volume: str = "", storage_class: str = "") -> Json:
    return {"metadata": {"name": name}, "spec": {"volumeName": volume, "storageClassName": storage_class}}


def volume(*terms: dict[str, list[str]], operator: str = "In") -> Json:
    rows = [{"matchExpressions": [{"key": k, "operator": operator, "values": v} for k, v in term.items()]} for term in terms]
    return {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": rows}}} if terms else {}}


def storage_class(*zones: str) -> Json:
    return {"allowedTopologies": [{"matchLabelExpressions": [{"key": ZONE, "values": [z]}]} for z in zones]}


def said(a: Json, b: Json, **options: Any) -> str:
    ground = Ground({"va": a, "vb": b})
    return apart(pod("a", "b", **options), [claim("a", "va"), claim("b", "vb"), claim("stranger")], ground)


def test_volumes_of_two_zones_or_two_nodes_are_apart() -> None:
    assert said(volume({ZONE: ["x"]}), volume({ZONE: ["y", "z"]})) == ("PVC a can only be used in zone x, PVC b only in zone y or z")
    assert said(volume({HOST: ["n1"]}), volume({HOST: ["n2"]})) == "PVC a can only be used in node n1, PVC b only in node n2"
    assert "example.com/rack 1" in said(volume({"example.com/rack": ["1"]}), volume({"example.com/rack": ["2"]}))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (volume({ZONE: ["x"]}), volume({ZONE: ["x", "y"]})),  # a zone in common
        (volume({ZONE: ["x"]}), volume({HOST: ["n1"]})),  # nothing to compare
        (volume({ZONE: ["x"]}), volume()),  # anywhere
        (volume({ZONE: ["x"]}), volume({ZONE: ["y"]}, {HOST: ["n1"]})),  # terms are alternatives
        (volume({ZONE: ["x"]}), volume({ZONE: ["y"]}, {ZONE: ["x"]})),
        (volume({ZONE: ["x"]}), volume({ZONE: ["x"]}, operator="NotIn")),  # an operator that we do not read
    ],
)
def test_what_may_meet_is_not_apart(a: Json, b: Json) -> None:
    assert said(a, b) == ""


def test_a_pod_that_may_still_be_placed_or_waits_for_another_reason_proves_nothing() -> None:
    assert said(volume({ZONE: ["x"]}), volume({ZONE: ["y"]}), reason="SchedulingGated") == ""
    assert not unschedulable({"metadata": {}, "spec": {}})


def test_a_claim_that_waits_goes_by_its_class() -> None:
    ground = Ground({"va": volume({ZONE: ["x"]})}, {"in-y": storage_class("y"), "both": storage_class("x", "y"), "any": {}})
    bound = claim("a", "va", "in-y")  # where it is counts, not where its class may go now
    assert "zone y" in apart(pod("a", "b"), [bound, claim("b", storage_class="in-y")], ground)
    for other in ("both", "any", "gone"):
        assert apart(pod("a", "b"), [bound, claim("b", storage_class=other)], ground) == ""


def test_without_the_right_to_see_volumes_nothing_is_proven() -> None:
    assert apart(pod("a", "b"), [claim("a", "va"), claim("b", "vb")], Ground()) == ""
