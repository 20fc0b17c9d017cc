"""Counters fed with records and outcomes, and the address that they are served at. HTTP: tests/integration/test_metrics.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reconciler.core.actions import ActError, Outcome
from reconciler.core.copyspec import DiskProgress
from reconciler.core.model import Known, ObjectRef, Result, Unknown
from reconciler.core.record import Category, Condition, DiskRecord, Records, VmRecord
from reconciler.errors import UserError
from reconciler.metrics import Metrics, parse_listen

AT = datetime(2026, 1, 1, tzinfo=UTC)
RUN = ObjectRef("ns", "run-1")
VC = ObjectRef("ns", "vc")


class Time:
    def __init__(self) -> None:
        self.s = 100.0

    def now(self) -> datetime:
        return AT

    def monotonic(self) -> float:
        return self.s

    def sleep(self, seconds: float) -> None:
        self.s += seconds

    def new_id(self) -> str:
        return "1"

    def jitter(self) -> float:
        return 0.5


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def metrics(time: Time) -> Metrics:
    return Metrics(time)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def vm(slug: str, **fields: object) -> VmRecord:
    return replace(VmRecord(RUN, slug, ObjectRef("ns", "plan"), slug), **fields)  # type: ignore[arg-type]


def records(*vms: VmRecord) -> Records:
    return Records("c", vms={v.key: v for v in vms})


def test_vms_are_counted_by_phase_and_result_and_leave_no_trace_of_old_states(metrics: Metrics) -> None:
    held = Condition("SourceChanged", True, Category.CRITICAL)
    metrics.counted(records(vm("a", phase="CopyDisks"), vm("b", phase="CopyDisks", conditions=(held,))), {})
    assert value(metrics, "reconciler_vms", state="CopyDisks") == 2 and value(metrics, "reconciler_vms_held") == 1
    metrics.counted(records(vm("a", result=Result.SUCCEEDED), vm("b", result=Result.FAILED, conditions=(held,))), {})
    assert value(metrics, "reconciler_vms", state="CopyDisks") is None and value(metrics, "reconciler_vms_held") == 0
    assert value(metrics, "reconciler_vms", state="Succeeded") == 1


def test_bytes_count_from_where_this_process_began_and_never_backwards(metrics: Metrics) -> None:
    def copied(count: int) -> None:
        metrics.counted(records(vm("a", disks=(DiskRecord("d", watermark_bytes=count),))), {})

    copied(1000)
    assert value(metrics, "reconciler_copied_bytes_total") == 0
    copied(1500)
    copied(200)
    copied(1600)
    assert value(metrics, "reconciler_copied_bytes_total") == 600


def test_live_progress_counts_only_for_disks_of_active_runs(metrics: Metrics) -> None:
    ended = vm("a", result=Result.SUCCEEDED, disks=(DiskRecord("d", marked=True, read_bytes=10),))
    metrics.counted(records(), {})
    metrics.counted(records(ended), {"d": DiskProgress("d", 999, 0, 999, 0, 0.0)})
    assert value(metrics, "reconciler_copied_bytes_total") == 10


def test_actions_sites_commits_and_lease(metrics: Metrics) -> None:
    error = ActError("retryable", "Busy", "later")
    metrics.acted([Outcome((RUN, "a"), "EnsureVm", AT), Outcome((RUN, "a"), "EnsureVm", AT, error)])
    assert value(metrics, "reconciler_actions_total", kind="EnsureVm", outcome="done") == 1
    assert value(metrics, "reconciler_actions_total", kind="EnsureVm", outcome="retryable") == 1
    host = ObjectRef("ns", "host")
    metrics.looked({VC: Unknown("Unreachable", "down"), host: Known(object())}, {host: 1.5, VC: 9.0})
    assert value(metrics, "reconciler_site_read_failures_total", provider="ns/vc", reason="Unreachable") == 1
    assert value(metrics, "reconciler_site_read_seconds", provider="ns/host") == 1.5
    assert value(metrics, "reconciler_site_read_seconds", provider="ns/vc") is None
    metrics.passed(seconds=0.3, idle=False, commits=2, lease_held=True)
    metrics.passed(seconds=0.1, idle=True, commits=3, lease_held=False)
    assert value(metrics, "reconciler_commits_total") == 3 and value(metrics, "reconciler_lease_held") == 0
    assert value(metrics, "reconciler_pass_seconds_count") == 2 and value(metrics, "reconciler_idle_passes_total") == 1


@pytest.mark.parametrize(
    ("text", "want"), [("0.0.0.0:8080", ("0.0.0.0", 8080)), (":9", ("0.0.0.0", 9)), ("[::1]:80", ("::1", 80)), ("x:80", ("x", 80))]
)
def test_listen_is_host_and_port(text: str, want: tuple[str, int]) -> None:
    assert parse_listen(text) == want


@pytest.mark.parametrize("text", ["8080", "x:", "x:http", "x:99999", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_listen(text)
