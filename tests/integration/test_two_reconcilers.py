"""Two processes on one repo, a loop and a cron run: the holder is stopped (SIGSTOP) for more than a TTL and wakes up behind its lease.

Who did what is seen from outside: each has a home of its own, which the repo's hook notes, its own name for the cluster's address, and its
own spelling of the one vCenter account.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.model import Milestone
from reconciler.engine.loop import SLOWEST_S
from reconciler.lab.machines import Power
from reconciler.manifests.recordstore import RecordStore
from tests.integration.field import LEASE, NAMES, PASSWORD, STATUS, USER, Field, git

TTL_S = 6.0
BUSY_S = 10.0  # what a pass may take on a machine that does much else
FIRST, SECOND = 1, 2
HOSTS = {FIRST: "127.0.0.1", SECOND: "localhost"}
USERS = {FIRST: USER.lower(), SECOND: USER.upper()}
WAITS = "another reconciler holds the lease; nothing is written"
HOOK = """#!/bin/sh
now=$(date +%s.%N)
while read -r old new ref; do echo "${HOME##*-} $now $old $new $ref" >>pushes; done
"""


@dataclass(frozen=True, slots=True)
class Push:
    """A ref that was moved. `at_s`: by the wall clock."""

    who: int
    at_s: float
    old: str
    new: str
    ref: str


ONE_AT_A_TIME = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: ForkliftController
metadata: {name: forklift-controller, namespace: openshift-mtv}
spec: {controller_max_vm_inflight: 1}
"""


class Witness:
    """Writes to the sites, in their order, and pushes to the repo, by who made them."""

    def __init__(self, field: Field, patch: pytest.MonkeyPatch) -> None:
        self._field = field
        self.written: list[tuple[int, str]] = []
        answer, do = field.cluster._endpoints.answer, field.vcenter.acts.do

        def answering(request: Any) -> Any:
            if request.method != "GET":
                host = request.headers["host"].partition(":")[0]
                self.written.append((next(n for n, h in HOSTS.items() if h == host), f"{request.method} {request.target}"))
            return answer(request)

        def doing(method: str, vm: Any, user: str, args: Any) -> Any:
            self.written.append((next(n for n, u in USERS.items() if u == user), f"{method} {vm.name}"))
            return do(method, vm, user, args)

        patch.setattr(field.cluster._endpoints, "answer", answering)
        patch.setattr(field.vcenter.acts, "do", doing)
        hook = field.repo / "hooks" / "post-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(HOOK)
        hook.chmod(0o755)

    def pushes(self, ref: str | None = None) -> list[Push]:
        log = self._field.repo / "pushes"
        rows = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        found = [Push(int(who), float(at), old, new, name.removeprefix("refs/heads/")) for who, at, old, new, name in rows if who.isdigit()]
        return [p for p in found if ref in (None, p.ref)]


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    with Field(tmp_path) as made:
        made.run_of(*NAMES)
        made.commit()
        yield made


def start(
    field: Field, number: int, stack: ExitStack, *, once: bool, program: tuple[str, ...] = ("reconciler",)
) -> subprocess.Popen[str]:  # fmt: skip
    home, secret = field.root / f"home-{number}", field.root / f"credentials-{number}/openshift-mtv/vc-credentials"
    for folder in (home, secret):
        folder.mkdir(parents=True)
    for key, value in {"user": USERS[number], "password": PASSWORD, "ca.crt": field.ca.pem}.items():
        (secret / key).write_text(value)
    kubeconfig = home / "kubeconfig"
    field.cluster.write_kubeconfig(kubeconfig)
    kubeconfig.write_text(kubeconfig.read_text().replace("127.0.0.1", HOSTS[number]))
    more = {
        "credentials-dir": secret.parent.parent,
        "kubeconfig": kubeconfig,
        "lease-ttl": f"{TTL_S:g}",
        "log-format": "json",
        "max-wait": "120",
    }
    flags = [part for name, value in more.items() for part in (f"--{name}", str(value))]
    process = field.start(number, *flags, program=program, once=once, environment={"HOME": str(home)})
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


