"""A refused or lost request -> our errors, once. Pure: numbers and text in, an exception out.

What it is: the table of Kubernetes' status codes and reasons, with the remedy for each. What it is not: a decision to try again.
Source: Kubernetes API concepts; `metav1.Status` reasons and causes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.errors import ReconcilerError, RetryableError, TerminalError

_AGAIN = "it is tried again. Check the API server, and what is between it and us, if that lasts"
_QUOTA = re.compile(r"exceeded quota: ([^,\s]+)(?:, (requested: .*))?")


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked for: "create PersistentVolumeClaim shop/web-disk-0"."""

    verb: str
    kind: str
    plural: str
    group: str
    namespace: str | None
    name: str | None
    site: str

    @property
    def object(self) -> str:
        place = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.kind} {place}".strip()

    def __str__(self) -> str:
        return f"{self.verb} {self.object}"


class AlreadyExists(RetryableError):
    """A create met an object of that name. Caught inside this folder, which then looks whose it is."""


class NotFound(RetryableError):
    """The object, or the whole kind, is not there. Caught where absence is an answer."""


def from_reply(call: Call, status: int, body: bytes, headers: Mapping[str, str]) -> ReconcilerError:
    raw = _status_object(body)
    message = str(raw.get("message") or body[:300].decode(errors="replace") or "no message").strip()
    reason = str(raw.get("reason") or "")
    make = _BY_CODE.get(status)
    if make is not None:
        return make(call, reason, message, raw)
    if status == 429 or status >= 500:
        return RetryableError(
            "TooManyRequests" if status == 429 else "ServerError",
            f"{call}: {call.site} answered {status}: {message}; {_AGAIN}",
            _retry_after_s(headers),
        )
    return TerminalError("Invalid", f"{call}: {call.site} answered {status} {reason}: {message}")


def without_values(text: str, data: Mapping[str, str]) -> str:
    """A server's message without the values of the Secret that we sent: decoding errors may quote the body. `data` is base64."""
    for value in data.values():
        plain = base64.b64decode(value).decode(errors="replace")
        for word in (value, json.dumps(plain)[1:-1], plain):
            text = text.replace(word, "***") if len(word) > 3 else text
    return text


def unreachable(call: Call, cause: str) -> ReconcilerError:
    """No reply: refused, reset, timed out, cut short. The effect may have landed all the same."""
    return RetryableError("Unreachable", f"{call}: no answer from {call.site}: {cause}; {_AGAIN}")


def untrusted(call: Call, cause: str) -> ReconcilerError:
    remedy = (
        "renew it there if it has expired, else put the issuing CA into `cacert` of the Provider's Secret "
        '(or set insecureSkipVerify: "true" there)'
    )
    return TerminalError("CertificateInvalid", f"{call}: the certificate of {call.site} is not trusted: {cause}; {remedy}")


def bad_reply(call: Call, cause: str) -> ReconcilerError:
    return RetryableError("BadReply", f"{call}: {call.site} sent no proper answer: {cause}; {_AGAIN}")


def name_taken(kind: str, namespace: str, name: str, remedy: str) -> TerminalError:
    return TerminalError("NameTaken", f"{kind} {namespace}/{name} exists and is not ours; {remedy}")


def not_ours(kind: str, namespace: str, name: str, why: str) -> TerminalError:
    return TerminalError("NotOurs", f"{kind} {namespace}/{name} {why}; it is left alone. Remove it yourself if it should go")


def being_deleted(kind: str, namespace: str, name: str) -> RetryableError:
    place = f"{namespace}/{name}" if namespace else name
    return RetryableError("Conflict", f"{kind} {place} is still being deleted")


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(body)
    except ValueError:
        return {}
    return raw if isinstance(raw, dict) else {}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def _unauthorized(call: Call, reason: str, message: str, raw: Mapping[str, Any]) -> ReconcilerError:
    return TerminalError(
        "AuthFailed", f"{call}: {call.site} does not accept our credentials ({message}); renew the token in the Provider's Secret"
    )


def _forbidden(call: Call, reason: str, message: str, raw: Mapping[str, Any]) -> ReconcilerError:
    """Quotas, limits, Pod Security, a namespace in deletion and missing rights all come as 403 Forbidden; the message tells which."""
    if quota := _QUOTA.search(message):
        detail = f" ({quota.group(2)})" if quota.group(2) else ""
        return RetryableError("QuotaExceeded", f"{call}: quota {quota.group(1)} is used up{detail}; raise it or free some of it")
    causes = (raw.get("details") or {}).get("causes") or []
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return RetryableError("NamespaceTerminating", f"{call}: namespace {call.namespace} is being deleted; wait, or use another one")
    group = f" in API group {call.group}" if call.group else ""
    where = f" in namespace {call.namespace}" if call.namespace else " cluster-wide"
    if " cannot " in message:
        remedy = f'grant the verb "{call.verb}" on {call.plural}{group}{where} to our account (`reconciler install` prints the role)'
        return RetryableError("Forbidden", f"{call}: not allowed: {remedy}. The cluster says: {message}")
    return RetryableError("Forbidden", f"{call}: admission refuses {call.plural}{where}: {message}")


def _not_found(call: Call, reason: str, message: str, raw: Mapping[str, Any]) -> ReconcilerError:
    return NotFound("NotFound", f"{call}: {message}; check whether it was removed")


def _conflict(call: Call, reason: str, message: str, raw: Mapping[str, Any]) -> ReconcilerError:
    if reason == "AlreadyExists":
        return AlreadyExists("Conflict", f"{call}: {message}")
    return RetryableError("Conflict", f"{call}: it changed since we read it: {message}; it is read and tried again")


def _gone(call: Call, reason: str, message: str, raw: Mapping[str, Any]) -> ReconcilerError:
    return RetryableError("ListExpired", f"{call}: the list grew too old while it was read page by page: {message}; it is read again")


_BY_CODE: Mapping[int, Callable[[Call, str, str, Mapping[str, Any]], ReconcilerError]] = {
    401: _unauthorized,
    403: _forbidden,
    404: _not_found,
    409: _conflict,
    410: _gone,
}
