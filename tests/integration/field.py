"""The ground of tests with real processes in real time: sites on loopback, in the test's own process, and `reconciler run` beside them.

What it is: a vCenter, a cluster, a bare repo, and what the sites saw. The reconciler and its copy pods are processes, as in the field.
What it is not: simulated time; that is simlab.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.core.copyspec import CopySpec
from reconciler.core.model import Result
from reconciler.core.record import Records
from reconciler.lab.clock import WallClock
from reconciler.lab.cluster.launcher import Process, SubprocessLauncher
from reconciler.lab.cluster.site import Cluster
from reconciler.lab.machines import Happening, Power, Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.manifests.recordstore import RecordStore
from reconciler.ports import Blob, Tree
from tests.integration.simlab import MANIFESTS, MIGRATION, PLAN

USER, PASSWORD = "svc@vsphere.local", "s3cret-of-the-vcenter"
NAMES = ("web", "db", "batch", "Old App")
CHECKOUT = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}  # pods run the code that is tested
STATUS, LEASE = "reconciler/status", "reconciler/lease"


class Pods(SubprocessLauncher):
    """Keeps how each container was started, what it said, and which disks each copy (no trial mount) was to carry."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir()
        self._logs = logs
        self.started: list[tuple[list[str], dict[str, str]]] = []
        self.copied: Counter[str] = Counter()  # disk uuid -> number of copies

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log_path: Path) -> Process:
        self.started.append((list(argv), dict(env)))
        if "--try" not in argv:
            self.copied.update(d.uuid for d in CopySpec.from_json(Path(argv[-1]).read_text()).disks)
        process = super().start(argv, {**CHECKOUT, **env}, cwd, log_path)
        os.link(log_path, self._logs / f"{len(self.started)}.log")  # the pod's own folder goes with the pod
        return process


