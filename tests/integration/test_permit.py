"""Safety 5 at the wire: inside one call to a driver, what changes something is not sent once the permit is gone; looks are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler import permit
from reconciler.core.model import ObjectRef, PowerRequest, VmRef
from reconciler.core.view import owner_of
from reconciler.lab import machines
from tests.integration.loops import NS, TTL_S, go_on, machine
from tests.integration.simlab import SimLab
from tests.integration.test_safety import arrange

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


class GoneError(Exception):
    pass


def gone() -> None:
    raise GoneError


def refused(work: Callable[[], object]) -> None:
    with permit.needed(gone), pytest.raises(GoneError):
        work()


def test_no_effect_leaves_a_driver_once_the_permit_is_gone(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, lambda: bool(lab.vms()) and lab.record("web").phase == "BindVolumes" and bool(lab.cluster.find_all("Pod", "shop")))
        assert lab.engine is not None
        record, sites = lab.record("web"), lab.engine._sites
        assert record.source is not None and record.frozen is not None
        source, target = sites.source_at(ObjectRef(NS, "vc")), sites.target_at(ObjectRef(NS, "host"))
        vm: VmRef = record.source
        owner = owner_of(record, "c", lab.records().instance)
        [binder] = [p["metadata"]["name"] for p in lab.cluster.find_all("Pod", "shop")]
        before = {c["metadata"]["name"]: c for c in lab.cluster.find_all("PersistentVolumeClaim", "shop")}

        refused(lambda: target.drop_binder("shop", binder, owner))
        refused(lambda: target.drop_volume("shop", record.frozen.disks[0].pvc, owner))
        refused(lambda: target.ensure_namespace("another"))
        refused(lambda: source.request_power(vm, PowerRequest.SHUTDOWN))
        refused(lambda: source.ensure_snapshot(vm, "key/ns/run/slug/r1"))
        refused(lambda: source.enable_tracking(vm))
        with permit.needed(gone):
            assert source.read_vm(vm) is not None and target.read_inventory(["shop"]) is not None, "looks need none"

        assert [p["metadata"]["name"] for p in lab.cluster.find_all("Pod", "shop")] == [binder]
        assert {c["metadata"]["name"]: c for c in lab.cluster.find_all("PersistentVolumeClaim", "shop")} == before
        web = machine(lab, "web")
        assert (web.power, web.snapshots) == (machines.Power.ON, [])
        assert "another" not in {n["metadata"]["name"] for n in lab.cluster.find_all("Namespace")}
        lab.run()
        lab.assert_moved("web")
