"""Safety rows 7 and 21 on disks that a machine of others has taken: nothing of ours writes to them, though that machine is off.

It may be started at any moment, and may have run while nobody looked: so what was proven of such a disk counts no more. Over the toy, which
judges the bytes at each start of a target, and over the lab, where the bytes of the PVC are real and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.actions import (
    Action,
    DropCopy,
    EnsureBinder,
    EnsureCopy,
    EnsureSnapshot,
    EnsureVm,
    EnsureVolumes,
    PowerSource,
    ProveOff,
    PutMarks,
    PutWatermarks,
    StartTarget,
)
from reconciler.core.desired import InventoryRef, MigrationSpec
from reconciler.core.model import Milestone, Power, Result
from reconciler.core.record import Category
from reconciler.core.target import JobPhase, TargetVm, Writer
from reconciler.drivers.kubevirt.target import KubeVirtTarget
from reconciler.lab.cluster.deletion import DeleteOptions, delete
from reconciler.lab.cluster.kinds import VM, VMI
from tests.integration import test_safety_warm as warm
from tests.integration.loops import TTL_S, condition, critical, go_on, machine, passes, record_of, status_of
from tests.integration.simlab import SimLab
from tests.integration.test_archive import add_to_spec
from tests.integration.test_safety import RUN2, again, arrange, ended, go, held, lab_marked, land, live, marked, only
from tests.unit.core.lives import Fate, LiveLand
from tests.unit.core.toyland import PLACE, PLAN, RUN, desired_for, source_vm
from tests.unit.core.warmland import WarmLand

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

WRITES = (EnsureVolumes, EnsureBinder, EnsureCopy, StartTarget)


# ---- the toy ----------------------------------------------------------------------------------------------------------------------------


def pvcs(world: LiveLand) -> list[str]:
    frozen = only(world).frozen
    assert frozen is not None
    return [d.pvc for d in frozen.disks]


def bytes_of(world: LiveLand, pvc: str) -> list[int]:
    return list(world.content[world.volumes[pvc].uid])


POINTS = {
    "claimed": lambda w: bool(w.records.vms) and only(w).frozen is not None,
    "made": lambda w: bool(w.acts(EnsureVolumes)),
    "reserved": lambda w: bool(w.acts(EnsureVm)),
    "shutting down": lambda w: bool(w.acts(PowerSource)),
    "copying": lambda w: bool(w.pods) and w.pods[0].step == 1,
    "copied": lambda w: any(j.phase is JobPhase.SUCCEEDED for j in w.jobs.values()),
    "marked": marked,
}
BEFORE_POWER_OFF = {"claimed", "made", "reserved"}


@pytest.mark.parametrize("when", list(POINTS))
def test_row_07_a_disk_that_a_foreign_machine_has_is_never_written(when: str) -> None:
    """From the first look on: no new copy, the one that runs is stopped, and what was proven is copied anew once the disk is free."""
    world = land(disks=2)
    live(world, POINTS[when])
    taken, other = pvcs(world)
    world.take(taken)
    acts = len(world.log)
    go(world, 3)
    before = bytes_of(world, taken) if when != "claimed" else None
    go(world, 6)
    assert held(world) == ["VolumeTaken"] and not world.pods and not world.jobs
    assert all(word in only(world).message for word in (f"PVC shop/{taken}", "VirtualMachine shop/his (off)", "Take it out", "cancel"))
    assert other not in only(world).message
    assert not [a for a in world.log[acts:] if isinstance(a, WRITES)], "neither made, adopted, tried, copied to, nor started"
    assert before is None or bytes_of(world, taken) == before
    assert before is None or (world.volumes[taken].mark, world.volumes[taken].watermark) == (None, None)
    assert bool(world.volumes.get(other) and world.volumes[other].mark) is (when == "marked"), "what nobody took is not copied twice"
    if when in BEFORE_POWER_OFF:
        assert world.vms["web"].power is Power.ON and not world.acts(PowerSource)
    world.give_back()
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and "web" in world.started


def test_row_07_a_copy_that_runs_is_stopped_and_a_lost_node_keeps_the_hold() -> None:
    world = land()
    live(world, POINTS["copying"])
    world.pods[0].lost = True
    world.take(*pvcs(world))
    go(world, 6)
    assert held(world) == ["VolumeTaken"] and len(world.acts(DropCopy)) == 1 and len(world.acts(EnsureCopy)) == 1
    world.give_back()
    go(world, 6)
    assert "WriterNotFenced" in only(world).message or "is ending" in only(world).message
    world.pods.clear()
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED


def until(world: LiveLand, kind: type[Action], between: Callable[[], None]) -> None:  # type: ignore[valid-type]
    """Pass after pass to the next act of this kind, whatever it comes to. `between`: what somebody does before the acts of a pass."""
    known = len(world.acts(kind))  # type: ignore[arg-type]
    while len(world.acts(kind)) == known:  # type: ignore[arg-type]
        world.one_pass(world.lease, Fate(between=between))
        world.go_on()


def test_row_07_one_that_is_taken_after_the_look_gets_no_copy_either() -> None:
    """Between the commit of a pass and its act: the guard of the copy looks once more."""
    world = land()
    until(world, EnsureCopy, lambda: world.take(*pvcs(world)) if only(world).phase == "CopyDisks" else None)
    assert "his" in world.targets and not world.jobs and not world.pods, "it was asked for and refused"
    go(world, 4)
    assert held(world) == ["VolumeTaken"] and len(world.acts(EnsureCopy)) == 1


def kept(world: LiveLand) -> list[str]:
    """What a failed run left, its marks proven: the source stayed off."""
    live(world, marked)
    world.one_pass("a", Fate(faults={"ProveOff": ("terminal", False)}))
    live(world, ended)
    assert only(world).result is Result.FAILED and marked(world)
    return pvcs(world)


def test_row_21_a_retry_does_not_adopt_what_a_foreign_machine_took_in_the_meantime() -> None:
    world = land(disks=2, power=Power.OFF)
    taken, other = kept(world)
    world.take(taken)
    acts = len(world.log)
    again(world)
    go(world, 8)
    assert held(world, RUN2) == ["VolumeTaken"] and f"PVC shop/{taken}" in only(world, RUN2).message
    assert not [a for a in world.log[acts:] if isinstance(a, WRITES)]
    assert {v.migration for v in world.volumes.values()} == {str(RUN)} and bytes_of(world, taken) == [-1, -1]
    assert world.volumes[taken].mark is None and world.volumes[other].mark is not None, "his guest may write to it until it is free again"
    world.give_back()
    live(world, ended)
    fresh = [sorted(d.disk_uuid for d in a.disks) for a in world.log[acts:] if isinstance(a, EnsureCopy)]
    assert only(world, RUN2).result is Result.SUCCEEDED and fresh == [["disk-web-0"]]


def test_row_21_nor_what_is_taken_between_the_look_and_the_adoption() -> None:
    world = land(power=Power.OFF)
    (taken,) = kept(world)
    again(world)
    until(world, EnsureVolumes, lambda: world.take(taken) if only(world, RUN2).phase == "CreateDataVolumes" else None)
    assert "his" in world.targets and world.volumes[taken].migration == str(RUN)
    go(world, 4)
    assert held(world, RUN2) == ["VolumeTaken"]


@pytest.mark.parametrize("when", ["made", "copying", "marked"])
def test_row_07_a_cancel_gives_the_source_back_and_leaves_the_disk_without_proof(when: str) -> None:
    world = land()
    live(world, POINTS[when])
    (taken,) = pvcs(world)
    world.take(taken)
    go(world, 4)
    world.desired = replace(world.desired, migrations={RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))})
    live(world, ended)
    assert only(world).result is Result.CANCELED and world.vms["web"].power is Power.ON
    assert set(world.volumes) == {taken} and set(world.targets) == {"his"}
    assert (world.volumes[taken].mark, world.volumes[taken].watermark) == (None, None)


@pytest.mark.parametrize("fault", [None, ("retryable", False)], ids=["", "and the first act fails"])
@pytest.mark.parametrize("killed", [False, True], ids=["", "by one who is killed then"])
@pytest.mark.parametrize("when", ["copying", "copied", "marked", "half marked", "handed over"])
def test_row_07_one_that_was_seen_taken_once_counts_no_more(when: str, killed: bool, fault: tuple[str, bool] | None) -> None:
    """He gives it back before anything of it could be undone: what stood on it, and what a copy of before still says, is not believed."""
    world = land(disks=2)
    points = {**POINTS, "half marked": lambda w: bool(w.pods) and any(v.mark for v in w.volumes.values()), "handed over": POINTS["marked"]}
    if when == "half marked":
        world.exits = [75]
    live(world, points[when])
    if when == "handed over":
        while only(world).milestone is not Milestone.HANDED_OVER:
            world.one_pass("a", Fate(faults={"StartTarget": ("retryable", False)}))
            world.go_on()
    if when in ("copying", "half marked"):
        world.pods[0].lost = True  # its Job lingers
    taken = pvcs(world)[0]
    world.take(taken)
    world.one_pass("a", Fate(faults={"DropCopy": fault, "PutMarks": fault} if fault else {}))
    if killed:
        world.processes["a"] = world.newborn()
    world.give_back()
    go(world, 6)
    world.pods = [p for p in world.pods if not p.lost]
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and not only(world).spoilt


def test_row_07_one_that_is_taken_while_an_act_of_its_vm_is_under_way_counts_no_more() -> None:
    """The act hangs, pass after pass decides nothing for this VM, and he gives the disk back before it ends."""
    world = land(disks=2)
    live(world, marked)
    key, source, recall = only(world).key, only(world).source, world.processes["a"].recall
    assert source is not None
    recall.under_way[key] = (ProveOff(key, source.provider, source), Future())
    world.take(pvcs(world)[0])
    acts = len(world.log)
    world.one_pass("a")
    assert only(world).spoilt == (pvcs(world)[0],) and len(world.log) == acts
    world.give_back()
    del recall.under_way[key]
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED


@pytest.mark.parametrize("killed", [False, True], ids=["", "by one who is killed then"])
@pytest.mark.parametrize("when", ["copying", "copied", "marked"])
def test_row_07_a_guest_without_a_machine_that_was_seen_once_spoils_its_disks_too(when: str, killed: bool) -> None:
    """A VirtualMachineInstance that nobody's VirtualMachine made: when it has ended nothing tells of it."""
    world = land(disks=2)
    live(world, POINTS[when])
    for pod in world.pods:
        pod.lost = True
    pvc = pvcs(world)[0]
    world.volumes[pvc] = replace(world.volumes[pvc], writers=(Writer("virt-launcher-his", "Running", False, False, "vmi"),))
    world.one_pass("a")
    world.content[world.volumes[pvc].uid] = [-1, -1]
    world.volumes[pvc] = replace(world.volumes[pvc], writers=())
    if killed:
        world.processes["a"] = world.newborn()
    go(world, 6)
    world.pods = [p for p in world.pods if not p.lost]
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED


