"""The ways back: cancel in each phase, failure after power-off, another Migration, a Migration that is gone.

What is left on both sides is what the record says. The cancels share one lab: a plan with one VM per phase, cancelled when it gets there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.itinerary import Phase
from reconciler.core.model import Milestone, Result
from reconciler.core.record import Category, IntentKind
from reconciler.lab.cluster.deletion import DeleteOptions, delete
from reconciler.lab.cluster.kinds import PVC
from reconciler.lab.machines import Happening, Power
from tests.integration.loops import (
    TTL_S,
    assert_equal_bytes,
    condition,
    critical,
    go_on,
    happened,
    machine,
    passes,
    record_of,
    status_of,
    succeeded,
)
from tests.integration.simlab import SimLab
from tests.integration.taps import Wire, tapped

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.shared,
]

IN_TIME = (
    Phase.RESERVE_NAMESPACE,
    Phase.CREATE_VOLUMES,
    Phase.BIND_VOLUMES,
    Phase.RESERVE_VM,
    Phase.RELEASE_BINDER,
    Phase.POWER_OFF,
    Phase.PROVE_OFF,
    Phase.COPY_DISKS,
    Phase.HAND_OVER,
)
TOO_LATE = (Phase.START_TARGET, Phase.RELEASE)
TEMPORARY = ("Job", "Pod", "Secret", "VirtualMachine", "PersistentVolumeClaim")


def name_of(phase: Phase) -> str:
    return f"at-{phase.lower()}"


def left(lab: SimLab, name: str) -> list[str]:
    """What is still on the target for this VM."""
    found = [(kind, o["metadata"]["name"]) for kind in TEMPORARY for o in lab.cluster.find_all(kind, "shop")]
    return [f"{kind} {n}" for kind, n in found if name in n]


def cancel_each_in_its_phase(lab: SimLab) -> None:
    asked: list[str] = []

    def all_ended() -> bool:
        here = [v.name for v in lab.vms() if v.name == f"at-{v.phase.lower()}" and v.name not in asked and v.result is None]
        if here:
            asked.extend(here)
            lab.migration(cancel=asked)
            lab.commit(f"cancel {here}")
        return lab.ended()

    go_on(lab, all_ended)
    assert sorted(asked) == sorted(name_of(p) for p in (*IN_TIME, *TOO_LATE)), "each got to its phase"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimLab]:
    with SimLab(tmp_path_factory.mktemp("cancels"), ttl_s=TTL_S) as lab:
        names = [name_of(p) for p in (*IN_TIME, *TOO_LATE)]
        for name in names:
            lab.vm(name)
        lab.plan(*names)
        lab.migration()
        lab.commit()
        cancel_each_in_its_phase(lab)
        yield lab


@pytest.mark.parametrize("phase", IN_TIME)
def test_a_cancel_before_hand_over_leaves_the_world_as_it_was(lab: SimLab, phase: Phase) -> None:
    name = name_of(phase)
    record = record_of(lab, name)
    assert record.result is Result.CANCELED and record.cancel_at is not None and record.error is None, record.message
    assert machine(lab, name).power is Power.ON
    assert left(lab, name) == []
    off = happened(lab, name).count(Happening.OFF)
    assert happened(lab, name).count(Happening.ON) == off + 1, "as often on as it was off, and the first time"
    assert off == (1 if phase in (Phase.PROVE_OFF, Phase.COPY_DISKS, Phase.HAND_OVER) else off)
    declared = [i.kind for i in record.intents]
    assert (IntentKind.POWER_OFF_SOURCE in declared) >= (off == 1), "no power-off without its intent"
    assert not any(i.open for i in record.intents), "nothing is owed"
    claim = next(c for c in lab.records().claims.values() if c.vm_name == name)
    assert claim.released is not None and not claim.powered_off_by_us and not claim.forever


@pytest.mark.parametrize("phase", TOO_LATE)
def test_a_cancel_behind_hand_over_comes_too_late(lab: SimLab, phase: Phase) -> None:
    name = name_of(phase)
    record = record_of(lab, name)
    assert record.result is Result.SUCCEEDED and record.cancel_at is None
    assert machine(lab, name).power is Power.OFF and lab.target_on(name)
    lab.assert_equal_bytes(name)
    assert all(x.startswith(("VirtualMachine", "PersistentVolumeClaim", "Pod virt-launcher")) for x in left(lab, name))
    late = condition(status_of(lab, "Migration", "run-1"), "CancelTooLate")
    assert late.category is Category.WARN and name in f"{late.message} {late.items}"


def test_nothing_of_ours_is_left_by_the_cancels(lab: SimLab) -> None:
    lab.assert_nothing_left()
    assert sorted(r.name for r in lab.cluster.running_vms()) == sorted(name_of(p) for p in TOO_LATE)


def test_cancels_that_are_early_unknown_or_withdrawn(tmp_path: Path) -> None:
    """Before it began; of a VM that is not in the run; and taken out of the file again in the middle of the way back."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web")
        lab.plan("web", "ghost")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: any(v.phase == Phase.COPY_DISKS for v in lab.vms()))
        lab.migration(cancel=["web", "ghost", "nobody"])
        lab.commit("cancel")
        passes(lab, 1)
        unknown = condition(status_of(lab, "Migration", "run-1"), "VMNotFound")
        lab.migration()
        lab.commit("withdraw")
        go_on(lab, lab.ended)
        assert "nobody" in f"{unknown.message} {unknown.items}"
        assert record_of(lab, "ghost").result is Result.CANCELED
        assert record_of(lab, "web").result is Result.CANCELED and machine(lab, "web").power is Power.ON
        assert left(lab, "web") == []


