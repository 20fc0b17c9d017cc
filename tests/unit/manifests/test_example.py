"""The example estate: it loads without a word, and says what the lab has."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.commands.validate import check
from reconciler.core.desired import Desired, WantPower
from reconciler.core.model import Mode, ObjectRef
from reconciler.manifests.load import SourceFile, load
from reconciler.manifests.resolve import resolve

EXAMPLE = Path(__file__).parents[3] / "examples" / "repo"


@pytest.fixture(scope="module")
def desired() -> Desired:
    paths = sorted(p for p in EXAMPLE.rglob("*") if p.is_file())
    return resolve(load([SourceFile(str(p.relative_to(EXAMPLE)), str(p), p.read_bytes()) for p in paths]), "c0ffee")


def ref(name: str) -> ObjectRef:
    return ObjectRef("openshift-mtv", name)


def test_it_has_no_problem_and_asks_for_nothing_that_is_not_there(desired: Desired) -> None:
    assert (desired.problems, desired.complete, desired.broken) == ((), True, frozenset())
    assert check(EXAMPLE).problems == ()
    assert desired.plans[ref("shop-wave-1")].unsupported == ()
    assert desired.migrations[ref("shop-wave-1-run-1")].unsupported == ()


def test_the_sites_are_the_labs(desired: Desired) -> None:
    source, host = desired.providers[ref("vcenter-lab")], desired.providers[ref("host")]
    assert (source.platform, source.url, source.secret) == ("vsphere", "https://127.0.0.1:18443/sdk", ref("vcenter-lab-credentials"))
    assert source.settings == {"sdkEndpoint": "vcenter"}
    assert (host.platform, host.url, host.secret) == ("openshift", "", None)


def test_the_maps_are_the_labs(desired: Desired) -> None:
    networks = [(p.source.name, p.kind, p.namespace, p.name) for p in desired.network_maps[ref("lab-net")].pairs]
    assert networks == [("VM Network", "pod", "", ""), ("App VLAN 210", "multus", "shop", "vlan-210"), ("Backup LAN", "ignored", "", "")]
    stores = [(p.source.name, p.storage_class, p.volume_mode, p.access_mode) for p in desired.storage_maps[ref("lab-storage")].pairs]
    assert stores == [("ds-fast", "fast", None, None), ("ds-bulk", "bulk", "Filesystem", "ReadWriteOnce")]


def test_the_plan_is_the_labs(desired: Desired) -> None:
    plan = desired.plans[ref("shop-wave-1")]
    assert (plan.mode, plan.target_namespace, plan.skip_conversion, plan.compatibility_mode) == (Mode.COLD, "shop", True, False)
    assert [(vm.ref.name, vm.target_power) for vm in plan.vms] == [
        ("web-01", WantPower.AUTO),
        ("db-01", WantPower.AUTO),
        ("batch-01", WantPower.AUTO),
        ("Legacy App_01", WantPower.ON),
    ]
    assert desired.migrations[ref("shop-wave-1-run-1")].plan == ref("shop-wave-1")


def test_every_file_says_what_it_is() -> None:
    for path in EXAMPLE.rglob("*.yaml"):
        assert path.read_text().startswith("# "), path


def test_the_readme_names_every_folder() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    for folder in ("providers/", "maps/", "plans/", "migrations/", "controller.yaml", ".github/workflows/validate.yaml"):
        assert f"`{folder}`" in readme
        assert (EXAMPLE / folder).exists()
