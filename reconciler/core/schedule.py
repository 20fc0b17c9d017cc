"""Which waiting VMs may begin now, and what the others wait for. Pure.

What it is: `controller_max_vm_inflight` in Forklift's meaning, counted within a pass too. For vSphere: per ESXi host, over all plans of
the same vCenter, the cost of a VM is the number of its disks not yet copied; a VM that alone is over the limit runs alone on its host.
What it is not: a limit on VMs that are held, ended, or past their copy: those occupy no slot.

Fair between plans: a free slot goes to the plan that has the fewest disks in flight on that host, and among equals to the one that was
served least recently, so that neither a plan's size nor its name lets it wait for ever. Inside a plan the order is the caller's.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush

from reconciler.core.actions import VmKey
from reconciler.core.model import ObjectRef

Place = tuple[str, str]
Turn = tuple[bool, int, datetime, ObjectRef]
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Load:
    """A VM in flight or asking. `place`: (site uuid, host id), the unit that the limit counts for. `urgent` ones go before all others."""

    key: VmKey
    plan: ObjectRef
    place: Place
    cost: int
    urgent: bool = False


def admit(
    running: Iterable[Load], waiting: Iterable[Load], limit: int, served: Mapping[ObjectRef, datetime]
) -> tuple[tuple[VmKey, ...], dict[VmKey, str]]:
    """Admitted keys, and for each other waiting VM what it waits for. `served`: when a VM of the plan last got a slot.

    A VM that does not fit holds back those behind it only where they want the same place, so that a large VM is not overtaken for ever.
    """
    used: dict[Place, int] = defaultdict(int)
    shares: dict[tuple[ObjectRef, Place], int] = defaultdict(int)
    for load in running:
        used[load.place] += load.cost
        shares[(load.plan, load.place)] += load.cost
    queues: dict[ObjectRef, deque[Load]] = defaultdict(deque)
    for load in waiting:
        queues[load.plan].append(load)

    def turn(plan: ObjectRef) -> Turn:
        head = queues[plan][0]
        return (not head.urgent, shares[(plan, head.place)], served.get(plan, NEVER), plan)

    turns = [turn(plan) for plan in queues]
    heapify(turns)
    admitted: list[VmKey] = []
    refused: dict[VmKey, str] = {}
    blocked: set[Place] = set()
    while turns:
        plan = heappop(turns)[-1]
        load = queues[plan].popleft()
        free = used[load.place] == 0 or used[load.place] + load.cost <= limit
        if free and load.place not in blocked:
            used[load.place] += load.cost
            shares[(plan, load.place)] += load.cost
            admitted.append(load.key)
        else:
            blocked.add(load.place)
            refused[load.key] = f"in-flight limit reached: {used[load.place]} of {limit} disks on {load.place[1] or 'this source'}"
        if queues[plan]:
            heappush(turns, turn(plan))
    return tuple(admitted), refused
