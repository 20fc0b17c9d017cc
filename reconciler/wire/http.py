"""DiskReader over HTTPS ranges: vSphere's datastore folder, raw VM exports, any server that honours Range and If-Match.

What it is: bytes of one file, checked (status, Content-Range, size, ETag, length) and retried a bounded number of times.
What it is not: a login, or knowledge of any platform. Where it stands: worker.py makes one per disk; each lane of the pool clones it.
Units: bytes, seconds. Shape: one keep-alive connection per instance; clones share credentials and what is known of the file.
Source: RFC 9110 sections 13.1.1 (If-Match), 14 (ranges). `readinto` goes into the caller's buffer without a copy.
"""

from __future__ import annotations

import http.client
import logging
import re
import ssl
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reconciler.core.copyspec import TlsSpec
from reconciler.errors import ReconcilerError, RetryableError, TerminalError, UserError
from reconciler.wire.auth import FileAuth
from reconciler.wire.retry import ATTEMPTS, backoff_s
from reconciler.wire.tls import check_thumbprint, client_context

if TYPE_CHECKING:
    from reconciler.ports import Clock

log = logging.getLogger(__name__)

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_TERMINAL = {
    403: ("SourceForbidden", "the account may not read it"),
    404: ("SourceNotFound", "there is no such file"),
    410: ("SourceNotFound", "it is gone"),
    412: ("SourceChanged", "it was changed while we read it"),
    416: ("SourceChanged", "it is shorter than the disk"),
}


class _Unauthorized(Exception):
    """401: worth one renewal."""


