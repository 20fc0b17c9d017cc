"""The life of a run: begin, watch its manifest, cancel, hold, finish. Pure; called by core/decide.py.

A run is the pair (Migration, Plan) once recorded; it never begins again, whatever happens to the files (design section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from reconciler.core import names, planchecks, strangers
from reconciler.core.actions import VmKey
from reconciler.core.desired import Desired, InventoryRef, MigrationSpec, PlanSpec
from reconciler.core.itinerary import Phase
from reconciler.core.ledger import Ledger
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Known, Milestone, ObjectRef, Result
from reconciler.core.moves import Hold
from reconciler.core.record import FrozenVm, RunRecord, VmRecord
from reconciler.core.target import TargetInventory
from reconciler.core.view import Observed, View

GONE_S = 300.0  # design section 3: a removed Migration counts as a cancel only after this long


def slug_of(plan: PlanSpec, ref: InventoryRef) -> str:
    """Stable for one entry of a plan, whether or not the VM can be found right now."""
    return names.vm_slug(ref.name or ref.id, f"{plan.ref}|{plan.source}|{ref.id or ref.name}")


def active_run(runs: Mapping[ObjectRef, RunRecord], plan: ObjectRef) -> RunRecord | None:
    return next((r for r in runs.values() if r.plan == plan and r.result is None), None)


def succeeded(vms: Mapping[VmKey, VmRecord], plan: ObjectRef) -> frozenset[str]:
    return frozenset(v.slug for v in vms.values() if v.plan == plan and v.result is Result.SUCCEEDED)


def begin(
    runs: dict[ObjectRef, RunRecord],
    vms: dict[VmKey, VmRecord],
    desired: Desired,
    observed: Observed,
    indexes: Mapping[ObjectRef, SiteIndex],
    origin: str,
    now: datetime,
) -> None:
    """Record each Migration that may start now. Oldest name first; Migrations of one plan queue."""
    unstarted = sorted(ref for ref in desired.migrations if ref not in runs)
    if not unstarted:
        return
    ledger = Ledger.over(runs, vms)
    taken: set[ObjectRef] = set()
    for ref in unstarted:
        migration = desired.migrations[ref]
        plan = desired.plans.get(migration.plan) if migration.plan else None
        if plan is None or plan.archived or plan.ref in taken or ledger.active(plan.ref) is not None:
            continue
        if planchecks.plan_findings(desired, observed, plan).blocked:
            continue
        taken.add(plan.ref)
        _record(runs, vms, desired, migration, plan, ledger.succeeded(plan.ref), origin, now)


def _record(
    runs: dict[ObjectRef, RunRecord],
    vms: dict[VmKey, VmRecord],
    desired: Desired,
    migration: MigrationSpec,
    plan: PlanSpec,
    done: frozenset[str],
    origin: str,
    now: datetime,
) -> None:
    slugs = {slug_of(plan, vm.ref): vm for vm in plan.vms}
    todo = tuple(s for s in slugs if s not in done)
    assert plan.source is not None and plan.destination is not None
    runs[migration.ref] = RunRecord(
        run=migration.ref,
        plan=plan.ref,
        mode=plan.mode,
        source=plan.source,
        destination=plan.destination,
        revision=desired.revision,
        origin=origin,
        started=now,
        vms=todo,
        network_map=plan.network_map,
        storage_map=plan.storage_map,
        plan_digest=planchecks.digest(desired, plan),
    )
    for slug in todo:
        ref = slugs[slug].ref
        vms[(migration.ref, slug)] = VmRecord(
            run=migration.ref,
            slug=slug,
            plan=plan.ref,
            wanted=str(ref),
            id=ref.id,
            name=ref.name,
            phase=Phase.PENDING.value,
            message="waits to be looked at",
        )


def cutover_of(run: RunRecord, record: VmRecord, desired: Desired) -> datetime | None:
    """What the Migration says now: vmCutover of this VM, else cutover. A file that is gone or broken says nothing."""
    migration = desired.migrations.get(run.run)
    if migration is None:
        return None
    return next((at for id_, at in migration.vm_cutover if id_ == record.id), migration.cutover_at)


# ---- the manifest -----------------------------------------------------------------------------------------------------------------------


def _present(run: RunRecord, desired: Desired) -> bool:
    """A manifest with errors is there: only a missing one counts. A Migration whose Plan is missing has an error for just that reason."""
    migration = run.run in desired.migrations or f"Migration/{run.run}" in desired.broken
    return migration and (run.plan in desired.plans or f"Plan/{run.plan}" in desired.broken)


def watch_manifest(
    run: RunRecord, desired: Desired, origin: str, descends: frozenset[ObjectRef], now: datetime, read_s: float
) -> RunRecord:
    """A removal counts only while all conditions of safety 10 hold: a day of conflict markers is no notice of one. `read_s`: since the repo
    was read the last time, or 0: nor is a weekend in which nobody looked."""
    if _present(run, desired):
        return replace(run, gone_since=None, removal_since=None, removal_s=0.0) if run.gone_since else run
    gone = run if run.gone_since else replace(run, gone_since=now)
    if not removal_counts(gone, desired, origin, descends):
        return replace(gone, removal_since=None, removal_s=0.0) if gone.removal_since else gone
    if gone.removal_since is None:
        return replace(gone, removal_since=now)
    return replace(gone, removal_s=min(GONE_S, round(gone.removal_s + read_s, 3)))


def counting(run: RunRecord) -> bool:
    """A removal that does not yet count as a cancel."""
    return run.result is None and run.removal_since is not None and run.removal_s < GONE_S


def removal_counts(run: RunRecord, desired: Desired, origin: str, descends: frozenset[ObjectRef]) -> bool:
    """Safety 10: only the Migration's own file, in a tree without errors, on a head that descends from where the run began."""
    return (
        run.gone_since is not None
        and run.run not in desired.migrations
        and run.plan in desired.plans
        and desired.complete
        and run.origin == origin
        and run.run in descends
    )


