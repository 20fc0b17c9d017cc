"""Composition root of the copy pod: a spec becomes readers and writers, and they run until done, failed or told to end.

What it is: the order of a copy's parts, its end and exit code. What it is not: the mover or the transports (transports.py), and nothing
here speaks to a cluster or to git.
Where it stands: commands/worker.py calls `run`; the reconciler reads our lines from the pod's log and the termination message.
Starts in a tenth of a second: no SDK, no pydantic.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType

from reconciler.clock import SystemClock
from reconciler.core.copyspec import EXIT_AGAIN, EXIT_DONE, EXIT_WRONG, CopyDisk, CopyResult, CopySpec
from reconciler.errors import ReconcilerError, RetryableError
from reconciler.mover.copy import DiskCopy, Job, run_flusher
from reconciler.mover.local import open_target
from reconciler.mover.pool import Pool, Stop
from reconciler.mover.report import Reporter
from reconciler.mover.throttle import Throttle
from reconciler.transports import Transports
from reconciler.wire.auth import FileAuth

log = logging.getLogger(__name__)

# The site refuses us, not this copy: it is mended there, or in the Secret, which the next attempt reads anew.
_OF_THE_SITE = frozenset({"CertificateInvalid", "ThumbprintMismatch"})
_FLUSHERS = 4
_LANES = 16
_BUFFER_BUDGET_BYTES = 32 << 20  # of all lanes; compare and the second read need it twice. The pod's limit is 128 MiB
_TICK_S = 0.2
_FLUSH_GRACE_S, _LANES_GRACE_S = 15.0, 1.0  # Kubernetes kills 30 s after SIGTERM


class StoppableClock:
    """The system's clock, but a stop ends every sleep: backoff and bandwidth limit must not outlive SIGTERM."""

    def __init__(self, stop: Stop) -> None:
        self._clock = SystemClock()
        self._stop = stop

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise RetryableError("Stopped", "the copy was told to end")

    def new_id(self) -> str:
        return self._clock.new_id()

    def jitter(self) -> float:
        return self._clock.jitter()


def run(spec: CopySpec) -> int:
    """Copy all disks of `spec`. Returns 0, 65 (spec, disk or target is wrong: no retry) or 75 (try again)."""
    os.umask(0o007)
    stop = Stop()
    clock = StoppableClock(stop)
    auth = FileAuth(Path(spec.credentials_dir))
    reporter = Reporter(Path(spec.termination_file), auth.secrets, clock)
    copies: list[DiskCopy] = []
    with _sigterm(stop), ExitStack() as stack:
        try:
            job = Job(clock, stop, Throttle(spec.bandwidth_bytes_per_s, clock), _request_bytes(spec), spec.verify)
            with Transports(spec, auth, clock, stop, partial(_percent, copies)) as transports:
                _copy(spec, transports, job, copies, stack, reporter)
        except Exception as err:  # the process's boundary: every end has a result line and an exit code
            stop.request(err)
        error = stop.error
        reporter.finish(_result(copies, error))
        if error is not None and not isinstance(error, ReconcilerError):
            log.error("copy failed", exc_info=error)
        return _exit_code(error)


def _copy(spec: CopySpec, transports: Transports, job: Job, copies: list[DiskCopy], stack: ExitStack, reporter: Reporter) -> None:
    bells = [threading.Event() for _ in range(min(_FLUSHERS, len(spec.disks)))]
    for at, disk in enumerate(spec.disks):
        copies.append(_open(disk, transports, job, bells[at % len(bells)]))
        stack.callback(copies[-1].close)
    _run_phase(_copy_pool(copies, job, bells, spec.connections), copies, job.stop, reporter)
    if not job.stop.requested:
        _check_source(copies, job, spec.connections, reporter)


def _percent(copies: Sequence[DiskCopy]) -> int:
    total = sum(copy.ledger.total for copy in copies)
    return sum(copy.ledger.done for copy in copies) * 100 // total if total else 0


def _open(disk: CopyDisk, transports: Transports, job: Job, bell: threading.Event) -> DiskCopy:
    intake = transports.intake(disk)
    with ExitStack() as opened:
        opened.callback(intake.close)
        writer = open_target(Path(disk.target), disk.capacity_bytes, block=disk.block, proven_bytes=disk.kept_bytes)
        opened.callback(writer.close)
        copy = DiskCopy(disk, intake, writer, job, bell)
        opened.pop_all()
    return copy


def _request_bytes(spec: CopySpec) -> int:
    """Within the memory budget, and a multiple of 64 KiB."""
    return max(64 << 10, min(spec.request_bytes, _BUFFER_BUDGET_BYTES // _lanes(spec.connections)) >> 16 << 16)


def _lanes(connections: int) -> int:
    return max(1, min(connections, _LANES))


def _copy_pool(copies: Sequence[DiskCopy], job: Job, bells: Sequence[threading.Event], connections: int) -> Pool:
    flushers = [partial(run_flusher, copies[at :: len(bells)], job, bell) for at, bell in enumerate(bells)]
    return Pool(copies, _lanes(connections), job.stop, flushers)


def _check_source(copies: Sequence[DiskCopy], job: Job, connections: int, reporter: Reporter) -> None:
    checks = [copy.begin_check(stretches) for copy in copies if (stretches := copy.to_check)]
    if checks:
        _run_phase(Pool(checks, _lanes(connections), job.stop), copies, job.stop, reporter)


def _run_phase(pool: Pool, copies: Sequence[DiskCopy], stop: Stop, reporter: Reporter) -> None:
    """Print progress until the pool has ended; after a stop, allow a last flush and leave what hangs behind."""
    pool.start()
    while not pool.wait(_TICK_S) and not stop.requested:
        reporter.tick(copies)
    pool.settle(_LANES_GRACE_S, _FLUSH_GRACE_S)
    reporter.tick(copies, force=True)


def _result(copies: Sequence[DiskCopy], error: BaseException | None) -> CopyResult:
    disks = tuple(copy.result() for copy in copies)
    if error is None:
        return CopyResult(disks)
    if isinstance(error, ReconcilerError):
        return CopyResult(disks, error.message, error.reason)
    return CopyResult(disks, f"{type(error).__name__}: {error}", "InternalError")


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return EXIT_DONE
    if not isinstance(error, ReconcilerError) or isinstance(error, RetryableError) or error.reason in _OF_THE_SITE:
        return EXIT_AGAIN
    return EXIT_WRONG


@contextmanager
def _sigterm(stop: Stop) -> Iterator[None]:
    def request(signum: int, frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt this handler where it holds a lock
        stop.request(RetryableError("Stopped", f"the pod was told to end ({signal.Signals(signum).name})"))

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
