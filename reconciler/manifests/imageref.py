"""Whether a text names a container image, by the grammar that registries and kubelets share.

What it is: the first thing wrong, in a person's words. The text itself is never repeated: it may hold a password.
Source: github.com/distribution/reference; names are [HOST[:PORT]/]PATH[:TAG][@DIGEST].
"""

from __future__ import annotations

import re

EXAMPLE = "for example registry.example.com/infra/vddk:8.0.3"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?", re.ASCII)
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}", re.ASCII)


def fault(text: str) -> tuple[str, str] | None:
    """(message, hint), or None for an image's name."""
    if re.search(r"\s", text):
        return "is not the name of an image: it has white space in it", "one name, without blanks"
    if "://" in text:
        return "is a URL and not the name of an image", "leave out what stands before the registry, such as https://"
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        return "has no digest behind its @", "write @sha256: and 64 hex digits; a user or password never belongs in git"
    path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", None)
    if tag is not None and not _TAG.fullmatch(tag):
        return "has a tag that is none: letters, digits, '_', '.' and '-', at most 128", EXAMPLE
    first, slash, rest = path.partition("/")
    is_host = bool(slash) and (bool(re.search(r"[.:\[]", first)) or first == "localhost")
    if is_host and not _HOST.fullmatch(first):
        return "names no registry before its first /", EXAMPLE
    if not all(_PART.fullmatch(part) for part in (rest if is_host else path).split("/")):
        return "is not the name of an image: its path has lower-case letters, digits, '.', '_', '-' and '/' only", EXAMPLE
    return None
