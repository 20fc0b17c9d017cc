"""What the process says on stderr: one JSON object or one readable line per event, with context, without secrets.

What it is: the logging set-up, the context fields (pass_id, plan, vm, phase) and the redactor. What it is not: called by the core, which
does not log. A secret is held back three ways: core.model.Secret prints as ***, a registered text is replaced wherever it stands in the
finished line, and user info in URLs is cut out.
"""

from __future__ import annotations

import base64
import contextvars
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO
from urllib.parse import quote

from reconciler.core.model import Secret

HIDDEN = "***"
_SHORTEST_SECRET = 4  # a shorter text stands in too many words to be cut out of them
_SHORTEST_PIECE = 8  # the same of base64
_USER_INFO = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.\-]{0,20}://)[^\s/@\"'<>]*(?:@[^\s/@\"'<>]*)*@")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_context: contextvars.ContextVar[dict[str, object] | None] = contextvars.ContextVar("reconciler_log_fields", default=None)


class LogFormat(StrEnum):
    JSON = "json"
    HUMAN = "human"


# ---- context --------------------------------------------------------------------------------------------------------------------------


@contextmanager
def fields(**values: object) -> Iterator[None]:
    """Add fields to every line logged inside. A thread pool's work needs `contextvars.copy_context().run` to carry them along."""
    token = _context.set({**(_context.get() or {}), **values})
    try:
        yield
    finally:
        _context.reset(token)


# ---- secrets --------------------------------------------------------------------------------------------------------------------------


class Redactor:
    """Knows the texts that must not be seen. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def register(self, text: str) -> None:
        """Also in the spellings of JSON, repr, URLs and base64; each line of a text of many lines counts alone, too."""
        pieces = {text, text.strip(), *(line.strip() for line in text.splitlines())}
        spellings = {s for p in pieces for s in _spellings(p)}
        with self._lock:
            if spellings <= self._texts:
                return
            self._texts |= spellings
            longest_first = sorted(self._texts, key=lambda s: (-len(s), s))
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def clean(self, text: str) -> str:
        pattern = self._pattern
        text = pattern.sub(HIDDEN, text) if pattern else text
        return _USER_INFO.sub(r"\1", text)


def _spellings(text: str) -> tuple[str, ...]:
    if len(text) < _SHORTEST_SECRET:
        return ()
    encoded = base64.b64encode(text.encode(errors="replace")).decode()
    in_url = quote(text, safe="", errors="replace")
    said = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1], in_url, encoded)
    return (*said, *_inside_base64(text.encode(errors="replace")))


def _inside_base64(secret: bytes) -> Iterator[str]:
    """What of it stands in the base64 of a longer text, at whichever of three places it begins there: a header's `user:password`."""
    for shift, begin in enumerate((0, 2, 3)):
        piece = base64.b64encode(b"\0" * shift + secret).decode()[begin : (shift + len(secret)) * 8 // 6]
        if len(piece) >= _SHORTEST_PIECE:
            yield piece


_redactor = Redactor()


def register_secret(text: str | Secret) -> None:
    """From now on this text shows as *** in every line. Texts under four characters cannot be cut out."""
    _redactor.register(text.reveal() if isinstance(text, Secret) else text)


def redact(text: str) -> str:
    """For text that leaves by another door than the log: conditions, exceptions, reports."""
    return _redactor.clean(text)


# ---- formats --------------------------------------------------------------------------------------------------------------------------


class _ContextFilter(logging.Filter):
    """On the handler: the fields are taken in the thread that logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in (_context.get() or {}).items():
            if name not in record.__dict__:
                setattr(record, name, value)
        return True


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in record.__dict__.items() if k not in _STANDARD and not k.startswith("_")}


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One object per line: time, level, logger, message, the fields, and a traceback as one text."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _stamp(record), "level": record.levelname.lower(), "logger": record.name, "message": redact(record.getMessage())}
        line = {**head, **{k: _simple(v) for k, v in _extras(record).items()}, **head}
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        return redact(json.dumps(line, ensure_ascii=False))


def _simple(value: object) -> object:
    """Numbers and flat lists as they are, anything else as its text; a Secret's text is ***.

    Redacted here, too: what is spelled by repr first and by JSON afterwards cannot be found in the finished line.
    """
    if isinstance(value, list | tuple | set | frozenset):
        return [_simple(v) if isinstance(v, str | int | float | bool | None) else redact(str(v)) for v in value]
    return value if isinstance(value, int | float | bool | None) else redact(str(value))


class HumanFormatter(logging.Formatter):
    """`14:03:22 INFO  snapshot requested  plan=shop-wave-1 vm=web-01`, traceback below. Control characters are shown, not sent."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {k}={_plain(v)}" for k, v in _extras(record).items())
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        line = _visible(f"{at} {record.levelname:<7} {redact(record.getMessage())}{' ' if pairs else ''}{pairs}")
        if record.exc_info:
            line += "\n" + "\n".join(_visible(part) for part in redact(self.formatException(record.exc_info)).splitlines())
        return redact(line)


def _plain(value: object) -> str:
    text = redact(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or re.search(r"[\s\"=]", text) else text


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second `configure` replaces this one and no other."""


def configure(format: LogFormat | str, level: str, stream: TextIO | None = None) -> None:
    """Send everything to stderr (or `stream`) in one format. May be called again; the last call counts.

    `level` is for our own loggers; libraries are heard from WARNING on: at DEBUG the kubernetes client logs bodies of Secrets.
    Errors: ValueError for an unknown format or level.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if LogFormat(format) is LogFormat.JSON else HumanFormatter())
    handler.addFilter(_ContextFilter())
    logging.getLogger("reconciler").setLevel(level.upper())
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for old in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.raiseExceptions = False  # its report of a bad format string would show the arguments, unredacted
