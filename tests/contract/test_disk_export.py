"""Exports of the simulated vCenter by the worker's own lease: opened, kept alive, completed or aborted, and what it says when it cannot."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pyVmomi import vim

from reconciler.clock import SystemClock
from reconciler.core.copyspec import CopyDisk, CopyResult, CopySpec, ExportSpec, Reader, TlsSpec, Verify, parse_line
from reconciler.drivers.vsphere.export import VsphereExport, connect
from reconciler.errors import ReconcilerError, RetryableError, TerminalError, UserError
from reconciler.lab.clock import WallClock
from reconciler.lab.machines import Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.devices import disk_key
from reconciler.lab.vcenter.leases import Lease
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.mover.keeper import Keeper
from reconciler.mover.pool import Stop
from reconciler.transports import Transports
from reconciler.wire.auth import FileAuth

USER, PASSWORD = "administrator@vsphere.local", "pa55-of-the-lab"
MAIN = "import sys; from pathlib import Path; from reconciler.commands.worker import run; sys.exit(run(Path(sys.argv[1])))"


@dataclass
class Site:
    center: VCenter
    world: World
    vm: Vm
    folder: Path
    ca: LabCa

    @property
    def leases(self) -> list[Lease]:
        return list(self.center.leases.known.values())

    def export(self, **changes: object) -> ExportSpec:
        devices = tuple((disk.uuid, disk_key(disk)) for disk in self.vm.disks)
        spec = ExportSpec(
            self.center.url, False, self.center.instance_uuid, f"vm-{self.vm.key}", self.vm.instance_uuid, self.vm.name, None, devices
        )
        return replace(spec, **changes)  # type: ignore[arg-type]

    def lease(self, **changes: object) -> VsphereExport:
        return connect(self.export(**changes), TlsSpec(ca_file=str(self.ca.path)), self.folder, SystemClock())

    def spec(self, export: ExportSpec | None = None) -> CopySpec:
        disks = tuple(
            CopyDisk(d.uuid, d.label, Reader.VMDK_STREAM, "", d.capacity_bytes, str(self.folder / f"{n}.img"), False)
            for n, d in enumerate(self.vm.disks)
        )
        tls = TlsSpec(ca_file=str(self.ca.path))
        spec = CopySpec("run", "vm", "round", disks, tls, str(self.folder), export=export or self.export())
        return replace(spec, termination_file=str(self.folder / "termination"))

    def run(self, spec: CopySpec) -> tuple[int, CopyResult, str]:
        path = self.folder / "spec.json"
        path.write_text(spec.to_json())
        done = subprocess.run([sys.executable, "-W", "error", "-X", "dev", "-c", MAIN, path], capture_output=True, text=True, timeout=60)
        result = parse_line(done.stdout.splitlines()[-1])
        assert isinstance(result, CopyResult)
        assert PASSWORD not in done.stdout + done.stderr and not any(lease.ticket in done.stdout + done.stderr for lease in self.leases)
        return done.returncode, result, done.stderr

    def assert_equal(self) -> None:
        for number, disk in enumerate(self.vm.disks):
            assert (self.folder / f"{number}.img").read_bytes() == disk.path.read_bytes()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    clock = WallClock()
    world = World(tmp_path / "world", clock)
    dc = world.add_datacenter("DC")
    vm = world.add_vm("web 01&co", world.add_host("esx", world.add_cluster("prod", dc)))
    store = world.add_datastore("vsan", dc)
    world.add_disk(vm, store, capacity_mib=4, data_mib=2)
    world.add_disk(vm, store, capacity_mib=8, data_mib=1, bus="sata")
    ca = LabCa(tmp_path / "ca")
    center = VCenter(world, ca, clock, user=USER, password=PASSWORD)
    center.leases.ready_s = 0.0
    center.start()
    (tmp_path / "user").write_text(USER)
    (tmp_path / "password").write_text(PASSWORD)
    yield Site(center, world, vm, tmp_path, ca)
    center.stop()


def until(true: Callable[[], bool], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class TestWorker:
    def test_a_machine_that_is_off(self, site: Site) -> None:
        """Disks in another order than the lease's: they are matched by device."""
        spec = replace(site.spec(), verify=Verify.SOURCE)
        spec = replace(spec, disks=spec.disks[::-1], export=replace(site.export(), devices=site.export().devices[::-1]))
        assert CopySpec.from_json(spec.to_json()) == spec
        code, result, err = site.run(spec)
        assert (code, err, result.done) == (0, "", True)
        site.assert_equal()
        assert [lease.state for lease in site.leases] == ["done"]
        assert all(disk.sha256 for disk in result.disks)

    def test_a_stream_that_breaks_aborts_the_lease_and_is_for_another_attempt(self, site: Site) -> None:
        spec = site.spec()
        wrong = replace(spec.disks[1], capacity_bytes=spec.disks[1].capacity_bytes + 512)
        code, result, _ = site.run(replace(spec, disks=(spec.disks[0], wrong)))
        assert (code, result.reason) == (65, "SourceChanged")
        assert [lease.state for lease in site.leases] == ["error"]

    def test_a_machine_that_runs_is_refused(self, site: Site) -> None:
        site.world.power_on(site.vm)
        code, result, _ = site.run(site.spec())
        assert code == 75 and result.disks == () and site.vm.name in (result.error or "")

    def test_a_disk_without_a_lease_is_a_wrong_spec(self, site: Site) -> None:
        spec = site.spec(replace(site.export(), devices=site.export().devices[:1]))
        with (
            pytest.raises(UserError, match="SpecInvalid"),
            Transports(spec, FileAuth(None), SystemClock(), Stop(), lambda: 0) as transports,
        ):
            transports.intake(spec.disks[0]).close()
            transports.intake(spec.disks[1])
        assert [lease.state for lease in site.leases] == ["error"]


