"""One bulk read of a target site: a fixed number of lists per cluster and per namespace, never one call per object.

What it is: which lists, and how they join into core.target.TargetInventory. What it is not: the meaning of one object (parse.py).
A list that fails fails the whole read (safety 11). Only kinds whose absence is an answer may be missing: Multus, CDI, instance types.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.core.inventory import SiteInfo
from reconciler.core.target import Binder, Instance, Job, StorageClass, Stranger, TargetInventory, TargetVm, Volume
from reconciler.drivers.kubevirt import failures, labels, parse, reasons, topology, writers
from reconciler.drivers.kubevirt import resources as kinds
from reconciler.drivers.kubevirt.api import Api
from reconciler.drivers.kubevirt.labels import Obj
from reconciler.drivers.kubevirt.resources import Resource
from reconciler.errors import RetryableError

_WARNINGS = {"fieldSelector": "type=Warning"}
_CDI_CONFIG = "config"  # the only CDIConfig there ever is
_JOB_NAME = "batch.kubernetes.io/job-name"


@dataclass(frozen=True, slots=True)
class _Lists:
    """One namespace, raw. Filled in the order of the fields: a Job before its pods, a machine before its instance."""

    claims: Sequence[Obj]
    jobs: Sequence[Obj]
    pods: Sequence[Obj]
    events: Sequence[Obj]
    machines: Sequence[Obj]
    instances: Sequence[Obj]


def read(api: Api, site: SiteInfo, namespaces: Sequence[str], us: Instance) -> TargetInventory:
    """Errors: RetryableError for any list that failed, KubeVirtMissing among them."""
    lists = [_read_lists(api, name) for name in sorted(set(namespaces))]
    # After the pods: a node that joins in between must not look deleted, which would fence the pods on it (safety 4).
    nodes = {node["metadata"]["name"]: node for node in api.list(kinds.NODES)}
    classes = _storage_classes(api)
    waiting = frozenset(c.name for c in classes if c.waits_for_consumer)
    ground = _ground(api, lists)
    return TargetInventory(
        site=site,
        namespaces=frozenset(item["metadata"]["name"] for item in api.list(kinds.NAMESPACES)),
        storage_classes=classes,
        networks=frozenset(_full_names(_list_if_installed(api, kinds.ATTACHMENTS))),
        volumes=tuple(volume for part in lists for volume in _volumes(part, nodes, waiting, us)),
        jobs=tuple(job for part in lists for job in _jobs(part, us)),
        binders=tuple(binder for part in lists for binder in _binders(part, ground, us)),
        vms=tuple(vm for part in lists for vm in _machines(part.machines, part.instances, us)),
        instance_types=_instance_types(api),
        strangers=tuple(stranger for part in lists for stranger in _strangers(part, us)),
    )


def _read_lists(api: Api, namespace: str) -> _Lists:
    claims, jobs, pods = (api.list(kind, namespace) for kind in (kinds.VOLUMES, kinds.JOBS, kinds.PODS))
    events = api.list(kinds.EVENTS, namespace, _WARNINGS)
    return _Lists(claims, jobs, pods, events, *_list_machines(api, namespace))


def _list_machines(api: Api, namespace: str) -> tuple[Sequence[Obj], Sequence[Obj]]:
    try:
        return api.list(kinds.MACHINES, namespace), api.list(kinds.INSTANCES, namespace)
    except failures.NotFound as err:
        raise RetryableError("KubeVirtMissing", f"{api.site} does not serve kubevirt.io/v1; install KubeVirt there") from err


def read_vms(api: Api, namespace: str, us: Instance) -> tuple[TargetVm, ...]:
    return tuple(_machines(*_list_machines(api, namespace), us))


def _volumes(lists: _Lists, nodes: Mapping[str, Obj], waiting: frozenset[str], us: Instance) -> Iterable[Volume]:
    using = writers.by_claim(lists.pods, nodes, us)
    events = reasons.by_uid(lists.events)
    for claim in lists.claims:
        metadata = claim["metadata"]
        waits = (claim["spec"].get("storageClassName") or "") in waiting
        yield parse.volume(claim, using.get(metadata["name"], ()), events.get(metadata["uid"], ()), waits, us)


def _jobs(lists: _Lists, us: Instance) -> Iterable[Job]:
    by_job: defaultdict[str, list[Obj]] = defaultdict(list)
    for pod in lists.pods:
        for owner in pod["metadata"].get("ownerReferences") or []:
            by_job[owner["uid"]].append(pod)
    events = reasons.by_uid(lists.events)
    return (parse.job(job, by_job[job["metadata"]["uid"]], events) for job in lists.jobs if _has_role(job, labels.ROLE_IMPORTER, us))


def _binders(lists: _Lists, ground: topology.Ground, us: Instance) -> Iterable[Binder]:
    events = reasons.by_uid(lists.events)
    ours = (pod for pod in lists.pods if _has_role(pod, labels.ROLE_BINDER, us))
    return (parse.binder(pod, events, topology.apart(pod, lists.claims, ground)) for pod in ours)


def _ground(api: Api, lists: Iterable[_Lists]) -> topology.Ground:
    """Read only while a binder finds no node. Without the right to look, nothing is proven, and the scheduler's own words must do."""
    pods = (pod for part in lists for pod in part.pods)
    if not any(topology.unschedulable(pod) for pod in pods if labels.labels_of(pod).get(labels.ROLE) == labels.ROLE_BINDER):
        return topology.Ground()
    try:
        volumes = api.list(kinds.PERSISTENT_VOLUMES)
    except RetryableError as err:
        if err.reason != "Forbidden":
            raise
        volumes = ()
    classes = api.list(kinds.STORAGE_CLASSES)
    return topology.Ground({v["metadata"]["name"]: v for v in volumes}, {c["metadata"]["name"]: c for c in classes})


