"""Many VMs with tiny disks: the in-flight limit as the lab sees it, turns between plans, one commit a pass, and how long a pass takes.

Default: 36 cold VMs in 6 plans. `--deep`: a 200-VM plan, and 20 plans of 50 VMs.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.core.model import Result
from tests.integration.gauge import Gauge, widest
from tests.integration.simlab import SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

CONTROLLER = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: ForkliftController
metadata: {{name: c, namespace: openshift-mtv}}
spec: {{controller_max_vm_inflight: {limit}}}
"""


@dataclass
class Passes:
    """Of each pass: CPU seconds of the reconciler (`parts_s`: deciding thread, site threads, git programs), and of the whole process, with
    both sites. Of all of them: commits on the status branch."""

    parts_s: list[tuple[float, float, float]]
    whole_s: list[float]
    commits: int

    @property
    def own_s(self) -> list[float]:
        return [sum(parts) for parts in self.parts_s]


def used_s(lab: SimLab) -> tuple[float, float, float]:
    """What the pass's thread, the threads that it hands reads and acts to, and its ended children have used so far."""
    assert lab.sites is not None
    clocks = [time.pthread_getcpuclockid(t.ident) for pool in lab.sites._pools.values() for t in pool._threads if t.ident]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time(), sum(map(time.clock_gettime, clocks)), children.ru_utime + children.ru_stime


def names(plan: int, each: int) -> list[str]:
    return [f"p{plan:02d}-{i:03d}" for i in range(each)]


def fill(lab: SimLab, plans: int, each: int, limit: int) -> None:
    """On two hosts in turn; every fifth VM has two disks."""
    hosts = [lab.host, lab.world.add_host("esx-2", next(iter(lab.world.clusters.values())))]
    for p in range(plans):
        for i, name in enumerate(names(p, each)):
            lab.host = hosts[i % 2]
            lab.vm(name, disks=2 if i % 5 == 4 else 1, writes_per_tick=0)
        lab.plan(*names(p, each), name=f"wave-{p:02d}", namespace=f"ns-{p:02d}")
        lab.migration(f"run-{p:02d}", f"wave-{p:02d}")
    lab.write("controller.yaml", CONTROLLER.format(limit=limit))
    lab.commit()


def live_through(lab: SimLab, passes: int, seconds: float = 0.5, after: Callable[[], None] = lambda: None) -> Passes:
    """Run to the end, with at most one commit a pass; `after` each."""
    engine = lab.start()
    parts, whole, before = [], [], 0
    for _ in range(passes):
        began, used = time.process_time(), used_s(lab)
        lab.reports.append(engine.one_pass())
        whole.append(time.process_time() - began)
        thread, pools, git = (now - then for now, then in zip(used_s(lab), used, strict=True))
        parts.append((thread, pools, git))
        made = commits(lab)
        assert made - before <= 1
        before = made
        if lab.ended():
            return Passes(parts, whole, made)
        after()
        del lab.reports[:-1]
        lab.clock.sleep(seconds)
    raise AssertionError("the runs did not end")


def commits(lab: SimLab) -> int:
    try:
        return int(lab.git("rev-list", "--count", "reconciler/status", cwd=lab.repo))
    except Exception:
        return 0


def move_all(lab: SimLab, plans: int, each: int, limit: int, passes: int) -> tuple[Passes, Gauge]:
    fill(lab, plans, each, limit)
    gauge = Gauge(lab, limit=limit)
    with gauge.watching():
        done = live_through(lab, passes)
    assert [v.result for v in lab.vms()] == [Result.SUCCEEDED] * plans * each
    assert len(lab.cluster.vm_starts) == plans * each
    lab.assert_nothing_left()
    assert not gauge.odd, gauge.odd[:5]
    assert set(gauge.most) == {"esx-1", "esx-2"} and min(gauge.most.values()) >= limit - 1, "the limit was made use of"
    assert len(gauge.begun) == plans * each
    return done, gauge


def unfairness(gauge: Gauge) -> int:
    """Of the worse host. VMs of one pass begin in any order, so that 2 is as fair as can be."""
    return max(widest([plan for plan, host in gauge.begun.values() if host == wanted]) for wanted in gauge.most)


def test_limit_turns_and_one_commit_a_pass(tmp_path: Path) -> None:
    """Fewer slots than plans."""
    with SimLab(tmp_path) as lab:
        _, gauge = move_all(lab, 6, 4, 2, 400)
        assert unfairness(gauge) <= 2, gauge.begun


@pytest.mark.deep
@pytest.mark.parametrize(("plans", "each"), [(1, 200), (20, 50)])
def test_scale(tmp_path: Path, plans: int, each: int) -> None:
    with SimLab(tmp_path) as lab:
        done, gauge = move_all(lab, plans, each, 10, 6000)
        turns = unfairness(gauge)
        most = f"at most {dict(gauge.most)} disks in flight in {gauge.looks} looks"
        print(f"{plans} x {each} VMs: {len(done.own_s)} passes, {done.commits} commits, turns {turns}, {most}")
        print(told(done))
        assert turns <= 2
        assert max(done.own_s) < 2.0


def told(done: Passes) -> str:
    """The first pass reads the whole inventory."""
    own, whole = (f"{max(s):.2f} s, mean {sum(s) / len(s):.2f} s" for s in (done.own_s, done.whole_s))
    first = ", ".join(f"{s:.2f}" for s in done.own_s[:3])
    decided, sites, git = max(done.parts_s, key=sum)
    split = f"({decided:.2f} deciding, {sites:.2f} with the sites, {git:.2f} git)"
    return f"CPU of a pass: longest {own} {split}; of the first three {first} s; with both sites longest {whole}"
