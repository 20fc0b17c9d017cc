"""The lab's whole cold estate, from the lab's vCenter to a real kube-apiserver: real engine, real worker processes, real CRD schemas.

What the lab's own cluster can only claim is judged here by software of others: our objects under fieldValidation=Strict, our owner
references by the real garbage collector, and rbac.RULES by the real authorizer (the engine has no other rights).
"""

from __future__ import annotations

import base64
import gc
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.app import build_engine
from reconciler.core.model import Result
from reconciler.core.record import Records, VmRecord
from reconciler.engine.loop import PassReport
from reconciler.lab.clock import WallClock
from reconciler.lab.machines import Power
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.estate import build_shop_estate
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.settings import Settings, inherited_environment
from tests.e2e import node, volumes
from tests.e2e.admin import Admin, Json, Refused
from tests.e2e.control_plane import HOME, ControlPlane

EXAMPLES = Path(__file__).parents[2] / "examples" / "repo"
USER, PASSWORD = "svc-reconciler@vsphere.local", "e2e-only-Pa55word"
SHOP = "shop"
MANAGED = "?labelSelector=app.kubernetes.io/managed-by=reconciler"


@dataclass
class Estate:
    plane: ControlPlane
    world: World
    cluster: node.Node
    repo: Path
    reports: list[PassReport]
    seconds: float
    seen: list[Json]  # every Secret and Job of ours, as met on the way

    @property
    def admin(self) -> Admin:
        return self.plane.admin

    @property
    def records(self) -> Records:
        return self.reports[-1].records

    def record(self, name: str) -> VmRecord:
        return next(vm for vm in self.records.vms.values() if vm.name == name)


def git(*args: str, cwd: Path) -> str:
    return subprocess.run(["git", *args], cwd=cwd, check=True, capture_output=True, text=True).stdout


def push_examples(root: Path, url: str) -> Path:
    repo, clone = root / "repo.git", root / "clone"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(repo), cwd=root)
    git("clone", "--quiet", str(repo), str(clone), cwd=root)
    shutil.copytree(EXAMPLES, clone, dirs_exist_ok=True, ignore=shutil.ignore_patterns("shop-wave-2*"))  # the cold estate
    provider = clone / "providers" / "vcenter-lab.yaml"
    provider.write_text(provider.read_text().replace("https://127.0.0.1:18443/sdk", url))
    git("add", "-A", cwd=clone)
    git("commit", "--quiet", "-m", "Move the shop", cwd=clone)
    git("push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return repo


def furnish(plane: ControlPlane) -> None:
    """What a platform team has there already."""
    volumes.storage_classes(plane.admin)
    plane.namespace(SHOP)
    credentials = {"user": USER, "password": PASSWORD, "ca.crt": plane.ca.pem}
    plane.admin.ensure(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "vcenter-lab-credentials", "namespace": HOME},
            "stringData": credentials,
        }
    )
    plane.admin.ensure(
        {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": "vlan-210", "namespace": SHOP},
            "spec": {"config": '{"cniVersion": "0.3.1", "type": "bridge", "bridge": "br-app", "vlan": 210}'},
        }
    )


