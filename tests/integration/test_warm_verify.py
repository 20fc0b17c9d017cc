"""`verify: source` of warm runs on the whole lab: what is proven while the guest runs, and what that finds (safety 15)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.copyspec import CopySpec
from reconciler.core.model import Result
from reconciler.core.ranges import total
from reconciler.lab import machines
from reconciler.lab.machines import Vm
from reconciler.wire.http import HttpRangeReader
from tests.integration.loops import machine, record_of
from tests.integration.simlab import SimLab
from tests.integration.test_warm import begin, cut_over, move, until_end, until_rounds

MIB = 1 << 20
SIZE = 8
EIGHTH = SIZE * MIB // 8


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SimLab]:
    with SimLab(tmp_path, ttl_s=600.0) as lab:
        lab.warm()
        yield lab


def start(lab: SimLab, verify: str = "source") -> Vm:
    vm = lab.tracked_vm("web", mib=SIZE)
    vm.writes_per_tick = 1
    begin(lab, "web", annotations=f'{{reconciler.dev/precopy-interval: "10", reconciler.dev/verify: {verify}}}')
    return vm


@pytest.fixture
def reads(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(power of the source, bytes) of each range that a worker reads."""
    seen: list[tuple[str, int]] = []
    real = HttpRangeReader.read_into

    def read_into(self: HttpRangeReader, offset: int, buffer: memoryview) -> None:
        seen.append((machine(lab, "web").power.value, len(buffer)))
        real(self, offset, buffer)

    monkeypatch.setattr(HttpRangeReader, "read_into", read_into)
    return seen


def read(reads: list[tuple[str, int]], power: str) -> int:
    return sum(length for seen, length in reads if seen == power)


def test_the_whole_disk_is_proven_while_the_guest_runs(lab: SimLab, reads: list[tuple[str, int]]) -> None:
    start(lab)
    until_rounds(lab, "web", 8)
    assert record_of(lab, "web").disks[0].eighths == tuple(range(8))
    copied = sum(r.read_bytes for r in record_of(lab, "web").rounds)
    assert read(reads, "on") == copied + 8 * EIGHTH
    move(lab, "web")
    last = record_of(lab, "web").rounds[-1]
    assert last.final and 0 < read(reads, "off") == 2 * last.read_bytes < SIZE * MIB


def test_an_early_cutover_reads_what_no_round_came_to(lab: SimLab, reads: list[tuple[str, int]]) -> None:
    start(lab)
    until_rounds(lab, "web", 3)
    move(lab, "web")
    assert 5 * EIGHTH < read(reads, "off") <= 5 * EIGHTH + 2 * record_of(lab, "web").rounds[-1].read_bytes


def test_row_15_a_write_that_change_tracking_lost_is_found_while_the_guest_runs(lab: SimLab) -> None:
    """No fault and no doubt: only a look at the bytes tells."""
    vm = start(lab)
    until_rounds(lab, "web", 2)
    (disk,) = vm.disks
    disk.tracking, lost = None, disk.tracking
    lab.world.guest_write(vm, disk, 2 * EIGHTH + 12345, b"what nobody will ever hear of")
    disk.tracking = lost
    until_rounds(lab, "web", 3)
    third = record_of(lab, "web").rounds[2]
    assert vm.power is machines.Power.ON and third.ended and not third.abandoned
    assert list(third.doubts) == [disk.uuid] and "differ" in third.doubts[disk.uuid]
    assert third.read_bytes == SIZE * MIB, "all of it is compared"
    move(lab, "web")


def test_row_15_one_that_no_round_came_to_is_found_at_the_cutover(lab: SimLab) -> None:
    vm = start(lab)
    until_rounds(lab, "web", 2)
    (disk,) = vm.disks
    disk.tracking, lost = None, disk.tracking
    lab.world.guest_write(vm, disk, 7 * EIGHTH + 12345, b"what nobody will ever hear of")
    disk.tracking = lost
    cut_over(lab)
    until_end(lab, "web")
    record = record_of(lab, "web")
    assert record.result is Result.SUCCEEDED and disk.uuid in record.rounds[-1].doubts
    lab.assert_moved("web")


def test_an_exported_first_copy_is_proven_whole(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base of a running VM cannot be read here: the stream is read twice, from the snapshot, and the cutover reads what changed."""
    specs: list[CopySpec] = []
    look = lab.inline._look
    monkeypatch.setattr(lab.inline, "_look", lambda spec: (specs.append(spec), look(spec)))
    lab.store.reads_running_base = False
    start(lab)
    until_rounds(lab, "web", 1)
    record = record_of(lab, "web")
    assert record.base_unreadable and record.disks[0].eighths == tuple(range(8)) and record.disks[0].sha256
    move(lab, "web")
    (last,) = specs[-1].disks
    assert last.check == () and last.check_copied and last.ranges is not None and total(last.ranges) < SIZE * MIB
