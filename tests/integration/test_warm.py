"""Warm runs on the whole lab: rounds while the guest writes, a cutover by commit that loses no write, and what may come between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.core.model import Milestone, Power, Result
from reconciler.drivers.kubevirt import labels
from reconciler.errors import ReconcilerError, RetryableError, TerminalError
from reconciler.lab import machines
from reconciler.lab.machines import Vm
from reconciler.wire.http import HttpRangeReader
from tests.integration.loops import assert_equal_bytes, condition, go_on, machine, record_of, tale, told
from tests.integration.simlab import SimLab
from tests.integration.taps import prove_each

MIB = 1 << 20
SIZE = 16
CONTROLLER = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: ForkliftController
metadata: {name: forklift-controller, namespace: openshift-mtv}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SimLab]:
    with SimLab(tmp_path, ttl_s=600.0) as lab:
        lab.warm()
        yield lab


def vm_of(lab: SimLab, **shape: int) -> Vm:
    """`web`, whose guest writes little, so that a delta is told from a copy."""
    vm = lab.tracked_vm("web", mib=SIZE, **shape)
    vm.writes_per_tick = 1
    return vm


def quiet(vm: Vm) -> None:
    vm.writes_per_tick = 0


def begin(lab: SimLab, *names: str, **more: str) -> None:
    lab.plan(*names, **more)
    lab.migration()
    lab.commit()


def rounds_done(lab: SimLab, name: str) -> int:
    return sum(r.ended is not None and not r.abandoned for v in lab.vms() if v.name == name for r in v.rounds)


def until_rounds(lab: SimLab, name: str, count: int) -> None:
    go_on(lab, lambda: rounds_done(lab, name) >= count, 300, seconds=2.0)


def cut_over(lab: SimLab, name: str = "run-1") -> None:
    lab.migration(name, cutover=lab.clock.now())
    lab.commit("cut over")


def ended(lab: SimLab, name: str, run: str = "run-1") -> bool:
    return any(v.name == name and v.run.name == run and v.result is not None for v in lab.vms())


def until_end(lab: SimLab, name: str, run: str = "run-1") -> None:
    go_on(lab, lambda: ended(lab, name, run), 300, seconds=2.0)


def move(lab: SimLab, name: str) -> None:
    cut_over(lab)
    until_end(lab, name)
    lab.assert_moved(name)
    assert not machine(lab, name).snapshots


def held(lab: SimLab, name: str) -> list[str]:
    return [c.type for v in lab.vms() if v.name == name or v.wanted == name for c in v.conditions if c.category.value == "Critical"]


# ---- rounds ---------------------------------------------------------------------------------------------------------------------------


def test_delta_rounds_and_a_cutover_by_commit_lose_no_write(lab: SimLab) -> None:
    vm = vm_of(lab)
    begin(lab, "web")
    until_rounds(lab, "web", 3)
    assert not vm.snapshots
    assert vm.power is machines.Power.ON
    first, *deltas = record_of(lab, "web").rounds
    assert first.read_bytes == SIZE * MIB
    assert all(0 < r.read_bytes < SIZE * MIB for r in deltas)
    move(lab, "web")
    record = record_of(lab, "web")
    assert record.rounds[-1].final
    assert record.rounds[-1].read_bytes < SIZE * MIB
    assert [s.name for s in record.pipeline] == ["Initialize", "DiskTransfer", "Cutover", "VirtualMachineCreation"]
    assert all(s.phase == "Completed" for s in record.pipeline)


def test_rounds_keep_the_interval_and_leave_no_snapshot_between(lab: SimLab) -> None:
    vm = lab.tracked_vm("web", mib=1)
    lab.warm(interval_s=30)
    begin(lab, "web")
    until_rounds(lab, "web", 1)
    at, seen = lab.clock.now(), [len(vm.snapshots)]

    def next_round() -> bool:
        seen.append(len(vm.snapshots))
        return len(record_rounds(lab)) > 1

    go_on(lab, next_round, 200, seconds=2.0)
    assert 28 <= (lab.clock.now() - at).total_seconds() <= 34
    assert len(seen) > 12 and not any(seen), "a snapshot of ours between two rounds"
    assert [t.operation for t in lab.vcenter.tasks.known.values() if t.state == "running"] == ["VirtualMachine.createSnapshot"]


def test_the_controllers_interval_is_edited_while_a_run_goes_on(lab: SimLab) -> None:
    def every(minutes: int) -> None:
        spec = f"spec: {{controller_precopy_interval: {minutes}}}"
        lab.write("controller.yaml", f"{CONTROLLER}{spec}\n")
        lab.commit("interval")

    lab.tracked_vm("web", mib=1)
    every(20)
    begin(lab, "web", annotations="{}")
    until_rounds(lab, "web", 1)
    ended_at = lab.record("web").rounds[0].ended
    assert ended_at is not None and lab.record("web").next_round_at == ended_at + timedelta(minutes=20)
    every(2)
    go_on(lab, lambda: lab.record("web").next_round_at == ended_at + timedelta(minutes=2), 10, seconds=2.0)
    go_on(lab, lambda: len(record_rounds(lab)) > 1, 100, seconds=2.0)
    assert 118 <= (lab.clock.now() - ended_at).total_seconds() <= 126


def record_rounds(lab: SimLab) -> tuple[object, ...]:
    return next(v.rounds for v in lab.vms())


def test_without_a_cutover_it_copies_for_ever_and_one_vm_may_go_early(lab: SimLab) -> None:
    early = lab.tracked_vm("web", mib=1)
    lab.tracked_vm("db", mib=1)
    begin(lab, "web", "db")
    until_rounds(lab, "db", 2)
    lab.write(
        "migrations/run-1.yaml",
        "apiVersion: forklift.konveyor.io/v1beta1\nkind: Migration\nmetadata: {name: run-1, namespace: openshift-mtv}\n"
        "spec:\n  plan: {name: wave, namespace: openshift-mtv}\n  vmCutover:\n"
        f"    - id: vm-{early.key}\n      cutover: {lab.clock.now():%Y-%m-%dT%H:%M:%SZ}\n",
    )
    lab.commit("web goes first")
    until_end(lab, "web")
    assert record_of(lab, "web").result is Result.SUCCEEDED
    assert record_of(lab, "db").milestone is Milestone.NONE
    move(lab, "db")


def test_a_cutover_in_the_future_is_waited_for(lab: SimLab) -> None:
    vm = lab.tracked_vm("web", mib=1)
    lab.plan("web")
    lab.migration(cutover=lab.clock.now() + timedelta(seconds=60))
    lab.commit()
    until_rounds(lab, "web", 1)
    go_on(lab, lambda: vm.power is not machines.Power.ON, 300, seconds=2.0)
    assert lab.clock.at_s >= 1060
    until_end(lab, "web")
    lab.assert_moved("web")


# ---- paths ----------------------------------------------------------------------------------------------------------------------------


def test_a_base_that_cannot_be_read_while_it_runs_is_exported_and_the_rest_read_at_the_cutover(lab: SimLab) -> None:
    lab.store = lab.locked
    vm = vm_of(lab)
    begin(lab, "web")
    until_rounds(lab, "web", 1)
    go_on(lab, lambda: lab.clock.at_s > 1080, 300, seconds=4.0)
    record = lab.record("web")
    assert len([r for r in record.rounds if not r.abandoned]) == 1, "an export cannot read what changed"
    assert "WarmWithoutPrecopy" in [c.type for c in record.conditions]
    assert record.disks[0].reader == "vmdk-stream"
    assert not vm.snapshots
    move(lab, "web")
    final = record_of(lab, "web").rounds[-1]
    assert final.final
    assert 0 < final.read_bytes < SIZE * MIB


def test_where_there_is_no_flat_file_warm_is_refused_before_the_start(lab: SimLab) -> None:
    lab.store = lab.world.add_datastore("vsan", next(iter(lab.world.datacenters.values())), "vsan")
    lab.write("sites.yaml", (lab.clone / "sites.yaml").read_text().replace("{name: locked}", "{name: vsan}"))
    vm = vm_of(lab)
    begin(lab, "web")
    go_on(lab, lambda: bool(held(lab, "web")), 20)
    assert held(lab, "web") == ["DiskPathNotSupported"]
    assert "vddkInitImage" in record_of(lab, "web").message
    assert vm.power is machines.Power.ON
    assert not vm.snapshots


def test_where_there_is_no_flat_file_a_cold_copy_is_an_export(lab: SimLab) -> None:
    lab.store = lab.world.add_datastore("vsan", next(iter(lab.world.datacenters.values())), "vsan")
    lab.write("sites.yaml", (lab.clone / "sites.yaml").read_text().replace("{name: locked}", "{name: vsan}"))
    lab.vm("web", mib=2)
    lab.kind = "cold"
    begin(lab, "web", annotations="{}")
    until_end(lab, "web")
    lab.assert_moved("web")
    assert lab.record("web").disks[0].reader == "vmdk-stream"


# ---- change tracking ------------------------------------------------------------------------------------------------------------------


def test_tracking_that_is_off_is_refused_before_the_start(lab: SimLab) -> None:
    vm = lab.vm("web", mib=1)
    begin(lab, "web")
    go_on(lab, lambda: bool(held(lab, "web")), 20)
    assert held(lab, "web") == ["VMMissingChangedBlockTracking"]
    assert "enable-cbt" in record_of(lab, "web").message
    assert not vm.change_tracking
    assert vm.power is machines.Power.ON


def test_tracking_is_switched_on_when_the_plan_asks(lab: SimLab) -> None:
    vm = lab.vm("web", mib=1)
    begin(lab, "web", annotations='{reconciler.dev/enable-cbt: "true", reconciler.dev/precopy-interval: "10"}')
    until_rounds(lab, "web", 2)
    assert vm.change_tracking
    move(lab, "web")


@pytest.mark.parametrize("doubt", ["reset", "crash", "revert"])
def test_change_ids_that_may_lie_cost_a_compare_round_and_no_write(lab: SimLab, doubt: str) -> None:
    vm = vm_of(lab)
    begin(lab, "web")
    until_rounds(lab, "web", 2)
    match doubt:
        case "reset":
            lab.world.reset_change_tracking(vm)
        case "crash":
            lab.world.crash_host(vm, resets_tracking=False)
        case "revert":
            key = lab.world.create_snapshot(vm, "before the upgrade").key
            lab.clock.sleep(5)
            lab.world.revert_to_snapshot(vm, key)
            lab.world.remove_snapshot(vm, key)
            lab.world.power_on(vm)
    until_rounds(lab, "web", 3)
    last = [r for r in lab.record("web").rounds if r.ended and not r.abandoned][-1]
    assert last.doubts, "nothing was doubted"
    assert last.read_bytes == SIZE * MIB
    move(lab, "web")


# ---- disturbances ---------------------------------------------------------------------------------------------------------------------


def test_a_snapshot_taken_away_while_it_is_read_costs_the_round_and_no_write(lab: SimLab) -> None:
    """Safety 14: bytes read of a base that was merged meanwhile are worth nothing."""
    vm = vm_of(lab)
    begin(lab, "web")
    until_rounds(lab, "web", 1)
    starts = lab.inline.starts
    go_on(lab, lambda: lab.inline.starts > starts, 200, seconds=2.0)
    assert len(vm.snapshots) == 1
    lab.world.remove_snapshot(vm, vm.snapshots[0].key)
    until_rounds(lab, "web", 2)
    assert any("somebody else" in r.abandoned for r in record_of(lab, "web").rounds)
    move(lab, "web")


def test_a_snapshot_of_somebody_else_is_waited_for(lab: SimLab) -> None:
    vm = lab.tracked_vm("web", mib=1)
    begin(lab, "web")
    until_rounds(lab, "web", 1)
    key = lab.world.create_snapshot(vm, "nightly backup").key
    go_on(lab, lambda: lab.clock.at_s > 1080, 300, seconds=2.0)
    assert rounds_done(lab, "web") == 1
    assert "nightly backup" in tale(lab)
    lab.world.remove_snapshot(vm, key)
    until_rounds(lab, "web", 2)
    move(lab, "web")


@pytest.mark.parametrize("change", ["added", "grown", "removed"])
def test_a_changed_disk_holds_the_vm_with_the_guest_up_and_no_snapshot(lab: SimLab, change: str) -> None:
    """Safety 12."""
    vm = lab.tracked_vm("web", mib=1, disks=2)
    begin(lab, "web")
    until_rounds(lab, "web", 1)
    match change:
        case "added":
            lab.world.add_disk(vm, lab.store, 1, 1)
        case "grown":
            lab.world.grow_disk(vm, vm.disks[0], 2)
        case "removed":
            lab.world.remove_disk(vm, vm.disks[1])
    cut_over(lab)
    go_on(lab, lambda: bool(held(lab, "web")), 60, seconds=2.0)
    assert held(lab, "web") == ["SourceChanged"]
    assert vm.power is machines.Power.ON
    assert not vm.snapshots


def test_a_cutover_waits_while_the_clocks_differ(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safety 19."""
    vm = lab.tracked_vm("web", mib=1)
    begin(lab, "web")
    until_rounds(lab, "web", 1)
    monkeypatch.setattr(lab.world, "now", lambda: lab.clock.now() - timedelta(days=1))
    cut_over(lab)
    go_on(lab, lambda: "clock" in lab.record("web").message, 60)
    assert vm.power is machines.Power.ON
    monkeypatch.undo()
    until_end(lab, "web")
    lab.assert_moved("web")


