"""Records looked at by plan and by run, built once per pass: with 1,000 plans a search per plan would be a million steps.

What it is: an index over runs and VM records as they were when it was built. Pure. What it is not: kept between passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.actions import VmKey
from reconciler.core.model import ObjectRef, Result
from reconciler.core.record import RunRecord, VmRecord


@dataclass(frozen=True, slots=True)
class Ledger:
    """`of_plan`: runs by plan, oldest first. `of_run`: VM records by run. `done`: slugs that succeeded, by plan."""

    of_plan: Mapping[ObjectRef, tuple[RunRecord, ...]]
    of_run: Mapping[ObjectRef, tuple[VmRecord, ...]]
    done: Mapping[ObjectRef, frozenset[str]]

    @classmethod
    def over(cls, runs: Mapping[ObjectRef, RunRecord], vms: Mapping[VmKey, VmRecord]) -> Ledger:
        by_plan: dict[ObjectRef, list[RunRecord]] = {}
        for run in runs.values():
            by_plan.setdefault(run.plan, []).append(run)
        by_run: dict[ObjectRef, list[VmRecord]] = {}
        done: dict[ObjectRef, set[str]] = {}
        for vm in vms.values():
            by_run.setdefault(vm.run, []).append(vm)
            if vm.result is Result.SUCCEEDED:
                done.setdefault(vm.plan, set()).add(vm.slug)
        return cls(
            {plan: tuple(sorted(r, key=lambda run: run.started)) for plan, r in by_plan.items()},
            {run: tuple(v) for run, v in by_run.items()},
            {plan: frozenset(slugs) for plan, slugs in done.items()},
        )

    def active(self, plan: ObjectRef) -> RunRecord | None:
        return next((r for r in self.of_plan.get(plan, ()) if r.result is None), None)

    def succeeded(self, plan: ObjectRef) -> frozenset[str]:
        return self.done.get(plan, frozenset())
