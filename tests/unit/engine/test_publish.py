"""How urgent a difference of records is: what must be in git before any act, what may wait, and what is mere progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.core.model import Milestone, Result
from reconciler.core.record import Failure, Intent, IntentKind, Progress, Records, VmRecord
from reconciler.engine.publish import Urgency, urgency
from tests.unit.core.lives import LiveLand
from tests.unit.core.toyland import desired_for, source_vm

Change = Callable[[VmRecord], VmRecord]


@pytest.fixture(scope="module")
def records() -> Records:
    """Of one VM that is being copied."""
    world = LiveLand({"web": source_vm("web")}, desired_for(["web"]))
    while not world.pods:
        world.one_pass()
        world.go_on()
    return world.records


def of(records: Records, change: Change) -> Urgency:
    (record,) = records.vms.values()
    return urgency(records, replace(records, vms={record.key: change(record)}))


BEFORE_ANY_ACT: dict[str, Change] = {
    "milestone": lambda r: replace(r, milestone=Milestone.HANDED_OVER),
    "intents": lambda r: replace(r, intents=(*r.intents, Intent(IntentKind.START_TARGET, r.phases[0].started))),
    "result": lambda r: replace(r, result=Result.FAILED),
    "unwinding": lambda r: replace(r, unwinding=True),
    "cancel": lambda r: replace(r, cancel_at=r.phases[0].started),
    "attempt": lambda r: replace(r, attempt=r.attempt + 1),
    "epoch": lambda r: replace(r, epoch="on:9"),
    "error": lambda r: replace(r, error=Failure("CopyDisks", "CopyFailed", "it broke")),
    "spoilt": lambda r: replace(r, spoilt=("wave-web-disk-0",)),
}


@pytest.mark.parametrize("change", BEFORE_ANY_ACT.values(), ids=BEFORE_ANY_ACT)
def test_what_the_next_process_must_know_is_committed_before_the_act(records: Records, change: Change) -> None:
    assert of(records, change) is Urgency.NOW


def test_what_people_read_comes_soon_and_progress_in_its_own_time(records: Records) -> None:
    assert of(records, lambda r: replace(r, base_unreadable="it is locked")) is Urgency.SOON
    moved = Progress(completed=1, total=2)

    def ahead(record: VmRecord) -> VmRecord:
        steps = tuple(replace(s, progress=moved) for s in record.pipeline)
        return replace(record, pipeline=steps, timers={"x": 1.0}, message="50 %")

    assert of(records, ahead) is Urgency.PROGRESS
    assert of(records, lambda r: r) is Urgency.NONE
