"""Real processes in real time: `reconciler run --once` against sites on loopback; SIGKILL, two of them on one repo, and secrets.

The sites run in this process; the reconciler and its copy pods are processes of their own, as in the field.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.model import Result
from reconciler.core.record import Records
from reconciler.lab.clock import WallClock
from reconciler.lab.cluster.site import Cluster
from reconciler.lab.machines import Happening, Power
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.manifests.recordstore import RecordStore
from reconciler.ports import Blob, Tree
from tests.integration.simlab import MANIFESTS, MIGRATION, PLAN

USER, PASSWORD = "svc@vsphere.local", "s3cret-of-the-vcenter"
NAMES = ("web", "db", "batch", "Old App")
EFFECTS = 84  # more than a run of the four has


class Field:
    """Sites in real time, a bare repo with the estate in it, and reconcilers as processes."""

    def __init__(self, root: Path, mib: int = 8) -> None:
        self.root = root
        clock = WallClock()
        ca = LabCa(root / "pki")
        self.world = World(root / "vsphere", clock)
        dc = self.world.add_datacenter("DC1")
        host = self.world.add_host("esx-1", self.world.add_cluster("C1", dc))
        store = self.world.add_datastore("ds", dc)
        network = self.world.add_network("VM Network", dc)
        for name in NAMES:
            vm = self.world.add_vm(name, host)
            for _ in range(2 if name == "db" else 1):
                self.world.add_disk(vm, store, mib, mib // 2)
            self.world.add_nic(vm, network)
            if name != "batch":
                self.world.power_on(vm)
        self.vcenter = VCenter(self.world, ca, clock, user=USER, password=PASSWORD)
        self.cluster = Cluster(root / "cluster", ca, clock, programs={"reconciler": [sys.executable, "-m", "reconciler"]})
        data = {"user": USER, "password": PASSWORD, "ca.crt": ca.pem}
        meta = {"name": "vc-credentials", "namespace": "openshift-mtv"}
        self.cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data})
        self.repo, self.clone = root / "repo.git", root / "clone"

    def __enter__(self) -> Field:
        self.world.start()
        self.vcenter.start()
        self.cluster.start()
        self.cluster.write_kubeconfig(self.root / "kubeconfig")
        git("init", "-q", "--bare", "-b", "main", str(self.repo), cwd=self.root)
        git("clone", "-q", str(self.repo), str(self.clone), cwd=self.root)
        git("checkout", "-q", "-b", "main", cwd=self.clone)
        vms = "[" + ", ".join(f'{{name: "{n}"}}' for n in NAMES) + "]"
        text = MANIFESTS.format(url=self.vcenter.url)
        text += "---\n" + PLAN.format(name="wave", namespace="shop", vms=vms, annotations="{}", type="cold")
        text += "---\n" + MIGRATION.format(name="run-1", plan="wave", more="")
        (self.clone / "all.yaml").write_text(text)
        git("add", "-A", cwd=self.clone)
        git("commit", "-q", "-m", "Move them", cwd=self.clone)
        git("push", "-q", "origin", "main", cwd=self.clone)
        return self

    def __exit__(self, *exc: object) -> None:
        self.cluster.stop()
        self.vcenter.stop()
        self.world.stop()

    def start(self, number: int = 1, *more: str, program: tuple[str, ...] = ("reconciler",)) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", *program, "run", "--repo", str(self.repo), "--once", "--max-wait", "20", "--lease-ttl", "3"]
        argv += [
            "--cache-dir",
            str(self.root / f"cache-{number}"),
            "--kubeconfig",
            str(self.root / "kubeconfig"),
            "--poll-interval",
            "1",
            *more,
        ]
        log = (self.root / f"log-{number}.txt").open("a")
        try:
            return subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        finally:
            log.close()

    def log(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.root.glob("log-*.txt")))

    def records(self) -> Records:
        out = subprocess.run(["git", "-C", str(self.repo), "ls-tree", "-r", "reconciler/status"], capture_output=True, text=True).stdout
        blobs = tuple(Blob(line.split("\t", 1)[1], line.split()[2]) for line in out.splitlines())

        def read(ids: object) -> dict[str, bytes]:
            return {i: git("cat-file", "blob", i, cwd=self.repo).encode() for i in ids}  # type: ignore[attr-defined]

        return RecordStore().update(Tree("head", blobs), read)

    def assert_moved(self) -> None:
        records = self.records()
        vms = {v.name: v for v in records.vms.values()}
        assert set(vms) == set(NAMES)
        for name, record in vms.items():
            assert record.result is Result.SUCCEEDED, f"{name}: {record.phase} {record.message}\n{self.log()[-4000:]}"
            assert record.frozen is not None
            vm = self.world.vm(name)
            assert vm.power is Power.OFF
            for disk, source in zip(record.frozen.disks, vm.disks, strict=True):
                want = self.world.bytes_at_power_off(vm, source).read_bytes()
                assert self.cluster.volume_path("shop", disk.pvc).read_bytes()[: len(want)] == want, f"{name} {disk.label}"
        running = {r.name for r in self.cluster.running_vms()}
        assert running == {"web", "db", "old-app"}
        assert len(self.cluster.vm_starts) == 3, "each target was started once"
        kinds = [e.kind for e in self.world.history]
        assert kinds.count(Happening.GUEST_SHUTDOWN) == 3 and kinds.count(Happening.OFF) == 3, "no power action twice"


def git(*args: str, cwd: Path) -> str:
    return subprocess.run(["git", *args], cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    with Field(tmp_path) as made:
        yield made


def test_run_once_moves_the_estate_and_shows_no_secret(field: Field) -> None:
    """A whole run as cron starts it; then no credential is in git, logs, status, events, argv or objects other than Secrets."""
    seen: set[str] = set()
    process = field.start()
    while process.poll() is None:
        seen.update(command_lines())
        time.sleep(0.05)
    assert process.returncode == 0, field.log()[-4000:]
    field.assert_moved()
    everything = git("log", "-p", "--all", cwd=field.repo) + field.log() + "\n".join(seen)
    for kind in ("Job", "Pod", "ConfigMap", "Event", "PersistentVolumeClaim", "VirtualMachine"):
        everything += str(field.cluster.find_all(kind))
    everything += "".join(p.read_text(errors="replace") for p in field.root.glob("cluster/**/*.log"))
    assert any("reconciler worker" in line or "reconciler run" in line for line in seen), "argv was looked at"
    for secret in (PASSWORD, field.cluster.token):
        assert secret not in everything


def command_lines() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


def test_killed_at_sampled_moments_it_goes_on(field: Field) -> None:
    """kill -9, again and again, in the middle of whatever it is doing: twenty lives, each a little longer than the one before had."""
    rng = random.Random(7)
    lives = 0
    deadline = time.monotonic() + 150
    while lives < 20:
        process = field.start()
        lives += 1
        end = time.monotonic() + rng.uniform(0.8, 3.0)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert lives >= 3, "it was killed in the middle of its work"
    process = field.start()
    assert process.wait(timeout=max(30.0, deadline - time.monotonic())) == 0, field.log()[-4000:]
    field.assert_moved()


@pytest.mark.deep
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(EFFECTS))
def test_killed_at_every_effect_it_goes_on(field: Field, at: int, when: str) -> None:
    """kill -9 before and after the n-th push to git, write to the cluster or act on the vCenter; the next process ends the same."""
    process = field.start(program=("tests.integration.dying", str(at), when))
    died = process.wait(timeout=240) == -signal.SIGKILL
    if died:
        process = field.start()
        assert process.wait(timeout=240) == 0, field.log()[-4000:]
    field.assert_moved()
    if not died:
        pytest.skip("the run has fewer effects")


def test_two_reconcilers_on_one_repo(field: Field) -> None:
    """Loop and cron at once: one writes, the other waits; when the writer is killed the other takes over within a TTL."""
    first, second = field.start(1), field.start(2)
    time.sleep(4.0)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait(timeout=120) == 0, field.log()[-4000:]
    field.assert_moved()


def test_workers_killed_again_and_again(field: Field) -> None:
    """Copy pods (no trial mounts) are killed in mid-copy; each gets another attempt under a new name; the bytes are equal in the end."""
    process = field.start()
    killed: set[int] = set()
    deadline = time.monotonic() + 60
    while process.poll() is None and len(killed) < 4 and time.monotonic() < deadline:
        for pid in workers_of(field) - killed:
            time.sleep(0.15)
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(pid)
        time.sleep(0.02)
    assert killed, "no worker was caught at work"
    assert process.wait(timeout=120) == 0, field.log()[-4000:]
    field.assert_moved()
    assert max(v.attempt for v in field.records().vms.values()) > 1


def workers_of(field: Field) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "reconciler worker" in line and " --try " not in line and str(field.root) in line:
                found.add(int(entry.name))
    return found
