"""Numbers and times as people write them. Pure; shared by every report.

What it is: bytes, seconds, moments and counts as short texts. What it is not: anything that knows a record. No text changes by the mere
passing of time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 or value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def size_of(done: int, total: int) -> str:
    """`36 of 80 GiB`; the unit once where both have the same, and the number once where all is done."""
    if done >= total:
        return size(total)
    part, whole = size(done), size(total)
    return f"{part.removesuffix(' ' + whole.split()[1])} of {whole}"


def duration(seconds: float) -> str:
    if 0 < seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    hours, minutes = divmod(whole // 60, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def when(at: datetime | None) -> str:
    """A fixed moment, in UTC; never `5 minutes ago`, which would change by itself."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else ""


def day_and_time(at: datetime | None) -> str:
    """`when` for narrow columns: no year, no zone; the column's head says UTC."""
    return f"{at.astimezone(UTC):%d %b %H:%M}" if at else ""


def plural(count: int, one: str) -> str:
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def moment(at: datetime, since: datetime) -> str:
    """As short as it can be understood at `since`: `14:00:05` when it is near, `14:00` the same day, else `25 Nov 14:00`. UTC."""
    at, since = at.astimezone(UTC), since.astimezone(UTC)
    if at.date() != since.date():
        return day_and_time(at)
    return f"{at:%H:%M:%S}" if abs(at - since) < timedelta(minutes=5) else f"{at:%H:%M}"
