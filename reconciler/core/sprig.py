"""The Sprig and built-in functions that name templates may call, with Sprig's argument order and arithmetic.

What it is: a table of signatures and functions, for core/gotemplate.py. What it is not: all of Sprig; Forklift offers exactly these.
Values are str, bool, int and float. Lengths and positions count UTF-8 bytes, as in Go. Source: github.com/Masterminds/sprig v3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from reconciler.core.re2 import replace_all

Value = str | bool | int | float
MAX_TEXT = 4096
MAX_INT = 2**63 - 1


class CallError(ValueError):
    """The function refuses its arguments; the text says why, without a position."""


class Kind(Enum):
    """What a parameter takes. NUMBER follows Sprig's cast: text that is no number counts as 0."""

    TEXT = "text"
    INT = "a whole number"
    NUMBER = "a number"
    ANY = "any value"


@dataclass(frozen=True, slots=True)
class Function:
    """`rest` is the kind of any further arguments; None: no more than `params`."""

    params: tuple[Kind, ...]
    call: Callable[..., Value]
    rest: Kind | None = None

    def apply(self, name: str, args: tuple[Value, ...]) -> Value:
        least = len(self.params)
        if len(args) < least or (self.rest is None and len(args) > least):
            more = "at least " if self.rest else ""
            raise CallError(f"{name} needs {more}{least} argument{'s' if least != 1 else ''}, not {len(args)}")
        kinds = self.params + (self.rest or Kind.ANY,) * (len(args) - least)
        checked = [_coerce(name, i, kind, value) for i, (kind, value) in enumerate(zip(kinds, args, strict=True), 1)]
        try:
            result = self.call(*checked)
        except ZeroDivisionError:
            raise CallError(f"{name} divides by zero") from None
        except (OverflowError, MemoryError):
            raise CallError(f"{name}: the number is too large") from None
        if isinstance(result, int) and not -MAX_INT <= result <= MAX_INT:
            raise CallError(f"{name}: the number is too large")
        if isinstance(result, str) and len(result) > MAX_TEXT:
            raise CallError(f"{name} makes more than {MAX_TEXT} characters")
        return result


def _coerce(name: str, position: int, kind: Kind, value: Value) -> Value:
    good = {
        Kind.ANY: True,
        Kind.TEXT: isinstance(value, str),
        Kind.INT: isinstance(value, int) and not isinstance(value, bool),
        Kind.NUMBER: True,
    }[kind]
    if not good:
        raise CallError(f"{name}: argument {position} must be {kind.value}, not {describe(value)}")
    return value


def describe(value: Value) -> str:
    match value:
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number with a fraction"
        case _:
            return "text"


def truth(value: Value) -> bool:
    """Go's truth: an empty text, 0 and false are false."""
    return bool(value)


def to_text(value: Value) -> str:
    """As Go's %v prints it: true, 3, 2.5; a float that is whole has no point."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
        case _:
            return str(value)


def _int(value: Value) -> int:
    if isinstance(value, str):
        return int(value, 10) if re.fullmatch(r"[+-]?[0-9]{1,19}", value) else 0
    return int(value)


def _float(value: Value) -> float:
    if isinstance(value, str):
        return float(value) if re.fullmatch(r"[+-]?[0-9]{1,19}(\.[0-9]{1,19})?", value) else 0.0
    return float(value)


# ---- text -----------------------------------------------------------------------------------------------------------------------------


def _cut(text: str, start: int | None, end: int | None) -> str:
    return text.encode()[start:end].decode(errors="replace")


def _trunc(count: int, text: str) -> str:
    length = len(text.encode())
    if count < 0 and length + count > 0:
        return _cut(text, length + count, None)
    return _cut(text, None, count) if 0 <= count < length else text


def _substr(start: int, end: int, text: str) -> str:
    """Sprig: a negative start means from the beginning, a negative or too large end means to the end."""
    length = len(text.encode())
    if start < 0:
        start = 0
        if not 0 <= end <= length:
            raise CallError(f"substr: end {end} is outside of a text of {length} bytes")
    if end < 0 or end > length:
        end = length
    if start > end:
        raise CallError(f"substr: start {start} is behind end {end}")
    return _cut(text, start, end)


def _repeat(count: int, text: str) -> str:
    if count < 0:
        raise CallError("repeat: the count is negative")
    if count * len(text) > MAX_TEXT:
        raise CallError(f"repeat makes more than {MAX_TEXT} characters")
    return text * count


def _title(text: str) -> str:
    """Go's strings.Title: a word begins behind anything but letters, digits and `_` (outside ASCII: behind space)."""
    out, before = [], " "
    for char in text:
        separates = before.isspace() if ord(before) > 127 else not (before.isalnum() or before == "_")
        out.append(char.title() if separates and len(char.title()) == 1 else char)
        before = char
    return "".join(out)


