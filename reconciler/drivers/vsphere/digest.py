"""Property values as the SDK shows them -> small plain values that can be kept for ten thousand VMs.

What it is: one reader per property path whose value is a structure; run on each page as it arrives. What it is not: a join between
properties or objects (machine.py, workload.py, places.py). Behind this line nothing holds an SDK object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.inventory import SourceSnapshot
from reconciler.drivers.vsphere.hardware import read_devices
from reconciler.drivers.vsphere.notes import Moment, Note
from reconciler.drivers.vsphere.sdk import kind, moid

Properties = dict[str, Any]
Document = dict[str, object]
_EXTRA = frozenset({"ctkenabled", "numa.nodeaffinity", "disk.enableuuid"})


@dataclass(frozen=True, slots=True)
class Snapshots:
    """`current` is a reference in document form. `moments`: of ours, by id, the moment before each was made."""

    all: tuple[SourceSnapshot, ...]
    current: Document
    moments: Mapping[str, Moment | None]


def digest(path: str, value: Any) -> Any:
    reader = _READERS.get(path)
    return reader(value) if reader is not None else value


def plain(name: str) -> str:
    """An inventory name as a person wrote it: vSphere stores "/", "\\" and "%" in names as %2f, %5c and %25."""
    return re.sub(r"%(2f|5c|25)", lambda m: chr(int(m[1], 16)), name, flags=re.IGNORECASE)


def _reference(reference: Any) -> Document:
    return {"kind": kind(reference), "id": moid(reference)}


def _extra_config(options: Sequence[Any]) -> dict[str, str]:
    """Only what we read, keys in lower case: a VM has dozens of these, some of them long."""
    pairs = ((option.key.lower(), option.value) for option in options)
    return {key: str(value) for key, value in pairs if key in _EXTRA or key.endswith(".ctkenabled")}


def _snapshots(info: Any) -> Snapshots:
    current = info.currentSnapshot
    noted = [(moid(tree.snapshot), plain(tree.name), Note.parse(tree.description or "")) for tree in _flatten(info.rootSnapshotList)]
    return Snapshots(
        tuple(SourceSnapshot(id=id_, name=name, key=note.key if note else None) for id_, name, note in noted),
        _reference(current) if current is not None else {"kind": "", "id": ""},
        {id_: note.moment for id_, _, note in noted if note},
    )


def _flatten(trees: Sequence[Any]) -> Iterator[Any]:
    for tree in trees:
        yield tree
        yield from _flatten(tree.childSnapshotList)


def _guest_networks(cards: Sequence[Any]) -> list[Document]:
    """One entry per address."""
    return [
        {
            "device": str(number),
            "deviceConfigId": card.deviceConfigId,
            "mac": (card.macAddress or "").lower(),
            "ip": address.ipAddress,
            "origin": address.origin or "",
            "prefix": address.prefixLength,
            "dns": list(card.dnsConfig.ipAddress) if card.dnsConfig is not None else [],
            "network": card.network or "",
        }
        for number, card in enumerate(cards)
        for address in (card.ipConfig.ipAddress if card.ipConfig is not None else ())
    ]


def _guest_stacks(stacks: Sequence[Any]) -> list[Document]:
    return [
        {
            "device": route.gateway.device or "",
            "gateway": route.gateway.ipAddress or "",
            "network": route.network,
            "prefix": route.prefixLength,
            "dns": list(stack.dnsConfig.ipAddress) if stack.dnsConfig is not None else [],
        }
        for stack in stacks
        if stack.ipRouteConfig is not None
        for route in stack.ipRouteConfig.ipRoute
    ]


def _guest_disks(disks: Sequence[Any]) -> list[Document]:
    return [_guest_disk(disk) for disk in disks]


def _guest_disk(disk: Any) -> Document:
    """Zero values of all but the key are left out, so a file system that reports 0 bytes free is one that does not tell."""
    mappings = disk.mappings or ()
    told = {"diskPath": disk.diskPath, "capacity": disk.capacity, "freeSpace": disk.freeSpace, "filesystemType": disk.filesystemType}
    return {"key": mappings[0].key if mappings else 0, **{name: value for name, value in told.items() if value}}


def _vm_references(configs: Sequence[Any]) -> list[Document]:
    return [_reference(config.key) for config in configs if config.key is not None]


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "availableField": lambda fields: [{"key": field.key, "name": field.name} for field in fields],
    "config.cpuAffinity.affinitySet": list,
    "config.extraConfig": _extra_config,
    "config.ftInfo": lambda info: info is not None,
    "config.hardware.device": read_devices,
    "configuration.dasVmConfig": _vm_references,
    "configuration.drsVmConfig": _vm_references,
    "customValue": lambda values: [{"key": value.key, "value": str(getattr(value, "value", ""))} for value in values],
    "guest.disk": _guest_disks,
    "guest.ipStack": _guest_stacks,
    "guest.net": _guest_networks,
    "network": lambda networks: [_reference(network) for network in networks],
    "parent": lambda parent: moid(parent) if parent is not None else "",
    "runtime.host": lambda host: moid(host) if host is not None else "",
    "snapshot": lambda info: _snapshots(info) if info is not None else None,
    "summary": lambda summary: summary.opaqueNetworkId,  # asked of opaque networks only
}
