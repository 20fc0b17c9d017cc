"""/metrics and /healthz: what a reconciler in loop mode tells a Prometheus and a kubelet.

What it is: counters that commands/run.py feeds after each pass, and a small HTTP server in a thread of its own. What it is not: known to
the engine, or a place where anything is decided. Labels hold names from manifests, never those of source VMs.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from reconciler.core.actions import Outcome, VmKey
from reconciler.core.copyspec import DiskProgress
from reconciler.core.model import Known, ObjectRef, Unknown
from reconciler.core.record import Category, Records, VmRecord
from reconciler.errors import UserError
from reconciler.ports import Clock

STALE_S = 300.0  # no pass ended for so long: /healthz says 503
_REQUEST_S = 5.0
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)


class Metrics:
    """Fed from one thread, read from others; prometheus_client locks each value."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._passed_at = clock.monotonic()
        self._copied: dict[VmKey, int] | None = None
        self._commits_seen = 0
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._pass_seconds = Histogram("reconciler_pass_seconds", "Duration of a pass.", buckets=_SECONDS, registry=registry)
        self._idle = Counter("reconciler_idle_passes", "Passes that found nothing to ask or to do.", registry=registry)
        self._failed = Counter(
            "reconciler_failed_passes",
            "Passes that came to nothing, because of git or a lost race for the branch.",
            ["reason"],
            registry=registry,
        )
        self._vms = Gauge("reconciler_vms", "VMs of all runs by phase, or by result once they ended.", ["state"], registry=registry)
        self._held = Gauge("reconciler_vms_held", "VMs of active runs with a Critical condition.", registry=registry)
        self._bytes = Counter("reconciler_copied_bytes", "Bytes copied to target disks, as far as seen.", registry=registry)
        self._actions = Counter("reconciler_actions", "Actions by kind and outcome.", ["kind", "outcome"], registry=registry)
        self._commits = Counter("reconciler_commits", "Commits made on the status branch.", registry=registry)
        self._lease = Gauge("reconciler_lease_held", "1 while this process holds the lease of the repo.", registry=registry)
        self._read_seconds = Gauge("reconciler_site_read_seconds", "Duration of the newest bulk read.", ["provider"], registry=registry)
        self._read_failures = Counter("reconciler_site_read_failures", "Bulk reads that failed.", ["provider", "reason"], registry=registry)

    # ---- fed after each pass ----

    def passed(self, *, seconds: float, idle: bool, commits: int, lease_held: bool) -> None:
        """`commits`: made by this process so far."""
        self._passed_at = self._clock.monotonic()
        self._pass_seconds.observe(seconds)
        if idle:
            self._idle.inc()
        self._commits.inc(commits - self._commits_seen)
        self._commits_seen = commits
        self._lease.set(1 if lease_held else 0)

    def failed(self, reason: str, *, lease_held: bool) -> None:
        """A pass that did not come to its end: /healthz does not count it as one."""
        self._failed.labels(reason).inc()
        self._lease.set(1 if lease_held else 0)

    def acted(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._actions.labels(outcome.action, outcome.error.kind if outcome.error else "done").inc()

    def looked(self, seen: Mapping[ObjectRef, Known[object] | Unknown], seconds: Mapping[ObjectRef, float]) -> None:
        """The sites that were asked in this pass."""
        for ref, answer in seen.items():
            if isinstance(answer, Unknown):
                self._read_failures.labels(str(ref), answer.reason).inc()
            elif ref in seconds:
                self._read_seconds.labels(str(ref)).set(seconds[ref])

    def counted(self, records: Records, moving: Mapping[str, DiskProgress]) -> None:
        """`moving`: progress of running copies by disk uuid."""
        states = Tally(v.result.value if v.result else v.phase or "Pending" for v in records.vms.values())
        self._vms.clear()
        for state, count in states.items():
            self._vms.labels(state).set(count)
        blocked = (any(c.category is Category.CRITICAL for c in v.conditions) for v in records.vms.values() if v.result is None)
        self._held.set(sum(blocked))
        copied = {key: _copied(vm, moving) for key, vm in records.vms.items()}
        if self._copied is not None:  # what was copied before this process began was counted by another
            self._bytes.inc(sum(max(0, count - self._copied.get(key, 0)) for key, count in copied.items()))
        self._copied = {key: max(count, (self._copied or {}).get(key, 0)) for key, count in copied.items()}

    # ---- read ----

    @property
    def healthy(self) -> bool:
        return self._clock.monotonic() - self._passed_at < STALE_S

    def text(self) -> bytes:
        return generate_latest(self.registry)


def _copied(vm: VmRecord, moving: Mapping[str, DiskProgress]) -> int:
    done = {disk.uuid: max(disk.read_bytes, disk.watermark_bytes) for disk in vm.disks}
    for disk in vm.frozen.disks if vm.frozen else ():
        if disk.uuid in moving and vm.result is None:
            done[disk.uuid] = max(done.get(disk.uuid, 0), moving[disk.uuid].done_bytes)
    return sum(done.values())


# ---- HTTP -------------------------------------------------------------------------------------------------------------------------------


class Endpoint:
    """Serves until close(). No TLS and no login: bind it to where only the cluster's own network comes."""

    def __init__(self, metrics: Metrics, listen: str) -> None:
        """`listen`: HOST:PORT. Errors: UserError for a text that is not that, or an address that cannot be had."""
        host, port = parse_listen(listen)
        try:
            self._server = _Server((host, port), _handler(metrics))
        except OSError as err:
            raise UserError("CannotListen", f"--listen {listen}: {err.strerror or err}") from err
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def parse_listen(text: str) -> tuple[str, int]:
    """HOST:PORT, [V6]:PORT or :PORT. Errors: UserError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UserError("InvalidArgument", f"--listen {text!r} is not HOST:PORT, for example 0.0.0.0:8080")
    return host.strip("[]") or "0.0.0.0", int(port)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


def _handler(metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_S

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._reply(200, metrics.text(), CONTENT_TYPE_LATEST)
                case "/healthz":
                    fine = metrics.healthy
                    text = b"ok\n" if fine else b"no pass ended for %d s\n" % STALE_S
                    self._reply(200 if fine else 503, text, "text/plain; charset=utf-8")
                case _:
                    self._reply(404, b"here are /metrics and /healthz\n", "text/plain; charset=utf-8")

        def _reply(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A probe every few seconds is no news."""

    return Handler
