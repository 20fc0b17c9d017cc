"""Warm rounds of the vSphere driver against the simulated vCenter: the contract, and what only vSphere has."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.core.copyspec import ExportSpec, Reader
from reconciler.core.datapath import EXPORT, VDDK
from reconciler.core.model import PowerRequest
from reconciler.drivers.vsphere.sdk import reference, vim
from reconciler.errors import RetryableError, TerminalError
from reconciler.lab.machines import Disk, Happening
from reconciler.lab.vcenter.events import Events
from reconciler.lab.vcenter.server import VCenter
from reconciler.ports import DiskChoice, SourceDriver
from tests.contract import test_vsphere_lab as cold
from tests.contract.suite_source import Site, known
from tests.contract.suite_warm import BLOCK, KEY, OTHER_KEY, WarmContract, changes, doubt_of, doubted, freeze, since, thaw, track, write

cas, vcenter, site = cold.cas, cold.vcenter, cold.site


class TestVsphereWarmContract(WarmContract):
    """The neutral contract."""


# ---- the request ----


def test_neither_memory_nor_a_quiet_guest_is_asked_for(site: Site, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    privilege, create = vcenter.acts.methods["CreateSnapshot_Task"]

    def noting(vm: Any, user: str, args: dict[str, Any]) -> Any:
        asked.append(args)
        return create(vm, user, args)

    monkeypatch.setitem(vcenter.acts.methods, "CreateSnapshot_Task", (privilege, noting))
    freeze(site)
    assert [(args["memory"], args["quiesce"]) for args in asked] == [(False, False)]


def test_a_task_on_the_second_page_of_the_answer_is_seen(site: Site, vcenter: VCenter) -> None:
    """A VM has more recent tasks than one answer of this site holds."""
    for key in ("one", "two"):
        freeze(site, key)
        thaw(site, key)
    assert len(vcenter.tasks.recent(site.machine)) > vcenter.retrieval.page_size
    for _ in range(2):
        site.driver.ensure_snapshot(site.vm, KEY)
    site.advance(5)
    assert len(site.machine.snapshots) == 1


def test_a_template_has_no_snapshots_and_no_second_try(site: Site) -> None:
    site.machine.template = True
    with pytest.raises(TerminalError, match="NotSupported"):
        site.driver.ensure_snapshot(site.vm, KEY)


def test_a_missing_privilege_for_snapshots_is_named(site: Site, vcenter: VCenter) -> None:
    vcenter.denied.add("VirtualMachine.State.CreateSnapshot")
    with pytest.raises(RetryableError) as caught:
        site.driver.ensure_snapshot(site.vm, KEY)
    assert caught.value.reason == "Forbidden"
    assert "VirtualMachine.State.CreateSnapshot" in caught.value.message


def test_a_snapshot_that_goes_while_the_vm_is_read_makes_neither_absent_nor_half(
    site: Site, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(site)
    node = vcenter.inventory.extra
    monkeypatch.setattr(vcenter.inventory, "extra", lambda moid: None if moid.startswith("snapshot-") else node(moid))
    with pytest.raises(RetryableError, match="SnapshotGone"):
        site.driver.read_vm(site.vm)


def test_one_disk_with_tracking_off_is_switched_on(site: Site) -> None:
    track(site)
    disk = site.machine.disks[0]
    disk.tracks = False
    site.machine.extra_config["scsi0:0.ctkEnabled"] = "FALSE"
    site.world.changed(site.machine)
    assert [d.change_tracking for d in known(site.driver.read_vm(site.vm)).disks if d.uuid == disk.uuid] == [False]
    track(site)
    assert all(d.change_tracking for d in known(site.driver.read_vm(site.vm)).disks)


# ---- pages of changed areas ----


@pytest.mark.parametrize(("page_bytes", "page_areas"), [(3 * BLOCK + 512, 2000), (1 << 30, 1)])
def test_all_pages_are_read_though_most_are_empty(site: Site, vcenter: VCenter, page_bytes: int, page_areas: int) -> None:
    vcenter.changes.page_bytes, vcenter.changes.page_areas = page_bytes, page_areas
    track(site)
    disk = site.machine.disks[0]
    then = since(freeze(site), disk)
    thaw(site)
    offsets = (0, 2 * BLOCK, 60 * BLOCK, disk.capacity_bytes - BLOCK)
    for offset in offsets:
        site.world.guest_write(site.machine, disk, offset, b"new")
    now = freeze(site, OTHER_KEY)
    assert changes(site, disk, now.id, then) == [(offset, BLOCK) for offset in offsets]


def test_a_disk_that_is_off_and_tells_no_change_id_is_asked_all_the_same(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as its settings say that it is tracked; of an id that it does not know the site says so."""
    track(site)
    disk = site.machine.disks[0]
    then = since(freeze(site), disk)
    thaw(site)
    write(site, 0)
    site.world.power_off(site.machine)
    monkeypatch.setattr(type(disk), "change_id", None)
    assert changes(site, disk, None, then) == [(0, BLOCK)]
    site.world.reset_change_tracking(site.machine)
    assert "FileFault" in doubt_of(site, disk, None, then)
    site.world.set_change_tracking(site.machine, False)
    assert "no longer tracked" in doubt_of(site, disk, None, then)


