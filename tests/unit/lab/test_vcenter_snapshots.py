"""Snapshots of the simulated vCenter through the real pyVmomi: trees, limits, failures, consolidation, and readers that are overtaken."""

from __future__ import annotations

import http.client
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from reconciler.lab import sparse
from reconciler.lab.clock import WallClock
from reconciler.lab.machines import Power
from reconciler.lab.snapshots import MOST_LEVELS
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.estate import add_warm_wave, build_shop_estate
from reconciler.lab.world import World
from tests.unit.lab.vcenterkit import Site, ref


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> LabCa:
    return LabCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def site(tmp_path: Path, ca: LabCa) -> Iterator[Site]:
    made = Site(tmp_path, ca, vms=1)
    made.vcenter.start()
    yield made
    made.vcenter.stop()


def done(site: Site, task: Any) -> Any:
    site.pass_time(10)
    if task.info.error is not None:
        raise task.info.error
    return task.info.result


def create(site: Site, vm: Any, name: str) -> Any:
    return done(site, vm.CreateSnapshot_Task(name=name, description=f"about {name}", memory=False, quiesce=False))


def head(site: Site, file: str = "vm-0-flat.vmdk") -> tuple[int, bytes]:
    """Status and first 512 bytes of a file in the machine's folder."""
    connection = http.client.HTTPSConnection("127.0.0.1", site.vcenter.port, context=site.context, timeout=5)
    account = b64encode(f"{site.vcenter.user}:{site.vcenter.password}".encode()).decode()
    try:
        headers = {"Authorization": f"Basic {account}", "Range": "bytes=0-511"}
        connection.request("GET", f"/folder/vm-0/{file}?dcPath=DC1&dsName=ds-fast", headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def file_name(vm: Any) -> str:
    backing = next(d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)).backing
    return str(backing.fileName)


def test_a_tree_with_branches_after_a_revert(site: Site) -> None:
    record = site.vm(0)
    disk = record.disks[0]
    site.world.power_on(record)
    with site.client() as si:
        vm = ref(site, si, 0)
        a = create(site, vm, "a")
        site.world.guest_write(record, disk, 0, b"b" * 512)
        b = create(site, vm, "b")
        site.world.guest_write(record, disk, 0, b"x" * 512)
        done(site, a.RevertToSnapshot_Task())
        assert disk.path.read_bytes()[:512] == bytes(512)
        c = create(site, vm, "c")
        (root,) = vm.snapshot.rootSnapshotList
        assert (root.name, root.description, [s.name for s in root.childSnapshotList]) == ("a", "about a", ["b", "c"])
        assert vm.snapshot.currentSnapshot._moId == c._moId
        done(site, b.RevertToSnapshot_Task())
        assert disk.path.read_bytes()[:512] == b"b" * 512
        done(site, vm.RevertToCurrentSnapshot_Task())
        done(site, a.RemoveSnapshot_Task(removeChildren=False))
        assert {s.name for s in vm.snapshot.rootSnapshotList} == {"b", "c"}
        done(site, vm.RemoveAllSnapshots_Task())
        assert vm.snapshot is None and file_name(vm) == "[ds-fast] vm-0/vm-0.vmdk"
        assert disk.path.read_bytes()[:512] == b"b" * 512
        assert [p.name for p in disk.path.parent.iterdir()] == ["vm-0-flat.vmdk"]
        with pytest.raises(vim.fault.NotFound):
            vm.RevertToCurrentSnapshot_Task()


def test_removal_with_children_takes_them_along(site: Site) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        first, _, _ = (create(site, vm, name) for name in "abc")
        done(site, first.RemoveSnapshot_Task(removeChildren=True))
        assert vm.snapshot is None
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            first.RemoveSnapshot_Task(removeChildren=False)


def test_a_chain_has_an_end(site: Site) -> None:
    for number in range(MOST_LEVELS):
        site.world.create_snapshot(site.vm(0), str(number))
    with site.client() as si, pytest.raises(vim.fault.TooManySnapshotLevels):
        create(site, ref(site, si, 0), "one more")


def test_tasks_take_their_own_time_and_fail_on_order(site: Site) -> None:
    site.vcenter.tasks.operation_s["removeSnapshot"] = 1200.0
    site.vcenter.tasks.fail_next("createSnapshot", vim.fault.SnapshotFault(msg="An error occurred while saving the snapshot."))
    with site.client() as si:
        vm = ref(site, si, 0)
        with pytest.raises(vim.fault.SnapshotFault):
            create(site, vm, "a")
        assert vm.snapshot is None
        made = create(site, vm, "a")
        task = made.RemoveSnapshot_Task(removeChildren=False)
        site.pass_time(1199)
        assert task.info.state == "running"
        for act in (vm.PowerOnVM_Task, lambda: create(site, vm, "b")):
            with pytest.raises(vim.fault.TaskInProgress):
                act()
        site.pass_time(1)
        assert task.info.state == "success" and vm.snapshot is None


@pytest.mark.parametrize("how", ["locked", "asked for"])
def test_files_that_stay_behind_need_consolidation(site: Site, how: str) -> None:
    record = site.vm(0)
    with site.client() as si:
        vm = ref(site, si, 0)
        made = create(site, vm, "a")
        if how == "locked":
            record.consolidations_that_fail = 1
            with pytest.raises(vim.fault.FileLocked):
                done(site, made.RemoveSnapshot_Task(removeChildren=False))
        else:
            done(site, made.RemoveSnapshot_Task(removeChildren=False, consolidate=False))
        assert vm.snapshot is None and vm.runtime.consolidationNeeded is True
        assert file_name(vm) == "[ds-fast] vm-0/vm-0-000001.vmdk"
        done(site, vm.ConsolidateVMDisks_Task())
        assert vm.runtime.consolidationNeeded is False and file_name(vm) == "[ds-fast] vm-0/vm-0.vmdk"


def test_who_reads_a_base_is_overtaken_by_its_consolidation(site: Site) -> None:
    """A backup product removes the snapshot between two reads of one file."""
    record = site.vm(0)
    record.disks[0].datastore.reads_running_base = True
    site.world.power_on(record)
    made = site.world.create_snapshot(record, "ours")
    site.world.guest_write(record, record.disks[0], 0, b"new" + bytes(509))
    assert head(site) == (206, bytes(512))
    site.world.remove_snapshot(record, made.key)
    assert head(site)[0] == 500  # the running file again
    site.world.power_off(record)
    assert head(site) == (206, b"new" + bytes(509))
    assert head(site, "vm-0-000001-sesparse.vmdk")[0] == 404


def test_the_warm_wave_writes_while_it_runs_and_one_base_is_not_readable(tmp_path: Path) -> None:
    world = World(tmp_path, WallClock())
    build_shop_estate(world)
    wave = add_warm_wave(world)
    for vm in wave:
        since = [world.create_snapshot(vm, "s").disks[n].change_id for n in range(len(vm.disks))]
        world.tick()
        world.remove_snapshot(vm, vm.snapshots[0].key)
        assert vm.power is Power.ON and all(since)
        for disk, change_id in zip(vm.disks, since, strict=True):
            areas = world.changed_areas(vm, disk, None, str(change_id))
            assert 0 < sum(length for _, length in areas) < sparse.MIB
    assert [vm.disks[0].datastore.reads_running_base for vm in wave] == [True, True, False]
