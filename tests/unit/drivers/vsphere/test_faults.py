"""What each vendor fault and each error on the way means to us."""

from __future__ import annotations

import socket
import ssl
import zlib
from http.client import HTTPException, RemoteDisconnected
from xml.parsers.expat import ExpatError

import pytest
from pyVmomi import vim, vmodl

from reconciler.drivers.vsphere.faults import CALL_ERRORS, explain, redact
from reconciler.errors import RetryableError, TerminalError

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (vim.fault.InvalidLogin(), TerminalError, "AuthFailed"),
        (vim.fault.NoPermission(privilegeId="VirtualMachine.Interact.PowerOff"), RetryableError, "Forbidden"),
        (vim.fault.NoPermission(), RetryableError, "Forbidden"),
        (vim.fault.ToolsUnavailable(), RetryableError, "ToolsNotRunning"),
        (vim.fault.TaskInProgress(), RetryableError, "Busy"),
        (vim.fault.InvalidPowerState(), RetryableError, "Busy"),
        (vim.fault.ConcurrentAccess(), RetryableError, "Busy"),
        (vim.fault.FileLocked(), RetryableError, "Busy"),
        (vim.fault.RestrictedVersion(), TerminalError, "NotLicensed"),
        (vmodl.fault.ManagedObjectNotFound(), RetryableError, "NotFound"),
        (vmodl.fault.SystemError(msg="A general system error occurred"), RetryableError, "VendorFault"),
        (vmodl.fault.HostCommunication(), RetryableError, "VendorFault"),
        (vim.fault.HostConnectFault(), RetryableError, "VendorFault"),
        (vmodl.fault.NotSupported(), RetryableError, "VendorFault"),
        (ssl.SSLCertVerificationError("self-signed certificate"), TerminalError, "CertificateInvalid"),
        (ssl.SSLEOFError("EOF"), RetryableError, "Unreachable"),
        (TimeoutError("timed out"), RetryableError, "Timeout"),
        (socket.gaierror(-2, "Name or service not known"), RetryableError, "Unreachable"),
        (ConnectionRefusedError(111, "Connection refused"), RetryableError, "Unreachable"),
        (ConnectionResetError(104, "reset"), RetryableError, "Unreachable"),
        (RemoteDisconnected("closed"), RetryableError, "Unreachable"),
        (HTTPException("503 Service Unavailable"), RetryableError, "Unavailable"),
        (ExpatError("no element found"), RetryableError, "BrokenReply"),
        (zlib.error("incomplete"), RetryableError, "BrokenReply"),
        (EOFError(), RetryableError, "BrokenReply"),
        (KeyError("x"), RetryableError, "BrokenReply"),
    ],
)
def test_the_table(error: Exception, kind: type[Exception], reason: str) -> None:
    assert isinstance(error, CALL_ERRORS)
    ours = explain(error, "power off web", "vCenter vc.example", (PASSWORD,))
    assert type(ours) is kind
    assert ours.reason == reason
    assert ours.message.startswith("power off web: ")
    assert "vc.example" in ours.message or reason == "ToolsNotRunning"
    assert "\n" not in ours.message


def test_our_own_errors_pass_as_they_are() -> None:
    ours = RetryableError("X", "y")
    assert explain(ours, "read", "site", ()) is ours


def test_a_fault_does_not_show_its_structure() -> None:
    fault = vmodl.fault.SystemError(msg="disk\n  is   sad", faultMessage=[])
    ours = explain(fault, "read", "site", ())
    assert ours.message == "read: site reports SystemError (disk is sad); it is asked again. Check its tasks and events"


def test_secrets_are_struck_out_of_vendor_words() -> None:
    ours = explain(vmodl.fault.SystemError(msg=f"cannot bind {PASSWORD}"), "read", "site", (PASSWORD, ""))
    assert PASSWORD not in str(ours)
    assert "***" in ours.message


def test_of_overlapping_secrets_the_longer_goes_first() -> None:
    assert redact("abcdef abc", ("abc", "abcdef", "")) == "*** ***"
