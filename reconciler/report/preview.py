"""A Preview as text for a terminal, and as Markdown for a comment under a pull request. Pure; every name is hostile text.

What it is not: the preview itself (core/preview.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from reconciler.core.findings import Finding
from reconciler.core.preview import BLOCKING, DiskPreview, NicPreview, PlanPreview, Preview, VmPreview, conditions_of
from reconciler.report.escape import clean
from reconciler.report.escape import markdown as safe
from reconciler.report.numbers import plural, size
from reconciler.report.words import phase_words

_LONGEST = 60_000  # GitHub takes 65,536 characters in a comment


def verdict(found: Preview) -> str:
    if not found.plans:
        return "no plan to look at"
    ready = sum(p.ready for p in found.plans)
    return f"{ready} of {plural(len(found.plans), 'plan')} ready"


def _standing(plan: PlanPreview) -> str:
    return "Ready" if plan.ready else "not ready"


def _next(plan: PlanPreview) -> str:
    """What merging would begin."""
    if plan.running:
        return f"run {plan.running} is under way; this does not change its VMs"
    if plan.vms and all(v.moved for v in plan.vms):
        return "all its VMs are migrated"
    if not plan.starts:
        return "nothing starts: no Migration names this plan yet"
    queue = f", then {', '.join(plan.starts[1:])}" if len(plan.starts) > 1 else ""
    verb = "starts" if plan.ready else "would start, once nothing blocks it,"
    return f"Migration {plan.starts[0]} {verb} {plural(sum(not v.moved for v in plan.vms), 'VM')}{queue}"


def _steps(vm: VmPreview) -> str:
    return " → ".join(phase_words(p) for p in vm.steps)


def _change(vm: VmPreview) -> str:
    return f"source {vm.power} → target {vm.target_power}"


def _disk_words(d: DiskPreview) -> str:
    return (
        f"{d.label} ({size(d.capacity_bytes)} on {d.storage}) → PVC {d.pvc} ({size(d.request_bytes)}, class {d.storage_class}, "
        f"{d.volume_mode}, {d.access_mode}); read by {d.path}: {d.path_reason}"
    )


def _nic_words(n: NicPreview) -> str:
    return f"{n.network} → {n.target}{f' ({n.model}, {n.mac})' if n.model else ''}"


# ---- text -------------------------------------------------------------------------------------------------------------------------------


def text(found: Preview) -> str:
    """One fact a line; nothing in it can move the cursor."""
    return "\n".join(_text_lines(found)) + "\n"


def _text_lines(found: Preview) -> Iterator[str]:
    for problem in found.problems:
        yield clean(f"{problem.severity.value}: {problem.place}: {problem.object} {problem.field}: {problem.message}")
    for status in found.others:
        for c in conditions_of(status):
            yield clean(f"{c.category.value}: {status.kind} {status.ref}: {c.type}: {c.message}{_hint(c.suggestion)}")
    for plan in found.plans:
        yield ""
        yield clean(f"Plan {plan.ref} ({plan.mode}, {plan.source} → {plan.destination}, namespace {plan.namespace}): {_standing(plan)}")
        yield f"  {clean(_next(plan))}"
        yield from (f"  {line}" for line in _text_findings(plan.findings))
        for vm in plan.vms:
            yield from (f"  {line}" for line in _text_vm(vm))
    yield ""
    yield verdict(found)


def _text_vm(vm: VmPreview) -> Iterator[str]:
    if vm.moved:
        yield clean(f"{vm.wanted}: migrated already")
        return
    yield (
        clean(f"{vm.wanted} → {vm.target}: {_change(vm)}, {vm.cpus} CPU, {size(vm.memory_bytes)}, {vm.firmware}")
        if vm.target
        else clean(f"{vm.wanted}: {'cannot be moved' if vm.blocked else 'could not be looked at'}")
    )
    yield from (f"  {line}" for line in _text_findings(vm.findings))
    yield from (f"  disk {clean(_disk_words(d))}" for d in vm.disks)
    yield from (f"  NIC {clean(_nic_words(n))}" for n in vm.nics)
    if vm.steps:
        yield f"  steps: {_steps(vm)}"


def _text_findings(findings: Iterable[Finding]) -> Iterator[str]:
    for f in findings:
        yield clean(f"{f.category.value}: {f.type}: {f.message}{_hint(f.suggestion)}")


def _hint(suggestion: str) -> str:
    return f" ({suggestion})" if suggestion else ""


# ---- Markdown ---------------------------------------------------------------------------------------------------------------------------


def markdown(found: Preview) -> str:
    """A comment: the verdict first, details folded. What would not fit is said to be missing."""
    parts: list[str] = [f"## {'❌' if found.blocked else '✅'} Migration plan: {verdict(found)}"]
    if found.revision:
        parts.append(f"At commit `{safe(found.revision[:12])}`.")
    if lines := [*_md_others(found)]:
        parts.append("\n".join(lines))
    used = sum(len(p) for p in parts)
    for i, plan in enumerate(found.plans):
        part = "\n\n".join(_md_plan(plan))
        if used + len(part) > _LONGEST:
            parts.append(f"And {plural(len(found.plans) - i, 'more plan')}; see the text output of this job.")
            break
        parts.append(part)
        used += len(part)
    return "\n\n".join(parts) + "\n"


def _md_others(found: Preview) -> Iterator[str]:
    for problem in found.problems:
        hint = f" ({safe(problem.hint)})" if problem.hint else ""
        yield f"- {_mark(problem.severity.value == 'error')} {safe(str(problem.place))}: {safe(problem.message)}{hint}"
    for status in found.others:
        for c in conditions_of(status):
            subject = f"{status.kind} **{safe(str(status.ref))}**"
            yield f"- {_mark(c.category in BLOCKING)} {subject}: {c.type}: {safe(c.message + _hint(c.suggestion))}"


def _mark(bad: bool) -> str:
    return "❌" if bad else "⚠️"


def _md_plan(plan: PlanPreview) -> Iterator[str]:
    yield f"### {'✅' if plan.ready else '❌'} Plan {safe(str(plan.ref))}: {_standing(plan)}"
    if plan.description:
        yield safe(plan.description, 200)
    route = f"{plan.mode}, {safe(plan.source)} → {safe(plan.destination)}, namespace {safe(plan.namespace)}"
    yield f"{route}. {safe(_next(plan))}."
    bad = [*_md_findings(plan.findings), *(line for vm in plan.vms for line in _md_findings(vm.findings))]
    if bad:
        yield "\n".join(bad)
    movable = [vm for vm in plan.vms if vm.target]
    if movable:
        rows = [(safe(v.wanted), safe(v.target), safe(_change(v)), _total(v), str(len(v.nics))) for v in movable]
        yield _table(("VM", "Becomes", "Power", "Disks", "NICs"), rows)
        yield _folded("Disks, networks and steps", "\n\n".join(_md_vm(vm) for vm in movable))
    if moved := [safe(v.wanted) for v in plan.vms if v.moved]:
        yield f"Migrated already: {', '.join(moved)}."


def _total(vm: VmPreview) -> str:
    return f"{len(vm.disks)}, {size(sum(d.capacity_bytes for d in vm.disks))}"


def _md_findings(findings: Iterable[Finding]) -> Iterator[str]:
    for f in findings:
        yield f"- {_mark(f.category in BLOCKING)} **{f.type}**: {safe(f.message + _hint(f.suggestion))}"


def _md_vm(vm: VmPreview) -> str:
    disks = [
        (safe(d.label), size(d.capacity_bytes), safe(d.pvc), size(d.request_bytes), safe(f"{d.storage_class}, {d.volume_mode}"), _path(d))
        for d in vm.disks
    ]
    nics = [(safe(n.network), safe(n.target), safe(n.mac), n.model) for n in vm.nics]
    parts = [f"**{safe(vm.wanted)}** ({vm.cpus} CPU, {size(vm.memory_bytes)}, {safe(vm.firmware)})"]
    parts.append(_table(("Disk", "Size", "PVC", "Requests", "Class", "Read by"), disks))
    if nics:
        parts.append(_table(("Network", "Becomes", "MAC", "Model"), nics))
    parts.append("\n".join(f"{i}. {phase_words(step)}" for i, step in enumerate(vm.steps, 1)))
    return "\n\n".join(parts)


def _path(disk: DiskPreview) -> str:
    return safe(f"{disk.path}: {disk.path_reason}")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _folded(title: str, body: str) -> str:
    return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
