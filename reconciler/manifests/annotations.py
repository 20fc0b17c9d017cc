"""Annotations `reconciler.dev/…`: what Forklift's own fields have no word for. A table per kind; anything else with the prefix is an error.

What it is: text -> typed values. What it is not: defaults, which core.desired.PlanSpec has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from reconciler.core.copyspec import Verify
from reconciler.core.desired import Problem, ShutdownPolicy
from reconciler.manifests.load import Document
from reconciler.manifests.spelling import did_you_mean

PREFIX = "reconciler.dev/"
_QUANTITY = re.compile(r"([0-9]{1,15})(\.[0-9]{1,9})?(k|M|G|T|Ki|Mi|Gi|Ti)?", re.ASCII)
_FACTORS = {None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.ASCII)
_SECONDS = re.compile(r"([0-9]{1,9})(s|m|h)?", re.ASCII)


def _word_of(words: type[StrEnum]) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            return words(text)
        except ValueError:
            raise ValueError(f"must be one of {', '.join(words)}") from None

    return read


def _seconds(text: str) -> object:
    found = _SECONDS.fullmatch(text)
    if not found or int(found[1]) == 0:
        raise ValueError("must be a time above zero in seconds, or with a unit: 600, 10m, 2h")
    return float(int(found[1]) * {None: 1, "s": 1, "m": 60, "h": 3600}[found[2]])


def _yes(text: str) -> object:
    if text not in ("true", "false"):
        raise ValueError('must be "true" or "false"')
    return text == "true"


def _bytes_per_s(text: str) -> object:
    found = _QUANTITY.fullmatch(text)
    number = int(float(found[1] + (found[2] or "")) * _FACTORS[found[3]]) if found else 0
    if number < 1:
        raise ValueError("must be a number of bytes per second above zero, for example 100Mi")
    return number


def _commits(text: str) -> object:
    found = tuple(part.strip() for part in text.split(","))
    if not all(_COMMIT.fullmatch(part) for part in found):
        raise ValueError("must be status commits (7 or more hexadecimal digits each), separated by commas")
    return found


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row. `field` is the field of PlanSpec or MigrationSpec that it sets."""

    field: str
    type: str
    help: str
    read: Callable[[str], object]


ANNOTATIONS: Mapping[str, Annotation] = MappingProxyType(
    {
        "verify": Annotation(
            "verify",
            "none | readback | source",
            "How copied bytes are proven. readback (default): what the target returns against what was sent; source: a second read too.",
            _word_of(Verify),
        ),
        "guest-shutdown-policy": Annotation(
            "shutdown_policy",
            "fail | force",
            "When a guest ignores the shutdown: fail (default) gives the VM back as it was, force switches it off.",
            _word_of(ShutdownPolicy),
        ),
        "guest-shutdown-timeout": Annotation("shutdown_timeout_s", "seconds", "How long a guest may take to shut down; 600.", _seconds),
        "copy-stall-timeout": Annotation("copy_stall_s", "seconds", "How long a copy may go without progress; 900.", _seconds),
        "bandwidth": Annotation(
            "bandwidth_bytes_per_s", "bytes per second", "Limit of the whole copy of one VM, for example 100Mi.", _bytes_per_s
        ),
        "enable-cbt": Annotation(
            "enable_tracking",
            "true | false",
            "Warm: switch Changed Block Tracking on where it is off; false (default) refuses such a VM before it starts.",
            _yes,
        ),
        "precopy-interval": Annotation(
            "precopy_interval_s", "seconds", "Warm: pause between two rounds; else controller_precopy_interval (60 minutes).", _seconds
        ),
        "downtime-budget": Annotation(
            "downtime_budget_s", "seconds", "Warm: begin rounds early, so that a cutover takes no longer than this.", _seconds
        ),
    }
)

OF_MIGRATIONS: Mapping[str, Annotation] = MappingProxyType(
    {
        "acknowledge-rewind": Annotation(
            "acknowledged",
            "status commits",
            "Lost commits of the status branch, as condition StatusRewound names them: the run goes on from what git says now.",
            _commits,
        ),
    }
)
_OF_KIND: Mapping[str, Mapping[str, Annotation]] = MappingProxyType({"Plan": ANNOTATIONS, "Migration": OF_MIGRATIONS})


def read_annotations(doc: Document) -> tuple[dict[str, object], list[Problem]]:
    """PlanSpec or MigrationSpec fields that this manifest's annotations set."""
    values: dict[str, object] = {}
    problems: list[Problem] = []
    for key, text in doc.model.metadata.annotations.items():
        if not key.startswith(PREFIX):
            continue
        path = f"metadata.annotations.{key}"
        name, rows = key.removeprefix(PREFIX), _OF_KIND.get(doc.kind, {})
        row = rows.get(name)
        if row is None:
            known = [PREFIX + name for name in rows]
            homes = [f"{kind}s" for kind, table in _OF_KIND.items() if name in table]
            words = f'annotation "{key}" is for {homes[0]} only' if homes else f'unknown annotation "{key}"'
            problems.append(doc.problem(path, "UnknownAnnotation", words, did_you_mean(key, known)))
            continue
        try:
            values[row.field] = row.read(text.strip())
        except ValueError as err:
            problems.append(doc.problem(path, "NotAllowed", str(err), row.help))
    return values, problems
