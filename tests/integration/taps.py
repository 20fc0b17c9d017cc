"""Deaths at the wire: every call that leaves the reconciler, and every effect of the copy pod's program, may be the last one.

What it is: counters put between our code and the sockets, the git program, or the volume. From its death on every call of a process raises
Crash (a BaseException, so that no handler swallows it). What it is not: what happens next; simlab.py builds a new reconciler from nothing
but git and the sites, and the Job's next attempt is the product's own decision.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler import worker
from reconciler.drivers.kubevirt.api import Api
from reconciler.drivers.vsphere.soap import Stub
from reconciler.gitrepo.git import Git
from reconciler.mover import ledger
from reconciler.mover.local import LocalWriter
from reconciler.mover.report import Reporter


class Crash(BaseException):
    """The process is dead; no handler may swallow this."""


@dataclass
class Wire:
    """Counts the calls that leave the process and kills at the wanted one. Labels tell effects from looks."""

    labels: list[str] = field(default_factory=list)
    die_at: int | None = None
    when: str = "before"
    only_effects: bool = True
    dead: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, label: str, effect: bool, work: Callable[[], Any]) -> Any:
        with self.lock:
            if self.dead:
                raise Crash(label)
            counted = effect or not self.only_effects
            number = len(self.labels)
            if counted:
                self.labels.append(label)
            now = counted and self.is_last(number, label)
            if now and self.when == "before":
                self.die(label)
        answer = work()
        with self.lock:
            if now and self.when == "after":
                self.die(label)
            if self.dead:
                raise Crash(label)
        return answer

    def is_last(self, number: int, label: str) -> bool:
        return number == self.die_at

    def die(self, label: str) -> None:
        self.dead = True
        raise Crash(label)


SOAP_LOOKS = (
    "Retrieve",
    "CurrentTime",
    "Login",
    "Logout",
    "CreateContainerView",
    "CreatePropertyCollector",
    "DestroyView",
    "Continue",
    "Query",
    "HasPrivilege",
    "Wait",
    "CreateFilter",
    "Fetch",
)


INVOKE = Stub.InvokeMethod  # as it is without a tap: the copy pod's calls are none of the reconciler's


def _soap(wire: Wire) -> Callable[..., Any]:
    def invoke(self: Any, mo: Any, info: Any, args: Any, *rest: Any) -> Any:
        effect = not info.wsdlName.startswith(SOAP_LOOKS) and "Destroy" not in info.wsdlName
        return wire.call(f"soap {info.wsdlName}", effect, lambda: INVOKE(self, mo, info, args, *rest))

    return invoke


@contextlib.contextmanager
def tapped(wire: Wire) -> Iterator[None]:
    """Put `wire` between our drivers and the sockets: SOAP method calls, REST requests, git's talks with the remote."""
    rest, git = Api._request, Git.run

    def request(self: Any, call: Any, method: str, *args: Any) -> Any:
        return wire.call(f"rest {method} {args[0]}", method != "GET", lambda: rest(self, call, method, *args))

    def run(self: Any, args: Sequence[str], *more: Any, **options: Any) -> Any:
        if args[0] not in ("push", "fetch", "ls-remote"):
            return git(self, args, *more, **options)
        return wire.call(f"git {args[0]} {args[-1]}", args[0] == "push", lambda: git(self, args, *more, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stub, "InvokeMethod", _soap(wire))
        patch.setattr(Api, "_request", request)
        patch.setattr(Git, "run", run)
        yield


@dataclass
class Medium:
    """What is behind the cache of the volumes: bytes that were not flushed when the machine died are as they were before."""

    unflushed: dict[Path, list[tuple[int, bytes]]] = field(default_factory=dict)  # file -> (offset, what was there), oldest first
    lock: threading.Lock = field(default_factory=threading.Lock)

    def remember(self, writer: Any, offset: int, length: int) -> None:
        with self.lock:
            self.unflushed.setdefault(writer._path, []).append((offset, os.pread(writer._fd, length, offset)))

    def flush(self, writer: Any, flush: Callable[[Any], None]) -> None:
        with self.lock:
            upto = len(self.unflushed.get(writer._path, ()))
        flush(writer)
        with self.lock:
            del self.unflushed.get(writer._path, [])[:upto]

    def lose(self) -> None:
        for path, written in self.unflushed.items():
            with path.open("r+b") as file:
                for offset, old in reversed(written):
                    file.seek(offset)
                    file.write(old)


def prove_each(patch: pytest.MonkeyPatch, size: int) -> None:
    """No `size` bytes of a disk are begun before those in front of them are proven, so that a copy of a few MiB has many watermarks."""
    patch.setattr(worker, "_request_bytes", lambda spec: size)
    patch.setattr(ledger, "FLUSH_BYTES", size)
    patch.setattr(ledger, "RUN_AHEAD_BYTES", size)


class Voice:
    """Has the pod tell how far it is before each of its effects: what is said too early is heard, whenever it dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._speak: Callable[[], None] = lambda: None

    def lend(self, phase: Callable[..., None], pool: Any, copies: Any, stop: Any, reporter: Reporter) -> None:
        self._speak = lambda: reporter.tick(copies, force=True)
        phase(pool, copies, stop, reporter)
        self._speak = lambda: None

    def speak(self) -> None:
        with self._lock:
            self._speak()


@contextlib.contextmanager
def tapped_worker(wire: Wire, medium: Medium) -> Iterator[None]:
    """Put `wire` below the copy pod's program: writes, zeroes and flushes of its volumes, its last word, the acts of its lease."""
    write, zero, flush, tick, finish = LocalWriter.write, LocalWriter.zero, LocalWriter.flush, Reporter.tick, Reporter.finish
    phase, voice = worker._run_phase, Voice()

    def act(label: str, work: Callable[[], None]) -> None:
        voice.speak()
        wire.call(label, True, work)

    def writing(self: Any, offset: int, data: memoryview) -> None:
        medium.remember(self, offset, len(data))
        act(f"write {offset}", lambda: write(self, offset, data))

    def zeroing(self: Any, offset: int, length: int) -> None:
        medium.remember(self, offset, length)
        act(f"zero {offset}", lambda: zero(self, offset, length))

    def flushing(self: Any) -> None:
        act("flush", lambda: medium.flush(self, flush))

    def ticking(self: Any, copies: Any, **how: Any) -> None:
        wire.call("progress", False, lambda: tick(self, copies, **how))

    def finishing(self: Any, result: Any) -> None:
        act("result", lambda: finish(self, result))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalWriter, "write", writing)
        patch.setattr(LocalWriter, "zero", zeroing)
        patch.setattr(LocalWriter, "flush", flushing)
        patch.setattr(Reporter, "tick", ticking)
        patch.setattr(Reporter, "finish", finishing)
        patch.setattr(worker, "_run_phase", lambda *given: voice.lend(phase, *given))
        patch.setattr(Stub, "InvokeMethod", _soap(wire))
        yield
