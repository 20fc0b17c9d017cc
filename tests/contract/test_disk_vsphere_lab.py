"""The reader contract on the simulated vCenter's datastore folder, with URL and credentials as the vSphere driver hands them over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.core.copyspec import TlsSpec
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import Known, ObjectRef, Secret, VmRef
from reconciler.drivers.vsphere.source import connect
from reconciler.errors import RetryableError
from reconciler.lab.clock import WallClock
from reconciler.lab.machines import Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.ports import DiskChoice
from reconciler.wire.auth import FileAuth
from reconciler.wire.http import HttpRangeReader
from tests.contract.suite_disk import CountingClock, ReaderContract, ReaderSite

USER, PASSWORD = "administrator@vsphere.local", "pa55-of-the-lab"
PROVIDER = ObjectRef("openshift-mtv", "vcenter")


class FolderSite(ReaderSite):
    def __init__(self, center: VCenter, vm: Vm, folder: Path) -> None:
        self.center, self.vm, self.folder, self.faults, self.clock = center, vm, folder, center.faults, CountingClock()
        self.content = vm.disks[0].path.read_bytes()

    def open(self) -> HttpRangeReader:
        texts = {"user": USER, "password": PASSWORD, "ca.crt": (self.folder / "ca" / "ca.crt").read_text()}
        spec = ProviderSpec(PROVIDER, "vsphere", self.center.url, None, {}, Place("provider.yaml", 1))
        driver = connect(spec, {key: Secret(value) for key, value in texts.items()}, SystemClock())
        try:
            ref = VmRef(PROVIDER, self.center.instance_uuid, f"vm-{self.vm.key}", self.vm.instance_uuid, self.vm.name)
            found = driver.read_vm(ref)
            assert isinstance(found, Known)
            copy = driver.describe_copy(found.value, [DiskChoice(found.value.disks[0].uuid, "datastore")])
        finally:
            driver.close()
        mounted = self.folder / "credentials"
        mounted.mkdir(exist_ok=True)
        for name, secret in copy.credentials.items():
            (mounted / name).write_text(secret.reveal())
        _, url = copy.disks[found.value.disks[0].uuid]
        tls = TlsSpec(ca_file=str(self.folder / "ca" / "ca.crt"))
        return HttpRangeReader.open(url, found.value.disks[0].capacity_bytes, tls, FileAuth(mounted), self.clock, 5.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FolderSite]:
    clock = WallClock()
    world = World(tmp_path / "world", clock)
    dc = world.add_datacenter("DC/East 1")
    vm = world.add_vm("web 01&co", world.add_host("esx", world.add_cluster("prod", dc)))
    world.add_disk(vm, world.add_datastore("vmfs 1", dc), capacity_mib=4, data_mib=2)
    center = VCenter(world, LabCa(tmp_path / "ca"), clock, user=USER, password=PASSWORD)
    center.start()
    yield FolderSite(center, vm, tmp_path)
    center.stop()


class TestFolder(ReaderContract):
    def test_the_file_of_a_running_machine_is_locked(self, site: FolderSite) -> None:
        reader = site.open()
        self.read(reader, 0, 4096)
        site.center.world.power_on(site.vm)
        with pytest.raises(RetryableError, match="SourceLocked"):
            self.read(reader, 0, 4096)
        reader.close()
