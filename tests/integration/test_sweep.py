"""`reconciler sweep` after runs that ended in every way, and over leftovers that no record explains any more."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.commands import sweep
from reconciler.core.model import Milestone, Result
from reconciler.errors import LeaseLost
from reconciler.settings import Settings
from tests.integration.loops import TTL_S, go_on, machine, record_of
from tests.integration.simlab import PATH, SimLab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SimLab]:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        yield lab


def run(lab: SimLab, *, delete: bool = False, everywhere: bool = False) -> tuple[int, list[dict[str, Any]]]:
    settings = Settings(
        repo=str(lab.repo),
        kubeconfig=lab.kubeconfig,
        cache_dir=lab.root / "cache-sweep",
        lease_ttl_s=TTL_S,
        holder="sweeper",
        environment={"PATH": PATH, "HOME": str(lab.root)},
    )
    out = io.StringIO()
    code = sweep.run(settings, everywhere=everywhere, delete=delete, format="json", clock=lab.clock, out=out)
    return code, json.loads(out.getvalue())["leftovers"]


def objects(lab: SimLab) -> set[tuple[str, str]]:
    kinds = ("Job", "PersistentVolumeClaim", "VirtualMachine")
    return {(kind, o["metadata"]["name"]) for kind in kinds for o in lab.cluster.find_all(kind)}


def forget(lab: SimLab, run_name: str, *, claims: bool = False) -> None:
    """A person deletes the records of a run from the status branch."""
    lab.git("fetch", "-q", "origin", "reconciler/status")
    lab.git("checkout", "-q", "-B", "surgery", "FETCH_HEAD")
    lab.git("rm", "-r", "-q", f"runs/openshift-mtv/{run_name}", *(["claims"] if claims else []))
    lab.git("commit", "-q", "-m", "Forget a run")
    lab.git("push", "-q", "origin", "surgery:reconciler/status")
    lab.git("checkout", "-q", "main")


def test_nothing_is_left_by_success_failure_and_cancel(lab: SimLab) -> None:
    for name in ("good", "bad", "back"):
        lab.vm(name)
    lab.plan("good", "bad", "back")
    lab.migration()
    lab.commit()
    go_on(lab, lambda: bool(lab.vms()) and all(v.milestone is Milestone.CUTOVER for v in lab.vms()))
    code, found = run(lab)
    assert (code, found) == (0, []), "what an active run needs is explained"
    os.truncate(machine(lab, "bad").disks[0].path, 300_000)
    lab.migration(cancel=["back"])
    lab.commit("cancel")
    go_on(lab, lab.ended, limit=300)
    results = {name: record_of(lab, name).result for name in ("good", "bad", "back")}
    assert results == {"good": Result.SUCCEEDED, "bad": Result.FAILED, "back": Result.CANCELED}
    lab.stop()
    before = objects(lab)
    assert run(lab, everywhere=True) == (0, []) and run(lab, delete=True) == (0, [])
    assert objects(lab) == before


def orphaned(lab: SimLab) -> set[tuple[str, str]]:
    """A run that is under way, and its records gone: PVC, Job and the reserved VM belong to nobody."""
    lab.vm("web")
    lab.plan("web")
    lab.migration()
    lab.commit()
    go_on(lab, lambda: bool(lab.cluster.find_all("Job")) and bool(lab.cluster.find_all("VirtualMachine")))
    lab.stop()
    forget(lab, "run-1", claims=True)
    return objects(lab)


def test_orphans_are_told_and_go_only_when_asked_to(lab: SimLab) -> None:
    left = orphaned(lab)
    assert {kind for kind, _ in left} == {"Job", "PersistentVolumeClaim", "VirtualMachine"}
    code, found = run(lab)
    assert code == 1 and {(x["kind"], x["name"]) for x in found} == left
    assert all("is not in the records" in x["why"] for x in found)
    assert objects(lab) == left, "a report changes nothing"
    for _ in range(4):
        code, found = run(lab, delete=True)
        lab.clock.sleep(3.0)
        if not found:
            break
    assert (code, found) == (0, []) and objects(lab) == set()


def test_a_snapshot_that_nobody_remembers_is_told_and_goes(lab: SimLab) -> None:
    """The records of a warm run are deleted in the middle of a round."""
    lab.warm()
    vm = lab.tracked_vm("web")
    lab.plan("web")
    lab.migration()
    lab.commit()
    go_on(lab, lambda: bool(lab.cluster.find_all("Job")))
    assert run(lab) == (0, [])
    lab.stop()
    forget(lab, "run-1", claims=True)
    (mine,) = vm.snapshots
    theirs = lab.world.create_snapshot(vm, "nightly backup")
    code, found = run(lab)
    told = next(x for x in found if x["kind"] == "Snapshot")
    assert (code, told["name"], told["deletable"]) == (1, mine.name, False)
    assert "may still read it" in told["hindrance"]
    for _ in range(6):
        code, found = run(lab, delete=True)
        lab.clock.sleep(3.0)
    assert (code, found) == (0, []) and objects(lab) == set()
    assert vm.snapshots == [theirs] and not vm.consolidation_needed


def foreign(lab: SimLab) -> set[tuple[str, str]]:
    """Nobody's of ours: without label; with the label of a tool of the same name; of another reconciler, with another history."""
    ours = {"app.kubernetes.io/managed-by": "reconciler"}
    other = {
        "reconciler.dev/migration": "openshift-mtv/theirs",
        "reconciler.dev/source": "site/vm",
        "reconciler.dev/vm": "web-1",
        "reconciler.dev/commit": "0123456789abcdef0123456789abcdef01234567",
    }
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": "fast"}
    for name, labels, notes in (("plain", {}, {}), ("labelled", ours, {}), ("theirs", ours, other)):
        metadata = {"name": name, "namespace": "shop", "labels": labels, "annotations": notes}
        lab.cluster.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    return {("PersistentVolumeClaim", name) for name in ("plain", "labelled", "theirs")}


