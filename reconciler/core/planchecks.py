"""A Plan as a whole against both sites: Forklift's plan-level conditions. VM-level ones are core/examine.py's.

What it is: pure; asked when a run may begin and when status is rendered. A plan-level blocker keeps every VM of the plan from starting;
a finding about one VM keeps only that VM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core import names, vddk
from reconciler.core.desired import Desired, NetworkMapSpec, PlanSpec, ProviderSpec, StorageMapSpec
from reconciler.core.examine import Ground
from reconciler.core.findings import Finding, critical
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Known, ObjectRef, Platform, Unknown
from reconciler.core.record import Category
from reconciler.core.view import Observed


@dataclass(frozen=True, slots=True)
class PlanFindings:
    findings: tuple[Finding, ...]

    @property
    def blocked(self) -> bool:
        return any(f.category in (Category.CRITICAL, Category.ERROR) for f in self.findings)


def plan_findings(desired: Desired, observed: Observed, plan: PlanSpec) -> PlanFindings:
    """Everything that speaks against the plan itself, not only the first thing."""
    found: list[Finding] = []
    if f"Plan/{plan.ref}" in desired.broken:
        found.append(
            critical("NotValid", "NotValid", f"Plan {plan.ref} has errors in its file ({plan.place})", "run `reconciler validate`")
        )
    found += _provider("Source", desired, observed.sources, plan.source)
    found += _provider("Destination", desired, observed.targets, plan.destination)
    if not plan.target_namespace or not names.is_dns1123_subdomain(plan.target_namespace):
        found.append(
            critical("NamespaceNotValid", "NotValid", f"targetNamespace {plan.target_namespace!r} is not a DNS-1123 name ({plan.place})")
        )
    found += _map("NetworkMapRefNotValid", "NetworkMap", plan.network_map, desired.network_maps, desired)
    found += _map("StorageRefNotValid", "StorageMap", plan.storage_map, desired.storage_maps, desired)
    for item in plan.unsupported:
        about = f" (VM {item.vm})" if item.vm else ""
        category = Category.CRITICAL if item.blocking else Category.WARN
        found.append(Finding("NotSupported", category, "NotSupported", f"{item.field}{about}: {item.message}"))
    storage_map = desired.storage_maps.get(plan.storage_map) if plan.storage_map else None
    for item in storage_map.unsupported if storage_map else ():
        category = Category.CRITICAL if item.blocking else Category.WARN
        found.append(Finding("NotSupported", category, "NotSupported", f"StorageMap {plan.storage_map} {item.field}: {item.message}"))
    return PlanFindings(tuple(found))


def _provider(
    side: str, desired: Desired, seen: Mapping[ObjectRef, Known[object] | Unknown], ref: ObjectRef | None
) -> list[Finding]:  # fmt: skip
    kind = f"{side}Provider"
    if ref is None:
        return [critical(f"{kind}NotValid", "NotSet", f"the {side.lower()} provider is not set")]
    provider = desired.providers.get(ref)
    if provider is None:
        broken = f"Provider/{ref}" in desired.broken
        text = f"Provider {ref} has errors in its file" if broken else f"there is no Provider {ref}"
        return [critical(f"{kind}NotValid", "NotFound", text, "correct the reference or add the manifest")]
    if side == "Destination" and provider.platform != Platform.OPENSHIFT:
        return [
            critical(
                "DestinationProviderNotValid", "TypeNotValid", f"Provider {ref} is {provider.platform}; a destination must be openshift"
            )
        ]
    if side == "Source" and provider.platform != Platform.VSPHERE:
        return [critical("NotSupported", "NotSupported", f"Provider {ref}: sources of type {provider.platform} are not implemented yet")]
    match seen.get(ref):
        case Known():
            return []
        case Unknown(reason, message):
            return [critical(f"{kind}NotReady", reason, f"Provider {ref} is not ready: {message}")]
        case _:
            return [critical(f"{kind}NotReady", "NotObserved", f"Provider {ref} has not been looked at yet")]


def _map(
    kind: str,
    word: str,
    ref: ObjectRef | None,
    known: Mapping[ObjectRef, NetworkMapSpec] | Mapping[ObjectRef, StorageMapSpec],
    desired: Desired,
) -> list[Finding]:
    if ref is None:
        return [critical(kind, "NotSet", f"the plan names no {word}")]
    if ref not in known:
        broken = f"{word}/{ref}" in desired.broken
        text = f"{word} {ref} has errors in its file" if broken else f"there is no {word} {ref}"
        return [critical(kind, "NotFound", text, "correct the reference or add the manifest")]
    return []


def ground(desired: Desired, observed: Observed, indexes: Mapping[ObjectRef, SiteIndex], plan: PlanSpec) -> Ground | None:
    """What examine() needs for the plan's VMs; None while something of it is missing or out of sight."""
    if plan.source is None or plan.destination is None or plan.network_map is None or plan.storage_map is None:
        return None
    index = indexes.get(plan.source)
    target = observed.targets.get(plan.destination)
    network_map, storage_map = desired.network_maps.get(plan.network_map), desired.storage_maps.get(plan.storage_map)
    if index is None or network_map is None or storage_map is None or not isinstance(target, Known):
        return None
    brought = vddk.named(desired.providers.get(plan.source), desired.limits).setting
    return Ground(plan, index, target.value, network_map, storage_map, desired.limits, observed.rewound, observed.us, brought)


def providers_of(plan: PlanSpec, desired: Desired) -> tuple[ProviderSpec, ...]:
    refs = (plan.source, plan.destination)
    return tuple(desired.providers[r] for r in refs if r is not None and r in desired.providers)


def digest(desired: Desired, plan: PlanSpec) -> str:
    """Changes when plan or maps change in anything that a run freezes."""
    parts = (
        plan.vms,
        plan.target_namespace,
        plan.mode,
        plan.source,
        plan.destination,
        desired.network_maps.get(plan.network_map).pairs if plan.network_map in desired.network_maps else (),  # type: ignore[union-attr,arg-type]
        desired.storage_maps.get(plan.storage_map).pairs if plan.storage_map in desired.storage_maps else (),  # type: ignore[union-attr,arg-type]
    )
    unplaced = repr(parts).encode()
    return hashlib.sha256(unplaced).hexdigest()[:16]
