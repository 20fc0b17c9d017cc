"""Writes of the API server: create, update, patch and apply, with admission, optimistic concurrency and field ownership.

What it is: the path from a request's body to the store. What it is not: HTTP (endpoints.py), deletion (deletion.py).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from reconciler.lab.cluster import admission, defaults, ownership, quota
from reconciler.lab.cluster.failures import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    modified,
    not_found,
    unsupported_media,
)
from reconciler.lab.cluster.kinds import NAMESPACE, PVC, SECRET, Kind
from reconciler.lab.cluster.patching import json_patch, merge_patch, strategic_merge
from reconciler.lab.cluster.schemafields import prune
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC_PATCH, APPLY_PATCH = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
_CARRIED = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "generateName")


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The query of a write. `manager`: fieldManager, or the first word of the user agent."""

    manager: str
    dry_run: bool = False
    force: bool = False
    validation: str = "Warn"  # Strict, Warn, Ignore
    explicit_manager: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """What a write is about. `subresource` is "" or "status"."""

    kind: Kind
    namespace: str
    name: str = ""
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    obj: Json
    created: bool
    unknown: tuple[str, ...] = ()


class Registry:
    """Call with the store's lock held, so that a write is one step."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def live(self, target: Target) -> Json:
        obj = self._store.get(target.kind, target.namespace, target.name)
        if obj is None:
            raise not_found(target.kind, target.name)
        return obj

    def create(self, target: Target, body: Json, options: WriteOptions) -> Written:
        obj, unknown = self._accept(target, body, options)
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if not meta.get("name"):
            if not meta.get("generateName"):
                raise invalid(target.kind, "", ("metadata.name", "Required value: name or generateName is required"))
            meta["name"] = meta["generateName"][:58] + uuid.uuid4().hex[:5]
        return self._insert(target.kind, obj, options, unknown, "Update")

    def update(self, target: Target, body: Json, options: WriteOptions) -> Written:
        live = self.live(target)
        obj, unknown = self._accept(target, body, options)
        if target.kind.custom and not obj["metadata"].get("resourceVersion"):
            cause = ("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
            raise invalid(target.kind, target.name, cause)
        return self._replace(target, live, obj, options, unknown, "Update")

    def patch(self, target: Target, media: str, body: Any, options: WriteOptions) -> Written:
        if media == APPLY_PATCH:
            return self._apply(target, body, options)
        live = self.live(target)
        if media == JSON_PATCH:
            obj = json_patch(live, body)
        elif media == MERGE_PATCH and isinstance(body, dict):
            obj = merge_patch(clone(live), body)
        elif media == STRATEGIC_PATCH and isinstance(body, dict) and not target.kind.custom:
            obj = strategic_merge(clone(live), body)
        elif media in (MERGE_PATCH, STRATEGIC_PATCH) and not isinstance(body, dict):
            raise bad_request("error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}")
        else:
            accepted = (
                (JSON_PATCH, MERGE_PATCH, APPLY_PATCH) if target.kind.custom else (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
            )
            raise unsupported_media(accepted)
        obj, unknown = self._accept(target, obj, options)
        return self._replace(target, live, obj, options, unknown, "Update")

    def _apply(self, target: Target, body: Json, options: WriteOptions) -> Written:
        if not options.explicit_manager:
            raise ApiError(
                422, "Invalid", 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
            )
        if (body.get("metadata") or {}).get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        body.setdefault("metadata", {}).setdefault("name", target.name)
        obj, unknown = self._accept(target, body, options)
        live = self._store.get(target.kind, target.namespace, target.name)
        if live is None and obj["metadata"].get("resourceVersion"):
            raise conflict(target.kind, target.name, "the object does not exist, but a resourceVersion was given")
        if target.subresource == "status" and live is not None:
            merged = merge_patch(clone(live), {"status": obj.get("status") or {}})
            return self._replace(target, live, merged, options, unknown, "Apply")
        if target.kind.subresources and "status" in target.kind.subresources:
            obj.pop("status", None)
        asked = obj["metadata"].pop("resourceVersion", None)
        merged = ownership.apply(live, obj, self._writer(target, options, "Apply"), options.force, target.kind.custom)
        if live is None:
            return self._insert(target.kind, merged, options, unknown, "Apply")
        merged["metadata"]["resourceVersion"] = asked or live["metadata"]["resourceVersion"]
        return self._replace(target, live, merged, options, unknown, "Apply")

    def _accept(self, target: Target, body: Any, options: WriteOptions) -> tuple[Json, tuple[str, ...]]:
        """The body as an object of the target's kind and place, without fields that the schema does not know."""
        kind = target.kind
        if not isinstance(body, dict) or not isinstance(body.get("metadata", {}), dict):
            raise bad_request("the object provided is unrecognized (must be of type " + kind.kind + ")")
        obj: Json = {"apiVersion": kind.api_version, "kind": kind.kind, **clone(body)}
        if obj["kind"] != kind.kind or obj["apiVersion"] != kind.api_version:
            raise bad_request(
                f"{obj['kind']} in version {obj['apiVersion']!r} cannot be handled as a {kind.kind}: "
                f"the API version or kind in the data does not match the expected {kind.api_version}, Kind={kind.kind}"
            )
        meta = obj.setdefault("metadata", {})
        if target.name and meta.setdefault("name", target.name) != target.name:
            raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({target.name})")
        if kind.namespaced and meta.setdefault("namespace", target.namespace) != target.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if kind is SECRET:
            defaults.fill_secret(obj)
        unknown = prune(kind, obj)
        if unknown and options.validation == "Strict":
            listed = ", ".join(f'unknown field "{field}"' for field in unknown)
            raise bad_request(
                f"{kind.kind} in version {kind.version!r} cannot be handled as a {kind.kind}: strict decoding error: {listed}"
            )
        return obj, unknown if options.validation == "Warn" else ()

    def _writer(self, target: Target, options: WriteOptions, operation: str) -> ownership.Writer:
        kind, time = target.kind, self._store.timestamp()
        return ownership.Writer(options.manager, operation, kind.api_version, time, target.subresource)

    def _insert(self, kind: Kind, obj: Json, options: WriteOptions, unknown: tuple[str, ...], operation: str) -> Written:
        meta = obj["metadata"]
        self._check_namespace(kind, meta.get("namespace", ""), meta["name"])
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = self._store.timestamp()
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
            meta.pop(field, None)
        if "status" in kind.subresources:
            obj.pop("status", None)
        if operation == "Update":
            meta.pop("managedFields", None)
            ownership.track(None, obj, self._writer(Target(kind, ""), options, operation), kind.custom)
        defaults.fill(kind, obj, self._store)
        if kind.generation:
            meta["generation"] = 1
        admission.check_create(kind, obj, self._store)
        quota.check(self._store, kind, obj)
        taken = self._store.get(kind, meta.get("namespace", ""), meta["name"])
        if taken is not None:
            raise already_exists(kind, meta["name"], deleting=bool(taken["metadata"].get("deletionTimestamp")))
        return Written(obj if options.dry_run else self._store.insert(kind, obj), True, unknown)

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        found = self._store.get(NAMESPACE, "", namespace)
        if found is None:
            raise not_found(NAMESPACE, namespace)
        if found["metadata"].get("deletionTimestamp"):
            raise forbidden(kind, name, f"unable to create new content in namespace {namespace} because it is being terminated")

    def _replace(self, target: Target, live: Json, obj: Json, options: WriteOptions, unknown: tuple[str, ...], operation: str) -> Written:
        kind, meta, was = target.kind, obj["metadata"], live["metadata"]
        if meta.get("resourceVersion") and meta["resourceVersion"] != was["resourceVersion"]:
            raise modified(kind, target.name)
        if meta.get("uid") and meta["uid"] != was["uid"]:
            raise conflict(kind, target.name, f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {was['uid']}")
        managed = meta.get("managedFields")
        for field in _CARRIED:
            meta.pop(field, None)
            if field in was:
                meta[field] = was[field]
        if target.subresource == "status":
            status = obj.get("status")
            obj = {**clone(live), "status": status or {}}
        elif "status" in kind.subresources:
            obj.pop("status", None)
            if "status" in live:
                obj["status"] = live["status"]
        if was.get("deletionTimestamp") and set(obj["metadata"].get("finalizers") or ()) - set(was.get("finalizers") or ()):
            cause = ("metadata.finalizers", "Forbidden: no new finalizers can be added if the object is being deleted")
            raise invalid(kind, target.name, cause)
        if target.subresource != "status":
            admission.check_update(kind, live, obj, self._store)
        if kind is PVC and obj["spec"] != live["spec"]:
            quota.check(self._store, kind, obj, live)
        if operation == "Apply" and not target.subresource:
            obj["metadata"]["managedFields"] = managed
        else:
            ownership.track(live, obj, self._writer(target, options, operation), kind.custom)
        return Written(obj if options.dry_run else self._store.replace(kind, obj), False, unknown)
