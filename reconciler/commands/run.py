"""`reconciler run`: the loop, or with --once the cron form. Thin: settings in, exit code out."""

from __future__ import annotations

import logging
import signal
from types import FrameType

from reconciler import log as logs
from reconciler.app import build_engine
from reconciler.core.actions import VmKey
from reconciler.core.record import Records
from reconciler.engine.loop import PassReport, failures
from reconciler.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings, *, once: bool, log_format: str, log_level: str) -> int:
    """0, or with --once 1 if a VM failed in this run that had not failed before it."""
    logs.configure(log_format, log_level)
    engine = build_engine(settings)
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
        return not stopping

    try:
        engine.run(once=once, max_wait_s=settings.max_wait_s, on_pass=on_pass)
    except KeyboardInterrupt:
        log.info("stopping")
    finally:
        engine.close()
    new = failures(last[0]) - before[0] if last else frozenset()
    return 1 if once and new else 0