def cancelled(run: RunRecord, vms: Mapping[VmKey, VmRecord], desired: Desired, index: SiteIndex | None) -> frozenset[str]:
    """Slugs that `spec.cancel` names. A cancel cannot be withdrawn: a reference that fits several VMs of the run cancels none of them."""
    migration = desired.migrations.get(run.run)
    if migration is None:
        return frozenset()
    records = [vms[(run.run, slug)] for slug in run.vms]
    hits = (meant(ref, records, index) for ref in migration.cancel)
    return frozenset(found[0].slug for found in hits if len(found) == 1)


def meant(ref: InventoryRef, records: Sequence[VmRecord], index: SiteIndex | None) -> list[VmRecord]:
    """By id; by name; or by a path, which must be what the plan says or where the VM lies now. `index` None: nobody knows where."""
    if ref.id:
        return [record for record in records if record.id == ref.id]
    return [record for record in records if ref.name and ref.name in _names(record, index)]


def _names(record: VmRecord, index: SiteIndex | None) -> set[str]:
    source = record.source
    found = index.by_uuid(source.uuid) if index is not None and source is not None else None
    names = {record.wanted, record.name, record.name.rsplit("/", 1)[-1]}
    return names | ({source.name} if source else set()) | ({found.path} if found else set())


# ---- holding ----------------------------------------------------------------------------------------------------------------------------


def hold_of(
    run: RunRecord, record: VmRecord, view: View, desired: Desired, rewound: frozenset[str], indexes: Mapping[ObjectRef, SiteIndex]
) -> Hold | None:
    """Reasons to do nothing at all for this VM, whatever its table says."""
    if run.gone_since is not None and not record.unwinding:
        what = "Migration" if run.run not in desired.migrations else "Plan"
        return Hold(
            "ManifestGone",
            "NotFound",
            f"the {what} of this run is gone from the repo; nothing is done until it is back "
            "(a removed Migration cancels a VM before cutover after 300 s, if the tree has no errors)",
        )
    source = record.source
    assert source is not None
    if source.provider not in desired.providers:
        return Hold("ProviderChanged", "NotFound", f"Provider {source.provider} is gone from the repo; put it back to go on")
    index = indexes.get(source.provider)
    if index is not None and index.inventory.site.uuid != source.site_uuid:
        return Hold(
            "ProviderChanged",
            "Modified",
            f"Provider {source.provider} now leads to site {index.inventory.site.uuid}, but this run began at {source.site_uuid}; "
            "correct its url",
        )
    if _going(record) and isinstance(view.source, Known) and (told := strangers.snapshots(view.source.value, view.instance)):
        return Hold("VMClaimed", "NotUnique", told)
    if isinstance(view.target, Known):
        migration = desired.migrations.get(run.run)
        return _target_hold(record, view, rewound, migration.acknowledged if migration else ())
    return None


