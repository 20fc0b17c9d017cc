"""One Kubernetes object -> one neutral value of core/target.py. Pure.

What it is: the reading side of objects.py, pods.py and machine.py. What it is not: requests (inventory.py, target.py).
Whatever a person may have damaged (an annotation that is no JSON, a missing status) reads as "nothing proven", never as an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from reconciler.core.model import Milestone, Power
from reconciler.core.target import Binder, Instance, Job, JobPhase, StorageClass, Stranger, TargetVm, Volume, VolumeMode, Writer
from reconciler.drivers.kubevirt import labels, machine, quantity, reasons
from reconciler.drivers.kubevirt.labels import Obj
from reconciler.drivers.kubevirt.reasons import Events

_FINISHED = frozenset({Milestone.HANDED_OVER.value, Milestone.DONE.value})
_MACHINE = "VirtualMachine"
_GUEST_GONE = frozenset({"Succeeded", "Failed"})


def deleting(obj: Obj) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def stranger(kind: str, obj: Obj) -> Stranger:
    """Of something that carries our label and is another reconciler's."""
    metadata, notes = obj["metadata"], labels.annotations_of(obj)
    return Stranger(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        instance=labels.instance_of(obj),
        migration=notes.get(labels.MIGRATION, ""),
        source=notes.get(labels.SOURCE, ""),
        finished=notes.get(labels.MILESTONE) in _FINISHED or any(o["kind"] == _MACHINE for o in metadata.get("ownerReferences") or []),
    )


def volume(pvc: Obj, writers: Sequence[Writer], events: Sequence[str], waits: bool, us: Instance) -> Volume:
    """`waits`: the class binds at the first consumer."""
    metadata, spec, status = pvc["metadata"], pvc["spec"], pvc.get("status") or {}
    notes = labels.annotations_of(pvc)
    phase = status.get("phase") or "Pending"
    return Volume(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        phase=phase,
        storage_class=spec.get("storageClassName") or "",
        volume_mode=VolumeMode(spec.get("volumeMode") or "Filesystem"),
        request_bytes=_storage((spec.get("resources") or {}).get("requests")),
        capacity_bytes=_storage(status.get("capacity")),
        ours=labels.is_ours(pvc, us),
        key=f"{notes.get(labels.SOURCE_VM_UUID, '')}/{notes.get(labels.DISK_UUID, '')}",
        migration=notes.get(labels.MIGRATION, ""),
        commit=notes.get(labels.COMMIT, ""),
        mark=labels.mark_from_text(notes.get(labels.MARK)),
        watermark=labels.watermark_from_text(notes.get(labels.WATERMARK)),
        writers=tuple(writers),
        deleting=deleting(pvc),
        waits_for_consumer=waits and phase == "Pending",
        events=tuple(events),
        owners=frozenset(entry["uid"] for entry in metadata.get("ownerReferences") or []),
        source=notes.get(labels.SOURCE, ""),
        vm=notes.get(labels.VM, ""),
        instance=labels.instance_of(pvc),
    )


def _storage(quantities: Mapping[str, Any] | None) -> int:
    return quantity.to_bytes((quantities or {}).get("storage") or 0)


def job(obj: Obj, pods: Sequence[Obj], events: Events) -> Job:
    """`pods` are this Job's (one, by backoffLimit 0)."""
    metadata, notes = obj["metadata"], labels.annotations_of(obj)
    ended = next((state for pod in pods if (state := _terminated(pod))), {})
    return Job(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        phase=_job_phase(obj, pods),
        migration=notes.get(labels.MIGRATION, ""),
        vm=notes.get(labels.VM, ""),
        round_key=notes.get(labels.ROUND_KEY, ""),
        attempt=_number(notes.get(labels.ATTEMPT)),
        exit_code=ended.get("exitCode"),
        termination_message=str(ended.get("message") or ""),
        message=reasons.of_job(obj, pods, events),
        deleting=deleting(obj),
        source=notes.get(labels.SOURCE, ""),
        commit=notes.get(labels.COMMIT, ""),
    )


def _job_phase(obj: Obj, pods: Sequence[Obj]) -> JobPhase:
    """Ended only by the conditions Complete and Failed: FailureTarget and SuccessCriteriaMet come while a pod may still run."""
    true = {c.get("type") for c in (obj.get("status") or {}).get("conditions") or [] if c.get("status") == "True"}
    if "Complete" in true:
        return JobPhase.SUCCEEDED
    if "Failed" in true:
        return JobPhase.FAILED
    if any((pod.get("status") or {}).get("phase") not in (None, "Pending") for pod in pods):
        return JobPhase.RUNNING
    return JobPhase.SUSPENDED if obj["spec"].get("suspend") and not pods else JobPhase.PENDING


def _terminated(pod: Obj) -> Mapping[str, Any]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return next((s["state"]["terminated"] for s in statuses if (s.get("state") or {}).get("terminated")), {})


