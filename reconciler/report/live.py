"""Progress while it happens: a table that stays in place on a terminal, plain lines anywhere else.

What it is: rows in, screen out. What it is not: a source of rows; the caller reads the records and the copy jobs. No thread of its own:
the screen changes when `show` is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reconciler.ports import Clock
from reconciler.report.escape import clean
from reconciler.report.numbers import duration, size, size_of

_LINE_EVERY_S = 1.0
_BAR_WIDTH = 24
_BAR_LEAST = 8
_TAIL_WIDTH = 32  # the bar leaves this much to what stands behind it


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One VM now. `phase` in words; units: bytes, bytes per second."""

    vm: str
    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    rate: float = 0.0
    note: str = ""

    @property
    def percent(self) -> int:
        return min(self.done_bytes * 100 // self.total_bytes, 100) if self.total_bytes else 0

    @property
    def begun(self) -> bool:
        return self.total_bytes > 0 and self.done_bytes > 0

    @property
    def moving(self) -> bool:
        return self.rate > 0 and 0 < self.done_bytes < self.total_bytes

    @property
    def eta_s(self) -> float | None:
        return (self.total_bytes - self.done_bytes) / self.rate if self.moving else None


class LiveView:
    """`with LiveView(console, clock) as view: view.show(rows)`."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_interactive else None
        self._said: dict[str, tuple[LiveRow, float]] = {}
        self._waiting: dict[str, LiveRow] = {}

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        for row in self._waiting.values():
            self._say(row)
        self._waiting.clear()

    def show(self, rows: Sequence[LiveRow]) -> None:
        if self._live:
            self._live.update(progress_table(rows, self._console.height - 2, self._console.width), refresh=True)
            return
        for row in rows:
            self._line(row)

    def _line(self, row: LiveRow) -> None:
        """One line per change, at most one per second and VM; what was held back is said with the next one or at the end."""
        said = self._said.get(row.vm)
        if said and _same(said[0], row):
            self._waiting.pop(row.vm, None)
        elif said and self._clock.monotonic() - said[1] < _LINE_EVERY_S:
            self._waiting[row.vm] = row
        else:
            self._say(row)
            self._waiting.pop(row.vm, None)

    def _say(self, row: LiveRow) -> None:
        self._said[row.vm] = (row, self._clock.monotonic())
        self._console.print(Text(plain_line(row)), soft_wrap=True)


def _same(a: LiveRow, b: LiveRow) -> bool:
    return (a.phase, a.note, a.percent) == (b.phase, b.note, b.percent)


def plain_line(row: LiveRow) -> str:
    """`web-01: copying 45 %, 18 of 40 GiB, 210 MiB/s, 1 min 47 s left`. Bytes only while there are some to come."""
    parts = [clean(row.phase)]
    amount = size_of(row.done_bytes, row.total_bytes)
    if 0 < row.done_bytes < row.total_bytes:
        parts = [f"{clean(row.phase)} {row.percent} %", amount]
    if row.moving:
        parts += [_rate(row), f"{duration(row.eta_s or 0)} left"]
    if row.note and row.note != amount:
        parts.append(clean(row.note, 200))
    return f"{clean(row.vm, 60)}: {', '.join(parts)}"


def progress_table(rows: Sequence[LiveRow], height: int, width: int) -> Group:
    """At most `height` lines: those that move first, then the others in the given order; the rest is counted."""
    order = sorted(range(len(rows)), key=lambda i: (not rows[i].moving, i))
    room = max(height - 2, 1) if len(rows) > height - 1 else len(rows)
    shown = [rows[i] for i in sorted(order[:room])]
    total = sum(r.total_bytes for r in rows)
    done = sum(r.done_bytes for r in rows)
    rate = sum(r.rate for r in rows if r.moving)
    hidden = f"{len(rows) - len(shown)} more VMs   " if len(shown) < len(rows) else ""
    speed = f", {size(int(rate))}/s" if rate else ""
    return Group(_table(shown, width), Text(f"{hidden}{size_of(done, total)} in all{speed}" if total else hidden, style="dim"))


def _table(rows: Sequence[LiveRow], width: int) -> Table:
    """Only the last column is cut where the terminal is narrow; the bar comes where there is room."""
    cells = [_cells(row) for row in rows]
    needed = [max((row[i].cell_len for row in cells), default=0) for i in range(4)]
    free = width - sum(needed) - 2 * len(needed)
    bar = min(free - _TAIL_WIDTH, _BAR_WIDTH)
    table = Table.grid(padding=(0, 2))
    for i, fixed in enumerate(needed):
        if i == 2 and bar >= _BAR_LEAST:
            table.add_column(width=bar)
        table.add_column(no_wrap=True, width=fixed, justify="right" if i >= 2 else "left")
    table.add_column(no_wrap=True, overflow="ellipsis", width=max(free - (bar + 2 if bar >= _BAR_LEAST else 0), 1))
    for row, texts in zip(rows, cells, strict=True):
        drawn: list[RenderableType] = list(texts)
        if bar >= _BAR_LEAST:
            drawn.insert(2, ProgressBar(total=row.total_bytes, completed=row.done_bytes, width=bar) if row.begun else "")
        table.add_row(*drawn)
    return table


def _cells(row: LiveRow) -> tuple[Text, ...]:
    """Name, phase, percent, amount; then speed and time left while bytes move, and the note."""
    amount = size_of(row.done_bytes, row.total_bytes)
    tail = [f"{_rate(row)}, {duration(row.eta_s or 0)} left"] if row.moving else []
    if row.note and row.note != amount:
        tail.append(clean(row.note, 200))
    return (
        Text(clean(row.vm, 24), style="bold"),
        Text(clean(row.phase, 30), style="cyan" if row.moving else ""),
        Text(f"{row.percent} %" if row.begun else ""),
        Text(amount if row.begun else size(row.total_bytes) if row.total_bytes else ""),
        Text(", ".join(tail), style="" if row.moving else "dim"),
    )


def _rate(row: LiveRow) -> str:
    return f"{size(int(row.rate))}/s"
