"""SearchIndex of the simulated vCenter: by uuid, by inventory path.

Source: vSphere Web Services API 8.0.2, SearchIndex.FindByUuid, FindByInventoryPath ("DC1/vm/folder/name").
"""

from __future__ import annotations

from typing import Any

from reconciler.lab.vcenter.inventory import ROOT, Inventory
from reconciler.lab.vcenter.machine_view import vm_ref
from reconciler.lab.vcenter.properties import Reader
from reconciler.lab.world import World


def find_by_uuid(world: World, args: dict[str, Any]) -> Any:
    """The first VM with that BIOS uuid, or instance uuid where asked; None for hosts, which the lab does not index."""
    if not args["vmSearch"]:
        return None
    wanted, instance = args["uuid"].lower(), bool(args.get("instanceUuid"))
    datacenter = args.get("datacenter")
    for vm in world.vms.values():
        if datacenter is not None and datacenter._moId != f"datacenter-{vm.datacenter.key}":
            continue
        if (vm.instance_uuid if instance else vm.uuid) == wanted:
            return vm_ref(vm)
    return None


def find_by_path(inventory: Inventory, reader: Reader, path: str) -> Any:
    """None when a step of the path does not exist."""
    at = inventory.find(ROOT)
    for name in [n for n in path.split("/") if n]:
        if at is None:
            return None
        children = reader.value(at, "childEntity") if "childEntity" in at.table else _folders(at, reader)
        nodes = (inventory.find(ref._moId) for ref in children or [])
        at = next((n for n in nodes if n is not None and reader.value(n, "name") == name), None)
    return at.ref if at is not None else None


def _folders(node: Any, reader: Reader) -> list[Any]:
    names = [p for p in ("vmFolder", "hostFolder", "datastoreFolder", "networkFolder", "host") if p in node.table]
    found: list[Any] = []
    for name in names:
        value = reader.value(node, name)
        found += value if isinstance(value, list) else [value]
    return found
