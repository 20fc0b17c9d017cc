"""`python -m tests.integration.dying AT before|after SIGNAL ARGS...`: the reconciler's own program; at an effect it sends itself a signal.

What it is: the taps of taps.py in a real process, so that a test may choose the moment exactly. AT is the effect's number, or a pattern:
the first effect or look whose label matches it; that of a push to the status branch includes the commit's message. Not a test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from reconciler.cli import main
from tests.integration.taps import Wire, tapped


@dataclass
class Kill(Wire):
    """With a pattern, once: a process that was stopped goes on afterwards."""

    pattern: str = ""
    signal: signal.Signals = signal.SIGKILL

    def is_last(self, number: int, label: str) -> bool:
        if not self.pattern:
            return super().is_last(number, label)
        if re.search(self.pattern, label + self._message(label)) is None:
            return False
        self.pattern = "$^"
        return True

    def die(self, label: str) -> None:
        sys.stderr.write(f"killed at {label}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), self.signal)

    def _message(self, label: str) -> str:
        pushed = re.match(r"git push (\w+):.*/status$", label)
        if not pushed:
            return ""
        clone = next(Path(sys.argv[sys.argv.index("--cache-dir") + 1]).glob("git-*/clone.git"))
        return subprocess.run(["git", "-C", str(clone), "log", "-1", "--format=%B", pushed[1]], capture_output=True, text=True).stdout


if __name__ == "__main__":
    at, when, name, *sys.argv[1:] = sys.argv[1:]
    number, pattern = (int(at), "") if at.isdigit() else (None, at)
    with tapped(Kill(die_at=number, when=when, only_effects=not pattern, pattern=pattern, signal=signal.Signals[name])):
        main()
