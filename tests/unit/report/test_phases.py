"""README.md against what it describes: the state machine's table, and the two commands that CI runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from reconciler.core.itinerary import TABLES, UNWIND, Phase
from reconciler.report.phases import render

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def test_the_readme_shows_the_tables_as_they_are() -> None:
    assert render() in README


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.PENDING])
def test_each_phase_is_explained_and_drawn(phase: Phase) -> None:
    """In a row of the table of details, and as a state of the diagram."""
    rows = [
        line.split("|")[2] for line in README.splitlines() if line.startswith(("| – |", "| CUTOVER |", "| HANDED_OVER |", "| UNWIND |"))
    ]
    diagram = README.split("```mermaid")[1].split("```")[0]
    assert f"`{phase}`" in "".join(rows)
    assert re.search(rf"(^|--> ?)\s*{phase}\b", diagram, re.MULTILINE)


def test_every_step_is_in_the_table() -> None:
    for step in (*(s for steps in TABLES.values() for s in steps), *UNWIND):
        assert f"`{step.phase.value}`" in render()


@pytest.mark.parametrize(("marker", "must"), [("lab", "reconciler lab"), ("tests", "pytest")])
def test_ci_finds_the_readmes_commands(marker: str, must: str) -> None:
    """The same awk as in .ci/run."""
    program = next(line for line in (ROOT / ".ci/run").read_text().splitlines() if "awk" in line)
    assert "<!-- $1 -->" in program
    script = f"{program}\nreadme_command {marker}"
    shown = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert must in shown and "```" not in shown
