"""Loaded documents -> Desired: references joined, defaults filled, and everything that does not fit together.

Where it stands: after load, before observe and decide. Knows no git and no platform. What follows from one document alone is worked out
once and kept in its `memo`; the rest is dictionary look-ups, so a tree of 10,000 manifests with one change costs little.
A manifest whose own content is wrong is not in Desired's maps; one whose references are wrong is there. Both are in `broken`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from reconciler.core.desired import (
    ControllerSpec,
    Desired,
    HostSpec,
    Limits,
    MigrationSpec,
    NetworkMapSpec,
    PlanSpec,
    Problem,
    ProviderSpec,
    Severity,
    StorageMapSpec,
    Unsupported,
)
from reconciler.core.model import Mode, ObjectRef, Platform
from reconciler.manifests import checks, convert, unsupported
from reconciler.manifests.annotations import read_annotations
from reconciler.manifests.limits import READ, limits_of, problems_of
from reconciler.manifests.load import Document, Loaded
from reconciler.manifests.withouteffect import of_controller

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Local:
    """What one document gives by itself; `spec` is one of core.desired's."""

    spec: Any
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Tree:
    """All documents by kind, while they are being joined."""

    specs: dict[str, dict[ObjectRef, Any]] = field(default_factory=dict)
    documents: dict[str, dict[ObjectRef, Document]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def of(self, kind: str) -> dict[ObjectRef, Any]:
        return self.specs.setdefault(kind, {})


def resolve(loaded: Loaded, revision: str) -> Desired:
    """Never fails on bad manifests: they are in `problems` and `broken`, and `complete` is false."""
    tree = _Tree(problems=list(loaded.problems), broken=set(loaded.broken))
    limits = _limits(loaded, tree)
    for doc in loaded.documents:
        local = _local(doc, limits)
        tree.problems += local.problems
        if _has_error(local.problems):
            tree.broken.add(doc.identity)
        elif local.spec is not None:
            tree.of(doc.kind)[doc.ref] = local.spec
            tree.documents.setdefault(doc.kind, {})[doc.ref] = doc
    for kind, join in _JOINS.items():
        for ref, doc in tree.documents.get(kind, {}).items():
            _joined(tree, doc, kind, ref, join)
    _give_hosts(tree)
    return _desired(tree, limits, revision)


def _desired(tree: _Tree, limits: Limits, revision: str) -> Desired:
    problems = tuple(sorted(tree.problems, key=lambda p: (p.place.path, p.place.line, p.place.column)))
    return Desired(
        revision=revision,
        providers=tree.of("Provider"),
        network_maps=tree.of("NetworkMap"),
        storage_maps=tree.of("StorageMap"),
        plans=tree.of("Plan"),
        migrations=tree.of("Migration"),
        hooks=tree.of("Hook"),
        hosts=tree.of("Host"),
        limits=limits,
        controllers=tree.of("ForkliftController"),
        problems=problems,
        complete=not _has_error(problems),
        broken=frozenset(tree.broken),
    )


def _give_hosts(tree: _Tree) -> None:
    """Each vsphere Provider gets its Hosts; one with an error of its own, or of another type, gives none."""
    providers = tree.of("Provider")
    for ref, host in sorted(tree.of("Host").items()):
        provider = providers.get(host.provider) if host.provider else None
        if provider is not None and provider.platform == Platform.VSPHERE and f"Host/{ref}" not in tree.broken:
            providers[provider.ref] = replace(provider, hosts=(*provider.hosts, host))


def _has_error(problems: tuple[Problem, ...]) -> bool:
    return any(p.severity is Severity.ERROR for p in problems)


# ---- one document ---------------------------------------------------------------------------------------------------------------------


def _limits(loaded: Loaded, tree: _Tree) -> Limits:
    """From the one ForkliftController. While it is wrong, or there are several: one VM at a time, so no limit is exceeded."""
    controllers = [doc for doc in loaded.documents if doc.kind == "ForkliftController"]
    if len(controllers) > 1:
        for doc in controllers:
            others = ", ".join(str(other.place()) for other in controllers if other is not doc)
            message = f"there are {len(controllers)} ForkliftControllers, also at {others}; until one is left, VMs go one at a time"
            tree.problems.append(doc.problem("", "NotUnique", message, "keep one"))
            tree.broken.add(doc.identity)
    elif controllers and not _has_error(tuple(problems_of(controllers[0]))):
        return limits_of(controllers[0])
    elif not controllers and not any(identity.startswith("ForkliftController/") for identity in loaded.broken):
        return Limits()
    return Limits(max_vm_inflight=1)


def _local(doc: Document, limits: Limits) -> _Local:
    """Kept in the document's memo. Plans take defaults from the limits, so theirs counts for equal limits only."""
    kept = doc.memo.get("local")
    if kept and kept[0] == limits:  # type: ignore[index]
        return kept[1]  # type: ignore[index, no-any-return]
    local = _build(doc, limits)
    doc.memo["local"] = (limits, local)
    return local


def _build(doc: Document, limits: Limits) -> _Local:
    values, problems = read_annotations(doc)
    model: Any = doc.model
    spec: Any = None
    match doc.kind:
        case "Provider":
            problems += checks.of_provider(doc, model)
            spec = convert.provider_of(doc, model)
        case "NetworkMap":
            problems += checks.of_network_map(doc, model)
            spec = convert.network_map_of(doc, model)
        case "StorageMap":
            problems += checks.of_storage_map(doc, model)
            spec = convert.storage_map_of(doc, model)
        case "Plan":
            problems += checks.of_plan(doc, model)
            spec = convert.plan_of(doc, model, limits, values)
        case "Migration":
            problems += checks.of_migration(doc, model)
            spec = replace(convert.migration_of(doc, model), **values)  # type: ignore[arg-type]
        case "Host":
            problems += checks.of_host(doc, model)
            spec = convert.host_of(doc, model)
        case "Hook":
            problems += checks.of_hook(doc, model)
            spec = convert.hook_of(doc)
        case "ForkliftController":
            problems += problems_of(doc)
            spec = ControllerSpec(doc.ref, doc.place(), tuple(of_controller(model.spec, READ)))
    return _Local(spec, tuple(problems))


# ---- between documents ----------------------------------------------------------------------------------------------------------------


def _joined(
    tree: _Tree, doc: Document, kind: str, ref: ObjectRef, join: Callable[[_Tree, Document, Any], Iterator[Problem | Unsupported]]
) -> None:
    spec = tree.of(kind)[ref]
    extra: list[Unsupported] = []
    for item in join(tree, doc, spec):
        if isinstance(item, Problem):
            tree.problems.append(item)
            if item.severity is Severity.ERROR:
                tree.broken.add(doc.identity)
        else:
            extra.append(item)
    if extra:
        tree.of(kind)[ref] = replace(spec, unsupported=(*spec.unsupported, *extra))


def _look_up(tree: _Tree, doc: Document, path: str, kind: str, ref: ObjectRef | None) -> Problem | None:
    """The problem with a reference, or None."""
    if ref is None:
        return doc.problem(path, "NotSet", f"the {kind} is not named", "write name: …")
    if ref in tree.of(kind):
        return None
    if f"{kind}/{ref}" in tree.broken:
        return doc.problem(path, "NotValid", f"{kind} {ref} has errors of its own", "correct it first")
    elsewhere = sorted(str(other) for other in tree.of(kind) if other.name == ref.name)
    hint = f"did you mean {elsewhere[0]}?" if elsewhere else ""
    return doc.problem(path, "NotFound", f"{kind} {ref} is not in this repo", hint)


def _pair(tree: _Tree, doc: Document, spec: NetworkMapSpec | StorageMapSpec | PlanSpec) -> Iterator[Problem]:
    for side, ref in (("source", spec.source), ("destination", spec.destination)):
        problem = _look_up(tree, doc, f"spec.provider.{side}", "Provider", ref)
        if problem:
            yield problem
    destination: ProviderSpec | None = tree.of("Provider").get(spec.destination) if spec.destination else None
    if destination and destination.platform != "openshift":
        message = f"the destination must be of type openshift; {destination.ref} is {destination.platform}"
        yield doc.problem("spec.provider.destination", "TypeNotValid", message)


def _join_plan(tree: _Tree, doc: Document, spec: PlanSpec) -> Iterator[Problem | Unsupported]:
    yield from _pair(tree, doc, spec)
    for name, kind, ref in (("network", "NetworkMap", spec.network_map), ("storage", "StorageMap", spec.storage_map)):
        problem = (
            None if name == "storage" and spec.type == "conversion" and ref is None else _look_up(tree, doc, f"spec.map.{name}", kind, ref)
        )
        if problem:
            yield problem
        found = tree.of(kind).get(ref) if ref else None
        if found and (found.source, found.destination) != (spec.source, spec.destination):
            message = f"{kind} {ref} is made for other providers ({found.source} to {found.destination})"
            yield doc.problem(f"spec.map.{name}", "NotValid", message, "", Severity.WARNING)
    yield from _hooks(tree, doc)
    yield from _plan_unsupported(tree, spec)


def _hooks(tree: _Tree, doc: Document) -> Iterator[Problem]:
    model: Any = doc.model
    for index, vm in enumerate(model.spec.vms):
        for number, hook in enumerate(vm.hooks):
            path = f"spec.vms[{index}].hooks[{number}].hook"
            problem = _look_up(tree, doc, path, "Hook", convert.object_ref(hook.hook, doc.ref))
            if problem:
                yield problem


def _plan_unsupported(tree: _Tree, spec: PlanSpec) -> Iterator[Unsupported]:
    """What the source provider brings in. The storage map has its own list, which counts for every plan that uses it."""
    source: ProviderSpec | None = tree.of("Provider").get(spec.source) if spec.source else None
    if source:
        model: Any = tree.documents["Provider"][source.ref].model
        yield from unsupported.of_source(source.platform, skip_conversion=spec.skip_conversion)
        for one in unsupported.of_provider(model.spec):
            yield replace(one, field=f"Provider {source.ref} {one.field}")


def _join_migration(tree: _Tree, doc: Document, spec: MigrationSpec) -> Iterator[Problem | Unsupported]:
    problem = _look_up(tree, doc, "spec.plan", "Plan", spec.plan)
    if problem:
        yield problem
    plan: PlanSpec | None = tree.of("Plan").get(spec.plan) if spec.plan else None
    model: Any = doc.model
    yield from unsupported.of_migration(model.spec, cold=plan is not None and plan.mode is Mode.COLD)


def _join_host(tree: _Tree, doc: Document, spec: HostSpec) -> Iterator[Problem]:
    problem = _look_up(tree, doc, "spec.provider", "Provider", spec.provider)
    if problem:
        yield problem
    provider: ProviderSpec | None = tree.of("Provider").get(spec.provider) if spec.provider else None
    if provider and provider.platform != "vsphere":
        yield doc.problem("spec.provider", "TypeErr", f"Hosts belong to vsphere providers; {provider.ref} is {provider.platform}")


_JOINS: Mapping[str, Callable[[_Tree, Document, Any], Iterator[Any]]] = {
    "NetworkMap": _pair,
    "StorageMap": _pair,
    "Plan": _join_plan,
    "Migration": _join_migration,
    "Host": _join_host,
}
