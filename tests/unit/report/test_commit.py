"""Commit messages: the subject by importance and length, the body line by line, hostile names."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import Milestone, ObjectRef, Result
from reconciler.core.record import Condition, DiskRecord, Intent, IntentKind, ObjectStatus, Records, VmRecord
from reconciler.report.commit import message

from .sample import HOSTILE, NS, PLAN, RUN, at, copying, failed, held, problem, records, statuses, succeeded, vm

COMMIT = "c" * 40


def said(old: Records, new: Records) -> tuple[str, list[str]]:
    """Subject and body lines; the form of the whole is checked on the way."""
    text = message(old, new, revision=COMMIT)
    subject, _, rest = text.partition("\n\n")
    assert len(subject) <= 72 and "\n" not in subject
    assert text.endswith(f"\n\nReconciled-From: {COMMIT}\n")
    assert len(re.findall(r"(?m)^Reconciled-From: ", text)) == 1
    return subject, rest.removesuffix(f"Reconciled-From: {COMMIT}\n").strip().splitlines()


def between(before: VmRecord, after: VmRecord) -> tuple[str, list[str]]:
    return said(records(before), records(after))


# ---- subject --------------------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_manual() -> None:
    old = records(vm("web-01", "Release", milestone=Milestone.HANDED_OVER), copying("db-01", 40))
    subject, _ = said(old, records(succeeded("web-01"), copying("db-01", 45)))
    assert subject == "shop-wave-1: web-01 succeeded, db-01 copying 45 %"


def test_a_failure_comes_first_and_the_rest_is_counted() -> None:
    old = records(copying("web-01", 10), copying("db-01", 40), vm("mail-01", "PowerOffSource"), vm("app-01", "StartTarget"))
    subject, _ = said(old, records(copying("web-01", 12), copying("db-01", 45), failed("mail-01"), held("app-01")))
    assert subject == "shop-wave-1: mail-01 failed (GuestShutdownTimeout), +3 more"


def test_many_of_one_kind_are_counted() -> None:
    old = records(*(vm(f"vm-{i}", "Pending") for i in range(500)))
    subject, body = said(old, records(*(vm(f"vm-{i}", "Started") for i in range(500))))
    assert subject == "shop-wave-1: 500 VMs starting"
    assert len(body) == 500


def test_news_stands_before_mere_progress() -> None:
    old = records(copying("a", 10), vm("b", "PowerOffSource"))
    subject, _ = said(old, records(copying("a", 20), vm("b", "StartTarget")))
    assert subject == "shop-wave-1: b starting the target, a copying 20 %"


def test_those_that_do_the_same_are_counted_whether_they_just_began_or_not() -> None:
    old = records(copying("a", 10), copying("b", 10), vm("c", "PowerOffSource"), vm("d", "PowerOffSource"))
    subject, _ = said(old, records(copying("a", 20), copying("b", 30), vm("c", "CopyDisks"), succeeded("d")))
    assert subject == "shop-wave-1: d succeeded, 3 VMs copying 0 to 30 %"


def test_copies_that_only_go_on_are_not_said_in_the_same_words_again() -> None:
    names = ("a", "b", "c")
    stages = [records(*(copying(n, at) for n in names)) for at in (10, 40, 70)]
    later = records(copying("a", 75), copying("b", 80), copying("c", 70))
    subjects = [said(old, new)[0] for old, new in pairwise([*stages, later])]
    assert subjects[:2] == ["shop-wave-1: 3 VMs copying 40 %", "shop-wave-1: 3 VMs copying 70 %"]
    assert subjects[2] == "shop-wave-1: a copying 75 %, b copying 80 %"


def test_those_that_are_held_are_counted_without_how_far_they_were() -> None:
    names = ("a", "b", "c")
    stopped = [replace(copying(n, 20), conditions=held(n).conditions) for n in names]
    subject, _ = said(records(*(copying(n, 20) for n in names)), records(*stopped))
    assert subject.startswith("shop-wave-1: 3 VMs") and not subject.endswith("%"), subject


def test_several_plans() -> None:
    other = {"plan": ObjectRef(NS, "erp"), "run": ObjectRef(NS, "erp-go")}
    old = records(vm("web-01", "StartTarget"), vm("erp-01", "PowerOffSource", **other))
    subject, _ = said(old, records(succeeded("web-01"), vm("erp-01", "CopyDisks", **other)))
    assert subject == "shop-wave-1: web-01 succeeded, erp: erp-01 copying 0 %"


def test_readiness_and_problems_when_no_vm_moved() -> None:
    subject, body = said(Records(""), Records("", statuses={k: v for k, v in statuses().items() if k[1].name == "vcenter-b"}))
    assert subject == "vcenter-b not ready (ConnectionTestFailed)"
    assert body == ["Provider: vcenter-b not ready: ConnectionTestFailed: the certificate of vcenter-b has expired; renew it"]
    text = message(Records(""), Records(""), [problem(), problem("second")], revision=COMMIT)
    assert text.startswith("2 errors in manifests\n\nProblem: plans/erp.yaml:14:9 unknown field storageclass\n")
    assert message(Records(""), Records(""), revision=COMMIT) == f"Update status\n\nReconciled-From: {COMMIT}\n"


def test_many_plans_made_ready_are_plans_not_vms() -> None:
    ready = statuses()[("Plan", PLAN)]
    refs = [ObjectRef(NS, f"wave-{i}") for i in range(4)]
    subject, body = said(Records(""), Records("", statuses={("Plan", r): replace(ready, ref=r) for r in refs}))
    assert subject == "4 plans ready"
    assert body == [f"Plan: wave-{i} ready" for i in range(4)]


def test_a_status_whose_readiness_stays_is_not_news() -> None:
    ref = ObjectRef(NS, "p")
    old = ObjectStatus("Plan", ref, (Condition("Ready", True, next(iter(statuses().values())).conditions[0].category),), "a")
    new = replace(old, observed_revision="b")
    _, body = said(Records("", statuses={("Plan", ref): old}), Records("", statuses={("Plan", ref): new}))
    assert body == []


# ---- body -----------------------------------------------------------------------------------------------------------------------------


def test_an_intent_is_said_when_declared_when_done_and_when_void() -> None:
    before = vm("web-01", "PowerOffSource")
    declared = replace(before, intents=(Intent(IntentKind.POWER_OFF_SOURCE, at(1)),))
    done = replace(before, intents=(Intent(IntentKind.POWER_OFF_SOURCE, at(1), at(2)),))
    void = replace(before, intents=(Intent(IntentKind.POWER_OFF_SOURCE, at(1), void="a cancel came"),))
    assert between(before, declared)[1] == ["VM: web-01 will shut down the source guest (declared)"]
    taken = replace(before, intents=(Intent(IntentKind.POWER_OFF_SOURCE, at(1), accepted_at=at(2)),))
    assert between(declared, done)[1] == ["VM: web-01 source went off"]
    assert between(declared, taken)[1] == ["VM: web-01 the guest is shutting down"]
    assert between(declared, void)[1] == ["VM: web-01 will not shut down the source guest after all: a cancel came"]


def test_milestones() -> None:
    off = (Intent(IntentKind.POWER_OFF_SOURCE, at(1), at(2)),)
    before = vm("web-01", "ProveSourceOff", intents=off)
    after = replace(before, phase="CopyDisks", milestone=Milestone.CUTOVER)
    subject, body = between(before, after)
    assert subject == "shop-wave-1: web-01 source off, copying 0 %"
    assert body == ["VM: web-01 source powered off, proven (cutover)", "VM: web-01 copying"]
    _, body = between(replace(before, intents=()), replace(after, intents=()))
    assert body[0] == "VM: web-01 source is off, proven (cutover)"
    _, body = between(after, replace(after, phase="StartTarget", milestone=Milestone.HANDED_OVER))
    assert body == ["VM: web-01 handed over to the target, the source stays off (handed over)", "VM: web-01 starting the target"]


def test_disks_and_result() -> None:
    before = replace(copying("db-01", 45, 2), disks=(DiskRecord("db-01-d0"), DiskRecord("db-01-d1")))
    one = replace(before, disks=(DiskRecord("db-01-d0", marked=True, seconds=75.0, sha256="ab"), DiskRecord("db-01-d1")))
    assert between(before, one)[1] == ["VM: db-01 disk 1 of 2 (Hard disk 1, 40 GiB) copied in 1 min 15 s, SHA-256 ab"]
    assert between(copying("db-01", 45), copying("db-01", 50))[1] == ["VM: db-01 copied 50 % of 40 GiB"]
    assert (
        between(copying("db-01", 45), succeeded("db-01"))[1][-1]
        == "VM: db-01 succeeded in 12 min, down for 9 min 30 s, 8 min 15 s of it ours"
    )


def test_failure_cancel_and_hold() -> None:
    before = vm("web-01", "PowerOffSource")
    assert between(before, failed("web-01", "no tools"))[1] == [
        "VM: web-01 failed while shutting down the source - GuestShutdownTimeout: no tools"
    ]
    undone = replace(before, phase="StopWriters", unwinding=True, cancel_at=at(4))
    assert between(before, undone)[1] == [
        "VM: web-01 cancel requested",
        "VM: web-01 giving back (canceled)",
        "VM: web-01 stopping the copy",
    ]
    assert "held by SourceChanged: the source was powered on after cutover; power it off" in between(before, held("web-01"))[1][1]


def test_runs() -> None:
    new = records(vm("a"), vm("b"))
    assert said(Records("", statuses=statuses()), new)[1][-1] == f"Run: {RUN} of plan {PLAN.name} began with 2 VMs"
    over = records(succeeded("a"), failed("b"))
    over = replace(over, runs={RUN: replace(over.runs[RUN], completed=at(30), result=Result.FAILED)})
    subject, body = said(new, over)
    assert body[-1] == f"Run: {RUN} ended: 1 succeeded, 1 failed"
    assert subject.startswith("shop-wave-1: b failed (GuestShutdownTimeout)")


# ---- hostile --------------------------------------------------------------------------------------------------------------------------


def test_a_hostile_name_forges_nothing() -> None:
    subject, body = said(Records("", statuses=statuses()), records(failed(HOSTILE, HOSTILE)))
    whole = "\n".join([subject, *body])
    assert not set("@#<>[]\x1b\u202e") & set(whole)
    assert len(body) == 2


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_any_text_keeps_the_form(name: str, plan: str, why: str) -> None:
    record = replace(failed(name or "x", why), plan=ObjectRef(NS, plan))
    said(Records(""), records(record))
