"""Commit messages of the status branch, as a person would write them: what changed between two states of the records.

What it is: pure, (old, new, problems) -> text. A subject of at most 72 characters with the most important first; a body with one line per
milestone, intent, phase change and result; the trailer `Reconciled-From`. What it is not: the decision whether to commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconciler.core.desired import Problem, Severity
from reconciler.core.model import Milestone, ObjectRef, Result
from reconciler.core.record import Intent, IntentKind, ObjectStatus, Records, RunRecord, VmRecord
from reconciler.report.escape import commit as safe
from reconciler.report.words import (
    Standing,
    blockers,
    copied,
    doing,
    downtime,
    duration,
    intent_done_words,
    intent_words,
    phase_words,
    plural,
    ready,
    size,
    standing,
    vm_name,
)

SUBJECT_MAX = 72
_NAME_MAX = 40
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class _Clause:
    """A piece of the subject: `what` is said of `who`; from three of the same plan, noun and group on, they are counted instead."""

    rank: int
    plan: str
    who: str
    what: str
    group: str
    noun: str = "VMs"


def message(old: Records, new: Records, problems: Sequence[Problem] = (), *, revision: str) -> str:
    """`revision` is the commit of the desired branch that was read."""
    vms = [(old.vms.get(key), vm) for key, vm in sorted(new.vms.items()) if old.vms.get(key) != vm]
    clauses = [_vm_clause(before, vm) for before, vm in vms] + list(_other_clauses(old, new))
    body = [line for before, vm in vms for line in _vm_lines(before, vm)]
    body += [*_run_lines(old, new), *_status_lines(old, new), *_problem_lines(problems)]
    subject = _subject(sorted(clauses, key=lambda c: c.rank), problems)
    parts = [subject, "\n".join(body), f"Reconciled-From: {safe(revision)}"]
    return "\n\n".join(p for p in parts if p) + "\n"


# ---- subject --------------------------------------------------------------------------------------------------------------------------


def _subject(clauses: Sequence[_Clause], problems: Sequence[Problem]) -> str:
    phrases = _phrases(clauses)
    if not phrases:
        errors = sum(1 for p in problems if p.severity is Severity.ERROR)
        return f"{plural(errors, 'error')} in manifests" if errors else "Update status"
    plan = phrases[0][0]
    mine = [text for of, text in phrases if of == plan]
    texts = mine + [f"{of}: {text}" if of else text for of, text in phrases if of != plan]
    start = f"{plan}: " if plan else ""
    subject = _fit(start, texts)
    return subject if len(subject) <= SUBJECT_MAX else subject[: SUBJECT_MAX - 3].rstrip() + "..."


def _fit(start: str, texts: Sequence[str]) -> str:
    for count in range(len(texts), 0, -1):
        more = f", +{len(texts) - count} more" if count < len(texts) else ""
        line = start + ", ".join(texts[:count]) + more
        if len(line) <= SUBJECT_MAX:
            return line
    more = f", +{len(texts) - 1} more" if len(texts) > 1 else ""
    room = SUBJECT_MAX - len(start) - len(more) - 3
    return f"{start}{texts[0][: max(room, 10)].rstrip()}...{more}"


def _phrases(clauses: Sequence[_Clause]) -> list[tuple[str, str]]:
    """(plan, phrase) in order of rank; from three VMs of a plan that do the same on, their number is said instead of their names."""
    groups: dict[tuple[str, str, str], list[_Clause]] = {}
    for clause in clauses:
        groups.setdefault((clause.plan, clause.noun, clause.group), []).append(clause)
    out: list[tuple[str, str]] = []
    for (plan, noun, group), members in groups.items():
        if len(members) > 2:
            out.append((plan, f"{len(members):,} {noun} {group}"))
        else:
            out += [(plan, f"{m.who} {m.what}".strip()) for m in members]
    return out


def _vm_clause(before: VmRecord | None, vm: VmRecord) -> _Clause:
    words = doing(vm)
    stands = standing(vm)
    rank = int(stands)
    if before is not None and standing(before) is stands and before.phase == vm.phase:
        rank += 20  # mere progress
    elif before is not None and before.milestone is not vm.milestone and not vm.result:
        rank = int(Standing.CANCELED)
    elif stands is Standing.SUCCEEDED:
        rank = int(Standing.HELD)  # good news comes right behind failures
    if vm.milestone is Milestone.CUTOVER and vm.phase in ("CopyDisks", "") and before is not None and before.milestone is Milestone.NONE:
        words = f"source off, {words}" if vm.phase else "source off"
    if stands is Standing.FAILED and vm.error:
        words = f"failed ({vm.error.reason})"
    group = phase_words(vm.phase) if stands in (Standing.RUNNING, Standing.WAITING) else stands.words
    return _Clause(rank, safe(vm.plan.name, _NAME_MAX), safe(vm_name(vm), _NAME_MAX), safe(words), safe(group))


def _other_clauses(old: Records, new: Records) -> Iterator[_Clause]:
    for key, run in sorted(new.runs.items()):
        before = old.runs.get(key)
        if before is None:
            yield _Clause(15, safe(run.plan.name, _NAME_MAX), f"run {safe(run.run.name, _NAME_MAX)}", "began", "began", "runs")
        elif before.result is not run.result and run.result:
            yield _Clause(
                15, safe(run.plan.name, _NAME_MAX), f"run {safe(run.run.name, _NAME_MAX)}", run.result.lower(), run.result.lower(), "runs"
            )
    for ref in sorted(new.archived - old.archived):
        yield _Clause(14, safe(ref.name, _NAME_MAX), "archived", "", "archived")
    for status in _moved(old, new):
        if status.kind in ("Plan", "Provider"):
            words = "ready" if ready(status.conditions) else _not_ready(status)
            yield _Clause(
                16 if status.kind == "Plan" else 13,
                "",
                safe(status.ref.name, _NAME_MAX),
                safe(words),
                safe(words),
                f"{status.kind.lower()}s",
            )


# ---- body -----------------------------------------------------------------------------------------------------------------------------


def _vm_lines(before: VmRecord | None, vm: VmRecord) -> Iterator[str]:
    name = safe(vm_name(vm), _NAME_MAX)
    for text in _vm_events(before or VmRecord(vm.run, vm.slug, vm.plan, vm.wanted), vm):
        yield f"VM: {name} {safe(text, 400)}"


def _vm_events(before: VmRecord, vm: VmRecord) -> Iterator[str]:
    """In the order in which they happen in life."""
    if vm.cancel_at and not before.cancel_at:
        yield "cancel requested"
    off = [i for i in vm.intents if i.kind is IntentKind.POWER_OFF_SOURCE]
    yield from _intent_events(before, off)
    if vm.milestone is Milestone.CUTOVER:
        yield from _milestone_events(before, vm)
    yield from _disk_events(before, vm)
    yield from _intent_events(before, [i for i in vm.intents if i not in off])
    if vm.milestone is not Milestone.CUTOVER:
        yield from _milestone_events(before, vm)
    if vm.attempt > before.attempt:
        yield f"copy attempt {vm.attempt}"
    if vm.unwinding and not before.unwinding:
        why = f"{vm.error.reason}: {vm.error.message}" if vm.error else "canceled"
        yield f"giving back ({why})"
    known = {c.type for c in blockers(before.conditions)}
    for condition in blockers(vm.conditions):
        if condition.type not in known:
            yield f"held by {condition.type}: {condition.message}"
    if vm.result and not before.result:
        yield _result_event(vm)
    elif vm.phase != before.phase and vm.phase:
        yield phase_words(vm.phase)


def _intent_events(before: VmRecord, intents: Sequence[Intent]) -> Iterator[str]:
    earlier = {(i.kind, i.declared_at): i for i in before.intents}
    for intent in intents:
        was = earlier.get((intent.kind, intent.declared_at))
        if was is None:
            yield f"will {intent_words(intent)} (declared)"
        if intent.done_at and (was is None or not was.done_at):
            yield intent_done_words(intent)
        elif intent.void and (was is None or not was.void):
            yield f"will not {intent_words(intent)} after all: {intent.void}"


def _milestone_events(before: VmRecord, vm: VmRecord) -> Iterator[str]:
    if before.milestone is vm.milestone:
        return
    match vm.milestone:
        case Milestone.CUTOVER:
            ours = any(i.kind is IntentKind.POWER_OFF_SOURCE for i in vm.intents)
            yield "source powered off, proven (cutover)" if ours else "source is off, proven (cutover)"
        case Milestone.HANDED_OVER:
            yield "handed over to the target, the source stays off (handed over)"
        case Milestone.DONE:
            yield "target is as wanted (done)"
        case Milestone.NONE:
            yield "back before cutover"


def _disk_events(before: VmRecord, vm: VmRecord) -> Iterator[str]:
    was = {d.uuid for d in before.disks if d.marked}
    frozen = list(vm.frozen.disks) if vm.frozen else []
    marked = {d.uuid: d for d in vm.disks if d.marked}
    for number, disk in enumerate(frozen, 1):
        if disk.uuid in marked and disk.uuid not in was:
            done = marked[disk.uuid]
            took = f" in {duration(done.seconds)}" if done.seconds else ""
            proof = f", SHA-256 {done.sha256}" if done.sha256 else ""
            yield f"disk {number} of {len(frozen)} ({disk.label}, {size(disk.capacity_bytes)}) copied{took}{proof}"
    share, earlier = copied(vm), copied(before)
    if vm.phase == before.phase == "CopyDisks" and share.percent > earlier.percent and len(marked) == len(was):
        yield f"copied {share.percent} % of {size(share.total_bytes)}"


def _result_event(vm: VmRecord) -> str:
    if vm.result is Result.FAILED and vm.error:
        return f"failed while {phase_words(vm.error.phase)} - {vm.error.reason}: {vm.error.message}"
    down = downtime(vm)
    spent = duration((vm.completed - vm.started).total_seconds()) if vm.completed and vm.started else ""
    text = f"{(vm.result or '').lower()}{' in ' + spent if spent else ''}"
    return f"{text}, down for {duration(down.seconds)}" if down and down.seconds is not None else text


def _run_lines(old: Records, new: Records) -> Iterator[str]:
    for key, run in sorted(new.runs.items()):
        before = old.runs.get(key)
        if before is None:
            yield f"Run: {safe(str(run.run))} of plan {safe(run.plan.name)} began with {plural(len(run.vms), 'VM')}"
        elif run.result and not before.result:
            yield f"Run: {safe(str(run.run))} ended: {_tally(new, run)}"
        if run.gone_since and not (before and before.gone_since):
            yield f"Run: {safe(str(run.run))} its Migration manifest is gone"


def _tally(records: Records, run: RunRecord) -> str:
    results = [vm.result for slug in run.vms if (vm := records.vms.get((run.run, slug))) and vm.result]
    said = ", ".join(f"{results.count(r)} {r.lower()}" for r in Result if r in results)
    return said or (run.result or "").lower()


def _moved(old: Records, new: Records) -> Iterator[ObjectStatus]:
    """Statuses whose readiness changed."""
    for key, status in sorted(new.statuses.items(), key=lambda item: item[0]):
        before = old.statuses.get(key)
        if status.kind == "Plan" and status.ref in new.archived:
            continue
        if before is None or _not_ready(before) != _not_ready(status):
            yield status


def _not_ready(status: ObjectStatus) -> str:
    types = ", ".join(sorted({c.type for c in blockers(status.conditions)}))
    return "" if ready(status.conditions) else f"not ready ({types})" if types else "not ready"


def _status_lines(old: Records, new: Records) -> Iterator[str]:
    for status in _moved(old, new):
        if status.kind == "Migration":
            continue
        why = "; ".join(f"{c.type}: {c.message}" if c.message else c.type for c in blockers(status.conditions))
        words = "ready" if ready(status.conditions) else f"not ready{': ' + why if why else ''}"
        yield f"{safe(status.kind)}: {_shown(status.ref)} {safe(words, 400)}"


def _shown(ref: ObjectRef) -> str:
    return safe(ref.name, _NAME_MAX)


def _problem_lines(problems: Sequence[Problem]) -> Iterator[str]:
    for problem in problems[:_SHOWN_PROBLEMS]:
        yield f"Problem: {safe(str(problem.place), 200)} {safe(problem.message, 300)}"
    if len(problems) > _SHOWN_PROBLEMS:
        yield f"Problem: {len(problems) - _SHOWN_PROBLEMS} more"
