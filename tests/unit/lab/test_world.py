"""The lab's world: disks with holes, guests that write, power over time, and what the tests judge by. Time is moved by hand."""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.lab import chains, sparse
from reconciler.lab.machines import Disk, Happening, Power, Vm
from reconciler.lab.world import NoTools, World, WrongPower


class HandClock:
    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


def build(root: Path) -> tuple[World, HandClock, Vm, Disk]:
    clock = HandClock()
    world = World(root, clock, seed=7)
    dc = world.add_datacenter("DC1")
    host = world.add_host("esxi", world.add_cluster("C", dc))
    store = world.add_datastore("ds", dc)
    vm = world.add_vm("web", host, shutdown_s=30.0)
    disk = world.add_disk(vm, store, capacity_mib=16, data_mib=4)
    return world, clock, vm, disk


def test_disks_are_the_same_for_the_same_seed_and_have_holes(tmp_path: Path) -> None:
    world, _, vm, disk = build(tmp_path / "a")
    other_world, _, other_vm, other = build(tmp_path / "b")
    assert world.source_sha256(vm, disk) == other_world.source_sha256(other_vm, other)
    assert disk.uuid == other.uuid
    allocated = disk.path.stat().st_blocks * 512
    assert 3 * sparse.MIB < allocated < 6 * sparse.MIB
    assert disk.path.stat().st_size == 16 * sparse.MIB
    data = disk.path.read_bytes()
    assert any(data[:512]) and any(data[-512:])
    assert hashlib.sha256(data).hexdigest() == world.source_sha256(vm, disk)


def test_a_guest_writes_only_while_it_runs_and_logs_each_write(tmp_path: Path) -> None:
    world, _, vm, disk = build(tmp_path)
    before = disk.path.read_bytes()
    world.tick()
    assert disk.path.read_bytes() == before
    world.power_on(vm)
    world.tick()
    after = disk.path.read_bytes()
    assert after != before
    assert vm.write_count == len(vm.writes) == vm.writes_per_tick
    patched = bytearray(before)
    for write in vm.writes:
        assert write.disk_uuid == disk.uuid
        patched[write.offset : write.offset + write.length] = after[write.offset : write.offset + write.length]
    assert bytes(patched) == after
    world.suspend(vm)
    world.tick()
    assert disk.path.read_bytes() == after


def test_a_guest_shuts_down_when_its_time_has_passed_and_at_that_time(tmp_path: Path) -> None:
    world, clock, vm, _ = build(tmp_path)
    world.power_on(vm)
    world.shutdown_guest(vm, "bob")
    clock.passed = 29.0
    world.settle()
    assert vm.power is Power.ON and vm.shutting_down
    clock.passed = 500.0
    world.settle()
    assert vm.power is Power.OFF
    assert [e.kind for e in world.history] == [Happening.STARTING, Happening.ON, Happening.GUEST_SHUTDOWN, Happening.OFF]
    assert world.history[-1].at == datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
    assert (world.history[2].user, world.history[3].cause) == ("bob", "guest")


def test_a_shutdown_asked_in_an_earlier_life_does_not_end_the_next(tmp_path: Path) -> None:
    world, clock, vm, _ = build(tmp_path)
    world.power_on(vm)
    world.shutdown_guest(vm)
    world.power_off(vm)
    world.power_on(vm, user="alice")
    clock.passed = 60.0
    world.settle()
    assert vm.power is Power.ON


def test_some_guests_never_listen_and_some_cannot_hear(tmp_path: Path) -> None:
    world, clock, vm, _ = build(tmp_path)
    with pytest.raises(WrongPower):
        world.shutdown_guest(vm)
    vm.ignores_shutdown = True
    world.power_on(vm)
    world.shutdown_guest(vm)
    clock.passed = 1e6
    world.settle()
    assert vm.power is Power.ON
    vm.tools = False
    with pytest.raises(NoTools):
        world.shutdown_guest(vm)
    with pytest.raises(WrongPower):
        world.power_on(vm)


def test_tools_answer_only_once_the_guest_has_booted(tmp_path: Path) -> None:
    world, clock, vm, _ = build(tmp_path)
    vm.boot_s = 20.0
    world.power_on(vm)
    assert not vm.tools_running
    world.tick()
    assert vm.write_count == 0
    clock.passed = 20.0
    world.settle()
    assert vm.tools_running


