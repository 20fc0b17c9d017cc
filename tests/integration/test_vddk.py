"""Disks read with VDDK, on the whole lab: the image that brings it, the trial before the power-off, cold copies, warm rounds and deltas.

nbdkit and VMware's library are a stand-in here (tests/contract/vddk_nbdkit.py), which asks the lab what a host would let it read. All
else is the product: plan checks, Jobs, Secrets, the worker and its NBD client. tests/e2e/test_vddk.py has the real nbdkit.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from reconciler.core.copyspec import TlsSpec
from reconciler.core.model import Milestone, Result
from reconciler.drivers.kubevirt.rbac import RULES
from reconciler.lab import machines
from reconciler.lab.machines import Vm
from reconciler.wire.tls import read_sha1
from tests.contract import vddk_nbdkit
from tests.contract.vddk_site import DISTRIB, IMAGE, VddkSite
from tests.integration.loops import go_on, record_of
from tests.integration.simlab import INIT, PASSWORD, USER, SimLab

MIB = 1 << 20
SIZE = 16
OTHER = "registry.example.com/infra/vddk:8.0.2"


class Lab(SimLab):
    """With a Provider that names an image with VDDK. `library`: the file that the image brings."""

    site: VddkSite
    library: Path

    def furnish(self, tools: Path) -> None:
        ca_file = self.root / "ca.pem"
        ca_file.write_text(self.ca.pem)
        parts = urlsplit(self.vcenter.url)
        self.site = VddkSite(
            self.world, USER, PASSWORD, lambda: read_sha1(parts.hostname or "", parts.port or 443, TlsSpec(ca_file=str(ca_file)))
        )
        vddk_nbdkit.install(tools)
        self.library = self.root / DISTRIB / "lib64" / "libvixDiskLib.so.8"
        self.library.parent.mkdir(parents=True)
        self.library.write_text("it loads")
        self.inline.entrypoints[INIT] = self._init
        self.cluster.image(IMAGE, [INIT, "/opt"])
        self.cluster.image(OTHER, None)
        self.settings(self.site.settings)

    def _init(self, argv: Sequence[str]) -> int:
        shutil.copytree(self.root / DISTRIB, Path(argv[0]) / DISTRIB)
        return 0

    def settings(self, text: str) -> None:
        """Of the Provider, as one line of YAML."""
        lines = (self.clone / "sites.yaml").read_text().splitlines()
        kept = [line for line in lines if not line.startswith("  settings:")]
        at = next(n for n, line in enumerate(kept) if "vc-credentials" in line)
        self.write("sites.yaml", "\n".join([*kept[: at + 1], f"  settings: {text}", *kept[at + 1 :], ""]))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with Lab(tmp_path, ttl_s=600.0) as lab:
        lab.furnish(tmp_path / "bin")
        yield lab
        lab.site.close()


def begin(lab: Lab, *names: str) -> None:
    lab.plan(*names)
    lab.migration()
    lab.commit()


def ended(lab: Lab) -> bool:
    return any(v.result is not None for v in lab.vms())


def rounds_done(lab: Lab) -> int:
    return sum(r.ended is not None and not r.abandoned for v in lab.vms() for r in v.rounds)


def held(lab: Lab) -> list[str]:
    return [c.type for v in lab.vms() for c in v.conditions if c.category.value == "Critical"]


def warm_vm(lab: Lab, **shape: int) -> Vm:
    lab.warm()
    vm = lab.tracked_vm("web", mib=SIZE, **shape)
    vm.writes_per_tick = 1
    return vm


def cut_over(lab: Lab) -> None:
    lab.migration(cutover=lab.clock.now())
    lab.commit("cut over")
    go_on(lab, lambda: ended(lab), 300, seconds=2.0)


# ---- cold -----------------------------------------------------------------------------------------------------------------------------


def test_a_chain_below_somebody_elses_snapshot_is_copied_by_vddk(lab: Lab) -> None:
    """Nothing else reads it as ranges. The password goes by file, and no right is used that `install` does not grant."""
    vm = lab.vm("web", mib=4, disks=2)
    lab.world.create_snapshot(vm, "before the upgrade")
    begin(lab, "web")
    seen: list[str] = []

    def look() -> bool:
        seen.extend(json.dumps(lab.cluster.find_all(kind)) for kind in ("Pod", "Job", "Event"))
        return ended(lab)

    go_on(lab, look, 200)
    lab.assert_moved("web")
    record = record_of(lab, "web")
    assert record.frozen is not None
    assert {d.path for d in record.frozen.disks} == {"vddk"}
    assert all("vddkInitImage of Provider openshift-mtv/vc" in d.path_reason for d in record.frozen.disks)
    assert {d.reader for d in record.disks} == {"nbd"}
    assert {(q.vm, q.snapshot) for q in lab.site.asked} == {(f"moref=vm-{vm.key}", "")}
    assert {q.file for q in lab.site.asked} == {f"[ds] web/{disk.file}" for disk in vm.disks}
    assert [s.name for s in vm.snapshots] == ["before the upgrade"]
    assert IMAGE in "".join(seen)
    assert PASSWORD not in "".join(seen) + lab.git("log", "-p", "reconciler/status", cwd=lab.repo)
    assert set(lab.cluster.calls) <= {f"{verb} {rule.resource}" for rule in RULES for verb in rule.verbs}


def test_a_copy_that_vddk_refuses_for_good_gives_the_source_back(lab: Lab) -> None:
    vm = lab.vm("web")
    lab.site.refuse = ["You do not have access rights to this file"] * 50
    begin(lab, "web")
    go_on(lab, lambda: ended(lab), 300)
    record = record_of(lab, "web")
    assert record.result is Result.FAILED
    assert record.error is not None
    assert record.error.reason == "SourceForbidden"
    assert "VDDK says: VixDiskLib_Open: You do not have access rights" in record.error.message
    assert vm.power is machines.Power.ON
    lab.assert_nothing_left()


# ---- the trial ------------------------------------------------------------------------------------------------------------------------


def test_an_image_that_cannot_be_pulled_is_met_with_the_guest_on_and_corrected_by_a_commit(lab: Lab) -> None:
    vm = lab.vm("web")
    lab.settings(lab.site.settings.replace(IMAGE, OTHER))
    begin(lab, "web")
    go_on(lab, lambda: any("ImagePullBackOff" in v.message for v in lab.vms()), 60)
    go_on(lab, lambda: lab.clock.at_s > 3000, 300, seconds=60.0)
    assert "vddk-side-car" in record_of(lab, "web").message
    assert vm.power is machines.Power.ON
    lab.settings(lab.site.settings)
    lab.commit("the right tag")
    go_on(lab, lambda: ended(lab), 200)
    lab.assert_moved("web")


def test_a_library_that_does_not_load_is_met_with_the_guest_on(lab: Lab) -> None:
    vm = lab.vm("web")
    lab.library.write_text("broken")
    begin(lab, "web")
    go_on(lab, lambda: bool(held(lab)), 60)
    assert held(lab) == ["VDDKInvalid"]
    assert "libvixDiskLib.so.8" in lab.record("web").message
    assert vm.power is machines.Power.ON
    lab.library.write_text("it loads")
    lab.cluster.image(OTHER, [INIT, "/opt"])
    lab.settings(lab.site.settings.replace(IMAGE, OTHER))
    lab.commit("an image that is whole")
    go_on(lab, lambda: ended(lab), 200)
    lab.assert_moved("web")


# ---- warm -----------------------------------------------------------------------------------------------------------------------------


def test_rounds_read_our_snapshots_and_the_cutover_the_disk_itself(lab: Lab) -> None:
    """Where the base of a running VM is locked for everybody else: no export, and no round is left out."""
    lab.store = lab.locked
    vm = warm_vm(lab)
    begin(lab, "web")
    go_on(lab, lambda: rounds_done(lab) >= 3, 300, seconds=2.0)
    assert not vm.snapshots
    first, *deltas = record_of(lab, "web").rounds
    assert SIZE * MIB // 2 <= first.read_bytes < SIZE * MIB, "half of it holds data, and VDDK knows which"
    assert all(0 < r.read_bytes < first.read_bytes for r in deltas)
    assert [r.snapshot for r in (first, *deltas)] == list(dict.fromkeys(q.snapshot for q in lab.site.asked))
    before = len(lab.site.asked)
    cut_over(lab)
    lab.assert_moved("web")
    record = record_of(lab, "web")
    assert {q.snapshot for q in lab.site.asked[before:]} == {""}
    assert 0 < record.rounds[-1].read_bytes < first.read_bytes
    assert not record.base_unreadable
    assert not vm.snapshots


def test_warm_without_a_flat_file_is_possible_with_vddk(lab: Lab) -> None:
    lab.store = lab.world.add_datastore("vsan", next(iter(lab.world.datacenters.values())), "vsan")
    lab.write("sites.yaml", (lab.clone / "sites.yaml").read_text().replace("{name: locked}", "{name: vsan}"))
    vm = warm_vm(lab)
    lab.world.create_snapshot(vm, "of the backup product")
    begin(lab, "web")
    go_on(lab, lambda: rounds_done(lab) >= 2, 300, seconds=2.0)
    cut_over(lab)
    lab.assert_moved("web")
    assert [s.name for s in vm.snapshots] == ["of the backup product"]


def test_a_setting_that_goes_in_mid_run_holds_the_vm_between_its_rounds(lab: Lab) -> None:
    vm = warm_vm(lab)
    begin(lab, "web")
    go_on(lab, lambda: rounds_done(lab) >= 1, 300, seconds=2.0)
    lab.settings("{sdkEndpoint: vcenter}")
    lab.commit("no VDDK any more")
    go_on(lab, lambda: bool(held(lab)), 200, seconds=2.0)
    assert held(lab) == ["VDDKInitImageUnavailable"]
    assert (vm.power, lab.record("web").milestone) == (machines.Power.ON, Milestone.NONE)
    lab.settings(lab.site.settings)
    lab.commit("and back")
    cut_over(lab)
    lab.assert_moved("web")


# ---- what is shown before the merge ---------------------------------------------------------------------------------------------------


def test_plan_inventory_and_the_run_agree(lab: Lab) -> None:
    vm = lab.vm("web", mib=1)
    lab.world.create_snapshot(vm, "before the upgrade")
    lab.plan("web")
    lab.commit()
    shown = {what: cli(lab, *what.split()) for what in ("plan --format json", "inventory vc -o json")}
    assert all('"vddk"' in text and "vddkInitImage of Provider openshift-mtv/vc" in text for text in shown.values()), shown
    lab.settings("{sdkEndpoint: vcenter}")
    lab.commit("without")
    for text in (cli(lab, "plan", "--format", "json"), cli(lab, "inventory", "vc", "-o", "json")):
        assert '"export"' in text
        assert '"vddk"' not in text


def cli(lab: Lab, *command: str) -> str:
    options = ["--repo", str(lab.repo), "--kubeconfig", str(lab.kubeconfig), "--cache-dir", str(lab.root / "cache-cli")]
    done = subprocess.run([sys.executable, "-m", "reconciler", *command, *options], capture_output=True, text=True)
    return done.stdout + done.stderr
