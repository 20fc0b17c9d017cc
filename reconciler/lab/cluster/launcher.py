"""How a container's process is started. Product-like: a subprocess of its own; tests may bring a thread instead."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Process(Protocol):
    """`poll`: exit code, or minus the signal's number, or None while it runs. `terminate` asks (SIGTERM), `kill` does not."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Launcher(Protocol):
    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log_path: Path) -> Process:
        """Start at once; stdout and stderr go to the end of `log_path`. Errors: OSError when it cannot be started."""
        ...


class _Child:
    """A process group, so that what the container started goes with it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def poll(self) -> int | None:
        return self._child.poll()

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Returns when the process is gone, so that nothing writes behind the caller's back."""
        self._signal(signal.SIGKILL)
        self._child.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)


class SubprocessLauncher:
    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log_path: Path) -> Process:
        with log_path.open("ab") as log:
            child = subprocess.Popen(
                argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        return _Child(child)
