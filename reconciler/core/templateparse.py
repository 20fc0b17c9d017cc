"""Text -> Template of core/gotemplate.py: recursive descent over literal text and the tokens of each `{{…}}`.

What it is: the syntax, and the check that every function and variable exists, in branches not taken, too. What it is not: evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.core.gotemplate import LAZY, Const, Field, If, Name, Node, Operand, Pipe, Template, TemplateError, error_at
from reconciler.core.sprig import FUNCTIONS, MAX_INT, MAX_TEXT, Value

MAX_DEPTH = 100
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
      | (?P<char>'(?:\\.|[^'\\\n])')
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.]))
      | (?P<field>\$?\.[A-Za-z_]\w*(?:\.\w+)*)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<mark>[()|])""",
    re.VERBOSE,
)


def parse(source: str, variables: frozenset[str]) -> Template:
    """Errors: TemplateError for a syntax error, an unknown function or a variable that is not in `variables`."""
    if len(source) > MAX_TEXT:
        raise TemplateError(f"the template is longer than {MAX_TEXT} characters")
    if source.count("(") > MAX_DEPTH or source.count("{{") > MAX_DEPTH:
        raise TemplateError(f"the template has more than {MAX_DEPTH} parentheses or actions")
    parser = _Parser(source, variables)
    nodes, end = parser.block()
    if end:
        raise parser.error(end[1], f"{{{{{end[0]}}}}} without {{{{if}}}}")
    return Template(source, nodes)


@dataclass(frozen=True, slots=True)
class _Token:
    at: int
    kind: str
    text: str


