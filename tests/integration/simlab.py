"""A whole lab in one process and simulated time: real git, real SOAP and REST on loopback, the real worker inline, deaths at the wire.

Where it stands: the ground of the integration tests. Time moves only when somebody sleeps; every sleep lets both sites go on.
A death is at the client's side of a call that leaves the process: from then on every call raises Crash (a BaseException), until the harness
gives up that reconciler and builds a new one from nothing but git and the sites.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reconciler import cli
from reconciler.app import Drivers
from reconciler.core.copyspec import CopySpec
from reconciler.core.model import Result
from reconciler.core.record import Records, VmRecord
from reconciler.drivers.kubevirt import labels
from reconciler.engine.loop import Engine, PassReport, Rules
from reconciler.engine.publish import Pace
from reconciler.engine.sites import Sites
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.repo import GitRepo
from reconciler.lab.cluster.site import Cluster
from reconciler.lab.machines import Power, Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.manifests.recordstore import RecordStore
from reconciler.ports import Blob, Tree
from reconciler.settings import Settings
from tests.integration.taps import Crash, Medium, Wire, tapped, tapped_worker

USER, PASSWORD = "svc@vsphere.local", "s3cret-of-the-vcenter"
INIT = "vddk-init"  # the entrypoint of an image with VDDK, where a test has one (Inline.entrypoints)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


# A few hundred commits need no tidying, and to ask is a process for each push; one pack is cheaper to write than a file for each object.
GIT_CONFIG = """
[receive]
    autogc = false
    unpackLimit = 1
[fastimport]
    unpackLimit = 1
[gc]
    autoPackLimit = 500
[core]
    fsync = none
"""


class SimClock:
    """Time that moves when somebody sleeps. `then` lets the sites go on."""

    def __init__(self) -> None:
        self.at_s = 1000.0
        self.skew_s = 0.0
        self.then: Callable[[], None] = lambda: None
        self._ids = 0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=self.at_s)

    def monotonic(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds
        self.then()

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:032x}"

    def jitter(self) -> float:
        return 0.5


@contextlib.contextmanager
def umask_kept() -> Iterator[None]:
    """The copy pod's program sets its own, which is this process's, too."""
    mask = os.umask(0o022)
    os.umask(mask)
    try:
        yield
    finally:
        os.umask(mask)


class Inline:
    """Runs the copy pod's program at once, in this process. `killed`: the n-th copy ends as if killed for memory.

    `beat` lets what is due at the source happen meanwhile, without any time going by: a lease becomes ready. `look` is shown each spec.
    `wire`: a copy dies at one of its effects, and its machine with it; the copies after that live.
    `entrypoints`: what images of others run, by the name of their program.
    """

    def __init__(self, beat: Callable[[], None], look: Callable[[CopySpec], None]) -> None:
        self.starts = 0
        self.killed: set[int] = set()
        self.wire: Wire | None = None
        self.entrypoints: dict[str, Callable[[Sequence[str]], int]] = {}
        self._beat, self._look = beat, look

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log_path: Path) -> Ended:
        out = io.StringIO()
        if argv[0] in self.entrypoints:
            return Ended(self.entrypoints[argv[0]](argv[1:]))
        if "--try" in argv:
            with contextlib.redirect_stdout(out), umask_kept():
                code = cli.run(list(argv[1:]))
        else:
            self.starts += 1
            if self.starts in self.killed:
                return Ended(-9)
            self._look(CopySpec.from_json(Path(argv[-1]).read_text()))
            with contextlib.redirect_stdout(out), self._beating(), umask_kept():
                code = self._copy(list(argv[1:]))
        with log_path.open("a") as log:
            log.write(out.getvalue())
        return Ended(code)

    def _copy(self, args: list[str]) -> int:
        if self.wire is None:
            return cli.run(args)
        medium = Medium()
        with tapped_worker(self.wire, medium):
            try:
                return cli.run(args)
            except Crash:
                self.wire = Wire()
        medium.lose()
        return -9

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        end = threading.Event()

        def beats() -> None:
            while not end.wait(0.02):
                self._beat()

        thread = threading.Thread(target=beats)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


@dataclass(frozen=True)
class Ended:
    code: int

    def poll(self) -> int:
        return self.code

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        pass


MANIFESTS = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: Provider
metadata: {{name: vc, namespace: openshift-mtv}}
spec:
  type: vsphere
  url: {url}
  secret: {{name: vc-credentials, namespace: openshift-mtv}}
---
apiVersion: forklift.konveyor.io/v1beta1
kind: Provider
metadata: {{name: host, namespace: openshift-mtv}}
spec: {{type: openshift, url: "", secret: {{}}}}
---
apiVersion: forklift.konveyor.io/v1beta1
kind: NetworkMap
metadata: {{name: net, namespace: openshift-mtv}}
spec:
  provider: {{source: {{name: vc, namespace: openshift-mtv}}, destination: {{name: host, namespace: openshift-mtv}}}}
  map:
    - {{source: {{name: VM Network}}, destination: {{type: pod}}}}
---
apiVersion: forklift.konveyor.io/v1beta1
kind: StorageMap
metadata: {{name: store, namespace: openshift-mtv}}
spec:
  provider: {{source: {{name: vc, namespace: openshift-mtv}}, destination: {{name: host, namespace: openshift-mtv}}}}
  map:
    - {{source: {{name: ds}}, destination: {{storageClass: fast}}}}
    - {{source: {{name: locked}}, destination: {{storageClass: fast}}}}
"""