def test_row_07_behind_the_hand_over_it_is_copied_anew_before_the_target_starts() -> None:
    """The intent is committed, the start failed, and a machine of others takes a disk meanwhile."""
    world = land()
    for _ in range(60):
        world.one_pass("a", Fate(faults={"StartTarget": ("retryable", False)}))
        world.go_on()
        if only(world).milestone is Milestone.HANDED_OVER:
            break
    world.take(*pvcs(world))
    copies = len(world.acts(EnsureCopy))
    go(world, 8)
    assert held(world) == ["VolumeTaken"] and not world.started and len(world.acts(EnsureCopy)) == copies
    assert world.vms["web"].power is Power.OFF and not marked(world)
    world.give_back()
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and len(world.acts(EnsureCopy)) == copies + 1


def test_row_07_the_other_vms_of_the_plan_go_on() -> None:
    vms = {name: source_vm(name, number=i) for i, name in enumerate(("web", "db"), 1)}
    world = LiveLand(vms, desired_for(list(vms)))
    live(world, lambda w: len(w.volumes) == 2)
    web, db = (next(v for v in world.records.vms.values() if v.name == name) for name in ("web", "db"))
    assert web.frozen is not None
    world.take(web.frozen.disks[0].pvc)
    live(world, lambda w: w.records.vms[db.key].result is not None)
    assert world.records.vms[db.key].result is Result.SUCCEEDED
    assert critical(world.records.vms[web.key].conditions) == ["VolumeTaken"] and world.vms["web"].power is Power.ON