class TestLease:
    def test_a_snapshot_while_the_machine_runs(self, site: Site) -> None:
        site.world.power_on(site.vm)
        made = site.world.create_snapshot(site.vm, "ours")
        site.world.tick()
        code, result, _ = site.run(site.spec(site.export(snapshot=f"snapshot-{made.key}")))
        assert (code, result.done) == (0, True)
        for number, disk in enumerate(site.vm.disks):
            assert (site.folder / f"{number}.img").read_bytes() == site.world.file_at(disk, made).read_bytes()

    def test_a_host_is_pinned_by_the_lease_and_gets_no_password(self, site: Site) -> None:
        site.center.leases.host = f"127.0.0.1:{site.center.port}"
        with Keeper(site.lease(), lambda: 0, Stop()) as keeper:
            assert [disk.tls.thumbprint for disk in keeper.disks.values()] == [site.center.leases._thumbprint] * 2
            site.center.leases._thumbprint = "AA:" * 19 + "AA"
        assert site.run(site.spec())[1].reason == "ThumbprintMismatch"

    def test_it_is_kept_alive_and_a_lost_one_stops_the_job(self, site: Site) -> None:
        site.center.leases.timeout_s = 4.0  # so a heartbeat each second
        stop = Stop()
        with Keeper(site.lease(), lambda: 7, stop):
            until(lambda: site.leases[0].progress == 7)
            with site.world.lock:
                site.center.leases._end(site.leases[0], "error", vim.fault.Timedout(msg="Operation timed out."))
            until(lambda: stop.requested)
        assert isinstance(stop.error, ReconcilerError)

    def test_the_log_names_the_machine_and_not_the_lease(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        """Who has the id of a lease may end it, and the lab makes the URLs of it."""
        caplog.set_level(logging.DEBUG)
        with pytest.raises(ZeroDivisionError), Keeper(site.lease(), lambda: 0, Stop()) as keeper:
            site.center.stop()
            raise ZeroDivisionError
        assert keeper.disks
        said = [str(vars(record)) for record in caplog.records]
        assert sum(site.vm.name in line for line in said) >= 2, "begun, and not aborted"
        assert not any(text in line for line in said for lease in site.leases for text in (lease.ticket, lease.id))

    def test_an_error_inside_aborts_it(self, site: Site) -> None:
        with pytest.raises(ZeroDivisionError), Keeper(site.lease(), lambda: 0, Stop()):
            raise ZeroDivisionError
        assert [lease.state for lease in site.leases] == ["error"]

    def test_a_fault_of_the_site_is_said(self, site: Site) -> None:
        site.center.leases.fail_next(vim.fault.FileLocked(msg="locked", file="x"))
        with pytest.raises(RetryableError, match="locked"):
            Keeper(site.lease(), lambda: 0, Stop()).__enter__()

    def test_a_disk_that_is_not_in_it_is_said_and_nothing_stays_open(self, site: Site) -> None:
        with pytest.raises(TerminalError, match="ExportIncomplete") as caught:
            Keeper(site.lease(devices=(("uuid-x", 2099),)), lambda: 0, Stop()).__enter__()
        assert "2099" in caught.value.message and "ParaVirtualSCSIController0:0" in caught.value.message
        assert [lease.state for lease in site.leases] == ["error"]

    @pytest.mark.parametrize("changes", [{"vm_uuid": "other"}, {"site_uuid": "other"}])
    def test_another_machine_or_site_of_that_id_is_left_alone(self, site: Site, changes: dict[str, object]) -> None:
        with pytest.raises(ReconcilerError, match=r"VMGone|ProviderChanged"):
            Keeper(site.lease(**changes), lambda: 0, Stop()).__enter__()
        assert site.leases == []

    def test_no_thread_is_left(self, site: Site) -> None:
        with Keeper(site.lease(), lambda: 0, Stop()):
            assert any(thread.name == "lease" for thread in threading.enumerate())
        assert not any(thread.name == "lease" for thread in threading.enumerate())
        assert [lease.state for lease in site.leases] == ["done"]
