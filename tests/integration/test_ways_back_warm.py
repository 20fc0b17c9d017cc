"""Warm runs that turn back: a cancel, and a failure, right behind each act before the hand-over; and the next Migration.

What is left on both sides is what the record says, `reconciler sweep` finds nothing more, and the next run keeps what was proven.
They share one lab: a plan with two VMs for each act, one that is cancelled there, and one whose act is done and yet called a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.actions import ActError, Action, Decision, Outcome, ProveOff
from reconciler.core.model import Milestone, Result
from reconciler.core.record import Records, VmRecord
from reconciler.engine import loop
from reconciler.engine.execute import Hands
from reconciler.lab.machines import Happening, Power
from tests.integration import test_sweep
from tests.integration.loops import TTL_S, assert_bytes_of, go_on, happened, machine
from tests.integration.simlab import SimLab

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.shared,
]

BEFORE_MARKS = (
    "ensurevolumes",
    "ensurebinder",
    "ensurevm",
    "dropbinder",
    "enabletracking",
    "r1-ensuresnapshot",
    "r1-proveoff",
    "r1-ensurecopy",
    "r1-proveoff-again",
)
BEHIND_MARKS = (
    "r1-putmarks",
    "r1-dropcopy",
    "r1-dropsnapshot",
    "r2-ensuresnapshot",
    "r2-ensurecopy",
    "r2-putmarks",
    "r2-dropsnapshot",
)
AT_CUTOVER = ("powersource", "proveoff", "final-ensurecopy", "final-putmarks", "final-proveoff")
ACTS = BEFORE_MARKS + BEHIND_MARKS + AT_CUTOVER
ELSEWHERE = {"ensurenamespace"}  # one act for all VMs of a namespace
BLOCK = 64 << 10


def marks_by(act: str) -> int:
    """How many rounds were marked when this was done."""
    return sum(ACTS.index(act) >= ACTS.index(f"{at}-putmarks") for at in ("r1", "r2", "final"))


def act_of(record: VmRecord, action: Action) -> str:
    """What is done, in which round of a warm run; a look at a snapshot that was seen before, or before the hand-over, is "again"."""
    name = type(action).__name__.lower()
    last = record.rounds[-1] if record.rounds else None
    if last is None and record.milestone is Milestone.CUTOVER and isinstance(action, ProveOff):
        return f"{name}-again"
    if last is None or (last.ended is not None and record.milestone is Milestone.NONE):
        return name
    if record.milestone is Milestone.CUTOVER and last.final:
        return f"final-{name}"
    return f"r{last.number}-{name}" + ("-again" if isinstance(action, ProveOff) and last.snapshot else "")


class Turns:
    """The lab, and at which act each VM turns back: `cancel-<act>`, `fail-<act>`; `plain` goes its way."""

    kind, acts = "warm", ACTS

    def __init__(self, root: Path) -> None:
        self.lab = SimLab(root, ttl_s=TTL_S)
        self.names = ["plain", *(f"{way}-{act}" for act in self.acts for way in ("cancel", "fail"))]
        self.published = Records("")
        self.seen: set[str] = set()
        self.turned: list[str] = []
        self.told: list[str] = []
        self.cutover = False

    # ---- between the decision and the acts ----

    def publish(self, engine: loop.Engine, decision: Decision, after: Records) -> tuple[Outcome, ...]:
        self.published = after
        return EXECUTE_ALL(engine, decision, after)

    def act(self, action: Action, hands: Hands) -> Outcome:
        outcome, record = EXECUTE(action, hands), self.published.vms[action.key]
        what = act_of(record, action)
        way, _, where = record.name.partition("-")
        if way == "plain" and record.milestone.order < Milestone.HANDED_OVER.order:
            self.seen.add(what)
        if where != what or record.name in self.turned:
            return outcome
        self.turned.append(record.name)
        return outcome if way == "cancel" else replace(outcome, error=ActError("terminal", "Injected", "it is of no use"))

    # ---- what people do ----

    def arrange(self) -> None:
        for name in self.names:
            make = self.lab.vm if name.endswith("enabletracking") else self.lab.tracked_vm
            make(name, mib=1).writes_per_tick = 0
        self.lab.kind = self.kind
        self.lab.write("limits.yaml", LIMITS)
        self.lab.plan(*self.names, annotations='{reconciler.dev/precopy-interval: "10", reconciler.dev/enable-cbt: "true"}')
        self.lab.migration()
        self.lab.commit()

    def person(self) -> bool:
        cancel = [n for n in self.turned if n.startswith("cancel")]
        cutover = self.cutover or (self.kind == "warm" and self._all_wait())
        if cancel != self.told or cutover != self.cutover:
            self.told, self.cutover = cancel, cutover
            self.lab.migration(cancel=cancel, cutover=CUTOVER if cutover else None)
            self.lab.commit("as things are")
        return self.lab.ended()

    def _all_wait(self) -> bool:
        """Who did not turn back has done two rounds."""
        vms = self.lab.vms()
        return len(vms) == len(self.names) and all(v.result or (len(v.rounds) >= 2 and v.next_round_at is not None) for v in vms)

    def again(self) -> None:
        """A little is written, and another Migration takes all that did not succeed."""
        self.lab.copied_anew.clear()
        for name in self.names[1:]:
            vm = machine(self.lab, name)
            self.lab.world.guest_write(vm, vm.disks[0], 5 * BLOCK, b"meanwhile")
        self.lab.migration("run-2")
        self.lab.commit("again")
        if self.kind == "warm":
            go_on(self.lab, self._all_copied_again, 200, seconds=1.0)
            self.lab.migration("run-2", cutover=self.lab.clock.now())
            self.lab.commit("cut over")
        go_on(self.lab, self.lab.ended, 200, seconds=1.0)

    def _all_copied_again(self) -> bool:
        second = [v for v in self.lab.vms() if v.run.name == "run-2"]
        return bool(second) and all(v.rounds and v.rounds[0].ended for v in second)


EXECUTE, EXECUTE_ALL = loop.execute, loop.Engine._execute
CUTOVER = datetime(2026, 3, 1, tzinfo=UTC)
LIMITS = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: ForkliftController
metadata: {name: forklift-controller, namespace: openshift-mtv}
spec: {controller_max_vm_inflight: 100}
"""


