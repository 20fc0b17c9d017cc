"""Kubernetes quantities ("10Gi", "1500m", "2e9") to whole bytes and back. Pure.

Source: apimachinery `resource.Quantity`: binary suffixes Ki…Ei, decimal n u m k M G T P E, or an exponent.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

_SHAPE = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")
_BINARY = {f"{letter}i": Fraction(1024) ** (n + 1) for n, letter in enumerate("KMGTPE")}
_DECIMAL = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000)} | {
    letter: Fraction(1000) ** (n + 1) for n, letter in enumerate("kMGTPE")
}


def to_bytes(text: str | int) -> int:
    """Bytes, fractions rounded up as the API server does for storage. Errors: ValueError."""
    match = _SHAPE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    number, suffix = match.groups()
    factor = _BINARY.get(suffix or "") or _DECIMAL.get(suffix or "") or Fraction(10) ** int((suffix or "e0")[1:])
    return math.ceil(Fraction(number) * factor)


def from_bytes(size: int) -> str:
    """The shortest exact form: the biggest binary suffix that divides `size`."""
    for suffix in ("Gi", "Mi", "Ki"):
        if size and size % _BINARY[suffix] == 0:
            return f"{size // int(_BINARY[suffix])}{suffix}"
    return str(size)