def _untitle(text: str) -> str:
    return re.sub(r"(^|\s)(\S)", lambda m: m[1] + m[2].lower(), text)


def _initials(text: str) -> str:
    return "".join(word[0] for word in text.split())


# ---- numbers --------------------------------------------------------------------------------------------------------------------------


def _div(a: Value, b: Value) -> int:
    """Go cuts towards zero."""
    x, y = _int(a), _int(b)
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def _mod(a: Value, b: Value) -> int:
    """Go: the sign of the dividend."""
    return _int(a) - _int(b) * _div(a, b)


def _round(value: Value, places: int, *on: Value) -> float:
    """Sprig: up from .5 (or `on`) of the fraction; a negative fraction always goes down."""
    power = math.pow(10, places)
    digit = power * _float(value)
    up = math.modf(digit)[0] >= (_float(on[0]) if on else 0.5)
    return float(math.ceil(digit) if up else math.floor(digit)) / power


# ---- comparison -----------------------------------------------------------------------------------------------------------------------


def _same_kind(name: str, a: Value, b: Value) -> None:
    if describe(a) != describe(b):
        raise CallError(f"{name} cannot compare {describe(a)} with {describe(b)}")


def _eq(a: Value, *others: Value) -> bool:
    for b in others:
        _same_kind("eq", a, b)
    return a in others


def _ne(a: Value, b: Value) -> bool:
    _same_kind("ne", a, b)
    return a != b


def _less(name: str, a: Value, b: Value) -> bool:
    _same_kind(name, a, b)
    if isinstance(a, bool):
        raise CallError(f"{name} cannot order {describe(a)}")
    return a < b  # type: ignore[operator]  # both are of one kind now, and not bool


T, I, N, A = Kind.TEXT, Kind.INT, Kind.NUMBER, Kind.ANY  # noqa: E741

FUNCTIONS: Mapping[str, Function] = {
    "lower": Function((T,), str.lower),
    "upper": Function((T,), str.upper),
    "contains": Function((T, T), lambda part, text: part in text),
    "replace": Function((T, T, T), lambda old, new, text: text.replace(old, new)),
    "trim": Function((T,), str.strip),
    "trimAll": Function((T, T), lambda chars, text: text.strip(chars) if chars else text),
    "trimSuffix": Function((T, T), lambda suffix, text: text.removesuffix(suffix)),
    "trimPrefix": Function((T, T), lambda prefix, text: text.removeprefix(prefix)),
    "title": Function((T,), _title),
    "untitle": Function((T,), _untitle),
    "repeat": Function((I, T), _repeat),
    "substr": Function((I, I, T), _substr),
    "nospace": Function((T,), lambda text: "".join(text.split())),
    "trunc": Function((I, T), _trunc),
    "initials": Function((T,), _initials),
    "hasPrefix": Function((T, T), lambda prefix, text: text.startswith(prefix)),
    "hasSuffix": Function((T, T), lambda suffix, text: text.endswith(suffix)),
    "mustRegexReplaceAll": Function((T, T, T), replace_all),
    "add": Function((), lambda *n: sum(map(_int, n)), N),
    "add1": Function((N,), lambda n: _int(n) + 1),
    "sub": Function((N, N), lambda a, b: _int(a) - _int(b)),
    "div": Function((N, N), _div),
    "mod": Function((N, N), _mod),
    "mul": Function((N,), lambda *n: math.prod(map(_int, n)), N),
    "max": Function((N,), lambda *n: max(map(_int, n)), N),
    "min": Function((N,), lambda *n: min(map(_int, n)), N),
    "floor": Function((N,), lambda n: float(math.floor(_float(n)))),
    "ceil": Function((N,), lambda n: float(math.ceil(_float(n)))),
    "round": Function((N, I), _round, N),
    "eq": Function((A, A), _eq, A),
    "ne": Function((A, A), _ne),
    "lt": Function((A, A), lambda a, b: _less("lt", a, b)),
    "le": Function((A, A), lambda a, b: not _less("le", b, a)),
    "gt": Function((A, A), lambda a, b: _less("gt", b, a)),
    "ge": Function((A, A), lambda a, b: not _less("ge", a, b)),
    "not": Function((A,), lambda value: not truth(value)),
}
