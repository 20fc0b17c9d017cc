"""The state machine as text: the table and the diagram in README.md are made of core/itinerary.py and compared by a test."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core.itinerary import TABLES, UNWIND, Step
from reconciler.core.model import Milestone, Mode
from reconciler.report.words import phase_words

_TITLES = {
    Milestone.NONE: "before the source is off",
    Milestone.CUTOVER: "cutover: the source is off, proven",
    Milestone.HANDED_OVER: "handed over: the source stays off for good",
}


def render() -> str:
    """A Markdown table, one row per step, in the order in which they must become true."""
    rows = [f"| {mode.value}, {_TITLES[m]} | {_steps(TABLES[(mode, m)])} |" for mode in Mode for m in _TITLES]
    rows.append(f"| failure or cancel before hand-over | {_steps(UNWIND)} |")
    return "\n".join(["| State | Steps; the first that is not true is done next |", "| --- | --- |", *rows]) + "\n"


def _steps(steps: Sequence[Step]) -> str:
    return " → ".join(f"`{s.phase.value}` ({phase_words(s.phase.value)})" for s in steps)
