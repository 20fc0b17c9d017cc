"""What a commit would do if it were merged: per plan and VM, what speaks against it, what would be made, and in which order.

What it is: the answer to a pull request, as data; made by the same rules that a run begins by (examine, planchecks, conditions, itinerary).
What it is not: layout (report/preview.py), a promise (the sites may change until then), or anything that acts. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.core import archive, conditions, planchecks, runs
from reconciler.core.desired import Desired, PlanSpec, Problem, Severity
from reconciler.core.examine import Examination, Ground, examine
from reconciler.core.findings import Finding, critical
from reconciler.core.inventory import SourceVm
from reconciler.core.itinerary import TABLES, Phase
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Milestone, ObjectRef, Power
from reconciler.core.record import Category, Condition, FrozenVm, ObjectStatus, Records
from reconciler.core.target import TargetNic
from reconciler.core.view import Observed

BLOCKING = (Category.CRITICAL, Category.ERROR)


@dataclass(frozen=True, slots=True)
class DiskPreview:
    """`label` and `storage` are the source's words. `path`: how it is read, with `path_reason`. Sizes in bytes."""

    label: str
    storage: str
    capacity_bytes: int
    pvc: str
    request_bytes: int
    storage_class: str
    volume_mode: str
    access_mode: str
    path: str
    path_reason: str


@dataclass(frozen=True, slots=True)
class NicPreview:
    """`target` is "pod network", or namespace/name of a NetworkAttachmentDefinition."""

    network: str
    mac: str
    target: str
    model: str


@dataclass(frozen=True, slots=True)
class VmPreview:
    """`wanted` is what the plan calls it. Without `target` it cannot be moved; the findings say why. `moved`: an earlier run did it."""

    wanted: str
    path: str = ""
    target: str = ""
    power: str = ""
    target_power: str = ""
    cpus: int = 0
    memory_bytes: int = 0
    firmware: str = ""
    disks: tuple[DiskPreview, ...] = ()
    nics: tuple[NicPreview, ...] = ()
    steps: tuple[str, ...] = ()  # phases, in order
    findings: tuple[Finding, ...] = ()
    moved: bool = False

    @property
    def blocked(self) -> bool:
        return any(f.category in BLOCKING for f in self.findings)


@dataclass(frozen=True, slots=True)
class PlanPreview:
    """`starts`: Migrations that would begin a run once this is merged. `running`: the run that is under way."""

    ref: ObjectRef
    place: str
    description: str
    mode: str
    source: str
    destination: str
    namespace: str
    findings: tuple[Finding, ...]
    vms: tuple[VmPreview, ...]
    starts: tuple[str, ...] = ()
    running: str = ""

    @property
    def ready(self) -> bool:
        return not any(f.category in BLOCKING for f in self.findings) and not any(v.blocked for v in self.vms)


@dataclass(frozen=True, slots=True)
class Preview:
    """`others`: providers, maps and Migrations that have something to say."""

    revision: str
    problems: tuple[Problem, ...]
    others: tuple[ObjectStatus, ...]
    plans: tuple[PlanPreview, ...]

    @property
    def blocked(self) -> bool:
        errors = any(p.severity is Severity.ERROR for p in self.problems)
        bad = any(c.category in BLOCKING for s in self.others for c in s.conditions)
        return errors or bad or not all(p.ready for p in self.plans)


def preview(desired: Desired, observed: Observed, records: Records, indexes: Mapping[ObjectRef, SiteIndex], now: datetime) -> Preview:
    """Archived plans are left out; of those whose run is under way only what a run to come would meet."""
    plans = tuple(
        _plan(desired.plans[ref], desired, observed, records, indexes) for ref in sorted(desired.plans) if not desired.plans[ref].archived
    )
    statuses = conditions.summarize(desired, observed, records, indexes, now)
    others = tuple(s for (kind, ref), s in sorted(statuses.items(), key=lambda i: i[0]) if _worth_saying(kind, ref, s, desired, records))
    return Preview(desired.revision, desired.problems, others, plans)


def _worth_saying(kind: str, ref: ObjectRef, status: ObjectStatus, desired: Desired, records: Records) -> bool:
    """Plans have their own part; what is broken is told by its problem; what a run does is not this commit's business."""
    if kind == "Plan" or f"{kind}/{ref}" in desired.broken:
        return False
    if kind == "Migration" and (ref in records.runs or _plan_archived(ref, desired)):
        return False
    return any(c.category in (*BLOCKING, Category.WARN) for c in status.conditions)


def _plan_archived(migration: ObjectRef, desired: Desired) -> bool:
    spec = desired.migrations.get(migration)
    plan = desired.plans.get(spec.plan) if spec is not None and spec.plan is not None else None
    return plan is not None and plan.archived