class PinnedConnection(http.client.HTTPSConnection):
    """Checks the pin after the handshake, before http.client can send a header."""

    def __init__(self, host: str, port: int, tls: TlsSpec, context: ssl.SSLContext, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._tls = tls

    def connect(self) -> None:
        super().connect()
        try:
            check_thumbprint(self.sock, self._tls, f"{self.host}:{self.port}")
        except ReconcilerError:
            self.close()
            raise


class HttpFile:
    """What all connections to one file share. `label` is the URL without user info and query, for messages."""

    def __init__(self, url: str, capacity_bytes: int, tls: TlsSpec, auth: FileAuth, trial: bool) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise UserError("SourceUrlInvalid", "the disk's URL must be https, with a host and without user info")
        self.host, self.port = parts.hostname, parts.port or 443
        self.target = parts.path + (f"?{parts.query}" if parts.query else "")
        self.label = f"https://{self.host}:{self.port}{parts.path}"
        self.capacity_bytes = capacity_bytes
        self.tls, self.auth = tls, auth
        self.trial = trial  # until the first answer
        self.context = client_context(tls)
        self._lock = threading.Lock()
        self._etag: str | None = None

    @property
    def etag(self) -> str | None:
        return self._etag

    def connect(self, timeout_s: float) -> PinnedConnection:
        """Not connected yet: that happens at the first request."""
        return PinnedConnection(self.host, self.port, self.tls, self.context, timeout_s)

    def check(self, response: http.client.HTTPResponse, offset: int, length: int) -> None:
        """The headers of a 206 against what was asked for."""
        said = response.getheader("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(said)
        if found and found[3] != "*" and int(found[3]) != self.capacity_bytes:
            raise TerminalError(
                "SourceChanged", f"{self.label}: has {found[3]} bytes, the disk has {self.capacity_bytes}; read the VM again"
            )
        if not found or (int(found[1]), int(found[2])) != (offset, offset + length - 1):
            raise TerminalError("RangeWrong", f"{self.label}: asked for {length} bytes at {offset}, got {said[:80]!r}")
        etag = response.getheader("ETag")
        if etag is None or etag.startswith("W/"):
            return
        with self._lock:
            self._etag = self._etag or etag
        if etag != self._etag:
            raise TerminalError("SourceChanged", f"{self.label}: its ETag changed while we read it")


class HttpRangeReader:
    """One connection to one file. Not thread-safe; clone it.

    Errors of `read_into`: TerminalError SourceChanged, SourceNotFound, SourceForbidden, RangesIgnored, RangeWrong, ThumbprintMismatch,
    CertificateInvalid; RetryableError SourceUnreachable, SourceBusy, SourceLocked, ShortRead, AuthFailed once the attempts are spent.
    """

    def __init__(self, file: HttpFile, clock: Clock, timeout_s: float) -> None:
        self._file = file
        self._clock = clock
        self._timeout_s = timeout_s
        self._connection: PinnedConnection | None = None

    @classmethod
    def open(
        cls, url: str, capacity_bytes: int, tls: TlsSpec, auth: FileAuth, clock: Clock, timeout_s: float = 60.0, *, trial: bool = False
    ) -> HttpRangeReader:
        """Connects at the first read. `timeout_s` is for a connect and for each wait for bytes. `trial`: a file that was never read and
        answers SourceLocked is locked for good; else it is asked again, since a lock goes some time after its VM went off."""
        return cls(HttpFile(url, capacity_bytes, tls, auth, trial), clock, timeout_s)

    @property
    def capacity_bytes(self) -> int:
        return self._file.capacity_bytes

    def data_ranges(self) -> Iterator[tuple[int, int]] | None:
        """HTTP cannot tell holes from zeroes."""
        return None

    def clone(self) -> HttpRangeReader:
        return HttpRangeReader(self._file, self._clock, self._timeout_s)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        attempt, renewed = 1, False
        while True:
            generation, headers = self._file.auth.headers()
            try:
                self._fetch(offset, buffer, headers)
                self._file.trial = False
                return
            except _Unauthorized:
                self.close()
                if renewed:
                    raise RetryableError("AuthFailed", f"{self._file.label}: credentials are refused; renew the Secret") from None
                renewed = True
                self._file.auth.renew(generation)
            except RetryableError as err:
                self.close()
                if attempt == ATTEMPTS or (self._file.trial and err.reason == "SourceLocked"):
                    raise
                self._clock.sleep(backoff_s(attempt, err, self._clock))
                attempt += 1
                log.warning("range is read again", extra={"offset": offset, "attempt": attempt, "reason": err.reason})
            except BaseException:
                self.close()
                raise

    def _fetch(self, offset: int, buffer: memoryview, headers: dict[str, str]) -> None:
        """One request, one answer. OSError covers resets and timeouts (TimeoutError) of socket and TLS alike."""
        if self._file.etag is not None:
            headers["If-Match"] = self._file.etag
        headers |= {"Range": f"bytes={offset}-{offset + len(buffer) - 1}", "Accept-Encoding": "identity"}
        try:
            if self._connection is None:
                self._connection = self._file.connect(self._timeout_s)
            self._connection.request("GET", self._file.target, headers=headers)
            with self._connection.getresponse() as response:
                self._check_status(response)
                self._file.check(response, offset, len(buffer))
                _fill(response, buffer, self._file.label)
        except (OSError, http.client.HTTPException) as err:
            raise broken(err, self._file.label) from err

    def _check_status(self, response: http.client.HTTPResponse) -> None:
        label, status = self._file.label, response.status
        if status == 206:
            for cookie in response.headers.get_all("Set-Cookie") or ():
                self._file.auth.learn(cookie)
            return
        if status == 401:
            raise _Unauthorized
        if status == 200:
            raise TerminalError("RangesIgnored", f"{label}: the server ignores Range, so parts cannot be read; use another data path")
        raise refused(response, label)


def broken(err: OSError | http.client.HTTPException, label: str) -> ReconcilerError:
    """What ended a connection, as ours."""
    if isinstance(err, ssl.SSLCertVerificationError):
        text = (
            f"{label}: certificate is not trusted: {err.verify_message}; renew it there if it has expired, else set cacert or a thumbprint"
        )
        return TerminalError("CertificateInvalid", text)
    return RetryableError("SourceUnreachable", f"{label}: {type(err).__name__}: {err}")


def refused(response: http.client.HTTPResponse, label: str) -> ReconcilerError:
    """An answer that is no success, as ours."""
    status = response.status
    if status == 500:  # vCenter and ESXi, /folder: the host failed to open the file
        return RetryableError("SourceLocked", f"{label}: HTTP 500: the host cannot open it; a running VM may hold its lock")
    if status == 429 or status > 500:
        after = response.getheader("Retry-After", "")
        return RetryableError("SourceBusy", f"{label}: HTTP {status}", float(after) if after.isdecimal() else None)
    reason, why = _TERMINAL.get(status, ("SourceRefused", "unexpected answer"))
    return TerminalError(reason, f"{label}: HTTP {status}: {why}")


def _fill(response: http.client.HTTPResponse, buffer: memoryview, label: str) -> None:
    if response.length is not None and response.length != len(buffer):  # left-over bytes would be taken for the next answer
        raise RetryableError("ShortRead", f"{label}: announces a body of {response.length} bytes for {len(buffer)} asked for")
    got = 0
    while got < len(buffer):
        step = response.readinto(buffer[got:])
        if not step:
            raise RetryableError("ShortRead", f"{label}: the body ended {len(buffer) - got} bytes early")
        got += step
    if response.length is None and response.read(1):  # chunked: the end must be read, and must be here
        raise RetryableError("ShortRead", f"{label}: the body goes on after {len(buffer)} bytes")
