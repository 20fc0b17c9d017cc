"""Safety rows 22 and 25: what the target's storage may refuse is met with the guest still up."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.actions import EnsureBinder, PowerSource
from reconciler.core.model import Result
from reconciler.core.target import BinderSpec, CopyJob, Owner, Placement, VolumeMode
from reconciler.drivers.kubevirt import pods
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.lab.cluster.seed import ZONE
from reconciler.lab.machines import Happening
from tests.integration.loops import TTL_S, go_on, happened, machine, passes
from tests.integration.simlab import SimLab
from tests.integration.test_safety import arrange, ended, land, live

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def test_row_22_disks_are_bound_in_one_place_before_the_power_off() -> None:
    world = land(disks=2)
    live(world, ended)
    binders = [a for a in world.log if isinstance(a, EnsureBinder)]
    assert len(binders) == 1 and len(binders[0].spec.volumes) == 2
    assert world.log.index(binders[0]) < next(i for i, a in enumerate(world.log) if isinstance(a, PowerSource))


def test_row_22_a_disk_that_cannot_be_bound_leaves_the_guest_on(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.cluster.break_storage("fast", "no topology fits both")
        arrange(lab, disks=2)
        passes(lab, 20)
        assert lab.record("web").phase == "BindVolumes" and machine(lab, "web").power.value == "on"
        assert Happening.GUEST_SHUTDOWN not in happened(lab, "web")


def zoned(lab: SimLab, name: str, *zones: str, waits: bool = False) -> None:
    """A class whose volumes can be used in one of `zones` each; node-a stands in zone a, node-b in zone b."""
    lab.cluster.put(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name},
            "provisioner": "csi.lab.example.com",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer" if waits else "Immediate",
            "allowedTopologies": [{"matchLabelExpressions": [{"key": ZONE, "values": list(zones)}]}],
        }
    )


def mapped(lab: SimLab, **store_to_class: str) -> None:
    text = (lab.clone / "sites.yaml").read_text()
    line = "    - {source: {name: ds}, destination: {storageClass: fast}}\n"
    assert line in text
    rows = (f"    - {{source: {{name: {s}}}, destination: {{storageClass: {c}}}}}\n" for s, c in store_to_class.items())
    lab.write("sites.yaml", text.replace(line, "".join(rows)))


def untouched(lab: SimLab, reason: str, *words: str) -> None:
    """The VM failed by `reason`, its guest never noticed, and nothing of ours is left."""
    record = lab.record("web")
    assert record.result is Result.FAILED and record.error is not None and record.error.reason == reason, record.message
    assert all(word in record.error.message for word in (*words, "The source was not touched")), record.error.message
    assert machine(lab, "web").power.value == "on" and Happening.GUEST_SHUTDOWN not in happened(lab, "web")
    assert not lab.cluster.find_all("PersistentVolumeClaim", "shop") and not lab.cluster.find_all("VirtualMachine", "shop")
    lab.assert_nothing_left()


def test_row_22_two_disks_in_two_zones_are_met_before_the_power_off(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        zoned(lab, "zonal", "a", "b")
        mapped(lab, ds="zonal")
        arrange(lab, disks=2)
        lab.run()
        untouched(lab, "VolumesApart", "can only be used in zone a, PVC ", "only in zone b", "WaitForFirstConsumer")


def test_row_22_without_the_right_to_see_volumes_the_schedulers_words_must_do(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        zoned(lab, "zonal", "a", "b")
        mapped(lab, ds="zonal")
        lab.cluster.deny("list", "persistentvolumes")
        arrange(lab, disks=2)
        passes(lab, 10)
        record = lab.record("web")
        assert record.phase == "Preflight" and record.result is None and "volume node affinity conflict" in record.message
        assert machine(lab, "web").power.value == "on"


def test_row_22_classes_of_two_zones_that_wait_for_a_consumer_never_find_a_node(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        zoned(lab, "in-a", "a", waits=True)
        zoned(lab, "in-b", "b", waits=True)
        second = lab.world.add_datastore("ds2", next(iter(lab.world.datacenters.values())))
        mapped(lab, ds="in-a", ds2="in-b")
        lab.world.add_disk(lab.vm("web", on=False), second, 1, 1)
        lab.world.power_on(machine(lab, "web"))
        lab.plan("web")
        lab.migration()
        lab.commit()
        lab.run()
        untouched(lab, "VolumesApart", "zone a", "zone b")


def test_row_22_a_class_of_two_zones_that_waits_for_a_consumer_binds_in_one(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        zoned(lab, "zonal", "a", "b", waits=True)
        mapped(lab, ds="zonal")
        arrange(lab, disks=2)
        lab.run()
        lab.assert_moved("web")
        volumes = lab.cluster.find_all("PersistentVolume")
        terms = [v["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0] for v in volumes]
        assert len(terms) == 2 and terms[0]["values"] == terms[1]["values"]


OWNER = Owner("ns/plan", "ns/run", "web", "site/uuid", "None", "")


@pytest.mark.parametrize("mode", list(VolumeMode))
def test_row_25_pods_run_as_the_user_that_the_guest_runs_as(mode: VolumeMode) -> None:
    settings = TargetSettings("w:1")
    made = [
        pods.binder(BinderSpec("shop", "b", (("pvc", mode),), Placement(), OWNER), settings)["spec"],
        pods.importer(CopyJob("shop", "j", (("d", "pvc", mode),), Placement(), OWNER, "r", 1), settings)["spec"]["template"]["spec"],
    ]
    for spec in made:
        context = spec["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"], context["runAsNonRoot"]) == (107, 107, 107, True)


@pytest.mark.parametrize(("mode", "remedy"), [("Block", "device_ownership_from_security_context"), ("Filesystem", "fsGroup")])
def test_row_25_a_class_that_the_pod_cannot_open_is_met_with_the_guest_on(tmp_path: Path, mode: str, remedy: str) -> None:
    """The kernel refuses the real program, which meets EROFS instead where this machine mounts /sys read-only."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.cluster.refuse_volumes("fast")
        mapped(lab, ds=f"fast, volumeMode: {mode}")
        arrange(lab)
        lab.run()
        read_only = "(EROFS)" in lab.record("web").message
        words = ("(EROFS)", "mounted read-only") if read_only else ("(EACCES)", remedy)
        untouched(lab, "VolumeNotUsable", f"fast ({mode}, ReadWriteOnce)", *words)


