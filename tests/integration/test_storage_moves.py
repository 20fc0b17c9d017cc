"""Storage vMotion under a run, on the whole lab: the paths are read anew, change ids are doubted, and no VM fails for it.

Matrix: when the files are moved, and whether the ids of the changes outlive it (which some releases let them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.core.model import Milestone
from reconciler.core.record import VmRecord
from reconciler.lab import machines
from reconciler.lab.machines import Vm
from reconciler.wire.http import HttpRangeReader
from tests.integration.loops import go_on, record_of
from tests.integration.simlab import SimLab
from tests.integration.test_warm import begin, cut_over, ended, held, move, rounds_done, until_end, until_rounds

MIB = 1 << 20
SIZE = 16


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SimLab]:
    with SimLab(tmp_path, ttl_s=600.0) as lab:
        lab.warm()
        yield lab


def vm_of(lab: SimLab, *, disks: int = 1) -> Vm:
    vm = lab.tracked_vm("web", mib=SIZE, disks=disks)
    vm.writes_per_tick = 1
    return vm


def relocation(lab: SimLab, vm: Vm, keep_ids: bool, kind: str = "vmfs") -> Callable[[], None]:
    """To a datastore that the map does not know: what was frozen does not follow it."""
    elsewhere = lab.world.add_datastore(f"elsewhere-{kind}", vm.datacenter, kind, base_readable=True)
    return lambda: lab.world.relocate(vm, elsewhere, keep_ids=keep_ids)


class InTheMiddle:
    """Does `what` once, at the third read of the next copy that begins after `when` holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool], what: Callable[[], None]) -> None:
        self.done, self.reads = False, 0
        read = HttpRangeReader.read_into

        def read_into(reader: HttpRangeReader, offset: int, buffer: memoryview) -> None:
            self.reads += when()
            if self.reads == 3 and not self.done:
                self.done = True
                what()
            read(reader, offset, buffer)

        monkeypatch.setattr(HttpRangeReader, "read_into", read_into)


def in_round(lab: SimLab, number: int) -> Callable[[], bool]:
    def under_way() -> bool:
        last = lab.record("web").rounds[-1:] if lab.reports else ()
        return bool(last) and last[0].number == number and last[0].ended is None

    return under_way


def compared(record: VmRecord) -> bool:
    return any(r.doubts for r in record.rounds)


@pytest.mark.parametrize(("number", "keep_ids"), [(1, True), (2, False), (2, True)])
def test_in_a_round_it_costs_the_round(lab: SimLab, monkeypatch: pytest.MonkeyPatch, number: int, keep_ids: bool) -> None:
    vm = vm_of(lab, disks=2)
    vm.writes_per_tick = 1 if number == 1 else 12  # enough reads for one to fall into the middle
    cut = InTheMiddle(monkeypatch, in_round(lab, number), relocation(lab, vm, keep_ids))
    begin(lab, "web")
    go_on(lab, lambda: rounds_done(lab, "web") >= number + 1 or ended(lab, "web"), 300, seconds=2.0)
    record = record_of(lab, "web")
    assert cut.done and record.result is None, record.message
    assert [r.number for r in record.rounds if "went away" in r.abandoned] == [number]
    assert vm.power is machines.Power.ON and not vm.snapshots
    assert compared(record) or number == 1, "change ids of the time before were believed"
    move(lab, "web")


@pytest.mark.parametrize("keep_ids", [False, True])
def test_between_rounds_it_costs_a_compare_round(lab: SimLab, keep_ids: bool) -> None:
    vm = vm_of(lab)
    begin(lab, "web")
    until_rounds(lab, "web", 2)
    relocation(lab, vm, keep_ids)()
    until_rounds(lab, "web", 3)
    last = [r for r in record_of(lab, "web").rounds if r.ended and not r.abandoned][-1]
    assert last.doubts and last.read_bytes == SIZE * MIB
    move(lab, "web")


def test_before_the_first_byte_of_a_round_it_is_not_even_noticed(lab: SimLab) -> None:
    """The snapshot is there, the copy is not: its base is read where it lies by then."""
    vm = vm_of(lab)
    begin(lab, "web")
    go_on(lab, lambda: bool(vm.snapshots), 60)
    relocation(lab, vm, False)()
    until_rounds(lab, "web", 2)
    assert record_of(lab, "web").result is None
    move(lab, "web")


@pytest.mark.parametrize(("kind", "keep_ids"), [("warm", True), ("cold", False)])
def test_with_the_guest_off_the_next_attempt_finds_it(lab: SimLab, monkeypatch: pytest.MonkeyPatch, kind: str, keep_ids: bool) -> None:
    vm = vm_of(lab)
    vm.writes_per_tick = 12
    cut = InTheMiddle(monkeypatch, lambda: vm.power is machines.Power.OFF, relocation(lab, vm, keep_ids))
    if kind == "cold":
        lab.kind = "cold"
        begin(lab, "web", annotations="{}")
    else:
        begin(lab, "web")
        until_rounds(lab, "web", 1)
        cut_over(lab)
    until_end(lab, "web")
    assert cut.done
    lab.assert_moved("web")


@pytest.mark.parametrize("when", ["in a round", "between rounds"])
def test_to_where_no_flat_file_is_it_is_held_with_the_guest_up_until_it_is_back(
    lab: SimLab, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    vm = vm_of(lab)
    away = relocation(lab, vm, False, "vsan")
    cut = InTheMiddle(monkeypatch, in_round(lab, 1), away if when == "in a round" else lambda: None)
    begin(lab, "web")
    if when == "in a round":
        go_on(lab, lambda: cut.done, 60, seconds=2.0)
    else:
        until_rounds(lab, "web", 1)
        away()
    cut_over(lab)
    go_on(lab, lambda: bool(held(lab, "web")) and not vm.snapshots, 60, seconds=2.0)
    record = lab.record("web")
    assert held(lab, "web") == ["SourceChanged"] and "vSAN" in record.message
    assert record.result is None and record.milestone is Milestone.NONE
    assert vm.power is machines.Power.ON
    lab.world.relocate(vm, lab.store)
    until_end(lab, "web")
    lab.assert_moved("web")


def test_to_where_no_flat_file_is_with_the_guest_off_it_is_given_back(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting would cost downtime, and nobody can say for how long."""
    vm = vm_of(lab)
    cut = InTheMiddle(monkeypatch, lambda: vm.power is machines.Power.OFF, relocation(lab, vm, True, "vsan"))
    lab.kind = "cold"
    begin(lab, "web", annotations="{}")
    until_end(lab, "web")
    error = record_of(lab, "web").error
    assert cut.done and error is not None and error.reason == "SourceNotFound"
    assert vm.power is machines.Power.ON
