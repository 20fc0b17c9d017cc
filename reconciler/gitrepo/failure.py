"""What git said when it failed -> our errors, with text that is safe to show.

What it is: pure functions over an exit's stderr and `push --porcelain` output. What it is not: a judge of whether to try again; errors.py
says what each kind means. Unknown text is Retryable, never silently Terminal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from reconciler.errors import ReconcilerError, RetryableError, TerminalError

_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]*(?:@[^/\s@]*)*@", re.IGNORECASE)
_HEADER = re.compile(r"((?:proxy-)?authorization|private-token|cookie)(\s*[:=]\s*)[^\r\n]+", re.IGNORECASE)
_PARAMETER = re.compile(r"([?&][^=\s&]*(?:token|passw|secret|key|auth|sig)[^=\s&]*=)[^&\s'\"]+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST = 600

_HOST_KEY = re.compile(r"host key verification failed|remote host identification has changed|no .*host key is known", re.IGNORECASE)
# libcurl over OpenSSL and over GnuTLS; the two word it alike only this far.
_CERTIFICATE = re.compile(r"certificate problem|certificate verif|self.signed certificate", re.IGNORECASE)
_AUTH = re.compile(
    r"authentication failed|could not read (?:username|password)|terminal prompts disabled|permission denied \(|access denied"
    r"|returned error: 40[13]|invalid (?:username or password|credentials)|unable to read askpass response",
    re.IGNORECASE,
)
# receive-pack and the forges' hooks: GitHub, GitLab, Gitea, Gerrit and Bitbucket all say one of these in the reason of the ref.
_REFUSED = re.compile(
    r"declined|denied|protected|prohibited|forbidden|not permitted|not allowed|hidden ref|checked out|archived", re.IGNORECASE
)
# A writer that came between receive-pack's advertisement and its ref transaction (refs.c), worded differently by each backend; "shallow
# update": the branch below our one-commit-deep lease clone has gone, so what we built on is not there any more.
_RACED = re.compile(
    r"cannot lock ref|failed to update ref|incorrect old value|reference already exists|stale info|shallow update not allowed",
    re.IGNORECASE,
)


class Push(Enum):
    ACCEPTED = "accepted"
    RACED = "raced"


@dataclass(frozen=True, slots=True)
class PushedRef:
    """What `push --porcelain` says of one ref. `flag`: '' stands for the blank of a fast-forward."""

    flag: str
    summary: str


def pushed_ref(branch: str, porcelain: str) -> PushedRef | None:
    """None where git said nothing of that branch. Source: git-push(1), --porcelain: `<flag> TAB <from>:<to> TAB <summary> (<reason>)`."""
    for line in porcelain.splitlines():
        flag, _, rest = line.partition("\t")
        refs, _, summary = rest.partition("\t")
        if refs.endswith(f":refs/heads/{branch}"):
            return PushedRef(flag.strip(), summary)
    return None


def redact(text: str) -> str:
    """Without user info in URLs, authorization headers, secret parameters and control characters; at most 600 characters, the end kept."""
    text = _USER_INFO.sub(r"\1", text)
    text = _HEADER.sub(r"\1\2***", text)
    text = _PARAMETER.sub(r"\1***", text)
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= _LONGEST else "…" + text[-_LONGEST:]


def remote_failure(url: str, stderr: str) -> ReconcilerError:
    """A command that talks to the remote ended with an error."""
    where, said = redact(url), redact(stderr) or "git gave no reason"
    if _HOST_KEY.search(stderr):
        return TerminalError(
            "HostKeyChanged", f"git remote {where}: its ssh host key is unknown or has changed; check it and correct known_hosts: {said}"
        )
    if _AUTH.search(stderr):
        return TerminalError(
            "AuthFailed", f"git remote {where} does not accept our credentials; check the helper, askpass file or ssh key: {said}"
        )
    if _CERTIFICATE.search(stderr):
        return RetryableError(
            "GitUnavailable",
            f"git remote {where}: its certificate is not trusted; renew it there if it has expired, else put its CA where git finds it "
            f"(http.sslCAInfo, GIT_SSL_CAINFO): {said}",
        )
    return RetryableError("GitUnavailable", f"git remote {where} cannot be used now; check the URL, the network and the server: {said}")


def push_verdict(url: str, branch: str, porcelain: str, stderr: str) -> Push:
    """What became of the one ref of a push that ended. Raises TerminalError GitRefused and what `remote_failure` gives.

    Flags blank, '*' and '=' are success.
    """
    found = pushed_ref(branch, porcelain)
    if found is None:
        raise remote_failure(url, stderr)
    if found.flag in ("", "*", "="):
        return Push.ACCEPTED
    summary = found.summary
    if summary.startswith("[rejected]") or _RACED.search(summary) or _RACED.search(stderr):
        return Push.RACED
    if _REFUSED.search(summary):
        raise TerminalError(
            "GitRefused",
            f"git remote {redact(url)} refuses our push to branch {branch!r}; let this account push there (protection rules, hooks): "
            f"{redact(summary)}; {redact(stderr)}",
        )
    raise remote_failure(url, f"{summary}\n{stderr}")
