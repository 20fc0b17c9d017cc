"""When a copy that failed is attempted again: later and later, up to a cap, as long as nothing more is proven than before.

What it is: pure, from the record and the clock alone, so that a restart changes nothing and a person reads in the record what comes.
What it is not: the pauses of single acts (engine/memory.py), nor the deadline of a copy that does not get on (core/copying.py).
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256

from reconciler.core.record import Category, Condition, Retry
from reconciler.core.target import Job
from reconciler.core.view import View

FIRST_S, LONGEST_S = 1.0, 60.0
_SPREAD = 0.25  # the VMs of one dead site must not all come back at once


def pause_s(count: int, slug: str) -> float:
    """Before the attempt that follows `count` failures in a row. The same for the same VM and count."""
    share = int.from_bytes(sha256(f"{slug}/{count}".encode()).digest()[:4]) / 2**32
    return float(min(LONGEST_S, FIRST_S * 2.0 ** min(count - 1, 30))) * (1.0 - _SPREAD + 2.0 * _SPREAD * share)


def after(v: View, job: Job, reason: str, why: str) -> Retry:
    """What is written down when `job` has failed; once, however many passes it takes until the Job is gone."""
    known = v.record.retry
    if known is not None and known.attempt == job.attempt + 1:
        return known
    standing = of(v)
    count = standing.count + 1 if standing is not None else 1
    due = v.now + timedelta(seconds=pause_s(count, v.record.slug))
    text = f"attempt {job.attempt} of the copy failed ({why}); attempt {job.attempt + 1} is due at {due:%Y-%m-%d %H:%M:%S} UTC"
    return Retry(job.attempt + 1, due, count, v.proven_bytes, reason, text)


def of(v: View) -> Retry | None:
    """The one that stands: it is about the attempt that comes next or is under way, and no more is proven than when it was written."""
    r = v.record.retry
    if r is None or r.attempt != v.record.attempt or v.record.unwinding or v.proven_bytes > r.proven_bytes:
        return None
    return r


def pending(v: View) -> Retry | None:
    """The one whose time has not come. One that lies further ahead than any pause was written before the clock was set back."""
    r = of(v)
    return r if r is not None and timedelta(0) < r.due - v.now <= timedelta(seconds=LONGEST_S * (1.0 + _SPREAD)) else None


def condition(r: Retry) -> Condition:
    return Condition("Retrying", True, Category.WARN, r.reason, r.message)
