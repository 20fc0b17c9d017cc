"""Whether an effect may still go out: asked by a transport right before each request that changes something.

What it is: what engine/leased.py hands down to the drivers' transports, past all that lies between. What it is not: a lease, or the
judgement of one. Where nobody set it (a copy pod, `sweep`, which runs without a reconciler), the answer is yes.
A driver reads before it writes, some write twice, and the machine may sleep in between: an older yes is none (safety 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_asked: ContextVar[Callable[[], None] | None] = ContextVar("permit", default=None)


@contextmanager
def needed(ask: Callable[[], None]) -> Iterator[None]:
    """For what this thread does meanwhile. `ask` raises where the answer is no."""
    token = _asked.set(ask)
    try:
        yield
    finally:
        _asked.reset(token)


def ask() -> None:
    """Errors: whatever the one who set it raises."""
    if (asked := _asked.get()) is not None:
        asked()
