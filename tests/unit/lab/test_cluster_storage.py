"""Volumes and scheduling of the simulated cluster: binding modes, growth, protection, nodes. Simulated time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client import ApiException

from tests.unit.lab.clusterkit import Site, claim, pod, site_at


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_at(tmp_path) as made:
        yield made


def make(site: Site, name: str, storage_class: str = "bulk", **spec: object) -> None:
    site.core.create_namespaced_persistent_volume_claim("shop", claim(name, storage_class, **spec))


def phase(site: Site, name: str) -> str:
    return str(site.core.read_namespaced_persistent_volume_claim(name, "shop").status.phase)


def reasons(site: Site, uid: str) -> list[str]:
    return [e.reason for e in site.core.list_namespaced_event("shop", field_selector=f"involvedObject.uid={uid}").items]


class TestBinding:
    def test_immediate_binds_at_once_and_the_other_waits_for_a_binder(self, site: Site) -> None:
        make(site, "now")
        make(site, "later-a", "fast")
        make(site, "later-b", "fast")
        site.cluster.step()
        assert [phase(site, name) for name in ("now", "later-a", "later-b")] == ["Bound", "Pending", "Pending"]
        waiting = site.core.read_namespaced_persistent_volume_claim("later-a", "shop")
        assert reasons(site, waiting.metadata.uid) == ["WaitForFirstConsumer"]
        site.core.create_namespaced_pod("shop", pod("binder", ["later-a", "later-b"]))
        site.cluster.step()
        assert phase(site, "later-a") == phase(site, "later-b") == "Bound"
        binder = site.core.read_namespaced_pod("binder", "shop")
        assert (binder.status.phase, binder.spec.node_name) == ("Running", "node-a")
        bound = site.core.read_namespaced_persistent_volume_claim("later-a", "shop")
        assert bound.metadata.annotations["volume.kubernetes.io/selected-node"] == "node-a"
        assert site.core.read_persistent_volume(bound.spec.volume_name).spec.claim_ref.uid == bound.metadata.uid

    def test_a_filesystem_is_a_folder_and_a_block_volume_a_sparse_file(self, site: Site) -> None:
        make(site, "fs")
        make(site, "block", volumeMode="Block", size="3Gi")
        with pytest.raises(KeyError):
            site.cluster.volume_path("shop", "fs")
        site.cluster.step()
        folder = site.cluster.volume_path("shop", "fs")
        assert (folder.name, folder.parent.is_dir(), folder.exists()) == ("disk.img", True, False)
        block = site.cluster.volume_path("shop", "block")
        assert block.stat().st_size == 3 << 30
        assert block.stat().st_blocks == 0

    def test_a_backend_that_fails_says_so_until_it_is_mended(self, site: Site) -> None:
        site.cluster.break_storage("bulk", "no space in pool")
        make(site, "p")
        site.cluster.step()
        uid = site.core.read_namespaced_persistent_volume_claim("p", "shop").metadata.uid
        assert (phase(site, "p"), reasons(site, uid)) == ("Pending", ["ProvisioningFailed"])
        site.cluster.break_storage("bulk", None)
        site.cluster.step()
        assert phase(site, "p") == "Bound"

    def test_the_default_class_is_filled_in(self, site: Site) -> None:
        body = claim("p")
        del body["spec"]["storageClassName"]
        assert site.core.create_namespaced_persistent_volume_claim("shop", body).spec.storage_class_name == "fast"

    def test_a_claim_grows_and_never_shrinks(self, site: Site) -> None:
        make(site, "block", volumeMode="Block", size="1Mi")
        site.cluster.step()
        change = {"spec": {"resources": {"requests": {"storage": "2Mi"}}}}
        site.core.patch_namespaced_persistent_volume_claim("block", "shop", change)
        site.cluster.step()
        assert site.core.read_namespaced_persistent_volume_claim("block", "shop").status.capacity == {"storage": "2Mi"}
        assert site.cluster.volume_path("shop", "block").stat().st_size == 2 << 20
        for wrong in ({"resources": {"requests": {"storage": "1Mi"}}}, {"storageClassName": "fast"}, {"volumeMode": "Filesystem"}):
            with pytest.raises(ApiException) as caught:
                site.core.patch_namespaced_persistent_volume_claim("block", "shop", {"spec": wrong})
            assert caught.value.status == 422

    def test_a_claim_in_use_goes_after_its_pod_and_takes_its_bytes(self, site: Site) -> None:
        make(site, "p")
        site.core.create_namespaced_pod("shop", pod("user", ["p"]))
        site.cluster.step()
        folder = site.cluster.volume_path("shop", "p").parent
        site.core.delete_namespaced_persistent_volume_claim("p", "shop")
        site.cluster.step()
        assert site.core.read_namespaced_persistent_volume_claim("p", "shop").metadata.deletion_timestamp is not None
        assert folder.is_dir()
        site.core.delete_namespaced_pod("user", "shop")
        site.cluster.step()
        assert site.cluster.find("PersistentVolumeClaim", "shop", "p") is None
        assert site.cluster.find_all("PersistentVolume") == []
        assert not folder.exists()

    def test_a_pod_that_has_ended_still_holds_its_claim(self, site: Site) -> None:
        make(site, "p")
        site.core.create_namespaced_pod("shop", pod("ended", ["p"], ["true"]))
        site.cluster.step()
        assert site.core.read_namespaced_pod("ended", "shop").status.phase == "Succeeded"
        site.core.delete_namespaced_persistent_volume_claim("p", "shop")
        site.cluster.step()
        assert site.cluster.find("PersistentVolumeClaim", "shop", "p") is not None
        site.core.delete_namespaced_pod("ended", "shop")
        site.cluster.step()
        assert site.cluster.find("PersistentVolumeClaim", "shop", "p") is None


class TestScheduling:
    def test_a_missing_claim_is_unschedulable_until_it_comes(self, site: Site) -> None:
        site.core.create_namespaced_pod("shop", pod("p", ["data"]))
        site.cluster.step()
        waiting = site.core.read_namespaced_pod("p", "shop")
        (condition,) = waiting.status.conditions
        assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable")
        assert 'persistentvolumeclaim "data" not found' in condition.message
        assert reasons(site, waiting.metadata.uid) == ["FailedScheduling"]
        make(site, "data", "fast")
        site.cluster.step()
        assert site.core.read_namespaced_pod("p", "shop").status.phase == "Running"

    def test_nodes_are_chosen_by_selector_and_cordon(self, site: Site) -> None:
        site.core.create_namespaced_pod("shop", pod("b", nodeSelector={"kubernetes.io/hostname": "node-b"}))
        site.cluster.cordon("node-a")
        site.core.create_namespaced_pod("shop", pod("any"))
        site.cluster.step()
        assert {p.spec.node_name for p in site.core.list_namespaced_pod("shop").items} == {"node-b"}
        site.cluster.cordon("node-b")
        site.core.create_namespaced_pod("shop", pod("none"))
        site.cluster.step()
        assert site.core.read_namespaced_pod("none", "shop").spec.node_name is None
        site.cluster.cordon("node-a", False)
        site.cluster.step()
        assert site.core.read_namespaced_pod("none", "shop").spec.node_name == "node-a"

    def test_a_volume_of_one_node_is_not_attached_to_another(self, site: Site) -> None:
        make(site, "p")
        site.core.create_namespaced_pod("shop", pod("first", ["p"]))
        site.cluster.step()
        site.core.create_namespaced_pod("shop", pod("near", ["p"]))
        site.core.create_namespaced_pod("shop", pod("far", ["p"], nodeSelector={"kubernetes.io/hostname": "node-b"}))
        site.cluster.step()
        phases = {p.metadata.name: p.status.phase for p in site.core.list_namespaced_pod("shop").items}
        assert phases == {"first": "Running", "near": "Running", "far": "Pending"}
        far = site.core.read_namespaced_pod("far", "shop").metadata.uid
        assert "FailedMount" in reasons(site, far)
        for name in ("first", "near"):
            site.core.delete_namespaced_pod(name, "shop")
        site.cluster.step()
        assert site.core.read_namespaced_pod("far", "shop").status.phase == "Running"

    def test_a_lost_node_gets_no_pods(self, site: Site) -> None:
        for node in ("node-a", "node-b"):
            site.cluster.set_node_ready(node, False)
        site.core.create_namespaced_pod("shop", pod("p"))
        site.cluster.step()
        assert site.core.read_namespaced_pod("p", "shop").spec.node_name is None
        ready = [c.status for n in site.core.list_node().items for c in n.status.conditions if c.type == "Ready"]
        assert ready == ["Unknown", "Unknown"]

    def test_repeated_troubles_are_one_event_and_events_expire(self, site: Site) -> None:
        site.core.create_namespaced_pod("shop", pod("p", ["data"]))
        for _ in range(5):
            site.later(30)
        (event,) = site.core.list_namespaced_event("shop").items
        assert (event.reason, event.count) == ("FailedScheduling", 5)
        site.core.delete_namespaced_pod("p", "shop")
        site.later(3700)
        assert site.core.list_namespaced_event("shop").items == []
