"""What others have on a target: does it stand in the way of a VM, and what may a person do about it (safety 6 and 7).

What it is: pure; the driver finds what another reconciler made by label (core.target.Instance.owns), and which disks a machine has; this
says what they mean. What it is not: a removal.
A status branch that was deleted and begun anew has another instance: what the old one made is a stranger's until a person says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconciler.core.desired import Desired
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Known
from reconciler.core.record import FrozenVm
from reconciler.core.target import Instance, Stranger, TargetInventory, TargetVm
from reconciler.core.view import Observed


def of_source(inventory: TargetInventory, source: str) -> tuple[Stranger, ...]:
    """`source`: "<site uuid>/<vm uuid>". In the namespaces that were looked at."""
    return tuple(s for s in inventory.strangers if s.source == source)


def in_the_way(inventory: TargetInventory, source: str, frozen: FrozenVm) -> tuple[Stranger, ...]:
    """Of the same source VM, or under a name that this run would take."""
    wanted = {("VirtualMachine", frozen.name), *(("PersistentVolumeClaim", d.pvc) for d in frozen.disks)}
    named = (s for s in inventory.strangers if s.namespace == frozen.namespace and (s.kind, s.name) in wanted)
    return tuple(dict.fromkeys((*of_source(inventory, source), *named)))


def snapshots(source: SourceVm, us: Instance) -> str:
    """Of another reconciler, on the source: it moves this VM warm, or did. What to do; empty if there is none."""
    found = [s for s in source.snapshots if s.key is not None and not us.owns_key(s.key)]
    if not found:
        return ""
    names = ", ".join(f"{s.name} (run {'/'.join((s.key or '').split('/')[1:3])})" for s in found)
    return f"snapshot {names} was made by another reconciler; end that run there, or, if that reconciler is gone, remove the snapshot"


def text(found: Iterable[Stranger]) -> str:
    """Which objects, whose, and what to do."""
    by_maker: dict[str, list[Stranger]] = {}
    for one in found:
        by_maker.setdefault(one.instance, []).append(one)
    return "; ".join(_told(maker, made) for maker, made in by_maker.items())


def _told(maker: str, made: list[Stranger]) -> str:
    names, runs = ", ".join(map(str, made)), ", ".join(sorted({s.migration or "unknown" for s in made}))
    if not maker:
        return f"{names} (run {runs}) carries our label and names no reconciler; it is left alone. Remove or rename it"
    return (
        f"{names} was made by another reconciler (instance {maker}, run {runs}) and is left alone. End that run there, or move this VM "
        "only once. If that reconciler is gone, because its status branch was lost and begun anew, annotate the Migration "
        f'reconciler.dev/acknowledge-rewind: "{maker}" to take over what it made'
    )


def takers(vms: Iterable[TargetVm], namespace: str, pvcs: Iterable[str], source: str) -> Mapping[str, TargetVm]:
    """PVC -> a machine of others that has it as a disk, running or not, made or still to be made. `source`: as in of_source.

    `vms`: at least those that have any of `pvcs`.
    """
    wanted = frozenset(pvcs)
    near = (vm for vm in vms if not wanted.isdisjoint(vm.claims))
    return {pvc: vm for vm in near for pvc in sorted(vm.takes(namespace, source) & wanted)}


def taken_text(taken: Mapping[str, TargetVm]) -> str:
    return "; ".join(
        f"PVC {vm.namespace}/{pvc} is a disk of {vm} ({vm.power.value.lower()}), which is not ours" for pvc, vm in taken.items()
    )


def inherited(desired: Desired, observed: Observed, us: Instance) -> Instance:
    """With the ids that a Migration acknowledges and that were seen where its plan goes; they are ours from the next pass on."""
    found: set[str] = set()
    for migration in desired.migrations.values():
        plan = desired.plans.get(migration.plan) if migration.plan and migration.acknowledged else None
        seen = observed.targets.get(plan.destination) if plan and plan.destination else None
        if isinstance(seen, Known):
            found |= {s.instance for s in seen.value.strangers if s.instance and s.instance.startswith(migration.acknowledged)}
    return replace(us, inherits=tuple(sorted({*us.inherits, *found}))) if found else us
