"""Records in words: numbers, phases, standing, progress, downtime."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.model import Milestone, Result
from reconciler.core.record import Category, Condition, DiskRecord, Failure
from reconciler.report import words

from .sample import GIB, HOSTILE, copying, failed, held, succeeded, vm


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
