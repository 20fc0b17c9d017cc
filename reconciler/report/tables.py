"""Tables for the terminal: plans, VMs, manifest problems, and the lab's final proof that both sides hold the same bytes.

What it is: values in, rich renderables out; whoever calls prints them. What it is not: the live view (report/live.py). Cells are rich Text,
never markup, so that a name cannot colour, link or hide anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconciler.core import figures
from reconciler.core.desired import Problem, Severity
from reconciler.core.record import Records, VmRecord
from reconciler.report.escape import clean
from reconciler.report.numbers import day_and_time, duration, size, size_of
from reconciler.report.plans import PlanView, plan_views
from reconciler.report.rounds import downtime_words, expected_words, ours_words, precopied_words, rate_words, round_words, upcoming_words
from reconciler.report.words import (
    Standing,
    blockers,
    copied,
    copied_words,
    counts,
    doing,
    ready,
    since,
    standing,
    troubles,
    vm_name,
)

_STYLE = {
    Standing.FAILED: "bold red",
    Standing.HELD: "bold yellow",
    Standing.UNDOING: "yellow",
    Standing.CANCELED: "dim",
    Standing.RUNNING: "cyan",
    Standing.WAITING: "dim",
    Standing.SUCCEEDED: "green",
}
_HASH_SHOWN = 12
_NAMED = 5
_FIXED = frozenset({"Plan", "Provider", "Disks", "Copied", "Downtime", "Of it ours", "Since (UTC)", "Began (UTC)", "Equal", "Size", "Time"})


@dataclass(frozen=True, slots=True)
class DiskProof:
    """One disk at the end of a lab run, read from the files of both sites."""

    vm: str
    disk: str
    capacity_bytes: int
    source_sha256: str
    target_sha256: str

    @property
    def equal(self) -> bool:
        return self.source_sha256 != "" and self.source_sha256 == self.target_sha256


@dataclass(frozen=True, slots=True)
class VmProof:
    """One VM at the end of a lab run. Power: what was asked for ("" where nothing was), and what that side was then seen to have."""

    record: VmRecord
    source_power_asked: str
    source_power_seen: str
    target_power_asked: str
    target_power_seen: str

    @property
    def as_asked(self) -> bool:
        return self.source_power_asked == self.source_power_seen and self.target_power_asked == self.target_power_seen


def style_of(state: Standing) -> str:
    return _STYLE[state]


# ---- status ---------------------------------------------------------------------------------------------------------------------------


def plans_table(records: Records) -> Table:
    table = plain_table("Plan", "State", "Copied", "Began (UTC)", right=("Copied",))
    for plan in plan_views(records):
        shares = [copied(vm) for vm in plan.vms]
        total = sum(s.total_bytes for s in shares)
        table.add_row(
            cell(str(plan.ref), "bold"),
            _plan_state(records, plan),
            cell(size_of(sum(s.done_bytes for s in shares), total) if total else ""),
            cell(day_and_time(plan.runs[-1].started) if plan.runs else ""),
        )
    return table


def _plan_state(records: Records, plan: PlanView) -> Text:
    tally = f": {counts(plan.vms)}" if plan.vms else ""
    if plan.ref in records.archived:
        return cell("archived", "dim")
    if plan.running:
        return Text.assemble(("running", "cyan"), tally)
    if plan.runs:
        result = plan.runs[0].result or "ended"
        return Text.assemble((result.lower(), "green" if result == "Succeeded" else "red"), tally)
    conditions = plan.status.conditions if plan.status else ()
    if ready(conditions):
        return cell("ready", "green")
    why = "; ".join(c.message or c.type for c in blockers(conditions))
    return cell(f"not ready: {why}" if why else "not ready", "red")


def vms_view(vms: Sequence[VmRecord], now: datetime, title: str = "") -> Group:
    """The table, the rounds of those that are copied while they run, and below, in full width, what is wrong or waited for."""
    notes = []
    for state, text, some in troubles(vms):
        names = ", ".join(clean(vm_name(vm), 40) for vm in some[:_NAMED])
        more = f" and {len(some) - _NAMED:,} more" if len(some) > _NAMED else ""
        note = Text.assemble((f"{names}{more}", f"bold {_STYLE[state]}"), f": {clean(text, 500)}")
        notes.append(Padding(note, (0, 0, 0, 1)))
    return Group(_vms_table(vms, title), *_rounds_table(vms, now), *notes)


def _vms_table(vms: Sequence[VmRecord], title: str) -> Table:
    ours = ("Of it ours",) if any(ours_words(vm) for vm in vms) else ()
    columns = ("VM", "State", "Disks", "Copied", "Downtime", *ours, "Since (UTC)")
    table = plain_table(*columns, right=("Disks", "Copied", *ours), title=title)
    for vm in vms:
        state = standing(vm)
        table.add_row(
            cell(vm_name(vm), "bold", 40),
            cell(doing(vm), _STYLE[state]),
            cell(str(len(vm.frozen.disks)) if vm.frozen else ""),
            cell(copied_words(vm)),
            cell(downtime_words(vm)),
            *(cell(ours_words(vm)) for _ in ours),
            cell(day_and_time(since(vm))),
        )
    return table


def _rounds_table(vms: Sequence[VmRecord], now: datetime) -> Iterator[Table]:
    """What a cutover would cost now, without the guest's own shutdown."""
    warm = [(vm, known) for vm in vms if figures.precopying(vm) and (known := figures.rounds(vm)) is not None]
    if not warm:
        return
    table = plain_table("VM", "Rounds", "Last round", "Changes", "Cutover now", "Next (UTC)", right=("Rounds", "Changes"))
    for vm, known in warm:
        table.add_row(
            cell(vm_name(vm), "bold", 40),
            cell(str(known.whole)),
            cell(round_words(known.last) if known.last else ""),
            cell(rate_words(known)),
            cell(expected_words(known, now) or "not known yet"),
            cell(upcoming_words(known)),
        )
    yield table


