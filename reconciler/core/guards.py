"""May this declared act be done now? Asked right before the act, with direct reads of the one VM concerned (safety 5).

What it is: pure answers: None for yes, else why not. A no makes the intent void; the next pass decides anew.
Where it stands: engine/execute.py reads the lease, the source and the target and asks here; nothing is done in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from reconciler.core import strangers
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Absent, Known, Mark, MarkState, Power, PowerRequest
from reconciler.core.target import TargetVm, Volume


def lease_fresh(age_s: float | None, ttl_s: float) -> str | None:
    """The lease must be younger than half its TTL, so that nobody can have taken it before the act lands."""
    if age_s is None:
        return "the lease is not ours"
    if age_s >= ttl_s / 2:
        return f"the lease is {age_s:.0f} s old, more than half its TTL of {ttl_s:.0f} s"
    return None


def _same(source: Known[SourceVm] | Absent, uuid: str) -> str | None:
    match source:
        case Absent():
            return "the source VM is gone"
        case Known(vm):
            return None if vm.uuid == uuid else f"the source VM now has uuid {vm.uuid}, not {uuid}"


def may_power_off(source: Known[SourceVm] | Absent, uuid: str, target: Known[TargetVm] | Absent) -> str | None:
    if (why := _same(source, uuid)) is not None:
        return why
    match target:
        case Absent():
            return "the reserved target VM is gone"
        case Known(vm) if vm.power is not Power.OFF:
            return "the target VM is not off"
        case _:
            return None


def may_power_on(source: Known[SourceVm] | Absent, uuid: str, target: Known[TargetVm] | Absent) -> str | None:
    """Never the source beside a running (or starting) target. A stranger's VM of that name is not the target of this source."""
    if (why := _same(source, uuid)) is not None:
        return why
    match target:
        case Known(vm) if not vm.ours and not vm.source.endswith(f"/{uuid}"):
            return None
        case Known(vm) if vm.power is not Power.OFF or vm.run_strategy != "Halted":
            return f"the target VM {vm.namespace}/{vm.name} is {vm.power.value} with run strategy {vm.run_strategy}"
        case _:
            return None


def power_need(source: Known[SourceVm] | Absent, want: PowerRequest) -> bool:
    """False when the source already is as wanted, so that no request is sent twice."""
    match source:
        case Known(vm):
            return vm.power is not (Power.ON if want is PowerRequest.ON else Power.OFF)
        case Absent():
            return False


def may_start_target(
    source: Known[SourceVm] | Absent,
    uuid: str,
    epoch: str,
    number: int,
    target: Known[TargetVm] | Absent,
    volumes: tuple[tuple[str, Known[Volume] | Absent], ...],
    source_key: str,
) -> str | None:
    """`volumes`: (disk uuid, direct read). `number`: of the final round. `source_key`: "<site uuid>/<vm uuid>" of the target."""
    if (why := _same(source, uuid)) is not None:
        return why
    assert isinstance(source, Known)
    if source.value.power is not Power.OFF:
        return f"the source is {source.value.power.value}"
    if source.value.epoch != epoch:
        return f"the source ran, or was reverted, since the copy (epoch {source.value.epoch}, copied at {epoch})"
    if {d.uuid for d in source.value.disks} != {uuid for uuid, _ in volumes}:
        return "the disks of the source are not those that were copied"
    if isinstance(target, Absent):
        return "the target VM is gone"
    if not target.value.ours or target.value.source != source_key:
        return "the target VM is not ours"
    for disk_uuid, seen in volumes:
        match seen:
            case Absent():
                return f"the PVC of disk {disk_uuid} is gone"
            case Known(volume):
                if volume.deleting or volume.phase != "Bound":
                    return f"PVC {volume.name} is {'being deleted' if volume.deleting else volume.phase}"
                mark = volume.mark
                final = Mark(disk_uuid, volume.uid, number, epoch, None, MarkState.CLEAN)
                if mark is None or replace(mark, change_id=None, target="") != final:
                    return f"the mark of PVC {volume.name} is not final"
                if mark.target != target.value.reserved:
                    return f"the target VM was changed, perhaps started, since PVC {volume.name} got its mark"
                if busy := [w.pod for w in volume.writers if not w.fenced]:
                    return f"pod {busy[0]} may still write to PVC {volume.name}"
    return None


def taken(vms: tuple[TargetVm, ...], namespace: str, pvcs: Iterable[str], source: str) -> str | None:
    """What others have as a disk, though their machine is off, is neither adopted nor written. `vms`: a direct read of the namespace."""
    return strangers.taken_text(strangers.takers(vms, namespace, pvcs, source)) or None


def may_copy(volumes: tuple[tuple[str, Known[Volume] | Absent], ...]) -> str | None:
    """No importer beside another writer (safety 4). `volumes`: (PVC, direct read)."""
    for name, seen in volumes:
        match seen:
            case Absent():
                return f"PVC {name} is gone"
            case Known(volume) if busy := [w.pod for w in volume.writers if not w.fenced and w.role != "binder"]:
                return f"pod {busy[0]} may still write to PVC {name}"
            case _:
                pass
    return None


def may_delete_volume(volume: Known[Volume] | Absent, vms: tuple[TargetVm, ...]) -> str | None:
    """`vms`: all of its namespace, by a direct read."""
    match volume:
        case Known(v) if users := v.users(vms):
            return f"{users[0]} has PVC {v.name} as a disk"
        case Known(v) if busy := [w.pod for w in v.writers if not w.fenced]:
            return f"pod {busy[0]} may still use PVC {v.name}"
        case _:
            return None


def may_delete_vm(target: Known[TargetVm] | Absent) -> str | None:
    match target:
        case Known(vm) if vm.power is not Power.OFF or vm.run_strategy != "Halted":
            return f"the target VM {vm.namespace}/{vm.name} is {vm.power.value} with run strategy {vm.run_strategy}"
        case _:
            return None