# ---- the toy, warm ----------------------------------------------------------------------------------------------------------------------


def borrowed(world: Any) -> str:
    frozen = warm.record(world).frozen
    assert frozen is not None
    world.take(frozen.disks[0].pvc)
    return frozen.disks[0].pvc


def warm_at(when: str) -> WarmLand:
    world = warm.land(slow=1 if when == "between rounds" else 3)
    points = {
        "in the first round": warm.copying(1),
        "in a later round": warm.copying(2),
        "between rounds": warm.rounds(1),
        "in the final copy": lambda w: warm.at_final_copy(w) and bool(w.pods),
    }
    if when == "in the final copy":
        warm.live(world, warm.rounds(1))
        warm.cut_over(world)
    warm.live(world, points[when])
    return world


WARM_POINTS = ["in the first round", "in a later round", "between rounds", "in the final copy"]


@pytest.mark.parametrize("killed", [False, True], ids=["", "by one who is killed then"])
@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("when", WARM_POINTS)
def test_row_07_a_warm_disk_that_was_seen_taken_once_counts_no_more(when: str, passes: int, killed: bool) -> None:
    """Found by a random life: its copy, which was being stopped, said once more what it had proven when the disk was free again."""
    world = warm_at(when)
    for pod in world.pods:
        pod.lost = True
    borrowed(world)
    for _ in range(passes):
        warm.step(world)
    if killed:
        world.processes["a"] = world.newborn()
    world.give_back()
    for _ in range(3):
        warm.step(world)
    world.pods = [p for p in world.pods if not p.lost]
    warm.cut_over(world)
    warm.succeed(world)
    assert not warm.record(world).spoilt