def conditions_table(conditions: Iterable[Mapping[str, object]]) -> Table:
    """Conditions as they stand in YAML."""
    table = plain_table("Condition", "Status", "Category", "Message")
    for condition in conditions:
        bad = condition.get("category") in ("Critical", "Error") and condition.get("status") in (True, "True")
        table.add_row(
            cell(str(condition.get("type", "")), "bold red" if bad else "bold"),
            cell(str(condition.get("status", ""))),
            cell(str(condition.get("category", ""))),
            cell(str(condition.get("message", "")), "", 400),
        )
    return table


def providers_table(records: Records) -> Table:
    table = plain_table("Provider", "State", "Why")
    for (kind, ref), status in sorted(records.statuses.items(), key=lambda item: item[0]):
        if kind == "Provider":
            good = ready(status.conditions)
            why = "; ".join(c.message or c.type for c in blockers(status.conditions))
            table.add_row(cell(str(ref), "bold"), cell("ready" if good else "not ready", "green" if good else "red"), cell(why, "", 300))
    return table


def problems_table(problems: Sequence[Problem]) -> Table:
    table = plain_table("Where", "Object", "Problem")
    for problem in problems:
        error = problem.severity is Severity.ERROR
        text = Text.assemble((clean(problem.message, 400), "red" if error else "yellow"))
        if problem.hint:
            text.append(f"\n{clean(problem.hint, 300)}", style="italic")
        field = f" {clean(problem.field)}" if problem.field else ""
        table.add_row(cell(str(problem.place)), cell(f"{problem.object}{field}"), text)
    return table


# ---- lab ------------------------------------------------------------------------------------------------------------------------------


def proof_table(proofs: Iterable[DiskProof]) -> Table:
    """Source and target side by side. Full hashes are for --json."""
    table = plain_table("VM", "Disk", "Size", "Source SHA-256", "Target SHA-256", "Equal", right=("Size",))
    before = ""
    for proof in proofs:
        source, target = short_pair(proof.source_sha256, proof.target_sha256)
        hash_style = "" if proof.equal else "bold red"
        table.add_row(
            cell(proof.vm if proof.vm != before else "", "bold", 40),
            cell(proof.disk),
            cell(size(proof.capacity_bytes)),
            cell(source or "missing", hash_style),
            cell(target or "missing", hash_style),
            cell("yes" if proof.equal else "NO", "green" if proof.equal else "bold red"),
        )
        before = proof.vm
    return table


def moves_table(proofs: Iterable[VmProof]) -> Table:
    """How each VM was moved: what was copied while it ran, and for how long no guest ran."""
    columns = ("VM", "Source power", "Target power", "While it ran", "With it off", "Downtime", "Of it ours", "Time")
    table = plain_table(*columns, right=("With it off", "Downtime", "Of it ours", "Time"))
    for proof in proofs:
        vm = proof.record
        table.add_row(
            cell(vm_name(vm), "bold", 40),
            _power(proof.source_power_asked, proof.source_power_seen),
            _power(proof.target_power_asked, proof.target_power_seen),
            cell(precopied_words(vm)),
            cell(size(figures.copied_off_bytes(vm))),
            cell(downtime_words(vm) or "none"),
            cell(ours_words(vm)),
            cell(duration((vm.completed - vm.started).total_seconds()) if vm.completed and vm.started else ""),
        )
    return table


def short_pair(a: str, b: str) -> tuple[str, str]:
    """Two hashes cut alike, but never so short that different ones look the same."""
    first = next((i for i, (x, y) in enumerate(zip_longest(a, b)) if x != y), 0)
    length = max(_HASH_SHOWN, first + 1)
    return tuple(f"{h[:length]}…" if len(h) > length else h for h in (a, b))  # type: ignore[return-value]


def _power(asked: str, seen: str) -> Text:
    """`On` where what was asked is what is seen, else both."""
    if not asked:
        return cell(seen or "unknown", "" if seen else "yellow")
    if asked.lower() == seen.lower():
        return cell(f"{seen}, as asked", "green")
    return cell(f"{seen or 'unknown'}, asked {asked}", "bold red")


def plain_table(*columns: str, right: Sequence[str] = (), title: str = "") -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=cell(title, "bold") if title else None, title_justify="left", pad_edge=False, header_style="bold"
    )
    for name in columns:
        fixed = name in _FIXED
        table.add_column(name, justify="right" if name in right else "left", overflow="ellipsis" if fixed else "fold", no_wrap=fixed)
    return table


def cell(text: str, style: str = "", limit: int | None = None) -> Text:
    return Text(clean(text, limit), style=style)
