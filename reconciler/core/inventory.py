"""What a source site holds, in neutral terms. Built by drivers/*/inventory.py, read by the core.

Units: bytes for sizes. Names are hostile text: whoever prints them escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.core.model import ObjectRef, Power, Right


@dataclass(frozen=True, slots=True)
class SiteInfo:
    """Identity of a site, checked at each session. `time_at` is the site's own clock (safety 19), `asked_at` ours when it told that."""

    uuid: str
    product: str
    version: str
    time_at: datetime | None
    asked_at: datetime | None = None

    @property
    def skew_s(self) -> float:
        """Our clock ahead of the site's. Of the moment it was asked, not of the pass: the read of a large inventory takes minutes."""
        return (self.asked_at - self.time_at).total_seconds() if self.asked_at and self.time_at else 0.0


@dataclass(frozen=True, slots=True)
class Backing:
    """How a disk lies on its storage; decides the data path.

    kind:  vSphere backing class without prefix and suffix: FlatVer2, SeSparse, SparseVer2, RawDiskMappingVer1, RawDiskVer2.
    file:  `[datastore] dir/disk.vmdk` as the platform names it; parents are listed nearest first.
    """

    kind: str
    file: str
    parents: tuple[str, ...] = ()
    key_id: str | None = None  # encryption key; set = encrypted
    datastore_type: str = ""  # VMFS, NFS, NFS41, vsan, VVOL
    datacenter_path: str = ""  # dcPath of the /folder URL


@dataclass(frozen=True, slots=True)
class SourceDisk:
    """`uuid` identifies the disk (vSphere backing.uuid); `key` is the device key inside the VM."""

    key: str
    uuid: str
    label: str
    capacity_bytes: int
    storage_id: str
    storage_name: str
    bus: str  # scsi, sata, ide, nvme
    controller_key: int
    unit: int
    mode: str
    backing: Backing
    serial: str = ""
    shared: bool = False
    rdm: bool = False
    change_tracking: bool = False
    change_id: str | None = None


@dataclass(frozen=True, slots=True)
class SourceNic:
    key: str
    mac: str  # lower case
    network_id: str
    network_name: str
    model: str
    connected: bool = True


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """`key` is ours when a reconciler made it. `disks` (with their change ids): as it froze them; of our own, by a direct read only."""

    id: str
    name: str
    key: str | None
    disks: tuple[SourceDisk, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceVm:
    """One VM. `epoch` is filled by a direct read only: it changes whenever the source was powered on (safety 1, 9).

    Disks stand in boot order of the platform (vSphere: controller, then unit). `attributes` is the workload document that the
    validation concerns read (JSON names of the provider's inventory).
    """

    id: str
    uuid: str
    bios_uuid: str
    name: str
    path: str  # /DC/vm/folder/name, unique in the site
    power: Power
    tools_running: bool
    firmware: str  # bios, efi
    secure_boot: bool
    tpm: bool
    cpus: int
    cores_per_socket: int
    memory_bytes: int
    guest_id: str
    guest_name: str
    host_id: str
    disks: tuple[SourceDisk, ...]
    nics: tuple[SourceNic, ...]
    snapshots: tuple[SourceSnapshot, ...] = ()
    consolidation_needed: bool = False
    change_tracking: bool = False
    is_template: bool = False
    connected: bool = True
    epoch: str | None = None
    nested_virtualization: bool = False
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedItem:
    """A network, datastore, host … that maps refer to. `aliases` are other ids it answers to (portgroup key)."""

    id: str
    name: str
    kind: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostAccess:
    """What a Host manifest came to at the site. Without `type`: disks of VMs on `host_id` are read at `address`.

    type: the condition that says why they cannot be, with `reason`, `message` and `suggestion`. `host_id` "" when it names no host.
    """

    host_id: str
    host_name: str
    address: str
    type: str = ""
    reason: str = ""
    message: str = ""
    suggestion: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """One complete bulk read of a site. An incomplete read is never an Inventory; it is Unknown.

    lacking: by VM id, for those that were asked about: which rights the account has not, each with the names in which.
    """

    site: SiteInfo
    vms: tuple[SourceVm, ...]
    networks: tuple[NamedItem, ...]
    storages: tuple[NamedItem, ...]
    hosts: tuple[NamedItem, ...]
    host_access: Mapping[ObjectRef, HostAccess] = field(default_factory=dict)
    lacking: Mapping[str, Mapping[Right, tuple[str, ...]]] = field(default_factory=dict)
