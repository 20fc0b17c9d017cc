"""A small subset of Go's text/template, enough for Forklift's name templates: the nodes, and rendering them (templateparse.py reads text).

What it is: literals, `.Var`, pipelines, parentheses, `if / else if / else / end`, comments, trim markers, the functions of core/sprig.py
and `and` and `or`. What it is not: range, with, define, variables, printf. Unknown names are found in branches not taken, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from reconciler.core.re2 import PatternError
from reconciler.core.sprig import FUNCTIONS, CallError, Value, to_text, truth

LAZY = frozenset({"and", "or"})


class TemplateError(ValueError):
    """What is wrong and where: `line 1, column 4: …`."""


@dataclass(frozen=True, slots=True)
class Const:
    at: int
    value: Value


@dataclass(frozen=True, slots=True)
class Field:
    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Name:
    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Pipe:
    at: int
    commands: tuple[tuple[Operand, ...], ...]


Operand = Const | Field | Name | Pipe


@dataclass(frozen=True, slots=True)
class If:
    condition: Pipe
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...]


Node = str | Pipe | If


@dataclass(frozen=True, slots=True)
class Template:
    source: str
    nodes: tuple[Node, ...]

    def render(self, data: Mapping[str, Value]) -> str:
        """Errors: TemplateError (a function refuses its arguments, the text grows beyond reason)."""
        return _Run(self.source, data).text(self.nodes)


def error_at(source: str, at: int, text: str) -> TemplateError:
    line = source.count("\n", 0, at) + 1
    column = at - (source.rfind("\n", 0, at) + 1) + 1
    return TemplateError(f"line {line}, column {column}: {text}")


class _Run:
    """One rendering."""

    def __init__(self, source: str, data: Mapping[str, Value]) -> None:
        self.source = source
        self.data = data

    def text(self, nodes: tuple[Node, ...]) -> str:
        out: list[str] = []
        for node in nodes:
            match node:
                case str():
                    out.append(node)
                case Pipe():
                    out.append(to_text(self.value(node)))
                case If(condition, then, otherwise):
                    out.append(self.text(then if truth(self.value(condition)) else otherwise))
        return "".join(out)

    def value(self, operand: Operand) -> Value:
        match operand:
            case Const():
                return operand.value
            case Field():
                return self.data[operand.name]
            case Name():
                return self._call(operand, (), ())
            case Pipe():
                carried: tuple[Value, ...] = ()
                for head, *arguments in operand.commands:
                    carried = (self._call(head, tuple(arguments), carried) if isinstance(head, Name) else self.value(head),)
                return carried[0]

    def _call(self, function: Name, arguments: tuple[Operand, ...], piped: tuple[Value, ...]) -> Value:
        if function.name in LAZY:
            return self._and_or(function, arguments, piped)
        values = tuple(self.value(a) for a in arguments) + piped
        try:
            return FUNCTIONS[function.name].apply(function.name, values)
        except (CallError, PatternError) as err:
            raise error_at(self.source, function.at, str(err)) from err

    def _and_or(self, function: Name, arguments: tuple[Operand, ...], piped: tuple[Value, ...]) -> Value:
        """The first value that decides, else the last; what stands behind it is not evaluated."""
        stop = function.name == "or"
        last: Value | None = None
        for last in chain(map(self.value, arguments), piped):
            if truth(last) is stop:
                return last
        if last is None:
            raise error_at(self.source, function.at, f"{function.name} needs at least 1 argument, not 0")
        return last
