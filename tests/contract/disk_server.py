"""A small HTTPS range server of the tests' own: one file, faults by script, a cookie or basic auth.

What it is not: a platform; the lab's vCenter serves the same protocol with its own rules. Letters are those of reconciler.lab.faults.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reconciler.lab.faults import Faults
from reconciler.lab.tls import LabCa

USER, PASSWORD = "mover", "s3cret-of-the-test"


class DiskServer:
    """Serves `path` whatever is asked for. Attributes may be changed while it runs; `requests` holds (Range, headers)."""

    def __init__(self, path: Path, tls: Path, *, expired: bool = False) -> None:
        self.path, self.faults = path, Faults()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.cookie: str | None = None  # accepted cookie; with `basic`, either will do
        self.basic = False
        self.gives_cookie = False
        self.etag: str | None = None
        self.ignores_range = False
        self.says_total: int | None = None
        self.says_range: str | None = None
        self.extra_body = 0
        self.chunked = False
        self.delay_s = 0.0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.ca = LabCa(tls)
        context, self.thumbprint = self.ca.server_context("disks", -1 if expired else 30)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}/folder/vm/disk-flat.vmdk?dcPath=DC0&dsName=ds1"

    def allows(self, headers: dict[str, str]) -> bool:
        if self.cookie is None and not self.basic:
            return True
        if self.cookie is not None and headers.get("Cookie") == self.cookie:
            return True
        return self.basic and headers.get("Authorization") == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close joins them
    request_queue_size = 64
    site: DiskServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.request.settimeout(20)
        super().setup()

    def handle(self) -> None:
        try:
            super().handle()
        except (ssl.SSLError, OSError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site, headers = self.server.site, dict(self.headers.items())
        with site.lock:
            site.requests.append((headers.get("Range", ""), headers))
        letter = site.faults.next(f"GET {self.path}")
        if site.delay_s:
            site.released.wait(site.delay_s)
        if letter == "H":
            site.released.wait(20)
        if letter in "HRL":
            self.close_connection = True
            return
        if letter == "B":
            self._answer(503, {"Retry-After": "2"})
        elif letter == "E" or not site.allows(headers):
            self._answer(401, {"WWW-Authenticate": 'Basic realm="disks"'})
        else:
            self._range(headers, truncated=letter == "T")

    def _range(self, headers: dict[str, str], *, truncated: bool) -> None:
        site = self.server.site
        size = site.path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
        if site.etag and headers.get("If-Match", site.etag) != site.etag:
            return self._answer(412, {})
        if not found or site.ignores_range:
            return self._body(200, {}, 0, size, truncated)
        start, end = int(found[1]), min(int(found[2]), size - 1)
        if start >= size:
            return self._answer(416, {"Content-Range": f"bytes */{size}"})
        total = size if site.says_total is None else site.says_total
        more = {"Content-Range": site.says_range or f"bytes {start}-{end}/{total}"}
        return self._body(206, more, start, end + 1 - start, truncated)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _chunks(self, status: int, headers: dict[str, str], start: int, length: int) -> None:
        self.send_response(status)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        data = self.server.site.path.read_bytes()[start : start + length] + bytes(self.server.site.extra_body)
        for at in range(0, len(data), 5000):
            self.wfile.write(f"{len(data[at : at + 5000]):x}\r\n".encode() + data[at : at + 5000] + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _body(self, status: int, headers: dict[str, str], start: int, length: int, truncated: bool) -> None:
        site = self.server.site
        if site.etag:
            headers["ETag"] = site.etag
        if site.gives_cookie:
            headers["Set-Cookie"] = f"{site.cookie}; Path=/; HttpOnly"
        if site.chunked:
            self._chunks(status, headers, start, length)
            return
        self._answer(status, {"Content-Length": str(length + site.extra_body), **headers})
        fd = os.open(site.path, os.O_RDONLY)
        try:
            self.wfile.write(os.pread(fd, length // 2 if truncated else length, start) + bytes(site.extra_body))
        finally:
            os.close(fd)
        self.close_connection = truncated
