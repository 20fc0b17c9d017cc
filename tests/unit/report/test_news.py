"""What a commit tells of a warm VM: each step of its life is a subject of its own, and no change of its file goes without a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import Milestone, Power, Result
from reconciler.core.record import Condition, DiskRecord, Intent, IntentKind, VmRecord
from reconciler.report.commit import SUBJECT_MAX, message
from reconciler.report.news import vm_news

from .sample import PLAN, at, outage, records, round_of, vm, warm

DOUBT = {"mail-01-d0": "the VM's files were moved"}
ONE, TWO = round_of(1, 0, 40 << 10), round_of(2, 60)
OFF = (Intent(IntentKind.POWER_OFF_SOURCE, at(130)),)
DONE_OFF = (replace(OFF[0], done_at=at(131)),)
STARTED = (*DONE_OFF, Intent(IntentKind.START_TARGET, at(132)))
FINAL = round_of(3, 131, 7, final=True, snapshot="")


def life() -> list[VmRecord]:
    """mail-01 from its reservation to its end, one record a commit."""
    rests = warm("mail-01", ONE, TWO)
    cut = replace(rests, rounds=(ONE, TWO), next_round_at=None, phase="PowerOffSource", intents=OFF)
    off = replace(cut, phase="ProveSourceOff", intents=DONE_OFF, outage=outage(130))
    final = replace(off, phase="CopyFinalChanges", milestone=Milestone.CUTOVER, rounds=(ONE, TWO, replace(FINAL, ended=None, read_bytes=0)))
    over = replace(final, phase="HandOver", rounds=(ONE, TWO, FINAL), disks=(DiskRecord("mail-01-d0", marked=True),))
    starts = replace(over, milestone=Milestone.HANDED_OVER, intents=STARTED)
    runs = replace(starts, phase="Release", outage=outage(130, 130.5), intents=(*DONE_OFF, replace(STARTED[1], done_at=at(132))))
    return [
        vm("mail-01", "ReleaseBinder"),
        warm("mail-01", round_of(1, 0, ended=False, snapshot="")),
        warm("mail-01", round_of(1, 0, ended=False)),
        warm("mail-01", ONE),
        warm("mail-01", ONE, round_of(2, 60, ended=False, snapshot="")),
        warm("mail-01", ONE, round_of(2, 60, ended=False)),
        rests,
        cut,
        off,
        final,
        over,
        starts,
        runs,
        replace(runs, phase="Completed", milestone=Milestone.DONE, result=Result.SUCCEEDED, completed=at(135)),
    ]


def subject(before: VmRecord, after: VmRecord) -> str:
    return message(records(before), records(after), revision="c" * 40).partition("\n")[0].removeprefix(f"{PLAN.name}: ")


def texts(before: VmRecord | None, after: VmRecord) -> list[str]:
    return [n.text for n in vm_news(before, after)]


def test_the_history_of_a_warm_vm_reads_as_its_story() -> None:
    steps = life()
    assert [subject(a, b) for a, b in pairwise(steps)] == [
        "mail-01 round 1 begins",
        "mail-01 round 1 reads its snapshot",
        "mail-01 round 1 done: 40 GiB in 3 s, next at 15:02",
        "mail-01 round 2 begins",
        "mail-01 round 2 reads its snapshot",
        "mail-01 round 2 done: 12 MiB in 3 s, next at 16:02",
        "mail-01 cutover begins, guest is shut down",
        "mail-01 proving the source off",
        "mail-01 source off, copying what changed last",
        "mail-01 final delta done: 7 MiB in 3 s",
        "mail-01 handed over, target starts",
        "mail-01 target runs, down for 30 s, 27 s of it ours",
        "mail-01 succeeded",
    ]


def test_the_lines_below_know_more() -> None:
    steps = life()
    lines = [texts(a, b) for a, b in pairwise(steps)]
    assert lines[2][0] == "disk 1 of 1 (Hard disk 1, 40 GiB) copied"
    assert lines[5] == ["round 2 done: 12 MiB in 3 s, next at 16:02; 3.4 KiB/s change; a cutover until then takes about 10 s"]
    assert lines[6] == ["its cutover begins", "will shut down the source guest (declared)", "shutting down the source"]
    assert lines[8] == ["source powered off, proven (cutover)", "final delta begins", "copying what changed last"]
    assert lines[-1][-1] == "succeeded in 2 h 15 min, down for 30 s, 27 s of it ours"


def test_of_several_steps_at_once_the_last_that_weighs_most_is_the_subject() -> None:
    steps = life()
    assert subject(steps[10], steps[12]) == "mail-01 target runs, down for 30 s, 27 s of it ours"
    assert subject(steps[2], steps[4]) == "mail-01 round 1 done: 40 GiB in 3 s"
    assert subject(steps[4], steps[6]) == "mail-01 round 2 done: 12 MiB in 3 s, next at 16:02"


def test_what_has_no_room_is_said_without_its_end() -> None:
    before, after = warm("a-machine-with-a-long-name", ONE), warm("a-machine-with-a-long-name", ONE, TWO)
    assert subject(before, after) == "a-machine-with-a-long-name round 2 done: 12 MiB in 3 s"
    text = message(records(before), records(after), revision="c" * 40)
    assert "next at 16:02" in text and len(text.partition("\n")[0]) <= SUBJECT_MAX


def test_many_that_do_alike_are_counted() -> None:
    before = records(*(warm(f"m-{i}", ONE, round_of(2, 60, ended=False)) for i in range(5)))
    after = records(*(warm(f"m-{i}", ONE, TWO) for i in range(5)))
    assert message(before, after, revision="c").startswith(f"{PLAN.name}: 5 VMs finished a round\n")


def test_a_round_that_is_dropped_says_why() -> None:
    running = warm("mail-01", ONE, round_of(2, 60, ended=False))
    gone = warm("mail-01", ONE, round_of(2, 60, abandoned="another tool made a snapshot first"))
    assert subject(running, gone) == "mail-01 round 2 dropped: another tool made a snapshot first"
    assert texts(running, gone) == ["round 2 dropped: another tool made a snapshot first"]
    assert subject(running, replace(gone, rounds=(ONE, replace(gone.rounds[1], abandoned="because " * 9)))) == "mail-01 round 2 dropped"
    brief = warm("mail-01", ONE, round_of(2, 60, abandoned="the cutover is due"))
    assert subject(running, brief) == "mail-01 round 2 dropped: the cutover is due"


def test_a_doubted_disk_and_a_locked_one() -> None:
    running = warm("mail-01", ONE, round_of(2, 60, ended=False))
    doubted = warm("mail-01", ONE, round_of(2, 60, ended=False, doubts=DOUBT))
    assert subject(running, doubted) == "mail-01 round 2 compares in full"
    assert texts(running, doubted) == ["round 2 compares Hard disk 1 in full: the VM's files were moved"]
    locked = replace(warm("mail-01", round_of(1, 0, ended=False)), base_unreadable="HTTP 500", attempt=2)
    assert subject(warm("mail-01", round_of(1, 0, ended=False)), locked) == "mail-01 disks locked while on, exported instead"


def test_a_round_in_which_nothing_had_changed() -> None:
    before, after = warm("mail-01", ONE), warm("mail-01", ONE, round_of(2, 60, 0))
    assert subject(before, after) == "mail-01 round 2 done: nothing had changed, next at 16:02"


def test_a_target_that_stays_off_and_a_source_given_back() -> None:
    over = vm("batch", "HandOver", milestone=Milestone.CUTOVER)
    assert over.frozen is not None
    stays = replace(over, milestone=Milestone.HANDED_OVER, frozen=replace(over.frozen, want_power=Power.OFF))
    assert subject(over, stays) == "batch handed over, target stays off"
    undoing = replace(vm("web-01", "PowerOnSource"), unwinding=True, outage=outage(1))
    back = replace(undoing, outage=outage(1, 3))
    assert texts(undoing, back) == ["source runs, down for 2 min"]


def test_what_was_told_is_not_told_again() -> None:
    steps = life()
    for a, b in pairwise(steps):
        assert not set(texts(a, b)) & {t for c, d in pairwise(steps) if d is not b for t in texts(c, d)}


CHANGES: Sequence[tuple[str, object]] = [
    ("message", "waits for a slot"),
    ("epoch", "on:9"),
    ("tried", "abc"),
    ("next_round_at", at(200)),
    ("conditions", (Condition("Retrying", True, "Warn", "Busy", "busy"),)),  # type: ignore[arg-type]
    ("base_unreadable", "HTTP 500"),
    ("attempt", 2),
    ("rounds", (ONE, TWO)),
    ("disks", (DiskRecord("mail-01-d0", watermark_bytes=5),)),
]


def test_what_has_no_name_of_its_own_is_told_by_the_records_message() -> None:
    running = warm("mail-01", ONE, round_of(2, 60, ended=False))
    assert texts(running, replace(running, message="round 2: the snapshot is made")) == ["round 2: the snapshot is made"]
    assert texts(running, replace(running, message="our snapshot goes")) == ["round 2: our snapshot goes"]
    rests = warm("mail-01", ONE)
    assert texts(rests, replace(rests, message="no cutover is set")) == ["waiting for round 2: no cutover is set"]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_no_change_of_a_file_goes_without_a_line(name: str, value: object) -> None:
    before = warm("mail-01", ONE)
    assert name in {f.name for f in fields(VmRecord)}
    told = vm_news(before, replace(before, **{name: value}))  # type: ignore[arg-type]
    assert told and all(n.text for n in told)


@given(st.lists(st.sampled_from(range(len(life()))), min_size=2, max_size=2))
def test_any_two_states_give_a_subject_of_its_form(pair: list[int]) -> None:
    """A pass may leap: after a restart, or where commits were lost and made anew."""
    before, after = (life()[i] for i in pair)
    line = message(records(before), records(after), revision="c").partition("\n")[0]
    assert line.startswith(f"{PLAN.name}: ") or before == after
    assert len(line) <= SUBJECT_MAX
