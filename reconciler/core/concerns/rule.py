"""What a concern and a rule are, and how a rule reads a workload document.

What it is: the few readings that keep Forklift's policy semantics: an attribute that is missing makes a test undefined, and an
undefined test raises nothing, also inside a negation. What it is not: the rules (one module per platform).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from enum import StrEnum

Document = Mapping[str, object]
Finding = Mapping[str, object]  # what label and assessment name: {} when the rule is about the VM as a whole

MAX_DISKS = 165
UNSUPPORTED_UNLESS_NAMED = re.compile(
    r"red hat enterprise linux (7|8|9|10)|windows 10|windows 11|windows server (2016|2019|2022|2025)", re.IGNORECASE
)
_VALID_NAME = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9.]*)?[A-Za-z0-9])?")


class ConcernCategory(StrEnum):
    """Spelled as the policies do; condition categories are another set of words."""

    CRITICAL = "Critical"
    WARNING = "Warning"
    INFORMATION = "Information"


@dataclass(frozen=True, slots=True, order=True)
class Concern:
    """One finding about one VM. Label and assessment may hold names from the source: hostile text."""

    id: str
    category: ConcernCategory
    label: str
    assessment: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`find` yields one mapping per concern; its values fill the braces of label and assessment."""

    id: str
    category: ConcernCategory
    label: str
    assessment: str
    find: Callable[[Document], Iterable[Finding]]

    def concerns(self, doc: Document) -> Iterator[Concern]:
        for found in self.find(doc):
            yield Concern(self.id, self.category, self.label.format_map(found), self.assessment.format_map(found))


class _Missing:
    """The undefined value: equal to nothing, not even itself, so no comparison with it can hold."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


MISSING: object = _Missing()


def read(doc: object, *path: str) -> object:
    """The value at a path of object keys, or MISSING."""
    for name in path:
        if not (type(doc) is dict or isinstance(doc, Mapping)) or name not in doc:  # the first is the usual case, and asked often
            return MISSING
        doc = doc[name]
    return doc


def items(doc: object, *path: str) -> Sequence[object]:
    """The elements of a list; nothing when it is missing, null or no list."""
    value = read(doc, *path)
    if isinstance(value, list | tuple):
        return value
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def truthy(value: object) -> bool:
    """As a bare policy expression: defined and not false. 0, "" and null hold."""
    return value is not MISSING and value is not False


def number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def matches(value: object, pattern: str) -> bool:
    """Policies search anywhere in the text, case-sensitive, unless a pattern has anchors; what is no text matches nothing."""
    return isinstance(value, str) and re.search(pattern, value) is not None


def count(value: object) -> int | None:
    """Length of a list, object or text; undefined (None) for anything else, null too."""
    return len(value) if isinstance(value, Sized) and isinstance(value, Sequence | Mapping | set | frozenset) else None


def when(test: Callable[[Document], bool]) -> Callable[[Document], Iterable[Finding]]:
    """A rule about the VM as a whole: one concern if the test holds."""
    return lambda doc: ({},) if test(doc) else ()


def is_true(*path: str) -> Callable[[Document], Iterable[Finding]]:
    return when(lambda doc: read(doc, *path) is True)


def is_truthy(*path: str) -> Callable[[Document], Iterable[Finding]]:
    return when(lambda doc: truthy(read(doc, *path)))


def not_empty(*path: str) -> Callable[[Document], Iterable[Finding]]:
    return when(lambda doc: bool(count(read(doc, *path))))


def too_many(name: str) -> Callable[[Document], Iterable[Finding]]:
    """More disks than a KubeVirt VM can be given."""

    def find(doc: Document) -> Iterable[Finding]:
        disks = count(read(doc, name))
        return ({"count": disks},) if disks is not None and disks > MAX_DISKS else ()

    return find


def invalid_name(doc: Document) -> bool:
    """True for a name that cannot become a Kubernetes name as it stands. Upper case and the empty name pass, as in the policies."""
    name = read(doc, "name")
    return isinstance(name, str) and not (_VALID_NAME.fullmatch(name) and len(name) < 64)
