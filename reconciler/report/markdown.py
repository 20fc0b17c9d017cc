"""README.md of the status branch: what a person sees who opens it in GitHub or GitLab.

What it is: pure, records in, Markdown out; the same records give the same bytes, and no text changes by the mere passing of time.
What it is not: the memory; the files under runs/, claims/ and status/ are. Everything from a source is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from reconciler.core import figures
from reconciler.core.desired import Problem, Severity
from reconciler.core.figures import Rounds
from reconciler.core.record import Records, VmRecord
from reconciler.report.escape import clean, link
from reconciler.report.escape import markdown as safe
from reconciler.report.numbers import day_and_time, duration, plural, size_of, when
from reconciler.report.plans import PlanView, plan_views
from reconciler.report.rounds import downtime_words, expected_words, ours_words, rate_words, round_words, upcoming_words
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
    trouble,
    troubles,
    vm_name,
)

_OPEN_ROWS = 25  # up to here a plan shows every VM; beyond, those that went well or wait are folded
_URGENT_ROWS = 200
_ATTENTION = 12
_VM_ROWS = 1000
_PLAN_ROWS = 1000
_NAMED = 8
_NOTE = 160
_DOWNTIME = (
    "*Downtime* is the time without a running guest: from the source off to the target running. *Of it ours* is what is left without the "
    "time in which bytes were moved."
)
_NBSP = "\N{NO-BREAK SPACE}"
_SYMBOL = {
    Standing.FAILED: "❌",
    Standing.HELD: "⚠️",
    Standing.UNDOING: "↩️",
    Standing.CANCELED: "🚫",
    Standing.RUNNING: "🔄",
    Standing.WAITING: "🕓",
    Standing.SUCCEEDED: "✅",
}
_FOLDED = (Standing.WAITING, Standing.SUCCEEDED)


def render_readme(records: Records, problems: Sequence[Problem] = ()) -> str:
    plans = plan_views(records)
    blocks = [
        "# Virtual machine migrations",
        "The reconciler writes this branch; edits here are lost. What should happen stands in the manifests of the desired branch, "
        "the story of one VM in the history of its file under `runs/`.",
        _summary(plans),
        *_attention(records, problems, plans),
    ]
    rows = 0
    brief: list[PlanView] = []
    for plan in (p for p in plans if p.runs):
        rows += len(plan.vms)
        if rows > _VM_ROWS:
            brief.append(plan)
        else:
            blocks += _plan(records, plan)
    blocks += _brief_plans(records, brief)
    blocks += _other_plans(records, [p for p in plans if not p.runs])
    blocks += _providers(records)
    blocks.append(_DOWNTIME if any(vm.outage for vm in records.vms.values()) else "")
    return "\n\n".join(b for b in blocks if b) + "\n"


# ---- top ------------------------------------------------------------------------------------------------------------------------------


def _summary(plans: Sequence[PlanView]) -> str:
    vms = [vm for plan in plans for vm in plan.vms]
    if not vms:
        return f"**{plural(len(plans), 'plan')}**, no migration has begun." if plans else "**No plan yet.**"
    done = sum(copied(vm).done_bytes for vm in vms)
    total = sum(copied(vm).total_bytes for vm in vms)
    head = f"{plural(len(vms), 'VM')} in {plural(len({vm.plan for vm in vms}), 'plan')}"
    return f"**{head}:** {counts(vms)}. {size_of(done, total)} copied."


def _attention(records: Records, problems: Sequence[Problem], plans: Sequence[PlanView]) -> Iterator[str]:
    """What a person must look at, in one list; nothing at all when all is well."""
    lines = [line for plan in plans for line in _plan_troubles(plan)]
    for problem in sorted(problems, key=lambda p: (p.severity is not Severity.ERROR, p.place.path, p.place.line)):
        symbol = "❌" if problem.severity is Severity.ERROR else "⚠️"
        hint = f" *{safe(problem.hint, _NOTE)}*" if problem.hint else ""
        lines.append(f"- {symbol} {_place(problem)} {safe(problem.message, 400)}{hint}")
    for (kind, ref), status in sorted(records.statuses.items(), key=lambda item: item[0]):
        for condition in blockers(status.conditions):
            lines.append(f"- ⚠️ {safe(kind)} {safe(ref.name)}: {safe(condition.message or condition.type, 400)} ({safe(condition.type)})")
    if not lines:
        return
    yield "## Needs attention"
    yield "\n".join(lines[:_ATTENTION])
    if len(lines) > _ATTENTION:
        yield _details(f"{len(lines) - _ATTENTION:,} more", "\n".join(lines[_ATTENTION : _ATTENTION + _URGENT_ROWS]))


def _plan_troubles(plan: PlanView) -> Iterator[str]:
    """VMs with the same trouble share a line."""
    for state, text, vms in troubles(plan.vms):
        if state in (Standing.FAILED, Standing.HELD, Standing.UNDOING):
            names = ", ".join(_vm_link(vm) for vm in vms[:_NAMED])
            more = f" and {len(vms) - _NAMED:,} more" if len(vms) > _NAMED else ""
            yield f"- {_SYMBOL[state]} {names}{more} in plan {safe(plan.ref.name)}: {safe(text, 400)}"


def _place(problem: Problem) -> str:
    """file:line as code; a backtick cannot be escaped inside a code span."""
    return f"`{clean(f'{problem.place.path}:{problem.place.line}').replace('`', '?')}`"


# ---- one plan -------------------------------------------------------------------------------------------------------------------------


def _plan(records: Records, plan: PlanView) -> Iterator[str]:
    archived = " (archived)" if plan.ref in records.archived else ""
    yield f"## {safe(plan.ref.name)}{archived}"
    newest = plan.runs[0]
    where = f"{safe(newest.source.name)} → {safe(newest.destination.name)}"
    yield f"{counts(plan.vms).capitalize()}. {newest.mode.capitalize()}, {where}, began {when(plan.runs[-1].started)}."
    if len(plan.vms) <= _OPEN_ROWS:
        yield _vm_table(plan.vms)
    else:
        yield from _long_plan(plan.vms)
    yield _rounds_table(plan.vms)
    yield _run_table(records, plan)


def _brief_plans(records: Records, plans: Sequence[PlanView]) -> Iterator[str]:
    """Plans beyond the room for VM tables: GitHub shows no file of more than 512 KB."""
    if not plans:
        return
    rows = [
        (
            f"[{safe(plan.ref.name)}]({link(f'runs/{plan.runs[0].run.namespace}/{plan.runs[0].run.name}')})",
            "archived" if plan.ref in records.archived else "running" if plan.running else "ended",
            counts(plan.vms),
            when(plan.runs[-1].started),
        )
        for plan in plans[:_PLAN_ROWS]
    ]
    more = len(plans) - len(rows)
    yield f"## {plural(len(plans), 'other plan')}"
    yield _table(("Plan", "State", "VMs", "Began"), rows)
    if more > 0:
        yield f"And {more:,} more under `runs/`."


def _long_plan(vms: Sequence[VmRecord]) -> Iterator[str]:
    urgent = [vm for vm in vms if standing(vm) not in _FOLDED]
    urgent.sort(key=lambda vm: standing(vm))
    if urgent:
        yield _vm_table(urgent[:_URGENT_ROWS], brief=True)
    if len(urgent) > _URGENT_ROWS:
        yield _details(f"{len(urgent) - _URGENT_ROWS:,} more running", _vm_table(urgent[_URGENT_ROWS:], brief=True))
    for state in _FOLDED:
        some = [vm for vm in vms if standing(vm) is state]
        if some:
            yield _details(f"{_SYMBOL[state]} {len(some):,} {state.words}", _vm_table(some, brief=True))


def _vm_table(vms: Iterable[VmRecord], brief: bool = False) -> str:
    """`brief`: of a failure only the reason; its full text stands at the top of the page, once."""
    rows = [_vm_row(vm, brief) for vm in vms]
    return _table(("VM", "State", "Disks", "Copied", "Downtime", "Of it ours", "Since (UTC)", "Note"), rows, right=(2, 3, 5))


def _vm_row(vm: VmRecord, brief: bool) -> tuple[str, ...]:
    marked = sum(1 for d in vm.disks if d.marked)
    disks = len(vm.frozen.disks) if vm.frozen else 0
    return (
        _vm_link(vm),
        f"{_SYMBOL[standing(vm)]} {safe(doing(vm))}",
        (str(disks) if marked in (0, disks) else f"{marked} of {disks}") if disks else "",
        copied_words(vm).replace(" ", _NBSP),
        downtime_words(vm).replace(" ", _NBSP),
        ours_words(vm).replace(" ", _NBSP),
        day_and_time(since(vm)).replace(" ", _NBSP),
        _note(vm, brief),
    )


def _rounds_table(vms: Iterable[VmRecord]) -> str:
    """Of VMs that are copied while they run. The cost of a cutover is that right before the next round, so that no text grows old."""
    rows = [_rounds_row(vm, known) for vm in vms if figures.precopying(vm) and (known := figures.rounds(vm)) is not None]
    if not rows:
        return ""
    head = ("Copied while it runs", "Rounds", "Last round", "Changes", "Cutover would take", "Next round (UTC)")
    table = _table(head, rows[:_URGENT_ROWS], right=(1, 3))
    more = f"\n\nAnd {len(rows) - _URGENT_ROWS:,} more." if len(rows) > _URGENT_ROWS else ""
    return table + more if len(rows) <= _OPEN_ROWS else _details(f"Rounds of {plural(len(rows), 'VM')}", table + more)


def _rounds_row(vm: VmRecord, known: Rounds) -> tuple[str, ...]:
    return (
        _vm_link(vm),
        str(known.whole),
        round_words(known.last) if known.last else "",
        rate_words(known),
        expected_words(known) or "not known yet",
        upcoming_words(known),
    )


def _note(vm: VmRecord, brief: bool) -> str:
    if standing(vm) is Standing.SUCCEEDED:
        new = vm.new_name or (vm.frozen.name if vm.frozen else "")
        return f"now {safe(new)}" if new and new != vm_name(vm) else ""
    return safe(vm.error.reason) if brief and vm.error else safe(trouble(vm), _NOTE)


def _vm_link(vm: VmRecord) -> str:
    path = f"runs/{vm.run.namespace}/{vm.run.name}/vms/{vm.slug}.yaml"
    return f"[{safe(vm_name(vm), 60)}]({link(path)})"


def _run_table(records: Records, plan: PlanView) -> str:
    rows = [
        (
            f"[{safe(run.run.name)}]({link(f'runs/{run.run.namespace}/{run.run.name}/run.yaml')})",
            counts(vm for slug in run.vms if (vm := records.vms.get((run.run, slug)))),
            f"`{clean(run.revision)[:12].replace('`', '')}`",
            when(run.started),
            _ended(run.started, run.completed),
        )
        for run in plan.runs
    ]
    return _details(plural(len(rows), "run"), _table(("Migration", "VMs", "Manifests at", "Began", "Ended"), rows))


def _ended(started: datetime, completed: datetime | None) -> str:
    return f"{when(completed)} ({duration((completed - started).total_seconds())})" if completed else "running"


# ---- the rest -------------------------------------------------------------------------------------------------------------------------


def _other_plans(records: Records, plans: Sequence[PlanView]) -> Iterator[str]:
    if not plans:
        return
    rows = []
    for plan in plans[:_PLAN_ROWS]:
        conditions = plan.status.conditions if plan.status else ()
        why = "; ".join(c.message or c.type for c in blockers(conditions))
        state = "archived" if plan.ref in records.archived else "✅ ready" if ready(conditions) else "❌ not ready"
        rows.append((safe(plan.ref.name), state, safe(why, _NOTE)))
    yield "## Plans not started"
    yield "A Migration manifest starts a plan that is ready."
    yield _table(("Plan", "State", "Why"), rows)
    if len(plans) > len(rows):
        yield f"And {len(plans) - len(rows):,} more under `status/`."


def _providers(records: Records) -> Iterator[str]:
    rows = []
    for (kind, ref), status in sorted(records.statuses.items(), key=lambda item: item[0]):
        if kind != "Provider":
            continue
        why = "; ".join(c.message or c.type for c in blockers(status.conditions))
        rows.append((safe(ref.name), "✅ ready" if ready(status.conditions) else "❌ not ready", safe(why, _NOTE)))
    if rows:
        yield "## Providers"
        yield _table(("Provider", "State", "Why"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A column that is empty in every row is left out."""
    body = list(rows)
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in body)]
    lines = [[head[i] for i in kept], ["---:" if i in right else "---" for i in kept], *([row[i] for i in kept] for row in body)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _details(title: str, body: str) -> str:
    """`title` is HTML. Blank lines around the body: without them neither GitHub nor GitLab reads it as Markdown."""
    return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
