"""Where a vCenter is and how it is trusted: URL, CA bundle, thumbprint; and the TLS connection that checks the pin itself.

What it is: everything about TLS, before any credential is sent. What it is not: the session (session.py), and it knows no SDK.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPSConnection
from urllib.parse import urlsplit

from reconciler.core.copyspec import TlsSpec
from reconciler.core.desired import ProviderSpec
from reconciler.core.model import Secret
from reconciler.errors import ReconcilerError, TerminalError, UserError
from reconciler.wire.tls import check_thumbprint

CA_PLACEHOLDER = "ca.crt"
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # what Go's strconv.ParseBool takes, as Forklift reads these with it


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`authority` is host[:port] as a URL wants it (IPv6 in brackets, no default port)."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Trust:
    """Nothing set: the system's roots. A pin without CA trusts exactly that certificate; with CA both must hold. `insecure` trusts any."""

    ca_pem: str | None
    thumbprint: str | None
    insecure: bool

    @property
    def tls(self) -> TlsSpec:
        ca_file = CA_PLACEHOLDER if self.ca_pem is not None else None
        return TlsSpec(ca_file=ca_file, thumbprint=self.thumbprint, insecure=self.insecure)

    def context(self) -> ssl.SSLContext:
        """A client context. Errors: TerminalError CertificateInvalid for a CA bundle that is no PEM."""
        try:
            context = ssl.create_default_context(cadata=self.ca_pem)
        except (ssl.SSLError, ValueError) as err:
            raise TerminalError("CertificateInvalid", "the CA bundle in the secret (ca.crt) is not PEM; paste the certificates") from err
        if self.insecure or (self.thumbprint is not None and self.ca_pem is None):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class PinnedConnection(HTTPSConnection):
    """HTTPS that compares the certificate with the pin right after the handshake, so no request ever goes to a stranger.

    pyVmomi's own pinning looks at the thumbprint only when the chain does not verify, so a pin would not hold beside a public CA.
    """

    def __init__(self, host: str, port: int, *, pin: TlsSpec, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(host, port, context=context, timeout=timeout)
        self._pin = pin

    def connect(self) -> None:
        super().connect()
        try:
            check_thumbprint(self.sock, self._pin, f"{self.host}:{self.port}")
        except ReconcilerError:
            self.close()
            raise


def endpoint_of(provider: ProviderSpec) -> Endpoint:
    """`https://host[:port]/sdk`. Errors: UserError UrlNotValid."""
    try:
        parts = urlsplit(provider.url)
        port = parts.port
    except ValueError as err:
        raise _bad_url(provider, str(err)) from err
    if parts.scheme != "https" or not parts.hostname:
        raise _bad_url(provider, "it is not an https URL")
    if parts.username is not None or parts.password is not None:
        raise _bad_url(provider, "it holds credentials, which belong in the secret")
    return Endpoint(parts.hostname, port or 443, parts.path if parts.path not in ("", "/") else "/sdk")


def trust_of(provider: ProviderSpec, secret: Mapping[str, Secret]) -> Trust:
    """From the secret (`ca.crt`, deprecated `cacert`, `insecureSkipVerify`, `thumbprint`) and the provider's `thumbprint` setting.

    A pin is stronger than `insecureSkipVerify`: with both, the pin alone counts.
    """
    pin = provider.settings.get("thumbprint") or text(secret, "thumbprint")
    insecure = text(secret, "insecureSkipVerify") in _TRUE
    ca_pem = None if insecure else text(secret, "ca.crt") or text(secret, "cacert") or None
    return Trust(ca_pem, normal_thumbprint(pin) if pin else None, insecure and not pin)


def normal_thumbprint(written: str) -> str:
    """Upper-case hex with colons. Errors: UserError ThumbprintNotValid for anything but SHA-1 or SHA-256."""
    digits = re.sub(r"[:\s]", "", written).upper()
    if len(digits) not in (40, 64) or re.fullmatch(r"[0-9A-F]+", digits) is None:
        raise UserError("ThumbprintNotValid", f"thumbprint {written!r} is neither SHA-1 (40 hex digits) nor SHA-256 (64 hex digits)")
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def text(secret: Mapping[str, Secret], key: str) -> str:
    return secret[key].reveal().strip() if key in secret else ""


def _bad_url(provider: ProviderSpec, why: str) -> UserError:
    return UserError("UrlNotValid", f"url of provider {provider.ref}: {why}; write https://<vcenter>/sdk")
