"""Credentials for HTTP, read from the files that a Secret is mounted as: a session cookie, or user and password.

What it is: the header to send, what to do after a 401, and which texts must never be shown. What it is not: a login.
Where it stands: one per endpoint, shared by all connections to it. Thread-safe.
"""

from __future__ import annotations

import base64
import threading
from pathlib import Path

from reconciler.core.model import Secret


class FileAuth:
    """A cookie goes first. With user and password, a cookie that the server hands out is used from then on: vCenter opens a new session
    for each basic login, and has a limit of them."""

    def __init__(self, folder: Path | None) -> None:
        """None: nothing to show."""
        self._folder = folder
        self._lock = threading.Lock()
        self._generation = 0
        self._cookie: Secret | None = None
        self._basic: Secret | None = None
        self._load()

    def headers(self) -> tuple[int, dict[str, str]]:
        """(generation, headers): hand the generation back to `renew`, so that many connections renew once."""
        with self._lock:
            if self._cookie is not None:
                return self._generation, {"Cookie": self._cookie.reveal()}
            if self._basic is not None:
                return self._generation, {"Authorization": f"Basic {self._basic.reveal()}"}
            return self._generation, {}

    def learn(self, set_cookie: str) -> None:
        pair = set_cookie.partition(";")[0].strip()
        with self._lock:
            if self._basic is not None and pair.partition("=")[2].strip('"'):
                self._cookie = Secret(pair)

    def renew(self, seen: int) -> None:
        """Read the files again (kubelet swaps them when the Secret changes); the same dead cookie gives way to user and password."""
        with self._lock:
            if seen != self._generation:
                return
            self._generation += 1
            dead = self._cookie
            self._load()
            if self._cookie == dead and self._basic is not None:
                self._cookie = None

    def secrets(self) -> tuple[str, ...]:
        """Texts to strike out of anything that is printed."""
        with self._lock:
            held = [s.reveal() for s in (self._cookie, self._basic) if s is not None]
        return tuple(text for text in (*held, self._read("password"), self._read("cookie")) if text)

    def _load(self) -> None:
        cookie, user, password = self._read("cookie"), self._read("user"), self._read("password")
        self._cookie = Secret(cookie) if cookie else None
        self._basic = Secret(base64.b64encode(f"{user}:{password}".encode()).decode()) if user and password is not None else None

    def _read(self, name: str) -> str | None:
        if self._folder is None:
            return None
        try:
            return (self._folder / name).read_text().rstrip("\r\n")
        except FileNotFoundError:
            return None
