"""What the git repo asks for, joined and defaulted. Made by manifests/resolve.py, read by everything in core.

What it is: one frozen value per commit. What it is not: validated against any site; that is core/concerns and core/conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from reconciler.core.copyspec import Verify
from reconciler.core.model import Mode, ObjectRef
from reconciler.core.target import PodWishes


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thing stands in the repo. Lines and columns count from 1."""

    path: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a manifest: what is wrong, where, and what to do. `object` is Kind/namespace/name or "" when unknown."""

    place: Place
    object: str
    field: str
    reason: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class InventoryRef:
    """Forklift's Ref: id wins over name. `type: pod` qualifies a network of an OpenShift source."""

    id: str = ""
    name: str = ""
    namespace: str = ""
    type: str = ""

    def __str__(self) -> str:
        full = f"{self.namespace}/{self.name}" if self.namespace and self.name else self.name
        return f"{full} ({self.id})" if full and self.id else full or self.id or self.type


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A field that is accepted but not implemented. `blocking`: ignoring it would be unsafe, so the plan may not run."""

    field: str
    message: str
    blocking: bool
    vm: InventoryRef | None = None


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    ref: ObjectRef
    platform: str  # as written; core.model.Platform when known
    url: str
    secret: ObjectRef | None
    settings: Mapping[str, str]
    place: Place
    hosts: tuple[HostSpec, ...] = ()  # its Host manifests, joined by resolve


@dataclass(frozen=True, slots=True)
class HostSpec:
    ref: ObjectRef
    place: Place
    provider: ObjectRef | None
    host: InventoryRef
    ip_address: str
    secret: ObjectRef | None


@dataclass(frozen=True, slots=True)
class NetworkPair:
    source: InventoryRef
    kind: str  # pod, multus, ignored
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class NetworkMapSpec:
    ref: ObjectRef
    source: ObjectRef | None
    destination: ObjectRef | None
    pairs: tuple[NetworkPair, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class StoragePair:
    source: InventoryRef
    storage_class: str
    volume_mode: str | None = None
    access_mode: str | None = None


@dataclass(frozen=True, slots=True)
class StorageMapSpec:
    ref: ObjectRef
    source: ObjectRef | None
    destination: ObjectRef | None
    pairs: tuple[StoragePair, ...]
    place: Place
    unsupported: tuple[Unsupported, ...] = ()


class WantPower(StrEnum):
    """`targetPowerState`. AUTO: as the source was."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class ShutdownPolicy(StrEnum):
    """Annotation reconciler.dev/guest-shutdown-policy: what to do when a guest ignores the shutdown."""

    FAIL = "fail"
    FORCE = "force"


@dataclass(frozen=True, slots=True)
class PlanVm:
    """One entry of spec.vms, with the plan's defaults already applied."""

    ref: InventoryRef
    place: Place
    target_name: str = ""
    target_power: WantPower = WantPower.AUTO
    instance_type: str = ""
    root_disk: str = ""
    pvc_name_template: str = ""
    volume_name_template: str = ""
    network_name_template: str = ""
    delete_on_fail: bool = True
    nested_virtualization: bool | None = None


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """A Plan. Times in seconds; from annotations reconciler.dev/…, else ForkliftController, else design section 3."""

    ref: ObjectRef
    place: Place
    description: str
    source: ObjectRef | None
    destination: ObjectRef | None
    network_map: ObjectRef | None
    storage_map: ObjectRef | None
    target_namespace: str
    mode: Mode
    type: str  # as written: "", cold, warm, live, conversion
    archived: bool
    vms: tuple[PlanVm, ...]
    unsupported: tuple[Unsupported, ...] = ()
    skip_conversion: bool = False
    compatibility_mode: bool = True
    preserve_static_ips: bool = True
    pvc_generate_name: bool = True
    target_labels: Mapping[str, str] = field(default_factory=dict)
    target_node_selector: Mapping[str, str] = field(default_factory=dict)
    target_affinity: Mapping[str, object] | None = None
    convertor_node_selector: Mapping[str, str] = field(default_factory=dict)
    service_account: str = ""
    transfer_network: ObjectRef | None = None
    verify: Verify = Verify.READBACK
    shutdown_policy: ShutdownPolicy = ShutdownPolicy.FAIL
    shutdown_timeout_s: float = 600.0
    copy_stall_s: float = 900.0
    bandwidth_bytes_per_s: int | None = None
    enable_tracking: bool = False
    precopy_interval_s: float | None = None  # None: ForkliftController's
    downtime_budget_s: float | None = None


@dataclass(frozen=True, slots=True)
class MigrationSpec:
    ref: ObjectRef
    place: Place
    plan: ObjectRef | None
    cancel: tuple[InventoryRef, ...] = ()
    cutover_at: datetime | None = None
    vm_cutover: tuple[tuple[str, datetime], ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    acknowledged: tuple[str, ...] = ()  # lost status commits that a person answers for (safety 7); beginnings of at least 7 digits


@dataclass(frozen=True, slots=True)
class HookSpec:
    ref: ObjectRef
    place: Place


@dataclass(frozen=True, slots=True)
class Limits:
    """From ForkliftController. `filesystem_overhead` is a fraction; None: not set, CDI's value or 6 % counts."""

    max_vm_inflight: int = 20
    precopy_interval_s: float = 3600.0
    filesystem_overhead: float | None = None
    block_overhead_bytes: int = 0
    pvc_name_template: str = ""
    migration_service_account: str = ""
    importer_retries: int = 3
    pods: PodWishes = field(default_factory=PodWishes)
    judge_concerns: bool = True  # feature_validation
    vmware_serial: bool = True  # feature_vmware_system_serial_number
    vddk_image: str = ""  # for vSphere Providers that name none


@dataclass(frozen=True, slots=True)
class ControllerSpec:
    """The ForkliftController itself; what it sets is in Limits."""

    ref: ObjectRef
    place: Place
    unsupported: tuple[Unsupported, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that one commit asks for.

    complete: the whole tree loaded without an error; only then may an absent manifest mean anything (safety 10).
    broken:   identity "Kind/ns/name" of manifests that have errors; they keep what they had, and say so.
    """

    revision: str
    providers: Mapping[ObjectRef, ProviderSpec] = field(default_factory=dict)
    network_maps: Mapping[ObjectRef, NetworkMapSpec] = field(default_factory=dict)
    storage_maps: Mapping[ObjectRef, StorageMapSpec] = field(default_factory=dict)
    plans: Mapping[ObjectRef, PlanSpec] = field(default_factory=dict)
    migrations: Mapping[ObjectRef, MigrationSpec] = field(default_factory=dict)
    hooks: Mapping[ObjectRef, HookSpec] = field(default_factory=dict)
    hosts: Mapping[ObjectRef, HostSpec] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    controllers: Mapping[ObjectRef, ControllerSpec] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    complete: bool = True
    broken: frozenset[str] = frozenset()
