"""Safety row 6, second half: two reconcilers on two repos and one cluster, and a status branch that was lost and begun anew.

What another instance made is named, and never adopted, changed or deleted; a VM that it concerns stays up.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.commands import sweep
from reconciler.core.model import Milestone, Result
from reconciler.lab.machines import Power
from reconciler.settings import Settings
from tests.integration.loops import TTL_S, condition, critical, go_on, machine, passes, record_of
from tests.integration.simlab import PATH, SimLab
from tests.integration.test_safety import ACKNOWLEDGED

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

THEM = "5d41402abc4b2a76b9719d911017c592"
LABEL, COMMIT = "reconciler.dev/instance", "reconciler.dev/commit"


def theirs(lab: SimLab, kind: str, name: str, *, source: str, **more: Any) -> dict[str, Any]:
    """As another reconciler writes it, for its own run; the branch that knows the commit is its own."""
    labels = {"app.kubernetes.io/managed-by": "reconciler", LABEL: THEM}
    notes = {"reconciler.dev/migration": "their-ns/their-run", "reconciler.dev/source": source, COMMIT: "c" * 40}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": "fast"}
    spec: dict[str, Any] = claim if kind == "PersistentVolumeClaim" else {"runStrategy": "Halted", "template": {"spec": {"domain": {}}}}
    version = "v1" if kind == "PersistentVolumeClaim" else "kubevirt.io/v1"
    lab.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    metadata = {"name": name, "namespace": "shop", "labels": labels, "annotations": notes}
    return lab.cluster.put({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, **more})


def source_key(lab: SimLab, name: str) -> str:
    vm = machine(lab, name)
    return f"{lab.vcenter.instance_uuid}/{vm.instance_uuid}"


def untouched(lab: SimLab, made: dict[str, Any]) -> bool:
    now = lab.cluster.find(made["kind"], "shop", made["metadata"]["name"])
    parts = ("uid", "labels", "annotations")
    return now is not None and now["spec"] == made["spec"] and all(now["metadata"][p] == made["metadata"][p] for p in parts)


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "VirtualMachine"])
def test_row_06_what_another_reconciler_made_of_this_source_keeps_it_up(tmp_path: Path, kind: str) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web")
        made = theirs(lab, kind, "web-of-theirs", source=source_key(lab, "web"))
        lab.plan("web")
        lab.migration()
        lab.commit()
        passes(lab, 6)
        found = condition(lab.record("web").conditions, "VMClaimed")
        assert all(word in found.message for word in (f"{kind} shop/web-of-theirs", THEM, "their-ns/their-run", "acknowledge-rewind"))
        assert machine(lab, "web").power is Power.ON and not lab.records().claims and untouched(lab, made)
        assert len(lab.cluster.find_all(kind)) == 1


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "VirtualMachine"])
def test_row_06_a_name_that_another_reconciler_took_in_mid_run_is_left_to_it(tmp_path: Path, kind: str) -> None:
    """Its object stands under the name that this run wants; it says another source, so only the name tells."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web")
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: bool(lab.vms()) and lab.record("web").frozen is not None)
        frozen = lab.record("web").frozen
        assert frozen is not None
        name = frozen.disks[0].pvc if kind == "PersistentVolumeClaim" else frozen.name
        if (mine := lab.cluster.find(kind, "shop", name)) is not None:
            pytest.fail(f"too late, {mine['metadata']['name']} is there")
        made = theirs(lab, kind, name, source="elsewhere/other-vm")
        passes(lab, 6)
        found = condition(lab.record("web").conditions, "VMClaimed")
        assert f"{kind} shop/{name}" in found.message and THEM in found.message
        assert machine(lab, "web").power is Power.ON and lab.record("web").milestone is Milestone.NONE and untouched(lab, made)


def copying(lab: SimLab) -> bool:
    return bool(lab.cluster.find_all("Job"))


def test_row_06_a_branch_begun_anew_takes_over_only_what_a_person_acknowledges(tmp_path: Path) -> None:
    """The status branch is deleted in mid-copy. Its successor is another instance: no write, and a text that says what to do."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web")
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: copying(lab))
        old = lab.records().instance.id
        lab.stop()
        lab.git("update-ref", "-d", "refs/heads/reconciler/status", cwd=lab.repo)
        lab.start()
        before = lab.cluster.calls.copy()
        passes(lab, 6)
        found = condition(lab.record("web").conditions, "VMClaimed")
        assert old in found.message and lab.records().instance.id not in ("", old)
        writes = {k: n for k, n in (lab.cluster.calls - before).items() if not str(k).startswith(("GET", "get", "list", "watch"))}
        assert not writes, "no effects"
        made = [*lab.cluster.find_all("PersistentVolumeClaim"), *lab.cluster.find_all("VirtualMachine")]
        commits = {o["metadata"]["annotations"][COMMIT] for o in made}
        lab.write("migrations/run-1.yaml", ACKNOWLEDGED.format(commits=",".join([old, *sorted(commits)])))
        lab.commit()
        go_on(lab, lab.ended)
        assert record_of(lab, "web").result is Result.SUCCEEDED and lab.records().instance.inherits == (old,)
        lab.assert_equal_bytes("web")
        lab.assert_nothing_left()


def test_row_06_the_instance_is_minted_once_and_on_everything(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        lab.vm("web")
        lab.plan("web")
        lab.migration()
        lab.commit()
        go_on(lab, lambda: copying(lab))
        first = lab.records().instance
        kinds = ("PersistentVolumeClaim", "VirtualMachine", "Job", "Secret")
        made = [o for kind in kinds for o in lab.cluster.find_all(kind, "shop")]
        assert {o["kind"] for o in made} == set(kinds)
        assert {o["metadata"]["labels"].get(LABEL) for o in made} == {first.id}
        lab.stop()
        lab.start()
        go_on(lab, lab.ended)
        assert lab.records().instance == first and critical(record_of(lab, "web").conditions) == []
        lab.assert_moved("web")


def test_row_06_sweep_names_what_another_reconciler_made_and_leaves_it(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        made = theirs(lab, "PersistentVolumeClaim", "theirs", source="site/vm")
        lab.plan()
        lab.commit()
        passes(lab, 3)
        lab.stop()
        out = io.StringIO()
        settings = Settings(
            repo=str(lab.repo),
            kubeconfig=lab.kubeconfig,
            cache_dir=lab.root / "cache-sweep",
            lease_ttl_s=TTL_S,
            holder="sweeper",
            environment={"PATH": PATH, "HOME": str(lab.root)},
        )
        code = sweep.run(settings, everywhere=True, delete=True, format="json", clock=lab.clock, out=out)
        (found,) = json.loads(out.getvalue())["leftovers"]
        assert code == 1 and THEM in found["why"] and "another reconciler" in found["hindrance"] and not found["deletable"]
        assert untouched(lab, made)
