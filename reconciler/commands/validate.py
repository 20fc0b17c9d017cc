"""`reconciler validate PATH`: check a tree of manifests without any platform, and say everything that is wrong with it.

What it is: load and resolve, and their problems as text, JSON or GitHub annotations. What it is not: a look at any site; names that only a
site knows are not checked. It must start fast in CI: no SDK, nothing of drivers or engine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from reconciler.commands.folder import files_of
from reconciler.core.desired import ControllerSpec, Desired, MigrationSpec, Place, PlanSpec, Problem, Severity, StorageMapSpec, Unsupported
from reconciler.core.model import ObjectRef
from reconciler.manifests.load import Document, Loaded, load
from reconciler.manifests.resolve import resolve

Format = Literal["text", "json", "github"]


def run(path: Path, format: Format, allow_unknown: bool) -> int:
    """Exit code 0 or, with errors, 1. Errors: UserError NotFound for a path that is not there."""
    report = check(path, allow_unknown=allow_unknown)
    match format:
        case "json":
            print(_json(report))
        case "github":
            for problem in report.problems:
                print(_github(problem))
            print(_summary(report))
        case "text":
            for problem in report.problems:
                print(_text(problem))
            print(_summary(report))
    sys.stdout.flush()
    return 1 if report.errors else 0


@dataclass(frozen=True, slots=True)
class Report:
    """Paths in `problems` are as a person would type them: the argument and what lies below it."""

    problems: tuple[Problem, ...]
    files: int
    manifests: int
    ignored: int

    @property
    def errors(self) -> int:
        return sum(p.severity is Severity.ERROR for p in self.problems)

    @property
    def warnings(self) -> int:
        return len(self.problems) - self.errors


def check(path: Path, *, allow_unknown: bool = False) -> Report:
    root = path if path.is_dir() else path.parent
    loaded = load(files_of(path), allow_unknown=allow_unknown)
    desired = resolve(loaded, "")
    found = [*desired.problems, *_not_implemented(loaded, desired)]
    if not loaded.documents and not found:
        message = "no Forklift manifest was found here"
        found.append(Problem(Place(".", 1), "", "", "NothingFound", message, "is the path right?", Severity.WARNING))
    found.sort(key=lambda p: (p.place.path, p.place.line, p.place.column))
    shown = tuple(replace(p, place=replace(p.place, path=str(root / p.place.path))) for p in found)
    return Report(shown, loaded.files, len(loaded.documents), loaded.ignored)


def _not_implemented(loaded: Loaded, desired: Desired) -> Iterator[Problem]:
    """What is accepted but not done, as warnings at the field."""
    by_kind: dict[str, Mapping[ObjectRef, PlanSpec | StorageMapSpec | MigrationSpec | ControllerSpec]] = {
        "Plan": desired.plans,
        "StorageMap": desired.storage_maps,
        "Migration": desired.migrations,
        "ForkliftController": desired.controllers,
    }
    for doc in loaded.documents:
        spec = by_kind[doc.kind].get(doc.ref) if doc.kind in by_kind else None
        for item in spec.unsupported if spec else ():
            yield _warning(doc, item)


def _warning(doc: Document, item: Unsupported) -> Problem:
    reason = "NotSupported" if item.blocking else "WithoutEffect"
    message = f"{item.message}{' (the plan will not run)' if item.blocking else ''}"
    return doc.problem(item.field, reason, message, "", Severity.WARNING)


# ---- output ---------------------------------------------------------------------------------------------------------------------------


def _subject(problem: Problem) -> str:
    """Kind ns/name field"""
    return " ".join(part for part in (problem.object.replace("/", " ", 1), problem.field) if part)


def _visible(text: str) -> str:
    """Manifests are other people's text: nothing in it may move the cursor or start a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _text(problem: Problem) -> str:
    subject = _subject(problem)
    line = f"{problem.place}: {problem.severity.value}: {subject + ': ' if subject else ''}{problem.message}"
    return _visible(line) + (f"\n    hint: {_visible(problem.hint)}" if problem.hint else "")


def _summary(report: Report) -> str:
    counts = f"{_count(report.errors, 'error')}, {_count(report.warnings, 'warning')}"
    return f"{_count(report.files, 'file')}, {_count(report.manifests, 'manifest')}, {report.ignored} ignored: {counts}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _json(report: Report) -> str:
    problems = [
        {
            "file": p.place.path,
            "line": p.place.line,
            "column": p.place.column,
            "severity": p.severity.value,
            "object": p.object,
            "field": p.field,
            "reason": p.reason,
            "message": p.message,
            "hint": p.hint,
        }
        for p in report.problems
    ]
    counts = {"files": report.files, "manifests": report.manifests, "ignored": report.ignored}
    return json.dumps({**counts, "errors": report.errors, "warnings": report.warnings, "problems": problems}, indent=2)


def _github(problem: Problem) -> str:
    """A workflow command. Source: GitHub Actions, "Workflow commands"; its runner decodes %25, %0D, %0A, and in properties %3A, %2C."""
    place = problem.place
    message = f"{_subject(problem)}: {problem.message}" if _subject(problem) else problem.message
    text = f"{message}\n{problem.hint}" if problem.hint else message
    where = f"file={_property(place.path)},line={place.line},col={place.column},title={_property(problem.reason)}"
    return f"::{problem.severity.value} {where}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
