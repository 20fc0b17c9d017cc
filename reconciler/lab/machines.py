"""Records of the lab's world: virtual machines, disks, NICs and the places they live in. Plain mutable data; world.py changes it.

Neutral: the skins (vcenter, …) turn `key` into their own ids and these fields into their own types.
Units: MiB where the name says so, bytes and seconds otherwise. `revision` grows with each change a skin could show.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from reconciler.lab.tracking import Tracking

_SLOTS = {"pvscsi": "scsi0", "lsilogic": "scsi1", "sata": "sata0", "nvme": "nvme0", "ide": "ide0"}


class Power(StrEnum):
    ON = "on"
    OFF = "off"
    SUSPENDED = "suspended"


class Happening(StrEnum):
    """What the power history tells. STARTING comes before ON, as in platforms that log both."""

    STARTING = "starting"
    ON = "on"
    OFF = "off"
    GUEST_SHUTDOWN = "guest-shutdown"
    RESET = "reset"
    SUSPENDED = "suspended"
    RECONFIGURED = "reconfigured"
    REVERTED = "reverted"
    MIGRATED = "migrated"


@dataclass(frozen=True, slots=True)
class PowerEvent:
    """`cause`: user, drs (the scheduler placed it), ha (the platform restarted it), guest (the guest did it itself)."""

    number: int
    at: datetime
    vm: int
    kind: Happening
    user: str
    cause: str


@dataclass(frozen=True, slots=True)
class GuestWrite:
    at: datetime
    disk_uuid: str
    offset: int
    length: int


@dataclass(slots=True)
class Datacenter:
    key: int
    name: str
    revision: int = 0


@dataclass(slots=True)
class Cluster:
    key: int
    name: str
    datacenter: Datacenter
    revision: int = 0


@dataclass(slots=True)
class Host:
    key: int
    name: str
    cluster: Cluster
    maintenance: bool = False
    connected: bool = True
    revision: int = 0
    thumbprint: str = ""  # SHA-1 of its certificate, as the site that manages it knows it


@dataclass(slots=True)
class Datastore:
    """`kind`: VMFS, NFS, NFS41, vsan, VVOL. `reads_running_base`: the frozen base of a running machine's chain can be opened.
    `flat_files`: disks are files at all; object stores (vSAN, vVols) have descriptors only."""

    key: int
    name: str
    datacenter: Datacenter
    kind: str
    folder: Path
    shared: bool = True
    accessible: bool = True
    reads_running_base: bool = False
    capacity_bytes: int = 4 << 40
    revision: int = 0

    @property
    def flat_files(self) -> bool:
        return self.kind.lower() not in ("vsan", "vvol")


@dataclass(slots=True)
class Network:
    """`switch` names the distributed switch; empty for a standard network."""

    key: int
    name: str
    datacenter: Datacenter
    switch: str = ""
    vlan: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A file that a snapshot froze."""

    snapshot: int
    file: str
    path: Path


@dataclass(slots=True)
class Disk:
    """One virtual disk. `file` is the descriptor's name in `folder`; the bytes are in `path` (`…-flat.vmdk`).

    kind:  FlatVer2, SeSparse, SparseVer2, RawDiskMappingVer1: how the platform says that it lies there.
    parents: what a linked clone shares with others. layers: what our own snapshots froze, the oldest first.
    aside:   what snapshots froze that are not below the running state, after a revert.
    tracks:  the machine's setting to record changes reaches this disk. tracking: the record, once it has begun.
    frozen:  the bytes at the last power-off, kept from the next power-on on.
    """

    uuid: str
    label: str
    capacity_bytes: int
    datastore: Datastore
    folder: str
    file: str
    path: Path
    bus: str
    unit: int
    kind: str = "FlatVer2"
    mode: str = "persistent"
    thin: bool = True
    parents: tuple[str, ...] = ()
    key_id: str | None = None
    frozen: Path | None = None
    layers: list[Layer] = field(default_factory=list)
    deltas: int = 0
    aside: list[Layer] = field(default_factory=list)
    tracks: bool = True
    tracking: Tracking | None = None

    @property
    def backing(self) -> str:
        return f"[{self.datastore.name}] {self.folder}/{self.file}"

    @property
    def change_id(self) -> str | None:
        return self.tracking.id_at(self.tracking.sequence) if self.tracking else None

    @property
    def slot(self) -> str:
        """As the machine's settings name its place: scsi0:1."""
        return f"{_SLOTS.get(self.bus, self.bus)}:{self.unit}"

    @property
    def independent(self) -> bool:
        return self.mode.startswith("independent")


@dataclass(slots=True)
class Nic:
    mac: str
    network: Network
    model: str = "vmxnet3"
    connected: bool = True


@dataclass(frozen=True, slots=True)
class Moment:
    """A disk as it was at a snapshot. `tracking` is the record that ran then, `sequence` the number it gave to that moment."""

    disk: Disk
    capacity_bytes: int
    tracking: Tracking | None
    sequence: int

    @property
    def change_id(self) -> str | None:
        return self.tracking.id_at(self.sequence) if self.tracking else None


@dataclass(slots=True)
class Snapshot:
    key: int
    name: str
    description: str
    at: datetime
    power: Power
    parent: int | None
    disks: list[Moment] = field(default_factory=list)


@dataclass(slots=True)
class Vm:
    """`folder` is the path below the datacenter's VM folder ("" = directly in it). `tools`: guest tools are installed."""

    key: int
    name: str
    datacenter: Datacenter
    host: Host
    uuid: str
    instance_uuid: str
    folder: str = ""
    power: Power = Power.OFF
    firmware: str = "bios"
    secure_boot: bool = False
    tpm: bool = False
    cpus: int = 2
    cores_per_socket: int = 1
    memory_mib: int = 1024
    guest_id: str = "rhel9_64Guest"
    guest_name: str = "Red Hat Enterprise Linux 9 (64-bit)"
    tools: bool = True
    ignores_shutdown: bool = False
    shutdown_s: float = 0.3
    boot_s: float = 0.0
    writes_per_tick: int = 3
    template: bool = False
    connected: bool = True
    consolidation_needed: bool = False
    consolidations_that_fail: int = 0  # so many removals of a snapshot leave its files behind
    change_tracking: bool = False
    supports_change_tracking: bool = True  # hardware version 7 or newer
    cpu_hot_add: bool = False
    memory_hot_add: bool = False
    nested_virtualization: bool = False
    cpu_affinity: tuple[int, ...] = ()
    annotation: str = ""
    extra_config: dict[str, str] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    nics: list[Nic] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    current_snapshot: int | None = None
    boot_at: datetime | None = None
    guest_up: bool = False
    shutting_down: bool = False
    boots: int = 0  # number of power-ons; a promise made for an earlier boot is void
    writes: deque[GuestWrite] = field(default_factory=lambda: deque(maxlen=10_000))
    write_count: int = 0
    revision: int = 0
    config_version: int = 1  # grows with the configuration, a boot, a snapshot; not with what merely runs

    @property
    def tools_running(self) -> bool:
        return self.tools and self.guest_up and self.power is Power.ON