def _has_role(obj: Obj, role: str, us: Instance) -> bool:
    return labels.is_ours(obj, us) and labels.labels_of(obj).get(labels.ROLE) == role


def _strangers(lists: _Lists, us: Instance) -> Iterable[Stranger]:
    kinds_ = ((kinds.JOBS, lists.jobs), (kinds.PODS, lists.pods), (kinds.MACHINES, lists.machines), (kinds.VOLUMES, lists.claims))
    for resource, objs in kinds_:
        yield from (parse.stranger(resource.kind, o) for o in objs if labels.is_managed(o) and not labels.is_ours(o, us))


def _machines(machines: Iterable[Obj], instances: Iterable[Obj], us: Instance) -> Iterable[TargetVm]:
    by_name = {instance["metadata"]["name"]: instance for instance in instances}
    yield from (parse.target_vm(vm, by_name.pop(vm["metadata"]["name"], None), us) for vm in machines)
    yield from (parse.lone_instance(alone) for alone in by_name.values() if not parse.ended(alone))


def _storage_classes(api: Api) -> tuple[StorageClass, ...]:
    found = api.list(kinds.STORAGE_CLASSES)
    profiles = {profile["metadata"]["name"]: profile for profile in _list_if_installed(api, kinds.STORAGE_PROFILES)}
    config = api.find(kinds.CDI_CONFIGS, None, _CDI_CONFIG)
    overhead = ((config.get("status") or {}).get("filesystemOverhead") or {}) if config is not None else None
    return tuple(parse.storage_class(item, profiles.get(item["metadata"]["name"]), overhead) for item in found)


def _instance_types(api: Api) -> frozenset[str]:
    everywhere = (f"/{item['metadata']['name']}" for item in _list_if_installed(api, kinds.CLUSTER_INSTANCE_TYPES))
    return frozenset(everywhere) | frozenset(_full_names(_list_if_installed(api, kinds.INSTANCE_TYPES)))


def _full_names(items: Iterable[Obj]) -> Iterable[str]:
    return (f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in items)


def _list_if_installed(api: Api, resource: Resource) -> Sequence[Obj]:
    """A 404 on a collection means that the kind is not installed; that is an answer, unlike a 403."""
    try:
        return api.list(resource)
    except failures.NotFound:
        return ()


def read_pods_of_job(api: Api, namespace: str, job: str) -> Sequence[Obj]:
    return api.list(kinds.PODS, namespace, {"labelSelector": f"{_JOB_NAME}={job}"})
