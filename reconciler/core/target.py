"""The target side in neutral terms: what we ask for, and what a target site was seen to hold.

What it is: frozen values between core, engine and drivers/kubevirt. What it is not: Kubernetes objects (drivers/kubevirt/objects.py).
Units: bytes, unless a name says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from typing import TypeVar

from reconciler.core.inventory import SiteInfo
from reconciler.core.model import Mark, Power, Watermark

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class VolumeMode(StrEnum):
    FILESYSTEM = "Filesystem"
    BLOCK = "Block"


@dataclass(frozen=True, slots=True)
class Instance:
    """Which reconciler this is: an id minted once per status branch (safety 6). `inherits`: of lost branches that a person answers for.

    Labels in a cluster say who made a thing; whether that is us is judged by `owns`, and nowhere else.
    """

    id: str = ""
    inherits: tuple[str, ...] = ()

    def owns(self, id_: str | None) -> bool:
        return id_ is not None and (id_ == self.id or id_ in self.inherits)

    def owns_key(self, key: str) -> bool:
        """Of a snapshot: `<short>/<namespace>/<run>/<slug>/r<number>` (View.snapshot_key)."""
        return key.split("/", 1)[0] in {Instance(id_).short for id_ in (self.id, *self.inherits)}

    @property
    def short(self) -> str:
        """For names and keys, such as those of snapshots: 8 hex digits, equal for equal ids."""
        return sha256(self.id.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Owner:
    """Full identity that every object of ours carries: as hashed labels and, in full, as annotations."""

    plan: str  # ns/name
    migration: str  # ns/name
    vm: str  # the record's slug, unique inside the run
    source: str  # <site uuid>/<vm uuid>
    milestone: str
    commit: str  # the status commit that allowed the last write; "" before the first publish
    instance: Instance = field(default_factory=Instance)


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """One PVC. `request_bytes` has overhead and rounding in it; None modes are left to the driver's StorageProfile look-up."""

    namespace: str
    name: str
    disk_uuid: str
    source_vm_uuid: str
    capacity_bytes: int
    request_bytes: int
    storage_class: str
    volume_mode: VolumeMode
    access_mode: str
    disk_source: str  # annotation forklift.konveyor.io/disk-source
    disk_index: int
    owner: Owner
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    node_selector: Mapping[str, str] = field(default_factory=dict)
    affinity: Mapping[str, object] | None = None
    service_account: str | None = None


@dataclass(frozen=True, slots=True)
class PodWishes:
    """What ForkliftController says of our pods. `resources`: half -> unit -> quantity, as in a container; "" and {} leave it to the app."""

    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pull_policy: str = ""


@dataclass(frozen=True, slots=True)
class BinderSpec:
    """A pod that mounts all volumes of one VM once: WaitForFirstConsumer classes bind in one place, and each volume is opened on trial."""

    namespace: str
    name: str
    volumes: tuple[tuple[str, VolumeMode], ...]  # (PVC name, mode)
    placement: Placement
    owner: Owner
    trial: str = ""  # what is tried: these volumes by uid, and the image with VDDK (core/preflight.py)
    wishes: PodWishes = field(default_factory=PodWishes)
    vddk_image: str = ""  # the pod gets VDDK from it, and loads it on trial


@dataclass(frozen=True, slots=True)
class TargetDisk:
    name: str  # volume name in the VM
    pvc: str
    bus: str  # virtio, sata, scsi
    boot_order: int | None
    serial: str
    shareable: bool = False


@dataclass(frozen=True, slots=True)
class TargetNic:
    name: str
    mac: str
    model: str  # virtio, e1000e
    pod_network: bool  # True: pod network with masquerade; False: multus bridge on `network`
    network: str = ""  # ns/name of the NAD


@dataclass(frozen=True, slots=True)
class TargetVmSpec:
    """The target VirtualMachine, in neutral terms. Always created Halted; power is a request of its own."""

    namespace: str
    name: str
    cpu_sockets: int
    cpu_cores: int
    memory_bytes: int
    firmware: str  # bios, efi
    secure_boot: bool
    tpm: bool
    uuid: str  # firmware uuid given to the guest
    serial: str  # firmware serial given to the guest
    disks: tuple[TargetDisk, ...]
    nics: tuple[TargetNic, ...]
    source_name: str
    owner: Owner = field(default_factory=lambda: Owner("", "", "", "", "", ""))  # filled in when it is made, not when it is frozen
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    instance_type: str | None = None
    placement: Placement = field(default_factory=Placement)
    nested_virtualization: bool | None = None


