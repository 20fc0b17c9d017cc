"""What is in flight, counted from the lab's side at every moment: from the cluster's and the vCenter's own objects, never from our records.

A VM is in flight on its ESXi host with each disk that has a PVC without a mark, and with all its disks while an importer Job of it has not
ended. A warm one also while it has a snapshot, and while it is off with its target still Halted.
A moment is each step of the cluster's history, and the time after each call that leaves our process and after each step of the lab.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reconciler.lab.cluster.kinds import by_name
from reconciler.lab.cluster.store import Change
from reconciler.lab.machines import Power, Vm
from tests.integration.simlab import SimLab, Wire, tapped

KINDS = tuple(by_name(k) for k in ("PersistentVolumeClaim", "Job", "VirtualMachine"))
ENDED = ("Complete", "Failed")


@dataclass
class Seen:
    """One source VM, as the cluster shows it."""

    unmarked: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    halted: bool = False


class Gauge:
    """most: the highest count ever on each host. begun: VMs in the order in which their first PVC was made. odd: what must not be."""

    def __init__(self, lab: SimLab, *, limit: int, warm: bool = False) -> None:
        self.lab, self.limit, self.warm = lab, limit, warm
        self.most: Counter[str] = Counter()
        self.begun: dict[str, tuple[str, str]] = {}  # name -> (plan, host)
        self.off: list[str] = []  # names of VMs, in the order in which they went off
        self.odd: list[str] = []
        self.looks = 0
        self._rv = dict.fromkeys((k.resource for k in KINDS), lab.cluster.store.rv)
        self._seen: dict[str, Seen] = defaultdict(Seen)
        self._vms = {v.instance_uuid: v for v in lab.world.vms.values()}
        self._lock = threading.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        step = self.lab.clock.then

        def then() -> None:
            step()
            self.look()

        self.lab.clock.then = then
        with tapped(_Looking(self.look)):
            yield
        self.lab.clock.then = step

    def look(self) -> None:
        with self._lock:
            for change in self._news():
                self._learn(change)
                self._count(f"at resource version {change.rv}")
            self._count("after a call, or a step of the lab")

    def _news(self) -> list[Change]:
        store = self.lab.cluster.store
        with store.lock:
            news = [c for k in KINDS for c in store.since(k, self._rv[k.resource])]
            self._rv = dict.fromkeys(self._rv, store.rv)
        return sorted(news, key=lambda c: c.rv)

    def _learn(self, change: Change) -> None:
        obj = change.entry.obj
        meta = obj["metadata"]
        notes = meta.get("annotations") or {}
        if "reconciler.dev/source" not in notes:
            return
        uuid, name, gone = notes["reconciler.dev/source"].rpartition("/")[2], meta["name"], change.type == "DELETED"
        seen = self._seen[uuid]
        match obj["kind"]:
            case "PersistentVolumeClaim":
                self.begun.setdefault(self._vms[uuid].name, (notes["reconciler.dev/plan"], self._vms[uuid].host.name))
                (seen.unmarked.discard if gone or "reconciler.dev/mark" in notes else seen.unmarked.add)(name)
            case "Job":
                (seen.jobs.discard if gone or _ended(obj) else seen.jobs.add)(name)
            case "VirtualMachine":
                seen.halted = not gone and obj["spec"].get("runStrategy") == "Halted"

    def _count(self, when: str) -> None:
        self.looks += 1
        now: Counter[str] = Counter()
        for uuid, seen in self._seen.items():
            vm = self._vms[uuid]
            if cost := self._cost(vm, seen):
                now[vm.host.name] += cost
            if len(vm.snapshots) > 1:
                self.odd.append(f"{vm.name} has {len(vm.snapshots)} snapshots {when}")
            if vm.power is Power.OFF and seen.halted and vm.name not in self.off:
                self.off.append(vm.name)
        self.odd += [f"{n} disks in flight on {host}, with a limit of {self.limit}, {when}" for host, n in now.items() if n > self.limit]
        self.most |= now

    def _cost(self, vm: Vm, seen: Seen) -> int:
        whole = bool(seen.jobs) or (self.warm and bool(vm.snapshots or seen.unmarked or (vm.power is Power.OFF and seen.halted)))
        return len(vm.disks) if whole else len(seen.unmarked)


class _Looking(Wire):
    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look

    def call(self, label: str, effect: bool, work: Callable[[], Any]) -> Any:
        answer = super().call(label, effect, work)
        if effect:
            self._look()
        return answer


def _ended(job: dict[str, Any]) -> bool:
    return any(c["type"] in ENDED and c["status"] == "True" for c in job.get("status", {}).get("conditions") or ())


def widest(turns: Sequence[str]) -> int:
    """How unfair an order of turns is: the most turns that one plan had between two of another, or before the first of another.

    In perfect turns it is 1. What one has when another has none left is not counted.
    """
    left = Counter(turns)
    since: dict[str, Counter[str]] = {plan: Counter() for plan in left}
    worst = 0
    for plan in turns:
        left[plan] -= 1
        since[plan].clear()
        for other, counts in since.items():
            if other != plan and left[other]:
                counts[plan] += 1
                worst = max(worst, counts[plan])
    return worst
