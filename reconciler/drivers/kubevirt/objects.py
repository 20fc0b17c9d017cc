"""Builders of plain objects: Namespace, PersistentVolumeClaim, the Secret of a copy. Neutral values in, JSON out. Pure.

What it is not: pods (pods.py), the VirtualMachine (machine.py), or requests (apply.py, target.py).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from reconciler.core.model import Secret
from reconciler.core.names import label_value
from reconciler.core.target import Owner, VolumeSpec
from reconciler.drivers.kubevirt import labels
from reconciler.drivers.kubevirt.quantity import from_bytes

Json = dict[str, Any]

SPEC_KEY, CA_KEY = "spec.json", "ca.crt"


def namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {labels.MANAGED_BY: labels.MANAGER}}}


def volume_identity(spec: VolumeSpec) -> Json:
    """Labels and annotations of a PVC: what an adoption writes anew."""
    return {
        "labels": {
            **spec.labels,
            labels.VM_UUID: label_value(spec.source_vm_uuid),
            **labels.owner_labels(spec.owner, disk_uuid=spec.disk_uuid),
        },
        "annotations": {
            **labels.owner_annotations(spec.owner),
            labels.DISK_UUID: spec.disk_uuid,
            labels.SOURCE_VM_UUID: spec.source_vm_uuid,
            labels.DISK_SOURCE: spec.disk_source,
            labels.DISK_INDEX: str(spec.disk_index),
        },
    }


def volume(spec: VolumeSpec) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": spec.namespace, "name": spec.name, **volume_identity(spec)},
        "spec": {
            "storageClassName": spec.storage_class,
            "volumeMode": spec.volume_mode.value,
            "accessModes": [spec.access_mode],
            "resources": {"requests": {"storage": from_bytes(spec.request_bytes)}},
        },
    }


def copy_secret_data(spec_json: str, credentials: Mapping[str, Secret], ca_pem: str | None) -> dict[str, str]:
    """`data` of the Secret: the worker's spec, one key per credential, and the CA when there is one."""
    texts = {name: secret.reveal() for name, secret in credentials.items()} | {SPEC_KEY: spec_json}
    if ca_pem is not None:
        texts[CA_KEY] = ca_pem
    return {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}


def copy_secret(namespace: str, name: str, job_uid: str, owner: Owner, data: Mapping[str, str]) -> Json:
    """Owned by the Job, so that the garbage collector removes it with the Job."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": labels.owner_labels(owner, role=labels.ROLE_IMPORTER),
            "annotations": labels.owner_annotations(owner),
            "ownerReferences": [owner_reference("batch/v1", "Job", name, job_uid)],
        },
        "type": "Opaque",
        "data": dict(data),
    }


def owner_reference(api_version: str, kind: str, name: str, uid: str) -> Json:
    """Not a controller, and it does not hold up the owner's deletion."""
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": False, "blockOwnerDeletion": False}
