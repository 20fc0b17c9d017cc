"""`python -m tests.integration.dying AT before|after ARGS...`: the reconciler's own program, which kills itself (SIGKILL) at an effect.

What it is: the taps of taps.py in a real process, so that a test may choose the moment exactly. Not a test.
"""

from __future__ import annotations

import os
import signal
import sys

from reconciler.cli import main
from tests.integration.taps import Wire, tapped


class Kill(Wire):
    def die(self, label: str) -> None:
        sys.stderr.write(f"killed at {label}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    at, when, *sys.argv[1:] = sys.argv[1:]
    with tapped(Kill(die_at=int(at), when=when)):
        main()
