"""DiskStream over HTTPS: one GET of a streamOptimized VMDK, as an NFC lease or any server of files gives it.

What it is: one request, its bytes in order, and an error whenever they do not come to the stream's own end. What it is not: the format
(wire/vmdk.py), the lease (drivers/vsphere/lease.py), a retry: what broke begins anew with another lease, since nothing can be resumed.
Units: bytes, seconds. Platform: the path of an NFC URL is a ticket, so neither path nor query is ever shown.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator

from reconciler.core.copyspec import TlsSpec
from reconciler.errors import ReconcilerError, RetryableError
from reconciler.wire.auth import FileAuth
from reconciler.wire.http import HttpFile, PinnedConnection, broken, refused
from reconciler.wire.vmdk import VmdkParcel, parcels


class HttpVmdkStream:
    """Not thread-safe, but for `close`. `label` is the disk's name for people."""

    def __init__(self, file: HttpFile, label: str, timeout_s: float) -> None:
        self._file = file
        self._label = f"{label} from {file.host}:{file.port}"
        self._timeout_s = timeout_s
        self._connection: PinnedConnection | None = None
        self._response: http.client.HTTPResponse | None = None

    @classmethod
    def open(cls, url: str, capacity_bytes: int, tls: TlsSpec, auth: FileAuth, label: str, timeout_s: float = 60.0) -> HttpVmdkStream:
        """Connects when the first parcel is asked for. `timeout_s` is for a connect and for each wait for bytes."""
        return cls(HttpFile(url, capacity_bytes, tls, auth, trial=False), label, timeout_s)

    @property
    def capacity_bytes(self) -> int:
        return self._file.capacity_bytes

    def parcels(self, window_bytes: int) -> Iterator[VmdkParcel]:
        """Errors: those of wire/vmdk.py and wire/http.py; RetryableError StreamBroken."""
        self.close()
        try:
            response = self._request()
            yield from parcels(_Exactly(response, self._label), self.capacity_bytes, window_bytes, self._label)
        finally:
            self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        response, self._response = self._response, None
        for item in (response, connection):  # with `Connection: close` the response has the socket to itself
            if item is not None:
                item.close()

    def _request(self) -> http.client.HTTPResponse:
        """One renewal of the credentials after a 401."""
        auth = self._file.auth
        for last in (False, True):
            generation, headers = auth.headers()
            response = self._get(headers)
            if response.status == 200:
                return response
            self.close()
            if response.status != 401:
                raise refused(response, self._label)
            if not last:
                auth.renew(generation)
        raise RetryableError("AuthFailed", f"{self._label}: credentials are refused; renew the Secret")

    def _get(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = self._connection = self._file.connect(self._timeout_s)
        try:
            connection.request("GET", self._file.target, headers={**headers, "Accept-Encoding": "identity"})
            self._response = connection.getresponse()
            return self._response
        except (OSError, http.client.HTTPException) as err:
            raise broken(err, self._label) from err


class _Exactly:
    """`read(n)` that gives n bytes or raises."""

    def __init__(self, response: http.client.HTTPResponse, label: str) -> None:
        self._response = response
        self._label = label
        self._got = 0

    def __call__(self, length: int) -> bytes:
        try:
            data = self._response.read(length)
        except http.client.IncompleteRead as err:
            data = err.partial
        except (OSError, http.client.HTTPException, ValueError) as err:  # ValueError: closed by another thread
            raise self._broken(f"{type(err).__name__}: {err}") from err
        if len(data) < length:
            raise self._broken("the body ended before the stream did")
        self._got += length
        return data

    def _broken(self, why: str) -> ReconcilerError:
        return RetryableError("StreamBroken", f"{self._label}: broke off after {self._got} bytes: {why}; it begins anew")
