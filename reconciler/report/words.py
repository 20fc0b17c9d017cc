"""Records in plain words: what a VM is doing and how far it is. Shared by every report.

What it is: pure functions from core/record values to short texts and numbers. What it is not: layout or escaping. Phases are texts; one
that is not known here is said by splitting its name into words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from reconciler.core import figures
from reconciler.core.model import Milestone, Result
from reconciler.core.record import Category, Condition, Intent, IntentKind, VmRecord
from reconciler.report import rounds
from reconciler.report.numbers import size_of

MIB = 1024 * 1024

_PHASES = {
    "": "waiting",
    "Pending": "waiting for its turn",
    "Started": "starting",
    "Claim": "claiming",
    "Reserve": "reserving the target",
    "ReserveNamespace": "preparing the namespace",
    "CreateDataVolumes": "creating target disks",
    "BindVolumes": "binding target disks",
    "Preflight": "trying to open the target disks",
    "ReserveVM": "reserving the target VM",
    "ReleaseBinder": "releasing the binder pod",
    "PowerOff": "shutting down the source",
    "PowerOffSource": "shutting down the source",
    "ProveOff": "proving the source off",
    "ProveSourceOff": "proving the source off",
    "CopyDisks": "copying",
    "HandOver": "handing over",
    "StartTarget": "starting the target",
    "Release": "tidying up",
    "Completed": "finishing",
    "Unwind": "giving back",
    "EnableChangeTracking": "switching on change tracking",
    "Precopy": "copying while the guest runs",
    "Consolidate": "merging what our snapshot left",
    "CopyFinalChanges": "copying what changed last",
    "StopWriters": "stopping the copy",
    "RemoveSnapshots": "removing our snapshots",
    "DirtyMarks": "marking copies as stale",
    "PowerOnSource": "powering the source on again",
    "WatchGuest": "watching the guest after giving it back",
    "DeleteTarget": "deleting target disks",
}
_COPYING = frozenset({"CopyDisks", "Precopy", "CopyFinalChanges"})
_DISK_STEPS = frozenset({"DiskTransfer", "Cutover", "DiskTransferV2v"})


class Standing(IntEnum):
    """How a VM stands, most urgent first: the order in which people want to read."""

    FAILED = 0
    HELD = 1
    UNDOING = 2
    CANCELED = 3
    RUNNING = 4
    WAITING = 5
    SUCCEEDED = 6

    @property
    def words(self) -> str:
        return "giving back" if self is Standing.UNDOING else self.name.lower()


@dataclass(frozen=True, slots=True)
class Copied:
    done_bytes: int
    total_bytes: int

    @property
    def percent(self) -> int:
        """Whole percent, never 100 before the last byte."""
        return min(self.done_bytes * 100 // self.total_bytes, 100) if self.total_bytes else 0


# ---- one VM ---------------------------------------------------------------------------------------------------------------------------


def phase_words(phase: str) -> str:
    """`CopyDisks` -> copying; a phase that is unknown here -> its name as words."""
    known = _PHASES.get(phase)
    return known if known is not None else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", phase).lower()


def vm_name(vm: VmRecord) -> str:
    return vm.name or (vm.source.name if vm.source else "") or vm.wanted or vm.id or vm.slug


def blockers(conditions: Iterable[Condition]) -> list[Condition]:
    return [c for c in conditions if c.status and c.category in (Category.CRITICAL, Category.ERROR)]


def standing(vm: VmRecord) -> Standing:
    match vm.result:
        case Result.SUCCEEDED:
            return Standing.SUCCEEDED
        case Result.FAILED:
            return Standing.FAILED
        case Result.CANCELED:
            return Standing.CANCELED
    if vm.unwinding:
        return Standing.UNDOING
    if blockers(vm.conditions):
        return Standing.HELD
    return Standing.WAITING if vm.phase in ("", "Pending") else Standing.RUNNING


def copied(vm: VmRecord) -> Copied:
    """Bytes of all disks dealt with, out of all. From the disk steps of the pipeline (MiB), else from marks and watermarks."""
    disks = vm.frozen.disks if vm.frozen else ()
    total = sum(d.capacity_bytes for d in disks)
    records = {d.uuid: d for d in vm.disks}
    proven = 0
    for disk in disks:
        record = records.get(disk.uuid)
        if record:
            proven += disk.capacity_bytes if record.marked else min(record.watermark_bytes, disk.capacity_bytes)
    if vm.milestone.order >= Milestone.HANDED_OVER.order or _copied_once(vm):
        return Copied(total, total)
    seen = max((s.progress.completed * MIB for s in vm.pipeline if s.name in _DISK_STEPS and s.progress.total > 1), default=0)
    return Copied(min(max(proven, seen), total), total)


def _copied_once(vm: VmRecord) -> bool:
    """A round of a warm run counted: all that is missing, between rounds and in them, is what changed since."""
    known = figures.rounds(vm)
    return known is not None and known.whole > 0


def copied_words(vm: VmRecord) -> str:
    """`36 of 80 GiB`, `80 GiB` when all is there, nothing before the first byte."""
    share = copied(vm)
    return size_of(share.done_bytes, share.total_bytes) if share.done_bytes else ""


def copied_percent(vm: VmRecord) -> int | None:
    """How far a first copy is that is under way."""
    share = copied(vm)
    return share.percent if vm.phase in _COPYING and share.total_bytes and not _copied_once(vm) else None


def doing(vm: VmRecord) -> str:
    """What the VM is doing, in a few words: `copying 45 %`, `failed`, `waiting for its turn`."""
    stands = standing(vm)
    if stands in (Standing.RUNNING, Standing.WAITING):
        if between := rounds.state(vm):
            return between
        percent = copied_percent(vm)
        return phase_words(vm.phase) + (f" {percent} %" if percent is not None else "")
    if stands is Standing.HELD:
        return f"held ({blockers(vm.conditions)[0].type})"
    if stands is Standing.UNDOING:
        return f"giving back ({phase_words(vm.phase)})" if vm.phase and vm.phase != "Unwind" else "giving back"
    return stands.words


def trouble(vm: VmRecord) -> str:
    """Why it failed, is held, or waits; empty when all is well."""
    if vm.error:
        return f"{vm.error.reason}: {vm.error.message}" if vm.error.message else vm.error.reason
    blocking = blockers(vm.conditions)
    if blocking:
        return "; ".join(f"{c.type}: {c.message}" if c.message else c.type for c in blocking)
    warnings = [c for c in vm.conditions if c.status and c.category is Category.WARN]
    if warnings and not vm.result:
        return "; ".join(f"{c.reason or c.type}: {c.message}" if c.message else c.type for c in warnings)
    return "" if vm.result is Result.SUCCEEDED else vm.message


def troubles(vms: Iterable[VmRecord]) -> list[tuple[Standing, str, list[VmRecord]]]:
    """VMs with the same trouble together, most urgent first."""
    groups: dict[tuple[Standing, str], list[VmRecord]] = {}
    for vm in vms:
        if text := trouble(vm):
            groups.setdefault((standing(vm), text), []).append(vm)
    return [(state, text, some) for (state, text), some in sorted(groups.items(), key=lambda item: item[0])]


def since(vm: VmRecord) -> datetime | None:
    """When it began what it is doing now, or ended."""
    if vm.completed:
        return vm.completed
    return vm.phases[-1].started if vm.phases else vm.started


def intent_words(intent: Intent) -> str:
    """The act as an infinitive."""
    return {
        IntentKind.POWER_OFF_SOURCE: "shut down the source guest",
        IntentKind.POWER_ON_SOURCE: "power the source on again",
        IntentKind.START_TARGET: "start the target",
        IntentKind.DELETE_TARGET: "delete the target's disks",
    }.get(intent.kind, str(intent.kind))


def intent_done_words(intent: Intent) -> str:
    return {
        IntentKind.POWER_OFF_SOURCE: "source went off",
        IntentKind.POWER_ON_SOURCE: "source powered on again",
        IntentKind.START_TARGET: "target told to start",
        IntentKind.DELETE_TARGET: "target's disks deleted",
    }.get(intent.kind, f"{intent.kind} done")


# ---- many ----------------------------------------------------------------------------------------------------------------------------


def counts(vms: Iterable[VmRecord]) -> str:
    """`3 succeeded, 1 failed, 2 running`, most urgent first."""
    tally: dict[Standing, int] = {}
    for vm in vms:
        tally[standing(vm)] = tally.get(standing(vm), 0) + 1
    return ", ".join(f"{tally[s]:,} {s.words}" for s in sorted(tally))


def ready(conditions: Iterable[Condition]) -> bool:
    return any(c.type == "Ready" and c.status for c in conditions)
