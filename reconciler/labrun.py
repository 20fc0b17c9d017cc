"""`reconciler lab`: composition of simulated sites and the real app, from a commit to running VMs, on loopback.

What it is: a bare repo from examples/repo, a vCenter, a cluster, the real engine until every run has ended; then bytes are compared.
What it is not: known to anything else; no product code can tell that it runs in the lab. The only importer of reconciler.lab.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from reconciler import log as logs
from reconciler.app import build_engine
from reconciler.clock import SystemClock
from reconciler.core.model import Result
from reconciler.core.record import Records, VmRecord
from reconciler.engine.loop import Engine, PassReport
from reconciler.errors import UserError
from reconciler.lab.clock import WallClock
from reconciler.lab.cluster.site import Cluster
from reconciler.lab.machines import Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.estate import add_warm_pair, build_shop_estate
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.labperson import PORT, Person, examples
from reconciler.report.live import LiveRow, LiveView
from reconciler.report.tables import DiskProof, proof_table
from reconciler.report.words import phase_words
from reconciler.settings import Settings, inherited_environment

USER, PASSWORD = "svc-reconciler@vsphere.local", "lab-only-Pa55word"
STATUS_BRANCH = "reconciler/status"


@dataclass(frozen=True, slots=True)
class Wishes:
    """The command line. `folder`: keep everything here. `repo_from`: begin the repo from this folder."""

    folder: Path | None
    serve: bool
    json: bool
    log_level: str
    repo_from: Path | None


@dataclass(frozen=True, slots=True)
class Lab:
    root: Path
    world: World
    vcenter: VCenter
    cluster: Cluster
    person: Person
    kubeconfig: Path

    @property
    def repo(self) -> Path:
        return self.person.repo


def run(wishes: Wishes) -> int:
    """0 only if every disk is equal and every power state, on both sides, is as asked."""
    logs.configure("human", wishes.log_level)
    console = _console(wishes)
    with _folder(wishes) as root, _lab(root, wishes) as lab:
        console.print(f"Lab in [bold]{lab.root}[/]: vCenter {lab.vcenter.url}, cluster {lab.cluster.url}")
        engine = build_engine(_settings(lab))
        clock = SystemClock()
        began = clock.monotonic()
        try:
            records = _until_ended(engine, console, clock, lab)
            proofs = _proofs(lab, records)
            _tell(console, wishes, lab, records, proofs, clock.monotonic() - began)
            if wishes.serve:
                _serve(engine, console, clock, lab)
        finally:
            engine.close()
        return 0 if _as_asked(records, proofs) else 1


def _console(wishes: Wishes) -> Console:
    """Into a file or a pipe the tables get the width they need."""
    console = Console(stderr=wishes.json)
    return console if console.is_terminal else Console(stderr=wishes.json, width=132)


@contextmanager
def _folder(wishes: Wishes) -> Iterator[Path]:
    if wishes.folder is not None:
        if wishes.folder.exists() and any(wishes.folder.iterdir()):
            raise UserError("NotEmpty", f"--dir {wishes.folder} is not empty; name a new folder")
        wishes.folder.mkdir(parents=True, exist_ok=True)
        yield wishes.folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="reconciler-lab-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def _lab(root: Path, wishes: Wishes) -> Iterator[Lab]:
    clock = WallClock()
    ca = LabCa(root / "pki")
    world = World(root / "vsphere", clock)
    build_shop_estate(world)
    add_warm_pair(world)
    vcenter = VCenter(world, ca, clock, port=_port(), user=USER, password=PASSWORD)
    cluster = Cluster(root / "cluster", ca, clock, programs={"reconciler": [sys.executable, "-m", "reconciler"]})
    _seed(cluster, ca)
    with ExitStack() as stack:
        for site in (world, vcenter, cluster):
            stack.callback(site.stop)
            site.start()
        person = Person(root, wishes.repo_from or examples(), vcenter.url)
        kubeconfig = root / "kubeconfig"
        cluster.write_kubeconfig(kubeconfig)
        yield Lab(root, world, vcenter, cluster, person, kubeconfig)


def _port() -> int:
    """The port that examples/repo names if it is free, else 0 (any)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
    return PORT


def _seed(cluster: Cluster, ca: LabCa) -> None:
    """What a platform team has there already: the credentials of the source and the network of the application."""
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "vcenter-lab-credentials", "namespace": "openshift-mtv"},
            "type": "Opaque",
            "stringData": {"user": USER, "password": PASSWORD, "ca.crt": ca.pem},
        }
    )
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    cluster.put(
        {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": "vlan-210", "namespace": "shop"},
            "spec": {"config": '{"cniVersion": "0.3.1", "type": "bridge", "bridge": "br-app", "vlan": 210}'},
        }
    )


def _settings(lab: Lab) -> Settings:
    return Settings(
        repo=str(lab.repo),
        lease_ttl_s=5.0,
        poll_s=1.0,
        commit_interval_s=2.0,
        cache_dir=lab.root / "cache",
        kubeconfig=lab.kubeconfig,
        worker_image="reconciler:lab",
        holder="reconciler-lab",
        environment=inherited_environment(),
    )


# ---- watching ---------------------------------------------------------------------------------------------------------------------------


def _rows(report: PassReport) -> list[LiveRow]:
    return [_row(report, v) for _, v in sorted(report.records.vms.items())]


