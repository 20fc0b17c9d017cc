"""Plain data -> YAML text: block style, keys in the order given, the same data always as the same bytes.

What it is: a small writer for dict, list, text, numbers, booleans and null. What it is not: a general dumper. It exists because the
status branch has tens of thousands of small files: this is many times faster than a representer and an emitter, and its quoting is
stricter: any text that some parser (YAML 1.1 included) could take for something else is quoted, and nothing unprintable is written raw.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from json.encoder import encode_basestring

_PLAIN = re.compile(r"[A-Za-z_/][-A-Za-z0-9_./@+()]*(?: [-A-Za-z0-9_./@+()]+)*", re.ASCII)
_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
_UNSAFE = re.compile("[\x7f-\xa0\xad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\uffff]")
_NOT_LITERAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\uffff]")
_KEY_LIMIT = 500  # libyaml takes at most 1024 characters before the colon; every one may be escaped


def dump(data: Mapping[str, object]) -> bytes:
    out: list[str] = []
    _mapping(data, "", out)
    return "".join(out).encode("utf-8")


def _mapping(data: Mapping[str, object], indent: str, out: list[str]) -> None:
    """Writes lines; the caller has written the indent of the first one."""
    if not data:
        out.append("{}\n")
        return
    first = True
    for key, value in data.items():
        if not first:
            out.append(indent)
        first = False
        written = _quoted(key) if "\n" in key else scalar(key)
        out.append(f"{written}:" if len(written) <= _KEY_LIMIT else f"? {written}\n{indent}:")
        _value(value, indent, out)


def _value(value: object, indent: str, out: list[str]) -> None:
    """After `key:`. Lists stand at the indent of their key, as kubectl prints them."""
    if isinstance(value, str):
        out.append(f" {_literal(value, indent + '  ')}\n" if "\n" in value else f" {scalar(value)}\n")
    elif isinstance(value, Mapping):
        out.append(f"\n{indent}  " if value else " ")
        _mapping(value, indent + "  ", out)
    elif isinstance(value, list | tuple):
        _list(value, indent, out)
    else:
        out.append(f" {scalar(value)}\n")


def _list(items: list[object] | tuple[object, ...], indent: str, out: list[str]) -> None:
    if not items:
        out.append(" []\n")
        return
    out.append("\n")
    for item in items:
        if isinstance(item, Mapping):
            out.append(f"{indent}- ")
            _mapping(item, indent + "  ", out)
        elif isinstance(item, str):
            out.append(f"{indent}- {_literal(item, indent + '  ') if chr(10) in item else scalar(item)}\n")
        else:
            out.append(f"{indent}-")
            _value(item, indent + "  ", out)


def scalar(value: object) -> str:
    """One line. Text that looks like anything but text is quoted, and so is every time."""
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _WORDS and len(value) <= _KEY_LIMIT
        return value if plain else _quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    raise TypeError(f"{type(value).__name__} cannot be written as YAML")


def _float(value: float) -> str:
    """A float stays a float: 1e16 would be text for some parsers, 1.0e+16 is a number for all."""
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def _quoted(text: str) -> str:
    """Double quotes. JSON's escapes are YAML's too, except that YAML has no surrogate pairs: other characters stand as they are."""
    return _UNSAFE.sub(_escape, encode_basestring(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xD800 <= code <= 0xDFFF:
        return "\\uFFFD"  # half a character: no encoding of YAML can hold it
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def _literal(text: str, indent: str) -> str:
    """Several lines as a literal block where that is exact, else quoted."""
    body = text.removesuffix("\n")
    lines = body.split("\n")
    exact = body and not body.endswith("\n") and lines[0] and lines[0][0] not in " \t" and not _NOT_LITERAL.search(text)
    if not exact or any(line and line.isspace() for line in lines):
        return _quoted(text)
    chomp = "" if body != text else "-"
    return f"|{chomp}\n" + "\n".join(indent + line if line else "" for line in lines)
