"""Deletion as the API server does it: preconditions, grace, finalizers and propagation. Nothing is collected here (collector.py)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.lab.cluster.failures import conflict, success
from reconciler.lab.cluster.kinds import JOB, NAMESPACE, POD, PV, PVC, QUOTA, SERVICE_ACCOUNT, STORAGE_CLASS, Kind
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
# The kinds whose strategy sets ReturnDeletedObject; clients parse the reply as the kind itself.
_ANSWERED_WITH_OBJECT = frozenset({POD, PVC, PV, SERVICE_ACCOUNT, QUOTA, STORAGE_CLASS})
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
STAMP = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """metav1.DeleteOptions, from the body or the query. `policy` "" is the kind's default."""

    policy: str = ""  # Background, Foreground, Orphan
    grace_s: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


def delete(store: Store, kind: Kind, obj: Json, options: DeleteOptions) -> Json:
    """The reply's body: the object while it is held; once gone, the object or a Status, by kind. Errors: 409."""
    _check_preconditions(kind, obj, options)
    meta, new = obj["metadata"], clone(obj)
    grace = _grace(kind, obj, options)
    _set_finalizers(new["metadata"], options.policy or _default_policy(kind, meta.get("finalizers") or []))
    held = bool(new["metadata"].get("finalizers")) or grace > 0 or kind is NAMESPACE
    gone = obj if kind in _ANSWERED_WITH_OBJECT else success(kind, meta["name"], meta["uid"])
    if options.dry_run:
        return new if held else gone
    if not held:
        store.remove(kind, obj)
        return gone
    if not meta.get("deletionTimestamp") or (kind is POD and grace < (meta.get("deletionGracePeriodSeconds") or 0)):
        at = datetime.strptime(store.timestamp(), STAMP).replace(tzinfo=UTC) + timedelta(seconds=grace)
        new["metadata"] |= {"deletionTimestamp": at.strftime(STAMP), "deletionGracePeriodSeconds": grace}
    if kind is NAMESPACE:
        new["status"]["phase"] = "Terminating"
    written = store.replace(kind, new)
    return written if store.by_uid(meta["uid"]) else gone


def _check_preconditions(kind: Kind, obj: Json, options: DeleteOptions) -> None:
    meta = obj["metadata"]
    if options.uid and options.uid != meta["uid"]:
        why = f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']})."
        raise conflict(kind, meta["name"], why + " The object might have been deleted and then recreated")
    if options.resource_version and options.resource_version != meta["resourceVersion"]:
        why = f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion in record"
        raise conflict(kind, meta["name"], f"{why} ({meta['resourceVersion']}). The object might have been modified")


def _default_policy(kind: Kind, finalizers: list[str]) -> str:
    if FOREGROUND in finalizers:
        return "Foreground"
    # batch/v1 Jobs orphan their pods unless told otherwise: kept by Kubernetes for old clients.
    return "Orphan" if kind is JOB or ORPHAN in finalizers else "Background"


def _grace(kind: Kind, obj: Json, options: DeleteOptions) -> int:
    """Only pods have a grace period, and only while something of theirs may run on a node."""
    if kind is not POD:
        return 0
    if not obj["spec"].get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace_s is not None:
        return options.grace_s
    return int(obj["spec"].get("terminationGracePeriodSeconds", 30))


def _set_finalizers(meta: Json, policy: str) -> None:
    wanted = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(policy)
    kept = [f for f in meta.get("finalizers") or () if f not in (FOREGROUND, ORPHAN)]
    if wanted:
        kept.append(wanted)
    if kept:
        meta["finalizers"] = kept
    else:
        meta.pop("finalizers", None)
