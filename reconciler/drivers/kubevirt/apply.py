"""Writes that respect ownership: create first, look whose it is, then change or delete only what carries our key.

The key: label managed-by, annotation `reconciler.dev/source` of this very source VM, and for deletions the run that owns the object now.
What it is: one guarded verb per need, on JSON objects. What it is not: what the objects mean (target.py), or requests (api.py).
"""

from __future__ import annotations

import logging
from typing import Any

from reconciler.core.target import Owner
from reconciler.drivers.kubevirt import failures, labels, parse
from reconciler.drivers.kubevirt.api import Api
from reconciler.drivers.kubevirt.labels import Obj
from reconciler.drivers.kubevirt.resources import Resource
from reconciler.errors import RetryableError

log = logging.getLogger(__name__)


def create_or_find(api: Api, resource: Resource, obj: Obj, owner: Owner, remedy: str) -> tuple[Obj, bool]:
    """Make `obj`, or return the one of that name if it carries our key. The flag: it was made now.

    POST comes first, so that a foreign object is never overwritten by an apply that takes it for ours.
    Errors: TerminalError NameTaken with `remedy`; RetryableError Conflict while an old one of ours is being deleted.
    """
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    try:
        made = api.create(resource, obj)
    except failures.AlreadyExists:
        found = api.find(resource, namespace, name)
    else:
        log.info("object created", extra={"kind": resource.kind, "namespace": namespace, "object": name})
        return made, True
    if found is None:
        raise RetryableError("Conflict", f"{resource.kind} {namespace}/{name} existed a moment ago and is gone now")
    if not labels.carries_key(found, owner):
        raise failures.name_taken(resource.kind, namespace, name, remedy)
    if parse.deleting(found):
        raise failures.being_deleted(resource.kind, namespace, name)
    return found, False


def read_ours(api: Api, resource: Resource, namespace: str, name: str, owner: Owner) -> Obj:
    """A fresh read of what we are about to change. Errors: RetryableError NotFound, TerminalError NotOurs."""
    found = api.get(resource, namespace, name)
    _must_be_ours(resource, found, owner)
    return found


def drop(api: Api, resource: Resource, namespace: str, name: str, owner: Owner, propagation: str = "Background") -> None:
    """Delete what carries our key and belongs to this run, exactly as it was read. Absent, or going already, is success.

    Errors: TerminalError NotOurs; RetryableError Conflict when it changed between the read and the deletion.
    """
    found = api.find(resource, namespace, name)
    if found is None or parse.deleting(found):
        return
    _must_be_ours(resource, found, owner)
    run = labels.annotations_of(found).get(labels.MIGRATION, "")
    if run != owner.migration:
        raise failures.not_ours(resource.kind, namespace, name, f"belongs to run {run} now, not to {owner.migration}")
    api.delete(resource, found, propagation)
    log.info("object deleted", extra={"kind": resource.kind, "namespace": namespace, "object": name})


def patch_annotations(api: Api, resource: Resource, seen: Obj, changes: dict[str, str | None], spec: dict[str, Any] | None = None) -> None:
    """Merge patch onto exactly the version that was read; None removes an annotation."""
    metadata = seen["metadata"]
    change: dict[str, Any] = {"metadata": {"annotations": changes}} | ({"spec": spec} if spec else {})
    api.merge(resource, metadata.get("namespace"), metadata["name"], metadata["resourceVersion"], change)


def _must_be_ours(resource: Resource, found: Obj, owner: Owner) -> None:
    if not labels.carries_key(found, owner):
        metadata = found["metadata"]
        raise failures.not_ours(resource.kind, metadata["namespace"], metadata["name"], "does not carry our key")
