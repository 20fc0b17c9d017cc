"""Flags and environment -> frozen Settings. The only reader of os.environ.

What it is: every knob of the process, with its environment variable. What it is not: anything about a VM; that is in manifests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "SSH_AUTH_SOCK",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """`reconciler run` and everything that reads the repo. Times in seconds.

    credentials_dir: mounted Secrets as <namespace>/<name>/<key>; without it Secrets are read from the cluster.
    """

    repo: str
    branch: str | None = None
    path: str = "."
    status_branch: str = "reconciler/status"
    lease_branch: str = "reconciler/lease"
    lease_ttl_s: float = 180.0
    poll_s: float = 15.0
    max_wait_s: float = 60.0
    commit_interval_s: float = 5.0
    progress_interval_s: float = 300.0
    site_budget_s: float = 20.0
    cache_dir: Path = Path(".reconciler-cache")
    credentials_dir: Path | None = None
    kubeconfig: Path | None = None
    worker_image: str = "reconciler:latest"
    image_pull_policy: str = "IfNotPresent"
    git_askpass: Path | None = None
    git_ssh_command: str | None = None
    holder: str = ""
    listen: str | None = None  # HOST:PORT of /metrics and /healthz, in loop mode
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def variable(name: str) -> str | None:
    """RECONCILER_<NAME>, or None when unset or empty."""
    return os.environ.get(f"RECONCILER_{name}") or None


def inherited_environment() -> dict[str, str]:
    """What git may inherit: no more than it needs."""
    return {k: os.environ[k] for k in INHERITED if k in os.environ}


def default_kubeconfig() -> Path | None:
    """KUBECONFIG, or ~/.kube/config if there is one; None means in-cluster."""
    named = os.environ.get("KUBECONFIG")
    if named:
        return Path(named.split(os.pathsep)[0])
    home = Path(os.environ.get("HOME", "/nonexistent")) / ".kube" / "config"
    return home if home.is_file() else None


def default_cache_dir() -> Path:
    named = os.environ.get("XDG_CACHE_HOME")
    base = Path(named) if named else Path(os.environ.get("HOME", "/tmp")) / ".cache"
    return base / "reconciler"


def default_holder() -> str:
    """Pod or host name with the process id: readable in the lease."""
    return f"{os.environ.get('HOSTNAME') or os.uname().nodename}-{os.getpid()}"
