"""Pieces of the status branch put together in Forklift's shape."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.core.copyspec import Verify
from reconciler.core.desired import Desired
from reconciler.core.model import Milestone, ObjectRef, Result
from reconciler.core.record import Category, Condition, Instant, Intent, IntentKind, ObjectStatus, Outage, Records, RoundRecord
from reconciler.errors import UserError
from reconciler.manifests.composed import compose_status
from reconciler.manifests.emit import dump

from .samples import AT, PLAN, RUN, run_of, vm_of
from .text import plan, resolved

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SECOND = ObjectRef("openshift-mtv", "wave-1-run-2")
READY = Condition("Ready", True, Category.REQUIRED, last_transition_time=AT)


def records() -> Records:
    """Two runs: web-01 failed and was tried again, db-01 succeeded at once."""
    runs = {
        SECOND: run_of(SECOND, ("web",), started=AT + timedelta(hours=1)),
        RUN: run_of(RUN, ("web", "db"), completed=AT, result=Result.FAILED, conditions=(READY,)),
    }
    vms = [
        vm_of(RUN, "web", result=Result.FAILED),
        vm_of(RUN, "db", wanted="db-01", id="vm-2", name="db-01", phase="Completed", error=None, completed=AT, pipeline=()),
        vm_of(SECOND, "web", phase="Started"),
    ]
    return Records(
        "c1", runs, {vm.key: vm for vm in vms}, {}, {("Plan", PLAN): ObjectStatus("Plan", PLAN, (READY,), "c0ffee", "Executing")}
    )


def desired() -> Desired:
    return resolved(plan('vms:\n- name: web-01\n  targetName: web\n  targetPowerState: "on"\n- name: db-01\n', name="wave-1"))


def test_a_plan_shows_its_conditions_runs_and_the_newest_state_of_each_vm() -> None:
    found = compose_status(records(), desired(), "Plan", PLAN)
    assert (found["kind"], found["metadata"]) == ("Plan", {"namespace": "openshift-mtv", "name": "wave-1"})
    status = found["status"]
    assert status["conditions"] == [
        {"type": "Ready", "status": "True", "category": "Required", "lastTransitionTime": "2026-11-24T10:00:00Z"}
    ]
    assert [one["migration"]["name"] for one in status["migration"]["history"]] == ["wave-1-run-1", "wave-1-run-2"]
    assert (status["migration"]["started"], status["migration"].get("completed")) == ("2026-11-24T11:00:00Z", None)
    assert [(vm["name"], vm["phase"]) for vm in status["migration"]["vms"]] == [("web-01", "Started"), ("db-01", "Completed")]


def test_a_vm_has_forklifts_fields() -> None:
    vm: dict[str, Any] = compose_status(records(), desired(), "Plan", PLAN)["status"]["migration"]["vms"][0]
    assert (vm["targetName"], vm["targetPowerState"], vm["id"], vm["newName"]) == ("web", "on", "vm-1001", "web-01")
    assert vm["restorePowerState"] == "On"
    assert vm["error"] == {"phase": "CopyDisks", "reasons": ["no: 'space' left"]}
    assert [step["progress"] for step in vm["pipeline"]] == [
        {"completed": 1, "total": 1},
        {"completed": 100, "total": 2048},
        {"completed": 0, "total": 1},
    ]
    assert vm["pipeline"][1]["tasks"][0]["annotations"] == {"unit": "MB"}
    assert vm["pipeline"][2]["phase"] == "Pending"
    assert "frozen" not in vm and "epoch" not in vm


def test_a_history_entry_is_a_snapshot() -> None:
    entry = compose_status(records(), desired(), "Plan", PLAN)["status"]["migration"]["history"][0]
    assert set(entry) == {"conditions", "provider", "plan", "map", "migration"}
    assert entry["provider"]["source"] == {"namespace": "openshift-mtv", "name": "vcenter"}


def test_a_migration_shows_its_own_vms() -> None:
    status = compose_status(records(), desired(), "Migration", RUN)["status"]
    assert (status["started"], status["completed"]) == ("2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z")
    assert [vm["name"] for vm in status["vms"]] == ["web-01", "db-01"]


def test_an_object_without_records_has_an_empty_status() -> None:
    found = compose_status(Records(""), desired(), "Plan", PLAN)
    assert found["status"] == {"observedRevision": "c0ffee", "conditions": []}


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [("Plan", "wave-2", "did you mean wave-1?"), ("Plann", "wave-1", "did you mean Plan?"), ("ForkliftController", "x", "there is no")],
)
def test_what_is_not_there_is_an_error_with_a_hint(kind: str, name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_status(records(), desired(), kind, ObjectRef("openshift-mtv", name))
    assert words in caught.value.message


def test_it_can_be_printed_as_yaml() -> None:
    assert dump(compose_status(records(), desired(), "Plan", PLAN)).startswith(b"apiVersion: forklift.konveyor.io/v1beta1\nkind: Plan\n")


# ---- warm -----------------------------------------------------------------------------------------------------------------------------


def warm(**more: Any) -> dict[str, Any]:
    """web-01 after two rounds and one that was dropped, an hour apart; what `status -o json` shows of it, 12 minutes later."""
    first = RoundRecord(1, AT, snapshot="snapshot-7", change_ids={"d-1": "52 aa/1"}, ended=AT + MINUTE, read_bytes=4000 << 20, seconds=40.0)
    second = RoundRecord(2, AT + HOUR, snapshot="snapshot-9", ended=AT + HOUR + MINUTE, read_bytes=360 << 20, seconds=3.6)
    third = RoundRecord(3, AT + 2 * HOUR, ended=AT + 2 * HOUR, abandoned="another tool made a snapshot first")
    plain: dict[str, Any] = {
        "phase": "Precopy",
        "error": None,
        "milestone": Milestone.NONE,
        "intents": (),
        "rounds": (first, second, third),
    }
    plain["next_round_at"] = AT + 3 * HOUR
    vm = vm_of(SECOND, "web", **{**plain, **more})
    assert vm.frozen is not None
    vm = replace(vm, frozen=replace(vm.frozen, verify=Verify.READBACK))
    some = records()
    shown = compose_status(replace(some, vms={**some.vms, vm.key: vm}), desired(), "Migration", SECOND, AT + 2 * HOUR + 12 * MINUTE)
    return dict(shown["status"]["vms"][0])


def test_a_warm_vm_has_forklifts_block_and_our_figures() -> None:
    block = warm()["warm"]
    assert [block[k] for k in ("successes", "failures", "consecutiveFailures", "nextPrecopyAt")] == [2, 1, 1, "2026-11-24T13:00:00Z"]
    assert block["precopies"][0] == {
        "start": "2026-11-24T10:00:00Z",
        "end": "2026-11-24T10:01:00Z",
        "snapshot": "snapshot-7",
        "deltas": [{"disk": vm_label(), "deltaId": "52 aa/1"}],
        "readBytes": 4000 << 20,
        "copySeconds": 40.0,
    }
    assert block["precopies"][2]["abandoned"] == "another tool made a snapshot first" and "snapshot" not in block["precopies"][2]
    assert block["lastDeltaBytes"] == 360 << 20
    assert block["changeRateBytesPerSecond"] == round(360 * (1 << 20) / 3600)
    assert block["expectedDowntimeSeconds"] == round(10 + 0.1 * 4320 / 100, 1)
    assert not block.keys() & {"baseUnreadable"}


def vm_label() -> str:
    frozen = vm_of(SECOND, "web").frozen
    assert frozen is not None
    return next((d.label for d in frozen.disks if d.uuid == "d-1"), "d-1")


def test_a_cold_vm_has_no_warm_block() -> None:
    assert "warm" not in warm(rounds=()) and "downtime" not in warm(rounds=())


def test_behind_the_cutover_nothing_is_expected_and_the_final_round_is_no_precopy() -> None:
    off = (Intent(IntentKind.POWER_OFF_SOURCE, AT + 2 * HOUR),)
    final = RoundRecord(4, AT + 2 * HOUR, final=True, ended=AT + 2 * HOUR, read_bytes=1 << 20, seconds=1.25)
    gone = Outage(Instant(AT + 2 * HOUR), Instant(AT + 2 * HOUR + timedelta(seconds=4.5)))
    shown = warm(intents=off, milestone=Milestone.HANDED_OVER, rounds=(final,), outage=gone)
    assert shown["downtime"] == {"since": "2026-11-24T12:00:00Z", "seconds": 4.5, "copySeconds": 1.25, "oursSeconds": 3.25}
    assert shown["warm"]["precopies"] == [] and not shown["warm"].keys() & {"expectedDowntimeSeconds", "nextPrecopyAt"}


def test_a_downtime_that_lasts_has_no_length() -> None:
    shown = warm(outage=Outage(Instant(AT)))
    assert shown["downtime"] == {"since": "2026-11-24T10:00:00Z"}
