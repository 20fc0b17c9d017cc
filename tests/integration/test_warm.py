"""Warm runs on the whole lab: rounds while the guest writes, and a cutover by commit that loses no write."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.core.model import Milestone, Result
from reconciler.lab.machines import Vm
from tests.integration.loops import condition, go_on, machine, record_of, tale
from tests.integration.simlab import SimLab

KIB = 1 << 10
INTERVAL_S = 60


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SimLab]:
    with SimLab(tmp_path, ttl_s=600.0) as lab:
        lab.warm()
        yield lab


def rounds_done(lab: SimLab, name: str) -> int:
    return sum(r.ended is not None and not r.abandoned for v in lab.vms() if v.name == name for r in v.rounds)


def until_rounds(lab: SimLab, name: str, count: int) -> None:
    go_on(lab, lambda: rounds_done(lab, name) >= count, 400, seconds=2.0)


def cut_over(lab: SimLab, name: str = "run-1") -> None:
    lab.migration(name, cutover=lab.clock.now())
    lab.commit("cut over")


def ended(lab: SimLab, name: str) -> bool:
    return any(v.name == name and v.result is not None for v in lab.vms())


def until_end(lab: SimLab, name: str) -> None:
    go_on(lab, lambda: ended(lab, name), 400)


def no_snapshot_of_ours(vm: Vm) -> bool:
    return not vm.snapshots


def test_two_delta_rounds_and_a_cutover_by_commit_lose_no_write(lab: SimLab) -> None:
    vm = lab.tracked_vm("web", mib=4)
    lab.plan("web")
    lab.migration()
    lab.commit()
    until_rounds(lab, "web", 3)
    assert no_snapshot_of_ours(vm)
    record = record_of(lab, "web")
    assert record.milestone is Milestone.NONE
    assert [r.read_bytes for r in record.rounds][0] == 4 << 20
    assert all(0 < r.read_bytes < 4 << 20 for r in record.rounds[1:])
    cut_over(lab)
    until_end(lab, "web")
    lab.assert_moved("web")
    record = record_of(lab, "web")
    assert record.rounds[-1].final
    assert record.rounds[-1].read_bytes < 4 << 20
    assert no_snapshot_of_ours(vm)
