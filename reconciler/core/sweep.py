"""What carries our key on a target or a source and is explained by no run: leftovers, and what may be done about them.

What it is: pure; inventories and the records in, a list out. What it is not: the removal (engine/execute.py), or part of any pass; the
engine cleans up after itself, and this finds what it could not, such as objects of a run whose records somebody deleted.
A finished VM and its disks are never listed, nor what a failed run kept on purpose. What another reconciler wrote (its commit is not in our
history, or its instance is not ours) is listed, never removed. Secrets are not looked for: each is owned by its Job and goes with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.core.actions import Action, DropBinder, DropCopy, DropSnapshot, DropTargetVm, DropVolumes, VmKey
from reconciler.core.inventory import Inventory, SourceSnapshot, SourceVm
from reconciler.core.model import Milestone, ObjectRef, Power, Result, VmRef
from reconciler.core.record import Records, VmRecord
from reconciler.core.target import Binder, Instance, Job, Owner, TargetInventory, TargetVm, Volume

Thing = Job | Binder | TargetVm | Volume
_KINDS = {Job: "Job", Binder: "Pod", TargetVm: "VirtualMachine", Volume: "PersistentVolumeClaim"}


@dataclass(frozen=True, slots=True)
class Leftover:
    """`why` it is left over. `action` removes it; None: it must not be removed, `hindrance` says why."""

    site: ObjectRef
    kind: str
    namespace: str
    name: str
    run: str
    why: str
    action: Action | None
    hindrance: str = ""


def commits_of(inventory: TargetInventory) -> frozenset[str]:
    """Commits named by objects of ours; the caller finds out which of them are in the history of our status branch."""
    return frozenset(t.commit for t in _ours(inventory) if t.commit)


def leftovers(site: ObjectRef, inventory: TargetInventory, records: Records, history: frozenset[str]) -> tuple[Leftover, ...]:
    """In the order of removal: Jobs and pods, then VMs, then disks. `history`: those of commits_of() that are ours."""
    by_source = _by_source(records)
    found = []
    for thing in _ours(inventory):
        if thing.deleting:
            continue
        record = by_source.get((thing.migration, thing.source))
        why = _why(thing, record, records, inventory)
        if why is None:
            continue
        hindrance = _hindrance(thing, inventory, history)
        action = _removal(site, thing, records.instance) if not hindrance else None
        found.append(Leftover(site, _KINDS[type(thing)], thing.namespace, thing.name, thing.migration, why, action, hindrance))
    return (*found, *_foreign(site, inventory))


def readers(inventory: TargetInventory) -> frozenset[str]:
    """Sources, as `<site uuid>/<vm uuid>`, that a copy pod may be reading."""
    writing = (v.source for v in inventory.volumes if any(w.role == "importer" and not w.fenced for w in v.writers))
    return frozenset((*(j.source for j in inventory.jobs), *writing))


def snapshots(site: ObjectRef, inventory: Inventory, records: Records, reading: frozenset[str]) -> tuple[Leftover, ...]:
    """Snapshots of ours on source VMs that no run of ours has under way. `reading`: of all targets."""
    busy = {(v.source.site_uuid, v.source.uuid) for v in records.vms.values() if v.source is not None and v.result is None}
    found = []
    for vm in inventory.vms:
        for snapshot in vm.snapshots:
            key = snapshot.key or ""
            if records.instance.id and records.instance.owns_key(key) and (inventory.site.uuid, vm.uuid) not in busy:
                found.append(_snapshot(site, inventory.site.uuid, vm, snapshot, key.partition("/")[2], records, reading))
    return tuple(found)


def _snapshot(
    site: ObjectRef, uuid: str, vm: SourceVm, snapshot: SourceSnapshot, rest: str, records: Records, reading: frozenset[str]
) -> Leftover:
    """`rest` of its key: `<namespace>/<run>/<slug>/r<number>` (View.snapshot_key)."""
    run, _, tail = rest.rpartition("/")[0].rpartition("/")
    namespace, _, name = run.partition("/")
    key: VmKey = (ObjectRef(namespace, name), tail)
    why = f"run {run} {_ended(records.vms.get(key))} and left this snapshot, which grows as the guest writes"
    hindrance = "a copy pod may still read it; try again when that has ended" if f"{uuid}/{vm.uuid}" in reading else ""
    act = DropSnapshot(key, site, VmRef(site, uuid, vm.id, vm.uuid, vm.name), snapshot.key or "")
    return Leftover(site, "Snapshot", vm.path, snapshot.name, run, why, None if hindrance else act, hindrance)


def _foreign(site: ObjectRef, inventory: TargetInventory) -> Iterator[Leftover]:
    """What another reconciler is not done with. Whether it still needs that, only its own status branch can tell."""
    for s in inventory.strangers:
        if s.source and "/" in s.migration and not s.finished:
            why = f"it was made by another reconciler (instance {s.instance or 'unknown'}), for its run {s.migration}"
            yield Leftover(site, s.kind, s.namespace, s.name, s.migration, why, None, "another reconciler's; sweep with its repo")


def _ours(inventory: TargetInventory) -> Iterator[Thing]:
    """Our label alone is not our key: the word may be another tool's, too."""
    things: tuple[Thing, ...] = (*inventory.jobs, *inventory.binders, *inventory.vms, *inventory.volumes)
    for thing in things:
        labelled = thing.ours if isinstance(thing, TargetVm | Volume) else True  # the driver lists only labelled Jobs and pods
        if labelled and thing.source and "/" in thing.migration:
            yield thing