def _going(record: VmRecord) -> bool:
    return record.milestone.order < Milestone.HANDED_OVER.order and not record.unwinding


def _target_hold(record: VmRecord, view: View, rewound: frozenset[str], acknowledged: tuple[str, ...]) -> Hold | None:
    """Safety 7, for everything under our key, whichever run it belongs to: it may be adopted, and then written."""
    frozen = view.frozen
    if view.inventory.site.uuid != frozen.target_site_uuid:
        now_at = view.inventory.site.uuid
        text = f"Provider {frozen.destination} now leads to cluster {now_at}, but this run began at {frozen.target_site_uuid}"
        return Hold("ProviderChanged", "Modified", text)
    if _going(record) and (met := strangers.in_the_way(view.inventory, view.owner.source, frozen)):
        return Hold("VMClaimed", "NotUnique", strangers.text(met), tuple(map(str, met)))
    vm = view.our_target_vm
    lost = lost_commits(view.inventory, view.owner.source, frozen, rewound, acknowledged)
    mine = vm is not None and vm.migration == str(record.run) and vm.milestone and not vm.commit.startswith(acknowledged)
    if vm is not None and mine and Milestone(vm.milestone).order > record.milestone.order:
        said = f"VirtualMachine {vm.namespace}/{vm.name} says milestone {vm.milestone}, git says {record.milestone.value}"
        return Hold("StatusRewound", "Modified", f"{said}; {_REMEDY.format(vm.commit)}")
    return Hold("StatusRewound", "Modified", rewound_text(lost)) if lost else None


_REMEDY = 'was git restored from a backup? To go on from what git says, annotate the Migration reconciler.dev/acknowledge-rewind: "{}"'


def lost_commits(
    inventory: TargetInventory, source: str, frozen: FrozenVm, rewound: frozenset[str], acknowledged: tuple[str, ...]
) -> tuple[str, ...]:
    """Status commits that allowed what is ours of this VM on the target, and that the branch has lost. `source`: <site uuid>/<vm uuid>."""
    uuid = source.partition("/")[2]
    found = ((x, f"{uuid}/{d.uuid}") for d in frozen.disks if (x := inventory.volume(frozen.namespace, d.pvc)) is not None)
    commits = {x.commit for x, key in found if x.ours and x.key == key}
    vm = inventory.machine(frozen.namespace, frozen.name)
    if vm is not None and vm.ours and vm.source == source:
        commits.add(vm.commit)
    return tuple(sorted(c for c in commits if c in rewound and not c.startswith(acknowledged)))


def rewound_text(lost: tuple[str, ...]) -> str:
    said = f"the target was written at status commit {', '.join(c[:12] for c in lost)}, which the branch no longer has"
    return f"{said}; {_REMEDY.format(','.join(lost))}"


def finish(run: RunRecord, vms: Mapping[VmKey, VmRecord], now: datetime) -> RunRecord:
    """All VMs ended: any failed = Failed, else any succeeded = Succeeded, else Canceled; a run of nothing has succeeded."""
    results = [vms[(run.run, slug)].result for slug in run.vms]
    if run.result is not None or any(r is None for r in results):
        return run
    if Result.FAILED in results:
        result = Result.FAILED
    elif Result.SUCCEEDED in results or not results:
        result = Result.SUCCEEDED
    else:
        result = Result.CANCELED
    return replace(run, result=result, completed=now)