def test_the_subject_and_its_history_are_read_once_however_many_disks(site: Site, vcenter: VCenter) -> None:
    """It stands in the downtime of a cutover."""
    for _ in range(4):
        site.world.add_disk(site.machine, site.machine.disks[0].datastore, capacity_mib=1)
    track(site)
    then = freeze(site)
    thaw(site)
    now = freeze(site, OTHER_KEY)

    def calls(disks: list[Disk]) -> Counter[str]:
        before = Counter(vcenter.calls)
        site.driver.read_changes(site.vm, now.id, {disk.uuid: since(then, disk) for disk in disks})
        return vcenter.calls - before

    one, all_ = calls(site.machine.disks[:1]), calls(site.machine.disks)
    asked = "VirtualMachine.QueryChangedDiskAreas"
    assert (one.pop(asked), all_.pop(asked)) == (1, len(site.machine.disks))
    assert one == all_


# ---- the history behind a change id ----


def test_a_revert_between_the_answer_and_the_look_at_the_history_shows(
    site: Site, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    privilege, query = vcenter.acts.methods["QueryChangedDiskAreas"]

    def meddle(vm: Any, user: str, args: dict[str, Any]) -> Any:
        answer = query(vm, user, args)
        site.world.tell(site.machine, Happening.REVERTED, "somebody", "user")
        return answer

    monkeypatch.setitem(vcenter.acts.methods, "QueryChangedDiskAreas", (privilege, meddle))
    assert "revert" in doubted(site, lambda: None)


def test_doubt_when_the_history_forgot_the_time_of_the_snapshot(site: Site) -> None:
    def forget() -> None:
        last = site.world.history[-1]
        site.world.history[:] = [replace(last, number=last.number + 1, at=last.at + timedelta(days=31))]

    assert "reach" in doubted(site, forget)


def test_doubt_when_nobody_may_see_the_history(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "query", lambda self, wanted, limit=None: [])
    doubted(site, lambda: None)


# ---- copies by lease ----


def test_an_export_names_the_lease_that_the_worker_opens(site: Site, vcenter: VCenter) -> None:
    snapshot = freeze(site)
    vm = known(site.driver.read_vm(site.vm))
    for at in (None, snapshot.id):
        source = site.driver.describe_copy(vm, [DiskChoice(disk.uuid, EXPORT) for disk in vm.disks], at)
        assert source.disks == {disk.uuid: (Reader.VMDK_STREAM, "") for disk in vm.disks}
        devices = tuple((disk.uuid, int(disk.key)) for disk in vm.disks)
        assert source.export == ExportSpec(vcenter.url, False, vcenter.instance_uuid, vm.id, vm.uuid, vm.name, at, devices)
        assert source.ca_pem == site.ca_pem.strip()


def test_vddk_gets_the_files_of_the_snapshot_whatever_is_below_them(site: Site, vcenter: VCenter) -> None:
    site.world.create_snapshot(site.machine, "before the update")
    snapshot = freeze(site)
    vm = known(site.driver.read_vm(site.vm))
    for at, disks in ((None, vm.disks), (snapshot.id, snapshot.disks)):
        source = site.driver.describe_copy(vm, [DiskChoice(disk.uuid, VDDK) for disk in disks], at)
        assert source.disks == {disk.uuid: (Reader.NBD, "") for disk in disks}
        assert source.vddk is not None
        assert (source.vddk.url, source.vddk.vm, source.vddk.snapshot) == (vcenter.url, vm.id, at)
        assert source.vddk.files == tuple((disk.uuid, disk.backing.file) for disk in disks)
        assert source.export is None


def test_only_the_disks_that_need_it_are_in_the_lease(site: Site) -> None:
    site.world.power_off(site.machine)
    vm = known(site.driver.read_vm(site.vm))
    one, other = vm.disks
    source = site.driver.describe_copy(vm, [DiskChoice(one.uuid, EXPORT), DiskChoice(other.uuid, site.path)])
    assert source.export is not None
    assert source.export.devices == ((one.uuid, int(one.key)),)
    assert source.disks[other.uuid][0] is Reader.HTTP_RANGE
    assert site.driver.describe_copy(vm, [DiskChoice(other.uuid, site.path)]).export is None


# ---- a lease that a dead worker left behind (safety 23) ----


def _export(driver: SourceDriver, type_: Any, id_: str, call: str) -> None:
    """As the worker would, in a session that nobody closes."""
    driver._session.run("export", lambda content: getattr(reference(content, type_, id_), call)())  # type: ignore[attr-defined]


def test_a_power_on_behind_a_dead_workers_lease_is_waited_for_and_then_done(site: Site, vcenter: VCenter) -> None:
    site.world.power_off(site.machine)
    _export(site.connect(), vim.VirtualMachine, site.vm.id, "ExportVm")
    for _ in range(2):
        with pytest.raises(RetryableError) as caught:
            site.driver.request_power(site.vm, PowerRequest.ON)
        assert caught.value.reason == "LeaseOpen"
        assert "300 s" in caught.value.message
        site.advance(5)
    site.advance(vcenter.leases.timeout_s)
    site.driver.request_power(site.vm, PowerRequest.ON)
    site.advance(5)
    assert site.machine.power == "on"


def test_a_power_on_that_fails_in_its_task_behind_a_lease_says_so(site: Site, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch) -> None:
    site.world.power_off(site.machine)
    _export(site.connect(), vim.VirtualMachine, site.vm.id, "ExportVm")
    site.advance(1)
    (export,) = vcenter.tasks.recent(site.machine)
    privilege, _ = vcenter.acts.methods["PowerOnVM_Task"]

    def fail() -> None:
        raise vim.fault.TaskInProgress(msg="Another task is already in progress.", task=export)

    def late(vm: Any, user: str, args: dict[str, Any]) -> Any:
        return vcenter.acts.in_task(vm, "powerOn", user, None, fail)

    monkeypatch.setattr(vcenter.acts, "alone", lambda vm: None)
    monkeypatch.setitem(vcenter.acts.methods, "PowerOnVM_Task", (privilege, late))
    site.driver.request_power(site.vm, PowerRequest.ON)
    site.advance(5)
    with pytest.raises(RetryableError, match="LeaseOpen"):
        site.driver.request_power(site.vm, PowerRequest.ON)
    monkeypatch.undo()
    site.advance(vcenter.leases.timeout_s)
    site.driver.request_power(site.vm, PowerRequest.ON)
    site.advance(5)
    assert site.machine.power == "on"


def test_a_snapshot_that_a_dead_worker_reads_by_lease_is_removed_when_the_lease_has_ended(site: Site, vcenter: VCenter) -> None:
    snapshot = freeze(site)
    _export(site.connect(), vim.vm.Snapshot, snapshot.id, "ExportSnapshot")
    site.advance(1)
    with pytest.raises(RetryableError, match="LeaseOpen"):
        site.driver.drop_snapshot(site.vm, KEY)
    site.advance(vcenter.leases.timeout_s)
    thaw(site)


def test_a_vm_that_is_busy_otherwise_has_no_lease(site: Site) -> None:
    site.driver.ensure_snapshot(site.vm, KEY)
    site.world.power_off(site.machine)
    with pytest.raises(RetryableError, match="Busy"):
        site.driver.request_power(site.vm, PowerRequest.ON)


def test_writes_are_told_apart_from_those_of_the_round_before(site: Site) -> None:
    """What was written before a snapshot is not in the changes since it, though both are in one record."""
    track(site)
    write(site, 8 * BLOCK)
    first = freeze(site)
    thaw(site)
    write(site, 9 * BLOCK)
    second = freeze(site, OTHER_KEY)
    for disk in site.machine.disks:
        assert changes(site, disk, second.id, since(first, disk)) == [(9 * BLOCK, BLOCK)]