def _row(report: PassReport, vm: VmRecord) -> LiveRow:
    total = sum(d.capacity_bytes for d in vm.frozen.disks) if vm.frozen else 0
    moving = {p.uuid: p for disks, _ in report.observed.progress.values() for p in disks}
    done, rate = 0, 0.0
    sizes = {d.uuid: d.capacity_bytes for d in vm.frozen.disks} if vm.frozen else {}
    for disk in vm.disks:
        seen = moving.get(disk.uuid)
        done += sizes.get(disk.uuid, 0) if disk.marked else seen.done_bytes if seen else disk.watermark_bytes
        rate += seen.rate_bytes_per_s if seen and not disk.marked else 0.0
    phase = vm.result.value if vm.result else phase_words(vm.phase)
    return LiveRow(vm.name or vm.wanted, phase, done, total, rate, "" if vm.result is Result.SUCCEEDED else vm.message)


def _until_ended(engine: Engine, console: Console, clock: SystemClock, lab: Lab) -> Records:
    last: list[Records] = []
    with LiveView(console, clock) as view:

        def on_pass(report: PassReport) -> bool:
            last[:] = [report.records]
            view.show(_rows(report))
            lab.person.look(report.records)
            return True

        engine.run(once=True, max_wait_s=60.0, on_pass=on_pass)
    return last[0]


def _serve(engine: Engine, console: Console, clock: SystemClock, lab: Lab) -> None:
    console.print(f"\nServing. Edit [bold]{lab.person.clone}[/], commit, push; Ctrl-C ends it.")
    console.print(f"  reconciler status --repo {lab.repo} --watch", highlight=False)
    console.print(f"  kubectl --kubeconfig {lab.kubeconfig} get vm -A", highlight=False)
    try:
        with LiveView(console, clock) as view:

            def on_pass(report: PassReport) -> bool:
                view.show(_rows(report))
                return True

            engine.run(once=False, max_wait_s=0.0, on_pass=on_pass)
    except KeyboardInterrupt:
        console.print("stopping the lab")


# ---- the proof --------------------------------------------------------------------------------------------------------------------------


def _proofs(lab: Lab, records: Records) -> list[DiskProof]:
    """Source bytes at the instant of power-off against target bytes, read from the files of both sites."""
    proofs = []
    for _, record in sorted(records.vms.items()):
        if record.frozen is None or record.source is None:
            continue
        vm = next(v for v in lab.world.vms.values() if v.instance_uuid == record.source.uuid)
        running = {(r.namespace, r.name) for r in lab.cluster.running_vms()}
        on = "On" if (record.frozen.namespace, record.frozen.name) in running else "Off"
        for disk in record.frozen.disks:
            proofs.append(_proof(lab, record, vm, disk.uuid, on))
    return proofs


def _proof(lab: Lab, record: VmRecord, vm: Vm, uuid: str, target_power: str) -> DiskProof:
    frozen = record.frozen
    assert frozen is not None
    disk = next(d for d in frozen.disks if d.uuid == uuid)
    source = next(d for d in vm.disks if d.uuid == uuid)
    seconds = (record.completed - record.started).total_seconds() if record.completed and record.started else 0.0
    return DiskProof(
        vm=record.name,
        disk=disk.label,
        capacity_bytes=disk.capacity_bytes,
        source_sha256=lab.world.sha256_at_power_off(vm, source),
        target_sha256=_sha256(lab.cluster.volume_path(frozen.namespace, disk.pvc), disk.capacity_bytes),
        source_power_asked="Off",
        source_power_seen="On" if vm.power == "poweredOn" else "Off",
        target_power_asked=frozen.want_power.value,
        target_power_seen=target_power,
        seconds=seconds,
    )


def _sha256(path: Path, length: int) -> str:
    """Of the first `length` bytes; "" when the file is missing or shorter."""
    import hashlib

    if not path.is_file() or path.stat().st_size < length:
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = length
        while left and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def _as_asked(records: Records, proofs: list[DiskProof]) -> bool:
    ended = bool(records.vms) and all(v.result is Result.SUCCEEDED for v in records.vms.values())
    powers = all(p.source_power_asked == p.source_power_seen and p.target_power_asked == p.target_power_seen for p in proofs)
    return ended and powers and all(p.equal for p in proofs)


def _tell(console: Console, wishes: Wishes, lab: Lab, records: Records, proofs: list[DiskProof], seconds: float) -> None:
    good = _as_asked(records, proofs)
    if wishes.json:
        results = [
            {"vm": v.name, "result": v.result.value if v.result else v.phase, "message": v.message} for _, v in sorted(records.vms.items())
        ]
        disks = [{**asdict(p), "equal": p.equal} for p in proofs]
        print(json.dumps({"ok": good, "seconds": round(seconds, 1), "vms": results, "disks": disks}, indent=1))
        return
    console.print()
    console.print(proof_table(proofs))
    for _, vm in sorted(records.vms.items()):
        if vm.result is not Result.SUCCEEDED:
            console.print(f"[red]{vm.name or vm.wanted}[/]: {vm.result.value if vm.result else vm.phase}: {vm.message}", markup=True)
    verdict = "[green]All bytes are equal and every power state is as asked.[/]" if good else "[red]Not as asked; see above.[/]"
    console.print(f"{verdict} {seconds:.0f} s.")
    if wishes.folder is not None or wishes.serve:
        console.print("\nThe story of the run is on the status branch:")
        console.print(f"  git -C {lab.repo} log --stat {STATUS_BRANCH}", highlight=False)
        console.print(f"  git -C {lab.repo} show {STATUS_BRANCH}:README.md", highlight=False)
    else:
        _story(console, lab)


def _story(console: Console, lab: Lab) -> None:
    """The folder is about to go, so show what was there."""
    log = subprocess.run(
        ["git", "-C", str(lab.repo), "log", "--reverse", "--format=  %s", STATUS_BRANCH], capture_output=True, text=True, check=True
    )
    console.print("\nThe status branch, oldest first (keep it with --dir FOLDER):")
    console.print(log.stdout, highlight=False, markup=False)
