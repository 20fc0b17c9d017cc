"""What the accounts at the sources lack for VMs that may begin, asked in bulk and remembered for a while.

What it is: the addition to a source's bulk read that core/rights.py judges. What it is not: a guard; a right that goes in mid-run shows in
the act that needs it. Where in the flow: observe, in the site's own read, so that a slow answer delays nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from reconciler.core.desired import Desired
from reconciler.core.inventory import Inventory, SourceVm
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Known, ObjectRef, Right
from reconciler.core.record import Records
from reconciler.ports import SourceDriver

GRANTED_S = 600.0  # how long a full answer is believed
LACKING_S = 30.0  # somebody is at it

Lacking = Mapping[Right, tuple[str, ...]]


@dataclass(slots=True)
class RightsMemory:
    """Of one provider; used by one read at a time. Losing it costs a question."""

    known: dict[str, tuple[datetime, Lacking]] = field(default_factory=dict)

    def due(self, vm: SourceVm, now: datetime) -> bool:
        if vm.id not in self.known:
            return True
        at, lacking = self.known[vm.id]
        return (now - at).total_seconds() >= (LACKING_S if lacking else GRANTED_S)


def read(driver: SourceDriver, provider: ObjectRef, desired: Desired, records: Records, memory: RightsMemory, now: datetime) -> Inventory:
    """A bulk read, with what lacks for each VM of a plan that no run has claimed."""
    inventory = driver.read_inventory()
    vms = candidates(provider, desired, records, inventory)
    if due := [vm for vm in vms if memory.due(vm, now)]:
        memory.known.update({id_: (now, lacking) for id_, lacking in driver.read_rights(due).items()})
    ids = {vm.id for vm in vms}
    memory.known = {id_: found for id_, found in memory.known.items() if id_ in ids}
    return replace(inventory, lacking={id_: lacking for id_, (_, lacking) in memory.known.items()})


def candidates(provider: ObjectRef, desired: Desired, records: Records, inventory: Inventory) -> list[SourceVm]:
    """VMs that a run may yet begin with: of plans that are not archived, and not claimed. Each once."""
    plans = [plan for plan in desired.plans.values() if plan.source == provider and not plan.archived]
    if not plans:
        return []
    index, site = SiteIndex(inventory), inventory.site.uuid
    found = {}
    for entry in (entry for plan in plans for entry in plan.vms):
        match index.vm(entry.ref):
            case Known(vm) if (site, vm.uuid) not in records.claims:
                found[vm.id] = vm
            case _:
                continue
    return list(found.values())