@dataclass(frozen=True, slots=True)
class CopyJob:
    """One importer Job: all disks of one VM in one round. `name` holds run, VM, round and attempt, so it is never reused."""

    namespace: str
    name: str
    volumes: tuple[tuple[str, str, VolumeMode], ...]  # (disk uuid, PVC name, mode)
    placement: Placement
    owner: Owner
    round_key: str
    attempt: int
    wishes: PodWishes = field(default_factory=PodWishes)
    vddk_image: str = ""  # the pod gets VDDK from it


# ---- observed -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Writer:
    """A pod that mounts a volume. `fenced`: Succeeded/Failed on a Ready node, or gone with its node (safety 4)."""

    pod: str
    phase: str
    fenced: bool
    ours: bool
    role: str = ""  # our label reconciler.dev/role: binder, importer, ""; virt-launcher pods have role "vmi"


@dataclass(frozen=True, slots=True)
class Volume:
    """A PVC as seen. `ours`: it carries our label and our instance. `key` = source vm uuid + "/" + disk uuid from annotations."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    phase: str  # Pending, Bound, Lost
    storage_class: str
    volume_mode: VolumeMode
    request_bytes: int
    capacity_bytes: int
    ours: bool
    key: str
    migration: str  # annotation: run that owns it, ns/name
    commit: str
    mark: Mark | None
    watermark: Watermark | None
    writers: tuple[Writer, ...]
    deleting: bool = False
    waits_for_consumer: bool = False
    events: tuple[str, ...] = ()  # newest warnings about it, for a person
    owners: frozenset[str] = frozenset()  # uids in its ownerReferences
    source: str = ""  # annotation: <site uuid>/<vm uuid>
    vm: str = ""  # annotation: the record's slug
    instance: str = ""  # label: the reconciler that made it

    def users(self, vms: Iterable[TargetVm]) -> tuple[TargetVm, ...]:
        """Machines of others that have it as a disk; one that is off has no pod that would tell. `vms`: at least those of its namespace."""
        return tuple(v for v in vms if self.name in v.takes(self.namespace, self.source))


class JobPhase(StrEnum):
    SUSPENDED = "Suspended"
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Job:
    """An importer Job as seen. `exit_code` and `termination_message` come from its (only) pod, once that has ended."""

    namespace: str
    name: str
    uid: str
    phase: JobPhase
    migration: str
    vm: str
    round_key: str
    attempt: int
    exit_code: int | None
    termination_message: str
    message: str  # why it is pending or failed, in the cluster's words
    deleting: bool = False
    source: str = ""  # annotation: <site uuid>/<vm uuid>
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Binder:
    """The pod of a BinderSpec as seen. `apart`: why no node can ever have all its volumes, "" where that is not proven."""

    namespace: str
    name: str
    phase: str
    message: str
    migration: str
    vm: str
    deleting: bool = False
    source: str = ""  # annotation: <site uuid>/<vm uuid>
    commit: str = ""
    trial: str = ""  # as in its BinderSpec
    exit_code: int | None = None
    termination_message: str = ""
    apart: str = ""
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TargetVm:
    """A VirtualMachine as seen, or a VirtualMachineInstance without one. `power`: ON when a VMI runs or starts, OFF when there is none and
    it is Halted.

    `generation` counts changes of its spec. A start and a stop are two of them, though nobody should see the VM run (safety 9).
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    ours: bool
    migration: str
    source: str  # annotation: <site uuid>/<vm uuid>
    milestone: str
    commit: str
    run_strategy: str
    power: Power
    ready: bool
    message: str
    macs: tuple[str, ...] = ()
    deleting: bool = False
    instance: str = ""  # label: the reconciler that made it
    generation: int = 0
    claims: frozenset[str] = frozenset()  # names of the PVCs that it has as disks
    kind: str = "VirtualMachine"

    def takes(self, namespace: str, source: str) -> frozenset[str]:
        """PVCs of `namespace` that it has as disks, unless it is our machine for `source` ("<site uuid>/<vm uuid>")."""
        theirs = self.namespace == namespace and not self.deleting and not (self.ours and self.source == source)
        return self.claims if theirs else frozenset()

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def reserved(self) -> str:
        """Which VM it is, and how often its spec was changed.

        A start and a stop change spec.runStrategy, and so metadata.generation, though nobody should see the VM run (KubeVirt: virt-api, or
        virt-controller for a paused start). KubeVirt may change a spec by itself too; that costs a copy, never a write.
        """
        return f"{self.uid}/{self.generation}"