def _by_source(records: Records) -> Mapping[tuple[str, str], VmRecord]:
    return {(str(v.run), f"{v.source.site_uuid}/{v.source.uuid}"): v for v in records.vms.values() if v.source is not None}


def _why(thing: Thing, record: VmRecord | None, records: Records, inventory: TargetInventory) -> str | None:
    """None: something explains it."""
    if record is not None and record.result is None:
        return None
    match thing:
        case Job() | Binder():
            return f"run {thing.migration} {_ended(record)}, and what it needs for the copy is still there"
        case TargetVm():
            if _finished(thing, record, records, inventory) or _kept(record) or _vouches(thing, record, inventory):
                return None
            return f"run {thing.migration} {_ended(record)} and left the VM that it had reserved"
        case Volume():
            if thing.owners or _kept(record) or _proven(thing, record):
                return None
            if (record is not None and record.result is Result.SUCCEEDED) or _of_finished_vm(thing, records, inventory):
                return None
            return f"run {thing.migration} {_ended(record)} and left this disk"


def _ended(record: VmRecord | None) -> str:
    return "is not in the records" if record is None else f"ended ({record.result})"


def _kept(record: VmRecord | None) -> bool:
    """The plan said deleteVmOnFailMigration: false."""
    return record is not None and record.result is not Result.SUCCEEDED and record.frozen is not None and not record.frozen.delete_on_fail


def _proven(volume: Volume, record: VmRecord | None) -> bool:
    """Kept for the next run, whose copy goes on from there."""
    return record is not None and record.cancel_at is None and (volume.mark is not None or volume.watermark is not None)


def _vouches(vm: TargetVm, record: VmRecord | None, inventory: TargetInventory) -> bool:
    """For the marks of kept disks: a guest that ran on them would show in its generation."""
    mine = (v for v in inventory.volumes if v.ours and (v.namespace, v.migration, v.source) == (vm.namespace, vm.migration, vm.source))
    return any(_proven(v, record) for v in mine)


def _finished(vm: TargetVm, record: VmRecord | None, records: Records, inventory: TargetInventory) -> bool:
    """By any sign there is: the record, the claim, its own milestone, that it runs or may run, or that disks were released to it."""
    if record is not None:
        return record.result is Result.SUCCEEDED
    site, _, uuid = vm.source.partition("/")
    claim = records.claims.get((site, uuid))
    handed_over = vm.milestone in (Milestone.HANDED_OVER.value, Milestone.DONE.value)
    started = vm.power is not Power.OFF or vm.run_strategy != "Halted"
    return handed_over or started or (claim is not None and claim.forever) or vm.uid in inventory.owner_uids


def _of_finished_vm(volume: Volume, records: Records, inventory: TargetInventory) -> bool:
    same = (vm for vm in inventory.machines_of(volume.source) if vm.ours and vm.namespace == volume.namespace)
    return any(vm.migration == volume.migration and _finished(vm, None, records, inventory) for vm in same)


def _hindrance(thing: Thing, inventory: TargetInventory, history: frozenset[str]) -> str:
    if thing.commit not in history:
        return "the status branch does not know the commit that allowed it: another reconciler's, or git was restored from a backup"
    match thing:
        case TargetVm() if thing.power is not Power.OFF or thing.run_strategy != "Halted":
            return f"it is {thing.power.value} with run strategy {thing.run_strategy}; stop it first, if it should go"
        case Volume() if users := thing.users(inventory.machines_with((thing.name,))):
            return f"{users[0]} has it as a disk; take it out of that VM first, if it should go"
        case Volume() if busy := [w.pod for w in thing.writers if not w.fenced]:
            return f"pod {busy[0]} may still use it; try again when that has ended"
        case _:
            return ""


def _removal(site: ObjectRef, thing: Thing, us: Instance) -> Action:
    namespace, name = thing.migration.split("/", 1)
    slug = thing.vm if not isinstance(thing, TargetVm) else thing.name
    key: VmKey = (ObjectRef(namespace, name), slug)
    owner = Owner("", thing.migration, slug, thing.source, "", thing.commit, us)
    match thing:
        case Job():
            return DropCopy(key, site, thing.namespace, thing.name, owner)
        case Binder():
            return DropBinder(key, site, thing.namespace, thing.name, owner)
        case TargetVm():
            return DropTargetVm(key, site, thing.namespace, thing.name, owner)
        case Volume():
            return DropVolumes(key, site, thing.namespace, (thing.name,), owner)
