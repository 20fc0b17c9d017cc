"""What the operator chose for pods on the target: image, pull policy, resources, timeouts. Values only; the app builds them.

What it is not: anything about one migration (core/target.py), or credentials. Loads no SDK, so that building settings stays cheap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


def _default_resources() -> Mapping[str, Mapping[str, str]]:
    return {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """Times in seconds. `resources` has the shape of a container's `resources`; quotas often demand both halves."""

    worker_image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=_default_resources)
    worker_command: tuple[str, ...] = ("reconciler", "worker")
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 30.0
    page_size: int = 500