def _plan(
    plan: PlanSpec, desired: Desired, observed: Observed, records: Records, indexes: Mapping[ObjectRef, SiteIndex]
) -> PlanPreview:  # fmt: skip
    ground = planchecks.ground(desired, observed, indexes, plan)
    active = runs.active_run(records.runs, plan.ref)
    moved = runs.succeeded(records.vms, plan.ref)
    acknowledged = tuple(c for m in desired.migrations.values() if m.plan == plan.ref for c in m.acknowledged)
    vms: list[VmPreview] = []
    names: dict[str, str] = {}
    for entry in plan.vms:
        if runs.slug_of(plan, entry.ref) in moved:
            vms.append(VmPreview(str(entry.ref), moved=True))
        elif ground is None:
            vms.append(VmPreview(str(entry.ref)))
        else:
            result = examine(ground, entry, names)
            if result.frozen is not None and result.source is not None:
                names[result.frozen.name] = result.source.uuid
            vms.append(_vm(result, ground, records, acknowledged))
    waiting = sorted(m.ref for m in desired.migrations.values() if m.plan == plan.ref and m.ref not in records.runs)
    return PlanPreview(
        ref=plan.ref,
        place=str(plan.place),
        description=plan.description,
        mode=plan.mode.value,
        source=str(plan.source or ""),
        destination=str(plan.destination or ""),
        namespace=plan.target_namespace,
        findings=(*planchecks.plan_findings(desired, observed, plan).findings, *archive.standing(plan, desired, observed, records)),
        vms=tuple(vms),
        starts=tuple(str(ref) for ref in waiting),
        running=str(active.run) if active is not None else "",
    )


def _vm(result: Examination, ground: Ground, records: Records, acknowledged: tuple[str, ...]) -> VmPreview:
    source, frozen = result.source, result.frozen
    if source is None:
        return VmPreview(result.wanted, findings=result.findings)
    findings = (*result.findings, *_claimed(source, ground, records), *_rewound(source, frozen, ground, acknowledged))
    if frozen is None:
        return VmPreview(result.wanted, source.path, power=source.power.value, findings=findings)
    return VmPreview(
        wanted=result.wanted,
        path=source.path,
        target=f"{frozen.namespace}/{frozen.name}",
        power=source.power.value,
        target_power=frozen.want_power.value,
        cpus=source.cpus,
        memory_bytes=source.memory_bytes,
        firmware=source.firmware,
        disks=tuple(_disks(source, frozen)),
        nics=tuple(_nics(source, frozen.vm.nics)),
        steps=tuple(p.value for p in _steps(source, frozen, ground)),
        findings=findings,
    )


def _claimed(source: SourceVm, ground: Ground, records: Records) -> tuple[Finding, ...]:
    """Safety 6, as it would be met when the run begins. A claim of this plan's own run is no obstacle."""
    claim = records.claims.get((ground.index.inventory.site.uuid, source.uuid))
    if claim is None or claim.released is not None:
        return ()
    run = records.runs.get(claim.run)
    if run is not None and run.plan == ground.plan.ref and run.result is None:
        return ()
    how = "was migrated by" if claim.forever else "belongs to"
    text = f"{source.name} {how} run {claim.run}; a source VM is migrated once and by one run at a time"
    return (critical("VMClaimed", "NotUnique", text, "remove it from this plan, or end that run"),)


def _rewound(source: SourceVm, frozen: FrozenVm | None, ground: Ground, acknowledged: tuple[str, ...]) -> tuple[Finding, ...]:
    """Safety 7: what the run would be held by, once it has claimed the VM. Without `frozen` something else speaks against it already."""
    if frozen is None:
        return ()
    key = f"{ground.index.inventory.site.uuid}/{source.uuid}"
    lost = runs.lost_commits(ground.target, key, frozen, ground.rewound, acknowledged)
    return (critical("StatusRewound", "Modified", runs.rewound_text(lost)),) if lost else ()


def _disks(source: SourceVm, frozen: FrozenVm) -> Iterable[DiskPreview]:
    by_uuid = {d.uuid: d for d in source.disks}
    for disk in frozen.disks:
        yield DiskPreview(
            label=disk.label,
            storage=by_uuid[disk.uuid].storage_name,
            capacity_bytes=disk.capacity_bytes,
            pvc=disk.pvc,
            request_bytes=disk.request_bytes,
            storage_class=disk.storage_class,
            volume_mode=disk.volume_mode.value,
            access_mode=disk.access_mode,
            path=disk.path,
            path_reason=disk.path_reason,
        )


def _nics(source: SourceVm, nics: tuple[TargetNic, ...]) -> Iterable[NicPreview]:
    """By MAC: a NIC that the map ignores has none on the target."""
    kept = {n.mac: n for n in nics}
    for nic in source.nics:
        target = kept.get(nic.mac)
        where = "not connected" if target is None else "pod network" if target.pod_network else target.network
        yield NicPreview(nic.network_name, nic.mac, where, target.model if target else "")


def _steps(source: SourceVm, frozen: FrozenVm, ground: Ground) -> Iterable[Phase]:
    """The tables' rows in order, without those that would be found done."""
    needless = {Phase.COMPLETED}
    if frozen.namespace in ground.target.namespaces:
        needless.add(Phase.RESERVE_NAMESPACE)
    if source.power is Power.OFF:
        needless.add(Phase.POWER_OFF)
    if frozen.want_power is Power.OFF:
        needless.add(Phase.START_TARGET)
    rows = [row.phase for milestone in Milestone for row in TABLES.get((ground.plan.mode, milestone), ())]
    return dict.fromkeys(p for p in rows if p not in needless)


def conditions_of(status: ObjectStatus) -> tuple[Condition, ...]:
    """What is worth a line."""
    return tuple(c for c in status.conditions if c.category in (*BLOCKING, Category.WARN))
