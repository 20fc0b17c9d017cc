"""The simulated API server against the real client: CRUD, conflicts, selectors, pages, watches, quotas, rights and faults."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client, config, watch
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import DynamicApiError

from tests.unit.lab.clusterkit import Site, claim, pod, site_at


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_at(tmp_path) as made:
        yield made


def refusal(caught: pytest.ExceptionInfo[ApiException]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(caught.value.body)
    assert (body["kind"], body["status"], body["code"]) == ("Status", "Failure", caught.value.status)
    return body


class TestObjects:
    def test_what_is_created_is_read_listed_patched_replaced_and_deleted(self, site: Site) -> None:
        made = site.core.create_namespaced_secret("shop", {"metadata": {"name": "s"}, "stringData": {"user": "me"}})
        assert (made.data, made.type, made.metadata.namespace) == ({"user": "bWU="}, "Opaque", "shop")
        assert made.metadata.uid and made.metadata.creation_timestamp
        patched = site.core.patch_namespaced_secret("s", "shop", {"metadata": {"labels": {"a": "b"}}})
        assert int(patched.metadata.resource_version) > int(made.metadata.resource_version)
        patched.data = {"user": "eW91"}
        replaced = site.core.replace_namespaced_secret("s", "shop", patched)
        assert (replaced.data, replaced.metadata.labels, replaced.metadata.uid) == ({"user": "eW91"}, {"a": "b"}, made.metadata.uid)
        site.core.delete_namespaced_secret("s", "shop")
        assert site.core.list_namespaced_secret("shop").items == []

    def test_text_of_a_secret_is_folded_in_when_it_is_put_again(self, site: Site) -> None:
        for password in ("old", "new"):
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}}
            site.cluster.put({**secret, "stringData": {"password": password}})
            found = site.core.read_namespaced_secret("s", "shop")
            assert (found.data, found.string_data) == ({"password": base64.b64encode(password.encode()).decode()}, None)

    def test_a_name_is_given_once(self, site: Site) -> None:
        site.core.create_namespaced_persistent_volume_claim("shop", claim("p"))
        with pytest.raises(ApiException) as caught:
            site.core.create_namespaced_persistent_volume_claim("shop", claim("p"))
        body = refusal(caught)
        assert (body["code"], body["reason"]) == (409, "AlreadyExists")
        assert body["message"] == 'persistentvolumeclaims "p" already exists'

    def test_generate_name_makes_different_names(self, site: Site) -> None:
        body = {"metadata": {"generateName": "x-"}}
        names = {site.core.create_namespaced_config_map("shop", body).metadata.name for _ in range(5)}
        assert len(names) == 5 and all(name.startswith("x-") for name in names)

    def test_an_old_version_is_refused(self, site: Site) -> None:
        made = site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}, "data": {"a": "1"}})
        site.core.patch_namespaced_config_map("c", "shop", {"data": {"a": "2"}})
        stale = {"metadata": {"resourceVersion": made.metadata.resource_version}, "data": {"a": "3"}}
        for call in (site.core.patch_namespaced_config_map, site.core.replace_namespaced_config_map):
            with pytest.raises(ApiException) as caught:
                call("c", "shop", {**stale, "metadata": {"name": "c", **stale["metadata"]}})
            assert refusal(caught)["reason"] == "Conflict"
            assert "the object has been modified" in refusal(caught)["message"]
        assert site.core.read_namespaced_config_map("c", "shop").data == {"a": "2"}

    def test_an_equal_write_is_no_write(self, site: Site) -> None:
        made = site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}, "data": {"a": "1"}})
        again = site.core.patch_namespaced_config_map("c", "shop", {"data": {"a": "1"}})
        assert again.metadata.resource_version == made.metadata.resource_version

    def test_a_namespace_must_be_there(self, site: Site) -> None:
        with pytest.raises(ApiException) as caught:
            site.core.create_namespaced_config_map("nowhere", {"metadata": {"name": "c"}})
        assert refusal(caught)["message"] == 'namespaces "nowhere" not found'

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"accessModes": []}, "spec.accessModes"),
            ({"volumeMode": "Tape"}, "spec.volumeMode"),
            ({"resources": {}}, "spec.resources[storage]"),
        ],
    )
    def test_a_wrong_claim_is_invalid(self, site: Site, change: dict[str, Any], field: str) -> None:
        with pytest.raises(ApiException) as caught:
            site.core.create_namespaced_persistent_volume_claim("shop", claim("p", **change))
        body = refusal(caught)
        assert (body["code"], body["reason"], body["details"]["causes"][0]["field"]) == (422, "Invalid", field)

    def test_strict_validation_refuses_what_the_schema_does_not_know(self, site: Site) -> None:
        claims = site.dynamic().resources.get(api_version="v1", kind="PersistentVolumeClaim")
        wrong = claim("p", storageClass="bulk")
        with pytest.raises(DynamicApiError) as caught:
            claims.create(body=wrong, namespace="shop", query_params=[("fieldValidation", "Strict")])
        assert 'unknown field \\"spec.storageClass\\"' in str(caught.value.body)
        claims.create(body=wrong, namespace="shop")
        assert "storageClass" not in site.cluster.find("PersistentVolumeClaim", "shop", "p")["spec"]

    def test_a_dry_run_leaves_nothing(self, site: Site) -> None:
        made = site.core.create_namespaced_persistent_volume_claim("shop", claim("p"), dry_run="All")
        assert made.spec.volume_mode == "Filesystem"
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        site.core.delete_namespaced_config_map("c", "shop", dry_run="All")
        assert site.cluster.find("PersistentVolumeClaim", "shop", "p") is None
        assert site.cluster.find("ConfigMap", "shop", "c") is not None

    def test_patches_of_three_kinds(self, site: Site) -> None:
        site.cluster.put(pod("p"))
        site.core.patch_namespaced_pod("p", "shop", [{"op": "add", "path": "/metadata/labels", "value": {"a": "1"}}])
        site.core.patch_namespaced_pod("p", "shop", {"metadata": {"labels": {"b": "2", "a": None}}})
        image = {"spec": {"containers": [{"name": "main", "image": "other"}]}}
        patched = site.core.patch_namespaced_pod("p", "shop", image)  # strategic: merged by the container's name
        assert patched.metadata.labels == {"b": "2"}
        assert (patched.spec.containers[0].image, patched.spec.containers[0].command) == ("other", ["sleep", "infinity"])
        with pytest.raises(ApiException) as caught:
            site.core.patch_namespaced_pod("p", "shop", [{"op": "test", "path": "/metadata/labels/b", "value": "3"}])
        assert caught.value.status == 422

    def test_a_custom_resource_takes_no_strategic_patch(self, site: Site) -> None:
        path = ("k8s.cni.cncf.io", "v1", "shop", "network-attachment-definitions")
        site.custom.create_namespaced_custom_object(*path, {"metadata": {"name": "n"}, "spec": {"config": "{}"}, **nad()})
        with pytest.raises(ApiException) as caught:
            site.custom.patch_namespaced_custom_object(*path, "n", {"spec": {}}, _content_type="application/strategic-merge-patch+json")
        assert caught.value.status == 415
        done = site.custom.patch_namespaced_custom_object(*path, "n", {"spec": {"a": 1}}, _content_type="application/merge-patch+json")
        assert done["spec"] == {"config": "{}", "a": 1}
        assert done["metadata"]["generation"] == 2

    def test_status_is_a_door_of_its_own(self, site: Site) -> None:
        site.core.create_namespaced_persistent_volume_claim("shop", claim("p", "fast"))
        site.core.patch_namespaced_persistent_volume_claim("p", "shop", {"status": {"phase": "Lost"}})
        assert site.core.read_namespaced_persistent_volume_claim("p", "shop").status.phase == "Pending"
        site.core.patch_namespaced_persistent_volume_claim_status("p", "shop", {"status": {"phase": "Lost"}, "spec": {"volumeName": "x"}})
        changed = site.core.read_namespaced_persistent_volume_claim("p", "shop")
        assert (changed.status.phase, changed.spec.volume_name) == ("Lost", None)


def nad() -> dict[str, str]:
    return {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}


class TestDeletion:
    def test_finalizers_hold_an_object_until_they_are_gone(self, site: Site) -> None:
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c", "finalizers": ["me.example/hold"]}})
        site.core.delete_namespaced_config_map("c", "shop")
        held = site.core.read_namespaced_config_map("c", "shop")
        with pytest.raises(ApiException) as caught:
            site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        assert refusal(caught)["message"] == 'object is being deleted: configmaps "c" already exists'
        assert held.metadata.deletion_timestamp is not None
        with pytest.raises(ApiException) as caught:
            site.core.patch_namespaced_config_map("c", "shop", {"metadata": {"finalizers": ["me.example/hold", "me.example/more"]}})
        assert caught.value.status == 422
        site.core.patch_namespaced_config_map("c", "shop", [{"op": "remove", "path": "/metadata/finalizers"}])
        assert site.cluster.find("ConfigMap", "shop", "c") is None

    def test_a_uid_precondition_protects_the_next_of_that_name(self, site: Site) -> None:
        old = site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}}).metadata.uid
        site.core.delete_namespaced_config_map("c", "shop")
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        with pytest.raises(ApiException) as caught:
            site.core.delete_namespaced_config_map("c", "shop", body={"preconditions": {"uid": old}})
        assert "UID in the precondition" in refusal(caught)["message"]
        assert site.cluster.find("ConfigMap", "shop", "c") is not None

    @pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
    def test_dependents_follow_their_owner_or_are_let_go(self, site: Site, policy: str) -> None:
        owner = site.core.create_namespaced_config_map("shop", {"metadata": {"name": "owner"}})
        ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid, "blockOwnerDeletion": True}
        site.core.create_namespaced_secret("shop", {"metadata": {"name": "s", "ownerReferences": [ref]}})
        site.core.delete_namespaced_config_map("owner", "shop", propagation_policy=policy)
        assert (site.cluster.find("ConfigMap", "shop", "owner") is None) == (policy == "Background")
        assert site.cluster.find("Secret", "shop", "s") is not None  # the collector has not been yet
        site.cluster.step()
        assert site.cluster.find("ConfigMap", "shop", "owner") is None
        left = site.cluster.find("Secret", "shop", "s")
        assert (left is not None) == (policy == "Orphan")
        if left is not None:
            assert "ownerReferences" not in left["metadata"]

    def test_a_namespace_takes_everything_with_it(self, site: Site) -> None:
        site.core.create_namespaced_persistent_volume_claim("shop", claim("p"))
        site.core.delete_namespace("shop")
        with pytest.raises(ApiException) as caught:
            site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        assert "because it is being terminated" in refusal(caught)["message"]
        site.cluster.step()
        assert site.cluster.find("Namespace", "", "shop") is None
        assert site.cluster.find_all("PersistentVolumeClaim") == site.cluster.find_all("PersistentVolume") == []

    def test_a_collection_goes_by_label(self, site: Site) -> None:
        for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
            site.core.create_namespaced_config_map("shop", {"metadata": {"name": name, "labels": {"l": label}}})
        site.core.delete_collection_namespaced_config_map("shop", label_selector="l=x")
        assert [c["metadata"]["name"] for c in site.cluster.find_all("ConfigMap", "shop")] == ["c"]


class TestLists:
    @pytest.mark.parametrize(
        ("selector", "names"),
        [
            ("app=web", "a"),
            ("app==web", "a"),
            ("app!=web", "bcd"),
            ("app in (web, db)", "ab"),
            ("app notin (web)", "bcd"),
            ("app,tier", "b"),
            ("!app", "d"),
            ("app=web,tier=x", ""),
        ],
    )
    def test_label_selectors(self, site: Site, selector: str, names: str) -> None:
        for name, labels in (("a", {"app": "web"}), ("b", {"app": "db", "tier": "x"}), ("c", {"app": "mq"}), ("d", {})):
            site.core.create_namespaced_config_map("shop", {"metadata": {"name": name, "labels": labels}})
        found = site.core.list_namespaced_config_map("shop", label_selector=selector).items
        assert "".join(item.metadata.name for item in found) == names

    def test_field_selectors(self, site: Site) -> None:
        site.cluster.put(pod("a"))
        site.cluster.put(pod("b", nodeSelector={"no": "where"}))
        site.cluster.step()
        assert [p.metadata.name for p in site.core.list_pod_for_all_namespaces(field_selector="spec.nodeName=node-a").items] == ["a"]
        uid = site.cluster.find("Pod", "shop", "b")["metadata"]["uid"]
        events = site.core.list_namespaced_event("shop", field_selector=f"involvedObject.uid={uid}").items
        assert [e.reason for e in events] == ["FailedScheduling"]
        with pytest.raises(ApiException) as caught:
            site.core.list_namespaced_pod("shop", field_selector="spec.color=red")
        assert "field label not supported" in refusal(caught)["message"]

    def test_pages_are_one_snapshot(self, site: Site) -> None:
        for n in range(7):
            site.cluster.put(claim(f"p{n}"))
        first = site.core.list_namespaced_persistent_volume_claim("shop", limit=3)
        assert first.metadata.remaining_item_count == 4
        site.core.delete_namespaced_persistent_volume_claim("p5", "shop")
        site.cluster.put(claim("p8"))
        names, token = [i.metadata.name for i in first.items], first.metadata._continue
        while token:
            page = site.core.list_namespaced_persistent_volume_claim("shop", limit=3, _continue=token)
            assert page.metadata.resource_version == first.metadata.resource_version
            names, token = names + [i.metadata.name for i in page.items], page.metadata._continue
        assert names == [f"p{n}" for n in range(7)]
        assert site.cluster.calls["list persistentvolumeclaims"] == 3

    def test_an_old_page_token_is_gone(self, site: Site) -> None:
        for n in range(3):
            site.cluster.put(claim(f"p{n}"))
        token = site.core.list_namespaced_persistent_volume_claim("shop", limit=1).metadata._continue
        site.cluster.expire_history()
        with pytest.raises(ApiException) as caught:
            site.core.list_namespaced_persistent_volume_claim("shop", limit=1, _continue=token)
        assert (caught.value.status, refusal(caught)["reason"]) == (410, "Expired")

    def test_ten_thousand_claims_are_listed_in_time(self, site: Site) -> None:
        for n in range(10_000):
            site.cluster.put(claim(f"p{n}", "fast"))
        started = time.monotonic()
        raw = site.core.list_namespaced_persistent_volume_claim("shop", _preload_content=False).data
        assert time.monotonic() - started < 2
        assert len(json.loads(raw)["items"]) == 10_000


class TestWatch:
    def test_changes_arrive_in_order_and_a_selector_is_respected(self, site: Site) -> None:
        rv = site.core.list_namespaced_config_map("shop").metadata.resource_version
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "other"}})
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c", "labels": {"w": "1"}}, "data": {"n": "1"}})
        site.core.patch_namespaced_config_map("c", "shop", {"data": {"n": "2"}})
        site.core.patch_namespaced_config_map("c", "shop", {"metadata": {"labels": {"w": None}}})
        stream = watch.Watch().stream(
            site.core.list_namespaced_config_map, "shop", label_selector="w=1", resource_version=rv, timeout_seconds=1
        )
        seen = [(event["type"], event["object"].metadata.name) for event in stream]
        assert seen == [("ADDED", "c"), ("MODIFIED", "c"), ("DELETED", "c")]

    def test_without_a_version_it_begins_with_what_is_there(self, site: Site) -> None:
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        watcher = watch.Watch()
        for event in watcher.stream(site.core.list_namespaced_config_map, "shop", timeout_seconds=5):
            if event["type"] == "ADDED" and event["object"].metadata.name == "c":
                site.core.delete_namespaced_config_map("c", "shop")
            if event["type"] == "DELETED":
                watcher.stop()
        assert event["type"] == "DELETED"

    def test_history_that_is_gone_is_410(self, site: Site) -> None:
        rv = site.core.list_namespaced_config_map("shop").metadata.resource_version
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        site.cluster.expire_history()
        with pytest.raises(ApiException) as caught:
            list(watch.Watch().stream(site.core.list_namespaced_config_map, "shop", resource_version=rv, timeout_seconds=5))
        assert caught.value.status == 410

    def test_a_bookmark_ends_a_watch_that_asked_for_them(self, site: Site) -> None:
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        watcher, rv = watch.Watch(), site.core.list_namespaced_config_map("shop").metadata.resource_version
        site.core.create_namespaced_secret("shop", {"metadata": {"name": "s"}})
        stream = watcher.stream(
            site.core.list_namespaced_config_map, "shop", resource_version=rv, timeout_seconds=1, allow_watch_bookmarks=True
        )
        assert [event["type"] for event in stream] == ["BOOKMARK"]
        assert int(watcher.resource_version) > int(rv)


class TestDoor:
    def test_without_the_token_nobody_comes_in(self, site: Site) -> None:
        settings = client.Configuration(host=site.cluster.url, api_key={"BearerToken": "Bearer nonsense"})
        settings.ssl_ca_cert = site.api.configuration.ssl_ca_cert
        stranger = client.ApiClient(settings)
        with pytest.raises(ApiException) as caught:
            client.CoreV1Api(stranger).list_namespace()
        assert refusal(caught)["reason"] == "Unauthorized"
        assert client.VersionApi(stranger).get_code().major == "1"
        stranger.close()

    def test_a_stranger_to_the_ca_is_not_trusted(self, site: Site) -> None:
        pool = urllib3.PoolManager(retries=False)
        with pytest.raises(urllib3.exceptions.SSLError):
            pool.request("GET", f"{site.cluster.url}/version")
        pool.clear()

    def test_the_kubeconfig_is_private(self, site: Site) -> None:
        path = site.root / "kubeconfig"
        assert path.stat().st_mode & 0o777 == 0o600
        assert config.list_kube_config_contexts(str(path))[1]["name"] == "lab"

    def test_a_denied_verb_is_forbidden_and_reviewed(self, site: Site) -> None:
        site.cluster.deny("delete", "pods", "shop")
        with pytest.raises(ApiException) as caught:
            site.core.delete_namespaced_pod("p", "shop")
        assert 'cannot delete resource "pods" in API group "" in the namespace "shop"' in refusal(caught)["message"]
        review = client.AuthorizationV1Api(site.api)
        for verb, allowed in (("delete", False), ("list", True)):
            asked = {"spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "shop"}}}
            assert review.create_self_subject_access_review(asked).status.allowed is allowed

    def test_a_quota_refuses_by_name_and_number(self, site: Site) -> None:
        hard = {"requests.storage": "10Gi", "persistentvolumeclaims": "3"}
        site.core.create_namespaced_resource_quota("shop", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
        site.core.create_namespaced_persistent_volume_claim("shop", claim("a", size="8Gi"))
        with pytest.raises(ApiException) as caught:
            site.core.create_namespaced_persistent_volume_claim("shop", claim("b", size="4Gi"))
        message = refusal(caught)["message"]
        assert "exceeded quota: q, requested: requests.storage=4Gi, used: requests.storage=8Gi, limited: requests.storage=10Gi" in message
        site.cluster.step()
        assert site.core.read_namespaced_resource_quota("q", "shop").status.used["requests.storage"] == "8Gi"
        with pytest.raises(ApiException):
            site.core.patch_namespaced_persistent_volume_claim("a", "shop", {"spec": {"resources": {"requests": {"storage": "11Gi"}}}})

    def test_cdi_can_be_missing(self, tmp_path: Path) -> None:
        (tmp_path / "bare").mkdir()
        with site_at(tmp_path / "bare", cdi=False) as bare:
            with pytest.raises(ApiException) as caught:
                bare.custom.list_cluster_custom_object("cdi.kubevirt.io", "v1beta1", "storageprofiles")
            assert caught.value.status == 404
            assert "cdi.kubevirt.io" not in {g.name for g in client.ApisApi(bare.api).get_api_versions().groups}

    @pytest.mark.parametrize(
        ("method", "path", "code", "reason"),
        [
            ("POST", "/api/v1/namespaces/shop/configmaps", 400, "BadRequest"),
            ("GET", "/apis/example.com/v1/things", 404, "NotFound"),
            ("POST", "/api/v1/namespaces/shop/configmaps/c", 405, "MethodNotAllowed"),
        ],
    )
    def test_nonsense_has_its_status(self, site: Site, method: str, path: str, code: int, reason: str) -> None:
        status, body = site.request(method, path, b"{")
        assert (status, json.loads(body)["reason"]) == (code, reason)

    def test_changes_are_audited_with_their_author(self, site: Site) -> None:
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}}, field_manager="tester")
        site.core.list_namespaced_config_map("shop")
        assert tuple(site.cluster.audit[-1]) == ("create", "configmaps", "shop", "c", "tester")


class TestFaults:
    @pytest.mark.parametrize(("letter", "code"), [("R", 503), ("B", 429), ("E", 401)])
    def test_a_refusal_has_its_code_and_happens_once(self, site: Site, letter: str, code: int) -> None:
        site.cluster.faults.script(letter)
        with pytest.raises(ApiException) as caught:
            site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        assert caught.value.status == code
        assert (caught.value.headers.get("Retry-After") is not None) == (code == 429)
        assert site.cluster.find("ConfigMap", "shop", "c") is None
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})

    def test_a_lost_reply_has_its_effect(self, site: Site) -> None:
        site.cluster.faults.script("L", only=lambda label: label.startswith("POST"))
        with pytest.raises(urllib3.exceptions.HTTPError):
            site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}})
        assert site.cluster.find("ConfigMap", "shop", "c") is not None

    def test_a_hang_lasts_until_the_client_gives_up(self, site: Site) -> None:
        site.cluster.faults.script("H")
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            site.core.list_namespace(_request_timeout=0.2)
        assert site.core.list_namespace().items

    def test_a_body_is_cut(self, site: Site) -> None:
        site.cluster.faults.script("T")
        with pytest.raises((urllib3.exceptions.HTTPError, ValueError)):
            site.core.list_namespace()

    def test_a_stale_read_is_the_world_before_the_last_change(self, site: Site) -> None:
        site.core.create_namespaced_config_map("shop", {"metadata": {"name": "c"}, "data": {"a": "1"}})
        site.core.patch_namespaced_config_map("c", "shop", {"data": {"a": "2"}})
        site.cluster.faults.script("SS")
        assert site.core.read_namespaced_config_map("c", "shop").data == {"a": "1"}
        assert [c.data for c in site.core.list_namespaced_config_map("shop").items] == [{"a": "1"}]
        assert site.core.read_namespaced_config_map("c", "shop").data == {"a": "2"}
        site.core.create_namespaced_secret("shop", {"metadata": {"name": "s"}})
        site.cluster.faults.script("S")
        with pytest.raises(ApiException) as caught:
            site.core.read_namespaced_secret("s", "shop")
        assert caught.value.status == 404
