"""How an endpoint is trusted: a CA, a pinned certificate, or (only where the manifest says so) nothing.

What it is: TlsSpec -> ssl context, and the check of a pin. What it is not: a connection.
Where it stands: used right after each handshake and before any credential is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl

from reconciler.core.copyspec import TlsSpec
from reconciler.errors import RetryableError, TerminalError

_DIGESTS = {40: "sha1", 64: "sha256"}  # by hex length; vSphere shows SHA-1 up to 7 and SHA-256 from 8 on


def client_context(tls: TlsSpec) -> ssl.SSLContext:
    """A pin alone replaces the chain (self-signed ESXi); with a CA file both must hold. Errors: TerminalError CaUnreadable."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (OSError, ssl.SSLError) as err:
        raise TerminalError("CaUnreadable", f"CA file {tls.ca_file} cannot be read as PEM certificates: {err}") from err
    if tls.insecure or (tls.thumbprint and not tls.ca_file):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def check_thumbprint(sock: ssl.SSLSocket, tls: TlsSpec, host: str) -> None:
    """Errors: TerminalError ThumbprintMismatch, ThumbprintInvalid. Nothing to do without a pin, or when `insecure`."""
    if tls.insecure or not tls.thumbprint:
        return
    want = tls.thumbprint.replace(":", "").strip().lower()
    digest = _DIGESTS.get(len(want))
    if digest is None:
        raise TerminalError("ThumbprintInvalid", f"the thumbprint for {host} is neither SHA-1 nor SHA-256 in hex")
    got = hashlib.new(digest, sock.getpeercert(binary_form=True) or b"", usedforsecurity=False).hexdigest()
    if not hmac.compare_digest(got, want):
        shown = ":".join(got[at : at + 2] for at in range(0, len(got), 2)).upper()
        raise TerminalError(
            "ThumbprintMismatch", f"{host} shows a certificate with {digest} {shown}, not the pinned one; check the Provider"
        )


def read_sha1(host: str, port: int, tls: TlsSpec, timeout_s: float = 30.0) -> str:
    """SHA-1 of the certificate that `host` shows now, trusted as `tls` says: for libraries that only know how to pin (VDDK).

    Errors: TerminalError CertificateInvalid, ThumbprintMismatch, ThumbprintInvalid, CaUnreadable; RetryableError SourceUnreachable.
    """
    context = client_context(tls)
    try:
        with socket.create_connection((host, port), timeout_s) as plain, context.wrap_socket(plain, server_hostname=host) as sock:
            check_thumbprint(sock, tls, f"{host}:{port}")
            digest = hashlib.sha1(sock.getpeercert(binary_form=True) or b"", usedforsecurity=False).hexdigest().upper()
    except ssl.SSLCertVerificationError as err:
        text = f"{host}:{port}: certificate is not trusted: {err.verify_message}; renew it there if it has expired, else set cacert or a "
        raise TerminalError("CertificateInvalid", text + "thumbprint") from err
    except OSError as err:
        raise RetryableError("SourceUnreachable", f"{host}:{port}: {type(err).__name__}: {err}") from err
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
