"""Where each record stands on the status branch, and what kind of record a path holds. Text only.

Names come from manifests and from sources, so every part is checked or escaped: no record can leave its folder.
"""

from __future__ import annotations

import re
from enum import Enum
from urllib.parse import quote, unquote

from reconciler.core.model import ObjectRef
from reconciler.core.record import Claim, ObjectStatus, RunRecord, VmRecord
from reconciler.manifests.schema.registry import KINDS

INSTANCE = "instance.yaml"  # which reconciler this branch belongs to; at its root, so that it cannot be taken for a record


class RecordKind(Enum):
    """What a path holds; the value is the dataclass."""

    STATUS = ObjectStatus
    RUN = RunRecord
    VM = VmRecord
    CLAIM = Claim


_SHAPES = (
    (RecordKind.VM, re.compile(r"runs/[^/]+/[^/]+/vms/[^/]+\.yaml")),
    (RecordKind.RUN, re.compile(r"runs/[^/]+/[^/]+/run\.yaml")),
    (RecordKind.CLAIM, re.compile(r"claims/[^/]+/[^/]+\.yaml")),
    (RecordKind.STATUS, re.compile(r"status/[^/]+/[^/]+/[^/]+\.yaml")),
)
_OURS = ("runs/", "claims/", "status/")
_ARCHIVE = re.compile(r"archive/([^/]+)/([^/]+)/.+")


def path_of_status(kind: str, ref: ObjectRef) -> str:
    return f"status/{_part(ref.namespace)}/{KINDS[kind].plural}/{_part(ref.name)}.yaml"


def path_of_run(run: ObjectRef) -> str:
    return f"runs/{_part(run.namespace)}/{_part(run.name)}/run.yaml"


def path_of_vm(run: ObjectRef, slug: str) -> str:
    return f"runs/{_part(run.namespace)}/{_part(run.name)}/vms/{_part(slug)}.yaml"


def path_of_claim(site_uuid: str, vm_uuid: str) -> str:
    return f"claims/{_part(site_uuid)}/{_part(vm_uuid)}.yaml"


def path_of_archive(plan: ObjectRef, migration: ObjectRef | None = None, *file: str) -> str:
    """A file about a plan, or about one of its migrations: archive/<namespace>/<plan>/<migration>/vms/<vm>.yaml.

    A migration that is not in its plan's namespace is named with its own, so that two of one name do not meet.
    """
    folder = f"archive/{_part(plan.namespace)}/{_part(plan.name)}"
    if migration is None:
        return f"{folder}/plan.yaml"
    name = migration.name if migration.namespace == plan.namespace else str(migration)
    return "/".join((folder, _part(name), *(_part(part) for part in file)))


def kind_of(path: str) -> RecordKind | None:
    """None: not a record (README, archive). Errors: ValueError for a file in our folders that we do not know."""
    for kind, shape in _SHAPES:
        if shape.fullmatch(path):
            return kind
    if path.startswith(_OURS):
        raise ValueError("no such record is known; a newer version of the reconciler may have written it")
    return None


def archived_plan(path: str) -> ObjectRef | None:
    found = _ARCHIVE.fullmatch(path)
    return ObjectRef(unquote(found[1]), unquote(found[2])) if found else None


def _part(text: str) -> str:
    """One path component. Errors: ValueError when empty."""
    if not text:
        raise ValueError("a part of a record's path is empty")
    escaped = quote(text, safe="")
    return "%2E" + escaped[1:] if escaped.startswith(".") else escaped
