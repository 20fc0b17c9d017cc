"""What a warm run cannot do is said with the guest up, and nothing is made on the source. Matrix: what is wrong, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.model import Milestone
from reconciler.lab import machines
from reconciler.lab.machines import Vm
from tests.integration.loops import go_on, passes
from tests.integration.simlab import SimLab
from tests.integration.test_storage_moves import InTheMiddle, in_round
from tests.integration.test_warm import begin, cut_over, held, move, rounds_done, until_rounds


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SimLab]:
    with SimLab(tmp_path, ttl_s=600.0) as lab:
        lab.warm()
        yield lab


def tasks(lab: SimLab) -> list[str]:
    """What was asked of the vCenter that takes a task."""
    return [t.operation.rpartition(".")[2] for t in lab.vcenter.tasks.known.values()]


def refused(lab: SimLab, vm: Vm, *types: str) -> str:
    """Before the start, cutover or not; what it says."""
    begin(lab, "web")
    cut_over(lab)
    go_on(lab, lambda: bool(held(lab, "web")), 20)
    passes(lab, 10, seconds=2.0)
    assert set(held(lab, "web")) == set(types)
    record = lab.record("web")
    assert record.frozen is None and record.milestone is Milestone.NONE
    assert vm.power is machines.Power.ON
    assert not lab.cluster.find_all("Job") and not lab.cluster.find_all("PersistentVolumeClaim")
    return " ".join(f"{c.message} {c.suggestion}" for c in record.conditions)


def test_snapshots_that_are_there_already_are_told_before_the_start_and_it_goes_on_without_them(lab: SimLab) -> None:
    vm = lab.tracked_vm("web", mib=1)
    theirs = lab.world.create_snapshot(vm, "before the update")
    said = refused(lab, vm, "VMHasSnapshots", "DiskPathNotSupported")
    assert "before the update" in said and "vddkInitImage" in said
    assert vm.snapshots == [theirs] and not tasks(lab)
    lab.world.remove_snapshot(vm, theirs.key)
    move(lab, "web")


@pytest.mark.parametrize("wrong", ["independent_persistent", "independent_nonpersistent", "nonpersistent", "encrypted"])
def test_disks_that_a_snapshot_cannot_freeze_or_nobody_can_read(lab: SimLab, wrong: str) -> None:
    vm = lab.tracked_vm("web", mib=1)
    shape = {"key_id": "key-1"} if wrong == "encrypted" else {"mode": wrong}
    lab.world.add_disk(vm, lab.store, 1, **shape)
    lab.world.set_change_tracking(vm, True)
    said = refused(lab, vm, "DiskPathNotSupported", *(["VMMissingChangedBlockTracking"] if wrong.startswith("independent") else []))
    assert ("encrypted" if wrong == "encrypted" else wrong.partition("_")[0]) in said
    assert not vm.snapshots and not tasks(lab)


def test_tracking_that_two_snapshots_have_not_confirmed_holds_the_vm(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is switched on, as the settings say, and no record has begun: a snapshot shows it, by its change ids. Two are tried, not more."""
    vm = lab.tracked_vm("web", mib=1)
    monkeypatch.setattr(lab.world, "_new_record", lambda: None)
    for disk in vm.disks:
        disk.tracking = None
    begin(lab, "web")
    go_on(lab, lambda: bool(held(lab, "web")), 60)
    passes(lab, 60, seconds=4.0)
    assert held(lab, "web") == ["VMMissingChangedBlockTracking"]
    assert "two snapshots" in lab.record("web").message
    assert tasks(lab).count("createSnapshot") == 2 and not vm.snapshots
    assert vm.power is machines.Power.ON and not lab.cluster.find_all("Job")
    cut_over(lab)
    passes(lab, 20, seconds=2.0)
    assert held(lab, "web") == ["VMMissingChangedBlockTracking"] and vm.power is machines.Power.ON


@pytest.mark.parametrize("change", ["added", "grown", "removed"])
def test_a_disk_that_changes_under_a_round_holds_the_vm(lab: SimLab, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """Safety 12, in the middle of the second copy; a cutover that comes then waits too."""
    vm = lab.tracked_vm("web", mib=16, disks=2)

    def meanwhile() -> None:
        match change:
            case "added":
                lab.world.add_disk(vm, lab.store, 1, 1)
            case "grown":
                lab.world.grow_disk(vm, vm.disks[1], 32)
            case "removed":
                lab.world.remove_disk(vm, vm.disks[1])

    cut = InTheMiddle(monkeypatch, in_round(lab, 2), meanwhile)
    begin(lab, "web")
    until_rounds(lab, "web", 1)
    go_on(lab, lambda: cut.done, 100, seconds=2.0)
    cut_over(lab)
    go_on(lab, lambda: bool(held(lab, "web")) and not vm.snapshots, 60, seconds=2.0)
    passes(lab, 10, seconds=2.0)
    assert held(lab, "web") == ["SourceChanged"] and change.replace("grown", "resized") in lab.record("web").message
    assert rounds_done(lab, "web") <= 2 and lab.record("web").result is None
    assert vm.power is machines.Power.ON and not vm.snapshots
