"""Refusals of the API server, each with the Status body that a real one sends.

What it is: one exception and a constructor per reason of the API conventions (metav1.Status).
What it is not: a decision; admission.py, registry.py and server.py decide, this only words it.
"""

from __future__ import annotations

from typing import Any

from reconciler.lab.cluster.kinds import Kind

Json = dict[str, Any]


class ApiError(Exception):
    """A refusal with its HTTP code, reason and details."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def body(self) -> Json:
        status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            status["details"] = self.details
        status["code"] = self.code
        return status


def success(kind: Kind, name: str, uid: str) -> Json:
    """The Status of a delete that took effect at once."""
    details: Json = {"name": name, "kind": kind.plural, "uid": uid}
    if kind.group:
        details["group"] = kind.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _details(kind: Kind, name: str, as_kind: bool = False) -> Json:
    details: Json = {"name": name, "kind": kind.kind if as_kind else kind.plural}
    if kind.group:
        details["group"] = kind.group
    return details


def not_found(kind: Kind, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def already_exists(kind: Kind, name: str, deleting: bool) -> ApiError:
    first = "object is being deleted: " if deleting else ""
    return ApiError(409, "AlreadyExists", f'{first}{kind.resource} "{name}" already exists', _details(kind, name))


def modified(kind: Kind, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why)


def conflict(kind: Kind, name: str, why: str) -> ApiError:
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}', _details(kind, name))


def forbidden(kind: Kind, name: str, why: str) -> ApiError:
    return ApiError(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', _details(kind, name))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def invalid(kind: Kind, name: str, *causes: tuple[str, str]) -> ApiError:
    """422; `causes` are (field, message), message in the form "Invalid value: …", "Required value: …" or "Forbidden: …"."""
    errors = [f"{field}: {message}" for field, message in causes]
    text = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
    shown = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = _details(kind, name, as_kind=True)
    words = {"Required": "FieldValueRequired", "Forbidden": "FieldValueForbidden", "Unsupported": "FieldValueNotSupported"}
    details["causes"] = [
        {"reason": words.get(message.split(" ")[0].rstrip(":"), "FieldValueInvalid"), "message": message, "field": field}
        for field, message in causes
    ]
    return ApiError(422, "Invalid", f'{shown} "{name}" is invalid: {text}', details)


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def unsupported_media(accepted: tuple[str, ...]) -> ApiError:
    listed = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {listed}"
    return ApiError(415, "UnsupportedMediaType", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def no_such_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def unavailable() -> ApiError:
    return ApiError(503, "ServiceUnavailable", "the server is currently unable to handle the request")


def too_many_requests(retry_after_s: int) -> ApiError:
    message = "the server has received too many requests and has asked us to try again later"
    return ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": retry_after_s})
