"""The managed objects of the simulated vCenter: which exist, what they are called, and how their properties are read.

What it is not: the property collector (properties.py walks and caches). Where it stands: world -> Node; ids are vCenter-like (`vm-12`).
Source: vSphere Web Services API 8.0.2, "managed entity" hierarchy: root folder > datacenter > vm/host/datastore/network folders.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from reconciler.lab.machines import Cluster, Datacenter, Datastore, Host, Network, Vm
from reconciler.lab.vcenter import machine_view
from reconciler.lab.vcenter.devices import datastore_ref, network_ref, switch_uuid
from reconciler.lab.vcenter.infrastructure import (
    datastore_info,
    datastore_summary,
    host_runtime,
    host_summary,
    portgroup_config,
    switch_ref,
)
from reconciler.lab.vcenter.machine_view import escape_name, vm_ref
from reconciler.lab.vcenter.vmomi import support, vim
from reconciler.lab.world import World

Table = Mapping[str, Callable[[Any], Any]]
ROOT = "group-d1"
STRINGS: Any = support.GetVmodlType("string[]")
FOLDERS = {"v": ("vm", ["Folder", "VirtualMachine"]), "h": ("host", ["Folder", "ComputeResource"])} | {
    "s": ("datastore", ["Folder", "Datastore"]),
    "n": ("network", ["Folder", "Network", "DistributedVirtualSwitch"]),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A managed object now. `revision` equal, and nothing it shows has changed."""

    ref: Any
    record: Any
    table: Table
    revision: int

    @property
    def id(self) -> str:
        return str(self.ref._moId)


# How the running call finds the objects of its own session (views, collectors); each server thread has its own.
MINE: ContextVar[Callable[[str], Node | None]] = ContextVar("mine", default=lambda moid: None)


@dataclass(frozen=True, slots=True)
class Folder:
    """`kind`: "" for the root, else a key of FOLDERS; `path` is below the datacenter's own folder of that kind."""

    id: str
    name: str
    datacenter: Datacenter | None
    kind: str
    path: str