def _ended_at(pod: Obj) -> datetime | None:
    """Also of a pod whose init container failed, whose own container never began."""
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    init: Mapping[str, Any] = next(
        (s["state"]["terminated"] for s in statuses if ((s.get("state") or {}).get("terminated") or {}).get("exitCode")), {}
    )
    return _time((_terminated(pod) or init).get("finishedAt"))


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def binder(pod: Obj, events: Events, apart: str = "") -> Binder:
    metadata, notes, ended = pod["metadata"], labels.annotations_of(pod), _terminated(pod)
    warned = events.get(metadata["uid"], ())
    phase = (pod.get("status") or {}).get("phase") or "Pending"
    message = reasons.of_pod(pod) or (warned[0] if warned and phase == "Pending" else "")
    return Binder(
        namespace=metadata["namespace"],
        name=metadata["name"],
        phase=phase,
        message=message,
        migration=notes.get(labels.MIGRATION, ""),
        vm=notes.get(labels.VM, ""),
        deleting=deleting(pod),
        source=notes.get(labels.SOURCE, ""),
        commit=notes.get(labels.COMMIT, ""),
        trial=notes.get(labels.TRIAL, ""),
        exit_code=ended.get("exitCode"),
        termination_message=str(ended.get("message") or ""),
        apart=apart,
        ended_at=_ended_at(pod),
    )


def target_vm(vm: Obj, instance: Obj | None, us: Instance) -> TargetVm:
    """`instance`: the VirtualMachineInstance of that name, if there is one."""
    metadata, spec, notes = vm["metadata"], vm["spec"], labels.annotations_of(vm)
    # `running` is the older spelling of runStrategy; foreign VMs still use it.
    strategy = spec.get("runStrategy") or (machine.ALWAYS if spec.get("running") else machine.HALTED)
    domain = ((spec.get("template") or {}).get("spec") or {}).get("domain") or {}
    interfaces = (domain.get("devices") or {}).get("interfaces") or []
    return TargetVm(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        ours=labels.is_ours(vm, us),
        migration=notes.get(labels.MIGRATION, ""),
        source=notes.get(labels.SOURCE, ""),
        milestone=notes.get(labels.MILESTONE, ""),
        commit=notes.get(labels.COMMIT, ""),
        run_strategy=strategy,
        power=_power(strategy, instance),
        ready=bool((vm.get("status") or {}).get("ready")),
        message=reasons.of_machine(vm),
        macs=tuple(nic["macAddress"].lower() for nic in interfaces if nic.get("macAddress")),
        deleting=deleting(vm),
        instance=labels.instance_of(vm),
        generation=int(metadata.get("generation") or 0),
        claims=frozenset((*_templates(spec), *_claims((spec.get("template") or {}).get("spec")), *_claims((instance or {}).get("spec")))),
    )


def lone_instance(vmi: Obj) -> TargetVm:
    """A VirtualMachineInstance that no VirtualMachine stands behind: somebody made it himself, or deleted only its VirtualMachine."""
    found = target_vm({"metadata": vmi["metadata"], "spec": {"template": {"spec": vmi.get("spec")}}}, vmi, Instance())
    return replace(found, kind="VirtualMachineInstance", ours=False)


def ended(vmi: Obj) -> bool:
    return (vmi.get("status") or {}).get("phase") in _GUEST_GONE


def _templates(spec: Obj) -> Iterator[str]:
    """A DataVolume's PVC has its name."""
    yield from (t["metadata"]["name"] for t in spec.get("dataVolumeTemplates") or [])


def _claims(spec: Obj | None) -> Iterator[str]:
    """PVCs of a guest's spec, those plugged into a running one too."""
    for volume in (spec or {}).get("volumes") or []:
        for source in (volume, volume.get("ephemeral") or {}):
            yield from filter(
                None, ((source.get("persistentVolumeClaim") or {}).get("claimName"), (source.get("dataVolume") or {}).get("name"))
            )
        yield from filter(None, [(volume.get("memoryDump") or {}).get("claimName")])


def _power(strategy: str, instance: Obj | None) -> Power:
    """A VMI that has not ended runs, or is about to; one in phase Unknown is on a node that lost contact, and may run."""
    phase = (instance.get("status") or {}).get("phase") if instance is not None else None
    if phase == "Unknown":
        return Power.UNKNOWN
    if instance is not None and phase not in _GUEST_GONE:
        return Power.ON
    known = {machine.HALTED: Power.OFF, machine.ALWAYS: Power.ON}
    return known.get(strategy, Power.UNKNOWN)


def storage_class(obj: Obj, profile: Obj | None, cdi_overhead: Mapping[str, Any] | None) -> StorageClass:
    """`cdi_overhead`: CDIConfig's status.filesystemOverhead, None without CDI."""
    name = obj["metadata"]["name"]
    sets = ((profile or {}).get("status") or {}).get("claimPropertySets") or [{}]
    mode, access = sets[0].get("volumeMode"), sets[0].get("accessModes") or [None]
    return StorageClass(
        name=name,
        waits_for_consumer=obj.get("volumeBindingMode") == "WaitForFirstConsumer",
        default_volume_mode=VolumeMode(mode) if mode else None,
        default_access_mode=access[0],
        overhead=_overhead(name, cdi_overhead),
        provisioner=str(obj.get("provisioner") or ""),
    )


def _overhead(name: str, cdi: Mapping[str, Any] | None) -> float | None:
    """CDI writes fractions as text ("0.06"), per class or global."""
    text = ((cdi or {}).get("storageClass") or {}).get(name) or (cdi or {}).get("global")
    try:
        fraction = float(text) if text else None
    except ValueError:
        return None
    return fraction if fraction is not None and 0 <= fraction < 1 else None