@dataclass(frozen=True, slots=True)
class Stranger:
    """What another reconciler made: it carries our label, but not our instance. Looked at, never adopted, changed or deleted."""

    kind: str
    namespace: str
    name: str
    instance: str
    migration: str
    source: str
    finished: bool = False  # handed over, or a disk that belongs to a VM

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class StorageClass:
    """`default_*` come from CDI's StorageProfile when there is one. `overhead` is a fraction, None when CDI is absent."""

    name: str
    waits_for_consumer: bool
    default_volume_mode: VolumeMode | None
    default_access_mode: str | None
    overhead: float | None
    provisioner: str = ""


@dataclass(frozen=True)  # no slots: its look-ups are made when first asked for, and kept
class TargetInventory:
    """One complete bulk read of a target site, limited to the namespaces asked for (plus cluster-wide kinds).

    Each VM of a pass asks for its own things among those of all others: by the look-ups below, never by going through the tuples.
    """

    site: SiteInfo
    namespaces: frozenset[str]
    storage_classes: tuple[StorageClass, ...]
    networks: frozenset[str]  # "ns/name" of NetworkAttachmentDefinitions; empty when Multus is absent
    volumes: tuple[Volume, ...]
    jobs: tuple[Job, ...]
    binders: tuple[Binder, ...]
    vms: tuple[TargetVm, ...]
    instance_types: frozenset[str] = frozenset()  # "ns/name" and "/name" for cluster-wide ones
    strangers: tuple[Stranger, ...] = ()  # of another reconciler; PVCs and VMs among them stand above too, as not ours

    def machine(self, namespace: str, name: str) -> TargetVm | None:
        return next(iter(self._machines.get((namespace, name), ())), None)

    def machines_of(self, source: str) -> tuple[TargetVm, ...]:
        """Made for this source ("<site uuid>/<vm uuid>"), as their annotation says."""
        return self._machines_by_source.get(source, ())

    def machines_at(self, mac: str) -> tuple[TargetVm, ...]:
        return self._machines_by_mac.get(mac, ())

    def machines_with(self, pvcs: Iterable[str]) -> tuple[TargetVm, ...]:
        """That have a PVC of one of these names as a disk, in any namespace."""
        found = (vm for pvc in pvcs for vm in self._machines_by_claim.get(pvc, ()))
        return tuple({(vm.kind, vm.namespace, vm.name): vm for vm in found}.values())

    def volume(self, namespace: str, name: str) -> Volume | None:
        return next(iter(self._volumes.get((namespace, name), ())), None)

    def jobs_of(self, run: str, vm: str) -> tuple[Job, ...]:
        """`vm`: the record's slug."""
        return self._jobs.get((run, vm), ())

    def binders_of(self, run: str, vm: str) -> tuple[Binder, ...]:
        return self._binders.get((run, vm), ())

    @cached_property
    def machine_uids(self) -> frozenset[str]:
        return frozenset(vm.uid for vm in self.vms)

    @cached_property
    def owner_uids(self) -> frozenset[str]:
        """Of whatever owns a volume."""
        return frozenset(uid for x in self.volumes for uid in x.owners)

    @cached_property
    def _machines(self) -> Mapping[tuple[str, str], tuple[TargetVm, ...]]:
        return _grouped(self.vms, lambda vm: ((vm.namespace, vm.name),))

    @cached_property
    def _machines_by_source(self) -> Mapping[str, tuple[TargetVm, ...]]:
        return _grouped(self.vms, lambda vm: (vm.source,))

    @cached_property
    def _machines_by_mac(self) -> Mapping[str, tuple[TargetVm, ...]]:
        return _grouped(self.vms, lambda vm: vm.macs)

    @cached_property
    def _machines_by_claim(self) -> Mapping[str, tuple[TargetVm, ...]]:
        return _grouped(self.vms, lambda vm: vm.claims)

    @cached_property
    def _volumes(self) -> Mapping[tuple[str, str], tuple[Volume, ...]]:
        return _grouped(self.volumes, lambda x: ((x.namespace, x.name),))

    @cached_property
    def _jobs(self) -> Mapping[tuple[str, str], tuple[Job, ...]]:
        return _grouped(self.jobs, lambda job: ((job.migration, job.vm),))

    @cached_property
    def _binders(self) -> Mapping[tuple[str, str], tuple[Binder, ...]]:
        return _grouped(self.binders, lambda pod: ((pod.migration, pod.vm),))


def _grouped(things: Iterable[T], keys: Callable[[T], Iterable[K]]) -> Mapping[K, tuple[T, ...]]:
    """In their order."""
    groups: dict[K, list[T]] = defaultdict(list)
    for thing in things:
        for key in keys(thing):
            groups[key].append(thing)
    return {key: tuple(group) for key, group in groups.items()}
