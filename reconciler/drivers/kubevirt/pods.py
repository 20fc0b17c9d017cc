"""Builders of what runs on the target for us: the binder pod and the importer Job. Pure.

Both pass Pod Security "restricted". uid, gid and fsGroup are 107 (qemu in virt-launcher), so that the guest's process can open what the
worker wrote (safety 25); the worker itself sets umask 0007.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reconciler.core.target import BinderSpec, CopyJob, Owner, Placement, PodWishes, VolumeMode
from reconciler.drivers.kubevirt import labels
from reconciler.drivers.kubevirt.objects import SPEC_KEY, Json
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.drivers.kubevirt.quantity import from_bytes, to_bytes

QEMU_ID = 107
SPEC_DIR = "/var/run/reconciler/spec"
CREDENTIALS_DIR = "/var/run/reconciler/credentials"
TERMINATION_FILE = "/dev/termination-log"
# Forklift's convention: the image's own entrypoint copies VDDK into a volume at /opt. The worker sees that volume elsewhere: its program
# is in /opt.
VDDK_CONTAINER, _VDDK_VOLUME, _VDDK_INTO = "vddk-side-car", "vddk-vol-mount", "/opt"
_VDDK_DIR = "/var/run/reconciler/vddk"
VDDK_LIBDIR = f"{_VDDK_DIR}/vmware-vix-disklib-distrib"
_VDDK_MIB = 256  # of memory for each disk, beyond the worker's own limit: an nbdkit with the library
_SECRET_MODE = 0o440


def mount_path(index: int, mode: VolumeMode) -> str:
    """Where the pod sees its volume: a folder, or the device itself."""
    return f"/dev/reconciler/disk{index}" if mode is VolumeMode.BLOCK else f"/var/run/reconciler/disks/{index}"


def target_path(index: int, mode: VolumeMode) -> str:
    """Where the worker writes the disk."""
    path = mount_path(index, mode)
    return path if mode is VolumeMode.BLOCK else f"{path}/disk.img"


def binder(spec: BinderSpec, settings: TargetSettings) -> Json:
    """The importer's twin (user, image, account, placement, command), which opens each volume and ends.

    Grace of 1 s: 0 would be a forced deletion, which we never ask for (safety 4).
    """
    volumes = [f"{mode.value}:{claim}:{mount_path(index, mode)}" for index, (claim, mode) in enumerate(spec.volumes)]
    vddk = ["--vddk", VDDK_LIBDIR] if spec.vddk_image else []
    command = [*settings.worker_command, *vddk, "--try", *volumes]
    pod_spec = _pod_spec(spec.volumes, spec.placement, settings, "binder", command, spec.wishes)
    pod_spec["terminationGracePeriodSeconds"] = 1
    if spec.vddk_image:
        _bring_vddk(pod_spec, spec.vddk_image, len(spec.volumes), spec.wishes)
    metadata = _metadata(spec.namespace, spec.name, spec.owner, labels.ROLE_BINDER)
    metadata["annotations"] |= {labels.TRIAL: spec.trial}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec}


def importer(job: CopyJob, settings: TargetSettings) -> Json:
    """Suspended: the Secret it mounts is made after it (it needs the Job's uid), and only then may the pod start.

    backoffLimit 0 and podReplacementPolicy Failed: Kubernetes never starts a second writer by itself (safety 4).
    """
    volumes = tuple((name, mode) for _, name, mode in job.volumes)
    command = [*settings.worker_command, f"{SPEC_DIR}/{SPEC_KEY}"]
    pod_spec = _pod_spec(volumes, job.placement, settings, "importer", command, job.wishes)
    _mount_secret(pod_spec, job.name)
    if job.vddk_image:
        _bring_vddk(pod_spec, job.vddk_image, len(volumes), job.wishes)
    metadata = _metadata(job.namespace, job.name, job.owner, labels.ROLE_IMPORTER)
    metadata["annotations"] |= {labels.ROUND_KEY: job.round_key, labels.ATTEMPT: str(job.attempt)}
    pod_metadata = {"labels": dict(metadata["labels"]), "annotations": dict(metadata["annotations"])}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "suspend": True,
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {"metadata": pod_metadata, "spec": pod_spec},
        },
    }


def _metadata(namespace: str, name: str, owner: Owner, role: str) -> Json:
    return {
        "namespace": namespace,
        "name": name,
        "labels": labels.owner_labels(owner, role=role),
        "annotations": labels.owner_annotations(owner),
    }


def _resources(settings: TargetSettings, wishes: PodWishes) -> Json:
    """Ours, unit by unit unless ForkliftController speaks of that unit: half a pair of ours beside half of theirs may contradict itself."""
    asked = _asked(wishes)
    out: Json = {}
    for half in ("limits", "requests"):
        ours = {unit: value for unit, value in settings.resources.get(half, {}).items() if unit not in asked}
        if values := {**ours, **wishes.resources.get(half, {})}:
            out[half] = values
    return out


def _asked(wishes: PodWishes) -> set[str]:
    return {unit for values in wishes.resources.values() for unit in values}


def _pod_spec(
    volumes: Iterable[tuple[str, VolumeMode]],
    placement: Placement,
    settings: TargetSettings,
    container: str,
    command: list[str],
    wishes: PodWishes,
) -> Json:
    main = {
        "name": container,
        "image": settings.worker_image,
        "imagePullPolicy": wishes.pull_policy or settings.image_pull_policy,
        "command": command,
        "resources": _resources(settings, wishes),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePath": TERMINATION_FILE,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": QEMU_ID,
            "runAsGroup": QEMU_ID,
            "fsGroup": QEMU_ID,
            # A recursive chown of a volume with one big file is wasted time on every start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [main],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    _mount_disks(spec, volumes)
    _place(spec, placement)
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return spec


def _mount_disks(spec: Json, volumes: Iterable[tuple[str, VolumeMode]]) -> None:
    main: dict[str, Any] = spec["containers"][0]
    for index, (claim, mode) in enumerate(volumes):
        name = f"disk-{index}"
        spec["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": claim}})
        if mode is VolumeMode.BLOCK:
            main.setdefault("volumeDevices", []).append({"name": name, "devicePath": mount_path(index, mode)})
        else:
            main["volumeMounts"].append({"name": name, "mountPath": mount_path(index, mode)})


def _mount_secret(spec: Json, secret: str) -> None:
    """One Secret, two folders: the spec alone, and the credentials beside it."""
    spec["volumes"] += [
        {"name": "spec", "secret": {"secretName": secret, "defaultMode": _SECRET_MODE, "items": [{"key": SPEC_KEY, "path": SPEC_KEY}]}},
        {"name": "credentials", "secret": {"secretName": secret, "defaultMode": _SECRET_MODE}},
    ]
    spec["containers"][0]["volumeMounts"] += [
        {"name": "spec", "mountPath": SPEC_DIR, "readOnly": True},
        {"name": "credentials", "mountPath": CREDENTIALS_DIR, "readOnly": True},
    ]


def _bring_vddk(spec: Json, image: str, disks: int, wishes: PodWishes) -> None:
    """An init container that copies VDDK into an empty volume, as locked up as the worker beside it."""
    main: dict[str, Any] = spec["containers"][0]
    limits = main["resources"].get("limits", {})
    if "memory" in limits and "memory" not in _asked(wishes):
        limits["memory"] = from_bytes(to_bytes(limits["memory"]) + (disks * _VDDK_MIB << 20))
    twin = ("imagePullPolicy", "resources", "securityContext", "terminationMessagePath", "terminationMessagePolicy")
    init = {key: main[key] for key in twin} | {"name": VDDK_CONTAINER, "image": image}
    spec["initContainers"] = [{**init, "volumeMounts": [{"name": _VDDK_VOLUME, "mountPath": _VDDK_INTO}]}]
    spec["volumes"].append({"name": _VDDK_VOLUME, "emptyDir": {}})
    main["volumeMounts"].append({"name": _VDDK_VOLUME, "mountPath": _VDDK_DIR, "readOnly": True})


def _place(spec: Json, placement: Placement) -> None:
    if placement.node_selector:
        spec["nodeSelector"] = dict(placement.node_selector)
    if placement.affinity:
        spec["affinity"] = dict(placement.affinity)
    if placement.service_account:
        spec["serviceAccountName"] = placement.service_account