def test_row_25_only_the_vms_of_that_class_fail_and_a_mended_one_is_taken_again(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.cluster.refuse_volumes("fast")
        second = lab.world.add_datastore("ds2", next(iter(lab.world.datacenters.values())))
        mapped(lab, ds="fast", ds2="bulk")
        lab.vm("web")
        lab.world.add_disk(lab.vm("db", disks=0, on=False), second, 1, 1)
        lab.plan("web", "db")
        lab.migration()
        lab.commit()
        lab.run()
        results = {v.name: v.result for v in lab.vms()}
        assert results == {"web": Result.FAILED, "db": Result.SUCCEEDED}
        assert machine(lab, "web").power.value == "on" and Happening.GUEST_SHUTDOWN not in happened(lab, "web")
        lab.cluster.refuse_volumes("fast", on=False)
        lab.migration("run-2")
        lab.commit()
        go_on(lab, lambda: len(lab.vms()) == 3 and lab.ended())
        assert {v.result for v in lab.vms() if v.run.name == "run-2"} == {Result.SUCCEEDED}


def test_row_25_a_trial_that_a_quota_forbids_waits_and_a_cancel_takes_it_back(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": "shop"}}
        lab.cluster.put({**quota, "spec": {"hard": {"pods": "0"}}})
        arrange(lab)
        go_on(lab, lambda: bool(lab.vms()) and any(c.reason == "QuotaExceeded" for c in lab.record("web").conditions))
        assert machine(lab, "web").power.value == "on" and not lab.record("web").unwinding
        for node in ("node-a", "node-b"):
            lab.cluster.cordon(node)
        lab.cluster.put({**quota, "spec": {"hard": {"pods": "9"}}})
        go_on(lab, lambda: bool(lab.cluster.find_all("Pod", "shop")))
        lab.migration(cancel=["web"])
        lab.commit()
        go_on(lab, lab.ended)
        assert lab.record("web").result is Result.CANCELED and not lab.cluster.find_all("PersistentVolumeClaim", "shop")
        lab.assert_nothing_left()


def test_row_25_disks_are_mounted_before_any_power_off() -> None:
    """The binder pod, with the importer's user, opens every PVC first: a class that it cannot mount is met with the guest on."""
    world = land()
    live(world, ended)
    kinds = [type(a) for a in world.log]
    assert kinds.index(EnsureBinder) < kinds.index(PowerSource)
