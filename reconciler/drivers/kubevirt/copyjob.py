"""Starting a copy: Job suspended -> Secret owned by it -> unsuspended. Each step may meet its own earlier result: a crash converges.

What it is: the three requests and the worker's spec with the paths of this pod. What it is not: the decision that no other writer is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reconciler.core.copyspec import CopyDisk, CopyResult, CopySpec, DiskProgress, parse_line
from reconciler.core.target import CopyJob, VolumeMode
from reconciler.drivers.kubevirt import apply, failures, inventory, labels, objects, pods
from reconciler.drivers.kubevirt import resources as kinds
from reconciler.drivers.kubevirt.api import Api
from reconciler.drivers.kubevirt.labels import Obj
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.errors import RetryableError, TerminalError
from reconciler.ports import CopyProgress, CopySource

_REMEDY = "remove it, or let a new Migration take another attempt"
# A worker prints one line a second; 20 of them hold the last progress even behind a traceback.
_LOG = {"tailLines": "20", "limitBytes": str(1 << 20)}


def ensure(api: Api, settings: TargetSettings, job: CopyJob, disks: Sequence[CopyDisk], source: CopySource, spec: CopySpec) -> None:
    """Errors: TerminalError NameTaken, Invalid; RetryableError."""
    found, _ = apply.create_or_find(api, kinds.JOBS, pods.importer(job, settings), job.owner, _REMEDY)
    _must_be_this_round(found, job)
    if not found["spec"].get("suspend"):
        return  # it runs or ran, so its Secret was there
    data = objects.copy_secret_data(fill_in(job, disks, source, spec).to_json(), source.credentials, source.ca_pem)
    _ensure_secret(api, job, found["metadata"]["uid"], data)
    # On any version: the Job controller writes the condition Suspended right after the POST, and a name is never used for another Job.
    api.merge(kinds.JOBS, job.namespace, job.name, None, {"spec": {"suspend": False}})


def fill_in(job: CopyJob, disks: Sequence[CopyDisk], source: CopySource, spec: CopySpec) -> CopySpec:
    """The worker's spec as this pod sees its volumes and files."""
    mounts = {uuid: (index, mode) for index, (uuid, _, mode) in enumerate(job.volumes)}
    placed = tuple(replace(disk, target=pods.target_path(*_mount(mounts, disk, job))) for disk in disks)
    ca_file = f"{pods.CREDENTIALS_DIR}/{objects.CA_KEY}" if source.ca_pem is not None else None
    return replace(
        spec,
        disks=placed,
        tls=replace(source.tls, ca_file=ca_file),
        credentials_dir=pods.CREDENTIALS_DIR,
        vddk=replace(spec.vddk, libdir=pods.VDDK_LIBDIR) if spec.vddk is not None else None,
        termination_file=pods.TERMINATION_FILE,
    )


def _mount(mounts: Mapping[str, tuple[int, VolumeMode]], disk: CopyDisk, job: CopyJob) -> tuple[int, VolumeMode]:
    if disk.uuid not in mounts:
        raise TerminalError("Invalid", f"Job {job.namespace}/{job.name} has no volume for disk {disk.label} ({disk.uuid})")
    return mounts[disk.uuid]


def _must_be_this_round(found: Obj, job: CopyJob) -> None:
    """The name holds run, VM, round and attempt; an object of ours under it that says otherwise is not what we are to start."""
    notes = labels.annotations_of(found)
    if notes.get(labels.MIGRATION) != job.owner.migration or notes.get(labels.ROUND_KEY) != job.round_key:
        raise failures.name_taken("Job", job.namespace, job.name, f"it belongs to run {notes.get(labels.MIGRATION)}; {_REMEDY}")


def _ensure_secret(api: Api, job: CopyJob, job_uid: str, data: Mapping[str, str]) -> None:
    """A Secret left by a crash before the start gets today's credentials; nobody has mounted it yet."""
    wanted = objects.copy_secret(job.namespace, job.name, job_uid, job.owner, data)
    found, made = apply.create_or_find(api, kinds.SECRETS, wanted, job.owner, _REMEDY)
    if made:
        return
    metadata = found["metadata"]
    if all(owner["uid"] != job_uid for owner in metadata.get("ownerReferences") or []):
        raise RetryableError("Conflict", f"Secret {job.namespace}/{job.name} is of an earlier Job and will be collected")
    if found.get("data") != data:
        api.merge(kinds.SECRETS, job.namespace, job.name, metadata["resourceVersion"], {"data": dict(data)})


def read_progress(api: Api, namespace: str, job: str) -> CopyProgress:
    """Empty while there is no pod, no log yet, or no line of ours in its tail."""
    text = ""
    for pod in inventory.read_pods_of_job(api, namespace, job):
        if (pod.get("status") or {}).get("phase") in ("Running", "Succeeded", "Failed"):
            text = _read_log(api, namespace, pod["metadata"]["name"])
    return parse_log(text)


def _read_log(api: Api, namespace: str, pod: str) -> str:
    """400 and 404: the container has not started, or the pod went a moment ago."""
    try:
        return api.text(kinds.PODS, namespace, pod, "log", _LOG)
    except failures.NotFound:
        return ""
    except TerminalError as err:
        if err.reason != "Invalid":
            raise
        return ""


def parse_log(text: str) -> CopyProgress:
    disks: tuple[DiskProgress, ...] = ()
    result: CopyResult | None = None
    for line in text.splitlines():
        match parse_line(line):
            case CopyResult() as found:
                result = found
            case tuple() as found:
                disks = found
            case None:
                pass
    return CopyProgress(disks, result)
