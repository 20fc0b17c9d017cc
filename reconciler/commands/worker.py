"""`reconciler worker SPEC.json`: the copy pod's entry. Reads the spec, hands it to worker.py, returns the exit code.

What it is not: argument parsing (cli.py). Imports no SDK, so that it starts at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reconciler.core.copyspec import EXIT_WRONG, CopyResult, CopySpec, result_line
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
