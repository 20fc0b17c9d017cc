"""Server-side apply on the simulated API server, through the real dynamic client: ownership, conflicts, force, removal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException

from tests.unit.lab.clusterkit import Json, Site, claim, job, pod, site_at


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_at(tmp_path) as made:
        yield made


def apply(site: Site, obj: Json, manager: str = "ours", force: bool | None = None, **options: Any) -> Json:
    resource = site.dynamic().resources.get(api_version=obj["apiVersion"], kind=obj["kind"])
    namespace = obj["metadata"].get("namespace")
    done = resource.server_side_apply(body=obj, namespace=namespace, field_manager=manager, force_conflicts=force, **options)
    result: Json = done.to_dict()
    return result


def config_map(data: dict[str, str], **meta: Any) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "shop", **meta}, "data": data}


def managers(obj: Json) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"]["managedFields"]}


def test_apply_creates_then_updates_and_a_repeat_writes_nothing(site: Site) -> None:
    assert apply(site, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "wave"}})["status"]["phase"] == "Active"
    first = apply(site, config_map({"a": "1"}))
    second = apply(site, config_map({"a": "1"}))
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    third = apply(site, config_map({"a": "2"}))
    assert (third["data"], third["metadata"]["uid"]) == ({"a": "2"}, first["metadata"]["uid"])
    assert managers(third) == {"ours": {"f:data": {"f:a": {}}}}


def test_a_field_that_is_no_longer_applied_vanishes_and_only_ours(site: Site) -> None:
    apply(site, config_map({"a": "1", "b": "1"}, labels={"x": "1", "y": "1"}))
    apply(site, config_map({"theirs": "1"}), "theirs")
    left = apply(site, config_map({"a": "1"}, labels={"x": "1"}))
    assert left["data"] == {"a": "1", "theirs": "1"}
    assert left["metadata"]["labels"] == {"x": "1"}
    assert "labels" not in apply(site, config_map({"a": "1"}))["metadata"]


def test_another_managers_value_is_a_conflict_that_names_manager_and_field(site: Site) -> None:
    apply(site, config_map({"a": "1", "b": "1"}), "theirs")
    with pytest.raises(ApiException) as caught:
        apply(site, config_map({"a": "2"}))
    body = json.loads(caught.value.body)
    assert (body["code"], body["reason"]) == (409, "Conflict")
    assert body["message"] == 'Apply failed with 1 conflict: conflict with "theirs": .data.a'
    assert body["details"]["causes"] == [{"reason": "FieldManagerConflict", "message": 'conflict with "theirs"', "field": ".data.a"}]
    with pytest.raises(ApiException) as caught:
        apply(site, config_map({"a": "2", "b": "2"}))
    message = json.loads(caught.value.body)["message"]
    assert message == 'Apply failed with 2 conflicts: conflicts with "theirs":\n- .data.a\n- .data.b'


def test_force_takes_the_field_and_its_owner_loses_it(site: Site) -> None:
    apply(site, config_map({"a": "1", "b": "1"}), "theirs")
    forced = apply(site, config_map({"a": "2"}), force=True)
    assert forced["data"] == {"a": "2", "b": "1"}
    assert managers(forced) == {"theirs": {"f:data": {"f:b": {}}}, "ours": {"f:data": {"f:a": {}}}}


def test_an_equal_value_is_shared_and_stays_until_the_last_lets_go(site: Site) -> None:
    apply(site, config_map({"a": "1"}), "theirs")
    apply(site, config_map({"a": "1"}))
    assert apply(site, config_map({}))["data"] == {"a": "1"}
    assert "data" not in apply(site, config_map({}), "theirs")


def test_a_plain_patch_takes_ownership_with_its_value(site: Site) -> None:
    apply(site, config_map({"a": "1"}))
    site.core.patch_namespaced_config_map("c", "shop", {"data": {"a": "2"}}, field_manager="kubectl-edit")
    with pytest.raises(ApiException) as caught:
        apply(site, config_map({"a": "1"}))
    message = json.loads(caught.value.body)["message"]
    assert message == 'Apply failed with 1 conflict: conflict with "kubectl-edit" using v1 at 2026-01-01T00:00:00Z: .data.a'


def test_defaults_and_other_peoples_annotations_survive_our_apply(site: Site) -> None:
    apply(site, claim("p"))
    site.cluster.step()
    site.core.patch_namespaced_persistent_volume_claim("p", "shop", {"metadata": {"annotations": {"me": "1"}}})
    again = apply(site, claim("p") | {"metadata": {"name": "p", "namespace": "shop", "labels": {"ours": "1"}}})
    assert again["metadata"]["annotations"]["me"] == "1"
    assert again["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] == "yes"
    assert (again["spec"]["volumeMode"], again["status"]["phase"]) == ("Filesystem", "Bound")
    assert again["spec"]["volumeName"].startswith("pvc-")


def test_keyed_lists_merge_and_atomic_ones_are_replaced(site: Site) -> None:
    one = pod("p")
    one["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    made = apply(site, job("j", one, suspend=True))
    key = 'k:{"name":"main"}'
    spec = managers(made)["ours"]["f:spec"]["f:template"]["f:spec"]
    assert spec["f:containers"][key]["f:env"] == {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}}
    assert spec["f:containers"][key]["f:command"] == {}
    assert apply(site, job("j", one, suspend=False))["spec"]["suspend"] is False
    two = pod("p")
    with pytest.raises(ApiException) as caught:
        apply(site, job("j", two, suspend=False))  # the variable would vanish from a template that must not change
    assert "field is immutable" in json.loads(caught.value.body)["message"]


def test_a_version_in_the_body_is_a_compare_and_swap(site: Site) -> None:
    old = apply(site, config_map({"a": "1"}))["metadata"]["resourceVersion"]
    site.core.patch_namespaced_config_map("c", "shop", {"data": {"b": "1"}})
    with pytest.raises(ApiException) as caught:
        apply(site, config_map({"a": "2"}, resourceVersion=old))
    assert caught.value.status == 409
    assert "the object has been modified" in json.loads(caught.value.body)["message"]


def test_apply_wants_a_manager_and_honours_a_dry_run(site: Site) -> None:
    resource = site.dynamic().resources.get(api_version="v1", kind="ConfigMap")
    with pytest.raises(ApiException) as caught:
        resource.server_side_apply(body=config_map({}), namespace="shop")
    assert "fieldManager: Required value" in json.loads(caught.value.body)["message"]
    assert apply(site, config_map({"a": "1"}), dry_run="All")["data"] == {"a": "1"}
    assert site.cluster.find("ConfigMap", "shop", "c") is None
