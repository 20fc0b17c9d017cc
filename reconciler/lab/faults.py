"""Faults at the wire, as a script: one letter per request, read from the left; an empty script passes everything.

    .  pass                    R  refuse (503 / connection reset)     B  busy (the platform's own "try later")
    E  session expired         H  hang until the client gives up      L  the effect lands, the reply is lost
    T  truncated body          S  stale read (the answer before, to the same question)

What it is: one per site; the site's HTTP layer asks it for each request. What it is not: a switch in product code.
`K` and `k` (the caller dies before / after the effect) are played by the tests at the client's side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Faults:
    """Thread-safe. `only` narrows a script to requests whose label satisfies it (label: "METHOD path" or "Class.method")."""

    LETTERS = frozenset(".RBEHLTS")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._script: list[str] = []
        self._only: Callable[[str], bool] = lambda label: True
        self.seen: list[str] = []  # labels, in order, since the last script()

    def script(self, letters: str, only: Callable[[str], bool] | None = None) -> None:
        if unknown := set(letters) - self.LETTERS:
            raise ValueError(f"unknown fault letters: {sorted(unknown)}")
        with self._lock:
            self._script = list(letters)
            self._only = only or (lambda label: True)
            self.seen = []

    def next(self, label: str) -> str:
        """The letter for this request; "." when the script is spent or the label is not meant."""
        with self._lock:
            self.seen.append(label)
            if len(self.seen) > 100_000:
                del self.seen[:50_000]
            if self._script and self._only(label):
                return self._script.pop(0)
            return "."

    @property
    def spent(self) -> bool:
        with self._lock:
            return not self._script
