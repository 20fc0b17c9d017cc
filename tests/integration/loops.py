"""Passes of a SimLab as the real loop makes them: through errors of git and lost races, until something holds.

What it is: what the fault, cancel and input tests share. What it is not: the loop itself (engine/loop.py); it keeps none of its pace.
"""

from __future__ import annotations

from collections.abc import Callable

from reconciler.core.model import ObjectRef
from reconciler.core.record import Category, Condition, VmRecord
from reconciler.errors import LeaseLost, ReconcilerError, RetryableError, Superseded
from reconciler.lab.machines import Happening, Vm
from tests.integration.simlab import SimLab

NS = "openshift-mtv"
TTL_S = 600.0  # nobody else asks for the lease here, so few renewals


def go_on(lab: SimLab, until: Callable[[], bool], limit: int = 100, seconds: float = 0.5) -> list[ReconcilerError]:
    """Pass after pass until `until` holds; what the loop survives is survived here too, and handed back."""
    engine = lab.engine or lab.start()
    met: list[ReconcilerError] = []
    for _ in range(limit):
        try:
            lab.reports.append(engine.one_pass())
        except (RetryableError, Superseded, LeaseLost) as err:
            met.append(err)
        if lab.reports and until():
            return met
        lab.clock.sleep(seconds)
    raise AssertionError(f"not reached in {limit} passes: {tale(lab)}; met: {[str(e) for e in met[-3:]]}")


def tale(lab: SimLab) -> str:
    return "; ".join(f"{v.wanted} {v.phase}: {v.message} {[c.type for c in v.conditions]}" for v in lab.vms())


def passes(lab: SimLab, count: int, seconds: float = 0.5) -> list[ReconcilerError]:
    seen = []

    def enough() -> bool:
        seen.append(1)
        return len(seen) >= count

    return go_on(lab, enough, count, seconds)


def machine(lab: SimLab, name: str) -> Vm:
    return next(v for v in lab.world.vms.values() if v.name == name)


def happened(lab: SimLab, name: str) -> list[Happening]:
    key = machine(lab, name).key
    return [e.kind for e in lab.world.history if e.vm == key]


def record_of(lab: SimLab, name: str, run: str = "run-1") -> VmRecord:
    """From the status branch, as anybody reads it."""
    return next(v for v in lab.records().vms.values() if v.run.name == run and (v.wanted == name or v.name == name))


def status_of(lab: SimLab, kind: str, name: str) -> tuple[Condition, ...]:
    return lab.records().statuses[(kind, ObjectRef(NS, name))].conditions


def condition(found: tuple[Condition, ...], kind: str) -> Condition:
    return next(c for c in found if c.type == kind)


def critical(found: tuple[Condition, ...]) -> list[str]:
    return [c.type for c in found if c.category is Category.CRITICAL]


def told(found: Condition) -> str:
    return f"{found.message} {found.suggestion}"


def succeeded(lab: SimLab, name: str, run: str = "run-1") -> bool:
    return any(v.run.name == run and v.name == name and v.result is not None and v.result.value == "Succeeded" for v in lab.vms())


def assert_equal_bytes(lab: SimLab, name: str, run: str) -> None:
    """As SimLab's, for a VM that several runs know."""
    assert_bytes_of(lab, record_of(lab, name, run))


def assert_bytes_of(lab: SimLab, record: VmRecord) -> None:
    vm = machine(lab, record.name)
    assert record.frozen is not None
    for disk in record.frozen.disks:
        want = lab.world.bytes_at_power_off(vm, next(d for d in vm.disks if d.uuid == disk.uuid)).read_bytes()
        assert lab.cluster.volume_path(record.frozen.namespace, disk.pvc).read_bytes()[: len(want)] == want, f"{disk.label} differs"
