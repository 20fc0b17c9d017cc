"""Plan: which VMs go where, and how.

Defaults are those of Forklift's CRD: an absent preserveStaticIPs, migrateSharedDisks, useCompatibilityMode, runPreflightInspection
or deleteVmOnFailMigration is true.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from reconciler.manifests.schema.affinity import Affinity
from reconciler.manifests.schema.shapes import Manifest, Model, ObjectReference, PowerState, ProviderPair, Quantity, Ref, matching

_ACCOUNT = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
ServiceAccount = Annotated[str, AfterValidator(matching(rf"({_ACCOUNT})?", "must be the name of a service account")), Field(max_length=253)]


class MapPair(Model):
    network: ObjectReference
    storage: ObjectReference


class HookRef(Model):
    step: Literal["PreHook", "PostHook"]
    hook: ObjectReference


class TagMapping(Model):
    """vSphere tags to VM labels."""

    disabled: bool = False
    label_tags: list[str] = Field(default_factory=list, description="Only these tags; empty means all.")


class PlanVm(Ref):
    """One VM; what is not set here comes from the plan."""

    hooks: list[HookRef] = Field(default_factory=list)
    luks: ObjectReference | None = Field(default=None, description="Secret whose values are passphrases.")
    nbde_clevis: bool = Field(default=False, description="Unlock with Clevis/Tang; beats luks.")
    root_disk: str = Field(default="", description="Linux device of the boot disk, for example /dev/sda.")
    instance_type: str = Field(default="", description="VirtualMachineInstancetype, replaces CPU and memory.")
    pvc_name_template: str = ""
    volume_name_template: str = ""
    network_name_template: str = ""
    target_name: str = Field(default="", description="Exact name of the target VM.")
    target_power_state: PowerState | None = None
    delete_vm_on_fail_migration: bool = False
    migrate_shared_disks: bool | None = None
    enable_nested_virtualization: bool | None = None
    rdm_as_lun: bool | None = None
    scsi_reservation: bool | None = None


class PlanSpec(Model):
    provider: ProviderPair
    map: MapPair
    target_namespace: str = Field(min_length=1, description="Made when missing.")
    vms: list[PlanVm]
    description: str = ""
    warm: bool = Field(default=False, description="Deprecated: use type. true wins over type: cold.")
    type: Literal["", "cold", "warm", "live", "conversion"] = ""
    archived: bool = Field(default=False, description="Clean up what is left, then never look at the plan again.")
    transfer_network: ObjectReference | None = None
    preserve_static_ips: bool = Field(default=True, alias="preserveStaticIPs")
    preserve_cluster_cpu_model: bool = Field(default=False, description="oVirt: copy the cluster's CPU model.")
    disk_bus: str = Field(default="", description="Deprecated, without effect.")
    pvc_name_template: str = Field(default="", description="Go template.")
    pvc_name_template_use_generate_name: bool | None = Field(default=None, description="false: the template gives the exact name.")
    volume_name_template: str = Field(default="", description="Go template; empty means vol-{{.VolumeIndex}}.")
    network_name_template: str = Field(default="", description="Go template; empty means net-{{.NetworkIndex}}.")
    migrate_shared_disks: bool = True
    install_legacy_drivers: bool | None = None
    delete_guest_conversion_pod: bool = False
    skip_guest_conversion: bool = Field(default=False, description="Copy the disks as they are, without virt-v2v.")
    use_compatibility_mode: bool = Field(default=True, description="With skipGuestConversion: SATA and E1000E; false: virtio.")
    target_labels: dict[str, str] = Field(default_factory=dict)
    target_node_selector: dict[str, str] = Field(default_factory=dict)
    target_affinity: Affinity | None = None
    target_power_state: PowerState | None = Field(default=None, description="auto: as the source was.")
    convertor_labels: dict[str, str] = Field(default_factory=dict)
    convertor_node_selector: dict[str, str] = Field(default_factory=dict)
    convertor_affinity: Affinity | None = None
    delete_vm_on_fail_migration: bool = True
    run_preflight_inspection: bool = True
    virt_v2v_image: str = ""
    xfs_compatibility: bool = False
    enable_nested_virtualization: bool | None = None
    conversion_temp_storage_class: str = ""
    conversion_temp_storage_size: Quantity | None = None
    customization_scripts: ObjectReference | None = None
    skip_zone_node_selector: bool = Field(default=False, description="EC2 only.")
    service_account: ServiceAccount = ""
    rdm_as_lun: bool = False
    scsi_reservation: bool = False
    tag_mapping: TagMapping | None = None


class Plan(Manifest):
    """Which VMs move, from where to where; a Migration starts it."""

    kind: Literal["Plan"]
    spec: PlanSpec
