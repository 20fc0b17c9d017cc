"""The HTTP face of the counters on loopback, and one pass of a whole lab in them; and what wakes the loop between two passes."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from reconciler.app import Alarm, Drivers
from reconciler.clock import SystemClock
from reconciler.commands import run as command
from reconciler.commands.run import feed, feed_failure
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Platform
from reconciler.core.target import Instance
from reconciler.engine.loop import PassFailure
from reconciler.errors import ReconcilerError, RetryableError, Superseded, UserError
from reconciler.gitrepo.repo import GitRepo
from reconciler.metrics import STALE_S, Endpoint, Metrics
from reconciler.settings import Settings
from tests.integration.loops import NS
from tests.integration.simlab import SimLab
from tests.unit.test_metrics import Time, value


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def metrics(time: Time) -> Metrics:
    return Metrics(time)


@pytest.fixture
def endpoint(metrics: Metrics) -> Iterator[Endpoint]:
    endpoint = Endpoint(metrics, "127.0.0.1:0")
    yield endpoint
    endpoint.close()


def get(endpoint: Endpoint, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.read().decode()


def test_healthz_turns_bad_when_no_pass_ends_and_good_again(metrics: Metrics, time: Time, endpoint: Endpoint) -> None:
    assert get(endpoint, "/healthz") == (200, "ok\n")
    time.s += STALE_S
    code, text = get(endpoint, "/healthz")
    assert code == 503 and "300 s" in text
    metrics.passed(seconds=0.1, idle=True, commits=0, lease_held=False)
    assert get(endpoint, "/healthz")[0] == 200


def test_metrics_are_served_and_nothing_else(metrics: Metrics, endpoint: Endpoint) -> None:
    code, text = get(endpoint, "/metrics")
    assert code == 200 and "reconciler_pass_seconds_bucket" in text and "process_resident_memory_bytes" in text
    assert get(endpoint, "/etc/passwd")[0] == 404


def test_a_port_that_is_taken_is_said(endpoint: Endpoint, time: Time) -> None:
    with pytest.raises(UserError, match="--listen"):
        Endpoint(Metrics(time), f"127.0.0.1:{endpoint.port}")


def test_a_whole_run_in_numbers(tmp_path: Path, metrics: Metrics) -> None:
    with SimLab(tmp_path) as lab:
        lab.vm("web")
        lab.plan("web")
        lab.migration()
        lab.commit()

        def ended() -> bool:
            feed(metrics, lab.reports[-1])
            return lab.ended()

        lab.passes(ended)
        lab.assert_moved("web")
        commits = int(lab.git("rev-list", "--count", "reconciler/status", cwd=lab.repo))
    assert value(metrics, "reconciler_vms", state="Succeeded") == 1 and value(metrics, "reconciler_vms_held") == 0
    assert value(metrics, "reconciler_actions_total", kind="StartTarget", outcome="done") == 1
    assert value(metrics, "reconciler_copied_bytes_total") == 1 << 20
    assert value(metrics, "reconciler_commits_total") == commits and value(metrics, "reconciler_lease_held") == 1
    assert value(metrics, "reconciler_pass_seconds_count") == len(lab.reports)
    assert value(metrics, "reconciler_site_read_seconds", provider=f"{NS}/vc") is not None


@pytest.mark.parametrize("error", [Superseded("Superseded", "runs/ moved"), RetryableError("GitUnreachable", "the remote hung up")])
def test_a_pass_that_failed_because_of_git_is_counted(
    tmp_path: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, error: ReconcilerError
) -> None:  # fmt: skip
    """Also while no pass at all comes through, when nothing else would tell."""
    with SimLab(tmp_path) as lab:
        lab.plan()
        lab.commit()
        engine = lab.start()
        engine.run(
            once=True, max_wait_s=0.0, on_pass=lambda report: feed(metrics, report) is None, on_failure=partial(feed_failure, metrics)
        )
        assert value(metrics, "reconciler_lease_held") == 1
        passes = value(metrics, "reconciler_pass_seconds_count")

        def fail(self: GitRepo) -> None:
            if value(metrics, "reconciler_failed_passes_total", reason=error.reason) == 3:
                raise KeyboardInterrupt
            raise error

        monkeypatch.setattr(GitRepo, "fetch", fail)
        lab.clock.sleep(lab.ttl_s + 1)
        with pytest.raises(KeyboardInterrupt):
            engine.run(once=False, max_wait_s=0.0, on_pass=lambda report: True, on_failure=partial(feed_failure, metrics))
        assert value(metrics, "reconciler_failed_passes_total", reason=error.reason) == 3
        assert value(metrics, "reconciler_pass_seconds_count") == passes, "healthz looks at passes that came through"
        assert value(metrics, "reconciler_lease_held") == 0


def test_the_command_feeds_both_kinds_of_passes(monkeypatch: pytest.MonkeyPatch, metrics: Metrics) -> None:
    class OnePass:
        def run(self, *, on_failure: Callable[[PassFailure], None], **_: object) -> None:
            on_failure(PassFailure("GitUnreachable", None))

        def close(self) -> None:
            pass

    monkeypatch.setattr(command, "build_engine", lambda settings, clock, loop: OnePass())
    monkeypatch.setattr(command, "Metrics", lambda clock: metrics)
    monkeypatch.setattr(command.logs, "configure", lambda *args: None)
    monkeypatch.setattr(command.signal, "signal", lambda *args: None)
    assert command.run(Settings(repo="", listen="127.0.0.1:0"), once=False, log_format="text", log_level="info") == 0
    assert value(metrics, "reconciler_failed_passes_total", reason="GitUnreachable") == 1


# ---- waking up --------------------------------------------------------------------------------------------------------------------------


def test_the_wait_between_passes_is_asked_for_and_not_slept(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab:
        lab.plan()
        lab.commit()
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            lab.clock.sleep(seconds)

        engine = lab.start(waiter=wait)
        engine.run(once=False, max_wait_s=0.0, on_pass=lambda report: len(waits) < 8)
        assert len(waits) == 8 and max(waits) == 15.0


def test_a_change_of_ours_on_the_target_ends_the_wait(tmp_path: Path) -> None:
    clock = SystemClock()
    alarm = Alarm(clock)
    with SimLab(tmp_path) as lab:
        drivers = Drivers(Settings(repo="", kubeconfig=lab.kubeconfig), clock, alarm.ring)
        host = ProviderSpec(ObjectRef(NS, "host"), Platform.OPENSHIFT, "", None, {}, Place("p", 1))
        target = drivers.target(host, Instance())
        try:
            alarm.wait(10.0)  # both watches tell that they are open
            alarm.wait(1.0)
            began = clock.monotonic()
            timer = threading.Timer(0.5, lambda: lab.cluster.put(volume(managed=True)))
            timer.start()
            alarm.wait(30.0)
            timer.join()
            assert clock.monotonic() - began < 15.0
            lab.cluster.put(volume(managed=False))
            began = clock.monotonic()
            alarm.wait(1.0)
            assert clock.monotonic() - began >= 0.9, "what is not ours wakes nobody"
        finally:
            target.close()
            drivers.close()


def test_bursts_of_wake_ups_do_not_make_a_busy_loop() -> None:
    clock = SystemClock()
    alarm = Alarm(clock)
    began = clock.monotonic()
    for _ in range(3):
        alarm.ring()
        alarm.wait(5.0)
    assert 0.55 < clock.monotonic() - began < 4.0


def volume(managed: bool) -> dict[str, object]:
    labels = {"app.kubernetes.io/managed-by": "reconciler"} if managed else {}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": "fast"}
    metadata = {"name": f"v-{managed}".lower(), "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
