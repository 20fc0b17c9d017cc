"""One VM in full for the terminal: its disks, the path of each and why, and its life so far.

What it is: a record in, a rich renderable out. What it is not: the row of a VM among others (report/tables.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.core import figures
from reconciler.core.record import DiskRecord, FrozenDisk, RoundRecord, VmRecord
from reconciler.report.escape import clean
from reconciler.report.numbers import duration, size
from reconciler.report.rounds import title
from reconciler.report.tables import cell, plain_table
from reconciler.report.words import intent_done_words, intent_words, phase_words


def vm_detail(vm: VmRecord) -> Group:
    records = {d.uuid: d for d in vm.disks}
    disks = vm.frozen.disks if vm.frozen else ()
    return Group(*(part for disk in disks for part in _disk(disk, records.get(disk.uuid))), *_downtime(vm), *_rounds(vm), _life(vm))


# ---- disks ----------------------------------------------------------------------------------------------------------------------------


def _disk(disk: FrozenDisk, record: DiskRecord | None) -> Iterator[RenderableType]:
    yield Text.assemble(" ", (clean(disk.label, 200), "bold"), f", {size(disk.capacity_bytes)}")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("PVC", cell(f"{disk.pvc} ({disk.storage_class or 'default class'}, {disk.volume_mode}, {disk.access_mode})"))
    table.add_row("path", cell(f"{disk.path}: {disk.path_reason}" if disk.path_reason else disk.path))
    table.add_row("copied", cell(_copy_words(record), "green" if record and record.marked else ""))
    if record and (record.sha256 or record.crc32c):
        table.add_row("sha256" if record.sha256 else "crc32c", cell(record.sha256 or record.crc32c))
    yield Padding(table, (0, 0, 1, 3))


def _copy_words(record: DiskRecord | None) -> str:
    """`yes, 96 MiB read, 40 MiB written in 3.2 s, read back: ok`."""
    if record is None or not record.marked:
        return f"{size(record.watermark_bytes)} proven" if record and record.watermark_bytes else "not yet"
    if not record.seconds:
        return "yes"
    back = f", read back: {record.readback}" if record.readback else ""
    return f"yes, {size(record.read_bytes)} read, {size(record.written_bytes)} written in {duration(record.seconds)}{back}"


# ---- downtime, rounds -----------------------------------------------------------------------------------------------------------------


def _downtime(vm: VmRecord) -> Iterator[RenderableType]:
    down = figures.downtime(vm)
    if down is not None and down.seconds is not None:
        moved = (
            f"bytes moved for {duration(down.copy_s)} of it, {duration(down.ours_s)} were ours" if down.ours_s is not None else "given back"
        )
        yield Text(f" No guest ran for {duration(down.seconds)}: {moved}", style="bold")


def _rounds(vm: VmRecord) -> Iterator[Table]:
    """The newest; older ones are in the history of the VM's file."""
    if not vm.rounds:
        return
    table = plain_table("Round", "Began (UTC)", "Read", "Written", "Moved for", "What came of it", right=("Read", "Written", "Moved for"))
    for r in vm.rounds:
        table.add_row(
            cell(title(vm, r), "bold"),
            cell(f"{r.started.astimezone(UTC):%d %b %H:%M:%S}"),
            cell(size(r.read_bytes) if r.ended else ""),
            cell(size(r.written_bytes) if r.ended else ""),
            cell(duration(r.seconds) if r.ended else ""),
            cell(_outcome(r), "yellow" if r.abandoned or r.doubts else ""),
        )
    yield table


def _outcome(r: RoundRecord) -> str:
    if r.abandoned:
        return f"dropped: {r.abandoned}"
    compared = "; ".join(sorted(set(r.doubts.values())))
    return f"compared in full: {compared}" if compared else "counts" if r.ended else "runs"


# ---- life -----------------------------------------------------------------------------------------------------------------------------


def _life(vm: VmRecord) -> Table:
    """Phases and declared acts in the order in which they happened. Times in UTC."""
    table = plain_table("When (UTC)", "What", "Took")
    for at, what, took in sorted(_events(vm), key=lambda event: event[0]):
        table.add_row(cell(f"{at.astimezone(UTC):%d %b %H:%M:%S}"), cell(what, "", 300), cell(took))
    return table


def _events(vm: VmRecord) -> Iterator[tuple[datetime, str, str]]:
    for phase in vm.phases:
        yield phase.started, phase_words(phase.phase), duration((phase.ended - phase.started).total_seconds()) if phase.ended else ""
    for intent in vm.intents:
        yield intent.declared_at, f"declared: {intent_words(intent)}{', void: ' + intent.void if intent.void else ''}", ""
        if intent.done_at:
            yield intent.done_at, intent_done_words(intent), ""
    if vm.cancel_at:
        yield vm.cancel_at, "cancel requested", ""
    if vm.completed and vm.result:
        yield vm.completed, vm.result.lower(), ""
