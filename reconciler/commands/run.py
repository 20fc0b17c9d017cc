"""`reconciler run`: the loop, or with --once the cron form. Thin: settings in, exit code out."""

from __future__ import annotations

import logging
import signal
from functools import partial
from types import FrameType

from reconciler import log as logs
from reconciler.app import build_engine
from reconciler.clock import SystemClock
from reconciler.core.actions import VmKey
from reconciler.core.record import Records
from reconciler.engine.loop import PassFailure, PassReport, failures
from reconciler.metrics import Endpoint, Metrics
from reconciler.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings, *, once: bool, log_format: str, log_level: str) -> int:
    """0, or with --once 1 if a VM failed in this run that had not failed before it."""
    logs.configure(log_format, log_level)
    clock = SystemClock()
    metrics = Metrics(clock)
    endpoint = Endpoint(metrics, settings.listen) if settings.listen and not once else None
    engine = build_engine(settings, clock, loop=not once)
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    before: list[frozenset[VmKey]] = []
    last: list[Records] = []

    def on_pass(report: PassReport) -> bool:
        if not before:
            before.append(failures(report.before))
        last[:] = [report.records]
        if endpoint is not None:
            feed(metrics, report)
        return not stopping

    try:
        engine.run(once=once, max_wait_s=settings.max_wait_s, on_pass=on_pass, on_failure=partial(feed_failure, metrics))
    except KeyboardInterrupt:
        log.info("stopping")
    finally:
        engine.close()
        if endpoint is not None:
            endpoint.close()
    new = failures(last[0]) - before[0] if last else frozenset()
    return 1 if once and new else 0


def feed_failure(metrics: Metrics, failure: PassFailure) -> None:
    metrics.failed(failure.reason, lease_held=failure.lease_age_s is not None)


def feed(metrics: Metrics, report: PassReport) -> None:
    """One pass into the counters. An idle one asked nobody, so what it repeats of an earlier pass is not counted again."""
    metrics.passed(seconds=report.seconds, idle=report.idle, commits=report.commits, lease_held=report.lease_age_s is not None)
    if report.idle:
        return
    metrics.acted(report.outcomes)
    metrics.looked({**report.observed.sources, **report.observed.targets}, report.read_seconds)
    metrics.counted(report.records, {p.uuid: p for disks, _ in report.observed.progress.values() for p in disks})
