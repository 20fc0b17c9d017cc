"""Many VMs with tiny disks: the in-flight limit as the cluster sees it, fairness between plans, one commit a pass, a dead provider.

Default: 60 VMs. `--deep`: a 200-VM plan, and 20 plans of 50 VMs.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reconciler.core.model import Result
from tests.integration.simlab import SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

LIMIT = 10
CONTROLLER = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: ForkliftController
metadata: {{name: c, namespace: openshift-mtv}}
spec: {{controller_max_vm_inflight: {limit}}}
"""


def in_flight(lab: SimLab) -> int:
    """Disks on the target whose VM was not handed over: what the limit is about, counted by the cluster."""
    started = {v["metadata"]["name"] for v in lab.cluster.find_all("VirtualMachine") if v["spec"].get("runStrategy") == "Always"}
    claims = lab.cluster.find_all("PersistentVolumeClaim")
    names = [c["metadata"]["annotations"]["reconciler.dev/vm"].rsplit("-", 1)[0] for c in claims]
    return sum(name not in started for name in names)


def fill(lab: SimLab, plans: int, each: int, limit: int) -> None:
    for p in range(plans):
        names = [f"p{p:02d}-{i:03d}" for i in range(each)]
        for name in names:
            lab.vm(name, writes_per_tick=0)
        lab.plan(*names, name=f"wave-{p:02d}", namespace=f"ns-{p:02d}")
        lab.migration(f"run-{p:02d}", f"wave-{p:02d}")
    lab.write("controller.yaml", CONTROLLER.format(limit=limit))
    lab.commit()


def live_through(lab: SimLab, limit: int, passes: int) -> list[float]:
    """Run to the end; at most `limit` in flight at every pass and one commit a pass. Returns the CPU seconds of each pass."""
    engine = lab.start()
    took = []
    for _ in range(passes):
        before = commits(lab)
        began = time.process_time()
        lab.reports.append(engine.one_pass())
        took.append(time.process_time() - began)
        assert in_flight(lab) <= limit
        assert commits(lab) - before <= 1
        if lab.ended():
            return took
        lab.clock.sleep(0.5)
    raise AssertionError("the runs did not end")


def commits(lab: SimLab) -> int:
    try:
        return int(lab.git("rev-list", "--count", "reconciler/status", cwd=lab.repo))
    except Exception:
        return 0


def check(lab: SimLab, vms: int) -> None:
    assert [v.result for v in lab.vms()] == [Result.SUCCEEDED] * vms
    assert len(lab.cluster.vm_starts) == vms
    lab.assert_nothing_left()


def test_limit_fairness_and_one_commit_a_pass(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab:
        fill(lab, 3, 20, LIMIT)
        live_through(lab, LIMIT, 200)
        check(lab, 60)
        first = [min(v.started for v in lab.vms() if v.plan.name == f"wave-{p:02d}" and v.started) for p in range(3)]
        assert max(first) == min(first), "each plan had its turn in the first pass"


def test_one_dead_provider_delays_only_its_own(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab:
        lab.vm("alive")
        lab.plan("alive")
        lab.migration()
        dead = (
            (lab.clone / "sites.yaml")
            .read_text()
            .split("---")[0]
            .replace("name: vc,", "name: dead,")
            .replace(lab.vcenter.url, "https://127.0.0.1:9/sdk")
        )
        lab.write("dead.yaml", dead)
        plan = (
            (lab.clone / "plans/wave.yaml")
            .read_text()
            .replace("name: wave", "name: lost")
            .replace("source: {name: vc", "source: {name: dead")
        )
        lab.write("plans/lost.yaml", plan)
        lab.migration("run-lost", "lost")
        lab.commit()
        lab.passes(lambda: any(v.result is Result.SUCCEEDED for v in lab.vms()))
        lab.assert_moved("alive")
        assert {r.run.name for r in lab.reports[-1].records.runs.values()} == {"run-1"}


@pytest.mark.deep
@pytest.mark.parametrize(("plans", "each"), [(1, 200), (20, 50)])
def test_scale(tmp_path: Path, plans: int, each: int) -> None:
    with SimLab(tmp_path) as lab:
        fill(lab, plans, each, 20)
        took = live_through(lab, 20, 4000)
        check(lab, plans * each)
        print(f"{plans} x {each} VMs: {len(took)} passes, longest {max(took):.2f} s CPU")