def test_what_others_made_is_never_deleted(lab: SimLab) -> None:
    orphaned(lab)
    strangers = foreign(lab)
    code, found = run(lab)
    assert code == 1
    theirs = next(x for x in found if x["name"] == "theirs")
    assert not theirs["deletable"] and "another reconciler" in theirs["hindrance"]
    assert not {"plain", "labelled"} & {x["name"] for x in found}
    for _ in range(4):
        code, found = run(lab, delete=True)
        lab.clock.sleep(3.0)
        if [x["name"] for x in found] == ["theirs"]:
            break
    assert code == 1 and objects(lab) == strangers


def borrow(lab: SimLab, pvc: str) -> None:
    """A person takes our disk for a machine of his own, which is off."""
    volumes = [{"name": "root", "containerDisk": {"image": "x"}}, {"name": "data", "persistentVolumeClaim": {"claimName": pvc}}]
    spec = {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}, "volumes": volumes}}}
    lab.cluster.put(
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "his", "namespace": "shop"}, "spec": spec}
    )


def swept(lab: SimLab) -> list[dict[str, Any]]:
    for _ in range(4):
        _, found = run(lab, delete=True)
        lab.clock.sleep(3.0)
    return found


def test_a_disk_of_a_foreign_machine_that_is_off_stays(lab: SimLab) -> None:
    (pvc,) = {name for kind, name in orphaned(lab) if kind == "PersistentVolumeClaim"}
    borrow(lab, pvc)
    (left,) = swept(lab)
    assert left["name"] == pvc and not left["deletable"] and "VirtualMachine shop/his" in left["hindrance"]
    assert objects(lab) == {("PersistentVolumeClaim", pvc), ("VirtualMachine", "his")}
    borrow(lab, "another-disk")
    assert swept(lab) == [] and objects(lab) == {("VirtualMachine", "his")}


def test_one_that_was_taken_after_the_look_stays_too(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    (pvc,) = {name for kind, name in orphaned(lab) if kind == "PersistentVolumeClaim"}
    look = sweep.look

    def late(*args: Any) -> Any:
        found = look(*args)
        if not lab.cluster.find("VirtualMachine", "shop", "his"):
            borrow(lab, pvc)
        return found

    monkeypatch.setattr(sweep, "look", late)
    _, found = run(lab, delete=True)
    assert next("shop/his" in x["result"] for x in found if x["name"] == pvc)
    assert ("PersistentVolumeClaim", pvc) in objects(lab)


@pytest.mark.parametrize("end", ["cancel", "archive"])
def test_neither_a_cancel_nor_an_archive_takes_it(lab: SimLab, end: str) -> None:
    lab.vm("web")
    lab.plan("web")
    lab.migration()
    lab.commit()
    go_on(lab, lambda: bool(lab.cluster.find_all("Job")))
    (pvc,) = lab.cluster.find_all("PersistentVolumeClaim")
    borrow(lab, pvc["metadata"]["name"])
    lab.migration(cancel=["web"])
    lab.commit("cancel")
    go_on(lab, lab.ended)
    assert record_of(lab, "web").result is Result.CANCELED and machine(lab, "web").power.value == "on"
    if end == "archive":
        plan = lab.clone / "plans/wave.yaml"
        plan.write_text(plan.read_text() + "  archived: true\n")
        lab.commit("close")
        go_on(lab, lambda: bool(lab.records().archived))
    assert objects(lab) == {("PersistentVolumeClaim", pvc["metadata"]["name"]), ("VirtualMachine", "his")}


def test_a_finished_vm_is_safe_even_without_any_record(lab: SimLab) -> None:
    lab.vm("on")
    lab.vm("off", on=False)
    lab.plan("on", "off")
    lab.migration()
    lab.commit()
    go_on(lab, lab.ended)
    lab.stop()
    kept = objects(lab)
    forget(lab, "run-1", claims=True)
    assert run(lab, delete=True, everywhere=True) == (0, [])
    assert objects(lab) == kept


def test_nothing_is_deleted_beside_an_active_reconciler(lab: SimLab) -> None:
    lab.vm("web")
    lab.plan("web")
    lab.migration()
    lab.commit()
    go_on(lab, lambda: bool(lab.cluster.find_all("PersistentVolumeClaim")))
    with pytest.raises(LeaseLost, match="stop it first"):
        run(lab, delete=True)
