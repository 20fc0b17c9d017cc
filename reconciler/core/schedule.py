"""Which waiting VMs may begin now, and what the others wait for. Pure.

What it is: `controller_max_vm_inflight` in Forklift's meaning, counted within a pass too. For vSphere: per ESXi host, over all plans of
the same vCenter, the cost of a VM is the number of its disks not yet copied; a VM that alone is over the limit runs alone on its host.
What it is not: a limit on VMs that are held, ended, or past their copy: those occupy no slot.

Fair between plans: a free slot goes to the plan that has the fewest disks in flight on that host; among equals to the one that was served
least recently, and then least often, so that neither a plan's size nor its name gives it more. Inside a plan the order is the caller's.
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
Queue = tuple[ObjectRef, Place]  # of one plan on one host; hosts have nothing to do with each other
Past = tuple[datetime, int]  # when a VM of a queue last got a slot, and how often one ever did
Turn = tuple[bool, int, Past, Queue]
NEVER, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Load:
    """A VM in flight or asking. `place`: (site uuid, host id), the unit that the limit counts for. `urgent` ones go before all others."""

    key: VmKey
    plan: ObjectRef
    place: Place
    cost: int
    urgent: bool = False


def admit(
    running: Iterable[Load], waiting: Iterable[Load], limit: int, past: Mapping[Queue, Past]
) -> tuple[tuple[VmKey, ...], dict[VmKey, str]]:
    """Admitted keys, and for each other waiting VM what it waits for.

    A VM that does not fit holds back those behind it only where they want the same place, so that a large VM is not overtaken for ever.
    """
    served = defaultdict(lambda: (NEVER, 0), past)
    used: dict[Place, int] = defaultdict(int)
    shares: dict[Queue, int] = defaultdict(int)
    for load in running:
        used[load.place] += load.cost
        shares[(load.plan, load.place)] += load.cost
    queues: dict[Queue, deque[Load]] = defaultdict(deque)
    for load in waiting:
        queues[(load.plan, load.place)].append(load)

    def turn(queue: Queue) -> Turn:
        return (not queues[queue][0].urgent, shares[queue], served[queue], queue)

    turns = [turn(queue) for queue in queues]
    heapify(turns)
    admitted: list[VmKey] = []
    refused: dict[VmKey, str] = {}
    blocked: set[Place] = set()
    while turns:
        queue = heappop(turns)[-1]
        load, place = queues[queue].popleft(), queue[1]
        free = used[place] == 0 or used[place] + load.cost <= limit
        if free and place not in blocked:
            used[place] += load.cost
            shares[queue] += load.cost
            served[queue] = (LATEST, served[queue][1] + 1)
            admitted.append(load.key)
        else:
            blocked.add(place)
            refused[load.key] = f"in-flight limit reached: {used[place]} of {limit} disks on {place[1] or 'this source'}"
        if queues[queue]:
            heappush(turns, turn(queue))
    return tuple(admitted), refused
