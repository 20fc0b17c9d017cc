"""The key that everything of ours carries in a cluster: labels to select by, annotations with the identity in full, and the test of it.

What it is: the one place that spells `reconciler.dev/…`, and the JSON form of marks and watermarks. Pure.
What it is not: a decision on what to do with an object; apply.py refuses what does not carry our key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reconciler.core.model import Mark, MarkState, Watermark
from reconciler.core.names import label_value
from reconciler.core.target import Instance, Owner

Obj = Mapping[str, Any]  # a Kubernetes object as JSON; it does not leave this folder

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "reconciler"  # the label's value, and our field manager
PLAN, MIGRATION, VM = "reconciler.dev/plan", "reconciler.dev/migration", "reconciler.dev/vm"
DISK, ROLE, INSTANCE = "reconciler.dev/disk", "reconciler.dev/role", "reconciler.dev/instance"
SOURCE, MILESTONE, COMMIT = "reconciler.dev/source", "reconciler.dev/milestone", "reconciler.dev/commit"
DISK_UUID, SOURCE_VM_UUID = "reconciler.dev/disk-uuid", "reconciler.dev/source-vm-uuid"
MARK, WATERMARK = "reconciler.dev/mark", "reconciler.dev/watermark"
ROUND_KEY, ATTEMPT = "reconciler.dev/round-key", "reconciler.dev/attempt"
TRIAL = "reconciler.dev/trial"
SOURCE_NAME = "reconciler.dev/source-name"
DISK_SOURCE, DISK_INDEX = "forklift.konveyor.io/disk-source", "forklift.konveyor.io/disk-index"
VM_UUID = "vmUUID"  # Forklift's label

ROLE_BINDER, ROLE_IMPORTER = "binder", "importer"


def owner_labels(owner: Owner, role: str = "", disk_uuid: str = "") -> dict[str, str]:
    labels = {
        MANAGED_BY: MANAGER,
        PLAN: label_value(owner.plan),
        MIGRATION: label_value(owner.migration),
        VM: label_value(owner.vm),
        INSTANCE: owner.instance.id,
    }
    if role:
        labels[ROLE] = role
    if disk_uuid:
        labels[DISK] = label_value(disk_uuid)
    return labels


def owner_annotations(owner: Owner) -> dict[str, str]:
    return {
        PLAN: owner.plan,
        MIGRATION: owner.migration,
        VM: owner.vm,
        SOURCE: owner.source,
        **progress_annotations(owner),
    }


def progress_annotations(owner: Owner) -> dict[str, str]:
    """Which committed state allowed the last write (safety 7)."""
    return {MILESTONE: owner.milestone, COMMIT: owner.commit}


def labels_of(obj: Obj) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_managed(obj: Obj) -> bool:
    return labels_of(obj).get(MANAGED_BY) == MANAGER


def instance_of(obj: Obj) -> str:
    return labels_of(obj).get(INSTANCE, "")


def is_ours(obj: Obj, instance: Instance) -> bool:
    """Our label alone is any reconciler's; one on another repo is a stranger (safety 6)."""
    return is_managed(obj) and instance.owns(labels_of(obj).get(INSTANCE))


def carries_key(obj: Obj, owner: Owner) -> bool:
    """Made by us for this very source VM, by whichever run."""
    return is_ours(obj, owner.instance) and annotations_of(obj).get(SOURCE) == owner.source


def mark_to_text(mark: Mark) -> str:
    return json.dumps(
        {
            "diskUuid": mark.disk_uuid,
            "pvcUid": mark.volume_uid,
            "round": mark.round,
            "epoch": mark.epoch,
            "changeId": mark.change_id,
            "state": mark.state.value,
            "provenBytes": mark.proven_bytes,
            "target": mark.target,
        },
        sort_keys=True,
    )


def mark_from_text(text: str | None) -> Mark | None:
    """None for no mark and for one that cannot be read: both mean dirty, never clean."""
    try:
        raw = json.loads(text) if text else None
        if not isinstance(raw, dict):
            return None
        change_id = raw["changeId"]
        return Mark(
            disk_uuid=str(raw["diskUuid"]),
            volume_uid=str(raw["pvcUid"]),
            round=int(raw["round"]),
            epoch=str(raw["epoch"]),
            change_id=None if change_id is None else str(change_id),
            state=MarkState(raw["state"]),
            proven_bytes=None if raw["provenBytes"] is None else int(raw["provenBytes"]),
            target=str(raw["target"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def watermark_to_text(watermark: Watermark) -> str:
    return json.dumps({"bytes": watermark.proven_bytes, "roundKey": watermark.round_key}, sort_keys=True)


def watermark_from_text(text: str | None) -> Watermark | None:
    """None for no watermark and for one that cannot be read: nothing is proven then."""
    try:
        raw = json.loads(text) if text else None
        return Watermark(str(raw["roundKey"]), int(raw["bytes"])) if isinstance(raw, dict) else None
    except (ValueError, KeyError, TypeError):
        return None
