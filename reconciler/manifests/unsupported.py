"""Fields that are accepted but not implemented, each with what to do instead. One table per kind.

What it is: the honest list between Forklift's schema and what this reconciler does. `blocking`: ignoring the field would be unsafe or
would not be what was asked for in substance, so the plan may not run. A field that is implemented loses its row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from reconciler.core.desired import InventoryRef, Unsupported
from reconciler.manifests.schema.migration import MigrationSpec
from reconciler.manifests.schema.plan import PlanSpec
from reconciler.manifests.schema.plan import PlanVm as VmModel
from reconciler.manifests.schema.provider import ProviderSpec
from reconciler.manifests.schema.storagemap import StorageMapSpec


@dataclass(frozen=True, slots=True)
class Row:
    """`name`: the Python name of the field; `asked`: does this value ask for it (default: it is set and true)."""

    name: str
    message: str
    blocking: bool
    asked: Callable[[Any], bool] = bool


def _reference(value: Any) -> bool:
    return value is not None and bool(value.name)


_NO_CONVERSION = "has no effect: guest conversion is not implemented"
_SHARED = Row(
    "migrate_shared_disks", "skipping shared disks is not implemented; remedy: take such VMs out of the plan", True, lambda v: v is False
)
_RDM = Row("rdm_as_lun", "RDM disks as LUNs are not implemented; remedy: take such VMs out of the plan", True)
_RESERVATION = Row("scsi_reservation", "SCSI reservations are not implemented; remedy: take such VMs out of the plan", True)

PLAN = (
    Row("type", "live migration is not implemented; remedy: type: cold", True, lambda v: v == "live"),
    Row("type", "conversion without copying is not implemented; remedy: type: cold", True, lambda v: v == "conversion"),
    Row("transfer_network", "a transfer network is not implemented: copies would use the pod network; remedy: remove it", True, _reference),
    _SHARED,
    _RDM,
    _RESERVATION,
    Row("tag_mapping", "vSphere tags are not copied to labels; use targetLabels", False, lambda v: v is not None and not v.disabled),
    Row("preserve_static_ips", f"preserveStaticIPs {_NO_CONVERSION}; the guest keeps its own configuration as it is", False),
    Row("run_preflight_inspection", "disks are not inspected before copying", False),
    Row("customization_scripts", f"customizationScripts {_NO_CONVERSION}", False, _reference),
    Row("virt_v2v_image", f"virtV2vImage {_NO_CONVERSION}", False),
    Row("xfs_compatibility", f"xfsCompatibility {_NO_CONVERSION}", False),
    Row("conversion_temp_storage_class", f"conversionTempStorageClass {_NO_CONVERSION}", False),
    Row("conversion_temp_storage_size", f"conversionTempStorageSize {_NO_CONVERSION}", False),
    Row("install_legacy_drivers", f"installLegacyDrivers {_NO_CONVERSION}", False),
    Row("delete_guest_conversion_pod", f"deleteGuestConversionPod {_NO_CONVERSION}", False),
    Row("convertor_labels", f"convertorLabels {_NO_CONVERSION}", False),
    Row("convertor_affinity", f"convertorAffinity {_NO_CONVERSION}", False),
    Row("preserve_cluster_cpu_model", "cluster CPU models are not copied", False),
    Row("disk_bus", "diskBus has no effect; Forklift does not read it either", False),
    Row("skip_zone_node_selector", "skipZoneNodeSelector is for EC2 sources only", False),
)

VM = (
    Row("hooks", "hooks are not implemented; remedy: remove them and run the steps by hand", True),
    Row("luks", "LUKS passphrases are not implemented; remedy: take the VM out of the plan", True, _reference),
    Row("nbde_clevis", "Clevis/Tang unlocking is not implemented; remedy: take the VM out of the plan", True),
    _SHARED,
    _RDM,
    _RESERVATION,
)

MIGRATION = (Row("resume_conversion", "resuming a conversion is not implemented; remedy: start a new Migration without it", True),)

_COLD = (
    Row("cutover", "cutover has no effect in a cold plan", False),
    Row("vm_cutover", "vmCutover has no effect in a cold plan", False),
)

PROVIDER = (Row("esxi_clone_method", "copy offload is not implemented; esxiCloneMethod has no effect", False),)


def _found(rows: tuple[Row, ...], block: BaseModel, prefix: str, vm: InventoryRef | None = None) -> Iterator[Unsupported]:
    """Only fields that the file sets count; defaults never do."""
    fields = type(block).model_fields
    for row in rows:
        if row.name in block.model_fields_set and row.asked(getattr(block, row.name)):
            yield Unsupported(f"{prefix}{fields[row.name].alias}", row.message, row.blocking, vm)


def of_plan(spec: PlanSpec) -> Iterator[Unsupported]:
    yield from _found(PLAN, spec, "spec.")


def of_vm(vm: VmModel, index: int, ref: InventoryRef) -> Iterator[Unsupported]:
    yield from _found(VM, vm, f"spec.vms[{index}].", ref)


def of_migration(spec: MigrationSpec, *, cold: bool) -> Iterator[Unsupported]:
    yield from _found(MIGRATION, spec, "spec.")
    if cold:
        yield from _found(_COLD, spec, "spec.")


def of_provider(spec: ProviderSpec) -> Iterator[Unsupported]:
    yield from _found(PROVIDER, spec.settings, "spec.settings.")


def of_storage_map(spec: StorageMapSpec) -> Iterator[Unsupported]:
    message = "copy offload is not implemented; remedy: remove offloadPlugin, disks are then copied over the network"
    for index, entry in enumerate(spec.map):
        if entry.offload_plugin is not None:
            yield Unsupported(f"spec.map[{index}].offloadPlugin", message, True)


def of_source(platform: str, *, skip_conversion: bool) -> Iterator[Unsupported]:
    """What follows from the source's type."""
    if platform != "vsphere":
        yield Unsupported("spec.provider.source", f"sources of type {platform} are not implemented; only vsphere is", True)
    elif not skip_conversion:
        message = "guest conversion (virt-v2v) is not implemented; remedy: skipGuestConversion: true copies the disks as they are"
        yield Unsupported("spec.skipGuestConversion", message, True)
