"""`reconciler worker SPEC.json`: the copy pod's entry. Reads the spec, hands it to worker.py, returns the exit code.

`reconciler worker --try VOLUME...` is the binder pod's: the same program opens the volumes, loads VDDK if it is to be used, and copies
nothing.

What it is not: argument parsing (cli.py). Imports no SDK, so that it starts at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from reconciler.core.copyspec import EXIT_DONE, EXIT_WRONG, VDDK_INVALID, CopyResult, CopySpec, result_line
from reconciler.wire.nbdkit import why_not_loaded
from reconciler.worker import run as run_copy


def run(spec_path: Path) -> int:
    try:
        spec = CopySpec.from_json(spec_path.read_text())
        if not spec.disks:
            raise ValueError("copy spec names no disk")
    except (OSError, ValueError) as err:
        sys.stdout.write(result_line(CopyResult((), f"{spec_path}: {err}", "SpecInvalid")) + "\n")
        return EXIT_WRONG
    return run_copy(spec)


def try_volumes(volumes: Sequence[str], vddk: Path | None) -> int:
    """MODE:CLAIM:PATH each; `vddk`: VDDK's folder. The result line is all it prints; the termination message is taken from the log."""
    from reconciler.mover import trial  # with a third of all imports, of which a copy needs none

    try:
        parsed = [trial.Volume.parse(text) for text in volumes]
    except ValueError as err:
        result, code = CopyResult((), f"volumes to try are MODE:CLAIM:PATH: {err}", "SpecInvalid"), EXIT_WRONG
    else:
        result, code = trial.run(parsed)
    if code == EXIT_DONE and vddk is not None and (why := why_not_loaded(vddk)) is not None:
        result, code = CopyResult((), why, VDDK_INVALID), EXIT_WRONG
    sys.stdout.write(result_line(result) + "\n")
    return code
