"""Where things are in one vCenter or on one ESXi host: folders, datacenters, clusters, hosts, datastores, networks, as VMs refer to them.

What it is: an immutable index over the objects that are not VMs, made anew when one of them changes; it is tolerant of what the
account may not see. What it is not: VMs (machine.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from reconciler.core.inventory import NamedItem
from reconciler.drivers.vsphere.digest import Properties, plain
from reconciler.drivers.vsphere.hardware import CardFacts

_NETWORKS = frozenset({"Network", "DistributedVirtualPortgroup", "OpaqueNetwork"})
_DEPTH = 64  # folders; a bound, so that a list cut short by permissions or a loop cannot hold us


@dataclass(frozen=True, slots=True)
class DatastorePlace:
    name: str
    type: str
    datacenter_path: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the inventory knows of an ESXi host. `thumbprint` of its certificate, `uuid` of its hardware; "" when it does not tell."""

    id: str
    name: str
    thumbprint: str
    uuid: str
    maintenance: bool

    @classmethod
    def of(cls, id_: str, name: str, properties: Properties) -> HostFacts:
        thumbprint, uuid = (str(properties.get(path) or "") for path in ("summary.config.sslThumbprint", "summary.hardware.uuid"))
        return cls(id_, name, thumbprint, uuid.lower(), bool(properties.get("runtime.inMaintenanceMode")))


class Places:
    """Made from (kind, id) -> properties of everything that is no VM. `root` is the id of the root folder."""

    def __init__(self, objects: Mapping[tuple[str, str], Properties], root: str) -> None:
        self._root = root
        self._nodes = {id_: (kind, properties) for (kind, id_), properties in objects.items()}
        self._hosts: dict[str, dict[str, object]] = {}
        self._port_groups: dict[str, str] = {}
        self._opaque: dict[str, str] = {}
        for id_, (kind, properties) in self._nodes.items():
            if kind == "DistributedVirtualPortgroup" and "key" in properties:
                self._port_groups[properties["key"]] = id_
            elif kind == "OpaqueNetwork" and "summary" in properties:
                self._opaque[properties["summary"]] = id_
        for id_ in self._ids("HostSystem"):
            self._hosts[id_] = self._host_document(id_)

    def knows(self, id_: str) -> bool:
        return id_ in self._nodes

    def vm_path(self, parent: str, name: str) -> str:
        """/DC/vm/folder/name, with names as the inventory writes them ("/" is "%2f" there)."""
        chain = [self._raw_name(id_) for id_ in self._upwards(parent)]
        return "/" + "/".join([*reversed(chain), name])

    def datastore(self, id_: str) -> DatastorePlace | None:
        if id_ not in self._nodes:
            return None
        properties = self._nodes[id_][1]
        return DatastorePlace(plain(self._raw_name(id_)), str(properties.get("summary.type", "")), self._datacenter_path(id_))

    def network(self, card: CardFacts) -> tuple[str, str]:
        """(id, name) of what a NIC is plugged into; ("", …) when it cannot be seen."""
        id_ = card.network_id or self._port_groups.get(card.port_group_key, "") or self._opaque.get(card.opaque_id, "")
        return id_, plain(self._raw_name(id_)) if id_ in self._nodes else card.network_name

    def host(self, id_: str) -> Mapping[str, object]:
        """The host's part of a workload document, cluster included; {} when it cannot be seen."""
        return self._hosts.get(id_, {})

    def networks(self) -> tuple[NamedItem, ...]:
        aliases = {id_: (key,) for key, id_ in (*self._port_groups.items(), *self._opaque.items())}
        return self._items(_NETWORKS, lambda id_, kind: NamedItem(id_, plain(self._raw_name(id_)), kind, aliases.get(id_, ())))

    def storages(self) -> tuple[NamedItem, ...]:
        kinds = {id_: str(self._nodes[id_][1].get("summary.type", "")) for id_ in self._ids("Datastore")}
        return self._items({"Datastore"}, lambda id_, kind: NamedItem(id_, plain(self._raw_name(id_)), kinds[id_]))

    def hosts(self) -> tuple[NamedItem, ...]:
        return self._items({"HostSystem"}, lambda id_, kind: NamedItem(id_, plain(self._raw_name(id_)), kind))

    def host_facts(self) -> tuple[HostFacts, ...]:
        return tuple(HostFacts.of(item.id, item.name, self._nodes[item.id][1]) for item in self.hosts())

    def _items(self, kinds: Iterable[str], make: Callable[[str, str], NamedItem]) -> tuple[NamedItem, ...]:
        found = [make(id_, kind) for id_, (kind, _) in self._nodes.items() if kind in kinds]
        return tuple(sorted(found, key=lambda item: (item.name, item.id)))

    def _ids(self, kind: str) -> list[str]:
        return [id_ for id_, (of, _) in self._nodes.items() if of == kind]

    def _raw_name(self, id_: str) -> str:
        return str(self._nodes[id_][1].get("name", id_)) if id_ in self._nodes else id_

    def _upwards(self, id_: str) -> list[str]:
        """`id_` and its parents up to the root folder, which has no name in paths."""
        chain: list[str] = []
        while id_ != self._root and id_ in self._nodes and len(chain) < _DEPTH:
            chain.append(id_)
            id_ = self._nodes[id_][1].get("parent", "")
        return chain

    def _datacenter_path(self, id_: str) -> str:
        """dcPath of the /folder service: names from the root folder down to the datacenter."""
        chain = self._upwards(id_)
        at = next((n for n, node in enumerate(chain) if self._nodes[node][0] == "Datacenter"), None)
        return "/".join(self._raw_name(node) for node in reversed(chain[at:])) if at is not None else ""

    def _host_document(self, id_: str) -> dict[str, object]:
        cluster_id = self._nodes[id_][1].get("parent", "")
        cluster = self._nodes[cluster_id][1] if cluster_id in self._nodes else {}
        return {
            "id": id_,
            "name": plain(self._raw_name(id_)),
            "cluster": {
                "id": cluster_id,
                "name": plain(self._raw_name(cluster_id)),
                "dasEnabled": bool(cluster.get("configuration.dasConfig.enabled")),
                "dasVms": cluster.get("configuration.dasVmConfig") or [],
                "drsEnabled": bool(cluster.get("configuration.drsConfig.enabled")),
                "drsBehavior": str(cluster.get("configuration.drsConfig.defaultVmBehavior") or ""),
                "drsVms": cluster.get("configuration.drsVmConfig") or [],
            },
        }
