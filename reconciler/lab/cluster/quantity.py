"""Resource quantities ("10Gi", "500m", "1.5G") as exact numbers, and back."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1)} | {
    suffix: Fraction(10 ** (3 * (power + 1))) for power, suffix in enumerate("kMGTPE")
}
_FORM = re.compile(r"^(?P<number>[+-]?(\d+(\.\d*)?|\.\d+))(?P<suffix>[KMGTPE]i|[numkMGTPE]?|[eE][+-]?\d+)$")


def parse(text: object) -> Fraction:
    """Errors: ValueError for what the API calls a malformed quantity."""
    match = _FORM.match(str(text))
    if match is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, suffix = Fraction(match["number"]), match["suffix"]
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    if suffix in _DECIMAL:
        return number * _DECIMAL[suffix]
    return number * Fraction(10) ** int(suffix[1:])


def render(value: Fraction) -> str:
    """The largest binary unit that keeps it whole; plain or milli otherwise."""
    if value.denominator != 1:
        return f"{-(-value.numerator * 1000 // value.denominator)}m"
    whole = value.numerator
    for suffix, unit in reversed(_BINARY.items()):
        if whole and whole % unit == 0:
            return f"{whole // unit}{suffix}"
    return str(whole)


def storage_of(claim: dict[str, Any]) -> str:
    """The size that a PersistentVolumeClaim asks for; "0" when it names none, which only an arranged object can."""
    return str(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))
