"""PVCs beyond plain create and delete: adoption, expansion, marks, watermarks, and the direct read with their writers.

Every change is a compare-and-swap on the resource version that it was decided on: two runs, or two reconcilers, cannot both win.
"""

from __future__ import annotations

from typing import Any

from reconciler.core.model import Absent, Known, Mark, Watermark
from reconciler.core.target import Instance, Owner, Volume, VolumeSpec
from reconciler.drivers.kubevirt import apply, failures, labels, objects, parse, reasons, writers
from reconciler.drivers.kubevirt import resources as kinds
from reconciler.drivers.kubevirt.api import Api
from reconciler.drivers.kubevirt.labels import Obj
from reconciler.drivers.kubevirt.quantity import from_bytes
from reconciler.errors import RetryableError

_KIND = "PersistentVolumeClaim"
_REMEDY = "remove or rename it, or change the Plan's pvcNameTemplate"


def read(api: Api, namespace: str, name: str, us: Instance) -> Known[Volume] | Absent:
    """One PVC and the pods that mount it, now. The nodes are read after the pods: a node seen missing was deleted."""
    pvc = api.find(kinds.VOLUMES, namespace, name)
    if pvc is None:
        return Absent()
    users = [pod for pod in api.list(kinds.PODS, namespace) if name in writers.claims_of(pod)]
    names = {node for pod in users if (node := pod["spec"].get("nodeName"))}
    nodes = {node: found for node in sorted(names) if (found := api.find(kinds.NODES, None, node)) is not None}
    using = writers.by_claim(users, nodes, us).get(name, ())
    events = reasons.by_uid(api.list(kinds.EVENTS, namespace, {"fieldSelector": f"type=Warning,involvedObject.name={name}"}))
    return Known(parse.volume(pvc, using, events.get(pvc["metadata"]["uid"], ()), _waits(api, pvc), us))


def _waits(api: Api, pvc: Obj) -> bool:
    name = pvc["spec"].get("storageClassName") or ""
    if (pvc.get("status") or {}).get("phase") == "Bound" or not name:
        return False
    found = api.find(kinds.STORAGE_CLASSES, None, name)
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"


def ensure(api: Api, spec: VolumeSpec, adopt: Volume | None) -> None:
    """Errors: TerminalError NameTaken; RetryableError Conflict when another run owns it and `adopt` does not name this very state."""
    if adopt is not None:
        found = apply.read_ours(api, kinds.VOLUMES, spec.namespace, spec.name, spec.owner)
    else:
        found, made = apply.create_or_find(api, kinds.VOLUMES, objects.volume(spec), spec.owner, _REMEDY)
        if made:
            return
    _must_be_this_disk(found, spec)
    run = labels.annotations_of(found).get(labels.MIGRATION, "")
    if run == spec.owner.migration:
        _grow(api, found, spec)
    elif adopt is None:
        raise RetryableError(
            "Conflict", f"{_KIND} {spec.namespace}/{spec.name} still belongs to run {run}; it is adopted once that is seen"
        )
    else:
        _adopt(api, spec, adopt, found)


def _must_be_this_disk(found: Obj, spec: VolumeSpec) -> None:
    notes = labels.annotations_of(found)
    if (notes.get(labels.SOURCE_VM_UUID), notes.get(labels.DISK_UUID)) != (spec.source_vm_uuid, spec.disk_uuid):
        raise failures.name_taken(_KIND, spec.namespace, spec.name, f"it holds another disk ({notes.get(labels.DISK_UUID)}); {_REMEDY}")
    if parse.deleting(found):
        raise failures.being_deleted(_KIND, spec.namespace, spec.name)


def _adopt(api: Api, spec: VolumeSpec, adopt: Volume, found: Obj) -> None:
    """Swap the owning run, on the version the decision saw. A PVC made anew under the name has another uid."""
    if found["metadata"]["uid"] != adopt.uid:
        raise RetryableError("Conflict", f"{_KIND} {spec.namespace}/{spec.name} was made anew since it was seen")
    change: dict[str, Any] = {"metadata": objects.volume_identity(spec), **_growth(found, spec)}
    api.merge(kinds.VOLUMES, spec.namespace, spec.name, adopt.resource_version, change)


def _grow(api: Api, found: Obj, spec: VolumeSpec) -> None:
    if change := _growth(found, spec):
        api.merge(kinds.VOLUMES, spec.namespace, spec.name, found["metadata"]["resourceVersion"], change)


def _growth(found: Obj, spec: VolumeSpec) -> dict[str, Any]:
    """A source disk that grew (safety 12). Kubernetes expands a claim and never shrinks one."""
    if parse.volume(found, (), (), False, spec.owner.instance).request_bytes >= spec.request_bytes:
        return {}
    return {"spec": {"resources": {"requests": {"storage": from_bytes(spec.request_bytes)}}}}


def put_mark(api: Api, volume: Volume, mark: Mark | None, owner: Owner) -> None:
    """None makes it dirty: the watermark goes too. Errors: TerminalError NotOurs; RetryableError Conflict when the PVC changed since."""
    _must_be_owned(volume, owner)
    proof: dict[str, str | None] = {labels.MARK: None, labels.WATERMARK: None}
    if mark is not None:
        proof = {labels.MARK: labels.mark_to_text(mark)}
    _annotate(api, volume, {**proof, **labels.progress_annotations(owner)})


def put_watermark(api: Api, volume: Volume, watermark: Watermark) -> None:
    if not volume.ours:
        raise failures.not_ours(_KIND, volume.namespace, volume.name, "does not carry our label")
    _annotate(api, volume, {labels.WATERMARK: labels.watermark_to_text(watermark)})


def add_owner(api: Api, volume: Volume, reference: dict[str, Any], owner: Owner) -> None:
    """A merge patch replaces a whole list, so the references that are there are read and kept."""
    found = apply.read_ours(api, kinds.VOLUMES, volume.namespace, volume.name, owner)
    if found["metadata"]["uid"] != volume.uid:
        raise RetryableError("Conflict", f"{_KIND} {volume.namespace}/{volume.name} was made anew since it was seen")
    present = list(found["metadata"].get("ownerReferences") or [])
    if any(entry["uid"] == reference["uid"] for entry in present):
        return
    notes = labels.progress_annotations(owner)
    change = {"metadata": {"ownerReferences": [*present, reference], "annotations": notes}}
    api.merge(kinds.VOLUMES, volume.namespace, volume.name, found["metadata"]["resourceVersion"], change)


def _annotate(api: Api, volume: Volume, notes: dict[str, str | None]) -> None:
    api.merge(kinds.VOLUMES, volume.namespace, volume.name, volume.resource_version, {"metadata": {"annotations": notes}})


def _must_be_owned(volume: Volume, owner: Owner) -> None:
    """Judged on what was read; the resource version in the patch proves that it still is so."""
    vm_uuid = owner.source.rpartition("/")[2]
    if not volume.ours or volume.key.partition("/")[0] != vm_uuid:
        raise failures.not_ours(_KIND, volume.namespace, volume.name, "does not carry our key")
    if volume.migration != owner.migration:
        raise failures.not_ours(_KIND, volume.namespace, volume.name, f"belongs to run {volume.migration} now, not to {owner.migration}")
