"""A small NBD server of the tests' own: one file, faults by script, structured or simple replies, block status from the file's zeroes.

Letters, one per command: `.` pass, `R` hang up, `T` hang up in the middle of the answer, `B` answer EIO, `E` answer ESHUTDOWN.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import socketserver
import struct
import sys
import threading
from pathlib import Path
from typing import Any

from reconciler.lab.faults import Faults

BLOCK = 64 << 10
_REPLY = 0x3E889045565A9


class NbdServer:
    """Attributes may be changed while it runs; `reads` holds (offset, length)."""

    def __init__(self, path: Path, address: str | None = None) -> None:
        self.path, self.faults = path, Faults()
        self.export = "disk"
        self.structured = True
        self.holes = True  # zero blocks are answered as holes
        self.contexts = {"base:allocation": 7}
        self.dirty: set[int] = set()  # blocks, for contexts beside base:allocation
        self.opaque: set[int] = set()  # blocks that are called holes, but not zero
        self.least = 1
        self.most = 32 << 20
        self.reads: list[tuple[int, int]] = []
        self.connections = 0
        self.bad = ""  # "offset", "short", "cookie", "twice", "silent": one way to be wrong
        self.lock = threading.Lock()
        self._server: socketserver.BaseServer = _Unix(address, _Handler) if address else _Tcp(("127.0.0.1", 0), _Handler)
        self._server.site = self  # type: ignore[attr-defined]
        self._address = address
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        if self._address:
            return f"nbd+unix:///{self.export}?socket={self._address}"
        port = self._server.server_address[1]  # type: ignore[attr-defined]
        return f"nbd://127.0.0.1:{port}/{self.export}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Refusing:
    """As nbdkit behaves where its plugin cannot open the disk: the error is logged, and the connection closed."""

    def __init__(self, address: str, text: str) -> None:
        self.text = text
        self._server = _Unix(address, _Refuse)
        self._server.site = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Refuse(socketserver.BaseRequestHandler):
    server: Any

    def handle(self) -> None:
        sys.stderr.write(f"nbdkit: vddk[1]: error: VixDiskLib_Open: {self.server.site.text}\n")
        sys.stderr.flush()


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = False
    allow_reuse_address = True


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = False


class _Bye(Exception):
    pass


class _Handler(socketserver.BaseRequestHandler):
    request: socket.socket
    server: Any

    def handle(self) -> None:
        self.site: NbdServer = self.server.site
        self.site.connections += 1
        self.request.settimeout(20)
        self.asked_structured, self.chosen = False, dict[str, int]()
        with contextlib.suppress(_Bye, OSError):
            self.request.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
            self._take(4)
            while not self._option():
                pass
            while True:
                self._command()

    def _take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            step = self.request.recv(length - len(data))
            if not step:
                raise _Bye
            data += step
        return data

    def _option(self) -> bool:
        _, option, length = struct.unpack(">8sII", self._take(16))
        data = self._take(length)
        if option == 8 and self.site.structured:
            self.asked_structured = True
            self._reply(option, 1)
        elif option == 10 and self.asked_structured:
            self._contexts(data)
        elif option == 7:
            name = data[4 : 4 + int.from_bytes(data[:4], "big")].decode()
            if name != self.site.export:
                self._reply(option, (1 << 31) + 6, b"no such export")
                return False
            self._reply(option, 3, struct.pack(">HQH", 0, self.site.path.stat().st_size, 1))
            self._reply(option, 3, struct.pack(">HIII", 3, self.site.least, 4096, self.site.most))
            self._reply(option, 1)
            return True
        else:
            self._reply(option, (1 << 31) + 1)
        return False

    def _contexts(self, data: bytes) -> None:
        at = 4 + int.from_bytes(data[:4], "big") + 4
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            name = data[at + 4 : at + 4 + size].decode()
            at += 4 + size
            if name in self.site.contexts:
                self.chosen[name] = self.site.contexts[name]
                self._reply(10, 4, struct.pack(">I", self.chosen[name]) + name.encode())
        self._reply(10, 1)

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self.request.sendall(struct.pack(">QIII", _REPLY, option, kind, len(data)) + data)

    def _command(self) -> None:
        _, _, command, cookie, offset, length = struct.unpack(">IHHQQI", self._take(28))
        if command == 2:
            raise _Bye
        letter = self.site.faults.next(f"NBD {command} {offset}")
        if letter in "RH":
            raise _Bye
        if letter in "BE" or offset % self.site.least or length % self.site.least or length > self.site.most > command == 0:
            self._error(cookie, 5 if letter == "B" else 108 if letter == "E" else 22)
            return
        cookie += self.site.bad == "cookie"
        if command == 7:
            self._status(cookie, offset, length)
        else:
            with self.site.lock:
                self.site.reads.append((offset, length))
            self._read(cookie, offset, length, truncated=letter == "T")

    def _error(self, cookie: int, error: int) -> None:
        if self.asked_structured:
            self._chunk(cookie, 1, (1 << 15) + 1, struct.pack(">IH", error, 4) + b"oops")
        else:
            self.request.sendall(struct.pack(">IIQ", 0x67446698, error, cookie))

    def _chunk(self, cookie: int, flags: int, kind: int, payload: bytes, cut: int = 0) -> None:
        whole = struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(payload)) + payload
        self.request.sendall(whole[: len(whole) - cut])

    def _data(self, offset: int, length: int) -> bytes:
        with self.site.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def _read(self, cookie: int, offset: int, length: int, *, truncated: bool) -> None:
        if not self.asked_structured:
            data = self._data(offset, length)
            self.request.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) + (data[: length // 2] if truncated else data))
        elif self.site.bad == "silent":
            self._chunk(cookie, 1, 0, b"")
        else:
            self._pieces(cookie, offset, length, truncated=truncated)
        if truncated:
            raise _Bye

    def _pieces(self, cookie: int, offset: int, length: int, *, truncated: bool) -> None:
        """The last block first: the order is free."""
        cuts = sorted({offset, offset + length, *range(-(-offset // BLOCK) * BLOCK, offset + length, BLOCK)})
        pieces = list(itertools.pairwise(cuts))[::-1]
        if self.site.bad == "short":
            pieces = pieces[1:]
        if self.site.bad == "twice":
            pieces = [pieces[0], *pieces[:-1]]
        for start, end in pieces:
            data = self._data(start, end - start)
            shown = start + (1 << 20 if self.site.bad == "offset" else 0)
            if self.site.holes and not any(data):
                self._chunk(cookie, 0, 2, struct.pack(">QI", shown, end - start))
            else:
                self._chunk(cookie, 0, 1, struct.pack(">Q", shown) + data, cut=len(data) // 2 if truncated else 0)
            if truncated:
                return
        self._chunk(cookie, 1, 0, b"")

    def _status(self, cookie: int, offset: int, length: int) -> None:
        """At most 20 extents an answer; a client has to ask again."""
        for name, number in self.chosen.items():
            extents = b""
            at = offset
            for _ in range(20):
                end = min((at // BLOCK + 1) * BLOCK, offset + length)
                if at >= end:
                    break
                zero = 1 if at // BLOCK in self.site.opaque else 3 * (not any(self._data(at, end - at)))
                extents += struct.pack(">II", end - at, zero if name == "base:allocation" else at // BLOCK in self.site.dirty)
                at = end
            self._chunk(cookie, 0, 5, struct.pack(">I", number) + (b"" if self.site.bad == "silent" else extents))
        self._chunk(cookie, 1, 0, b"")
