"""A git server over HTTPS: git's own http-backend behind a small CGI server that asks for a password.

What it is: what a forge's front end does, with accounts that may read or write.
What it is not: git; every object goes through http-backend.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e import parts

_READ_ONLY = "reader"


class GitServer(ThreadingHTTPServer):
    """Serves any repository below "/", to `passwords`' users. The user named "reader" may not push.

    silent: connections are cut at once, as when the server is down. status: every answer is this one.
    spoil: what goes wrong with a request that is let in, by its label ("GET git-upload-pack"), as a letter of the fault script: R cut at
    once, B 503, E 401, H no answer, L the effect and no answer, T half of the answer, S a `replica` answers. `before_push` comes first.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, context: ssl.SSLContext, passwords: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.backend = parts.program("git-http-backend", "git")
        self.passwords = passwords
        self.context = context
        self.silent = False
        self.status: int | None = None
        self.requests: list[str] = []
        self.spoil: Callable[[str], str] = lambda label: ""
        self.before_push: Callable[[], None] = lambda: None
        self.replica: Path | None = None
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[Any, Any]:
        raw, address = super().get_request()
        return self.context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or does not trust us, is no news."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GitServer

    def setup(self) -> None:
        self.request.settimeout(20)
        self.request.do_handshake()
        super().setup()

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def serve(self) -> None:
        path, _, query = self.path.partition("?")
        body = self._body()
        self.server.requests.append(f"{self.command} {path}")
        if self.server.silent:
            self.close_connection = True
            return
        user = self._user()
        pushes = "git-receive-pack" in self.path
        if self.server.status is not None:
            self._answer(self.server.status, {}, b"try later")
        elif user is None:
            self._answer(401, {"WWW-Authenticate": 'Basic realm="forge"'}, b"who are you")
        elif pushes and user == _READ_ONLY:
            self._answer(403, {}, b"you may not push")
        else:
            self._let_in(path, query, body, user)

    def _let_in(self, path: str, query: str, body: bytes, user: str) -> None:
        server = self.server
        service = (query or path).rpartition("=" if query else "/")[2]
        if (self.command, service) == ("POST", "git-receive-pack"):
            server.before_push()
        letter = server.spoil(f"{self.command} {service}")
        match letter:
            case "R" | "H":
                self.close_connection = True
                while letter == "H" and self.connection.recv(1024):
                    pass
            case "B":
                self._answer(503, {"Retry-After": "1"}, b"too much to do")
            case "E":
                self._answer(401, {"WWW-Authenticate": 'Basic realm="forge"'}, b"that session is over")
            case "S" if service == "git-upload-pack" and server.replica:
                self._backend(f"{server.replica}/{path.partition('.git/')[2]}", query, body, user)
            case _:
                self._backend(path, query, body, user, {"L": 0.0, "T": 0.5}.get(letter, 1.0))

    do_GET = do_POST = serve

    def _body(self) -> bytes:
        """git sends a large pack in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts_ = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts_.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts_)

    def _user(self) -> str | None:
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return None
        user, _, password = base64.b64decode(given).decode(errors="replace").partition(":")
        wanted = self.server.passwords.get(user)
        return user if wanted is not None and hmac.compare_digest(wanted.encode(), password.encode()) else None

    def _backend(self, path: str, query: str, body: bytes, user: str, part: float = 1.0) -> None:
        """`part`: how much of the answer's body is sent before the connection is cut; of nothing there is no head either."""
        environment = {
            "PATH": os.defpath,
            "GIT_PROJECT_ROOT": "/",
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": user,
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run([self.server.backend], input=body, capture_output=True, env=environment)
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        if part:
            self._answer(int(fields.pop("Status", "200").split()[0]), fields, data, int(len(data) * part))
        self.close_connection |= part < 1

    def _answer(self, code: int, fields: dict[str, str], body: bytes, sent: int | None = None) -> None:
        self.send_response(code)
        for name, value in {**fields, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:sent])