def test_row_07_what_a_copy_of_before_still_says_is_not_kept_by_a_cancel_either() -> None:
    world = warm_at("in the first round")
    taken = borrowed(world)
    world.one_pass("a", Fate(faults={"DropCopy": ("retryable", False)}))
    world.give_back()
    acts = len(world.log)
    world.desired = replace(world.desired, migrations={RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))})
    warm.live(world, ended)
    kept = [v.name for a in world.log[acts:] if isinstance(a, PutWatermarks) for v, _ in a.watermarks]
    assert warm.record(world).result is Result.CANCELED and taken not in kept


@pytest.mark.parametrize("when", WARM_POINTS)
def test_row_07_a_warm_disk_that_is_taken_ends_its_round_and_leaves_no_snapshot(when: str) -> None:
    world = warm_at(when)
    taken = borrowed(world)
    for _ in range(12):
        warm.step(world)
    seen = bytes_of(world, taken)
    acts = len(world.log)
    for _ in range(60):
        warm.step(world)
    assert critical(warm.record(world).conditions) == ["VolumeTaken"] and not warm.ours(world) and not world.pods
    assert not [a for a in world.log[acts:] if isinstance(a, (*WRITES, EnsureSnapshot))] and bytes_of(world, taken) == seen
    assert world.volumes[taken].mark is None and world.volumes[taken].watermark is None
    final = when == "in the final copy"
    assert (world.vms["web"].power is Power.ON) is not final
    world.give_back()
    if not final:
        warm.live(world, lambda w: any(r.ended and not r.abandoned and r.started > w.now for r in warm.record(w).rounds) or marked(w))
        warm.cut_over(world)
    warm.succeed(world)


def test_row_07_a_cutover_that_is_due_waits_with_the_guest_up() -> None:
    world = warm.land()
    warm.live(world, warm.rounds(1))
    borrowed(world)
    warm.cut_over(world)
    for _ in range(20):
        warm.step(world)
    assert critical(warm.record(world).conditions) == ["VolumeTaken"] and world.vms["web"].power is Power.ON
    world.give_back()
    warm.succeed(world)


def test_row_07_a_cancel_in_the_middle_of_a_round_proves_nothing_on_it() -> None:
    world = warm.land(slow=3)
    warm.live(world, warm.copying(1))
    taken = borrowed(world)
    acts = len(world.log)
    warm.edit(world, cancel=(InventoryRef(name="web"),))
    warm.live(world, warm.ended())
    written = [a for a in world.log[acts:] if isinstance(a, PutWatermarks) or (isinstance(a, PutMarks) and any(m for _, m in a.marks))]
    assert not written and not warm.ours(world) and (world.volumes[taken].mark, world.volumes[taken].watermark) == (None, None)