@dataclass(frozen=True)
class Left:
    """What was there when the first run had ended: of the target, by VM, and what `sweep` said."""

    records: Records
    objects: dict[str, set[tuple[str, str]]]
    power: dict[str, Power]
    snapshots: dict[str, int]
    temporary: list[str]
    sweep: tuple[int, list[dict[str, Any]]]


def left(lab: SimLab, names: list[str]) -> Left:
    records = lab.records()
    by_name = {v.name: v for v in records.vms.values()}
    there = test_sweep.objects(lab)
    mine = {
        n: {("PersistentVolumeClaim", d.pvc) for d in r.frozen.disks} | {("VirtualMachine", r.frozen.name)}
        for n, r in by_name.items()
        if r.frozen
    }
    vms = {n: machine(lab, n) for n in names}
    temporary = [
        o["metadata"]["name"]
        for kind in ("Job", "Pod", "Secret")
        for o in lab.cluster.find_all(kind, "shop")
        if "virt-launcher" not in o["metadata"]["name"]
    ]
    return Left(
        records,
        {n: there & own for n, own in mine.items()},
        {n: vm.power for n, vm in vms.items()},
        {n: len(vm.snapshots) + vm.consolidation_needed for n, vm in vms.items()},
        temporary,
        test_sweep.run(lab, everywhere=True),
    )


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Turns, Left]]:
    yield from lived_through(Turns(tmp_path_factory.mktemp("ways-back")))


def lived_through(turns: Turns) -> Iterator[tuple[Turns, Left]]:
    with turns.lab as lab, pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Engine, "_execute", lambda engine, *given: turns.publish(engine, *given))
        patch.setattr(loop, "execute", turns.act)
        turns.arrange()
        go_on(lab, turns.person, 300, seconds=1.0)
        after = left(lab, turns.names)
        turns.again()
        yield turns, after


def test_every_act_before_the_hand_over_is_a_place_to_turn_back(turns: tuple[Turns, Left]) -> None:
    made, _ = turns
    rounds_later = {act for act in made.seen if act.startswith("r2-")}
    assert made.seen - rounds_later - ELSEWHERE == set(ACTS) - rounds_later - {"enabletracking"}
    assert sorted(made.turned) == sorted(made.names[1:])


@pytest.mark.parametrize("act", ACTS)
def test_a_cancel_leaves_the_world_as_it_was(turns: tuple[Turns, Left], act: str) -> None:
    _, after = turns
    name = f"cancel-{act}"
    record = next(v for v in after.records.vms.values() if v.name == name)
    assert (record.result, record.error) == (Result.CANCELED, None), record.message
    assert after.objects[name] == set()
    assert_given_back(after, record)


@pytest.mark.parametrize("act", ACTS)
def test_a_failure_keeps_only_what_is_proven(turns: tuple[Turns, Left], act: str) -> None:
    _, after = turns
    name = f"fail-{act}"
    record = next(v for v in after.records.vms.values() if v.name == name)
    assert record.result is Result.FAILED and record.error is not None and record.error.reason == "Injected", record.message
    assert {kind for kind, _ in after.objects[name]} == (set() if act in BEFORE_MARKS else {"PersistentVolumeClaim", "VirtualMachine"})
    assert_given_back(after, record)


def assert_given_back(after: Left, record: VmRecord) -> None:
    assert (after.power[record.name], after.snapshots[record.name]) == (Power.ON, 0)
    assert not any(i.open for i in record.intents), "nothing is owed"
    claim = next(c for c in after.records.claims.values() if c.vm_name == record.name)
    assert claim.released is not None and not claim.powered_off_by_us and not claim.forever


def test_nothing_more_is_found(turns: tuple[Turns, Left]) -> None:
    _, after = turns
    assert after.temporary == []
    assert after.sweep == (0, [])


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("way", ["cancel", "fail"])
def test_the_next_run_keeps_what_was_proven_and_moves_it(turns: tuple[Turns, Left], way: str, act: str) -> None:
    made, _ = turns
    name = f"{way}-{act}"
    second = next(v for v in made.lab.vms() if (v.run.name, v.name) == ("run-2", name))
    kept = way == "fail" and act not in BEFORE_MARKS
    assert second.result is Result.SUCCEEDED, second.message
    assert second.rounds[0].read_bytes == (BLOCK if kept else 16 * BLOCK)
    assert second.rounds[0].number == 1 + (marks_by(act) if kept else 0), "as if a mark of the first run were one of this"
    assert_bytes_of(made.lab, second)
    assert happened(made.lab, name)[-1] is Happening.OFF and not machine(made.lab, name).snapshots


def test_no_marked_disk_was_copied_again(turns: tuple[Turns, Left]) -> None:
    assert turns[0].lab.copied_anew == []