# ---- interruptions --------------------------------------------------------------------------------------------------------------------


class Cut:
    """The copy pod's reader fails, for now or for good, once it has read so much."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, error: type[ReconcilerError] = RetryableError) -> None:
        self.left, self.read, self.error = after, HttpRangeReader.read_into, error
        monkeypatch.setattr(HttpRangeReader, "read_into", self._patched())

    def _patched(self) -> object:
        cut = self

        def read_into(reader: HttpRangeReader, offset: int, buffer: memoryview) -> None:
            if cut.left <= 0:
                raise cut.error("SourceUnreachable", "the cable is out")
            cut.left -= len(buffer)
            cut.read(reader, offset, buffer)

        return read_into


def test_a_cutover_in_the_first_copy_keeps_what_was_proven(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 64
    lab.tracked_vm("web", mib=size).writes_per_tick = 1
    cut = Cut(monkeypatch, 40 * MIB)
    begin(lab, "web")
    go_on(lab, lambda: lab.inline.starts >= 1, 60)
    lab.migration(cutover=lab.clock.now())
    lab.commit("now")
    go_on(lab, lambda: any(v.rounds and v.rounds[-1].abandoned for v in lab.vms()), 60)
    cut.left = 1 << 40
    until_end(lab, "web")
    lab.assert_moved("web")
    final = record_of(lab, "web").rounds[-1]
    assert final.final
    assert final.read_bytes <= (size - 4) * MIB, "nothing of the first copy was kept"


@pytest.mark.parametrize("moment", ["round", "between", "cutover"])
def test_a_cancel_leaves_the_source_running_without_a_trace(lab: SimLab, moment: str) -> None:
    vm = lab.tracked_vm("web", mib=1)
    begin(lab, "web")
    match moment:
        case "round":
            go_on(lab, lambda: bool(vm.snapshots), 60)
        case "between":
            until_rounds(lab, "web", 2)
        case "cutover":
            until_rounds(lab, "web", 1)
            cut_over(lab)
            go_on(lab, lambda: record_of(lab, "web").milestone is Milestone.CUTOVER, 100)
    lab.migration(cancel=["web"])
    lab.commit("cancel")
    until_end(lab, "web")
    record = record_of(lab, "web")
    assert record.result is Result.CANCELED
    assert vm.power is machines.Power.ON
    assert not vm.snapshots
    lab.assert_nothing_left()
    assert not list(lab.cluster.find_all("PersistentVolumeClaim"))


@pytest.mark.parametrize("then", ["cancel", "cutover"])
def test_a_snapshot_that_the_site_takes_its_time_over_is_not_left_behind(lab: SimLab, then: str) -> None:
    """vCenter makes it minutes after it was asked to; until then no list of snapshots shows it."""
    vm = lab.tracked_vm("web", mib=1)
    lab.vcenter.tasks.operation_s["createSnapshot"] = 40.0
    begin(lab, "web")
    go_on(lab, lambda: any(t.state == "running" for t in lab.vcenter.tasks.known.values()), 60)
    if then == "cancel":
        lab.migration(cancel=["web"])
        lab.commit("cancel")
    else:
        cut_over(lab)
    go_on(lab, lambda: "is being made" in tale(lab), 30)
    assert vm.power is machines.Power.ON
    until_end(lab, "web")
    lab.clock.sleep(120)
    assert not vm.snapshots
    assert record_of(lab, "web").result is (Result.CANCELED if then == "cancel" else Result.SUCCEEDED)


def test_a_retry_goes_on_from_the_last_mark(lab: SimLab) -> None:
    """Failed at the cutover, the source runs again for a while; the next Migration copies only what changed."""
    vm = vm_of(lab)
    begin(lab, "web", annotations='{reconciler.dev/precopy-interval: "10", reconciler.dev/guest-shutdown-timeout: "30"}')
    until_rounds(lab, "web", 1)
    quiet(vm)
    vm.ignores_shutdown = True
    cut_over(lab)
    go_on(lab, lambda: ended(lab, "web"), 100, seconds=20.0)
    assert record_of(lab, "web").result is Result.FAILED
    assert vm.power is machines.Power.ON
    vm.ignores_shutdown = False
    lab.migration("run-2")
    lab.commit("again")
    go_on(lab, lambda: any(r.ended for v in lab.vms() if v.run.name == "run-2" for r in v.rounds), 300, seconds=2.0)
    second = record_of(lab, "web", "run-2")
    assert 0 < second.rounds[0].read_bytes < SIZE * MIB, "all was copied again"
    assert second.rounds[0].number == record_of(lab, "web").rounds[-1].number + 1
    cut_over(lab, "run-2")
    until_end(lab, "web", "run-2")
    assert record_of(lab, "web", "run-2").result is Result.SUCCEEDED
    assert_equal_bytes(lab, "web", "run-2")


def test_a_retry_goes_on_from_the_watermark_of_a_first_copy(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed for good in the middle of it; what was proven by then is kept, as of that snapshot."""
    vm = vm_of(lab)
    quiet(vm)
    prove_each(monkeypatch, MIB)
    cut = Cut(monkeypatch, SIZE // 2 * MIB, TerminalError)
    begin(lab, "web")
    until_end(lab, "web")
    first = record_of(lab, "web")
    assert first.result is Result.FAILED and first.error is not None and first.error.reason == "SourceUnreachable"
    assert not vm.snapshots
    kept = lab.marked()[0]["metadata"]["annotations"][labels.MARK]
    proven = json.loads(kept)["provenBytes"]
    assert proven == SIZE // 2 * MIB
    cut.left = 1 << 40
    lab.migration("run-2")
    lab.commit("again")
    until_rounds(lab, "web", 1)
    assert record_of(lab, "web", "run-2").rounds[0].read_bytes == SIZE * MIB - proven
    cut_over(lab, "run-2")
    until_end(lab, "web", "run-2")
    assert record_of(lab, "web", "run-2").result is Result.SUCCEEDED
    assert_equal_bytes(lab, "web", "run-2")


def test_a_switched_off_guest_is_moved_all_the_same(lab: SimLab) -> None:
    vm = lab.tracked_vm("web", mib=1)
    begin(lab, "web")
    until_rounds(lab, "web", 1)
    lab.world.power_off(vm)
    cut_over(lab)
    until_end(lab, "web")
    assert record_of(lab, "web").result is Result.SUCCEEDED
    assert record_of(lab, "web").restore_power_state is Power.ON
    assert told(condition(record_of(lab, "web").conditions, "Succeeded"))


# ---- the downtime ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.5, 7.0])
def test_the_downtime_that_is_told_covers_the_one_that_both_sites_saw(lab: SimLab, seconds: float) -> None:
    """Whatever the pace of the passes, and however long the guest takes to shut down: never less, and more by two looks at most."""
    vm = vm_of(lab)
    vm.shutdown_s = 20.0
    begin(lab, "web")
    until_rounds(lab, "web", 2)
    cut_over(lab)
    go_on(lab, lambda: ended(lab, "web"), 300, seconds=seconds)
    off = max(e.at for e in lab.world.history if e.vm == vm.key and e.kind is machines.Happening.OFF)
    on = min(r.since for r in lab.cluster.running_vms())
    known = record_of(lab, "web").outage
    assert known is not None and known.back_at is not None
    look = timedelta(seconds=seconds + 1.0)
    assert off - look <= known.off_at <= off
    assert on <= known.back_at <= on + look
