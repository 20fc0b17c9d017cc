"""Live progress: a table in place on a terminal, at most a line a second and VM elsewhere."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from reconciler.report.live import LiveRow, LiveView, plain_line, progress_table

from .sample import GIB, HOSTILE


class Hands:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    def new_id(self) -> str:
        return "id"

    def jitter(self) -> float:
        return 0.0


def row(percent: int, phase: str = "copying", vm: str = "web-01") -> LiveRow:
    return LiveRow(vm, phase, -(-40 * GIB * percent // 100), 40 * GIB, 210 * 1024**2)


def test_plain_lines_one_per_change_and_second() -> None:
    out, clock = io.StringIO(), Hands()
    with LiveView(Console(file=out, width=60), clock) as view:
        view.show([row(10)])
        view.show([row(10)])  # no change
        clock.sleep(0.4)
        view.show([row(11)])  # too soon
        clock.sleep(0.7)
        view.show([row(12)])
        view.show([row(13), row(1, vm="db-01")])
        view.show([row(100, "succeeded")])  # held back, said at the end
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == [
        "web-01: copying 10 %",
        "web-01: copying 12 %",
        "db-01: copying 1 %",
        "web-01: succeeded",
    ]


def test_a_line_that_went_back_to_what_was_said_is_not_said_again() -> None:
    out, clock = io.StringIO(), Hands()
    with LiveView(Console(file=out), clock) as view:
        for percent in (10, 11, 10):
            view.show([row(percent)])
    assert len(out.getvalue().splitlines()) == 1


def test_plain_line_in_words() -> None:
    assert plain_line(row(45)) == "web-01: copying 45 %, 18 of 40 GiB, 210 MiB/s, 1 min 47 s left"
    assert (
        plain_line(LiveRow("db-01", "shutting down the source", note="40 s of 600 s")) == "db-01: shutting down the source, 40 s of 600 s"
    )
    assert plain_line(LiveRow("db-01", "copying", 0, GIB, note="0 of 1 GiB")) == "db-01: copying, 0 of 1 GiB"
    assert plain_line(LiveRow("db-01", "copying", GIB // 2, GIB, note="512 MiB of 1 GiB")) == "db-01: copying 50 %, 512 MiB of 1 GiB"
    assert "\x1b" not in plain_line(LiveRow(HOSTILE, HOSTILE, note=HOSTILE))


def test_a_terminal_gets_a_table_in_place() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=140, height=20, _environ={"TERM": "xterm"})
    with LiveView(console, Hands()) as view:
        view.show([row(45), LiveRow("db-01", "waiting for its turn")])
        view.show([row(46), LiveRow("db-01", "waiting for its turn")])
    assert "46 %" in out.getvalue() and "\x1b[1A" in out.getvalue()


def test_more_vms_than_lines_shows_those_that_move() -> None:
    rows = [LiveRow(f"wait-{i}", "waiting", 0, GIB) for i in range(100)] + [row(45)]
    out = io.StringIO()
    Console(file=out, width=140).print(progress_table(rows, 10, 140))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 10
    assert any("web-01" in line and "45 %" in line for line in lines)
    assert lines[-1].startswith("93 more VMs   18 of 140 GiB in all, 210 MiB/s")


def test_a_dumb_terminal_gets_lines() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, force_terminal=True, width=140, _environ={"TERM": "dumb"}), Hands()) as view:
        view.show([row(45)])
    assert out.getvalue().strip() == plain_line(row(45))


def test_a_narrow_terminal_cuts_the_notes_only() -> None:
    rows = [row(45), LiveRow("db-01", "shutting down the source", 0, 100 * GIB, 0, "the guest is asked to shut down and given 600 s")]
    for width in (80, 100, 130):
        out = io.StringIO()
        Console(file=out, width=width).print(progress_table(rows, 20, width))
        first, second, _ = out.getvalue().splitlines()
        assert "web-01" in first and "45 %" in first and "18 of 40 GiB" in first and "210 MiB/s, 1 min 47 s" in first
        assert "shutting down the source" in second and "100 GiB" in second and "the guest is asked" in second
        assert ("━" in first) == (width >= 100)
