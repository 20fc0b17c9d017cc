"""DiskReader over NBD: a local nbdkit (vddk or any plugin), qemu-nbd, or any other server of the protocol.

What it is: one connection per instance, opened at the first read, and a bounded number of attempts. What it is not: the protocol
(wire/nbdproto.py), or the start of a server. Where it stands: worker.py makes one per disk; each lane of the pool clones it.
Units: bytes, seconds. URLs: nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH. Without TLS: it is meant for this pod.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from reconciler.errors import ReconcilerError, RetryableError, TerminalError, UserError
from reconciler.wire.nbdproto import ALLOCATION, ZERO, Conversation
from reconciler.wire.retry import ATTEMPTS, backoff_s

if TYPE_CHECKING:
    from reconciler.ports import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

_PORT = 10809
_STATUS_BYTES = 1 << 30  # one question; a length is 32 bits, and servers differ in how near to that they let one come


Explain = Callable[[ReconcilerError], ReconcilerError]


class Export:
    """Where it is. `explain`: who started the server may know more of an error than it tells us. Errors: UserError SourceUrlInvalid."""

    def __init__(self, url: str, explain: Explain | None = None) -> None:
        self.explain: Explain = explain or (lambda err: err)
        parts = urlsplit(url)
        path = parse_qs(parts.query).get("socket", [""])[0]
        self.name = unquote(parts.path.removeprefix("/"))
        self.address: str | tuple[str, int]
        if parts.scheme == "nbd+unix" and path:
            self.address, self.label = path, f"nbd+unix:{path}"
        elif parts.scheme == "nbd" and parts.hostname and parts.username is None:
            self.address = (parts.hostname, parts.port or _PORT)
            self.label = f"nbd://{parts.hostname}:{self.address[1]}"
        else:
            raise UserError("SourceUrlInvalid", "the disk's URL must be nbd://host[:port]/export or nbd+unix:///export?socket=path")

    def connect(self, timeout_s: float) -> socket.socket:
        if isinstance(self.address, tuple):
            sock = socket.create_connection(self.address, timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _blocking(sock, timeout_s)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(timeout_s)
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return _blocking(sock, timeout_s)


def _blocking(sock: socket.socket, timeout_s: float) -> socket.socket:
    """The kernel's own timeout instead of Python's, under which each read is a poll and a read of whatever is there: one call now fills
    a buffer. A timeout comes as EAGAIN, an OSError too."""
    limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return sock


class NbdReader:
    """One connection. Not thread-safe; clone it.

    Errors: those of nbdproto.Conversation; TerminalError SourceChanged (the size); RetryableError SourceUnreachable.
    """

    def __init__(self, export: Export, capacity_bytes: int, clock: Clock, timeout_s: float, context: str = ALLOCATION) -> None:
        self._export = export
        self._capacity = capacity_bytes
        self._clock = clock
        self._timeout_s = timeout_s
        self._context = context
        self._sock: socket.socket | None = None
        self._talk: Conversation | None = None

    @classmethod
    def open(cls, url: str, capacity_bytes: int, clock: Clock, timeout_s: float = 60.0, explain: Explain | None = None) -> NbdReader:
        """Connects at the first read. `timeout_s` is for a connect and for each wait for bytes."""
        return cls(Export(url, explain), capacity_bytes, clock, timeout_s)

    @property
    def capacity_bytes(self) -> int:
        return self._capacity

    def clone(self) -> NbdReader:
        return NbdReader(self._export, self._capacity, self._clock, self._timeout_s, self._context)

    def close(self) -> None:
        sock, self._sock = self._sock, None
        talk, self._talk = self._talk, None
        if sock is not None:
            with contextlib.suppress(OSError):
                if talk is not None:
                    talk.bye()
            sock.close()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._retried(lambda talk: self._read(talk, offset, buffer))

    def data_ranges(self) -> Iterator[tuple[int, int]] | None:
        """What base:allocation does not call zero; None where the server cannot tell."""
        if not self._retried(lambda talk: ALLOCATION in talk.contexts):
            return None
        return ((offset, length) for offset, length, flags in self.extents(ALLOCATION) if not flags & ZERO)

    def extents(self, context: str) -> Iterator[tuple[int, int, int]]:
        """(offset, length, flags) over the whole disk, ascending, neighbours of equal flags joined. On a connection of its own.

        Errors: TerminalError ContextMissing if the server does not offer `context`, say qemu:dirty-bitmap:NAME.
        """
        with contextlib.closing(NbdReader(self._export, self._capacity, self._clock, self._timeout_s, context)) as asking:
            if not asking._retried(lambda talk: context in talk.contexts):
                raise TerminalError("ContextMissing", f"{self._export.label}: the server does not offer {context}")
            yield from asking._joined()

    def _joined(self) -> Iterator[tuple[int, int, int]]:
        start, at, kind = 0, 0, -1
        while at < self._capacity:
            for length, flags in self._status(at):
                if flags != kind:
                    if at > start:
                        yield start, at - start, kind
                    start, kind = at, flags
                at = min(at + length, self._capacity)
        if at > start:
            yield start, at - start, kind

    def _status(self, at: int) -> list[tuple[int, int]]:
        length = min(_STATUS_BYTES, self._capacity - at)
        return self._retried(lambda talk: talk.status(self._context, at, length))

    def _read(self, talk: Conversation, offset: int, buffer: memoryview) -> None:
        least, end = talk.least, offset + len(buffer)
        step = max(least, talk.most // least * least)
        at = offset
        while at < end:
            begin, stop = at // least * least, min(at // least * least + step, -(-end // least) * least)
            if begin == at and stop <= end:
                talk.read(at, buffer[at - offset : stop - offset])
                at = stop
                continue
            whole = memoryview(bytearray(stop - begin))  # the server takes whole blocks only
            talk.read(begin, whole)
            stop = min(stop, end)
            buffer[at - offset : stop - offset] = whole[at - begin : stop - begin]
            at = stop

    def _retried(self, do: Callable[[Conversation], T]) -> T:
        attempt = 1
        failed: ReconcilerError
        while True:
            try:
                return do(self._talk or self._connect())
            except ReconcilerError as err:
                failed = err
            except OSError as err:
                failed = RetryableError("SourceUnreachable", f"{self._export.label}: {type(err).__name__}: {err}")
            except BaseException:
                self._drop()
                raise
            self._drop()
            failed = self._export.explain(failed)
            if not isinstance(failed, RetryableError) or attempt == ATTEMPTS:
                raise failed
            self._clock.sleep(backoff_s(attempt, failed, self._clock))
            attempt += 1
            log.warning("disk is read again", extra={"attempt": attempt, "reason": failed.reason})

    def _connect(self) -> Conversation:
        self._sock = self._export.connect(self._timeout_s)
        talk = Conversation(self._sock, self._export.name, [self._context], self._export.label)
        if talk.size != self._capacity:
            text = f"{self._export.label}: has {talk.size} bytes, the disk has {self._capacity}; read the VM again"
            raise TerminalError("SourceChanged", text)
        self._talk = talk
        return talk

    def _drop(self) -> None:
        """Without a farewell: there may be half an answer in the socket."""
        self._talk = None
        self.close()
