"""Finding things of a source site by Forklift's Ref: id wins over name, a name may be a path, a name may be ambiguous.

What it is: an index over one Inventory, built once per inventory. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Generic, TypeVar

from reconciler.core.desired import InventoryRef
from reconciler.core.inventory import Inventory, NamedItem, SourceVm
from reconciler.core.model import Absent, Known

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ambiguous(Generic[T]):
    candidates: tuple[T, ...]


class SiteIndex:
    """Look-ups in one Inventory. Not frozen only because it is built in steps; it never changes afterwards."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self._by_id = {vm.id: vm for vm in inventory.vms}
        self._by_uuid = {vm.uuid: vm for vm in inventory.vms}
        by_name: dict[str, list[SourceVm]] = defaultdict(list)
        for vm in inventory.vms:
            by_name[vm.name].append(vm)
            by_name[vm.path].append(vm)
        self._by_name = dict(by_name)

    def by_uuid(self, uuid: str) -> SourceVm | None:
        return self._by_uuid.get(uuid)

    def vm(self, ref: InventoryRef) -> Known[SourceVm] | Absent | Ambiguous[SourceVm]:
        if ref.id:
            found = self._by_id.get(ref.id)
            return Known(found) if found else Absent()
        return _one(tuple(self._by_name.get(ref.name, ())))

    def network(self, ref: InventoryRef) -> Known[NamedItem] | Absent | Ambiguous[NamedItem]:
        return _item(self.inventory.networks, ref)

    def storage(self, ref: InventoryRef) -> Known[NamedItem] | Absent | Ambiguous[NamedItem]:
        return _item(self.inventory.storages, ref)


def _item(items: tuple[NamedItem, ...], ref: InventoryRef) -> Known[NamedItem] | Absent | Ambiguous[NamedItem]:
    if ref.id:
        return _one(tuple(i for i in items if ref.id == i.id or ref.id in i.aliases))
    return _one(tuple(i for i in items if i.name == ref.name))


def _one(found: tuple[T, ...]) -> Known[T] | Absent | Ambiguous[T]:
    if not found:
        return Absent()
    return Known(found[0]) if len(found) == 1 else Ambiguous(found)
