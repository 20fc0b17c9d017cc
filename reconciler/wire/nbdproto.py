"""The NBD protocol on one connected socket: fixed newstyle handshake, structured replies, reads and block status.

What it is: messages, each checked. What it is not: a decision to try again (wire/nbd.py), TLS, writes.
Own code, because libnbd's Python module is not on PyPI, and the part that a copy needs is small.
Units: bytes. Source: NBD protocol document (doc/proto.md of the NetworkBlockDevice project).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from reconciler.core.ranges import Range, merge
from reconciler.errors import ReconcilerError, RetryableError, TerminalError

ALLOCATION = "base:allocation"
ZERO = 2  # of base:allocation: reads as zeroes. Bit 0, a hole, does not promise that
_INIT, _OPTION, _OPTION_REPLY = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
_REQUEST, _SIMPLE, _STRUCTURED = 0x25609513, 0x67446698, 0x668E33EF
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_GO, _OPT_STRUCTURED_REPLY, _OPT_SET_META_CONTEXT = 7, 8, 10
_REP_ACK, _REP_INFO, _REP_META_CONTEXT, _REP_ERROR, _REP_UNKNOWN = 1, 3, 4, 1 << 31, (1 << 31) + 6
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_READ, _DISCONNECT, _BLOCK_STATUS = 0, 2, 7
_DONE = 1
_CHUNK_NONE, _CHUNK_DATA, _CHUNK_HOLE, _CHUNK_STATUS, _CHUNK_ERROR = 0, 1, 2, 5, 1 << 15
_MOST_OPTION_BYTES = 1 << 16
_MOST_STATUS_BYTES = 4 + (8 << 20)
_GONE = {errno.ESHUTDOWN, errno.EIO, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN}


class Conversation:
    """One connection after its handshake. Not thread-safe. After any error but a NBD error reply it is of no more use.

    Errors: RetryableError SourceIo (the server's EIO and the like), ShortRead; TerminalError SourceRefused, NbdWrong; OSError.
    """

    def __init__(self, sock: socket.socket, export: str, contexts: Sequence[str], label: str) -> None:
        self._sock = sock
        self._label = label
        self._cookie = 0
        self.size = -1
        self.least, self.most = 1, 32 << 20  # what a client may assume when the server says nothing
        self.contexts: dict[str, int] = {}
        self._greet()
        self.structured = self._option(_OPT_STRUCTURED_REPLY, b"") == _REP_ACK
        name = export.encode()
        if self.structured and contexts:
            queries = b"".join(struct.pack(">I", len(c.encode())) + c.encode() for c in contexts)
            self._option(_OPT_SET_META_CONTEXT, struct.pack(">I", len(name)) + name + struct.pack(">I", len(contexts)) + queries)
        answer = self._option(_OPT_GO, struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, _INFO_BLOCK_SIZE))
        if answer == _REP_UNKNOWN:
            raise TerminalError("SourceNotFound", f"{label}: there is no export {export!r}")
        if answer != _REP_ACK or self.size < 0 or not 0 < self.least <= self.most:
            raise TerminalError("SourceRefused", f"{label}: the server does not open export {export!r} (answer {answer:#x})")

    def read(self, offset: int, view: memoryview) -> None:
        """At most `most` bytes, aligned to `least`."""
        self._send(_READ, offset, len(view))
        if not self.structured:
            self._simple_reply()
            self._fill(view)
            return
        seen: list[Range] = []
        for kind, length in self._chunks():
            if kind == _CHUNK_DATA and length > 8:
                (at,) = struct.unpack(">Q", self._take(8))
                with self._within(view, offset, at, length - 8, seen) as part:
                    self._fill(part)
            elif kind == _CHUNK_HOLE and length == 12:
                at, size = struct.unpack(">QI", self._take(12))
                with self._within(view, offset, at, size, seen) as part:
                    part[:] = bytes(size)
            else:
                raise self._wrong(f"chunk {kind} of {length} bytes in answer to a read")
        if merge(seen) != [(0, len(view))] or sum(size for _, size in seen) != len(view):
            raise RetryableError("ShortRead", f"{self._label}: the answer does not cover the {len(view)} bytes at {offset}")

    def status(self, context: str, offset: int, length: int) -> list[tuple[int, int]]:
        """(length, flags) from `offset` on; it may end before or behind what was asked for, and says something."""
        self._send(_BLOCK_STATUS, offset, length)
        out: list[tuple[int, int]] = []
        for kind, size in self._chunks():
            if kind != _CHUNK_STATUS or size % 8 != 4 or size > _MOST_STATUS_BYTES:
                raise self._wrong(f"chunk {kind} of {size} bytes in answer to a block status")
            (context_id,) = struct.unpack(">I", self._take(4))
            extents = list(struct.iter_unpack(">II", self._take(size - 4)))
            if context_id == self.contexts[context]:
                out += extents
        if not out or any(not size for size, _ in out):
            raise self._wrong("a block status that says nothing")
        return out

    def bye(self) -> None:
        """Errors: OSError."""
        self._send(_DISCONNECT, 0, 0)

    def _greet(self) -> None:
        if self._take(8) != _INIT or self._take(8) != _OPTION:
            raise self._wrong("no newstyle NBD server is there")
        (flags,) = struct.unpack(">H", self._take(2))
        if not flags & _FIXED_NEWSTYLE:
            raise self._wrong("the server's handshake is too old")
        self._sock.sendall(struct.pack(">I", flags & (_FIXED_NEWSTYLE | _NO_ZEROES)))

    def _option(self, option: int, data: bytes) -> int:
        """Send it, take what comes before the last reply, and return the type of that."""
        self._sock.sendall(_OPTION + struct.pack(">II", option, len(data)) + data)
        while True:
            magic, told, kind, length = struct.unpack(">QIII", self._take(20))
            if magic != _OPTION_REPLY or told != option or length > _MOST_OPTION_BYTES:
                raise self._wrong(f"a strange reply to option {option}")
            payload = self._take(length)
            if kind == _REP_ACK or kind & _REP_ERROR:
                return int(kind)
            self._learn(kind, payload)

    def _learn(self, kind: int, payload: bytes) -> None:
        if kind == _REP_META_CONTEXT and len(payload) > 4:
            self.contexts[payload[4:].decode(errors="replace")] = int.from_bytes(payload[:4], "big")
        elif kind == _REP_INFO and payload[:2] == struct.pack(">H", _INFO_EXPORT) and len(payload) == 12:
            self.size = int.from_bytes(payload[2:10], "big")
        elif kind == _REP_INFO and payload[:2] == struct.pack(">H", _INFO_BLOCK_SIZE) and len(payload) == 14:
            self.least, _, self.most = struct.unpack(">III", payload[2:])

    def _send(self, command: int, offset: int, length: int) -> None:
        self._cookie += 1
        self._sock.sendall(struct.pack(">IHHQQI", _REQUEST, 0, command, self._cookie, offset, length))

    def _simple_reply(self) -> None:
        magic, error, cookie = struct.unpack(">IIQ", self._take(16))
        if magic != _SIMPLE or cookie != self._cookie:
            raise self._wrong("a reply to something else")
        if error:
            raise self._refused(error, "")

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """(type, payload length) up to the last; the caller takes the payload. An error is raised when the answer has ended."""
        failed: ReconcilerError | None = None
        while True:
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self._take(20))
            if magic != _STRUCTURED or cookie != self._cookie:
                raise self._wrong("a reply to something else")
            if kind & _CHUNK_ERROR:
                failed = self._error_chunk(length)
            elif kind != _CHUNK_NONE:
                yield kind, length
            if flags & _DONE:
                break
        if failed is not None:
            raise failed

    def _error_chunk(self, length: int) -> ReconcilerError:
        if not 6 <= length <= _MOST_OPTION_BYTES:
            raise self._wrong(f"an error of {length} bytes")
        payload = self._take(length)
        error, size = struct.unpack_from(">IH", payload)
        return self._refused(error, payload[6 : 6 + size].decode(errors="replace"))

    def _within(self, view: memoryview, offset: int, at: int, size: int, seen: list[Range]) -> memoryview:
        if not offset <= at <= at + size <= offset + len(view) or not size:
            raise self._wrong(f"{size} bytes at {at} in answer to a read of {len(view)} at {offset}")
        seen.append((at - offset, size))
        return view[at - offset : at - offset + size]

    def _take(self, length: int) -> bytes:
        buffer = bytearray(length)
        self._fill(memoryview(buffer))
        return bytes(buffer)

    def _fill(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            step = self._sock.recv_into(view[done:], 0, socket.MSG_WAITALL)
            if not step:
                raise RetryableError("ShortRead", f"{self._label}: the server hung up in the middle of an answer")
            done += step

    def _refused(self, error: int, text: str) -> ReconcilerError:
        what = f"{self._label}: the server says {os.strerror(error)}" + (f": {text[:200]}" if text else "")
        return RetryableError("SourceIo", what) if error in _GONE else TerminalError("SourceRefused", what)

    def _wrong(self, what: str) -> TerminalError:
        return TerminalError("NbdWrong", f"{self._label}: {what}")
