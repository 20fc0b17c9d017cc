"""How often a read is tried again on the spot, and how long is waited in between. What it is not: the Job's next attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.errors import RetryableError

if TYPE_CHECKING:
    from reconciler.ports import Clock

ATTEMPTS = 6
_FIRST_S, _LIMIT_S = 0.5, 10.0


def backoff_s(attempt: int, err: RetryableError, clock: Clock) -> float:
    """Before the attempt that follows number `attempt`, from 1 on."""
    pause = min(_LIMIT_S, _FIRST_S * (1 << (attempt - 1))) * (0.5 + clock.jitter())
    return max(pause, min(err.retry_after_s or 0.0, 3 * _LIMIT_S))
