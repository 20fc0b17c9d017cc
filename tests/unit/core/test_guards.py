"""Each guard says yes to the one right world, and no to every single thing that is wrong in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core import guards
from reconciler.core.model import Absent, Known, Mark, MarkState, Power
from reconciler.core.target import TargetVm, Volume, VolumeMode, Writer
from tests.unit.core.toyland import source_vm

SOURCE = replace(source_vm("web", power=Power.OFF), epoch="e1")
VM = TargetVm("shop", "web", "u", "1", True, "r", f"vc/{SOURCE.uuid}", "None", "", "Halted", Power.OFF, False, "")
MARK = Mark("disk-web-0", "pvc-uid", 1, "e1", None, MarkState.CLEAN, target=VM.reserved)
PVC = Volume("shop", "p", "pvc-uid", "1", "Bound", "fast", VolumeMode.BLOCK, 1, 1, True, "k", "r", "", MARK, None, ())
WRITER = Writer("pod", "Running", False, True, "importer")


def start(source: object = Known(SOURCE), vm: object = Known(VM), pvc: object = Known(PVC)) -> str | None:
    return guards.may_start_target(source, SOURCE.uuid, "e1", 1, vm, (("disk-web-0", pvc),), f"vc/{SOURCE.uuid}")  # type: ignore[arg-type]


def test_the_right_world_starts_the_target() -> None:
    assert start() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": Absent()},
        {"source": Known(replace(SOURCE, uuid="x"))},
        {"source": Known(replace(SOURCE, power=Power.ON))},
        {"source": Known(replace(SOURCE, power=Power.UNKNOWN))},
        {"source": Known(replace(SOURCE, epoch="e2"))},
        {"source": Known(replace(SOURCE, epoch=None))},
        {"source": Known(replace(SOURCE, disks=()))},
        {"vm": Absent()},
        {"vm": Known(replace(VM, ours=False))},
        {"vm": Known(replace(VM, source="vc/other"))},
        {"vm": Known(replace(VM, generation=2))},
        {"vm": Known(replace(VM, uid="anew"))},
        {"pvc": Absent()},
        {"pvc": Known(replace(PVC, uid="anew"))},
        {"pvc": Known(replace(PVC, deleting=True))},
        {"pvc": Known(replace(PVC, phase="Lost"))},
        {"pvc": Known(replace(PVC, mark=None))},
        {"pvc": Known(replace(PVC, mark=replace(MARK, epoch="e0")))},
        {"pvc": Known(replace(PVC, mark=replace(MARK, state=MarkState.CONVERTING)))},
        {"pvc": Known(replace(PVC, writers=(WRITER,)))},
    ],
)
def test_one_thing_wrong_does_not(wrong: dict[str, object]) -> None:
    assert start(**wrong)


def test_the_source_is_not_powered_on_beside_its_target() -> None:
    off = Known(SOURCE)
    assert guards.may_power_on(off, SOURCE.uuid, Known(VM)) is None
    assert guards.may_power_on(off, SOURCE.uuid, Absent()) is None
    assert guards.may_power_on(off, SOURCE.uuid, Known(replace(VM, power=Power.ON)))
    assert guards.may_power_on(off, SOURCE.uuid, Known(replace(VM, run_strategy="Always"))), "it is about to start"
    stranger = replace(VM, ours=False, source="", power=Power.ON, run_strategy="Always")
    assert guards.may_power_on(off, SOURCE.uuid, Known(stranger)) is None


def test_no_power_off_without_a_reserved_target() -> None:
    assert guards.may_power_off(Known(SOURCE), SOURCE.uuid, Absent())
    assert guards.may_power_off(Known(SOURCE), "x", Known(VM))
    assert guards.may_power_off(Known(SOURCE), SOURCE.uuid, Known(VM)) is None


@pytest.mark.parametrize(("age", "fine"), [(None, False), (0.0, True), (89.9, True), (90.0, False)])
def test_the_lease_must_be_younger_than_half_its_ttl(age: float | None, fine: bool) -> None:
    assert (guards.lease_fresh(age, 180.0) is None) is fine


def test_no_copy_and_no_deletion_beside_a_writer() -> None:
    busy = Known(replace(PVC, writers=(WRITER,)))
    assert guards.may_copy((("p", Known(PVC)),)) is None
    assert guards.may_copy((("p", busy),)) and guards.may_copy((("p", Absent()),))
    assert guards.may_delete_volume(busy, ()) and guards.may_delete_volume(Known(PVC), ()) is None
    assert guards.may_delete_vm(Known(replace(VM, run_strategy="Always"))) and guards.may_delete_vm(Known(VM)) is None
