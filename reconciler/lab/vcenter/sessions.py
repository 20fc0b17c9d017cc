"""Sessions of the simulated vCenter: cookies, log-in, idle time-out. Views, filters and pages belong to a session and die with it.

Where it stands: asked by calls.py and folder.py before anything else. Time is the lab's clock.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from reconciler.lab.world import World

COOKIE = "vmware_soap_session"
_COOKIE = re.compile(rf'{COOKIE}="?([^";,\s]+)')


@dataclass(slots=True)
class Session:
    key: str
    user: str
    login_at: datetime
    used_at: datetime
    used_s: float  # on the lab clock's monotonic scale
    views: dict[str, Any] = field(default_factory=dict)
    collectors: dict[str, Any] = field(default_factory=dict)
    pages: dict[str, Any] = field(default_factory=dict)
    numbers: int = 0

    def number(self) -> int:
        self.numbers += 1
        return self.numbers


class Sessions:
    """Called under the world's lock."""

    def __init__(self, world: World, user: str, password: str, idle_s: float) -> None:
        self._world = world
        self.user = user
        self.password = password
        self.idle_s = idle_s
        self.open: dict[str, Session] = {}

    def is_right(self, user: str, password: str) -> bool:
        """User names are compared without case, as vCenter's identity sources do."""
        right = hmac.compare_digest(password.encode(), self.password.encode())
        return right and user.lower() == self.user.lower()

    def login(self, user: str) -> Session:
        key, now = self._world.uuid().replace("-", ""), self._world.now()
        self.open[key] = made = Session(key, user, now, now, self._world.clock.monotonic())
        return made

    def by_cookie(self, header: str) -> Session | None:
        """The live session of a Cookie header; using it keeps it alive."""
        found = _COOKIE.search(header)
        session = self.open.get(found.group(1)) if found else None
        if session is None:
            return None
        clock = self._world.clock
        if clock.monotonic() - session.used_s > self.idle_s:
            del self.open[session.key]
            return None
        session.used_s, session.used_at = clock.monotonic(), self._world.now()
        return session

    def by_basic(self, header: str) -> bool:
        """True for HTTP basic credentials that would log in."""
        scheme, _, blob = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(blob, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return self.is_right(user, password)

    def drop(self, session: Session | None) -> None:
        if session is not None:
            self.open.pop(session.key, None)

    def drop_all(self) -> None:
        """Every client's next call finds itself logged out."""
        self.open.clear()
