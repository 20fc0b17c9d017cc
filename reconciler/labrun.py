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
from rich.text import Text

from reconciler import log as logs
from reconciler.app import build_engine
from reconciler.clock import SystemClock
from reconciler.core import figures
from reconciler.core.model import ObjectRef, Result
from reconciler.core.record import FrozenDisk, FrozenVm, Records, VmRecord
from reconciler.engine.loop import Engine, PassReport
from reconciler.errors import UserError
from reconciler.lab.clock import WallClock
from reconciler.lab.cluster.site import Cluster
from reconciler.lab.machines import Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.estate import add_warm_wave, build_shop_estate
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.labperson import PORT, Person, examples
from reconciler.manifests.composed import vm_figures
from reconciler.report import rounds
from reconciler.report.live import LiveRow, LiveView
from reconciler.report.tables import DiskProof, VmProof, moves_table, proof_table
from reconciler.report.words import copied, phase_words
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
        engine = build_engine(_settings(lab), loop=True)
        clock = SystemClock()
        began = clock.monotonic()
        try:
            records = _until_ended(engine, console, clock, lab)
            proofs = _proofs(lab, records)
            _tell(console, wishes, lab, proofs, clock.monotonic() - began)
            if wishes.serve:
                _serve(engine, console, clock, lab)
        finally:
            engine.close()
        return 0 if proofs.good else 1


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
    add_warm_wave(world)
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
    """A delta has no share of the disks to show; its own size is known while it is read."""
    seen = [p for key in _jobs(report, vm) for p in report.observed.progress[key][0]]
    marked = {d.uuid for d in vm.disks if d.marked}
    known = figures.rounds(vm)
    if known is not None and known.whole:
        done, total = sum(p.done_bytes for p in seen), sum(p.total_bytes for p in seen)
    else:
        share = copied(vm)
        done, total = share.done_bytes, share.total_bytes
    rate = sum(p.rate_bytes_per_s for p in seen if p.uuid not in marked)
    phase = vm.result.value if vm.result else rounds.state(vm) or phase_words(vm.phase)
    return LiveRow(vm.name or vm.wanted, phase, done, total, rate, _live_note(vm))


def _jobs(report: PassReport, vm: VmRecord) -> list[tuple[ObjectRef, str, str]]:
    disks = {d.uuid for d in vm.disks} if vm.result is None else set()
    return [key for key, (progress, _) in report.observed.progress.items() if any(p.uuid in disks for p in progress)]


def _live_note(vm: VmRecord) -> str:
    return rounds.down_for(vm) if vm.result is Result.SUCCEEDED else rounds.waiting_note(vm)


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


@dataclass(frozen=True, slots=True)
class Proofs:
    vms: tuple[VmProof, ...]
    disks: tuple[DiskProof, ...]

    @property
    def good(self) -> bool:
        """Every VM was moved, every disk is equal, and every power state is as asked."""
        ended = bool(self.vms) and all(v.record.result is Result.SUCCEEDED and v.as_asked for v in self.vms)
        return ended and all(d.equal for d in self.disks)


def _proofs(lab: Lab, records: Records) -> Proofs:
    """Source bytes at the instant of power-off against target bytes, read from the files of both sites."""
    vms, disks = [], []
    running = {(r.namespace, r.name) for r in lab.cluster.running_vms()}
    for _, record in sorted(records.vms.items()):
        source = next((v for v in lab.world.vms.values() if record.source is not None and v.instance_uuid == record.source.uuid), None)
        if record.frozen is None or source is None:
            vms.append(VmProof(record, "", "", "", ""))
            continue
        on = "On" if (record.frozen.namespace, record.frozen.name) in running else "Off"
        vms.append(VmProof(record, "Off", "On" if source.power == "poweredOn" else "Off", record.frozen.want_power.value, on))
        disks += [_proof(lab, record.name, record.frozen, source, disk) for disk in record.frozen.disks]
    return Proofs(tuple(vms), tuple(disks))


def _proof(lab: Lab, name: str, frozen: FrozenVm, vm: Vm, disk: FrozenDisk) -> DiskProof:
    source = next(d for d in vm.disks if d.uuid == disk.uuid)
    return DiskProof(
        vm=name,
        disk=disk.label,
        capacity_bytes=disk.capacity_bytes,
        source_sha256=lab.world.sha256_at_power_off(vm, source),
        target_sha256=_sha256(lab.cluster.volume_path(frozen.namespace, disk.pvc), disk.capacity_bytes),
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


def _tell(console: Console, wishes: Wishes, lab: Lab, proofs: Proofs, seconds: float) -> None:
    if wishes.json:
        vms = [_vm_plain(proof) for proof in proofs.vms]
        disks = [{**asdict(p), "equal": p.equal} for p in proofs.disks]
        print(json.dumps({"ok": proofs.good, "seconds": round(seconds, 1), "vms": vms, "disks": disks}, indent=1))
        return
    console.print()
    console.print(proof_table(proofs.disks))
    console.print(moves_table(proofs.vms))
    for vm in (p.record for p in proofs.vms if p.record.result is not Result.SUCCEEDED):
        console.print(Text.assemble((vm.name or vm.wanted, "red"), f": {vm.result.value if vm.result else vm.phase}: {vm.message}"))
    verdict = "[green]All bytes are equal and every power state is as asked.[/]" if proofs.good else "[red]Not as asked; see above.[/]"
    console.print(f"{verdict} {seconds:.0f} s.")
    if wishes.folder is not None or wishes.serve:
        console.print("\nThe story of the run is on the status branch:")
        console.print(f"  git -C {lab.repo} log --stat {STATUS_BRANCH}", highlight=False)
        console.print(f"  git -C {lab.repo} show {STATUS_BRANCH}:README.md", highlight=False)
    else:
        _story(console, lab)


def _vm_plain(proof: VmProof) -> dict[str, object]:
    """`warm`, `downtime`: as `reconciler status -o json` has them."""
    vm = proof.record
    power = {
        "source": {"asked": proof.source_power_asked, "seen": proof.source_power_seen},
        "target": {"asked": proof.target_power_asked, "seen": proof.target_power_seen},
    }
    return {"vm": vm.name or vm.wanted, "result": vm.result or vm.phase, "message": vm.message, "power": power, **vm_figures(vm)}


def _story(console: Console, lab: Lab) -> None:
    """The folder is about to go, so show what was there."""
    log = subprocess.run(
        ["git", "-C", str(lab.repo), "log", "--reverse", "--format=  %s", STATUS_BRANCH], capture_output=True, text=True, check=True
    )
    console.print("\nThe status branch, oldest first (keep it with --dir FOLDER):")
    console.print(log.stdout, highlight=False, markup=False)
