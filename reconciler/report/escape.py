"""Hostile text made harmless: names, notes and vendor messages on their way into Markdown, commit messages and terminals.

What it is: pure text in, text out. What it is not: redaction of secrets (log.py). Every function gives one line.
"""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # controls, direction overrides, zero width, unassigned
_MARKDOWN = re.compile(r"[\\`*_{}\[\]#|~!$@]")
_ROUND = str.maketrans({"[": "(", "]": ")", "…": "...", "\u2019": "'"})
_COMMIT = re.compile(r"[^\w .,;:'()/+%=\-]")


def clean(text: str, limit: int | None = None) -> str:
    """One line without control or invisible characters (each becomes U+FFFD), cut to `limit` characters with an ellipsis."""
    flat = " ".join(text.split())
    seen = flat if flat.isprintable() else "".join("\ufffd" if unicodedata.category(c) in _UNSEEN else c for c in flat)
    return seen if limit is None or len(seen) <= limit else seen[: max(limit - 1, 0)].rstrip() + "…"


def markdown(text: str, limit: int | None = None) -> str:
    """Text for a Markdown table cell or list item: nothing in it is markup, HTML, a link, a mention or an entity."""
    out = clean(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    out = _MARKDOWN.sub(r"\\\g<0>", out)
    out = out.replace("://", "\\://")  # GitHub links bare addresses
    return re.sub(r"(?i)\b(www)\.", r"\1\\.", out)


def commit(text: str, limit: int | None = None) -> str:
    """Text for a commit message: a mention (@) or issue reference (#) becomes `?`, and brackets round, so that nobody can say [skip ci]."""
    return _COMMIT.sub("?", clean(text, limit).translate(_ROUND))


def link(path: str) -> str:
    """A relative path as a Markdown link target."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "/._-") else "".join(f"%{b:02X}" for b in c.encode()) for c in path)