@pytest.mark.parametrize(
    ("role", "at", "when"),
    [
        pytest.param("loop", "will shut down", "after", id="loop, with its intent committed and nothing done"),
        pytest.param("cron", "GET .*/virtualmachines/(web|db|old-app)$", "before", id="cron, in the middle of its act"),
    ],
)
def test_who_wakes_up_behind_its_lease_writes_nothing(
    field: Field, monkeypatch: pytest.MonkeyPatch, role: str, at: str, when: str
) -> None:  # fmt: skip
    if role == "cron":  # no other act is under way when the process stops: one that was asked for already could not be called back
        field.write("limits.yaml", ONE_AT_A_TIME)
        field.commit("one at a time")
    witness = Witness(field, monkeypatch)
    with ExitStack() as stack:
        first = start(field, FIRST, stack, once=role == "cron", program=("tests.integration.dying", at, when, "SIGSTOP"))
        wait_for(lambda: witness.pushes(LEASE), "the first takes the lease")
        second = start(field, SECOND, stack, once=role == "loop")
        wait_for(lambda: state(first.pid) in "TZ", "the first stops")
        assert first.poll() is None, field.log()[-4000:]
        assert {p.who for p in witness.pushes()} == {who for who, _ in witness.written} == {FIRST}, "the other waits"
        assert field.world.vm("web").power is Power.ON, "the first stopped before its act"
        wait_for(lambda: any(who == SECOND for who, _ in witness.written), "the other takes over and acts")
        mark = len(witness.written)
        os.kill(first.pid, signal.SIGCONT)
        wait_for(lambda: any(line["message"] == WAITS for line in log(field, FIRST)), "the first finds that it does not hold the lease")
        (second if role == "loop" else first).wait(timeout=120)
        for each in (first, second):
            each.terminate()
            assert each.wait(timeout=60) == 0, field.log()[-4000:]
    field.assert_moved_at_once()
    assert [w for w in witness.written[mark:] if w[0] == FIRST] == []
    assert_no_push_in_between(witness.pushes())
    assert_taken_over_in_time(field, witness.pushes(LEASE))
    assert_milestones_only_rise(field, witness.pushes(STATUS))


def assert_no_push_in_between(pushes: list[Push]) -> None:
    """One writes, then the other; the first may follow when the second has let go."""
    who = [name for name, _ in itertools.groupby(p.who for p in pushes)]
    assert who in ([FIRST, SECOND], [FIRST, SECOND, FIRST])


def assert_taken_over_in_time(field: Field, leases: list[Push]) -> None:
    """Not before the holder was silent for a TTL, and not later than that and two looks: one that sees its last word, one after the TTL."""
    taken = next(p for p in leases if p.who == SECOND)
    last = max(p.at_s for p in leases[: leases.index(taken)])
    looks = [datetime.fromisoformat(line["time"]).timestamp() for line in log(field, SECOND) if line["message"] == WAITS]
    pauses = [b - a for a, b in itertools.pairwise([*looks, taken.at_s])]
    assert pauses and max(pauses) <= SLOWEST_S + BUSY_S
    silent_s = taken.at_s - max(last, looks[0])
    assert TTL_S - 0.5 <= silent_s <= TTL_S + 2 * max(pauses)


def assert_milestones_only_rise(field: Field, pushes: list[Push]) -> None:
    for push in pushes[1:]:
        assert git("merge-base", push.old, push.new, cwd=field.repo).strip() == push.old, "fast-forward only"
    assert all(a.new == b.old for a, b in itertools.pairwise(pushes))
    reached: dict[Any, Milestone] = {}
    store = RecordStore()
    for commit in git("rev-list", "--reverse", STATUS, cwd=field.repo).split():
        vms = field.records(commit, store).vms
        assert reached.keys() <= vms.keys(), "a VM's record is gone"
        for key, record in vms.items():
            assert record.milestone.order >= reached.get(key, record.milestone).order, f"{key} at {commit}"
            reached[key] = record.milestone
    assert set(reached.values()) == {Milestone.DONE}


# ---- looking ----------------------------------------------------------------------------------------------------------------------------


def wait_for(until: Callable[[], object], what: str, limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < end, f"not within {limit_s:g} s: {what}"
        time.sleep(0.05)


def state(pid: int) -> str:
    """As proc(5) has it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def log(field: Field, number: int) -> list[dict[str, Any]]:
    lines = field.log_path(number).read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