class Field:
    """Sites in real time, a bare repo with the estate in it, and reconcilers as processes."""

    def __init__(self, root: Path, mib: int = 8, password: str = PASSWORD) -> None:
        self.root, self.mib = root, mib
        clock = WallClock()
        self.ca = ca = LabCa(root / "pki")
        self.world = World(root / "vsphere", clock)
        dc = self.world.add_datacenter("DC1")
        self._host = self.world.add_host("esx-1", self.world.add_cluster("C1", dc))
        self._store = self.world.add_datastore("ds", dc, base_readable=True)
        self._network = self.world.add_network("VM Network", dc)
        for name in NAMES:
            self.vm(name, disks=2 if name == "db" else 1, on=name != "batch")
        self.pods = Pods(root / "pods-logs")
        self.vcenter = VCenter(self.world, ca, clock, user=USER, password=password)
        program = [sys.executable, "-m", "reconciler"]
        self.cluster = Cluster(root / "cluster", ca, clock, programs={"reconciler": program}, launcher=self.pods)
        self.secret("vc-credentials", user=USER, password=password)
        self.repo, self.clone = root / "repo.git", root / "clone"

    def __enter__(self) -> Field:
        self.world.start()
        self.vcenter.start()
        self.cluster.start()
        self.cluster.write_kubeconfig(self.root / "kubeconfig")
        git("init", "-q", "--bare", "-b", "main", str(self.repo), cwd=self.root)
        git("clone", "-q", str(self.repo), str(self.clone), cwd=self.root)
        git("checkout", "-q", "-b", "main", cwd=self.clone)
        self.write("sites.yaml", MANIFESTS.format(url=self.vcenter.url))
        return self

    def __exit__(self, *exc: object) -> None:
        self.cluster.stop()
        self.vcenter.stop()
        self.world.stop()

    # ---- arranging ----

    def vm(self, name: str, *, disks: int = 1, on: bool = True, tracked: bool = False) -> Vm:
        vm = self.world.add_vm(name, self._host)
        for _ in range(disks):
            self.world.add_disk(vm, self._store, self.mib, self.mib // 2)
        self.world.add_nic(vm, self._network)
        if tracked:
            self.world.set_change_tracking(vm, True)
        if on:
            self.world.power_on(vm)
        return vm

    def secret(self, name: str, **data: str) -> None:
        meta = {"name": name, "namespace": "openshift-mtv"}
        self.cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data | {"ca.crt": self.ca.pem}})

    def run_of(self, *names: str, plan: str = "wave", kind: str = "cold", annotations: str = "{}", more: str = "") -> None:
        """A plan of these VMs, and the migration that starts it."""
        vms = "[" + ", ".join(f'{{name: "{n}"}}' for n in names) + "]"
        text = PLAN.format(name=plan, namespace="shop", vms=vms, annotations=annotations, type=kind)
        self.write(f"{plan}.yaml", text + "---\n" + MIGRATION.format(name=f"{plan}-run", plan=plan, more=more))

    def write(self, path: str, text: str) -> None:
        (self.clone / path).write_text(text)

    def commit(self, message: str = "Move them") -> None:
        git("add", "-A", cwd=self.clone)
        git("commit", "-q", "-m", message, cwd=self.clone)
        git("push", "-q", "origin", "main", cwd=self.clone)

    # ---- running ----

    def start(
        self,
        number: int = 1,
        *more: str,
        program: tuple[str, ...] = ("reconciler",),
        once: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """`more` wins over what is set here."""
        flags = {"repo": self.repo, "cache-dir": self.root / f"cache-{number}", "kubeconfig": self.root / "kubeconfig"}
        flags |= {"max-wait": "20", "lease-ttl": "3", "poll-interval": "1"}
        argv = [sys.executable, "-m", *program, "run", *(["--once"] if once else [])]
        argv += [part for name, value in flags.items() for part in (f"--{name}", str(value))] + list(more)
        with self.log_path(number).open("a") as log:
            return subprocess.Popen(
                argv,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def log_path(self, number: int) -> Path:
        return self.root / f"log-{number}.txt"

    def let_go_of_the_lease(self) -> None:
        """What a dead holder's lease comes to after a TTL, without the wait."""
        git("update-ref", "-d", f"refs/heads/{LEASE}", cwd=self.repo)

    # ---- judging ----

    def log(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.root.glob("log-*.txt")))

    def records(self, commit: str = STATUS, store: RecordStore | None = None) -> Records:
        """What the status branch says, or said; a `store` makes the next reading quick."""
        done = subprocess.run(["git", "-C", str(self.repo), "ls-tree", "-r", commit], capture_output=True, text=True)
        blobs = tuple(Blob(line.split("\t", 1)[1], line.split()[2]) for line in done.stdout.splitlines())
        return (store or RecordStore()).update(Tree(commit, blobs), self._read)

    def _read(self, ids: Sequence[str]) -> dict[str, bytes]:
        asked = "".join(f"{i}\n" for i in ids).encode()
        out = subprocess.run(["git", "-C", str(self.repo), "cat-file", "--batch"], input=asked, capture_output=True, check=True).stdout
        found: dict[str, bytes] = {}
        for name in ids:
            head, _, out = out.partition(b"\n")
            size = int(head.split()[2])
            found[name], out = out[:size], out[size + 1 :]
        return found

    def assert_moved(self, *names: str) -> None:
        """Each of these VMs (all four, if none is named) is where it should be, with its bytes, and was switched off and on once."""
        records = self.records()
        vms = {v.name: v for v in records.vms.values()}
        for name in names or NAMES:
            record = vms[name]
            assert record.result is Result.SUCCEEDED, f"{name}: {record.phase} {record.message}\n{self.log()[-4000:]}"
            assert record.frozen is not None
            vm = self.world.vm(name)
            assert vm.power is Power.OFF
            for disk in record.frozen.disks:
                source = next(d for d in vm.disks if d.uuid == disk.uuid)
                want = self.world.bytes_at_power_off(vm, source).read_bytes()
                assert self.cluster.volume_path("shop", disk.pvc).read_bytes()[: len(want)] == want, f"{name} {disk.label}"
            kinds = [e.kind for e in self.world.history if e.vm == vm.key]
            ran = int(name != "batch")
            assert kinds.count(Happening.GUEST_SHUTDOWN) == kinds.count(Happening.OFF) == ran, f"{name}: no power action twice"
            starts = [r for r in self.cluster.vm_starts if r.name == record.frozen.name]
            assert len(starts) == ran, f"{name}: each target was started once"
            assert (record.frozen.name in {r.name for r in self.cluster.running_vms()}) == bool(ran)

    def assert_moved_at_once(self) -> None:
        """And nothing was asked for twice: one request of power for each guest that ran, one copy of each disk, marked or not."""
        self.assert_moved()
        calls = self.vcenter.calls
        power = {label: n for label, n in calls.items() if "Power" in label or "Shutdown" in label}
        assert power == {"VirtualMachine.ShutdownGuest": 3}, "no power action twice"
        disks = [d.uuid for name in NAMES for d in self.world.vm(name).disks]
        assert self.pods.copied == Counter(disks), "no disk was copied again"


def git(*args: str, cwd: Path) -> str:
    return subprocess.run(["git", *args], cwd=cwd, check=True, capture_output=True, text=True).stdout
