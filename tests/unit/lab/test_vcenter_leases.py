"""NFC leases of the simulated vCenter by the real pyVmomi and plain HTTPS: states, what they block, how they end, what they stream."""

from __future__ import annotations

import http.client
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pyVmomi import vim, vmodl

from reconciler.lab import sparse
from reconciler.lab.tls import LabCa
from tests.unit.lab.vcenterkit import PC, Site, object_spec, ref


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> LabCa:
    return LabCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def site(tmp_path: Path, ca: LabCa) -> Iterator[Site]:
    made = Site(tmp_path, ca, vms=2)
    record = made.vm(0)
    made.world.add_disk(record, record.disks[0].datastore, 40, 6)
    made.vcenter.start()
    yield made
    made.vcenter.stop()


def ready(site: Site, lease: Any) -> Any:
    assert lease.state == "initializing" and lease.info is None
    site.pass_time(1)
    assert lease.state == "ready"
    return lease.info


def get(site: Site, url: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("https", "*")
    connection = http.client.HTTPSConnection("127.0.0.1", site.vcenter.port, context=site.context, timeout=5)
    try:
        connection.request(method, parts.path)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def snapshot(site: Site, vm: Any) -> Any:
    task = vm.CreateSnapshot_Task(name="s", description="", memory=False, quiesce=False)
    site.pass_time(10)
    return task.info.result


def raw(tmp_path: Path, body: bytes) -> str:
    """The SHA-256 of what qemu-img makes of a VMDK."""
    program = shutil.which("qemu-img")
    if program is None:
        pytest.skip("qemu-img is not installed; tests/unit/lab/test_vmdkstream.py fails for that in CI")
    (tmp_path / "got.vmdk").write_bytes(body)
    argv = [program, "convert", "-f", "vmdk", "-O", "raw", str(tmp_path / "got.vmdk"), str(tmp_path / "got.raw")]
    subprocess.run(argv, check=True, timeout=60)
    return sparse.sha256(tmp_path / "got.raw")


def test_a_machine_that_is_off_is_exported_whole(site: Site, tmp_path: Path) -> None:
    record = site.vm(0)
    with site.client() as si:
        vm = ref(site, si, 0)
        lease = vm.ExportVm()
        info = ready(site, lease)
        assert (info.leaseTimeout, info.totalDiskCapacityInKB, info.entity._moId) == (300, 41 * 1024, vm._moId)
        disks = [u for u in info.deviceUrl if u.disk]
        (other,) = [u for u in info.deviceUrl if not u.disk]
        prefix = f"/{vm._moId}/ParaVirtualSCSIController0:"
        assert [(u.key, u.targetId) for u in disks] == [(prefix + "0", "disk-0.vmdk"), (prefix + "1", "disk-1.vmdk")]
        assert len(disks[0].sslThumbprint) == 59 and disks[0].fileSize is None and len(get(site, other.url)[1]) == other.fileSize
        for url, disk in zip(disks, record.disks, strict=True):
            response, body = get(site, url.url)
            assert (response.status, response.headers["Transfer-Encoding"], response.headers["Accept-Ranges"]) == (200, "chunked", None)
            assert raw(tmp_path, body) == sparse.sha256(disk.path)
        lease.HttpNfcLeaseProgress(99)
        assert lease.transferProgress == 99
        lease.HttpNfcLeaseComplete()
        assert (lease.state, lease.info, lease.error) == ("done", None, None)
        assert get(site, disks[0].url)[0].status == 404
        with pytest.raises(vim.fault.InvalidState):
            lease.HttpNfcLeaseProgress(100)


def test_the_export_of_a_snapshot_is_the_disk_as_it_was(site: Site, tmp_path: Path) -> None:
    record = site.vm(0)
    site.world.power_on(record)
    with site.client() as si:
        vm = ref(site, si, 0)
        with pytest.raises(vim.fault.InvalidPowerState):
            vm.ExportVm()
        made = snapshot(site, vm)
        at_snapshot = sparse.sha256(record.disks[1].path)
        info = ready(site, made.ExportSnapshot())
        for _ in range(5):
            site.world.tick()
        assert [u.disk for u in info.deviceUrl] == [True, True]
        assert raw(tmp_path, get(site, info.deviceUrl[1].url)[1]) == at_snapshot != sparse.sha256(record.disks[1].path)


def test_a_lease_on_a_machine_keeps_everything_else_away(site: Site) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        assert "PowerOnVM_Task" not in vm.disabledMethod
        lease = vm.ExportVm()
        ready(site, lease)
        assert "PowerOnVM_Task" in vm.disabledMethod
        spec = vim.vm.ConfigSpec(annotation="x")
        for act in (vm.PowerOnVM_Task, vm.ExportVm, lambda: vm.ReconfigVM_Task(spec), lambda: snapshot(site, vm)):
            with pytest.raises(vim.fault.TaskInProgress) as busy:
                act()
        task = busy.value.task
        assert (task.info.descriptionId, task.info.cancelable, task.info.state) == ("VirtualMachine.exportVm", True, "running")
        ref(site, si, 1).PowerOnVM_Task()
        lease.HttpNfcLeaseAbort()
        assert (lease.state, task.info.state) == ("error", "error") and "PowerOnVM_Task" not in vm.disabledMethod
        vm.PowerOnVM_Task()


def test_another_session_can_end_a_dead_clients_lease(site: Site) -> None:
    with site.client() as dead:
        lease = ref(site, dead, 0).ExportVm()
        ready(site, lease)
        moid = lease._moId
    with site.client() as si:
        vm = ref(site, si, 0)
        (task,) = [t for t in vm.recentTask if t.info.state == "running"]
        task.CancelTask()
        assert vim.HttpNfcLease(moid, si._stub).state == "error"
        vm.PowerOnVM_Task()
        with pytest.raises(vim.fault.InvalidState):
            task.CancelTask()


def test_a_lease_that_nobody_keeps_alive_times_out(site: Site) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        lease = vm.ExportVm()
        ready(site, lease)
        site.pass_time(290)
        lease.HttpNfcLeaseProgress(10)
        site.pass_time(290)
        assert lease.state == "ready"
        site.pass_time(11)
        assert lease.state == "error" and isinstance(lease.error, vim.fault.Timedout)
        for act in (lambda: lease.HttpNfcLeaseProgress(20), lease.HttpNfcLeaseComplete):
            with pytest.raises(vim.fault.Timedout):
                act()
        vm.PowerOnVM_Task()
        site.pass_time(601)
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            lease.HttpNfcLeaseProgress(20)


def test_a_snapshot_that_is_exported_stays_and_the_machine_lives_on(site: Site) -> None:
    site.world.power_on(site.vm(0))
    with site.client() as si:
        vm = ref(site, si, 0)
        made = snapshot(site, vm)
        lease = made.ExportSnapshot()
        ready(site, lease)
        for act in (lambda: made.RemoveSnapshot_Task(False), vm.RemoveAllSnapshots_Task, made.RevertToSnapshot_Task):
            with pytest.raises(vim.fault.TaskInProgress):
                act()
        vm.PowerOffVM_Task()
        site.pass_time(10)
        assert vm.runtime.powerState == "poweredOff"
        lease.HttpNfcLeaseComplete()
        made.RemoveSnapshot_Task(False)
        site.pass_time(10)
        assert vm.snapshot is None


def test_the_state_is_told_by_the_property_collector(site: Site) -> None:
    with site.client() as si:
        lease = ref(site, si, 0).ExportVm()
        collector = si.content.propertyCollector
        collector.CreateFilter(object_spec(lease, ["state", "error"]), True)
        first = collector.WaitForUpdatesEx("", PC.WaitOptions(maxWaitSeconds=0))
        assert [(c.name, c.val) for c in first.filterSet[0].objectSet[0].changeSet] == [("state", "initializing")]
        site.pass_time(1)
        second = collector.WaitForUpdatesEx(first.version, PC.WaitOptions(maxWaitSeconds=5))
        assert [(c.name, c.val) for c in second.filterSet[0].objectSet[0].changeSet] == [("state", "ready")]
        lease.HttpNfcLeaseAbort(fault=vmodl.fault.SystemError(reason="disk full"))
        third = collector.WaitForUpdatesEx(second.version, PC.WaitOptions(maxWaitSeconds=5))
        values = {c.name: c.val for c in third.filterSet[0].objectSet[0].changeSet}
        assert values["state"] == "error" and isinstance(lease.error, vmodl.fault.SystemError)


def test_what_cannot_be_exported(site: Site) -> None:
    site.vm(0).disks[0].key_id = "key-1"
    site.vcenter.leases.fail_next(vim.fault.FileFault(file="[ds-fast] vm-1/vm-1.vmdk"))
    with site.client() as si:
        with pytest.raises(vmodl.fault.NotSupported):
            ref(site, si, 0).ExportVm()
        lease = ref(site, si, 1).ExportVm()
        site.pass_time(1)
        assert lease.state == "error" and isinstance(lease.error, vim.fault.FileFault)
        site.vcenter.denied.add("VApp.Export")
        with pytest.raises(vim.fault.NoPermission):
            ref(site, si, 1).ExportVm()


def test_a_stream_breaks_off_by_fault_and_when_its_lease_ends(site: Site) -> None:
    with site.client() as si:
        lease = ref(site, si, 0).ExportVm()
        url = ready(site, lease).deviceUrl[1].url
        nfc = lambda label: label.startswith("GET /nfc/")  # noqa: E731
        site.vcenter.faults.script("TLB", nfc)
        with pytest.raises(http.client.IncompleteRead) as cut:
            get(site, url)
        assert 65536 < len(cut.value.partial) < 3 * 65536  # head and one grain
        with pytest.raises(http.client.RemoteDisconnected):
            get(site, url)
        assert get(site, url)[0].status == 503
        pieces = site.vcenter.leases.stream(urlsplit(url).path)
        assert pieces is not None and next(pieces)[:4] == b"KDMV"
        lease.HttpNfcLeaseAbort()
        with pytest.raises(OSError, match="ended"):
            next(pieces)
