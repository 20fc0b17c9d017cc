"""HTTPS on loopback in front of the endpoints: TLS, bearer tokens, keep-alive, chunked streams, and scripted faults.

What it is: the socket layer, one thread per connection. What it is not: Kubernetes' semantics (endpoints.py).
"""

from __future__ import annotations

import contextlib
import hmac
import http
import logging
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from reconciler.lab.cluster.endpoints import Endpoints, Reply, Request
from reconciler.lab.cluster.failures import ApiError, too_many_requests, unauthorized, unavailable
from reconciler.lab.cluster.store import dump
from reconciler.lab.faults import Faults

log = logging.getLogger(__name__)
_OPEN_PATHS = ("/version", "/healthz", "/livez", "/readyz")  # RBAC's system:public-info-viewer


class ApiServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Call `start`, then `stop`: no thread, socket or stream is left behind."""

    allow_reuse_address = True
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, port: int, context: ssl.SSLContext, token: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", port), _Exchange)
        self.port: int = self.server_address[1]
        self.token, self.faults = token, faults
        self.endpoints: Endpoints | None = None
        self._context = context
        self._open: set[ssl.SSLSocket] = set()
        self._guard = threading.Lock()
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="lab-cluster-accept")

    def get_request(self) -> tuple[Any, Any]:
        raw, address = self.socket.accept()
        # The handshake belongs to the connection's own thread: a client that does not finish it must not stop the others.
        wrapped = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        with self._guard:
            self._open.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        _sever(request)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection ended", exc_info=True)

    def _accept(self) -> None:
        """Instead of serve_forever: it ends at once when the socket is shut, and polls for nothing."""
        while not self.stopping.is_set():
            try:
                request, address = self.get_request()
            except OSError:
                continue
            self.process_request(request, address)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        _sever(self.socket)
        if self._thread.is_alive():
            self._thread.join()
        self._sever_all()
        self.server_close()  # joins the connections' threads

    def present(self, context: ssl.SSLContext) -> None:
        """From now on another certificate; who is connected has to come again."""
        self._context = context
        self._sever_all()

    def _sever_all(self) -> None:
        with self._guard:
            left = list(self._open)
        for connection in left:
            _sever(connection)


def _sever(connection: socket.socket) -> None:
    """Shut the TCP connection under TLS: SSLSocket.shutdown would take the TLS object from under a reading thread."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _readable(connection: socket.socket, seconds: float) -> bool:
    """poll, not select: a lab of many sites has more descriptors than select can name."""
    watched = select.poll()
    watched.register(connection, select.POLLIN)
    return bool(watched.poll(seconds * 1000))


class _Exchange(BaseHTTPRequestHandler):
    """One connection and its requests."""

    protocol_version = "HTTP/1.1"
    server: ApiServer

    def setup(self) -> None:
        self.request.settimeout(10)
        self.request.do_handshake()
        self.request.settimeout(None)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("request", extra={"line": format % args})

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the client, or stop(), closed it
            super().handle()

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        letter = self.server.faults.next(f"{self.command} {path}")
        if letter == "H":
            self._hang()
            return
        reply = self._reply(path, body, letter)
        if letter == "L":
            self.close_connection = True
            return
        if isinstance(reply.body, bytes):
            self._send(reply, reply.body, cut=letter == "T")
        else:
            self._stream(reply, reply.body, cut=letter == "T")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def _reply(self, path: str, body: bytes, letter: str) -> Reply:
        endpoints = self.server.endpoints
        try:
            if endpoints is None or letter == "R":
                raise unavailable()
            if letter == "B":
                raise too_many_requests(1)
            if letter == "E" or not (path.rstrip("/") in _OPEN_PATHS or self._known()):
                raise unauthorized()
            headers = {name.lower(): value for name, value in self.headers.items()}
            return endpoints.answer(Request(self.command, self.path, headers, body, letter == "S", self._gone))
        except ApiError as err:
            headers = {"Retry-After": "1"} if err.code == 429 else {}
            return Reply(err.code, dump(err.body()), headers=headers)

    def _known(self) -> bool:
        given = self.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode())

    def _gone(self) -> bool:
        """The server stops, or the client has closed its side: a client that waits for a stream sends nothing."""
        if self.server.stopping.is_set():
            return True
        return _readable(self.connection, 0)

    def _hang(self) -> None:
        self.close_connection = True
        while not self.server.stopping.is_set():
            if _readable(self.connection, 0.2):
                return

    def _head(self, reply: Reply, extra: dict[str, str]) -> bytes:
        phrase = http.HTTPStatus(reply.code).phrase
        fields = {"Content-Type": reply.media, "Date": self.date_time_string(), **reply.headers, **extra}
        lines = [f"HTTP/1.1 {reply.code} {phrase}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def _send(self, reply: Reply, body: bytes, cut: bool) -> None:
        head = self._head(reply, {"Content-Length": str(len(body))})
        if cut:
            self.close_connection = True
            body = body[: len(body) // 2]
        self.connection.sendall(head + body)

    def _stream(self, reply: Reply, chunks: Iterator[bytes], cut: bool) -> None:
        self.connection.sendall(self._head(reply, {"Transfer-Encoding": "chunked"}))
        for chunk in chunks:
            if cut:
                self.close_connection = True
                self.connection.sendall(b"%x\r\n" % len(chunk) + chunk[: len(chunk) // 2])
                return
            if chunk:
                self.connection.sendall(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
        if self._gone():
            self.close_connection = True
        else:
            self.connection.sendall(b"0\r\n\r\n")
