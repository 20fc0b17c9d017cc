"""Commit messages of the status branch, as a person would write them: what changed between two states of the records.

What it is: pure, (old, new, problems) -> text. A subject of at most 72 characters with the most important first; a body with one line per
milestone, intent, phase change and result; the trailer `Reconciled-From`. What it is not: the decision whether to commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reconciler.core.desired import Problem, Severity
from reconciler.core.model import ObjectRef, Result
from reconciler.core.record import ObjectStatus, Records, RunRecord, VmRecord
from reconciler.report.escape import commit as safe
from reconciler.report.news import News, Weight, headline, vm_news
from reconciler.report.numbers import plural
from reconciler.report.words import Standing, blockers, copied_percent, doing, phase_words, ready, standing, vm_name

SUBJECT_MAX = 72
_NAME_MAX = 40
_SHOWN_PROBLEMS = 20
_LATE = 20  # behind everything that is news


@dataclass(frozen=True, slots=True)
class _Clause:
    """A piece of the subject: `what` is said of `who`; from three of the same plan, noun and group on, they are counted instead.

    `tail`: the end of `what`, said where there is room.
    """

    rank: int
    plan: str
    who: str
    what: str
    group: str
    noun: str = "VMs"
    tail: str = ""
    percent: int | None = None


def message(old: Records, new: Records, problems: Sequence[Problem] = (), *, revision: str) -> str:
    """`revision` is the commit of the desired branch that was read."""
    changed = [(old.vms.get(key), vm) for key, vm in sorted(new.vms.items()) if old.vms.get(key) != vm]
    vms = [(before, vm, vm_news(before, vm)) for before, vm in changed]
    clauses = [_vm_clause(before, vm, news) for before, vm, news in vms] + list(_other_clauses(old, new))
    body = [line for _, vm, news in vms for line in _vm_lines(vm, news)]
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
    start = f"{plan}: " if plan else ""
    mine = [(text, tail) for of, text, tail in phrases if of == plan]
    subject = _fit(start, mine + [(f"{of}: {text}" if of else text, tail) for of, text, tail in phrases if of != plan])
    return subject if len(subject) <= SUBJECT_MAX else subject[: SUBJECT_MAX - 3].rstrip() + "..."


def _fit(start: str, texts: Sequence[tuple[str, str]]) -> str:
    """As many as there is room for, with their tails if it lasts for those too."""
    for count in range(len(texts), 0, -1):
        more = f", +{len(texts) - count} more" if count < len(texts) else ""
        for said in ([a + b for a, b in texts[:count]], [a for a, _ in texts[:count]]):
            line = start + ", ".join(said) + more
            if len(line) <= SUBJECT_MAX:
                return line
    more = f", +{len(texts) - 1} more" if len(texts) > 1 else ""
    room = SUBJECT_MAX - len(start) - len(more) - 3
    return f"{start}{texts[0][0][: max(room, 10)].rstrip()}...{more}"


def _phrases(clauses: Sequence[_Clause]) -> list[tuple[str, str, str]]:
    """(plan, phrase, tail) in order of rank; from three VMs of a plan that do the same on, their number is said instead of their names."""
    groups: dict[tuple[str, str, str], list[_Clause]] = {}
    for clause in clauses:
        groups.setdefault((clause.plan, clause.noun, clause.group), []).append(clause)
    out: list[tuple[str, str, str]] = []
    for (plan, noun, group), members in groups.items():
        if len(members) > 2:
            out.append((plan, f"{len(members):,} {noun} {group}", _span(members)))
        else:
            out += [(plan, f"{m.who} {m.what}".strip(), m.tail) for m in members]
    return out


def _span(members: Sequence[_Clause]) -> str:
    """How far they are, the last and the first, where each tells it."""
    percents = sorted(m.percent for m in members if m.percent is not None)
    if len(percents) < len(members):
        return ""
    return f" {percents[0]} %" if percents[0] == percents[-1] else f" {percents[0]} to {percents[-1]} %"


def _vm_clause(before: VmRecord | None, vm: VmRecord, news: Sequence[News]) -> _Clause:
    head, stands, percent = headline(news), standing(vm), None
    plan, who = safe(vm.plan.name, _NAME_MAX), safe(vm_name(vm), _NAME_MAX)
    if stands in (Standing.RUNNING, Standing.WAITING) or head.weight is Weight.END:
        words, group = head.words or doing(vm), head.group or phase_words(vm.phase)
        percent = copied_percent(vm) if group == phase_words(vm.phase) else None
    else:
        head, words, group = replace(head, tail=""), doing(vm), stands.words
    tail = safe(head.tail) if head.tail else ""
    return _Clause(_rank(before, vm, head), plan, who, safe(words), safe(group), tail=tail, percent=percent)


def _rank(before: VmRecord | None, vm: VmRecord, head: News) -> int:
    """Failures, then good news, what is held or given back, turns of the others, their rounds and phases; mere progress last."""
    stands = standing(vm)
    if stands in (Standing.RUNNING, Standing.WAITING):
        if head.weight <= Weight.PROGRESS:
            return int(stands) + _LATE
        return int(Standing.CANCELED) if head.weight is Weight.TURN else int(stands)
    if before is not None and standing(before) is stands and before.phase == vm.phase:
        return int(stands) + _LATE
    return int(Standing.HELD) if stands is Standing.SUCCEEDED else int(stands)


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


def _vm_lines(vm: VmRecord, news: Sequence[News]) -> Iterator[str]:
    name = safe(vm_name(vm), _NAME_MAX)
    for one in news:
        yield f"VM: {name} {safe(one.text, 400)}"


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