def test_a_guest_that_goes_off_after_the_cancel_is_powered_on_again(tmp_path: Path) -> None:
    """It was asked to shut down, the cancel came while it still ran; it obeys half a minute later (safety 24)."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web", shutdown_s=30.0)
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: happened(lab, "web").count(Happening.GUEST_SHUTDOWN) == 1 if lab.vms() else False)
        lab.migration(cancel=["web"])
        lab.commit("cancel")
        passes(lab, 10)
        assert record_of(lab, "web").result is None and machine(lab, "web").power is Power.ON, "it is not over while the guest may go off"
        go_on(lab, lab.ended, seconds=15.0)
        assert record_of(lab, "web").result is Result.CANCELED
        assert machine(lab, "web").power is Power.ON and Happening.OFF in happened(lab, "web")
        assert left(lab, "web") == []


def test_marks_are_dirty_before_the_source_is_powered_on(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web")
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: any(v.phase == Phase.HAND_OVER for v in lab.vms()))
        assert marks(lab) == 1
        lab.migration(cancel=["web"])
        lab.commit("cancel")
        lab.wire = Wire()
        with tapped(lab.wire):
            go_on(lab, lab.ended)
            calls = lab.wire.labels
            lab.stop()
        dirty = next(i for i, c in enumerate(calls) if c.startswith("rest PATCH") and "persistentvolumeclaims" in c)
        on = next(i for i, c in enumerate(calls) if c == "soap PowerOnVM_Task")
        gone = next(i for i, c in enumerate(calls) if c.startswith("rest DELETE") and "persistentvolumeclaims" in c)
        assert dirty < on < gone
        assert any("status" in c for c in calls[dirty:on]), "the intent is in git before the power-on"


def marks(lab: SimLab) -> int:
    claims = lab.cluster.find_all("PersistentVolumeClaim", "shop")
    return sum("reconciler.dev/mark" in o["metadata"].get("annotations", {}) for o in claims)


# ---- another Migration ------------------------------------------------------------------------------------------------------------------


def test_the_next_migration_takes_only_what_has_not_succeeded(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        for name in ("web", "db"):
            lab.vm(name)
        lab.plan("web", "db")
        lab.migration(cancel=["db"])
        lab.commit()
        go_on(lab, lab.ended)
        passes(lab, 2)
        assert lab.inline.starts == 1 and record_of(lab, "db").result is Result.CANCELED
        lab.migration(name="run-2")
        lab.commit("again")
        go_on(lab, lambda: succeeded(lab, "db", "run-2"))
        go_on(lab, lab.ended)
        assert [v.name for v in lab.records().vms.values() if v.run.name == "run-2"] == ["db"]
        assert lab.inline.starts == 2 and len(lab.cluster.vm_starts) == 2
        assert_equal_bytes(lab, "web", "run-1")
        assert_equal_bytes(lab, "db", "run-2")
        lab.assert_nothing_left()


def test_a_retry_keeps_the_marked_disks_of_a_source_that_stayed_off(tmp_path: Path) -> None:
    """Somebody deletes one of two PVCs; the other one's mark still proves its bytes to the next run."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web", disks=2, on=False)
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: lab.inline.starts == 1)
        delete_claim(lab, "disk-1")
        go_on(lab, lab.ended)
        record = record_of(lab, "web")
        assert record.result is Result.FAILED and record.error is not None and record.error.reason == "VolumeLost"
        claims = [x.split("-disk-")[1][0] for x in left(lab, "web") if "-disk-" in x]
        assert marks(lab) == 1 and claims == ["0"], "only what is worth keeping"
        assert "VirtualMachine web" in left(lab, "web") and not lab.target_on("web"), "and the halted VM that vouches for it"
        kept = lab.cluster.find_all("PersistentVolumeClaim", "shop")[0]["metadata"]["uid"]
        passes(lab, 2)
        lab.migration(name="run-2")
        lab.commit("again")
        go_on(lab, lambda: succeeded(lab, "web", "run-2"))
        copied = [d for v in lab.records().vms.values() if v.run.name == "run-2" for d in v.disks]
        assert lab.inline.starts == 2 and sorted(d.read_bytes > 0 for d in copied) == [False, True], "one disk was copied, once"
        assert kept in [o["metadata"]["uid"] for o in lab.cluster.find_all("PersistentVolumeClaim", "shop")]
        assert_equal_bytes(lab, "web", "run-2")
        lab.assert_nothing_left()