@pytest.fixture(scope="module")
def moved(control_plane: ControlPlane, e2e_ca: LabCa, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """The estate after `reconciler run --once`."""
    root = tmp_path_factory.mktemp("estate")
    furnish(control_plane)
    clock = WallClock()
    world = World(root / "vsphere", clock)
    build_shop_estate(world)
    vcenter = VCenter(world, e2e_ca, clock, port=0, user=USER, password=PASSWORD)
    cluster = node.Node(
        control_plane.admin, root / "node", e2e_ca.server_context("kubelet-2")[0], {"reconciler": node.python_module("reconciler")}
    )
    for part in (world, vcenter):
        part.start()
    cluster.follow(SHOP)
    try:
        yield run(control_plane, world, vcenter.url, cluster, root)
    finally:
        cluster.close()
        vcenter.stop()
        world.stop()
        gc.collect()


def run(plane: ControlPlane, world: World, url: str, cluster: node.Node, root: Path) -> Estate:
    kubeconfig = root / "kubeconfig"
    plane.write_kubeconfig(kubeconfig)
    repo = push_examples(root, url)
    settings = Settings(
        repo=str(repo),
        lease_ttl_s=5.0,
        poll_s=1.0,
        commit_interval_s=2.0,
        cache_dir=root / "cache",
        kubeconfig=kubeconfig,
        worker_image="reconciler:e2e",
        holder="e2e",
        environment=inherited_environment(),
    )
    reports: list[PassReport] = []
    seen: list[Json] = []
    engine = build_engine(settings, loop=True)
    began = time.monotonic()

    def on_pass(report: PassReport) -> bool:
        reports.append(report)
        seen.extend(obj for kind in ("Secret", "Job") for obj in plane.admin.all(kind, SHOP, MANAGED))
        return time.monotonic() - began < 240

    try:
        engine.run(once=True, max_wait_s=60.0, on_pass=on_pass)
    finally:
        engine.close()
    return Estate(plane, world, cluster, repo, reports, time.monotonic() - began, seen)


def eventually(met: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "the cluster did not get there in time"
        time.sleep(0.2)


def test_every_vm_succeeds(moved: Estate) -> None:
    ended = {vm.name: (vm.result, vm.message) for vm in moved.records.vms.values()}
    assert {name: result for name, (result, _) in ended.items()} == dict.fromkeys(
        ("web-01", "db-01", "batch-01", "Legacy App_01"), Result.SUCCEEDED
    ), ended
    assert moved.cluster.troubles == []
    print(f"\n{len(ended)} VMs on a real API server in {moved.seconds:.1f} s, {len(moved.reports)} passes")


@pytest.mark.parametrize("name", ["web-01", "db-01", "batch-01", "Legacy App_01"])
def test_bytes_are_those_at_power_off(moved: Estate, name: str) -> None:
    record, machine = moved.record(name), moved.world.vm(name)
    assert record.frozen is not None
    for disk in record.frozen.disks:
        source = next(d for d in machine.disks if d.uuid == disk.uuid)
        want = moved.world.bytes_at_power_off(machine, source).read_bytes()
        volume = moved.cluster.volumes.path(SHOP, disk.pvc)
        assert (volume / "disk.img").read_bytes()[: len(want)] == want


def test_power_is_as_asked_on_both_sides(moved: Estate) -> None:
    vms = {vm["metadata"]["name"]: vm for vm in moved.admin.all("VirtualMachine", SHOP)}
    want = {"web-01": "Always", "db-01": "Always", "batch-01": "Halted", "legacy-app-01": "Always"}
    assert {name: vm["spec"]["runStrategy"] for name, vm in vms.items()} == want
    eventually(lambda: {vmi["metadata"]["name"] for vmi in moved.admin.all("VirtualMachineInstance", SHOP)} == {*want} - {"batch-01"})
    on = {vm.name for vm in moved.world.vms.values() if vm.power is Power.ON}
    assert on == {"bystander-01", "bystander-02", "bystander-03"}  # 04 was off before


def test_nothing_of_a_copy_is_left(moved: Estate) -> None:
    eventually(lambda: not any(moved.admin.all(kind, SHOP, MANAGED) for kind in ("Job", "Pod", "Secret")))


def test_each_copys_secret_belonged_to_its_job(moved: Estate) -> None:
    jobs = {obj["metadata"]["uid"] for obj in moved.seen if obj["kind"] == "Job"}
    secrets = [obj for obj in moved.seen if obj["kind"] == "Secret"]
    assert secrets
    assert all({owner["uid"] for owner in obj["metadata"]["ownerReferences"]} <= jobs for obj in secrets)


def test_the_password_is_in_secrets_only(moved: Estate) -> None:
    needles = (PASSWORD, base64.b64encode(PASSWORD.encode()).decode())
    objects = [obj for obj in moved.seen if obj["kind"] != "Secret"]
    for kind in ("Pod", "Event", "PersistentVolumeClaim", "VirtualMachine", "ConfigMap"):
        objects += moved.admin.all(kind, SHOP)
    assert not any(needle in json.dumps(objects) for needle in needles)
    story = git("log", "-p", "reconciler/status", cwd=moved.repo)
    assert "web-01" in story
    assert not any(needle in story for needle in needles)


def test_the_engine_had_no_rights_but_its_rules(moved: Estate) -> None:
    ours = Admin(moved.plane.url, moved.plane.token, str(moved.plane.ca.path))
    try:
        for kind in ("Secret", "ConfigMap", "ClusterRole"):
            with pytest.raises(Refused, match="cannot list resource"):
                ours.all(kind)
    finally:
        ours.close()


def test_volumes_go_with_their_vm_by_the_real_collector(moved: Estate) -> None:
    """Last: it takes the finished VM away, as a person would a year later."""
    record = moved.record("db-01")
    assert record.frozen is not None
    claims = {disk.pvc for disk in record.frozen.disks}
    assert len(claims) == 2
    vm = moved.admin.get("VirtualMachine", SHOP, "db-01")
    assert vm is not None
    moved.admin.delete({**vm, "kind": "VirtualMachine"})
    eventually(lambda: not claims & {claim["metadata"]["name"] for claim in moved.admin.all("PersistentVolumeClaim", SHOP)})
    assert moved.admin.get("VirtualMachineInstance", SHOP, "db-01") is None
    assert len(moved.admin.all("PersistentVolumeClaim", SHOP)) == 3
