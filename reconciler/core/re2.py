"""Go's regexp.ReplaceAllString on Python's `re`: the syntax both share, Go's replacement rules, no runaway patterns.

What it is: the one place where a template meets regular expressions. What it is not: RE2; what Go would not accept (look-around,
back-references) is refused, and so is what Python could not do in bounded time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise

MAX_PATTERN = 200
MAX_TEXT = 128
MAX_TRIES = 50_000_000  # the worst pattern takes seconds, not hours
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "punct": "!-/:-@\\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
    "blank": r"\t ",
}
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]|\(\??|\)|[*+?]|\{\d+(?:,\d*)?\}|.", re.DOTALL)
_IN_CLASS = re.compile(r"\\.|\[:(\^?[a-z]+):\]|.", re.DOTALL)
_GROUP = re.compile(r":|P?<[A-Za-z_]\w*>|[ims]*(?:-[ims]+)?[:)]", re.ASCII)
_COUNTED = re.compile(r"\{\d+(?:,\d*)?\}")
_REFERENCE = re.compile(r"\$(?:(\$)|\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))")


class PatternError(ValueError):
    """The pattern cannot be used; the text says why."""


def replace_all(pattern: str, text: str, replacement: str) -> str:
    """Errors: PatternError. An empty match right behind the previous match does not count, as in Go."""
    if len(text) > MAX_TEXT:
        raise PatternError(f"the text is longer than {MAX_TEXT} characters")
    compiled = _compile(pattern)
    out, at, last_end = [], 0, -1
    for match in compiled.finditer(text):
        if match.end() == match.start() == last_end:
            continue
        out += [text[at : match.start()], _expand(replacement, match)]
        at = last_end = match.end()
    return "".join(out) + text[at:]


def _compile(pattern: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"the pattern is longer than {MAX_PATTERN} characters")
    tokens = _TOKEN.findall(pattern)
    _refuse_runaway(tokens)
    try:
        return re.compile("".join(_translate(tokens)), re.ASCII)
    except (re.error, OverflowError, RecursionError) as err:
        raise PatternError(f"the pattern is wrong: {err}") from err


def _translate(tokens: list[str]) -> Iterator[str]:
    """Go's `$` is the end of the text only; `\\z`; POSIX classes; `(?<name>`."""
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else ""
        if token in {"$", r"\z"}:
            yield r"\Z"
        elif token.startswith("\\") and (token[1:] in "ZQECpPX" or token[1:].isdigit()):
            raise PatternError(f"{token} is not available")
        elif token == "[":
            raise PatternError("[ is never closed with ]")
        elif token.startswith("["):
            yield _character_class(token)
        elif token == "(?" and not _GROUP.match("".join(tokens[i + 1 :])):
            raise PatternError("look-around, back-references and comments are not available in Go patterns")
        elif token == "<" and before == "(?":
            yield "P<"
        elif token == "+" and (before in {"*", "+", "?"} or re.fullmatch(r"\{.+\}", before)):
            raise PatternError("a repeat cannot be repeated")
        else:
            yield token


def _character_class(token: str) -> str:
    """Python reads `[`, `&&`, `||` and `~~` inside a class as set operations to come; for Go they are plain characters."""
    start = re.match(r"\[\^?\]?", token)
    skip = start.end() if start else 1
    if "--" in token:
        raise PatternError(f"-- inside {token} is not available; escape it")
    body = [_class_member(match) for match in _IN_CLASS.finditer(token[skip:-1])]
    return token[:skip] + "".join(body) + "]"


def _class_member(match: re.Match[str]) -> str:
    if match[1]:
        if match[1] not in _POSIX:
            raise PatternError(f"there is no character class {match[0]}")
        return _POSIX[match[1]]
    return f"\\{match[0]}" if match[0] in "[&|~" else match[0]


def _refuse_runaway(tokens: list[str]) -> None:
    """Python's matcher tries every split of nested or of many repeats and choices; Go's does not. Bound the tries instead.

    A repeated group must hold no choice of its own; `repeats` free ends in a text of n make n^repeats / repeats! splits, a choice doubles.
    """
    stack = [False]  # per open group: can its content match in more than one way
    closed = False  # the group that ended right before this token can
    repeats = choices = 0
    for before, token in pairwise(["", *tokens]):
        if token in {"(", "(?"}:
            stack.append(False)
        elif token == ")" and len(stack) > 1:
            closed = stack.pop()
            stack[-1] = stack[-1] or closed
            continue
        elif token in {"*", "+"} or _COUNTED.fullmatch(token):
            if closed:
                raise PatternError("a repeated group may hold no repeat, ? or |; use a class such as [-_] in it")
            stack[-1] = True
            repeats += not re.fullmatch(r"\{\d+\}", token)
        elif token == "|" or (token == "?" and before not in {"*", "+", "?"} and not _COUNTED.fullmatch(before)):
            stack[-1] = True
            choices += 1
        closed = False
    if MAX_TEXT**repeats // math.factorial(repeats) << min(choices, 64) > MAX_TRIES:
        raise PatternError("the pattern has too many repeats and choices; use fewer of * + ? |")


def _expand(replacement: str, match: re.Match[str]) -> str:
    """`$1`, `${1}`, `$name`, `${name}`, `$$`. As in Go the longest name counts (`$1x` is `${1x}`) and an unknown one is empty."""

    def one(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        name = reference[2] or reference[3]
        key: str | int = int(name) if name.isdigit() else name
        try:
            return match[key] or ""
        except IndexError:
            return ""

    return _REFERENCE.sub(one, replacement)
