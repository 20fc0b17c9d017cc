"""Records seen by plan: its runs, the newest record of each of its VMs, its status. Shared by README and tables.

What it is: a pure join of the status branch's records. What it is not: layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.core.model import ObjectRef
from reconciler.core.record import ObjectStatus, Records, RunRecord, VmRecord


@dataclass(frozen=True, slots=True)
class PlanView:
    """One plan: its runs, newest first, and the newest record of each of its VMs, in the order of the runs."""

    ref: ObjectRef
    runs: tuple[RunRecord, ...] = ()
    vms: tuple[VmRecord, ...] = ()
    status: ObjectStatus | None = None

    @property
    def running(self) -> bool:
        return any(not run.completed for run in self.runs)


def plan_views(records: Records) -> list[PlanView]:
    """Every plan that the records know, running ones first, then those not started, then those that ended; by name within."""
    runs: dict[ObjectRef, list[RunRecord]] = {ref: [] for kind, ref in records.statuses if kind == "Plan"}
    for run in records.runs.values():
        runs.setdefault(run.plan, []).append(run)
    views = []
    for ref, some in runs.items():
        newest_first = tuple(sorted(some, key=lambda r: (r.started, r.run), reverse=True))
        views.append(PlanView(ref, newest_first, _newest_vms(records, newest_first), records.statuses.get(("Plan", ref))))
    return sorted(views, key=lambda v: (0 if v.running else 2 if v.runs else 1, v.ref))


def plan_view(records: Records, plan: ObjectRef) -> PlanView:
    return next((v for v in plan_views(records) if v.ref == plan), PlanView(plan))


def _newest_vms(records: Records, runs: Sequence[RunRecord]) -> tuple[VmRecord, ...]:
    chosen: dict[str, VmRecord] = {}
    for run in runs:
        for slug in run.vms:
            vm = records.vms.get((run.run, slug))
            if vm is not None:
                chosen.setdefault(vm.source.uuid if vm.source else vm.id or vm.wanted, vm)
    return tuple(chosen.values())
