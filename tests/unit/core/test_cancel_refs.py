"""Which VMs `spec.cancel` means. It cannot be withdrawn, so what could mean two VMs means none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core import conditions, runs
from reconciler.core.desired import InventoryRef, MigrationSpec
from reconciler.core.inventory import Inventory, SiteInfo, SourceVm
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Mode, VmRef
from reconciler.core.record import RunRecord, VmRecord
from tests.unit.core.toyland import HOST, PLACE, PLAN, RUN, SOURCE, START, desired_for, source_vm

HERE = replace(source_vm("web", number=1), uuid="uuid-1", path="/DC/vm/a/web")
THERE = replace(source_vm("web", number=2), uuid="uuid-2", path="/DC/vm/b/web")
ALONE = source_vm("db", number=3)
SITE = SiteInfo("site", "vcenter", "8.0", START)
INDEX = SiteIndex(Inventory(SITE, (HERE, THERE, ALONE), (), (), ()))
RUN_RECORD = RunRecord(RUN, PLAN, Mode.COLD, SOURCE, HOST, "c1", "here", START, ("s-1", "s-2", "s-3"))


def record(slug: str, wanted: str, vm: SourceVm | None = None) -> VmRecord:
    """As it stands once the VM was resolved; or, without `vm`, before."""
    begun = VmRecord(RUN, slug, PLAN, wanted, name=wanted)
    if vm is None:
        return begun
    return replace(begun, id=vm.id, name=vm.name, source=VmRef(SOURCE, "site", vm.id, vm.uuid, vm.name))


RESOLVED = (record("s-1", "vm-1", HERE), record("s-2", "/DC/vm/b/web", THERE), record("s-3", "db", ALONE))
UNRESOLVED = (record("s-1", "/DC/vm/a/web"), record("s-2", "/DC/vm/b/web"), record("s-3", "db"))


def cancelled(ref: InventoryRef, records: tuple[VmRecord, ...], index: SiteIndex | None) -> set[str]:
    desired = replace(desired_for([]), migrations={RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(ref,))})
    return set(runs.cancelled(RUN_RECORD, {r.key: r for r in records}, desired, index))


@pytest.mark.parametrize(
    ("ref", "index", "slugs"),
    [
        (InventoryRef(id="vm-2"), INDEX, {"s-2"}),
        (InventoryRef(name="db"), None, {"s-3"}),
        (InventoryRef(name="/DC/vm/a/web"), INDEX, {"s-1"}),
        (InventoryRef(name="/DC/vm/b/web"), INDEX, {"s-2"}),
        (InventoryRef(name="/DC/vm/b/web"), None, {"s-2"}),  # the plan says so, whatever the site does
        (InventoryRef(name="/DC/vm/a/web"), None, set()),  # the plan has the id, and nobody can tell where that lies
        (InventoryRef(name="/DC/vm/c/db"), INDEX, set()),  # a VM of that name, but not that one
        (InventoryRef(name="web"), INDEX, set()),  # two of them
        (InventoryRef(), INDEX, set()),
    ],
    ids=lambda value: "seen" if value is INDEX else str(value),
)
def test_a_cancel_hits_the_vm_that_it_names_and_no_other(ref: InventoryRef, index: SiteIndex | None, slugs: set[str]) -> None:
    assert cancelled(ref, RESOLVED, index) == slugs


@pytest.mark.parametrize(("name", "slugs"), [("/DC/vm/a/web", {"s-1"}), ("db", {"s-3"}), ("web", set())])
def test_a_vm_that_was_never_found_is_cancelled_by_what_the_plan_calls_it(name: str, slugs: set[str]) -> None:
    assert cancelled(InventoryRef(name=name), UNRESOLVED, None) == slugs


def test_a_reference_that_fits_several_is_told() -> None:
    desired = replace(desired_for([]), migrations={RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))})
    [told] = [f for f in conditions._run_findings(RUN_RECORD, desired, RESOLVED, INDEX) if f.type == "DuplicateVM"]
    assert "vm-1" in told.message and "/DC/vm/b/web" in told.message and "none of them is cancelled" in told.message
