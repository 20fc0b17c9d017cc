"""What is new about one VM between two states of its record: the lines of a commit's body, and the words that its subject may use.

What it is: pure, (before, after) -> News in the order in which things happen in life. What it is not: the message (report/commit.py), which
chooses and cuts; or escaping. Each kind of news is one short generator; `_TELLERS` says in which order they speak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from reconciler.core import figures
from reconciler.core.model import Milestone, Power, Result
from reconciler.core.record import Intent, IntentKind, RoundRecord, VmRecord
from reconciler.report import rounds
from reconciler.report.numbers import duration, size
from reconciler.report.words import blockers, copied, doing, intent_done_words, intent_words, phase_words, standing


class Weight(IntEnum):
    """What a subject prefers: the heaviest, and of equals the latest."""

    QUIET = 0  # never in a subject
    PROGRESS = 1
    PHASE = 2
    STEP = 3
    ROUND = 4
    TURN = 5
    END = 6


@dataclass(frozen=True, slots=True)
class News:
    """`text` is a line of the body. `words` say it in a subject, where `tail` is left out when there is no room.

    group: what three VMs and more have in common who tell this: `5 VMs finished a round`.
    """

    text: str
    weight: Weight = Weight.QUIET
    words: str = ""
    tail: str = ""
    group: str = ""


Teller = Callable[[VmRecord, VmRecord], Iterator[News]]


def vm_news(before: VmRecord | None, vm: VmRecord) -> list[News]:
    """At least one: a commit that changes a VM's file says so."""
    was = before or VmRecord(vm.run, vm.slug, vm.plan, vm.wanted)
    found = [news for tell in _TELLERS for news in tell(was, vm)]
    return found or [News(_still(vm), Weight.PROGRESS, doing(vm), group=phase_words(vm.phase))]


def _still(vm: VmRecord) -> str:
    """Nothing that has a name of its own; the record's message knows more."""
    said, state = rounds.message(vm), rounds.state(vm).partition(":")[0] or doing(vm)
    return f"{state}: {said}" if said and said != state else doing(vm)


def headline(news: Sequence[News]) -> News:
    return max(reversed(news), key=lambda n: n.weight)


# ---- before the source is off ---------------------------------------------------------------------------------------------------------


