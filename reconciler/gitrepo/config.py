"""Which repository, which branches, and how to reach it: checked once, before any git process starts.

What it is: frozen values that settings.py fills in. What it is not: a place for credentials. Those come from a credential helper, an
askpass program or ssh; a URL that carries one is refused here, so it cannot reach an argument list, a log or a commit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from reconciler.errors import UserError

# What `git check-ref-format` refuses, and what has a meaning in a refspec or as an option.
_BAD_BRANCH = re.compile(r"^[-/.+]|[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|/\.|@\{|(?:/|\.lock|\.)$|^@?$")
_SCP_LIKE = re.compile(r"[^/]+:")
_SCP_CREDENTIAL = re.compile(r"[^/@]*:[^/]*@")
_SECRET_PARAMETER = re.compile(r"token|passw|secret|key|auth|sig", re.IGNORECASE)
_HOST_KEYS_OFF = re.compile(r"stricthostkeychecking\s*[= ]\s*[\"']?(?:no|off)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoConfig:
    """Raises UserError for a URL with a credential in it and for branches that would overwrite each other.

    branch: None follows the remote's HEAD. path: folder of the manifests inside that branch.
    environment: what git may inherit (PATH, HOME for its credential helpers, SSH_AUTH_SOCK, proxies); names in GIT_ are dropped.
    """

    url: str
    cache_dir: Path
    holder: str
    branch: str | None = None
    path: str = "."
    status_branch: str = "reconciler/status"
    lease_branch: str = "reconciler/lease"
    lease_ttl_s: float = 180.0
    author_name: str = "reconciler"
    author_email: str = "reconciler@localhost"
    askpass: Path | None = None
    ssh_command: str | None = None
    timeout_s: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_url(self.url)
        _check_branches(self)
        parts = self.path.split("/")
        if self.path.startswith("/") or ".." in parts or "\0" in self.path:
            raise UserError("BadGitPath", f"path {self.path!r} must be a folder inside the branch, without '..'")
        if self.ssh_command is not None and _HOST_KEYS_OFF.search(self.ssh_command):
            raise UserError("HostKeysUnchecked", "the ssh command turns host key checks off; add the host to a known_hosts file instead")

    @property
    def address(self) -> str:
        """The URL as git gets it: git runs elsewhere, so a path is made absolute."""
        local = "://" not in self.url and not _SCP_LIKE.match(self.url)
        return str(Path(self.url).absolute()) if local else self.url

    @property
    def folder(self) -> str:
        """`path` without './' and doubled or trailing slashes; "" is the whole branch."""
        return "/".join(part for part in self.path.split("/") if part not in ("", "."))


def _check_url(url: str) -> None:
    if not url or url.startswith("-") or any(ord(char) < 0x21 for char in url):
        raise UserError("BadGitUrl", "the git URL is empty, begins with '-' or contains blanks")
    if "://" not in url:
        if "::" in url.split("/")[0]:
            raise UserError("BadGitUrl", "remote helpers (name::address) are not allowed as a git URL; use https, ssh or a path")
        if _SCP_CREDENTIAL.match(url):
            raise UserError("CredentialInUrl", "the git URL seems to hold a password; use a credential helper, an askpass program or ssh")
        return
    parts = _split(url)
    if parts.scheme not in ("https", "http", "ssh", "file"):
        raise UserError("BadGitUrl", f"git URL scheme {parts.scheme!r} is not allowed; use https, ssh, file or http")
    # A token is often given as the user name (https://TOKEN@host), so http takes no user info at all; ssh needs its user.
    user_info = "@" in parts.netloc if parts.scheme in ("https", "http") else parts.password is not None
    if user_info or any(_SECRET_PARAMETER.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise UserError(
            "CredentialInUrl",
            f"the git URL for {parts.hostname or 'the remote'} holds user information or a token; remove it and use a credential helper, "
            "an askpass program or ssh",
        )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise UserError("BadGitUrl", "the git URL cannot be read; check its host and port") from None


def _check_branches(config: RepoConfig) -> None:
    named = {"branch": config.branch, "status branch": config.status_branch, "lease branch": config.lease_branch}
    for what, name in named.items():
        if name is not None and _BAD_BRANCH.search(name):
            raise UserError("BadBranch", f"{what} {name!r} is not a valid branch name")
    check_distinct(config, config.branch)


def check_distinct(config: RepoConfig, desired: str | None) -> None:
    """The three branches must differ: what people write is never overwritten by what we write. Raises UserError."""
    if config.status_branch in (desired, config.lease_branch) or config.lease_branch == desired:
        raise UserError(
            "BranchClash",
            f"desired branch {desired!r}, status branch {config.status_branch!r} and lease branch {config.lease_branch!r} must be three "
            "different branches",
        )
