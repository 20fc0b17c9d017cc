"""How long a pass takes at scale. By hand: python -m tests.bench.bench_engine. Never a timed test.

1,000 plans / 10,000 VMs in one repo, all moved long ago: idle pass, one manifest changed (warm and from cold), a new 500-VM plan.
Git is real (a bare repo on this disk). The sites are values handed over by a stand-in Connector: their bulk reads are measured elsewhere.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.clock import SystemClock
from reconciler.core.inventory import Inventory, NamedItem, SiteInfo
from reconciler.core.model import Milestone, Mode, ObjectRef, Power, Result, VmRef
from reconciler.core.record import Claim, PhaseTime, RunRecord, VmRecord
from reconciler.core.runs import slug_of
from reconciler.core.target import StorageClass, TargetInventory, VolumeMode
from reconciler.engine.loop import Engine, PassReport, Rules
from reconciler.engine.sites import Sites
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.repo import GitRepo
from reconciler.manifests import record as codec
from reconciler.manifests import recordpaths
from reconciler.manifests.load import SourceFile, load
from reconciler.manifests.resolve import resolve
from tests.integration.simlab import MANIFESTS, MIGRATION, PLAN
from tests.unit.core.toyland import source_vm

PLANS, PER_PLAN, NEW = 1000, 10, 500
NS = "openshift-mtv"
AT = datetime(2026, 1, 1, tzinfo=UTC)


class Values:
    """Connector and both drivers: hands over the same inventories again and again."""

    def __init__(self) -> None:
        vms = tuple(source_vm(f"vm-{p}-{i}", number=p * PER_PLAN + i) for p in range(PLANS) for i in range(PER_PLAN))
        vms += tuple(source_vm(f"new-{i}", number=20_000 + i, host=f"h{i % 100}") for i in range(NEW))
        self.source_inventory = Inventory(
            SiteInfo("vc-uuid", "vCenter", "8", None), vms, (NamedItem("net-1", "VM Network"),), (NamedItem("ds-1", "ds"),), ()
        )
        self.target_inventory = TargetInventory(
            site=SiteInfo("kube-uid", "k", "1", None),
            namespaces=frozenset({"shop"}),
            storage_classes=(StorageClass("fast", True, VolumeMode.FILESYSTEM, "ReadWriteOnce", 0.06),),
            networks=frozenset(),
            volumes=(),
            jobs=(),
            binders=(),
            vms=(),
        )

    def source(self, provider: object) -> Any:
        return self

    def target(self, provider: object, instance: object) -> Any:
        return self

    def fingerprint(self, provider: object) -> str:
        return ""

    def release(self, provider: object) -> None: ...

    def read_inventory(self, namespaces: object = None) -> object:
        return self.source_inventory if namespaces is None else self.target_inventory

    def read_rights(self, vms: object) -> object:
        return {}

    def ensure_namespace(self, name: str) -> None: ...
    def ensure_volume(self, spec: object, adopt: object) -> None: ...
    def close(self) -> None: ...


def git(*args: str, cwd: Path, stdin: bytes = b"") -> str:
    return subprocess.run(["git", *args], cwd=cwd, check=True, capture_output=True, input=stdin).stdout.decode()


def fast_import(repo: Path, branch: str, files: dict[str, bytes]) -> None:
    out = [b"commit refs/heads/%s\ncommitter b <b@x> 1767225600 +0000\ndata 4\nseed\n" % branch.encode()]
    out += [b'M 100644 inline "%s"\ndata %d\n%s\n' % (path.encode(), len(data), data) for path, data in files.items()]
    git("fast-import", "--quiet", cwd=repo, stdin=b"".join(out))


def manifests() -> dict[str, bytes]:
    files = {"sites.yaml": MANIFESTS.format(url="https://vc/sdk").encode()}
    for p in range(PLANS):
        vms = "[" + ", ".join(f"{{name: vm-{p}-{i}}}" for i in range(PER_PLAN)) + "]"
        files[f"plans/{p}.yaml"] = PLAN.format(name=f"p{p}", namespace="shop", vms=vms, annotations="{}", type="cold").encode()
        files[f"migrations/{p}.yaml"] = MIGRATION.format(name=f"m{p}", plan=f"p{p}", more="").encode()
    return files


def history(files: dict[str, bytes]) -> dict[str, bytes]:
    """Records of 1,000 finished runs."""
    desired = resolve(load(SourceFile(path, str(n), data) for n, (path, data) in enumerate(files.items())), "seed")
    out: dict[str, bytes] = {}
    for plan in desired.plans.values():
        run = ObjectRef(NS, "m" + plan.ref.name[1:])
        slugs = tuple(slug_of(plan, vm.ref) for vm in plan.vms)
        assert plan.source is not None and plan.destination is not None
        record = RunRecord(
            run, plan.ref, Mode.COLD, plan.source, plan.destination, "seed", "o", AT, slugs, completed=AT, result=Result.SUCCEEDED
        )
        out[recordpaths.path_of_run(run)] = codec.render_run(record)
        for slug, vm in zip(slugs, plan.vms, strict=True):
            ref = VmRef(plan.source, "vc-uuid", "vm-1", f"uuid-{vm.ref.name}", vm.ref.name)
            done = VmRecord(
                run, slug, plan.ref, vm.ref.name, "vm-1", vm.ref.name, phase="Completed", milestone=Milestone.DONE, result=Result.SUCCEEDED,
                started=AT, completed=AT, restore_power_state=Power.ON, source=ref, phases=(PhaseTime("CopyDisks", AT, AT),),
            )  # fmt: skip
            out[recordpaths.path_of_vm(run, slug)] = codec.render_vm(done)
            claim = Claim("vc-uuid", ref.uuid, ref.name, run, slug, AT, True, forever=True)
            out[recordpaths.path_of_claim("vc-uuid", ref.uuid)] = codec.render_claim(claim)
    return out


def engine(root: Path, number: int, values: Values) -> Engine:
    config = RepoConfig(
        url=str(root / "repo.git"),
        cache_dir=root / f"cache-{number}",
        holder="bench",
        environment={"PATH": "/usr/bin:/bin", "HOME": str(root)},
    )
    clock = SystemClock()
    return Engine(GitRepo(config, clock), Sites(values, clock), clock, Rules(), "origin")


def timed(what: str, work: Callable[[], PassReport], times: int = 1) -> PassReport:
    """By the clock, and CPU seconds of this process and of the git programs that it ran: what a busy machine changes less."""
    took, used = [], []
    for _ in range(times):
        began, cpu = time.perf_counter(), cpu_s()
        report = work()
        took.append(time.perf_counter() - began)
        used.append(cpu_s() - cpu)
    told = f"(min {min(took):.3f}, max {max(took):.3f}, n {times}); CPU {statistics.median(used):.3f} s, max {max(used):.3f}"
    print(f"{what:<60} {statistics.median(took):8.3f} s  {told}", flush=True)
    return report


def cpu_s() -> float:
    return sum(os.times()[:4])


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        git("init", "-q", "--bare", "-b", "main", str(root / "repo.git"), cwd=root)
        files = manifests()
        fast_import(root / "repo.git", "main", files)
        fast_import(root / "repo.git", "reconciler/status", history(files))
        git("clone", "-q", str(root / "repo.git"), str(root / "clone"), cwd=root)
        values = Values()
        one = engine(root, 1, values)
        timed("first pass from cold: 1,000 plans / 10,000 VMs", one.one_pass)
        for _ in range(3):
            one.one_pass()
        timed("idle pass (bar 0.2 s)", one.one_pass, 9)

        def change(number: int) -> None:
            plan = root / "clone" / "plans" / f"{number}.yaml"
            plan.write_text(plan.read_text() + f"  description: changed {number}\n")
            git("-c", "user.name=b", "-c", "user.email=b@x", "commit", "-qam", "change", cwd=root / "clone")
            git("push", "-q", "origin", "main", cwd=root / "clone")

        for n in range(3):
            change(n)
            timed("one manifest changed among 10,000, warm (bar 1 s)", one.one_pass)
            one.one_pass()
        two = engine(root, 2, values)
        change(7)
        timed("one manifest changed, from cold (bar 15 s)", two.one_pass)
        vms = "[" + ", ".join(f"{{name: new-{i}}}" for i in range(NEW)) + "]"
        (root / "clone" / "plans" / "new.yaml").write_text(
            PLAN.format(name="new", namespace="shop", vms=vms, annotations="{}", type="cold")
        )
        (root / "clone" / "migrations" / "new.yaml").write_text(MIGRATION.format(name="new-1", plan="new", more=""))
        git("add", "-A", cwd=root / "clone")
        git("-c", "user.name=b", "-c", "user.email=b@x", "commit", "-qm", "new", cwd=root / "clone")
        git("push", "-q", "origin", "main", cwd=root / "clone")
        report = timed("new 500-VM plan: load, decide, publish, first acts (bar 5 s)", one.one_pass)
        begun = sum(v.run.name == "new-1" and v.frozen is not None for v in report.records.vms.values())
        assert begun == len(report.decision.actions) > 0, "the new plan did not begin"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory {peak:.0f} MiB (bar 400 MiB; two engines and the stand-ins in one process)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
