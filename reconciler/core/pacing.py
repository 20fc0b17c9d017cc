"""When a warm VM's next round is due, and what a cutover would cost by then.

What it is: pure, over a VM's record and the intervals of plan and controller. What it is not: a round (core/warming.py), or whose turn it
is (core/admission.py).

The usual interval counts from the end of a round. A downtime budget brings the next one forward, so that it ends before a cutover would
take longer; but never nearer than the last round was long, and a minute at least: each round is a snapshot of a guest in production. A
round that came to nothing is made again at once, and, when that happens again, later and later, up to the interval.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise, takewhile

from reconciler.core import secondread
from reconciler.core.record import RoundRecord, VmRecord

START_S = 10.0  # what a cutover takes besides the guest's shutdown and the bytes: pod start, proofs, the target's start
PAUSE_S = 60.0  # between two rounds, whatever the budget


def counts(r: RoundRecord) -> bool:
    """A pre-copy that ended with its marks."""
    return r.ended is not None and not r.abandoned and not r.final


def next_round(record: VmRecord, usual_s: float, now: datetime) -> tuple[datetime, str]:
    """When the next round is due, and why then; the first at once. `usual_s`: the controller's interval."""
    ended = [r for r in record.rounds if r.ended is not None]
    if not ended or record.frozen is None:
        return now, "at once"
    last, interval_s = ended[-1], _interval_s(record, usual_s)
    if last.abandoned:
        return _again(ended, interval_s, now)
    due, early = _end(last) + timedelta(seconds=interval_s), _early(record, last)
    if early is None or early >= due:
        return due, f"every {interval_s:.0f} s"
    if change_rate(record) is None:
        return early, "early, to learn for its downtime budget how fast the guest changes its disks"
    if budget_missed(record, usual_s):
        return early, f"as soon as may be: the downtime budget of {record.frozen.downtime_budget_s:.0f} s cannot be met"
    return early, f"early, for the downtime budget of {record.frozen.downtime_budget_s:.0f} s"


def wants_round(record: VmRecord, usual_s: float, now: datetime) -> bool:
    once = record.base_unreadable and any(counts(r) for r in record.rounds)
    return not once and next_round(record, usual_s, now)[0] <= now


def budget_missed(record: VmRecord, usual_s: float) -> str:
    """Why a cutover may take longer than the budget however soon the next round comes; "" when it need not, or nobody can tell yet."""
    budget_s = record.frozen.downtime_budget_s if record.frozen else None
    if budget_s is None:
        return ""
    text = f"the downtime budget of {budget_s:.0f} s cannot be met"
    if budget_s < START_S:
        return f"{text}: a cutover takes {START_S:.0f} s without any byte"
    last = next((r for r in reversed(record.rounds) if counts(r)), None)
    pause_s = min(_pause_s(record, last), _interval_s(record, usual_s)) if last is not None else 0.0
    most = expected_downtime_s(record, _end(last) + timedelta(seconds=pause_s + _length_s(last))) if last is not None else None
    if most is None or most <= budget_s:
        return ""
    return f"{text} with rounds {pause_s:.0f} s apart: a cutover may take {most:.0f} s, {START_S:.0f} s of them without any byte"


def change_rate(record: VmRecord) -> float | None:
    """Bytes that the guest changes per second, from the last whole delta round that was no comparison; None before there is one."""
    deltas = [(a, b) for a, b in pairwise(filter(counts, record.rounds)) if not b.doubts]
    if not deltas:
        return None
    before, last = deltas[-1]
    seconds = (last.started - before.started).total_seconds()
    return last.read_bytes / seconds if seconds > 0 else None


def copy_rate(record: VmRecord) -> float:
    """Bytes per second that the copies of this VM came to; a slow guess before there is one."""
    timed = [(r.read_bytes, r.seconds) for r in record.rounds if r.seconds > 0 and r.read_bytes > 0]
    return max((b / s for b, s in timed), default=float(50 << 20))


def expected_downtime_s(record: VmRecord, at: datetime) -> float | None:
    """If it were cut over at `at`, without the guest's own shutdown."""
    rate = change_rate(record)
    last = next((r for r in reversed(record.rounds) if r.ended is not None and not r.abandoned), None)
    if rate is None or last is None:
        return None
    changed = rate * max(0.0, (at - last.started).total_seconds())
    return START_S + secondread.downtime_bytes(record, changed) / copy_rate(record)


def _interval_s(record: VmRecord, usual_s: float) -> float:
    return (record.frozen.precopy_interval_s if record.frozen else None) or usual_s


def _end(r: RoundRecord) -> datetime:
    return r.ended or r.started


def _length_s(r: RoundRecord) -> float:
    return max(0.0, (_end(r) - r.started).total_seconds())


def _pause_s(record: VmRecord, last: RoundRecord) -> float:
    """The least between `last` and the next round. The first copy says nothing about how long a delta takes."""
    return max(PAUSE_S, _length_s(last)) if change_rate(record) is not None else PAUSE_S


def _again(ended: list[RoundRecord], interval_s: float, now: datetime) -> tuple[datetime, str]:
    lost = list(takewhile(lambda r: r.abandoned, reversed(ended)))
    if len(lost) == 1:
        return now, "at once"
    pause_s = min(PAUSE_S * 2.0 ** min(len(lost) - 2, 20), interval_s)
    return _end(lost[0]) + timedelta(seconds=pause_s), f"{len(lost)} rounds in a row came to nothing, the last because {lost[0].abandoned}"


def _early(record: VmRecord, last: RoundRecord) -> datetime | None:
    """When the budget asks for the next round; None when it never does."""
    budget = record.frozen.downtime_budget_s if record.frozen else None
    if budget is None:
        return None
    soonest, rate = _end(last) + timedelta(seconds=_pause_s(record, last)), change_rate(record)
    if rate is None:
        return soonest
    fixed = secondread.downtime_bytes(record, 0.0)
    each = secondread.downtime_bytes(record, 1.0) - fixed
    if rate * each <= 0:
        return None
    fits_s = max(0.0, (budget - START_S) * copy_rate(record) - fixed) / (rate * each)
    wanted_s = min(fits_s - _length_s(last), 10 * 366 * 86400.0)
    return max(soonest, last.started + timedelta(seconds=wanted_s))
