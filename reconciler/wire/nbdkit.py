"""A nbdkit with its VDDK plugin beside the copy: started on a unix socket, its log read, ended with us.

What it is: argv without a secret in it, start and end, and what its log says about a failure, as ours. What it is not: the reader
(wire/nbd.py), or VDDK, which the user's own init image brings.
Where it stands: transports.py starts one for each disk that VDDK reads.
Platform: nbdkit 1.32 or newer; `password=+FILE` is read before the plugin runs itself anew to set LD_LIBRARY_PATH, for which it needs a
writable /tmp. `--exit-with-parent` ends it even where we are killed.
"""

from __future__ import annotations

import logging
import re
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from reconciler.core.copyspec import CopyDisk, TlsSpec, VddkSpec
from reconciler.errors import ReconcilerError, RetryableError, TerminalError, UserError
from reconciler.wire.tls import read_sha1

if TYPE_CHECKING:
    from reconciler.ports import Clock

log = logging.getLogger(__name__)

PROGRAM = "nbdkit"
LIBRARY = "lib64/libvixDiskLib.so.*"
_START_S, _LOOK_S, _STOP_S, _LAG_S, _FRESH_S = 30.0, 0.05, 5.0, 0.5, 2.0
_LINES = 50
_LINE_CHARS = 300
_ERROR = re.compile(r"nbdkit: (?:vddk\S*: )?error: (.+)")
# Texts of VixDiskLib_GetErrorText, in the order in which they are asked. Passwords that are refused are not tried again:
# that could lock the account.
_MEANINGS: tuple[tuple[str, type[ReconcilerError], str, str], ...] = (
    (r"user name or password|login.*(?:incorrect|failed)|cannot complete login", TerminalError, "AuthFailed", "correct the Secret"),
    (r"thumbprint|certificate|SSL", TerminalError, "ThumbprintMismatch", "check the Provider's thumbprint"),
    (r"permission|access rights|not authorized", TerminalError, "SourceForbidden", "grant the account the right to read the disk"),
    (r"locked|in use", RetryableError, "SourceBusy", "it is tried again"),
    (r"not (?:be )?found|no such|does not exist", TerminalError, "SourceNotFound", "read the VM again"),
    (r"connect|not available|timed? ?out|network|resolve", RetryableError, "SourceUnreachable", "check the way to vCenter and hosts"),
)


