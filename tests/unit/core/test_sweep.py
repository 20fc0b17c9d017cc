"""What explains an object of ours and what does not, over the toy of both sites."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import DropCopy, DropSnapshot, DropTargetVm, DropVolumes, EnsureCopy
from reconciler.core.inventory import Inventory, SourceSnapshot
from reconciler.core.model import Mark, MarkState, Power, Result
from reconciler.core.record import Records
from reconciler.core.sweep import Leftover, commits_of, leftovers, readers, snapshots
from reconciler.core.target import Instance, Job, JobPhase, TargetInventory, Volume, VolumeMode, Writer
from tests.unit.core import toyland
from tests.unit.core.toyland import HOST, RUN, Toyland, desired_for, source_vm

HISTORY = frozenset({"c"})
SOURCE = "vc-uuid/uuid-web"
SITE = toyland.SOURCE


def world(**plan: object) -> Toyland:
    return Toyland({"web": source_vm("web")}, desired_for(["web"], **plan))


def seen(toy: Toyland) -> TargetInventory:
    """The toy leaves out what only a driver reads; every object of it was allowed by commit c."""
    found = toy.target()
    return replace(
        found,
        volumes=tuple(replace(v, source=SOURCE, commit="c") for v in found.volumes),
        jobs=tuple(replace(j, source=SOURCE, commit="c") for j in found.jobs),
        vms=tuple(replace(v, commit="c") for v in found.vms),
    )


def sweep(toy: Toyland, records: Records | None = None, history: frozenset[str] = HISTORY) -> tuple[Leftover, ...]:
    return leftovers(HOST, seen(toy), toy.records if records is None else records, history)


def copying() -> Toyland:
    toy = world()
    while not toy.acts(EnsureCopy):
        toy.tick()
    return toy


def test_an_active_run_explains_all_of_it() -> None:
    toy = copying()
    assert toy.jobs and toy.volumes and toy.targets and sweep(toy) == ()


def test_without_records_all_of_it_is_left_in_the_order_of_removal() -> None:
    found = sweep(copying(), Records("s"))
    assert [type(x.action) for x in found] == [DropCopy, DropTargetVm, DropVolumes]
    assert all(x.run == str(RUN) and "not in the records" in x.why for x in found)


def test_what_succeeded_stays_with_its_records_and_without_any() -> None:
    toy = world()
    toy.run()
    assert toy.volumes and sweep(toy) == () and sweep(toy, Records("s")) == ()


def test_a_target_that_was_never_to_start_is_known_by_its_disks() -> None:
    toy = Toyland({"web": source_vm("web", power=Power.OFF)}, desired_for(["web"]))
    toy.run()
    assert toy.targets["web"].power is Power.OFF and sweep(toy, Records("s")) == ()


def test_a_claim_for_ever_protects_a_vm_between_hand_over_and_release() -> None:
    toy = copying()
    claims = {k: replace(c, forever=True) for k, c in toy.records.claims.items()}
    found = sweep(toy, Records("s", claims=claims))
    assert [x.kind for x in found] == ["Job"]


def ended(toy: Toyland, delete_on_fail: bool, mark: bool) -> Records:
    """As if the run had failed and nothing of it had been cleaned up."""
    record = next(iter(toy.records.vms.values()))
    assert record.frozen is not None
    failed = replace(record, result=Result.FAILED, frozen=replace(record.frozen, delete_on_fail=delete_on_fail))
    proof = Mark("d", "u", 1, "e", None, MarkState.CLEAN) if mark else None
    toy.volumes = {k: replace(v, mark=proof, watermark=None) for k, v in toy.volumes.items()}
    return replace(toy.records, vms={failed.key: failed})


@pytest.mark.parametrize(
    ("delete_on_fail", "mark", "kinds"),
    [
        (True, False, ["Job", "VirtualMachine", "PersistentVolumeClaim"]),
        (True, True, ["Job"]),
        (False, False, ["Job"]),
        (False, True, ["Job"]),
    ],
)
def test_what_a_failed_run_kept_on_purpose_is_explained(delete_on_fail: bool, mark: bool, kinds: list[str]) -> None:
    toy = copying()
    assert [x.kind for x in sweep(toy, ended(toy, delete_on_fail, mark))] == kinds


def test_another_history_is_told_and_left_alone() -> None:
    found = sweep(copying(), Records("s"), frozenset())
    assert found and all(x.action is None and "another reconciler" in x.hindrance for x in found)
    assert commits_of(seen(copying())) == {"c"}


def test_what_runs_or_is_written_to_is_left_alone() -> None:
    toy = copying()
    records = ended(toy, True, False)
    toy.targets = {k: replace(v, power=Power.ON, run_strategy="Always") for k, v in toy.targets.items()}
    toy.volumes = {k: replace(v, writers=(Writer("pod-1", "Running", False, False),)) for k, v in toy.volumes.items()}
    job, vm = sweep(toy, records)
    assert job.action is not None and vm.action is None and "stop it first" in vm.hindrance
    toy.targets = {}
    job, volume = sweep(toy, records)
    assert volume.action is None and "pod-1" in volume.hindrance


def test_a_label_alone_is_not_our_key() -> None:
    toy = world()
    bare = Volume("shop", "v", "u", "1", "Bound", "fast", VolumeMode.FILESYSTEM, 1, 1, True, "/", "", "c", None, None, ())
    found = replace(toy.target(), volumes=(bare,), jobs=(Job("shop", "j", "u", JobPhase.RUNNING, "", "", "", 0, None, "", ""),))
    assert leftovers(HOST, found, Records("s"), HISTORY) == ()
    keyed = replace(bare, migration="ns/run", source=SOURCE)
    assert leftovers(HOST, replace(found, volumes=(replace(keyed, ours=False), replace(keyed, deleting=True))), Records("s"), HISTORY) == ()
    assert len(leftovers(HOST, replace(found, volumes=(keyed,)), Records("s"), HISTORY)) == 1


KEY = f"{Instance('i').short}/{RUN}/web-1183fbe7/r2"


def on_source(key: str | None = KEY) -> Inventory:
    site = world().inventory()
    snapshot = SourceSnapshot("snapshot-7", "a name", key)
    return replace(site, vms=tuple(replace(v, snapshots=(snapshot,)) for v in site.vms))


def ours(toy: Toyland) -> Records:
    return replace(toy.records, instance=Instance("i"))


def test_a_snapshot_that_no_run_has_under_way_is_told_and_removed_by_its_key() -> None:
    toy = world()
    (found,) = snapshots(SITE, on_source(), ours(toy), frozenset())
    assert (found.kind, found.namespace, found.name, found.run) == ("Snapshot", "/DC/vm/web", "a name", str(RUN))
    assert "is not in the records" in found.why
    assert isinstance(found.action, DropSnapshot) and found.action.snapshot == KEY and found.action.vm.uuid == "uuid-web"
    toy.run()
    (found,) = snapshots(SITE, on_source(), ours(toy), frozenset())
    assert "ended (Succeeded)" in found.why and isinstance(found.action, DropSnapshot)


def test_snapshots_of_an_active_run_of_others_and_of_people_are_none_of_its_business() -> None:
    toy = copying()
    assert snapshots(SITE, on_source(), ours(toy), frozenset()) == ()
    idle = world()
    assert snapshots(SITE, on_source(None), ours(idle), frozenset()) == ()
    assert snapshots(SITE, on_source(KEY.replace(KEY[:8], "00000000")), ours(idle), frozenset()) == ()
    assert snapshots(SITE, on_source(f"{Instance().short}/x/y/z/r1"), Records(""), frozenset()) == (), "no instance, no snapshot"


def test_a_snapshot_stays_while_a_copy_pod_may_read_it() -> None:
    toy = copying()
    reading = readers(seen(toy))
    (found,) = snapshots(SITE, on_source(), Records("", instance=Instance("i")), reading)
    assert found.action is None and "may still read it" in found.hindrance
    writer = Writer("p", "Running", False, True, "importer")
    jobless = replace(seen(toy), jobs=(), volumes=tuple(replace(v, writers=(writer,)) for v in seen(toy).volumes))
    assert readers(jobless) == {SOURCE}
