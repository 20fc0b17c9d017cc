"""Validated models -> the values of core.desired, one document at a time. No other document is looked at.

What it is: renaming, defaults inside one manifest, and references with the manifest's namespace as default. Checks are in checks.py.
"""

from __future__ import annotations

from typing import Any

from reconciler.core.desired import (
    HookSpec,
    HostSpec,
    InventoryRef,
    Limits,
    MigrationSpec,
    NetworkMapSpec,
    NetworkPair,
    PlanSpec,
    PlanVm,
    ProviderSpec,
    StorageMapSpec,
    StoragePair,
    WantPower,
)
from reconciler.core.model import Mode, ObjectRef
from reconciler.manifests import unsupported
from reconciler.manifests.load import Document
from reconciler.manifests.schema import plan as plan_model
from reconciler.manifests.schema.affinity import Affinity
from reconciler.manifests.schema.host import Host
from reconciler.manifests.schema.migration import Migration
from reconciler.manifests.schema.networkmap import NetworkMap
from reconciler.manifests.schema.provider import Provider
from reconciler.manifests.schema.shapes import ObjectReference, Ref
from reconciler.manifests.schema.storagemap import StorageMap


def object_ref(reference: ObjectReference | None, home: ObjectRef) -> ObjectRef | None:
    """None when no name is given. The namespace defaults to that of the manifest the reference stands in."""
    return ObjectRef(reference.namespace or home.namespace, reference.name) if reference and reference.name else None


def inventory_ref(ref: Ref) -> InventoryRef:
    return InventoryRef(ref.id, ref.name, ref.namespace, ref.type)


def provider_of(doc: Document, model: Provider) -> ProviderSpec:
    settings = {type(model.spec.settings).model_fields[k].alias or k: v for k, v in model.spec.settings if v != ""}
    return ProviderSpec(doc.ref, model.spec.type, model.spec.url.strip(), object_ref(model.spec.secret, doc.ref), settings, doc.place())


def network_map_of(doc: Document, model: NetworkMap) -> NetworkMapSpec:
    pairs = tuple(
        NetworkPair(inventory_ref(e.source), e.destination.type, e.destination.namespace, e.destination.name) for e in model.spec.map
    )
    pair = model.spec.provider
    return NetworkMapSpec(doc.ref, object_ref(pair.source, doc.ref), object_ref(pair.destination, doc.ref), pairs, doc.place())


def storage_map_of(doc: Document, model: StorageMap) -> StorageMapSpec:
    pairs = tuple(
        StoragePair(inventory_ref(e.source), e.destination.storage_class, e.destination.volume_mode, e.destination.access_mode)
        for e in model.spec.map
    )
    pair = model.spec.provider
    source, destination = object_ref(pair.source, doc.ref), object_ref(pair.destination, doc.ref)
    return StorageMapSpec(doc.ref, source, destination, pairs, doc.place(), tuple(unsupported.of_storage_map(model.spec)))


def host_of(doc: Document, model: Host) -> HostSpec:
    spec = model.spec
    provider, secret = object_ref(spec.provider, doc.ref), object_ref(spec.secret, doc.ref)
    return HostSpec(doc.ref, doc.place(), provider, inventory_ref(spec), spec.ip_address, secret)


def hook_of(doc: Document) -> HookSpec:
    return HookSpec(doc.ref, doc.place())


def migration_of(doc: Document, model: Migration) -> MigrationSpec:
    spec = model.spec
    return MigrationSpec(
        ref=doc.ref,
        place=doc.place(),
        plan=object_ref(spec.plan, doc.ref),
        cancel=tuple(inventory_ref(one) for one in spec.cancel),
        cutover_at=spec.cutover,
        vm_cutover=tuple((one.id, one.cutover) for one in spec.vm_cutover),
    )


def plan_of(doc: Document, model: plan_model.Plan, limits: Limits, annotations: dict[str, object]) -> PlanSpec:
    """`annotations` are PlanSpec fields as read by annotations.py."""
    spec = model.spec
    refs = [inventory_ref(vm) for vm in spec.vms]
    found = list(unsupported.of_plan(spec))
    for index, vm in enumerate(spec.vms):
        found += unsupported.of_vm(vm, index, refs[index])
    fields: dict[str, Any] = dict(annotations)
    return PlanSpec(
        ref=doc.ref,
        place=doc.place(),
        description=spec.description,
        source=object_ref(spec.provider.source, doc.ref),
        destination=object_ref(spec.provider.destination, doc.ref),
        network_map=object_ref(spec.map.network, doc.ref),
        storage_map=object_ref(spec.map.storage, doc.ref),
        target_namespace=spec.target_namespace,
        mode=Mode.WARM if spec.warm or spec.type == "warm" else Mode.COLD,
        type=spec.type,
        archived=spec.archived,
        vms=tuple(_vm_of(doc, spec, index, refs[index], limits) for index in range(len(refs))),
        unsupported=tuple(found),
        skip_conversion=spec.skip_guest_conversion,
        compatibility_mode=spec.use_compatibility_mode,
        preserve_static_ips=spec.preserve_static_ips,
        pvc_generate_name=spec.pvc_name_template_use_generate_name is not False,
        target_labels=spec.target_labels,
        target_node_selector=spec.target_node_selector,
        target_affinity=_affinity(spec.target_affinity),
        convertor_node_selector=spec.convertor_node_selector,
        service_account=spec.service_account or limits.migration_service_account,
        transfer_network=object_ref(spec.transfer_network, doc.ref),
        **fields,
    )


def _vm_of(doc: Document, spec: plan_model.PlanSpec, index: int, ref: InventoryRef, limits: Limits) -> PlanVm:
    """Plan-level defaults applied. A plan that deletes on failure beats the VM's own word, as in Forklift."""
    vm = spec.vms[index]
    nested = vm.enable_nested_virtualization
    return PlanVm(
        ref=ref,
        place=doc.place(f"spec.vms[{index}]"),
        target_name=vm.target_name,
        target_power=WantPower(vm.target_power_state or spec.target_power_state or "auto"),
        instance_type=vm.instance_type,
        root_disk=vm.root_disk,
        pvc_name_template=vm.pvc_name_template or spec.pvc_name_template or limits.pvc_name_template,
        volume_name_template=vm.volume_name_template or spec.volume_name_template,
        network_name_template=vm.network_name_template or spec.network_name_template,
        delete_on_fail=spec.delete_vm_on_fail_migration or vm.delete_vm_on_fail_migration,
        nested_virtualization=spec.enable_nested_virtualization if nested is None else nested,
    )


def _affinity(affinity: Affinity | None) -> dict[str, object] | None:
    """As the Kubernetes API wants it: only what was written."""
    return affinity.model_dump(by_alias=True, exclude_unset=True, mode="json") if affinity else None
