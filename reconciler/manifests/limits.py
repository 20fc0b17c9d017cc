"""ForkliftController -> Limits: the settings that we act on. Those without effect here are in withouteffect.py."""

from __future__ import annotations

import re
from typing import Any

from reconciler.core.desired import Limits, Problem
from reconciler.core.names import check_template
from reconciler.core.target import PodWishes
from reconciler.manifests import imageref
from reconciler.manifests.load import Document
from reconciler.manifests.schema.forkliftcontroller import is_true

# Forklift's populator pods carry bytes into volumes; here that is what the binder and importer pods are for.
_RESOURCES = tuple((half, unit, f"populator_container_{half}_{unit}") for half in ("limits", "requests") for unit in ("cpu", "memory"))
READ = {
    "controller_max_vm_inflight",
    "controller_precopy_interval",
    "controller_filesystem_overhead",
    "controller_block_overhead",
    "controller_pvc_name_template",
    "controller_migration_service_account",
    "feature_validation",
    "feature_vmware_system_serial_number",
    "image_pull_policy",
    "vddk_image",
    *(key for _, _, key in _RESOURCES),
}


def limits_of(doc: Document) -> Limits:
    """Units: the pre-copy interval is minutes in the manifest, the file system overhead per cent."""
    spec: Any = doc.model
    values: dict[str, Any] = spec.spec.model_dump(exclude_none=True)
    overhead = values.get("controller_filesystem_overhead")
    return Limits(
        max_vm_inflight=int(values.get("controller_max_vm_inflight", 20)),
        precopy_interval_s=60.0 * int(values.get("controller_precopy_interval", 60)),
        filesystem_overhead=None if overhead is None else int(overhead) / 100,
        block_overhead_bytes=int(values.get("controller_block_overhead", 0)),
        pvc_name_template=_template(values),
        migration_service_account=str(values.get("controller_migration_service_account", "")),
        pods=PodWishes(_resources(values), str(values.get("image_pull_policy", ""))),
        judge_concerns=is_true(values.get("feature_validation", True)),
        vmware_serial=is_true(values.get("feature_vmware_system_serial_number", True)),
        vddk_image=str(values.get("vddk_image", "")),
    )


def _resources(values: dict[str, Any]) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for half, unit, key in _RESOURCES:
        if key in values:
            out.setdefault(half, {})[unit] = str(values[key])
    return out


def _template(values: dict[str, Any]) -> str:
    """Braces are escaped in this key, because Forklift's operator renders it as a template of its own: \\{\\{.VmName\\}\\}."""
    return re.sub(r"\\(.)", r"\1", str(values.get("controller_pvc_name_template", "")))


def problems_of(doc: Document) -> list[Problem]:
    spec: Any = doc.model
    values: dict[str, Any] = spec.spec.model_dump(exclude_none=True)
    found: list[Problem] = []
    overhead = values.get("controller_filesystem_overhead")
    if overhead is not None and int(overhead) >= 100:
        found.append(doc.problem("spec.controller_filesystem_overhead", "NotAllowed", "is per cent and must be below 100"))
    if image_fault := imageref.fault(str(values["vddk_image"])) if values.get("vddk_image") else None:
        found.append(doc.problem("spec.vddk_image", "NotValid", *image_fault))
    wrong = check_template(_template(values), "pvc") if _template(values) else None
    if wrong:
        found.append(doc.problem("spec.controller_pvc_name_template", "NotValid", wrong))
    return found
