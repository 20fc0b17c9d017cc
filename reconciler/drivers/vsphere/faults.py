"""What a vendor fault, or an error on the way to the vendor, means to us. The one place where these become ours.

What it is: a table from vim/vmodl faults, TLS, socket and HTTP errors to RetryableError and TerminalError. Unknown faults are
retryable. What it is not: the session; `NotAuthenticated` is handled there before it comes here.
"""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import Iterable
from http.client import HTTPException
from typing import Any
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ExpatError

from reconciler.drivers.vsphere.sdk import vim, vmodl
from reconciler.errors import ReconcilerError, RetryableError, TerminalError

# What a call may raise: transport first, then what the decoders let through for a body that ends too early.
CALL_ERRORS: tuple[type[Exception], ...] = (
    vmodl.MethodFault,
    OSError,  # ssl.SSLError, socket timeouts, refused and reset connections
    HTTPException,
    ExpatError,
    ParseError,
    zlib.error,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
)

_BUSY: tuple[Any, ...] = (
    vim.fault.TaskInProgress,
    vim.fault.ConcurrentAccess,
    vim.fault.FileLocked,
    vim.fault.InvalidState,  # InvalidPowerState, ToolsUnavailable and many more; the precise ones are asked first
    vim.fault.Timedout,
)


def explain(err: Exception, what: str, site: str, secrets: Iterable[str]) -> ReconcilerError:
    """Our error for `err`, met while doing `what` at `site`. The caller raises it `from err`; no secret is in it."""
    if isinstance(err, ReconcilerError):
        return err
    said = redact(_said(err), secrets)
    if isinstance(err, ssl.SSLCertVerificationError):
        return TerminalError(
            "CertificateInvalid",
            f"{what}: the certificate of {site} is not trusted ({said}); renew it there if it has expired, else put its CA into "
            "ca.crt of the secret, or pin its thumbprint",
        )
    if isinstance(err, TimeoutError):
        return RetryableError(
            "Timeout", f"{what}: {site} did not answer in time; it is asked again. Check its load and the network if that lasts"
        )
    if isinstance(err, vmodl.MethodFault):
        return _fault(err, what, site, said)
    if isinstance(err, socket.gaierror):
        return RetryableError("Unreachable", f"{what}: the name of {site} cannot be resolved ({said}); check url and DNS")
    if isinstance(err, OSError):
        return RetryableError("Unreachable", f"{what}: no connection to {site} ({said}); check that it runs and is reachable")
    if isinstance(err, HTTPException):
        return RetryableError("Unavailable", f"{what}: {site} answered {said}; it is asked again. Check its services if that lasts")
    cause = f"{type(err).__name__}: {said}"
    return RetryableError(
        "BrokenReply", f"{what}: the reply of {site} cannot be read ({cause}); it is asked again. Check proxies on the way if that lasts"
    )


def _fault(err: Any, what: str, site: str, said: str) -> ReconcilerError:
    if isinstance(err, vim.fault.InvalidLogin):
        return TerminalError(
            "AuthFailed",
            f"{what}: {site} refuses user and password of the secret; correct them. Nothing is tried again until then, "
            "so that the account is not locked",
        )
    if isinstance(err, vim.fault.NoPermission):
        needed = err.privilegeId or "more than it has"
        return RetryableError("Forbidden", f"{what}: the account at {site} lacks a privilege ({needed}); grant it")
    if isinstance(err, vim.fault.ToolsUnavailable):
        return RetryableError("ToolsNotRunning", f"{what}: VMware Tools do not run in the guest; start them, or power the VM off")
    if isinstance(err, vmodl.fault.ManagedObjectNotFound):
        return RetryableError("NotFound", f"{what}: {site} no longer has {err.obj or 'that object'}; check whether it was removed")
    if isinstance(err, vim.fault.RestrictedVersion):
        return TerminalError("NotLicensed", f"{what}: the license of {site} does not allow it ({said})")
    name = type(err).__name__.rpartition(".")[2]
    if isinstance(err, _BUSY):
        return RetryableError(
            "Busy", f"{what}: {site} is busy with it ({name}: {said}); it is asked again. Check its recent tasks if that lasts"
        )
    return RetryableError("VendorFault", f"{what}: {site} reports {name} ({said}); it is asked again. Check its tasks and events")


def _said(err: Exception) -> str:
    """The error's own words on one line; str() of a vendor fault would be a dump of its structure."""
    words = getattr(err, "msg", None) if isinstance(err, vmodl.MethodFault) else str(err)
    return " ".join(str(words or "").split()) or type(err).__name__.rpartition(".")[2]


def redact(message: str, secrets: Iterable[str]) -> str:
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        message = message.replace(secret, "***")
    return message
