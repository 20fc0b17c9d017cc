"""Records -> one object's status in Forklift's full shape, for `reconciler status KIND/NAME -o yaml`. Pure.

What it is: the pieces that the status branch keeps in many files, put together. What it is not: a file of that branch.
"""

from __future__ import annotations

from datetime import datetime
from itertools import takewhile
from typing import Any

from reconciler.core import figures
from reconciler.core.desired import Desired, PlanVm, WantPower
from reconciler.core.figures import Downtime, Rounds
from reconciler.core.model import ObjectRef, Power
from reconciler.core.record import ObjectStatus, Progress, Records, RoundRecord, RunRecord, StepRecord, TaskRecord, VmRecord
from reconciler.errors import UserError
from reconciler.manifests.record import ref_plain, status_to_plain, time_text, to_plain
from reconciler.manifests.schema.registry import KINDS
from reconciler.manifests.schema.shapes import API_VERSION
from reconciler.manifests.spelling import did_you_mean


def compose_status(records: Records, desired: Desired, kind: str, ref: ObjectRef, now: datetime | None = None) -> dict[str, Any]:
    """`now`: what a cutover would cost is told for this moment; without it, it is left out.

    Errors: UserError NotFound when neither the repo nor the status branch knows the object."""
    recorded = records.statuses.get((kind, ref))
    runs = _runs_of(records, kind, ref)
    if recorded is None and not runs and ref not in _known(desired, kind):
        hint = did_you_mean(ref.name, [one.name for one in _known(desired, kind)])
        raise UserError("NotFound", f"there is no {kind} {ref} in the repo or on the status branch{': ' + hint if hint else ''}")
    frame = status_to_plain(recorded) if recorded else status_to_plain(ObjectStatus(kind, ref, (), desired.revision))
    status = frame["status"]
    status.setdefault("conditions", [])
    if kind == "Plan" and runs:
        status["migration"] = _plan_migration(records, desired, ref, runs, now)
    if kind == "Migration" and runs:
        status.update(_times(runs[0]))
        status["vms"] = [_vm(vm, None, now) for vm in _vms_of(records, runs[0])]
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": ref_plain(ref), "status": status}


def _known(desired: Desired, kind: str) -> dict[ObjectRef, object]:
    """Objects of a kind that the repo holds. Errors: UserError for a kind that we do not have."""
    by_kind: dict[str, Any] = {
        "Provider": desired.providers,
        "NetworkMap": desired.network_maps,
        "StorageMap": desired.storage_maps,
        "Plan": desired.plans,
        "Migration": desired.migrations,
        "Hook": desired.hooks,
        "Host": desired.hosts,
        "ForkliftController": desired.controllers,
    }
    if kind not in by_kind:
        hint = did_you_mean(kind, KINDS)
        raise UserError("UnknownKind", f'unknown kind "{kind}"{": " + hint if hint else ""}')
    return dict(by_kind[kind])


def _runs_of(records: Records, kind: str, ref: ObjectRef) -> list[RunRecord]:
    """Oldest first; of a Migration at most one."""
    if kind == "Migration":
        return [records.runs[ref]] if ref in records.runs else []
    if kind != "Plan":
        return []
    return sorted((run for run in records.runs.values() if run.plan == ref), key=lambda run: (run.started, run.run))


def _vms_of(records: Records, run: RunRecord) -> list[VmRecord]:
    found = (records.vms.get((run.run, slug)) for slug in run.vms)
    return [vm for vm in found if vm is not None]


def _plan_migration(records: Records, desired: Desired, ref: ObjectRef, runs: list[RunRecord], now: datetime | None) -> dict[str, Any]:
    """A VM shows its newest run; a later run takes only VMs that have not succeeded."""
    newest: dict[str, VmRecord] = {}
    for run in runs:
        for vm in _vms_of(records, run):
            newest[vm.wanted] = vm
    plan = desired.plans.get(ref)
    specs = {str(vm.ref): vm for vm in plan.vms} if plan else {}
    return {
        **_times(runs[-1]),
        "vms": [_vm(vm, specs.get(wanted), now) for wanted, vm in newest.items()],
        "history": [_snapshot(run) for run in runs],
    }


def _times(run: RunRecord) -> dict[str, Any]:
    times = {"started": time_text(run.started)}
    return {**times, "completed": time_text(run.completed)} if run.completed else times


def _snapshot(run: RunRecord) -> dict[str, Any]:
    maps = {"network": run.network_map, "storage": run.storage_map}
    return {
        "conditions": [to_plain(one) for one in run.conditions],
        "provider": {"source": ref_plain(run.source), "destination": ref_plain(run.destination)},
        "plan": ref_plain(run.plan),
        "map": {name: ref_plain(one) for name, one in maps.items() if one},
        "migration": ref_plain(run.run),
    }


