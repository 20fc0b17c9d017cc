"""A finding: one thing to say about a manifest or a VM, before it becomes a condition. Pure data, made by every check of the core."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.record import Category


@dataclass(frozen=True, slots=True)
class Finding:
    """`type` and `reason` are Forklift's condition type and reason."""

    type: str
    category: Category
    reason: str
    message: str
    suggestion: str = ""


def critical(kind: str, reason: str, message: str, suggestion: str = "") -> Finding:
    return Finding(kind, Category.CRITICAL, reason, message, suggestion)