class _Parser:
    """Recursive descent over the pieces of the template; a piece is literal text or the tokens of one `{{…}}`."""

    def __init__(self, source: str, variables: frozenset[str]) -> None:
        self.source = source
        self.variables = variables
        self.pieces = self._pieces()

    def error(self, at: int, text: str) -> TemplateError:
        return error_at(self.source, at, text)

    def _pieces(self) -> Iterator[str | tuple[_Token, ...]]:
        at, trim = 0, False
        while at < len(self.source):
            start = self.source.find("{{", at)
            text = self.source[at : start if start >= 0 else None]
            text = text.lstrip(" \t\r\n") if trim else text
            if start < 0:
                if text:
                    yield text
                return
            inner = start + 2
            if re.match(r"-\s", self.source[inner : inner + 2]):
                text, inner = text.rstrip(" \t\r\n"), inner + 1
            if text:
                yield text
            tokens, at, trim = self._action(start, inner)
            if tokens is not None:
                yield tokens

    def _action(self, start: int, at: int) -> tuple[tuple[_Token, ...] | None, int, bool]:
        """Tokens of one action (None: a comment), where it ends, and whether it trims what follows."""
        comment = re.compile(r"\s*/\*.*?\*/\s*?(\s-)?\}\}", re.DOTALL).match(self.source, at)
        if comment:
            return None, comment.end(), bool(comment[1])
        tokens: list[_Token] = []
        while True:
            end = re.compile(r"(\s+-)?\}\}").match(self.source, at)
            if end:
                return tuple(tokens), end.end(), bool(end[1])
            match = _TOKEN.match(self.source, at)
            if match is None:
                raise self._unreadable(start, at)
            if match.lastgroup != "space":
                tokens.append(_Token(at, str(match.lastgroup), match[0]))
            at = match.end()

    def _unreadable(self, start: int, at: int) -> TemplateError:
        if at >= len(self.source):
            return self.error(start, "{{ is never closed with }}")
        char = self.source[at]
        if char in "\"'`":
            return self.error(at, "the text that begins here has no closing quote")
        if char == "$" or self.source.startswith(":=", at):
            return self.error(at, "template variables ($name) are not available")
        if char == "." and not self.source[at + 1 : at + 2].isalnum():
            return self.error(at, "a variable needs a name, for example .VmName")
        return self.error(at, f"unexpected {char!r}")

    def block(self) -> tuple[tuple[Node, ...], tuple[str, int, tuple[_Token, ...]] | None]:
        """Nodes up to `else`, `end` or the end of the template; then (that keyword, its place, the tokens behind it)."""
        nodes: list[Node] = []
        for piece in self.pieces:
            if isinstance(piece, str):
                nodes.append(piece)
                continue
            if not piece:
                raise TemplateError("{{ }} is empty; write a variable, for example {{.VmName}}")
            first, rest = piece[0], piece[1:]
            match first.text if first.kind == "name" else "":
                case "if":
                    nodes.append(self._if(first.at, rest))
                case "end" if rest:
                    raise self.error(rest[0].at, "nothing may follow end")
                case "else" | "end":
                    return tuple(nodes), (first.text, first.at, rest)
                case "range" | "with" | "define" | "template" | "block" | "break" | "continue" as word:
                    raise self.error(first.at, f"{word} is not available in name templates")
                case _:
                    nodes.append(self._whole_pipe(piece))
        return tuple(nodes), None

    def _if(self, at: int, tokens: tuple[_Token, ...]) -> If:
        if not tokens:
            raise self.error(at, "if needs a condition")
        condition = self._whole_pipe(tokens)
        then, stop = self.block()
        otherwise: tuple[Node, ...] = ()
        if stop and stop[0] == "else":
            _, else_at, rest = stop
            if rest and rest[0].text == "if":
                return If(condition, then, (self._if(else_at, rest[1:]),))
            if rest:
                raise self.error(rest[0].at, "only if may follow else")
            otherwise, stop = self.block()
        if stop is None:
            raise self.error(at, "{{if}} has no {{end}}")
        if stop[0] == "else":
            raise self.error(stop[1], "a second {{else}}")
        return If(condition, then, otherwise)

    def _whole_pipe(self, tokens: tuple[_Token, ...]) -> Pipe:
        pipe, used = self._pipe(tokens, 0)
        if used < len(tokens):
            raise self.error(tokens[used].at, ") without (")
        return pipe

    def _pipe(self, tokens: tuple[_Token, ...], i: int) -> tuple[Pipe, int]:
        start = tokens[min(i, len(tokens) - 1)].at
        commands: list[tuple[Operand, ...]] = []
        command: list[Operand] = []
        while i < len(tokens) and tokens[i].text != ")":
            token = tokens[i]
            i += 1
            if token.text == "|" and token.kind == "mark":
                if not command:
                    raise self.error(token.at, "nothing stands before |")
                commands.append(tuple(command))
                command = []
            elif token.text == "(" and token.kind == "mark":
                inner, i = self._pipe(tokens, i)
                if i >= len(tokens):
                    raise self.error(token.at, "( is never closed")
                i += 1
                command.append(inner)
            else:
                command.append(self._operand(token))
        if not command:
            raise self.error(tokens[min(i, len(tokens) - 1)].at, "a value is missing here")
        commands.append(tuple(command))
        self._check_calls(commands)
        return Pipe(start, tuple(commands)), i

    def _check_calls(self, commands: list[tuple[Operand, ...]]) -> None:
        for number, (head, *arguments) in enumerate(commands):
            if not isinstance(head, Name) and (arguments or number):
                raise self.error(head.at, "only a function can take arguments or stand behind |")

    def _operand(self, token: _Token) -> Operand:
        match token.kind:
            case "string":
                return Const(token.at, self._string(token))
            case "char":
                return Const(token.at, ord(self._unescape(token, token.text[1:-1])))
            case "number":
                return Const(token.at, self._number(token))
            case "field":
                return self._field(token)
            case _ if token.text in ("true", "false"):
                return Const(token.at, token.text == "true")
            case _ if token.text in FUNCTIONS or token.text in LAZY:
                return Name(token.at, token.text)
            case _:
                hint = f"; did you mean .{token.text}" if token.text in self.variables else ""
                raise self.error(token.at, f"there is no function {token.text}{hint}")

    def _field(self, token: _Token) -> Field:
        name = token.text.lstrip("$")[1:]
        if name not in self.variables:
            known = ", ".join(f".{v}" for v in sorted(self.variables))
            raise self.error(token.at, f"there is no variable .{name}; available are {known}")
        return Field(token.at, name)

    def _number(self, token: _Token) -> Value:
        text = token.text
        if re.search(r"[.eE]", text) and not re.match(r"[+-]?0[xX]", text):
            value: int | float = float(text)
        else:
            value = int(text, 0) if re.match(r"[+-]?0[xXbBoO]", text) else int(text, 10)
        if abs(value) > MAX_INT:
            raise self.error(token.at, "the number is too large")
        return value

    def _string(self, token: _Token) -> str:
        return token.text[1:-1] if token.text[0] == "`" else self._unescape(token, token.text[1:-1])

    def _unescape(self, token: _Token, text: str) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1]:
                return chr(int(match[1][1:], 16))
            if match[2] not in _ESCAPES:
                raise self.error(token.at, f"unknown escape \\{match[2]}; write \\\\ for a backslash, or use `…`")
            return _ESCAPES[match[2]]

        return re.sub(r"\\(?:(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})|(.))", one, text)
