"""What the API server refuses at creation and at update of built-in kinds, in its own words.

What it is: pure checks over (kind, old, new); quotas are quota.py, VirtualMachines vmwebhook.py.
What it is not: complete validation; the fields a migration sets, and the fields that must not change.
"""

from __future__ import annotations

import json
import re
from typing import Any

from reconciler.lab.cluster.failures import ApiError, forbidden, invalid
from reconciler.lab.cluster.kinds import CONFIG_MAP, JOB, POD, PV, PVC, SECRET, STORAGE_CLASS, VM, Kind
from reconciler.lab.cluster.quantity import parse
from reconciler.lab.cluster.store import Store, clone
from reconciler.lab.cluster.vmwebhook import check_instance_type, check_vm

Json = dict[str, Any]
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
_LABEL = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")
_ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")


def check_metadata(kind: Kind, obj: Json) -> None:
    meta = obj["metadata"]
    name = meta["name"]
    limit = 63 if kind.plural == "namespaces" else 253
    if not kind.api_version.startswith("rbac.") and (not _SUBDOMAIN.match(name) or len(name) > limit):
        message = (
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '
            "'-' or '.', and must start and end with an alphanumeric character"
        )
        raise invalid(kind, name, ("metadata.name", message))
    for key, value in (meta.get("labels") or {}).items():
        if not isinstance(value, str) or not _LABEL.match(value) or len(value) > 63:
            why = "must be no more than 63 characters" if len(str(value)) > 63 else "a valid label must be an empty string or consist of"
            raise invalid(kind, name, ("metadata.labels", f'Invalid value: "{value}": {why} (key {key})'))
    for key, value in (meta.get("annotations") or {}).items():
        if not isinstance(value, str):
            raise ApiError(400, "BadRequest", f"cannot unmarshal {type(value).__name__} into metadata.annotations[{key}] of type string")
    if sum(len(k) + len(v) for k, v in (meta.get("annotations") or {}).items()) > 256 << 10:
        raise invalid(kind, name, ("metadata.annotations", "Too long: may not be more than 262144 bytes"))
    for index, ref in enumerate(meta.get("ownerReferences") or ()):
        missing = [field for field in ("apiVersion", "kind", "name", "uid") if not ref.get(field)]
        if missing:
            raise invalid(kind, name, (f"metadata.ownerReferences[{index}].{missing[0]}", "Required value: must not be empty"))


def check_create(kind: Kind, obj: Json, store: Store) -> None:
    check_metadata(kind, obj)
    if kind is PVC:
        _check_claim(obj)
    elif kind is POD:
        _check_pod(kind, obj["metadata"]["name"], obj.get("spec") or {}, "spec")
    elif kind is JOB:
        _check_job(obj)
    elif kind is VM:
        check_vm(obj)
        check_instance_type(obj, store)
    elif kind is STORAGE_CLASS and not obj.get("provisioner"):
        raise invalid(kind, obj["metadata"]["name"], ("provisioner", "Required value"))
    elif kind in (SECRET, CONFIG_MAP) and len(json.dumps(obj.get("data") or {})) > 1 << 20:
        raise invalid(kind, obj["metadata"]["name"], ("data", "Too long: may not be more than 1048576 bytes"))


def check_update(kind: Kind, old: Json, new: Json, store: Store) -> None:
    check_metadata(kind, new)
    name = new["metadata"]["name"]
    if kind is PVC:
        _check_claim_update(old, new, store)
    elif kind is JOB:
        _check_job_update(old, new)
    elif kind is POD:
        _check_pod_update(old, new)
    elif kind is VM:
        check_vm(new)
    elif kind in (SECRET, CONFIG_MAP) and old.get("immutable"):
        if new.get("data") != old.get("data"):
            raise invalid(kind, name, ("data", "Forbidden: field is immutable when `immutable` is set"))
    elif kind is SECRET and new.get("type") != old.get("type"):
        raise invalid(kind, name, ("type", f'Invalid value: "{new.get("type")}": field is immutable'))
    elif kind is STORAGE_CLASS and new.get("provisioner") != old.get("provisioner"):
        raise invalid(kind, name, ("provisioner", "Forbidden: updates to provisioner are forbidden."))
    elif kind is PV and old["spec"].get("local") != new["spec"].get("local"):
        raise invalid(kind, name, ("spec.persistentvolumesource", "Forbidden: spec.persistentvolumesource is immutable after creation"))


def _check_claim(obj: Json) -> None:
    name, spec = obj["metadata"]["name"], obj.get("spec") or {}
    modes = spec.get("accessModes") or []
    if not modes:
        raise invalid(PVC, name, ("spec.accessModes", "Required value: at least 1 access mode is required"))
    for mode in modes:
        if mode not in _ACCESS_MODES:
            raise invalid(PVC, name, ("spec.accessModes", f'Unsupported value: "{mode}": supported values: {", ".join(_ACCESS_MODES)}'))
    if spec["volumeMode"] not in ("Block", "Filesystem"):
        raise invalid(PVC, name, ("spec.volumeMode", f'Unsupported value: "{spec["volumeMode"]}": supported values: "Block", "Filesystem"'))
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        raise invalid(PVC, name, ("spec.resources[storage]", "Required value"))
    if _size(obj) <= 0:
        raise invalid(PVC, name, ("spec.resources[storage]", f'Invalid value: "{size}": must be greater than zero'))


