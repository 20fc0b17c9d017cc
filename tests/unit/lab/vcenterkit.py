"""What the tests of the simulated vCenter share: a small site in hand-moved time, real pyVmomi clients, filter specs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pyVim.connect import SmartConnect
from pyVmomi import SoapStubAdapter, vim, vmodl

from reconciler.lab.machines import Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World

PC = vmodl.query.PropertyCollector
VM_PATHS = [
    "name",
    "config.uuid",
    "config.hardware.device",
    "config.bootOptions.efiSecureBootEnabled",
    "config.annotation",
    "runtime.powerState",
    "guest.toolsRunningStatus",
    "summary.config.tpmPresent",
    "network",
    "datastore",
    "parent",
    "snapshot",
]


class HandClock:
    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


class Site:
    """A vCenter with a few machines in time that only `pass_time` moves. Tasks take 10 s, sessions last 1800 s, pages hold 2."""

    def __init__(self, root: Path, ca: LabCa, vms: int = 5) -> None:
        self.clock = HandClock()
        self.world = World(root, self.clock)
        self.context = ssl.create_default_context(cafile=str(ca.path))
        dc = self.world.add_datacenter("DC1")
        host = self.world.add_host("esxi-01", self.world.add_cluster("Cluster1", dc))
        store = self.world.add_datastore("ds-fast", dc)
        plain = self.world.add_network("VM Network", dc)
        portgroup = self.world.add_network("App", dc, switch="DSwitch", vlan=210)
        for number in range(vms):
            vm = self.world.add_vm(f"vm-{number}/x" if number == 4 else f"vm-{number}", host, folder="Shop" if number else "")
            self.world.add_disk(vm, store, 1, bus=("pvscsi", "sata", "nvme")[number % 3])
            self.world.add_nic(vm, portgroup if number % 2 else plain)
        self.vcenter = VCenter(self.world, ca, self.clock, page_size=2, task_s=10.0, session_idle_s=1800.0)

    def vm(self, number: int) -> Vm:
        return list(self.world.vms.values())[number]

    def pass_time(self, seconds: float) -> None:
        self.clock.passed += seconds

    @contextmanager
    def client(self) -> Iterator[Any]:
        si = SmartConnect(
            host="127.0.0.1",
            port=self.vcenter.port,
            user=self.vcenter.user,
            pwd=self.vcenter.password,
            sslContext=self.context,
            httpConnectionTimeout=5,
        )
        try:
            yield si
        finally:
            si._stub.DropConnections()

    @contextmanager
    def stranger(self) -> Iterator[Any]:
        stub = SoapStubAdapter("127.0.0.1", self.vcenter.port, version="vim.version.v8_0_2_0", sslContext=self.context)
        try:
            yield vim.ServiceInstance("ServiceInstance", stub)
        finally:
            stub.DropConnections()


def spec(view: Any, paths: list[str] = VM_PATHS, kind: Any = vim.VirtualMachine) -> Any:
    step = PC.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
    start = PC.ObjectSpec(obj=view, skip=True, selectSet=[step])
    return PC.FilterSpec(objectSet=[start], propSet=[PC.PropertySpec(type=kind, pathSet=paths)])


def all_vms(si: Any) -> Any:
    content = si.content
    return content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)


def ref(site: Site, si: Any, number: int) -> Any:
    return vim.VirtualMachine(f"vm-{site.vm(number).key}", si._stub)


def object_spec(obj: Any, paths: list[str]) -> Any:
    return PC.FilterSpec(objectSet=[PC.ObjectSpec(obj=obj)], propSet=[PC.PropertySpec(type=type(obj), pathSet=paths)])