def test_row_07_a_change_id_does_not_outlive_the_run_on_a_disk_that_was_taken() -> None:
    """The failed run keeps marks that carry one. A delta over what his guest wrote would never be right again."""
    world = warm.land()
    warm.live(world, warm.rounds(1))
    taken = borrowed(world)
    warm.edit(world, cancel=(InventoryRef(name="web"),))
    warm.live(world, warm.ended())
    assert taken in world.volumes and world.volumes[taken].mark is None
    world.give_back()
    warm.edit(world, warm.RUN2)
    warm.live(world, lambda w: any(v.run == warm.RUN2 for v in w.records.vms.values()) and marked(w))
    warm.cut_over(world, warm.RUN2)
    warm.succeed(world, warm.RUN2)


# ---- the lab ----------------------------------------------------------------------------------------------------------------------------


def borrow(lab: SimLab, pvc: str, kind: str = "VirtualMachine") -> None:
    """A machine of his own. The instance finds no node, so that it has no pod that runs; the VM is off."""
    guest: dict[str, Any] = {"domain": {"devices": {}}, "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": pvc}}]}
    spec = (
        {"runStrategy": "Halted", "template": {"spec": guest}} if kind == "VirtualMachine" else {**guest, "nodeSelector": {"no": "where"}}
    )
    metadata = {"name": "his", "namespace": "shop"}
    lab.cluster.put({"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}})


def give_back(lab: SimLab, kind: str) -> None:
    found, store = lab.cluster.find(kind, "shop", "his"), lab.cluster.store
    assert found is not None
    with store.lock:
        delete(store, {k.kind: k for k in (VM, VMI)}[kind], found, DeleteOptions())
    for _ in range(10):
        lab.clock.sleep(1.0)


def shot(lab: SimLab, pvc: str) -> tuple[bytes, dict[str, Any]]:
    found = lab.cluster.find("PersistentVolumeClaim", "shop", pvc)
    assert found is not None
    return lab.cluster.volume_path("shop", pvc).read_bytes(), found["spec"]


def kept_by_a_cancel(lab: SimLab) -> None:
    """The first run is cancelled when all is marked, and leaves its disk."""
    add_to_spec(lab, "deleteVmOnFailMigration: false")
    lab.commit()
    go_on(lab, lab_marked(lab))
    lab.migration(cancel=["web"])
    lab.commit("cancel")
    go_on(lab, lab.ended)


@pytest.mark.parametrize("kind", ["VirtualMachine", "VirtualMachineInstance"])
def test_row_21_a_kept_disk_that_somebody_took_is_told_and_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    """A run fails and keeps its disk. A person takes it, and writes to it; the next run leaves it alone, its guest on, until it is free."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        kept_by_a_cancel(lab)
        frozen = lab.record("web").frozen
        assert frozen is not None and machine(lab, "web").power.value == "on"
        pvc = frozen.disks[0].pvc
        borrow(lab, pvc, kind)
        with lab.cluster.volume_path("shop", pvc).open("r+b") as disk:
            disk.write(b"his own bytes")
        before = shot(lab, pvc)
        add_to_spec(lab, 'description: "looked at again"')
        lab.commit()
        go_on(lab, lambda: any(c.type == "VolumeTaken" for c in status_of(lab, "Plan", "wave")))
        warned = condition(status_of(lab, "Plan", "wave"), "VolumeTaken")
        assert warned.category is Category.WARN and pvc in warned.message and "pvcNameTemplate" in warned.suggestion
        lab.migration("run-2")
        lab.commit("again")
        go_on(lab, lambda: any(v.run.name == "run-2" for v in lab.vms()))
        passes(lab, 8)
        told = condition(record_of(lab, "web", "run-2").conditions, "VolumeTaken")
        assert told.category is Category.CRITICAL and f"PVC shop/{pvc}" in told.message and f"{kind} shop/his" in told.message
        assert "Take it out of that machine" in told.message and "pvcNameTemplate" in told.message
        assert machine(lab, "web").power.value == "on" and shot(lab, pvc) == before and not lab.cluster.find_all("Job")
        give_back(lab, kind)
        go_on(lab, lab.ended)
        assert record_of(lab, "web", "run-2").result is Result.SUCCEEDED
        lab.assert_equal_bytes("web")


@pytest.mark.parametrize("act", ["copy", "adoption"])
def test_row_07_the_acts_look_once_more_at_whose_disk_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    """He takes it after the look of the pass that copies or adopts."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        if act == "adoption":
            kept_by_a_cancel(lab)
            lab.migration("run-2")
            lab.commit("again")
        read_vms, late = KubeVirtTarget.read_vms, []

        def taken_late(self: KubeVirtTarget, namespace: str) -> tuple[TargetVm, ...]:
            if not late:
                (pvc,) = lab.cluster.find_all("PersistentVolumeClaim", "shop")
                late.append(pvc["metadata"]["name"])
                borrow(lab, late[0])
            return read_vms(self, namespace)

        monkeypatch.setattr(KubeVirtTarget, "read_vms", taken_late)
        go_on(lab, lambda: bool(late))
        passes(lab, 8)
        (pvc,) = lab.cluster.find_all("PersistentVolumeClaim", "shop")
        assert lab.inline.starts == (act == "adoption") and not lab.cluster.find_all("Job")
        assert pvc["metadata"]["annotations"]["reconciler.dev/migration"].endswith("run-1")
        last = next(v for v in lab.vms() if v.run.name == ("run-2" if act == "adoption" else "run-1"))
        assert critical(last.conditions) == ["VolumeTaken"] and "VirtualMachine shop/his" in last.message


def test_row_07_one_that_is_taken_in_the_middle_of_a_copy_is_copied_anew_once_it_is_free(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, lambda: lab.inline.starts == 1)
        frozen = lab.record("web").frozen
        assert frozen is not None
        pvc = frozen.disks[0].pvc
        borrow(lab, pvc)
        passes(lab, 8)
        assert critical(lab.record("web").conditions) == ["VolumeTaken"] and not lab.cluster.find_all("Job") and not lab.marked()
        with lab.cluster.volume_path("shop", pvc).open("r+b") as disk:
            disk.write(b"his own bytes")
        before = shot(lab, pvc)
        passes(lab, 8)
        assert shot(lab, pvc) == before and lab.inline.starts == 1 and machine(lab, "web").power.value == "off"
        give_back(lab, "VirtualMachine")
        go_on(lab, lab.ended)
        lab.assert_moved("web")


# ---- pods of others -------------------------------------------------------------------------------------------------------------------


def meddle(world: LiveLand, *, fenced: bool = False) -> str:
    """Somebody's own pod mounts the first disk: a shell, a backup."""
    pvc = pvcs(world)[0]
    world.volumes[pvc] = replace(world.volumes[pvc], writers=(Writer("his-shell", "Running", fenced, ours=False),))
    return pvc


@pytest.mark.parametrize("when", ["made", "copying", "marked"])
def test_row_07_a_disk_that_a_foreign_pod_may_have_written_to_is_copied_anew(when: str) -> None:
    world = land(disks=2)
    live(world, POINTS[when])
    pvc, other = meddle(world), pvcs(world)[1]
    acts = len(world.log)
    go(world, 8)
    assert "WriterNotFenced" in only(world).message and "his-shell" in only(world).message and not world.jobs
    assert not [a for a in world.log[acts:] if isinstance(a, (EnsureCopy, StartTarget))]
    assert (world.volumes[pvc].mark, world.volumes[pvc].watermark) == (None, None)
    assert bool(world.volumes[other].mark) is (when == "marked")
    world.content[world.volumes[pvc].uid] = [-1] * len(bytes_of(world, pvc))  # what it wrote
    meddle(world, fenced=True)
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and "web" in world.started


def test_row_07_pods_of_others_beside_a_target_that_runs_are_its_own_business() -> None:
    """KubeVirt itself plugs volumes in with pods that carry no label of ours."""
    world = land()
    live(world, lambda w: "web" in w.started)
    meddle(world)
    copies = len(world.acts(EnsureCopy))
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and len(world.acts(EnsureCopy)) == copies
