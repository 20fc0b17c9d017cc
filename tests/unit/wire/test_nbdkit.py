"""What nbdkit's log says about a failure, however its lines are spread over time, connections and attempts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from reconciler.clock import SystemClock
from reconciler.core.copyspec import CopyDisk, Reader, TlsSpec, VddkSpec
from reconciler.errors import ReconcilerError, RetryableError
from reconciler.wire import nbdkit

HUNG_UP = RetryableError("SourceUnreachable", "disk 1: EOFError")
FILE = "[ds 1] web.vmdk"
UNKNOWN = f"nbdkit: vddk[1]: error: VixDiskLib_Open: {FILE}: Unknown error\n"


class Log:
    """A nbdkit that serves nothing and logs what the test lets it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fifo, program = folder / "lines", folder / "nbdkit"
        os.mkfifo(fifo)
        program.write_text(f'#!/bin/sh\nwhile [ "$1" != --unix ]; do shift; done\n: > "$2"\nexec cat {fifo} >&2\n')
        program.chmod(0o755)
        (folder / "user").write_text("someone\n")
        monkeypatch.setattr(nbdkit, "PROGRAM", str(program))
        monkeypatch.setattr(nbdkit, "read_sha1", lambda *_: "00:11")
        spec = VddkSpec("https://vcenter", "vm-12", "snapshot-7", (("uuid-1", FILE),), "/opt/vddk")
        disk = CopyDisk("uuid-1", "disk 1", Reader.NBD, "", 512, str(folder / "disk"), False)
        self.server = nbdkit.VddkServer(spec, disk, TlsSpec(), folder, SystemClock())
        self._lines: TextIO = fifo.open("w")

    def say(self, *lines: str, after_s: float = 0.0) -> None:
        def write() -> None:
            time.sleep(after_s)
            self._lines.write("".join(lines))
            self._lines.flush()

        threading.Thread(target=write).start() if after_s else write()

    def close(self) -> None:
        self._lines.close()
        self.server.close()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    made = Log(tmp_path, monkeypatch)
    yield made
    made.close()


def reason(err: ReconcilerError) -> tuple[str, type[ReconcilerError]]:
    return err.reason, type(err)


def test_the_line_with_a_meaning_may_come_after_one_without(log: Log) -> None:
    log.say(UNKNOWN)
    log.say("nbdkit: error: The disk is locked by another process\n", after_s=0.2)
    assert reason(log.server.explain(HUNG_UP)) == ("SourceBusy", RetryableError)


def test_each_connection_is_told_the_same(log: Log) -> None:
    log.say("nbdkit: vddk[1]: error: VixDiskLib_ConnectEx: Incorrect user name or password\n")
    told = [log.server.explain(HUNG_UP) for _ in range(2)]
    assert [err.reason for err in told] == ["AuthFailed", "AuthFailed"], "the second would try it again, and lock the account"


def test_an_error_without_a_meaning_is_quoted(log: Log) -> None:
    log.say("nbdkit: debug: the disk is locked, says nobody\n", UNKNOWN)
    err = log.server.explain(HUNG_UP)
    assert err.reason == "SourceIo" and "Unknown error; it is tried again" in str(err)


def test_a_silent_log_leaves_the_error_as_it_is(log: Log) -> None:
    assert log.server.explain(HUNG_UP) is HUNG_UP


def test_what_was_said_about_an_attempt_before_is_old(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.say("nbdkit: error: The disk is locked by another process\n")
    assert log.server.explain(HUNG_UP).reason == "SourceBusy"
    monkeypatch.setattr(nbdkit, "_FRESH_S", 0.0)
    assert log.server.explain(HUNG_UP) is HUNG_UP