class VddkServer:
    """One nbdkit for one disk. `url` is what an NbdReader takes; `explain` is for its errors."""

    def __init__(self, spec: VddkSpec, disk: CopyDisk, tls: TlsSpec, credentials: Path, clock: Clock) -> None:
        """Errors: UserError SpecInvalid; those of `read_sha1`; TerminalError VddkMissing; RetryableError NbdkitSlow."""
        self._label, self._clock = disk.label, clock
        self._lines: deque[tuple[float, str]] = deque(maxlen=_LINES)
        self._told = threading.Condition()
        self._folder = tempfile.TemporaryDirectory(prefix="vddk-")
        home = Path(self._folder.name)
        self._socket = home / "s"
        try:
            argv = arguments(spec, disk, tls, credentials, home)
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError as err:
            self._folder.cleanup()
            raise TerminalError("VddkMissing", f"{disk.label}: this image has no nbdkit; use one that has it and its vddk plugin") from err
        except BaseException:
            self._folder.cleanup()
            raise
        self._reader = threading.Thread(target=self._read_log, name="nbdkit-log", daemon=True)
        self._reader.start()
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"nbd+unix:///?socket={quote(str(self._socket))}"

    def explain(self, err: ReconcilerError) -> ReconcilerError:
        """What the log says means more than the hung-up connection that followed it. VDDK says one failure in several lines, several
        connections meet it, and each asks here: a line that has a meaning is waited for, and none is used up."""
        with self._told:
            meant = self._told.wait_for(self._meaning, _LAG_S)
            said = self._errors()
        return meant or (RetryableError("SourceIo", f"{self._label}: VDDK says: {said[0]}; it is tried again") if said else err)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:  # VDDK may hang in its farewell
            self._process.kill()
            self._process.wait()
        self._reader.join(_STOP_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._folder.cleanup()

    def _wait(self) -> None:
        until = self._clock.monotonic() + _START_S
        while not self._socket.exists():
            if (code := self._process.poll()) is not None:
                self._reader.join(_STOP_S)
                said = "; ".join(self._errors() or [line for _, line in self._lines][-1:]) or f"it ended with {code}"
                raise TerminalError("VddkMissing", f"{self._label}: nbdkit does not start: {said}; check the image in vddkInitImage")
            if self._clock.monotonic() >= until:
                raise RetryableError("NbdkitSlow", f"{self._label}: nbdkit did not begin to serve within {_START_S:.0f} s")
            self._clock.sleep(_LOOK_S)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            log.debug("nbdkit", extra={"line": line[:_LINE_CHARS].rstrip()})
            with self._told:
                self._lines.append((self._clock.monotonic(), line[:_LINE_CHARS].rstrip()))
                self._told.notify_all()

    def _meaning(self) -> ReconcilerError | None:
        said = self._errors()
        for pattern, kind, reason, remedy in _MEANINGS:
            if found := next((text for text in said if re.search(pattern, text, re.IGNORECASE)), None):
                return kind(reason, f"{self._label}: VDDK says: {found}; {remedy}")
        return None

    def _errors(self) -> list[str]:
        """Those of the last seconds: older ones were about an attempt before."""
        since = self._clock.monotonic() - _FRESH_S
        return [found[1] for at, line in self._lines if at >= since and (found := _ERROR.search(line))]


def arguments(spec: VddkSpec, disk: CopyDisk, tls: TlsSpec, credentials: Path, home: Path) -> Sequence[str]:
    """nbdkit's command line; VDDK's configuration is written beside the socket, in `home`. The password's file is named, and the user's
    name is no secret."""
    parts = urlsplit(spec.url)
    file = dict(spec.files).get(disk.uuid)
    if file is None or parts.hostname is None:
        raise UserError("SpecInvalid", f"{disk.label}: the spec's vddk names neither its file nor a server")
    try:
        user = (credentials / "user").read_text().rstrip("\r\n")
    except OSError as err:
        raise UserError("SpecInvalid", f"{disk.label}: the user's name cannot be read: {err.strerror}") from err
    port = parts.port or 443
    config = home / "vddk.conf"
    if spec.config:
        config.write_text(spec.config)
    values = {
        "file": file,
        "libdir": spec.libdir,
        "config": str(config) if spec.config else None,
        "server": parts.hostname,
        "port": None if port == 443 else str(port),
        "user": user,
        "password": f"+{credentials / 'password'}",
        "thumbprint": read_sha1(parts.hostname, port, tls),
        "vm": f"moref={spec.vm}",
        "snapshot": spec.snapshot,
        "transports": spec.transports,
    }
    given = [f"{key}={value}" for key, value in values.items() if value is not None]
    return [PROGRAM, "--foreground", "--exit-with-parent", "--readonly", "--unix", str(home / "s"), spec.plugin, *given]


def why_not_loaded(libdir: Path, plugin: str = "vddk") -> str | None:
    """Why the VDDK in `libdir` cannot be used here; None when nbdkit's plugin loads it. No site is asked."""
    there = ", ".join(sorted(path.name for path in libdir.glob(LIBRARY)))
    if not there:
        return f"{libdir} has no {LIBRARY}: the image must copy VDDK there, as `reconciler vddk-image` makes it"
    try:
        done = subprocess.run([PROGRAM, plugin, "--dump-plugin", f"libdir={libdir}"], capture_output=True, text=True, timeout=_START_S)
    except FileNotFoundError:
        return "the worker's image has no nbdkit; use one that has it and its vddk plugin"
    except subprocess.TimeoutExpired:
        return f"nbdkit did not load {there} within {_START_S:.0f} s"
    if "vddk_library_version=" in done.stdout:
        return None
    said = (
        "; ".join(_ERROR.findall(done.stderr)) or "it is none of the versions that the plugin knows (6.5 to 8), or parts of it are missing"
    )
    return f"nbdkit's plugin does not load {there}: {said}"