PLAN = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: Plan
metadata: {{name: {name}, namespace: openshift-mtv, annotations: {annotations}}}
spec:
  type: {type}
  targetNamespace: {namespace}
  skipGuestConversion: true
  useCompatibilityMode: false
  provider: {{source: {{name: vc, namespace: openshift-mtv}}, destination: {{name: host, namespace: openshift-mtv}}}}
  map: {{network: {{name: net, namespace: openshift-mtv}}, storage: {{name: store, namespace: openshift-mtv}}}}
  vms: {vms}
"""

MIGRATION = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: Migration
metadata: {{name: {name}, namespace: openshift-mtv}}
spec: {{plan: {{name: {plan}, namespace: openshift-mtv}}{more}}}
"""


class SimLab:
    """One vCenter (one host, datastore `ds`, network `VM Network`), one cluster, one bare repo. Context manager."""

    def __init__(self, root: Path, *, ttl_s: float = 180.0, page_size: int = 1000) -> None:
        self.root = root
        self.clock = SimClock()
        self.clock.then = self.settle
        self.ca = LabCa(root / "pki")
        self.world = World(root / "vsphere", self.clock)
        dc = self.world.add_datacenter("DC1")
        self.host = self.world.add_host("esx-1", self.world.add_cluster("C1", dc))
        self.store = self.world.add_datastore("ds", dc, base_readable=True)
        self.locked = self.world.add_datastore("locked", dc, base_readable=False)
        self.network = self.world.add_network("VM Network", dc)
        self.vcenter = VCenter(self.world, self.ca, self.clock, user=USER, password=PASSWORD, page_size=page_size)
        self.vcenter.leases.ready_s = 0.0
        self.inline = Inline(self._beat, self._look)
        self.cluster = Cluster(root / "cluster", self.ca, self.clock, programs={p: [p] for p in ("reconciler", INIT)}, launcher=self.inline)
        self.ttl_s = ttl_s
        self.repo = root / "repo.git"
        self.remote, self.ssh_command = str(self.repo), ""  # how the reconciler reaches it
        self.clone = root / "clone"
        self.kind, self.pace = "cold", "{}"
        self.generation = 0
        self.wire = Wire()
        self.engine: Engine | None = None
        self.sites: Sites | None = None
        self.reports: list[PassReport] = []
        self.copied_anew: list[str] = []  # disks that a copy was to read in full though their PVC was marked
        self._seen = Records("")  # what was last read from the status branch
        self._blobs: dict[str, bytes] = {}
        self.person: Callable[[], None] = lambda: None  # what somebody does after a pass

    def __enter__(self) -> SimLab:
        self.vcenter.start()
        self.cluster.start()
        self.kubeconfig = self.root / "kubeconfig"
        self.cluster.write_kubeconfig(self.kubeconfig)
        self.secret()
        self.git("init", "-q", "--bare", "-b", "main", str(self.repo), cwd=self.root)
        for place in (self.repo / "config", self.root / ".gitconfig"):
            with place.open("a") as config:
                config.write(GIT_CONFIG)
        self.git("clone", "-q", str(self.repo), str(self.clone), cwd=self.root)
        self.git("checkout", "-q", "-b", "main")
        self.write("sites.yaml", MANIFESTS.format(url=self.vcenter.url))
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self.cluster.stop()
        self.vcenter.stop()
        self.world.stop()
        gc.collect()

    def settle(self) -> None:
        self.world.tick()
        self.cluster.step()

    def _beat(self) -> None:
        with self.world.lock:
            self.world.settle()

    def _look(self, spec: CopySpec) -> None:
        marked = {d["metadata"]["annotations"].get(labels.DISK_UUID) for d in self.marked()}
        self.copied_anew += [d.label for d in spec.disks if d.uuid in marked and d.ranges is None]

    # ---- arranging ----

    def secret(self, **change: str) -> None:
        data = {"user": USER, "password": PASSWORD, "ca.crt": self.ca.pem} | change
        self.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "vc-credentials", "namespace": "openshift-mtv"},
                "stringData": data,
            }
        )

    def vm(self, name: str, *, disks: int = 1, mib: int = 1, on: bool = True, **fields: object) -> Vm:
        vm = self.world.add_vm(name, self.host, **fields)
        for _ in range(disks):
            self.world.add_disk(vm, self.store, mib, max(1, mib // 2))
        self.world.add_nic(vm, self.network)
        if on:
            self.world.power_on(vm)
        return vm

    def tracked_vm(self, name: str, **shape: Any) -> Vm:
        """One whose changes are tracked on every disk, as a warm run needs it."""
        vm = self.vm(name, on=False, **shape)
        self.world.set_change_tracking(vm, True)
        self.world.power_on(vm)
        return vm

    def warm(self, interval_s: int = 10) -> None:
        """Plans written from now on are warm."""
        self.kind = "warm"
        self.pace = f'{{reconciler.dev/precopy-interval: "{interval_s}"}}'

    def plan(self, *vms: str, name: str = "wave", namespace: str = "shop", entries: str = "", annotations: str = "") -> None:
        listed = entries or "[" + ", ".join(f'{{name: "{v}"}}' for v in vms) + "]"
        self.write(
            f"plans/{name}.yaml",
            PLAN.format(name=name, namespace=namespace, vms=listed, annotations=annotations or self.pace, type=self.kind),
        )

    def migration(
        self, name: str = "run-1", plan: str = "wave", cancel: Sequence[str] = (), cutover: datetime | None = None
    ) -> None:  # fmt: skip
        more = ", cancel: [" + ", ".join(f'{{name: "{c}"}}' for c in cancel) + "]" if cancel else ""
        more += f', cutover: "{cutover:%Y-%m-%dT%H:%M:%SZ}"' if cutover else ""
        self.write(f"migrations/{name}.yaml", MIGRATION.format(name=name, plan=plan, more=more))

    def write(self, path: str, text: str) -> None:
        file = self.clone / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def remove(self, path: str) -> None:
        (self.clone / path).unlink()

    def commit(self, message: str = "change") -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        self.git("push", "-q", "origin", "main")

    def git(self, *args: str, cwd: Path | None = None) -> str:
        done = subprocess.run(["git", *args], cwd=cwd or self.clone, check=True, capture_output=True, text=True)
        return done.stdout

    # ---- running ----

    def start(self, holder: str = "", waiter: Callable[[float], None] | None = None) -> Engine:
        """A new reconciler that knows nothing."""
        self.generation += 1
        settings = Settings(repo=self.remote, kubeconfig=self.kubeconfig, worker_image="w:1")
        config = RepoConfig(
            url=self.remote,
            ssh_command=self.ssh_command or None,
            cache_dir=self.root / f"cache-{self.generation}",
            holder=holder or "sim",
            lease_ttl_s=self.ttl_s,
            environment={"PATH": PATH, "HOME": str(self.root)},
        )
        sites = Sites(Drivers(settings, self.clock, loop=True), self.clock)
        rules = Rules(lease_ttl_s=self.ttl_s, pace=Pace())
        engine = Engine(GitRepo(config, self.clock), sites, self.clock, rules, "origin", waiter)
        self.engine, self.sites = engine, sites
        return engine

    def stop(self) -> None:
        """End the reconciler as a process would end: nothing is said to anybody unless it still may speak."""
        if self.engine is None:
            return
        if self.wire.dead:
            assert self.sites is not None
            for pool in self.sites._pools.values():
                pool.shutdown(wait=True, cancel_futures=True)
        else:
            self.engine.close()
        self.engine = self.sites = None

    def passes(self, until: Callable[[], bool], limit: int = 150, seconds: float = 0.5) -> None:
        """Pass after pass, until `until` holds."""
        engine = self.engine or self.start()
        for _ in range(limit):
            self.reports.append(engine.one_pass())
            if until():
                return
            self.person()
            self.clock.sleep(seconds)
        raise AssertionError(f"not reached in {limit} passes: " + "; ".join(f"{v.name} {v.phase}: {v.message}" for v in self.vms()))

    def run(self, limit: int = 150, seconds: float = 0.5) -> None:
        self.passes(self.ended, limit, seconds)

    def run_until_death(self, die_at: int | None, when: str, *, only_effects: bool = True, limit: int = 150, seconds: float = 0.5) -> bool:
        """Run with a death at call `die_at`; True if it came to that. The dead reconciler is gone afterwards."""
        self.wire = Wire(die_at=die_at, when=when, only_effects=only_effects)
        with tapped(self.wire):
            try:
                self.run(limit, seconds)
                self.stop()
            except Crash:
                self.stop()
            died = self.wire.dead
        self.wire = Wire()
        return died

    def take_over(self) -> None:
        """A new reconciler finds the lease of a dead one, which is its own when it was left alone for a TTL."""
        self.reports.append(self.start().one_pass())
        self.clock.sleep(self.ttl_s)

    # ---- judging ----

    def records(self) -> Records:
        """What the status branch says, read by a reader of its own."""
        head = self.git("for-each-ref", "--format=%(objectname)", "refs/heads/reconciler/status", cwd=self.repo).strip()
        if head and head != self._seen.commit:
            listed = self.git("ls-tree", "-r", head, cwd=self.repo).splitlines()
            blobs = tuple(Blob(line.split("\t", 1)[1], line.split()[2]) for line in listed)
            self._seen = RecordStore().update(Tree(head, blobs), self._contents)
        return self._seen if head else Records("")

    def _contents(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Blobs by their ids, each read once."""
        new = [i for i in ids if i not in self._blobs]
        asked = "".join(f"{i}\n" for i in new).encode()
        out = io.BytesIO(subprocess.run(["git", "cat-file", "--batch"], cwd=self.repo, input=asked, check=True, capture_output=True).stdout)
        for i in new:
            self._blobs[i] = out.read(int(out.readline().split()[2]))
            out.readline()
        return {i: self._blobs[i] for i in ids}

    def vms(self) -> list[VmRecord]:
        if self.reports:
            return list(self.reports[-1].records.vms.values())
        return list(self.records().vms.values())

    def record(self, name: str) -> VmRecord:
        return next(v for v in self.vms() if v.name == name or v.wanted == name)

    def ended(self) -> bool:
        runs = self.reports[-1].records.runs
        return bool(runs) and all(r.result for r in runs.values()) and self.reports[-1].records.runs == self.records_cheap()

    def records_cheap(self) -> Mapping[Any, Any]:
        return self.reports[-1].records.runs

    def assert_equal_bytes(self, name: str) -> None:
        record = self.record(name)
        assert record.frozen is not None
        vm = next(v for v in self.world.vms.values() if v.name == name)
        for disk in record.frozen.disks:
            source = next(d for d in vm.disks if d.uuid == disk.uuid)
            want = self.world.bytes_at_power_off(vm, source).read_bytes()
            target = self.cluster.volume_path(record.frozen.namespace, disk.pvc)
            assert target.read_bytes()[: len(want)] == want, f"{name} {disk.label} differs"

    def marked(self) -> list[dict[str, Any]]:
        """PVCs that some mark vouches for."""
        return [p for p in self.cluster.find_all("PersistentVolumeClaim") if labels.MARK in p["metadata"].get("annotations", {})]

    def target_on(self, name: str) -> bool:
        return any(r.name == name for r in self.cluster.running_vms())

    def assert_moved(self, name: str) -> None:
        """The final state of a successful cold run."""
        record = self.record(name)
        vm = next(v for v in self.world.vms.values() if v.name == name)
        assert record.result is Result.SUCCEEDED, f"{record.result} {record.phase}: {record.message}"
        assert vm.power is Power.OFF
        assert self.target_on(record.frozen.name) if record.frozen else False
        self.assert_equal_bytes(name)
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """No Job, pod or Secret of ours in the target namespaces."""
        for kind in ("Job", "Pod", "Secret"):
            left = [
                o
                for o in self.cluster.find_all(kind)
                if o["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "reconciler"
            ]
            assert not left, f"left over: {[o['metadata']['name'] for o in left]}"