def _cancel(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    if vm.cancel_at and not before.cancel_at:
        yield News("cancel requested")


def _base(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    if vm.base_unreadable and not before.base_unreadable:
        text = f"its disks cannot be read while it runs ({vm.base_unreadable}); they are copied once, by an export of the snapshot"
        yield News(text, Weight.ROUND, "disks locked while on, exported instead", group="exported instead")


def _rounds(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    earlier = {r.number: r for r in before.rounds}
    for r in vm.rounds:
        yield from _round(earlier.get(r.number), r, vm)


def _round(was: RoundRecord | None, r: RoundRecord, vm: VmRecord) -> Iterator[News]:
    name = rounds.title(vm, r)
    if was is None and r.ended is None:
        yield News(f"{name} begins", Weight.QUIET if r.final else Weight.STEP, f"{name} begins", group="begin a round")
    elif r.snapshot and was is not None and not was.snapshot and r.ended is None:
        yield News(f"{name} reads snapshot {r.snapshot}", Weight.STEP, f"{name} reads its snapshot", group="read a snapshot")
    for uuid, why in r.doubts.items():
        if was is None or uuid not in was.doubts:
            yield News(
                f"{name} compares {_label(vm, uuid)} in full: {why}", Weight.STEP, f"{name} compares in full", group="compare in full"
            )
    if r.ended is not None and (was is None or was.ended is None):
        yield _round_end(name, r, vm)


def _round_end(name: str, r: RoundRecord, vm: VmRecord) -> News:
    if r.abandoned:
        return News(f"{name} dropped: {r.abandoned}", Weight.ROUND, f"{name} dropped", tail=f": {r.abandoned}", group="dropped a round")
    text = f"{name} done: {rounds.round_words(r)}"
    known = figures.rounds(vm)
    if r.final or known is None or r is not vm.rounds[-1]:
        return News(text, Weight.ROUND, text, group="copied what changed last")
    upcoming, rate, cost = rounds.next_words(known), rounds.rate_words(known), rounds.expected_words(known)
    more = (f"{rate} change" if rate else "", f"a cutover until then takes {cost}" if cost else "")
    tail = f", next {upcoming}" if upcoming else ""
    return News("; ".join((text + tail, *filter(None, more))), Weight.ROUND, text, tail, "finished a round")


def _label(vm: VmRecord, uuid: str) -> str:
    return next((d.label for d in vm.frozen.disks if d.uuid == uuid), uuid) if vm.frozen else uuid


# ---- the cutover, the copy, the hand-over ---------------------------------------------------------------------------------------------


def _power_off(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    known = {i.declared_at for i in before.intents}
    if vm.rounds and any(i.kind is IntentKind.POWER_OFF_SOURCE and i.declared_at not in known for i in vm.intents):
        yield News("its cutover begins", Weight.TURN, "cutover begins, guest is shut down", group="begin their cutover")
    yield from _intents(before, vm, IntentKind.POWER_OFF_SOURCE)


def _cutover(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    if vm.milestone is not Milestone.CUTOVER or before.milestone is Milestone.CUTOVER:
        return
    ours = any(i.kind is IntentKind.POWER_OFF_SOURCE for i in vm.intents)
    now = f"source off, {doing(vm)}" if vm.phase else "source off"
    yield News(
        "source powered off, proven (cutover)" if ours else "source is off, proven (cutover)", Weight.TURN, now, group=phase_words(vm.phase)
    )


def _disks(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    """Of a warm VM only the first copy; what a later round came to is told of the round."""
    again = figures.rounds(before)
    if again is not None and again.whole:
        return
    was = {d.uuid for d in before.disks if d.marked}
    frozen = list(vm.frozen.disks) if vm.frozen else []
    marked = {d.uuid: d for d in vm.disks if d.marked}
    for number, disk in enumerate(frozen, 1):
        if disk.uuid in marked and disk.uuid not in was:
            done = marked[disk.uuid]
            took = f" in {duration(done.seconds)}" if done.seconds else ""
            proof = f", SHA-256 {done.sha256}" if done.sha256 else ""
            yield News(f"disk {number} of {len(frozen)} ({disk.label}, {size(disk.capacity_bytes)}) copied{took}{proof}")
    share, earlier = copied(vm), copied(before)
    if vm.phase == before.phase == "CopyDisks" and share.percent > earlier.percent and len(marked) == len(was):
        yield News(f"copied {share.percent} % of {size(share.total_bytes)}", Weight.PROGRESS, doing(vm), group=phase_words(vm.phase))


def _other_intents(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    for kind in IntentKind:
        if kind is not IntentKind.POWER_OFF_SOURCE:
            yield from _intents(before, vm, kind)


def _intents(before: VmRecord, vm: VmRecord, kind: IntentKind) -> Iterator[News]:
    earlier = {i.declared_at: i for i in before.intents if i.kind is kind}
    for intent in (i for i in vm.intents if i.kind is kind):
        yield from _intent(earlier.get(intent.declared_at), intent)


def _intent(was: Intent | None, intent: Intent) -> Iterator[News]:
    if was is None:
        yield News(f"will {intent_words(intent)} (declared)")
    if intent.accepted_at and intent.open and (was is None or not was.accepted_at):
        yield News("the guest is shutting down")
    if intent.done_at and (was is None or not was.done_at):
        yield News(intent_done_words(intent))
    elif intent.void and (was is None or not was.void):
        yield News(f"will not {intent_words(intent)} after all: {intent.void}")


def _handed_over(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    if vm.milestone is before.milestone:
        return
    match vm.milestone:
        case Milestone.HANDED_OVER:
            stays = vm.frozen is not None and vm.frozen.want_power is Power.OFF
            words = "handed over, target stays off" if stays else "handed over, target starts"
            yield News("handed over to the target, the source stays off (handed over)", Weight.TURN, words, group="handed over")
        case Milestone.NONE:
            yield News("back before cutover", Weight.TURN, "back before cutover", group="back before cutover")


def _guest_runs(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    was = before.outage
    if vm.outage is None or vm.outage.back_at is None or (was is not None and was.back_at is not None):
        return
    side = "target" if vm.milestone.order >= Milestone.HANDED_OVER.order else "source"
    words, tail = f"{side} runs, down for {rounds.downtime_words(vm)}", rounds.ours_tail(vm)
    yield News(words + tail, Weight.TURN, words, tail, group="run again")


def _done(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    if vm.milestone is Milestone.DONE and before.milestone is not Milestone.DONE:
        yield News("target is as wanted (done)")


# ---- trouble, and the end -------------------------------------------------------------------------------------------------------------


def _attempt(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    if vm.attempt > before.attempt:
        yield News(f"copy attempt {vm.attempt}", Weight.STEP, f"copy attempt {vm.attempt}", group="copy once more")


def _giving_back(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    if vm.unwinding and not before.unwinding:
        yield News(f"giving back ({vm.error.reason}: {vm.error.message})" if vm.error else "giving back (canceled)")


def _held(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    known = {c.type for c in blockers(before.conditions)}
    for condition in blockers(vm.conditions):
        if condition.type not in known:
            yield News(f"held by {condition.type}: {condition.message}")


def _end(before: VmRecord, vm: VmRecord) -> Iterator[News]:
    if vm.result and not before.result:
        words = f"failed ({vm.error.reason})" if vm.result is Result.FAILED and vm.error else ""
        yield News(_result(vm), Weight.END, words or standing(vm).words, group=standing(vm).words)
    elif vm.phase != before.phase and vm.phase:
        yield News(phase_words(vm.phase), Weight.PHASE, doing(vm), group=phase_words(vm.phase))


def _result(vm: VmRecord) -> str:
    if vm.result is Result.FAILED and vm.error:
        return f"failed while {phase_words(vm.error.phase)} - {vm.error.reason}: {vm.error.message}"
    spent = duration((vm.completed - vm.started).total_seconds()) if vm.completed and vm.started else ""
    text = f"{(vm.result or '').lower()}{' in ' + spent if spent else ''}"
    return ", ".join(part for part in (text, rounds.down_for(vm)) if part)


_TELLERS: tuple[Teller, ...] = (
    _cancel,
    _base,
    _power_off,
    _cutover,
    _disks,
    _rounds,
    _other_intents,
    _handed_over,
    _guest_runs,
    _done,
    _attempt,
    _giving_back,
    _held,
    _end,
)
