"""Faults at the wire in front of a real server: the lab's script, played by an HTTPS proxy that changes nothing else.

What it is: one thread per connection, one upstream connection behind each, letters by reconciler/lab/faults.py.
What it is not: a cache (but for `S`, the answer before this one) or a judge of content; a Dialect knows how the platform says no.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import urlsplit

from reconciler.lab.faults import Faults

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect(Protocol):
    """How a platform names its requests, and how it refuses (None: the connection is cut)."""

    def label(self, method: str, path: str, body: bytes) -> str: ...
    def refusal(self, letter: str) -> Answer | None: ...


class FaultProxy(socketserver.ThreadingTCPServer):
    """`seen`: called for each answer that the server gave, also for those whose reply is then lost."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        upstream: str,
        trust: ssl.SSLContext,
        context: ssl.SSLContext,
        dialect: Dialect,
        seen: Callable[[str, str, bytes, Answer], None] = lambda method, path, body, answer: None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self.faults = Faults()
        self.dialect, self.seen, self.trust = dialect, seen, trust
        self.upstream = urlsplit(upstream)
        self.requests: Counter[str] = Counter()
        self.last: dict[str, Answer] = {}
        self.stopping = threading.Event()
        self._context = context
        self._open: set[ssl.SSLSocket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)

    def get_request(self) -> tuple[Any, Any]:
        raw, address = self.socket.accept()
        wrapped = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        self._open.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(request, socket.SHUT_RDWR)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.server_close()


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def setup(self) -> None:
        self.request.settimeout(10)
        self.request.do_handshake()
        self.request.settimeout(None)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._upstream: http.client.HTTPSConnection | None = None
        super().setup()

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server, path = self.server, self.path.partition("?")[0]
        label = server.dialect.label(self.command, path, body)
        letter = server.faults.next(label)
        server.requests[label] += 1
        if letter == "H":
            self._hang()
            return
        if letter in "RBE":
            answer = server.dialect.refusal(letter)
        else:
            key = f"{self.command} {self.path} {label}"
            answer = (server.last.get(key) if letter == "S" else None) or self._forward(body)
            server.last[key] = answer
            server.seen(self.command, path, body, answer)
        if answer is None or letter == "L":
            self.close_connection = True
            return
        self._send(answer, cut=letter == "T")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = serve

    def _forward(self, body: bytes) -> Answer:
        """A kept-alive connection may be gone; then once more on a new one, before anything was sent upstream."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        if self._upstream is None or self._upstream.sock is None or _closed(self._upstream.sock):
            if self._upstream is not None:
                self._upstream.close()
            where = self.server.upstream
            self._upstream = http.client.HTTPSConnection(where.hostname or "", where.port, context=self.server.trust, timeout=60)
        self._upstream.request(self.command, self.path, body or None, headers)
        reply = self._upstream.getresponse()
        return Answer(reply.status, reply.read(), {name: value for name, value in reply.getheaders() if name.lower() not in _HOP})

    def _hang(self) -> None:
        self.close_connection = True
        while not self.server.stopping.is_set():
            if _closed(self.connection, 0.2):
                return

    def _send(self, answer: Answer, cut: bool) -> None:
        lines = [f"HTTP/1.1 {answer.code} {http.client.responses.get(answer.code, '')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        body = answer.body
        lines += [f"Content-Length: {len(body)}", "", ""]
        if cut:
            self.close_connection = True
            body = body[: len(body) // 2]
        self.connection.sendall("\r\n".join(lines).encode("latin-1") + (b"" if self.command == "HEAD" else body))


def _closed(connection: socket.socket, seconds: float = 0.0) -> bool:
    """Readable without a request under way means that the other side has closed."""
    watched = select.poll()
    watched.register(connection, select.POLLIN)
    return bool(watched.poll(seconds * 1000))
