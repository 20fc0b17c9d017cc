"""Records in words: numbers, phases, standing, progress, downtime."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.model import Milestone, Power, Result
from reconciler.core.record import Category, Condition, DiskRecord, Failure, Intent, IntentKind
from reconciler.report import words

from .sample import GIB, HOSTILE, at, copying, failed, held, succeeded, vm


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (40 * GIB, "40 GiB"), (int(1.5 * GIB), "1.5 GiB"), (5000 * GIB, "4.9 TiB")],
)
def test_size(count: int, text: str) -> None:
    assert words.size(count) == text


def test_size_of_says_a_common_unit_once() -> None:
    assert words.size_of(36 * GIB, 80 * GIB) == "36 of 80 GiB"
    assert words.size_of(80 * GIB, 80 * GIB) == "80 GiB"
    assert words.size_of(500 * 1024**2, 80 * GIB) == "500 MiB of 80 GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (3.24, "3.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (252, "4 min 12 s"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (200000, "2 d 7 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_an_unknown_phase_is_said_by_its_name() -> None:
    assert words.phase_words("WaitForFinalSnapshotRemoval") == "wait for final snapshot removal"
    assert words.phase_words("CopyDisks") == "copying"


def test_standing() -> None:
    stands = words.Standing
    undoing = replace(vm("a", "StopWriters"), unwinding=True, error=Failure("CopyDisks", "CopyStalled", "no bytes for 900 s"))
    cases = [
        (vm("a"), stands.WAITING, "waiting"),
        (vm("a", "Pending"), stands.WAITING, "waiting for its turn"),
        (copying("a", 45), stands.RUNNING, "copying 45 %"),
        (vm("a", "StartTarget"), stands.RUNNING, "starting the target"),
        (held("a"), stands.HELD, "held (SourceChanged)"),
        (failed("a"), stands.FAILED, "failed"),
        (succeeded("a"), stands.SUCCEEDED, "succeeded"),
        (undoing, stands.UNDOING, "giving back (stopping the copy)"),
        (replace(vm("a"), result=Result.CANCELED), stands.CANCELED, "canceled"),
    ]
    for record, standing, doing in cases:
        assert (words.standing(record), words.doing(record)) == (standing, doing)


def test_progress_never_claims_more_than_is_known() -> None:
    assert words.copied(vm("a", "CopyDisks", frozen=None)) == words.Copied(0, 0)
    record = replace(vm("a", "CopyDisks", disks=2), disks=(DiskRecord("a-d0", marked=True), DiskRecord("a-d1", watermark_bytes=99 * GIB)))
    assert words.copied(replace(record, disks=record.disks[:1])) == words.Copied(40 * GIB, 80 * GIB)
    assert words.copied(record) == words.Copied(80 * GIB, 80 * GIB)
    assert words.copied(copying("a", 45, 2)).percent == 45
    assert words.Copied(40 * GIB - 1, 40 * GIB).percent == 99
    assert words.copied(vm("a", milestone=Milestone.HANDED_OVER)).percent == 100


def test_downtime() -> None:
    assert words.downtime(vm("a")) is None
    assert words.downtime(copying("a", 1)) == words.Downtime(at(1), None)
    assert words.downtime_words(copying("a", 1)) == "since 14:01"
    assert words.downtime_words(succeeded("a")) == "9 min 30 s"
    was_off = replace(succeeded("a"), restore_power_state=Power.OFF)
    assert words.downtime(was_off) is None
    back = (Intent(IntentKind.POWER_OFF_SOURCE, at(1), at(2)), Intent(IntentKind.POWER_ON_SOURCE, at(5), at(6)))
    assert words.downtime(replace(failed("a"), intents=back)) == words.Downtime(at(1), 300.0)


def test_trouble_tells_the_most_urgent_thing_only() -> None:
    assert words.trouble(failed("a", "why")) == "GuestShutdownTimeout: why"
    assert words.trouble(held("a")).startswith("SourceChanged: ")
    assert words.trouble(succeeded("a")) == ""
    warned = vm("a", "CopyDisks", conditions=(Condition("Retrying", True, Category.WARN, "Busy", "the host is busy"),))
    assert words.trouble(warned) == "Busy: the host is busy"
    assert words.trouble(vm("a", "Pending", message="waits for esx-2")) == "waits for esx-2"


def test_equal_troubles_stand_together() -> None:
    groups = words.troubles([failed("a"), held("b"), failed("c"), failed("d", HOSTILE), succeeded("e")])
    assert [[v.name for v in vms] for _, _, vms in groups] == [["a", "c"], ["d"], ["b"]]


def test_counts() -> None:
    assert words.counts([succeeded("a"), failed("b"), succeeded("c")]) == "1 failed, 2 succeeded"
