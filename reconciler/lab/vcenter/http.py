"""A small threaded HTTPS server: keep-alive, many connections, files by range, and connections that misbehave on order.

What it is not: vSphere. Where it stands: server.py gives it one function, Request -> Response.
Every socket and thread ends with stop(). The Date header is the lab clock's.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

from reconciler.lab.clock import LabClock

CHUNK_BYTES = 1 << 20
BODY_LIMIT_BYTES = 8 << 20
HANDSHAKE_S = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: Message
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """`path`: send `length` bytes of the file from `start`. `pieces`: send them as chunks. `cut`: half the body (of pieces: two), then
    close. `drop`: close without a word. `hang`: say nothing until the client goes away."""

    status: int
    body: bytes = b""
    kind: str = "text/html"
    path: Path | None = None
    start: int = 0
    length: int = 0
    size: int = 0
    pieces: Iterator[bytes] | None = None
    cookie: str | None = None
    retry_after_s: int | None = None
    authenticate: bool = False
    cut: bool = False
    drop: bool = False
    hang: bool = False


class Listener:
    def __init__(self, context: ssl.SSLContext, port: int, clock: LabClock, serve: Callable[[Request], Response]) -> None:
        self.context, self._clock, self._serve = context, clock, serve
        self._wanted_port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return self._server.server_address[1] if self._server else self._wanted_port

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._wanted_port), self.context, self._clock, self._serve)
        self._wanted_port = self.port  # the same door after a restart
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="vcenter", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.cut_all()
        self._server.server_close()  # waits for the handlers
        self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, clock: LabClock, serve: Callable[[Request], Response]) -> None:
        self.context, self.clock, self.serve = context, clock, serve
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False
        super().__init__(address, _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, the handshake too, so that a slow client holds up nobody."""
        try:
            secure = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        except OSError:  # it came and went
            request.close()
            return
        with self._lock:
            self._open.add(secure)
            stopping = self._stopping
        try:
            if not stopping:
                secure.settimeout(HANDSHAKE_S)
                secure.do_handshake()
                secure.settimeout(None)
                self.finish_request(secure, client_address)
        except (OSError, ValueError):
            pass  # no trust, the client went away, or stop() cut the connection
        finally:
            with self._lock:
                self._open.discard(secure)
            secure.close()

    def cut_all(self) -> None:
        """Wake every handler: shut the TCP connection below its TLS."""
        with self._lock:
            self._stopping = True
            for each in self._open:
                try:
                    socket.socket.shutdown(each, socket.SHUT_RDWR)
                except OSError:
                    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True
    wbufsize = 0

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.server.clock.now(), usegmt=True)

    def version_string(self) -> str:
        return "envoy"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_LIMIT_BYTES:
            self.close_connection = True
            self.send_error(413)
            return
        body = self.rfile.read(length) if length else b""
        response = self.server.serve(Request(self.command, self.path, self.headers, body))
        if response.hang:
            self.connection.recv(1)  # until the client gives up or stop() cuts
        if response.hang or response.drop:
            self.close_connection = True
            return
        self._send(response)

    def _send(self, response: Response) -> None:
        length = response.length if response.path else len(response.body)
        self.send_response(response.status)
        self.send_header("Content-Type", response.kind)
        if response.pieces is not None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        if response.path or response.status == 416:
            self.send_header("Accept-Ranges", "bytes")
        if response.status == 206:
            self.send_header("Content-Range", f"bytes {response.start}-{response.start + length - 1}/{response.size}")
        if response.status == 416:
            self.send_header("Content-Range", f"bytes */{response.size}")
        if response.cookie:
            self.send_header("Set-Cookie", response.cookie)
        if response.authenticate:
            self.send_header("WWW-Authenticate", 'Basic realm="VMware HTTP server"')
        if response.retry_after_s is not None:
            self.send_header("Retry-After", str(response.retry_after_s))
        self.end_headers()
        if self.command == "HEAD":
            return
        if response.cut:
            self.close_connection = True
            length //= 2
        if response.pieces is not None:
            self._send_pieces(islice(response.pieces, 2) if response.cut else response.pieces, ended=not response.cut)
        elif response.path:
            self._send_file(response.path, response.start, length)
        else:
            self.wfile.write(response.body[:length])

    def _send_pieces(self, pieces: Iterable[bytes], ended: bool) -> None:
        """Chunked, RFC 9112 section 7.1. A source that fails in between leaves the body without its end."""
        for piece in pieces:
            self.connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        if ended:
            self.connection.sendall(b"0\r\n\r\n")

    def _send_file(self, path: Path, start: int, length: int) -> None:
        """Large writes from one reused buffer: TLS leaves nothing for sendfile to save."""
        buffer = memoryview(bytearray(min(CHUNK_BYTES, max(1, length))))
        with path.open("rb", buffering=0) as file:
            at, end = start, start + length
            while at < end:
                got = os.preadv(file.fileno(), [buffer[: min(len(buffer), end - at)]], at)
                if got == 0:
                    raise OSError("the file shrank while it was sent")
                self.connection.sendall(buffer[:got])
                at += got