def test_the_bytes_at_power_off_survive_a_boot_behind_our_back(tmp_path: Path) -> None:
    world, _, vm, disk = build(tmp_path)
    world.power_on(vm)
    world.tick()
    with pytest.raises(LookupError):
        world.bytes_at_power_off(vm, disk)
    world.power_off(vm)
    at_off = world.source_sha256(vm, disk)
    assert world.sha256_at_power_off(vm, disk) == at_off
    world.power_on(vm, user="alice")
    world.tick()
    assert world.source_sha256(vm, disk) != at_off
    assert world.sha256_at_power_off(vm, disk) == at_off
    world.power_off(vm)
    assert world.sha256_at_power_off(vm, disk) == world.source_sha256(vm, disk) != at_off


def test_in_wall_clock_mode_time_and_guests_go_on_by_themselves(tmp_path: Path) -> None:
    world, clock, vm, _ = build(tmp_path)
    world.power_on(vm)
    world.shutdown_guest(vm)
    world.start()
    try:
        with world.moved:
            clock.passed = 31.0
            assert world.moved.wait_for(lambda: vm.power is Power.OFF, timeout=5)
    finally:
        world.stop()
    assert not any(t.name == "lab-world" for t in threading.enumerate())


def test_a_sparse_copy_is_equal_and_stays_sparse(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    sparse.create(source, 8 * sparse.MIB)
    sparse.scatter(source, 2 * sparse.MIB, seed=3)
    target.write_bytes(b"x" * (9 * sparse.MIB))
    sparse.copy(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks + 16


def test_snapshots_form_a_chain_and_children_move_up(tmp_path: Path) -> None:
    world, _, vm, _ = build(tmp_path)
    first, second, third = (world.create_snapshot(vm, name) for name in "abc")
    world.remove_snapshot(vm, second.key)
    assert [(s.name, s.parent) for s in vm.snapshots] == [("a", None), ("c", first.key)]
    world.remove_snapshot(vm, third.key)
    assert vm.current_snapshot == first.key
    with pytest.raises(KeyError):
        world.remove_snapshot(vm, third.key)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_snapshot_freezes_the_base_and_its_removal_merges_what_was_written(tmp_path: Path, order: tuple[int, int]) -> None:
    world, _, vm, disk = build(tmp_path)
    base, file = disk.path, disk.file
    independent = world.add_disk(vm, disk.datastore, 1, mode="independent_persistent")
    world.power_on(vm)
    frozen, snapshots = [], []
    for name in "ab":
        world.tick()
        frozen.append(world.source_sha256(vm, disk))
        snapshots.append(world.create_snapshot(vm, name))
    world.tick()
    latest = world.source_sha256(vm, disk)
    assert [sparse.sha256(layer.path) for layer in disk.layers] == frozen
    assert sparse.sha256(base) == frozen[0] != latest
    assert chains.backings(disk) == ("[ds] web/web-000001.vmdk", "[ds] web/web.vmdk")
    assert disk.backing == "[ds] web/web-000002.vmdk"
    assert not independent.layers
    for index in order:
        world.remove_snapshot(vm, snapshots[index].key)
        assert world.source_sha256(vm, disk) == latest
        assert [sparse.sha256(layer.path) for layer in disk.layers] == [f for n, f in enumerate(frozen) if n != index][: len(disk.layers)]
    assert (disk.path, disk.file, disk.layers, sparse.sha256(base)) == (base, file, [], latest)
    assert sorted(p.name for p in base.parent.iterdir()) == ["web-flat.vmdk", "web_1-flat.vmdk"]


def test_a_grown_disk_keeps_its_bytes_and_adds_zeros(tmp_path: Path) -> None:
    world, _, vm, disk = build(tmp_path)
    before = disk.path.read_bytes()
    world.grow_disk(vm, disk, 20, user="alice")
    assert disk.path.read_bytes() == before + bytes(4 * sparse.MIB)
    assert (world.history[-1].kind, world.history[-1].user) == (Happening.RECONFIGURED, "alice")
    with pytest.raises(ValueError, match="shrink"):
        world.grow_disk(vm, disk, 16)