def _size(claim: Json) -> Any:
    text = claim["spec"]["resources"]["requests"]["storage"]
    try:
        return parse(text)
    except ValueError as err:
        raise ApiError(
            400, "BadRequest", f"PersistentVolumeClaim in version v1 cannot be handled as a PersistentVolumeClaim: {err}"
        ) from err


def _check_claim_update(old: Json, new: Json, store: Store) -> None:
    name = new["metadata"]["name"]
    before, after = clone(old["spec"]), clone(new["spec"])
    for spec in (before, after):
        (spec.get("resources") or {}).get("requests", {}).pop("storage", None)
    if not before.get("volumeName"):  # the binder fills it in
        before.pop("volumeName", None)
        after.pop("volumeName", None)
    if before != after:
        message = "Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        raise invalid(PVC, name, ("spec", message))
    grown = _size(new) - _size(old)
    if grown < 0:
        raise invalid(PVC, name, ("spec.resources.requests.storage", "Forbidden: field can not be less than previous value"))
    if grown > 0:
        if (old.get("status") or {}).get("phase") != "Bound":
            raise invalid(PVC, name, ("spec", "Forbidden: spec is immutable after creation except resources.requests for bound claims"))
        storage_class = store.get(STORAGE_CLASS, "", old["spec"].get("storageClassName") or "")
        if storage_class is None or not storage_class.get("allowVolumeExpansion"):
            why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
            raise forbidden(PVC, name, why)


def _check_pod(kind: Kind, name: str, spec: Json, at: str) -> None:
    containers = spec.get("containers") or []
    if not containers:
        raise invalid(kind, name, (f"{at}.containers", "Required value"))
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    both = [(f"{at}.containers[{n}]", c) for n, c in enumerate(containers)]
    both += [(f"{at}.initContainers[{n}]", c) for n, c in enumerate(spec.get("initContainers") or [])]
    named: set[str] = set()
    for where, container in both:
        if container.get("name") in named:
            raise invalid(kind, name, (f"{where}.name", f'Duplicate value: "{container["name"]}"'))
        named.add(container.get("name") or "")
        if not container.get("name"):
            raise invalid(kind, name, (f"{where}.name", "Required value"))
        if not container.get("image"):
            raise invalid(kind, name, (f"{where}.image", "Required value"))
        for list_name in ("volumeMounts", "volumeDevices"):
            for at_mount, mount in enumerate(container.get(list_name) or []):
                if mount.get("name") not in volumes:
                    raise invalid(kind, name, (f"{where}.{list_name}[{at_mount}].name", f'Not found: "{mount.get("name")}"'))


def _check_pod_update(old: Json, new: Json) -> None:
    before, after = clone(old["spec"]), clone(new["spec"])
    for spec in (before, after):
        for field in ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"):
            spec.pop(field, None)
        for container in spec.get("containers") or []:
            container.pop("image", None)
    if before != after:
        fields = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations`"
        raise invalid(POD, new["metadata"]["name"], ("spec", f"Forbidden: pod updates may not change fields other than {fields}"))


def _check_job(obj: Json) -> None:
    name, spec = obj["metadata"]["name"], obj["spec"]
    if len(name) > 63:  # the name becomes a label value of the pods
        raise invalid(JOB, name, ("spec.template.labels", f'Invalid value: "{name}": must be no more than 63 bytes'))
    template = spec.get("template") or {}
    _check_pod(JOB, name, template.get("spec") or {}, "spec.template.spec")
    policy = template["spec"].get("restartPolicy")
    if policy not in ("Never", "OnFailure"):
        message = f'Required value: valid values: "OnFailure", "Never" (got "{policy}")'
        raise invalid(JOB, name, ("spec.template.spec.restartPolicy", message))
    if spec["podReplacementPolicy"] not in ("Failed", "TerminatingOrFailed"):
        message = f'Unsupported value: "{spec["podReplacementPolicy"]}": supported values: "Failed", "TerminatingOrFailed"'
        raise invalid(JOB, name, ("spec.podReplacementPolicy", message))
    for field in ("backoffLimit", "parallelism", "completions", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        value = spec.get(field)
        if value is not None and (not isinstance(value, int) or value < 0):
            raise invalid(JOB, name, (f"spec.{field}", f"Invalid value: {value}: must be greater than or equal to 0"))


def _check_job_update(old: Json, new: Json) -> None:
    name, before, after = new["metadata"]["name"], old["spec"], new["spec"]
    for field in ("completions", "selector", "completionMode", "manualSelector", "podFailurePolicy"):
        if before.get(field) != after.get(field):
            raise invalid(JOB, name, (f"spec.{field}", f"Invalid value: {json.dumps(after.get(field))}: field is immutable"))
    then, now = clone(before["template"]), clone(after["template"])
    if before.get("suspend") and not (old.get("status") or {}).get("startTime"):
        # Scheduling directives of a job that has not started may change (KEP-2926).
        for template in (then, now):
            template.get("metadata", {}).pop("annotations", None)
            template.get("metadata", {}).pop("labels", None)
            for field in ("nodeSelector", "affinity", "tolerations", "schedulingGates"):
                template["spec"].pop(field, None)
    if then != now:
        raise invalid(JOB, name, ("spec.template", "Invalid value: core.PodTemplateSpec: field is immutable"))
    for field in ("backoffLimit", "parallelism"):
        if not isinstance(after.get(field), int) or after[field] < 0:
            raise invalid(JOB, name, (f"spec.{field}", f"Invalid value: {after.get(field)}: must be greater than or equal to 0"))
