"""Rounds and downtime in words: what the last round carried, when the next is due, what a cutover would cost and what it did cost.

What it is: pure, the figures of core/figures.py as short texts for tables, pages, commit messages and live lines. What it is not: layout
or escaping; nor the figures. Nothing here changes by the mere passing of time, unless a moment is handed in.
"""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.core import figures
from reconciler.core.figures import Rounds
from reconciler.core.record import RoundRecord, VmRecord
from reconciler.report.numbers import duration, moment, plural, size


def round_words(r: RoundRecord) -> str:
    """`12 MiB in 3 s`: what was read, and for how long bytes moved."""
    if not r.read_bytes:
        return "nothing had changed"
    return f"{size(r.read_bytes)} in {duration(r.seconds)}" if r.seconds else size(r.read_bytes)


def title(vm: VmRecord, r: RoundRecord) -> str:
    """`round 3`, `final delta`; `final copy` where no round before it counted."""
    known = figures.rounds(vm)
    return f"round {r.number}" if not r.final else "final delta" if known is not None and known.whole else "final copy"


def state(vm: VmRecord) -> str:
    """What a warm VM is doing between its reservation and its cutover; "" for any other."""
    known = figures.rounds(vm)
    if known is None or not figures.precopying(vm):
        return ""
    if known.rests:
        return "waiting for the cutover" if known.once else f"waiting for round {vm.rounds[-1].number + 1}"
    return f"round {vm.rounds[-1].number}: copying changes" if known.whole else ""


def precopied_words(vm: VmRecord) -> str:
    """`3 rounds, 123 MiB`: what was read while the guest ran."""
    known = figures.rounds(vm)
    if known is None or not known.whole:
        return ""
    read = sum(r.read_bytes for r in vm.rounds if not r.final)
    return f"{plural(known.whole, 'round')}, {size(read)}"


def next_words(known: Rounds) -> str:
    """`at 14:00`, seen from the end of the round before; "" while none is waited for."""
    if not known.rests:
        return ""
    if known.once:
        return "at the cutover"
    last = known.vm.rounds[-1].ended
    return f"at {moment(known.next_at, last)}" if known.next_at is not None and last is not None else "at once"


def upcoming_words(known: Rounds) -> str:
    """A cell under "Next round": `round 3 runs`, `14:00`, `at once`, `at the cutover`."""
    if known.under_way is not None:
        return f"round {known.under_way.number} runs"
    return next_words(known).removeprefix("at ") if known.next_at is not None else next_words(known)


def rate_words(known: Rounds) -> str:
    return f"{size(int(known.change_rate))}/s" if known.change_rate is not None else ""


def expected_words(known: Rounds, at: datetime | None = None) -> str:
    """`about 12 s`, at that moment, else right before the next round, when it is the most."""
    when = at or known.next_at or (known.last.ended if known.last else None)
    seconds = known.expected_downtime_s(when) if when is not None else None
    return f"about {duration(max(1, round(seconds)))}" if seconds is not None else ""


def message(vm: VmRecord) -> str:
    """The record's, without the round's number where `state` has told it."""
    return vm.message.removeprefix(f"round {vm.rounds[-1].number}: ") if state(vm) else vm.message


def waiting_note(vm: VmRecord) -> str:
    """Of a VM between rounds: its last round, what it waits for, and what a cutover would cost until then."""
    known = figures.rounds(vm)
    if known is None or not known.rests or known.last is None:
        return message(vm)
    cost = expected_words(known)
    parts = [
        f"{title(vm, known.last)} was {round_words(known.last)}",
        vm.message,
        f"down for {cost} if cut over until then" if cost else "",
    ]
    return "; ".join(p for p in parts if p)


# ---- downtime -------------------------------------------------------------------------------------------------------------------------


def downtime_words(vm: VmRecord) -> str:
    """`9 min 30 s`, or `since 14:01` (UTC) while it lasts: a duration would change by itself."""
    down = figures.downtime(vm)
    if down is None:
        return ""
    return duration(down.seconds) if down.seconds is not None else f"since {down.since.astimezone(UTC):%H:%M}"


def ours_words(vm: VmRecord) -> str:
    """The part of the downtime in which no byte was moved."""
    down = figures.downtime(vm)
    return duration(down.ours_s) if down is not None and down.ours_s is not None else ""


def ours_tail(vm: VmRecord) -> str:
    """`, 2.2 s of it ours`, behind the downtime."""
    ours = ours_words(vm)
    return f", {ours} of it ours" if ours else ""


def down_for(vm: VmRecord) -> str:
    """`down for 3.4 s, 2.2 s of it ours`; "" before it is over."""
    down = figures.downtime(vm)
    return f"down for {downtime_words(vm)}{ours_tail(vm)}" if down is not None and down.seconds is not None else ""
