"""What we write into the description of a snapshot of ours, and how we read it back: its key, and the moment before it was made.

What it is: pure text. The key makes the snapshot ours; a snapshot without it is somebody else's, whatever its name. What it is not: a
place for anything that must not be seen.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

_KEY, _MOMENT = "reconciler key: ", "history before it: "
_NAME_CHARS = 48


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in the site's event history: all events with a greater key came later. `at` is the site's time of that event."""

    key: int
    at: datetime

    def __str__(self) -> str:
        return f"{self.key}@{self.at.astimezone(UTC).isoformat(timespec='microseconds')}"

    @classmethod
    def parse(cls, text: str) -> Moment | None:
        key, _, at = text.partition("@")
        try:
            return cls(int(key), datetime.fromisoformat(at).astimezone(UTC))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Note:
    key: str
    moment: Moment | None

    def __str__(self) -> str:
        lines = ["Made for the migration of this VM, and removed by it. Please leave it alone.", f"{_KEY}{self.key}"]
        return "\n".join([*lines, f"{_MOMENT}{self.moment}"] if self.moment is not None else lines)

    @classmethod
    def parse(cls, description: str) -> Note | None:
        """None for a snapshot that is not ours."""
        lines = description.splitlines()
        key = next((line.removeprefix(_KEY) for line in lines if line.startswith(_KEY)), "")
        moment = next((line.removeprefix(_MOMENT) for line in lines if line.startswith(_MOMENT)), "")
        return cls(key, Moment.parse(moment)) if key else None


def name_of(key: str) -> str:
    """A short name for people. Unlike the key it may be cut, and holds nothing that vSphere escapes in names."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", key).strip("-")[:_NAME_CHARS]
    return f"reconciler-{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
