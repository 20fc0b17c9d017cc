"""The errors that cross a port, and what each one means for the loop.

What it is: three kinds, each with a stable CamelCase reason (it goes into conditions) and a message for a person.
What it is not: a place for vendor faults; a driver's session.py maps those to these, once.
"""

from __future__ import annotations


class ReconcilerError(Exception):
    """Base. `reason` is stable CamelCase; `message` names the object, the cause and the remedy."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class UserError(ReconcilerError):
    """A manifest or an argument is wrong. Critical condition; wait for a commit."""


class TerminalError(ReconcilerError):
    """The platform refuses for good. The VM fails and unwinds."""


class RetryableError(ReconcilerError):
    """Not now. `retry_after_s` is a hint in seconds, or None for normal backoff."""

    def __init__(self, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after_s = retry_after_s


class Superseded(ReconcilerError):
    """The status branch moved under `runs/` or `claims/`: drop the decision, start the pass anew."""


class LeaseLost(ReconcilerError):
    """Another reconciler holds the lease, or ours is too old to act on."""
