"""Closing a plan: what of its ended runs is still on the targets, what must go, and when the archive may be written.

What it is: pure, and level-triggered like everything here: while a Plan says `archived: true` and is not in the archive, each pass looks
for the first thing that is still there. What it is not: the files of the archive (engine/publish.py), or a way back: there is none.
Where it stands: engine/loop asks `advance` after core/decide, core/conditions asks `standing` for what the Plan's status says.
A finished VM and its disks are never touched, nor anything that is in use or does not carry our key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.core import runs, story
from reconciler.core.actions import Action, Decision, DropBinder, DropCopy, DropTargetVm, DropVolumes, Outcome
from reconciler.core.decide import Memory
from reconciler.core.desired import Desired, PlanSpec
from reconciler.core.findings import Finding
from reconciler.core.model import Known, ObjectRef, Power, Result
from reconciler.core.record import Category, Condition, FrozenVm, IntentKind, Records, VmRecord
from reconciler.core.target import Owner, TargetInventory, TargetVm, Volume
from reconciler.core.view import Observed, owner_of

BLOCKED = "ArchiveBlocked"  # condition of an ended VM whose leftovers the target refuses to give up; a commit tries again
_OURS = frozenset({"binder", "importer"})  # roles of pods that end by themselves once their Job is gone


@dataclass(frozen=True, slots=True)
class Debt:
    """What one ended VM left behind. `wait`: why nothing can be done right now. `act`: the next thing to do."""

    record: VmRecord
    act: Action | None = None
    wait: str = ""
    blocked: bool = False


def sealed(desired: Desired, archived: frozenset[ObjectRef]) -> Desired:
    """An archived plan stays archived, whatever its manifest says later."""
    reopened = {r: replace(p, archived=True) for r, p in desired.plans.items() if r in archived and not p.archived}
    return replace(desired, plans={**desired.plans, **reopened}) if reopened else desired


def waiting(desired: Desired, records: Records) -> tuple[PlanSpec, ...]:
    """Plans that are to be archived, whose runs have all ended, and that are not in the archive yet."""
    asked = (p for r, p in desired.plans.items() if p.archived and r not in records.archived and f"Plan/{r}" not in desired.broken)
    return tuple(p for p in asked if runs.active_run(records.runs, p.ref) is None)


def places(desired: Desired, records: Records) -> Mapping[ObjectRef, frozenset[str]]:
    """Targets and namespaces that must be looked at before an archive can be written."""
    found: dict[ObjectRef, set[str]] = {}
    for ended in _ended(waiting(desired, records), records).values():
        for _, frozen in ended:
            found.setdefault(frozen.destination, set()).add(frozen.namespace)
    return {ref: frozenset(names) for ref, names in found.items()}


def may_move(desired: Desired, records: Records) -> bool:
    """Looking again soon is worth it: something is being removed, or a site may answer."""
    return any(not _blocked(v, desired) for ended in _ended(waiting(desired, records), records).values() for v, _ in ended)


def advance(
    desired: Desired, observed: Observed, records: Records, decision: Decision, memory: Memory, now: datetime
) -> tuple[Records, Decision]:
    """Remove what ended runs of archived plans left, one act per VM; a plan that left nothing is archived."""
    ended = _ended(waiting(desired, records), records)
    vms = dict(records.vms)
    actions: list[Action] = []
    done: set[ObjectRef] = set()
    for plan, left in ended.items():
        settled = [(_settled(v, memory.outcomes.get(v.key), desired, now), f) for v, f in left]
        vms.update((v.key, v) for v, _ in settled)
        debts = [_debt(v, f, desired, observed, records) for v, f in settled]
        owed = [d for d in debts if d.act is not None or d.wait]
        # Nothing is there any more: what was declared is done, though whoever did it may not have lived to say so.
        vms.update((d.record.key, story.close(d.record, IntentKind.DELETE_TARGET, now)) for d in debts if d not in owed)
        if not owed:
            done.add(plan)
        for debt in owed:
            key = debt.record.key
            backoff = memory.backoffs.get(key)
            if debt.act is None or key in memory.busy or (backoff is not None and (backoff.held or backoff.until > now)):
                continue
            if isinstance(debt.act, DropTargetVm | DropVolumes):
                vms[key] = story.declare(debt.record, IntentKind.DELETE_TARGET, now)
            actions.append(debt.act)
    after = replace(records, vms=vms, archived=records.archived | done)
    return after, replace(decision, actions=(*decision.actions, *actions))


def _settled(record: VmRecord, outcome: Outcome | None, desired: Desired, now: datetime) -> VmRecord:
    """What the last act came to: intents are closed, a refusal for good is kept until the next commit."""
    error = outcome.error if outcome is not None else None
    if error is not None and error.kind in ("terminal", "user"):
        blocked = Condition(BLOCKED, True, Category.CRITICAL, error.reason, error.message, items=(desired.revision,))
        kept = tuple(c for c in record.conditions if c.type != BLOCKED)
        record = replace(record, conditions=story.carry_times([*kept, blocked], record.conditions, now))
    elif any(c.type == BLOCKED for c in record.conditions) and not _blocked(record, desired):
        record = replace(record, conditions=tuple(c for c in record.conditions if c.type != BLOCKED))
    if outcome is None or outcome.action not in ("DropTargetVm", "DropVolumes"):
        return record
    if error is None:
        return story.close(record, IntentKind.DELETE_TARGET, now)
    return story.close(record, IntentKind.DELETE_TARGET, now, void=error.message) if error.kind != "retryable" else record


def _blocked(record: VmRecord, desired: Desired) -> bool:
    return any(c.type == BLOCKED and c.items == (desired.revision,) for c in record.conditions)


def _ended(plans: Iterable[PlanSpec], records: Records) -> dict[ObjectRef, list[tuple[VmRecord, FrozenVm]]]:
    """Per plan, its VMs that ever had anything on a target."""
    found: dict[ObjectRef, list[tuple[VmRecord, FrozenVm]]] = {p.ref: [] for p in plans}
    for record in records.vms.values() if found else ():
        if record.plan in found and record.frozen is not None and record.result is not None:
            found[record.plan].append((record, record.frozen))
    return found


# ---- one VM -----------------------------------------------------------------------------------------------------------------------------


def _debt(record: VmRecord, frozen: FrozenVm, desired: Desired, observed: Observed, records: Records) -> Debt:
    if frozen.destination not in desired.providers:
        return Debt(record, wait=f"Provider {frozen.destination}, where {record.name} may have left objects, is gone; put it back")
    seen = observed.targets.get(frozen.destination)
    if not isinstance(seen, Known):
        why = f" ({seen.message})" if seen is not None else ""
        return Debt(record, wait=f"Provider {frozen.destination} cannot be looked at{why}")
    if seen.value.site.uuid != frozen.target_site_uuid:
        return Debt(record, wait=f"Provider {frozen.destination} now leads to another cluster than run {record.run} used; correct its url")
    debt = _on_target(record, frozen, seen.value, owner_of(record, records.commit, records.instance))
    if debt.act is not None and _blocked(record, desired):
        why = next(c.message for c in record.conditions if c.type == BLOCKED)
        return Debt(record, wait=why, blocked=True)
    return debt


def _on_target(record: VmRecord, frozen: FrozenVm, inventory: TargetInventory, owner: Owner) -> Debt:
    """Writers first, then the reserved VM, then disks; each is gone before the next is begun."""
    run, site = str(record.run), frozen.destination
    jobs = inventory.jobs_of(run, record.slug)
    for job in jobs:
        if not job.deleting:
            return Debt(record, DropCopy(record.key, site, job.namespace, job.name, owner), f"Job {job.name} goes")
    binders = inventory.binders_of(run, record.slug)
    for binder in binders:
        if not binder.deleting:
            return Debt(record, DropBinder(record.key, site, binder.namespace, binder.name, owner), f"pod {binder.name} goes")
    if jobs or binders:
        return Debt(record, wait=f"pods of {record.name} are ending")
    if record.result is Result.SUCCEEDED:
        return Debt(record)
    if (vm := _reserved(record, frozen, inventory, owner.source)) is not None:
        if vm.deleting:
            return Debt(record, wait=f"VirtualMachine {vm.name} is going")
        return Debt(record, DropTargetVm(record.key, site, vm.namespace, vm.name, owner), f"reserved VirtualMachine {vm.name} goes")
    return _disks(record, frozen, inventory, owner)


def _reserved(record: VmRecord, frozen: FrozenVm, inventory: TargetInventory, source: str) -> TargetVm | None:
    """Ours, of this run, Halted. One that a person has started is theirs."""
    vm = inventory.machine(frozen.namespace, frozen.name)
    ours = vm is not None and vm.ours and vm.source == source and vm.migration == str(record.run)
    return vm if vm is not None and ours and vm.power is Power.OFF and vm.run_strategy == "Halted" else None


def _disks(record: VmRecord, frozen: FrozenVm, inventory: TargetInventory, owner: Owner) -> Debt:
    source = record.source
    mine: list[Volume] = []
    for disk in frozen.disks:
        key = f"{source.uuid if source else ''}/{disk.uuid}"
        x = inventory.volume(frozen.namespace, disk.pvc)
        if x is not None and x.ours and x.key == key and x.migration == str(record.run) and not x.owners & inventory.machine_uids:
            mine.append(x)
    kept = inventory.machine(frozen.namespace, frozen.name) is not None
    used = any(v.users(inventory.machines_with((v.name,))) for v in mine)
    if kept or used or any(not w.fenced and w.role not in _OURS for v in mine for w in v.writers):
        return Debt(record)  # a VM of that name or of others, or a foreign pod, uses them: no longer ours to remove
    if any(not w.fenced for v in mine for w in v.writers):
        return Debt(record, wait=f"a pod may still write to the disks of {record.name}")
    names = tuple(v.name for v in mine if not v.deleting)
    if names:
        act = DropVolumes(record.key, frozen.destination, frozen.namespace, names, owner)
        return Debt(record, act, f"{len(names)} target disk(s) of {record.name} go")
    return Debt(record, wait=f"target disks of {record.name} are going") if mine else Debt(record)


# ---- what the Plan says -----------------------------------------------------------------------------------------------------------------


def standing(plan: PlanSpec, desired: Desired, observed: Observed, records: Records) -> tuple[Finding, ...]:
    """Of an archived plan; nothing for one that is not to be archived."""
    if plan.ref in records.archived:
        return (Finding("Archived", Category.ADVISORY, "UserRequested", "the plan is archived; it is never looked at again"),)
    if not plan.archived:
        return ()
    active = runs.active_run(records.runs, plan.ref)
    if active is not None:
        text = f"the plan is not archived while run {active.run} is under way; the run goes on"
        return (Finding("ArchiveWaits", Category.WARN, "Started", text, "let the run end, or cancel it in the Migration"),)
    debts = [_debt(v, f, desired, observed, records) for v, f in _ended((plan,), records)[plan.ref]]
    blocked = [d.wait for d in debts if d.blocked]
    texts = blocked or list(dict.fromkeys(d.wait for d in debts if d.wait))
    category = Category.CRITICAL if blocked else Category.WARN
    return tuple(Finding("ArchiveWaits", category, "CleaningUp", text) for text in texts)