class Inventory:
    """Looks managed objects up. Objects that are no part of the world (tasks, sessions) come from `singletons` and `extra`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.singletons: dict[str, Callable[[], Node]] = {}
        self.extra: Callable[[str], Node | None] = lambda moid: None
        self.recent_tasks: Callable[[Vm], list[Any]] = lambda vm: []
        self.disabled_methods: Callable[[Vm], list[str]] = lambda vm: []
        self._folders: dict[str, Folder] = {ROOT: Folder(ROOT, "Datacenters", None, "", "")}
        self._vm_table: Table = {
            **machine_view.PROPERTIES,
            "parent": lambda vm: self.folder(vm.datacenter, "v", vm.folder),
            "recentTask": lambda vm: vim.Task.Array(self.recent_tasks(vm)),
            "disabledMethod": lambda vm: STRINGS(self.disabled_methods(vm)),
            "effectiveRole": lambda vm: [-1],
        }
        self._tables = self._infrastructure()

    # ---- folders ----------------------------------------------------------------------------------------------------------------------

    def folder(self, datacenter: Datacenter, kind: str, path: str = "") -> Any:
        """The reference of a folder; made known at its first mention."""
        known = f"group-{kind}{datacenter.key}" + (f"{zlib.crc32(path.encode()):010d}" if path else "")
        if known not in self._folders:
            name = path.rpartition("/")[2] if path else FOLDERS[kind][0]
            self._folders[known] = Folder(known, name, datacenter, kind, path)
            if path:
                self.folder(datacenter, kind, path.rpartition("/")[0])
        return vim.Folder(known)

    def _folder_parent(self, folder: Folder) -> Any:
        if folder.datacenter is None:
            return None
        if not folder.path:
            return vim.Datacenter(f"datacenter-{folder.datacenter.key}")
        return self.folder(folder.datacenter, folder.kind, folder.path.rpartition("/")[0])

    def _children(self, folder: Folder) -> list[Any]:
        world, dc = self._world, folder.datacenter
        if dc is None:
            return [vim.Datacenter(f"datacenter-{d.key}") for d in world.datacenters.values()]
        if folder.kind == "h":
            return [vim.ClusterComputeResource(f"domain-c{c.key}") for c in world.clusters.values() if c.datacenter is dc]
        if folder.kind == "s":
            return [datastore_ref(d.key) for d in world.datastores.values() if d.datacenter is dc]
        if folder.kind == "n":
            nets = [n for n in world.networks.values() if n.datacenter is dc]
            return [network_ref(n) for n in nets] + [switch_ref(n) for n in {n.switch: n for n in nets if n.switch}.values()]
        here = [vm for vm in world.vms.values() if vm.datacenter is dc and vm.folder == folder.path]
        return [*self._subfolders(dc, folder.path), *(vm_ref(vm) for vm in here)]

    def _subfolders(self, dc: Datacenter, path: str) -> list[Any]:
        prefix = f"{path}/" if path else ""
        below = {
            vm.folder[len(prefix) :].split("/")[0]
            for vm in self._world.vms.values()
            if vm.datacenter is dc and vm.folder.startswith(prefix)
        }
        return [self.folder(dc, "v", prefix + name) for name in sorted(below - {""})]

    # ---- tables -----------------------------------------------------------------------------------------------------------------------

    def _infrastructure(self) -> dict[type, Table]:
        world = self._world
        return {
            Folder: {
                "name": lambda f: escape_name(f.name),
                "parent": self._folder_parent,
                "childEntity": lambda f: vim.ManagedEntity.Array(self._children(f)),
                "childType": lambda f: FOLDERS[f.kind][1] if f.kind else ["Folder", "Datacenter"],
            },
            Datacenter: {
                "name": lambda d: escape_name(d.name),
                "parent": lambda d: vim.Folder(ROOT),
                "vmFolder": lambda d: self.folder(d, "v"),
                "hostFolder": lambda d: self.folder(d, "h"),
                "datastoreFolder": lambda d: self.folder(d, "s"),
                "networkFolder": lambda d: self.folder(d, "n"),
                "datastore": lambda d: vim.Datastore.Array([datastore_ref(s.key) for s in world.datastores.values() if s.datacenter is d]),
                "network": lambda d: vim.Network.Array([network_ref(n) for n in world.networks.values() if n.datacenter is d]),
            },
            Cluster: {
                "name": lambda c: escape_name(c.name),
                "parent": lambda c: self.folder(c.datacenter, "h"),
                "host": lambda c: vim.HostSystem.Array([vim.HostSystem(f"host-{h.key}") for h in world.hosts.values() if h.cluster is c]),
                "resourcePool": lambda c: vim.ResourcePool(f"resgroup-{c.key}"),
                "datastore": lambda c: self._in_datacenter(c.datacenter)[0],
                "network": lambda c: self._in_datacenter(c.datacenter)[1],
            },
            Host: {
                "name": lambda h: escape_name(h.name),
                "parent": lambda h: vim.ClusterComputeResource(f"domain-c{h.cluster.key}"),
                "runtime": host_runtime,
                "summary": host_summary,
                "vm": lambda h: vim.VirtualMachine.Array([vm_ref(vm) for vm in world.vms.values() if vm.host is h]),
                "datastore": lambda h: self._in_datacenter(h.cluster.datacenter)[0],
                "network": lambda h: self._in_datacenter(h.cluster.datacenter)[1],
            },
            Datastore: {
                "name": lambda d: escape_name(d.name),
                "parent": lambda d: self.folder(d.datacenter, "s"),
                "summary": datastore_summary,
                "info": datastore_info,
                "vm": lambda d: vim.VirtualMachine.Array(
                    [vm_ref(vm) for vm in world.vms.values() if any(k.datastore is d for k in vm.disks)]
                ),
            },
            Network: {
                "name": lambda n: escape_name(n.name),
                "parent": lambda n: self.folder(n.datacenter, "n"),
                "summary": lambda n: vim.Network.Summary(network=network_ref(n), name=escape_name(n.name), accessible=True, ipPoolName=""),
                "vm": lambda n: vim.VirtualMachine.Array([vm_ref(vm) for vm in world.vms.values() if any(c.network is n for c in vm.nics)]),
            },
        }

    def _in_datacenter(self, dc: Datacenter) -> tuple[Any, Any]:
        table = self._tables[Datacenter]
        return table["datastore"](dc), table["network"](dc)

    # ---- look-up ----------------------------------------------------------------------------------------------------------------------

    def node(self, record: Any) -> Node:
        if isinstance(record, Vm):
            return Node(vm_ref(record), record, self._vm_table, record.revision)
        ref, revision = _reference(record), self._world.revision
        table = self._tables[type(record)]
        if isinstance(record, Network) and record.switch:
            table = {**table, "key": lambda n: f"dvportgroup-{n.key}", "config": portgroup_config}
        if isinstance(record, Datastore | Network | Host):
            revision = record.revision
        return Node(ref, record, table, revision)

    def find(self, moid: str) -> Node | None:
        """None when there is no such object (any more)."""
        if (mine := MINE.get()(moid)) is not None:
            return mine
        if moid in self.singletons:
            return self.singletons[moid]()
        if moid.startswith("vm-") and moid[3:].isdigit():
            vm = self._world.vms.get(int(moid[3:]))
            return self.node(vm) if vm else None
        if moid in self._folders:
            return self.node(self._folders[moid])
        found = next((n for n in self._others() if n.id == moid), None)
        return found or self.extra(moid)

    def vm(self, moid: str) -> Vm | None:
        node = self.find(moid)
        return node.record if node and isinstance(node.record, Vm) else None

    def _others(self) -> Iterator[Node]:
        world = self._world
        for dc in world.datacenters.values():
            for kind in FOLDERS:
                self.folder(dc, kind)
        groups: Iterable[Iterable[Any]] = (
            world.datacenters.values(),
            world.clusters.values(),
            world.hosts.values(),
            world.datastores.values(),
            world.networks.values(),
            list(self._folders.values()),
        )
        for group in groups:
            for record in group:
                yield self.node(record)
        for network in {(n.datacenter.key, n.switch): n for n in world.networks.values() if n.switch}.values():
            yield _switch_node(network, self.folder(network.datacenter, "n"))
        for cluster in world.clusters.values():
            yield _pool_node(cluster)

    def every(self) -> Iterator[Node]:
        """All managed entities; VMs in order of creation."""
        for path in {(vm.datacenter.key, vm.folder): vm for vm in self._world.vms.values() if vm.folder}.values():
            self.folder(path.datacenter, "v", path.folder)
        yield from self._others()
        for vm in self._world.vms.values():
            yield self.node(vm)

    def is_below(self, node: Node, container: str) -> bool:
        """True if `container` is the root or an ancestor of `node`."""
        if container == ROOT:
            return node.id != ROOT
        at: Node | None = node
        while at is not None:
            parent = at.table["parent"](at.record) if "parent" in at.table else None
            if parent is None:
                return False
            if parent._moId == container:
                return True
            at = self.find(parent._moId)
        return False


def _switch_node(network: Network, parent: Any) -> Node:
    table: Table = {"name": lambda n: escape_name(n.switch), "uuid": switch_uuid, "parent": lambda n: parent}
    return Node(switch_ref(network), network, table, network.revision)


def _pool_node(cluster: Cluster) -> Node:
    owner = vim.ClusterComputeResource(f"domain-c{cluster.key}")
    table: Table = {"name": lambda c: "Resources", "parent": lambda c: owner, "owner": lambda c: owner}
    return Node(vim.ResourcePool(f"resgroup-{cluster.key}"), cluster, table, cluster.revision)


def _reference(record: Any) -> Any:
    match record:
        case Folder():
            return vim.Folder(record.id)
        case Datacenter():
            return vim.Datacenter(f"datacenter-{record.key}")
        case Cluster():
            return vim.ClusterComputeResource(f"domain-c{record.key}")
        case Host():
            return vim.HostSystem(f"host-{record.key}")
        case Datastore():
            return datastore_ref(record.key)
        case _:
            return network_ref(record)
