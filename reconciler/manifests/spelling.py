"""How names are written: snake_case here, camelCase in YAML, and the nearest known word for a misspelt one.

What it is: pure text. What it is not: a list of names. Used by the schema, the loader and the records.
"""

from __future__ import annotations

from collections.abc import Iterable


def camel(name: str) -> str:
    """skip_guest_conversion -> skipGuestConversion."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None. rapidfuzz is loaded here only, because most runs have no typing mistake."""
    from rapidfuzz import fuzz, process

    choices = list(known)
    for exact in choices:
        if exact.lower() == word.lower():
            return exact
    found = process.extractOne(word, choices, scorer=fuzz.ratio, processor=str.lower, score_cutoff=70)
    return str(found[0]) if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint, or "" when nothing is near."""
    found = nearest(word, known)
    return f"did you mean {found}?" if found else ""
