"""What a VM's move came to, in figures: its downtime and whose it was, and its pre-copy rounds. Pure, VmRecord -> values.

What it is: the one place that every table, page, commit message and YAML takes these figures from. What it is not: words (report/rounds.py)
or the decision when a round begins (core/pacing.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from reconciler.core import pacing, warming
from reconciler.core.model import Milestone
from reconciler.core.record import RoundRecord, VmRecord


@dataclass(frozen=True, slots=True)
class Downtime:
    """No guest runs since `since`. `seconds`: until the target, or the source again, was seen on; None while it lasts.

    copy_s:  for how long bytes were moved in that time, by the copy pod's own clock. The guest's shutdown is over when the downtime begins.
    ours_s:  all the rest, when the target has taken over: seeing that the guest is off and proving it, commits, the start of the copy pod,
             marks, the proof before the hand-over, and the start of the target, though for the two starts the cluster is to blame as well.
    """

    since: datetime
    seconds: float | None = None
    copy_s: float = 0.0
    ours_s: float | None = None


def downtime(vm: VmRecord) -> Downtime | None:
    """None when no guest went off: it was off before, or it has not come to that; or when the target stays off, as asked."""
    outage = vm.outage
    if outage is None or (outage.back_at is None and vm.result is not None):
        return None
    if outage.back_at is None:
        return Downtime(outage.off_at)
    seconds, copy_s = max(0.0, (outage.back_at - outage.off_at).total_seconds()), _copy_s(vm)
    took_over = vm.milestone.order >= Milestone.HANDED_OVER.order
    return Downtime(outage.off_at, seconds, copy_s, max(0.0, seconds - copy_s) if took_over else None)


def _copy_s(vm: VmRecord) -> float:
    """Of a warm run its final round, of a cold one its disks, which one pod copies side by side."""
    finals = [r.seconds for r in vm.rounds if r.final]
    return sum(finals) if vm.rounds else max((d.seconds for d in vm.disks), default=0.0)


def copied_off_bytes(vm: VmRecord) -> int:
    """What was read of the source with its guest off."""
    return sum(r.read_bytes for r in vm.rounds if r.final) if vm.rounds else sum(d.read_bytes for d in vm.disks)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Pre-copy rounds of a warm VM. Units: bytes, seconds.

    whole:       how many counted, forgotten ones too; dropped: how many of those still known did not.
    last:        the newest that counted. under_way: the one that runs now.
    rests:       between two rounds, or between the only one and the cutover (`once`: no further round can be read while it runs).
    change_rate: bytes that the guest changes per second, from the last round; None before there are two.
    next_at:     when the next one is due; None while one runs, behind the cutover's begin, and where it is due at once or never.
    """

    vm: VmRecord
    whole: int
    dropped: int
    last: RoundRecord | None
    under_way: RoundRecord | None
    rests: bool
    once: bool
    change_rate: float | None
    next_at: datetime | None

    def expected_downtime_s(self, at: datetime) -> float | None:
        """If it were cut over at `at`, the guest's shutdown left out. None where it is not known, or is happening."""
        return pacing.expected_downtime_s(self.vm, at) if precopying(self.vm) else None


def precopying(vm: VmRecord) -> bool:
    """Rounds have begun, and the cutover has not."""
    return bool(vm.rounds) and vm.result is None and not vm.unwinding and vm.milestone is Milestone.NONE and not warming.latched(vm)


def rounds(vm: VmRecord) -> Rounds | None:
    """None before a warm VM's first round, and for every cold one."""
    if not vm.rounds:
        return None
    counted = [r for r in vm.rounds if pacing.counts(r)]
    newest = vm.rounds[-1]
    rests = precopying(vm) and warming.rests(vm)
    once = bool(vm.base_unreadable and counted)
    return Rounds(
        vm=vm,
        whole=vm.rounds_forgotten + len(counted),
        dropped=sum(bool(r.abandoned) for r in vm.rounds),
        last=counted[-1] if counted else None,
        under_way=newest if newest.ended is None and precopying(vm) else None,
        rests=rests,
        once=once,
        change_rate=pacing.change_rate(vm),
        next_at=vm.next_round_at if rests and not once else None,
    )
