"""Cold runs that read from ESXi hosts: one that is the provider itself, and one that a Host manifest names behind a vCenter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.core.model import ObjectRef
from reconciler.core.record import Category
from reconciler.drivers.vsphere.doors import AGAIN_S
from reconciler.lab.machines import Power
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.esxi import Esxi
from tests.integration.simlab import MANIFESTS, SimLab

USER, PASSWORD = "root", "s3cret-of-the-host"
HOST = """
---
apiVersion: forklift.konveyor.io/v1beta1
kind: Host
metadata: {{name: esx-1, namespace: openshift-mtv}}
spec:
  name: esx-1
  ipAddress: "{address}"
  provider: {{name: vc, namespace: openshift-mtv}}
  secret: {{name: esx-1-credentials, namespace: openshift-mtv}}
"""


@contextmanager
def esxi_of(lab: SimLab, ca: LabCa) -> Iterator[Esxi]:
    made = Esxi(lab.world, lab.host, ca, lab.clock, user=USER, password=PASSWORD)
    made.start()
    try:
        yield made
    finally:
        lab.stop()
        made.stop()


def reads(site: Esxi) -> int:
    return sum(count for label, count in site.calls.items() if label.startswith("GET /folder/"))


def test_a_host_is_the_provider(tmp_path: Path) -> None:
    with SimLab(tmp_path) as lab, esxi_of(lab, lab.ca) as esxi:
        lab.vcenter.stop()  # nobody needs it
        lab.secret(user=USER, password=PASSWORD)
        endpoint = f"url: {esxi.url}\n  settings: {{{{sdkEndpoint: esxi}}}}"
        lab.write("sites.yaml", MANIFESTS.replace("url: {url}", endpoint).format())
        lab.vm("web", disks=2)
        lab.plan("web")
        lab.migration()
        lab.commit()
        lab.run()
        lab.assert_moved("web")
        record = lab.record("web")
        assert reads(esxi) >= 2
        assert record.epoch is not None and record.epoch.startswith("host:")


def test_disks_of_a_vcenter_s_vm_come_from_the_host_that_a_manifest_names(tmp_path: Path) -> None:
    """Until its account is right nothing is switched off; then not one byte goes through the vCenter."""
    with SimLab(tmp_path) as lab, esxi_of(lab, LabCa(tmp_path / "host-pki")) as esxi:
        lab.write("host.yaml", HOST.format(address=esxi.address))
        credentials = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "esx-1-credentials", "namespace": "openshift-mtv"},
            "stringData": {"user": USER, "password": "wrong"},
        }
        lab.cluster.put(credentials)
        web = lab.vm("web")
        lab.plan("web")
        lab.migration()
        lab.commit()

        def said() -> bool:
            found = lab.reports[-1].records.statuses.get(("Plan", ObjectRef("openshift-mtv", "wave")))
            return found is not None and any(c.type == "HostNotReady" and c.category is Category.CRITICAL for c in found.conditions)

        lab.passes(said)
        host = lab.reports[-1].records.statuses[("Host", ObjectRef("openshift-mtv", "esx-1"))]
        assert [c.type for c in host.conditions] == ["SecretNotValid"]
        assert web.power is Power.ON
        credentials["stringData"] = {"user": USER, "password": PASSWORD}
        lab.cluster.put(credentials)
        lab.clock.sleep(AGAIN_S)
        lab.run(seconds=1.5)
        lab.assert_moved("web")
        assert reads(esxi) > 0
        assert not any(label.startswith("GET /folder/") for label in lab.vcenter.calls)
        frozen = lab.record("web").frozen
        assert frozen is not None
        assert "(Host openshift-mtv/esx-1)" in frozen.disks[0].path_reason
        host = lab.reports[-1].records.statuses[("Host", ObjectRef("openshift-mtv", "esx-1"))]
        assert "Ready" in [c.type for c in host.conditions]