def _vm(vm: VmRecord, spec: PlanVm | None, now: datetime | None) -> dict[str, Any]:
    """Forklift's VMStatus: what spec.vms says, then what became of it."""
    shown: dict[str, Any] = {
        **(_spec(spec) if spec else {}),
        "id": vm.id,
        "name": vm.name or vm.wanted,
        "newName": vm.new_name,
        "phase": vm.phase,
        "started": time_text(vm.started) if vm.started else "",
        "completed": time_text(vm.completed) if vm.completed else "",
        "restorePowerState": "" if vm.restore_power_state is Power.UNKNOWN else vm.restore_power_state.value,
    }
    shown = {key: value for key, value in shown.items() if value}
    if vm.error:
        shown["error"] = {"phase": vm.error.phase, "reasons": [vm.error.message]}
    shown["conditions"] = [to_plain(one) for one in vm.conditions]
    shown["pipeline"] = [_step(one) for one in vm.pipeline]
    return {**shown, **vm_figures(vm, now)}


def vm_figures(vm: VmRecord, now: datetime | None = None) -> dict[str, Any]:
    """`warm` of a VM that has begun rounds, `downtime` of one whose guest went off."""
    known, down = figures.rounds(vm), figures.downtime(vm)
    return _told({"warm": _warm(vm, known, now) if known else None, "downtime": _downtime(down) if down else None})


def _warm(vm: VmRecord, known: Rounds, now: datetime | None) -> dict[str, Any]:
    """Forklift's block, with figures of our own behind it. `failures`: rounds of which nothing counted."""
    rounds = [r for r in vm.rounds if not r.final]
    trailing = list(takewhile(lambda r: r.abandoned, reversed(rounds)))
    cost = known.expected_downtime_s(now) if now is not None else None
    return _told(
        {
            "successes": known.whole,
            "failures": known.dropped,
            "consecutiveFailures": len(trailing),
            "nextPrecopyAt": time_text(known.next_at) if known.next_at else None,
            "precopies": [_precopy(vm, r) for r in rounds],
            "lastDeltaBytes": known.last.read_bytes if known.last else None,
            "changeRateBytesPerSecond": round(known.change_rate) if known.change_rate is not None else None,
            "expectedDowntimeSeconds": round(cost, 1) if cost is not None else None,
            "baseUnreadable": vm.base_unreadable or None,
        }
    )


def _precopy(vm: VmRecord, r: RoundRecord) -> dict[str, Any]:
    labels = {d.uuid: d.label for d in vm.frozen.disks} if vm.frozen else {}
    return _told(
        {
            "start": time_text(r.started),
            "end": time_text(r.ended) if r.ended else None,
            "snapshot": r.snapshot or None,
            "deltas": [{"disk": labels.get(uuid, uuid), "deltaId": change_id} for uuid, change_id in sorted(r.change_ids.items())],
            "readBytes": r.read_bytes,
            "copySeconds": r.seconds,
            "abandoned": r.abandoned or None,
        }
    )


def _downtime(down: Downtime) -> dict[str, Any]:
    """Of our own; Forklift keeps none. `oursSeconds` is what is left without the time in which bytes were moved."""
    return _told(
        {
            "since": time_text(down.since),
            "seconds": None if down.seconds is None else round(down.seconds, 3),
            "copySeconds": None if down.seconds is None else round(down.copy_s, 3),
            "oursSeconds": None if down.ours_s is None else round(down.ours_s, 3),
        }
    )


def _told(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if value is not None}


def _spec(spec: PlanVm) -> dict[str, Any]:
    """Fields of spec.vms that were asked for."""
    return {
        "targetName": spec.target_name,
        "targetPowerState": "" if spec.target_power is WantPower.AUTO else spec.target_power.value,
        "instanceType": spec.instance_type,
        "rootDisk": spec.root_disk,
        "namespace": spec.ref.namespace,
    }


def _step(step: StepRecord) -> dict[str, Any]:
    """Forklift wants `phase` and `progress` always."""
    shown = {**to_plain(step), "phase": step.phase, "progress": _progress(step.progress)}
    return {**shown, "tasks": [_task(one) for one in step.tasks]} if step.tasks else shown


def _task(task: TaskRecord) -> dict[str, Any]:
    return {**to_plain(task), "phase": task.phase, "progress": _progress(task.progress)}


def _progress(progress: Progress) -> dict[str, int]:
    return {"completed": progress.completed, "total": progress.total}
