"""One ESXi host of the lab's world as a server of its own: /sdk as its agent answers, /folder with the datastores that it mounts.

What it is: the simulated vCenter with another face: apiType HostAgent and no instanceUuid; one datacenter `ha-datacenter`, one
ComputeResource, the host `ha-host`, its own machines in no folders; its own certificate and accounts; events that it forgets, and counts
anew, when its agent restarts. What it is not: exact in ids: those of machines, networks and datastores are the vCenter's, which clients
must not read anything into. Source: vSphere Web Services API 8.0.2, HostAgent; "HTTP access to vSphere server files".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from reconciler.lab.clock import LabClock
from reconciler.lab.machines import Cluster, Datacenter, Datastore, Host, Network, PowerEvent, Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.inventory import Inventory, Node
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.vcenter.vmomi import vim
from reconciler.lab.world import World

DATACENTER = "ha-datacenter"
HOST = "ha-host"


class HostWorld:
    """The world as one host sees it; everything else, and every act, is the whole world's."""

    def __init__(self, world: World, host: Host) -> None:
        self._world = world
        self.host = host
        self._datacenter = Datacenter(host.cluster.datacenter.key, DATACENTER)
        self.forgotten = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    @property
    def datacenters(self) -> dict[str, Datacenter]:
        return {DATACENTER: self._datacenter}

    @property
    def clusters(self) -> dict[str, Cluster]:
        return {self.host.cluster.name: self.host.cluster}

    @property
    def hosts(self) -> dict[str, Host]:
        return {self.host.name: self.host}

    @property
    def datastores(self) -> dict[str, Datastore]:
        """Those of its datacenter: the lab's hosts mount all of them."""
        there = {name: store for name, store in self._world.datastores.items() if store.datacenter is self.host.cluster.datacenter}
        return {name: replace(store, datacenter=self._datacenter) for name, store in there.items()}

    @property
    def networks(self) -> dict[str, Network]:
        there = {name: net for name, net in self._world.networks.items() if net.datacenter is self.host.cluster.datacenter}
        return {name: replace(net, datacenter=self._datacenter) for name, net in there.items()}

    @property
    def vms(self) -> dict[int, Vm]:
        return {key: vm for key, vm in self._world.vms.items() if vm.host is self.host}

    @property
    def history(self) -> list[PowerEvent]:
        """Since its agent began, counted from one."""
        known = self._world.known
        own = [event for event in self._world.history[self.forgotten :] if known[event.vm].host is self.host]
        return [replace(event, number=number) for number, event in enumerate(own, 1)]


class HostInventory(Inventory):
    """The tree that every ESXi host has."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        runtime = self._vm_table["runtime"]

        def here(vm: Vm) -> Any:
            told = runtime(vm)
            told.host = vim.HostSystem(HOST)
            return told

        self._vm_table = {
            **self._vm_table,
            "runtime": here,
            "parent": lambda vm: self.folder(vm.datacenter, "v"),
        }

    def node(self, record: Any) -> Node:
        made = super().node(record)
        if isinstance(record, Host):
            return replace(made, ref=vim.HostSystem(HOST))
        if isinstance(record, Cluster):
            return replace(made, ref=vim.ComputeResource(made.id))
        return made

    def every(self) -> Iterator[Node]:
        yield from self._others()
        for vm in self._world.vms.values():
            yield self.node(vm)


class Esxi(VCenter):
    """start() … stop(), as VCenter. The vCenter's inventory tells the thumbprint of its certificate."""

    def __init__(self, world: World, host: Host, ca: LabCa, clock: LabClock, *, user: str, password: str, port: int = 0) -> None:
        self.certificate = f"esxi-{host.key}"
        seen: Any = HostWorld(world, host)
        super().__init__(seen, ca, clock, port=port, user=user, password=password)
        crt = x509.load_pem_x509_certificate((ca.path.parent / f"{self.certificate}.crt").read_bytes())
        host.thumbprint = crt.fingerprint(hashes.SHA1()).hex(":").upper()  # vSphere names certificates so
        world.changed(host)
        self.host = host
        self._seen: HostWorld = seen
        self._whole = world

    @property
    def address(self) -> str:
        """As a Host manifest's ipAddress names it, with the port that only a lab needs."""
        return f"127.0.0.1:{self.port}"

    def restart_agent(self) -> None:
        """Sessions and events are gone; machines run on."""
        with self._whole.lock:
            self.sessions.drop_all()
            self._seen.forgotten = len(self._whole.history)

    def _inventory(self, world: World) -> Inventory:
        return HostInventory(world)

    def _about(self) -> Any:
        told = super()._about()
        told.name = "VMware ESXi"
        told.fullName = "VMware ESXi 8.0.2 build-22380479"
        told.build, told.osType, told.productLineId = "22380479", "vmnix-x86", "embeddedEsx"
        told.apiType, told.instanceUuid = "HostAgent", None
        told.licenseProductName = "VMware ESX Server"
        return told
