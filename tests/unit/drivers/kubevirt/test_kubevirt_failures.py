"""Status codes -> our errors: which kind, which reason, and a message that names object, cause and remedy."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from reconciler.drivers.kubevirt import failures
from reconciler.drivers.kubevirt.failures import Call
from reconciler.errors import RetryableError, TerminalError

CALL = Call("create", "PersistentVolumeClaim", "persistentvolumeclaims", "", "shop", "web-disk-0", "https://api.example:6443")


def status(reason: str, message: str, **details: Any) -> bytes:
    return json.dumps({"kind": "Status", "reason": reason, "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("code", "body", "kind", "reason", "says"),
    [
        (401, status("Unauthorized", "Unauthorized"), TerminalError, "AuthFailed", "renew the token"),
        (
            403,
            status("Forbidden", 'pvc "x" is forbidden: exceeded quota: gold, requested: requests.storage=2Gi, used: 9Gi, limited: 10Gi'),
            RetryableError,
            "QuotaExceeded",
            "quota gold",
        ),
        (
            403,
            status("Forbidden", 'persistentvolumeclaims is forbidden: User "u" cannot create resource "persistentvolumeclaims"'),
            RetryableError,
            "Forbidden",
            'grant the verb "create" on persistentvolumeclaims in namespace shop',
        ),
        (403, status("Forbidden", "violates PodSecurity restricted"), RetryableError, "Forbidden", "violates PodSecurity"),
        (
            403,
            status("Forbidden", "being terminated", causes=[{"reason": "NamespaceTerminating"}]),
            RetryableError,
            "NamespaceTerminating",
            "namespace shop",
        ),
        (404, status("NotFound", "not found"), RetryableError, "NotFound", "shop/web-disk-0"),
        (409, status("Conflict", "object has been modified"), RetryableError, "Conflict", "changed since"),
        (409, status("AlreadyExists", "already exists"), RetryableError, "Conflict", "already exists"),
        (410, status("Expired", "too old"), RetryableError, "ListExpired", "page"),
        (400, status("BadRequest", 'unknown field "spec.nope"'), TerminalError, "Invalid", "spec.nope"),
        (422, status("Invalid", "admission webhook denied: memory"), TerminalError, "Invalid", "memory"),
        (500, status("InternalError", "failed calling webhook"), RetryableError, "ServerError", "failed calling webhook"),
        (503, b"<html>upstream</html>", RetryableError, "ServerError", "upstream"),
    ],
)
def test_codes(code: int, body: bytes, kind: type[Exception], reason: str, says: str) -> None:
    error = failures.from_reply(CALL, code, body, {})
    assert isinstance(error, kind)
    assert error.reason == reason
    assert says in error.message
    assert "create PersistentVolumeClaim shop/web-disk-0" in error.message


def test_a_server_that_quotes_a_secret_is_not_quoted() -> None:
    data = {"password": base64.b64encode(b'hunter "2" hunter').decode(), "user": base64.b64encode(b"ab").decode()}
    text = json.dumps({"message": f'cannot decode {data["password"]} and hunter "2" hunter of user ab'})
    found = failures.without_values(text, data)
    assert "hunter" not in found
    assert data["password"] not in found
    assert json.loads(found)["message"] == "cannot decode *** and *** of user ab"


def test_two_kinds_of_409_are_told_apart() -> None:
    assert isinstance(failures.from_reply(CALL, 409, status("AlreadyExists", "x"), {}), failures.AlreadyExists)
    assert not isinstance(failures.from_reply(CALL, 409, status("Conflict", "x"), {}), failures.AlreadyExists)


@pytest.mark.parametrize(("header", "want"), [({"Retry-After": "7"}, 7.0), ({}, None), ({"Retry-After": "Wed, 21 Oct"}, None)])
def test_a_server_that_says_when_is_listened_to(header: dict[str, str], want: float | None) -> None:
    error = failures.from_reply(CALL, 429, b"", header)
    assert isinstance(error, RetryableError)
    assert (error.reason, error.retry_after_s) == ("TooManyRequests", want)


def test_an_untrusted_certificate_is_for_a_person_and_a_lost_connection_is_not() -> None:
    assert isinstance(failures.untrusted(CALL, "unknown CA"), TerminalError)
    assert isinstance(failures.unreachable(CALL, "reset"), RetryableError)
