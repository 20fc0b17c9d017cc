"""Which waiting VMs may begin now, and what the others wait for. Pure.

What it is: `controller_max_vm_inflight` in Forklift's meaning, counted within a pass too. For vSphere: per ESXi host, over all plans of
the same vCenter, the cost of a VM is the number of its disks not yet copied; a VM that alone is over the limit runs alone on its host.
What it is not: a limit on VMs that are held, ended, or past their copy: those occupy no slot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.core.actions import VmKey
from reconciler.core.model import ObjectRef


@dataclass(frozen=True, slots=True)
class Load:
    """A VM in flight or asking. `place`: (site uuid, host id), the unit that the limit counts for."""

    key: VmKey
    place: tuple[str, str]
    cost: int


def admit(running: Iterable[Load], waiting: Mapping[ObjectRef, Sequence[Load]], limit: int) -> tuple[tuple[VmKey, ...], dict[VmKey, str]]:
    """Admitted keys, and for each other waiting VM what it waits for.

    Order: plans take turns (fair between plans), inside a plan in plan order. A VM that does not fit holds back those behind it in its
    own plan only where they want the same place, so that a large VM is not overtaken for ever.
    """
    used: dict[tuple[str, str], int] = defaultdict(int)
    for load in running:
        used[load.place] += load.cost
    admitted: list[VmKey] = []
    refused: dict[VmKey, str] = {}
    queues = [list(q) for _, q in sorted(waiting.items())]
    blocked: set[tuple[str, str]] = set()
    for turn in range(max((len(q) for q in queues), default=0)):
        for queue in queues:
            if turn >= len(queue):
                continue
            load = queue[turn]
            free = used[load.place] == 0 or used[load.place] + load.cost <= limit
            if free and load.place not in blocked:
                used[load.place] += load.cost
                admitted.append(load.key)
            else:
                blocked.add(load.place)
                refused[load.key] = f"in-flight limit reached: {used[load.place]} of {limit} disks on {load.place[1] or 'this source'}"
    return tuple(admitted), refused
