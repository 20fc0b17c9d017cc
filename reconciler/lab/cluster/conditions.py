"""One condition of a status: set it, and move its transition time only when its status changes."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def set_condition(status: Json, type_: str, value: str, reason: str, message: str, now: str) -> None:
    conditions: list[Json] = status.setdefault("conditions", [])
    new: Json = {"type": type_, "status": value, "lastProbeTime": None, "lastTransitionTime": now}
    if reason:
        new["reason"] = reason
    if message:
        new["message"] = message
    for index, old in enumerate(conditions):
        if old["type"] == type_:
            if old["status"] == value:
                new["lastTransitionTime"] = old.get("lastTransitionTime", now)
            conditions[index] = new
            return
    conditions.append(new)


def has_condition(status: Json, type_: str, value: str = "True") -> bool:
    return any(c["type"] == type_ and c["status"] == value for c in status.get("conditions") or [])
