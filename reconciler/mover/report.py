"""What the copy pod prints: progress lines, the result line last, and the same result as termination message.

What it is: when to print, rates, and striking secrets out. What it is not: the JSON forms (core/copyspec.py).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.core.copyspec import TERMINATION_LIMIT_BYTES, CopyResult, progress_line, result_line
from reconciler.mover.copy import DiskCopy

if TYPE_CHECKING:
    from reconciler.ports import Clock

log = logging.getLogger(__name__)

_LINE_S = 1.0
_ERROR_BYTES, _TEXT_CHARS = 800, 60


class Reporter:
    """`secrets` gives the texts that must not appear, whatever an endpoint put into its answer."""

    def __init__(self, termination_file: Path, secrets: Callable[[], Sequence[str]], clock: Clock) -> None:
        self._file = termination_file
        self._secrets = secrets
        self._clock = clock
        self._at: float | None = None
        self._done: list[int] = []
        self._marks: list[int] = []

    def tick(self, copies: Sequence[DiskCopy], *, force: bool = False) -> None:
        """Print if a second has passed, a watermark moved, or 1 % of all was done since the last line."""
        now = self._clock.monotonic()
        done, marks = [c.moved for c in copies], [c.ledger.watermark for c in copies]
        if self._at is None:
            self._at, self._done = now, [c.begun_at for c in copies]
        passed = now - self._at
        step = sum(done) - sum(self._done) >= sum(c.ledger.total for c in copies) // 100
        if not (force or passed >= _LINE_S or marks != self._marks or (step and passed > 0)):
            return
        rates = [(new - old) / passed if passed > 0 else 0.0 for new, old in zip(done, self._done, strict=True)]
        self._print(progress_line(tuple(c.progress(rate) for c, rate in zip(copies, rates, strict=True))))
        self._at, self._done, self._marks = now, done, marks

    def finish(self, result: CopyResult) -> None:
        if result.error is not None:
            result = replace(result, error=self._strike(result.error))
        try:
            self._file.write_text(shorten(result))
        except OSError as err:
            log.warning("termination message cannot be written", extra={"path": str(self._file), "errno": err.errno})
        self._print(result_line(result))

    def _strike(self, text: str) -> str:
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return text

    def _print(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def shorten(result: CopyResult, limit: int = TERMINATION_LIMIT_BYTES) -> str:
    """The result line within `limit` bytes, still readable by `parse_line`: long texts are cut, then disks left out from the end.

    Whoever reads fewer disks than he asked for takes the pod's log, whose last line is whole.
    """
    line = result_line(result)
    if len(line.encode()) <= limit:
        return line
    disks = [replace(disk, readback=disk.readback[:_TEXT_CHARS]) for disk in result.disks]
    error = result.error
    while error is not None and len(json.dumps(error)) > _ERROR_BYTES:
        error = error[: len(error) * 3 // 4]
    while len((line := result_line(CopyResult(tuple(disks), error, result.reason))).encode()) > limit and disks:
        disks.pop()
    return line