def delete_claim(lab: SimLab, part: str) -> None:
    found = next(o for o in lab.cluster.find_all("PersistentVolumeClaim", "shop") if part in o["metadata"]["name"])
    with lab.cluster.store.lock:
        delete(lab.cluster.store, PVC, found, DeleteOptions())


# ---- the Migration's file is gone (safety 10) -------------------------------------------------------------------------------------------

GONE = "migrations/run-1.yaml"


def waiting(lab: SimLab) -> None:
    """A run that is before CUTOVER and stays there: the guest does not hear."""
    lab.vm("web", ignores_shutdown=True)
    lab.plan("web")
    lab.migration()
    lab.commit()
    go_on(lab, lambda: any(v.phase == Phase.POWER_OFF for v in lab.vms()))
    passes(lab, 2)


def held(lab: SimLab) -> bool:
    record = record_of(lab, "web")
    return critical(record.conditions) == ["ManifestGone"] and record.result is None and record.cancel_at is None


def test_a_removed_migration_holds_and_then_cancels(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        waiting(lab)
        lab.remove(GONE)
        lab.commit("remove")
        passes(lab, 5, seconds=55.0)
        assert held(lab) and "300 s" in record_of(lab, "web").message
        go_on(lab, lab.ended, seconds=59.0)
        assert record_of(lab, "web").result is Result.CANCELED and machine(lab, "web").power is Power.ON
        assert left(lab, "web") == []


def test_a_migration_that_is_put_back_goes_on(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        waiting(lab)
        lab.remove(GONE)
        lab.commit("remove")
        passes(lab, 3, seconds=50.0)
        assert held(lab)
        lab.migration()
        lab.commit("put back")
        lab.world.power_off(machine(lab, "web"), "somebody")
        go_on(lab, lab.ended)
        lab.assert_moved("web")


def test_a_tree_with_errors_never_cancels_and_a_mended_one_waits_anew(tmp_path: Path) -> None:
    """A day of conflict markers counts for nothing: the 300 s begin when the tree is whole."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        waiting(lab)
        lab.remove(GONE)
        lab.write("conflict.yaml", "<<<<<<< HEAD\nkind: Plan\n=======\n")
        lab.commit("a bad merge")
        passes(lab, 10, seconds=60.0)
        assert held(lab)
        lab.remove("conflict.yaml")
        lab.commit("half mended")
        passes(lab, 4, seconds=59.0)
        assert held(lab)
        lab.migration()
        lab.commit("mended")
        lab.world.power_off(machine(lab, "web"), "somebody")
        go_on(lab, lab.ended)
        lab.assert_moved("web")


def test_a_rewritten_history_never_cancels(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        waiting(lab)
        lab.remove(GONE)
        lab.git("checkout", "-q", "--orphan", "other")
        lab.git("add", "-A")
        lab.git("commit", "-q", "-m", "another history")
        lab.git("push", "-q", "--force", "origin", "other:main")
        passes(lab, 10, seconds=60.0)
        assert held(lab)


def test_a_removed_plan_and_a_removal_behind_cutover_hold(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        for name in ("web", "db"):
            lab.vm(name)
            lab.plan(name, name=f"plan-{name}")
            lab.migration(name=f"run-{name}", plan=f"plan-{name}")
        lab.commit()
        go_on(lab, lambda: bool(lab.vms()) and all(v.milestone is Milestone.CUTOVER for v in lab.vms()))
        lab.remove("migrations/run-web.yaml")
        lab.remove("plans/plan-db.yaml")
        lab.commit("remove")
        passes(lab, 10, seconds=60.0)
        records = {v.name: v for v in lab.records().vms.values()}
        assert all(critical(r.conditions) == ["ManifestGone"] and r.result is None for r in records.values())
        assert all(machine(lab, name).power is Power.OFF for name in records) and not lab.cluster.running_vms()
        lab.migration(name="run-web", plan="plan-web")
        lab.plan("db", name="plan-db")
        lab.commit("put back")
        go_on(lab, lab.ended)
        lab.assert_moved("web")
        lab.assert_moved("db")
