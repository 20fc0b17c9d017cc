"""The waist: Protocols between the engine and the world. No implementation, no platform words.

Contract of every method, stated once: it may be repeated; none waits for a task to end (`ensure_`, `drop_` and `request_` start something
and the next `read_` shows it); objects of others are never changed; errors are RetryableError or TerminalError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from reconciler.core.copyspec import CopyDisk, CopyResult, CopySpec, DiskProgress, ExportSpec, Reader, TlsSpec, VddkSpec
from reconciler.core.inventory import Inventory, SiteInfo, SourceVm
from reconciler.core.model import Absent, Known, Mark, Power, PowerRequest, Right, Secret, VmRef, Watermark
from reconciler.core.target import BinderSpec, CopyJob, Owner, TargetInventory, TargetVm, TargetVmSpec, Volume, VolumeSpec


class Clock(Protocol):
    """`monotonic` counts suspended time too (CLOCK_BOOTTIME), in seconds."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...
    def new_id(self) -> str: ...
    def jitter(self) -> float: ...  # 0.0 … 1.0


# ---- source ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a source platform can do, as data."""

    warm: bool
    quiesce: bool
    guest_shutdown: bool
    needs_conversion: bool


@dataclass(frozen=True, slots=True)
class DiskChoice:
    """A disk and the path that core/datapath chose for it."""

    disk_uuid: str
    path: str


@dataclass(frozen=True, slots=True)
class CopySource:
    """What a worker needs to read some disks: where, how to trust it, and the credentials (each becomes a file in a Secret).

    disks: uuid -> (reader, url)
    """

    disks: Mapping[str, tuple[Reader, str]]
    tls: TlsSpec  # ca_file is a placeholder name: the target driver mounts `ca_pem` and fills the path in
    ca_pem: str | None
    credentials: Mapping[str, Secret]
    connections: int
    request_bytes: int
    export: ExportSpec | None = None  # goes into CopySpec.export; the reader of its disks is VMDK_STREAM, their url is ""
    vddk: VddkSpec | None = None  # goes into CopySpec.vddk; the reader of its disks is NBD, their url is ""


@dataclass(frozen=True, slots=True)
class Changes:
    """Each disk that was asked about is in one of the two.

    areas:  disk uuid -> (offset, length) in bytes, ascending, disjoint, inside the capacity, or none.
    doubts: disk uuid -> why its change id does not count: the platform forgot it, or what it says about it may be a lie.
    """

    areas: Mapping[str, Sequence[tuple[int, int]]]
    doubts: Mapping[str, str] = field(default_factory=dict)


class SourceDriver(Protocol):
    """One source platform. Whose `caps.warm` is false refuses the snapshot calls with TerminalError NotSupported."""

    caps: Capabilities

    def read_site(self) -> SiteInfo:
        """Log in if needed and return the identity. Errors: TerminalError AuthFailed, ThumbprintMismatch, CertificateInvalid."""
        ...

    def read_inventory(self) -> Inventory:
        """One bulk read, complete or an error. Never a call per VM."""
        ...

    def read_rights(self, vms: Sequence[SourceVm]) -> Mapping[str, Mapping[Right, tuple[str, ...]]]:
        """VM id -> what our account lacks there, in the platform's names; empty: nothing. In bulk; VMs it does not tell of are left out."""
        ...

    def read_vm(self, vm: VmRef) -> Known[SourceVm] | Absent:
        """A direct read of one VM, now, with its epoch. Absent only when the site says that there is no such VM."""
        ...

    def request_power(self, vm: VmRef, want: PowerRequest) -> None: ...

    def describe_copy(self, vm: SourceVm, disks: Sequence[DiskChoice], at: str | None = None) -> CopySource:
        """`at`: the id of our snapshot whose disks are read; None: the disks themselves, the VM is off."""
        ...

    def enable_tracking(self, vm: VmRef) -> None:
        """Change tracking on for the VM and each of its disks. It counts from the next snapshot or power-on."""
        ...

    def ensure_snapshot(self, vm: VmRef, key: str) -> None:
        """Start one (no memory, no quiesce) unless one with this key is there or under way. Snapshots of others are never touched."""
        ...

    def drop_snapshot(self, vm: VmRef, key: str, merge: bool = False) -> None:
        """Start its removal. Absent is success; then `merge` starts the consolidation of files that are left, beside no other snapshot."""
        ...

    def read_changes(self, vm: VmRef, at: str | None, since: Mapping[str, str]) -> Changes:
        """What was written to these disks between their change ids and our snapshot `at` (None: until now; the VM is off).

        since: disk uuid -> a change id of SourceSnapshot.disks.
        """
        ...

    def close(self) -> None: ...


class TransferSource(Protocol):
    """Platforms that must prepare something readable first: images, exports, backups. Dropped in UNWIND and at the end."""

    def ensure_transfer(self, vm: VmRef, key: str, disks: Sequence[DiskChoice]) -> None: ...
    def read_transfer(self, vm: VmRef, key: str) -> Known[CopySource] | Absent: ...
    def drop_transfer(self, vm: VmRef, key: str) -> None: ...


# ---- target ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CopyProgress:
    disks: tuple[DiskProgress, ...]
    result: CopyResult | None


class TargetDriver(Protocol):
    """A cluster with KubeVirt. Server-side apply with our field manager; everything made carries `Owner`."""

    def read_site(self) -> SiteInfo: ...

    def read_inventory(self, namespaces: Sequence[str]) -> TargetInventory:
        """Bulk lists, a fixed number of calls per namespace or cluster, never one per object."""
        ...

    def read_vm(self, namespace: str, name: str) -> Known[TargetVm] | Absent:
        """A direct read of one VM, now (guards)."""
        ...

    def read_vms(self, namespace: str) -> tuple[TargetVm, ...]:
        """A direct read of all VMs of a namespace, whoever made them (guards)."""
        ...

    def read_volume(self, namespace: str, name: str) -> Known[Volume] | Absent:
        """A direct read of one PVC and the pods that use it, now (guards)."""
        ...

    def ensure_namespace(self, name: str) -> None: ...

    def ensure_volume(self, spec: VolumeSpec, adopt: Volume | None) -> None:
        """Create the PVC, or adopt one with the same key by compare-and-swap on its resource version.

        Errors: TerminalError NameTaken for a foreign PVC of that name; QuotaExceeded, Forbidden as Retryable.
        """
        ...

    def ensure_binder(self, spec: BinderSpec) -> None: ...

    def ensure_vm(self, spec: TargetVmSpec) -> None:
        """Create it Halted, or bring ours up to `spec` without touching power. Errors: TerminalError NameTaken for a foreign VM."""
        ...

    def request_power(self, namespace: str, name: str, want: Power, owner: Owner) -> None: ...

    def ensure_copy(self, job: CopyJob, disks: Sequence[CopyDisk], source: CopySource, spec: CopySpec) -> None:
        """Job suspended -> Secret owned by it -> unsuspended. `disks[*].target` and the paths in `spec` are filled in here."""
        ...

    def read_progress(self, namespace: str, job: str) -> CopyProgress:
        """The last lines of the running pod's log."""
        ...

    def put_mark(self, volume: Volume, mark: Mark | None, owner: Owner) -> None:
        """Patch the mark (None: make dirty) with the resource version it was decided on. Errors: RetryableError Conflict."""
        ...

    def put_watermark(self, volume: Volume, watermark: Watermark) -> None: ...

    def drop_copy(self, namespace: str, name: str, owner: Owner) -> None:
        """Delete the Job (pods in the foreground, Secret by owner). Absent is success; without our key: TerminalError NotOurs."""
        ...

    def drop_binder(self, namespace: str, name: str, owner: Owner) -> None: ...
    def drop_vm(self, namespace: str, name: str, owner: Owner) -> None: ...
    def drop_volume(self, namespace: str, name: str, owner: Owner) -> None: ...

    def release_volumes(self, vm: TargetVm, volumes: Sequence[Volume], owner: Owner) -> None:
        """Make the finished VM the owner of its PVCs (ownerReference), so that they go when a person deletes the VM."""
        ...

    def read_secret(self, namespace: str, name: str) -> Mapping[str, Secret] | None: ...

    def close(self) -> None: ...


# ---- data mover -----------------------------------------------------------------------------------------------------------------------


class DiskReader(Protocol):
    """Bytes of one source disk. One instance per connection; `clone()` gives another."""

    @property
    def capacity_bytes(self) -> int: ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset` or raise; a short read is RetryableError ShortRead."""
        ...

    def data_ranges(self) -> Iterator[tuple[int, int]] | None:
        """(offset, length) that may hold data, ascending; None when the transport cannot tell (read everything)."""
        ...

    def clone(self) -> DiskReader: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LeasedDisk:
    """Where a leased disk streams, and how that host is trusted. The URL is a ticket: never shown."""

    url: str
    tls: TlsSpec


class SourceLease(Protocol):
    """What the copy pod itself opens at the source for as long as it reads. One thread at a time."""

    @property
    def heard_every_s(self) -> float:
        """How often `progress` must be called; known once it is open."""
        ...

    def open(self) -> Mapping[str, LeasedDisk]:
        """By disk uuid. Waits until it is ready."""
        ...

    def progress(self, percent: int) -> None: ...
    def complete(self) -> None: ...

    def abort(self) -> None:
        """Never raises, and does nothing where there is nothing to end."""
        ...

    def close(self) -> None: ...


class Parcel(Protocol):
    """A stretch of a disk that came through a stream."""

    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...

    @property
    def zero(self) -> bool:
        """Nothing but zeroes, of any length; not to be unpacked."""
        ...

    def unpack(self, view: memoryview) -> None:
        """Fill all of the view, `length` bytes. Once, from any thread."""
        ...


class DiskStream(Protocol):
    """A source disk that can only be read from its beginning to its end."""

    @property
    def capacity_bytes(self) -> int: ...

    def parcels(self, window_bytes: int) -> Iterator[Parcel]:
        """Cover the disk without a gap, ascending; data parcels are at most `window_bytes` long, a multiple of 64 KiB.

        The end without an error means that all of the disk was there. Each call begins anew.
        """
        ...

    def close(self) -> None: ...


class DiskWriter(Protocol):
    """A target disk. `write` takes all bytes or raises."""

    @property
    def fresh(self) -> bool:
        """True if this very process created the file, so that unwritten parts are known to be zero."""
        ...

    @property
    def readback_mode(self) -> str:
        """ "ok" when `read_back` passes the page cache, else "no-direct-io: <why>"."""
        ...

    def write(self, offset: int, data: memoryview) -> None: ...
    def zero(self, offset: int, length: int) -> None: ...
    def read_back(self, offset: int, buffer: memoryview) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


# ---- git ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Blob:
    """One file at a commit. `id` is git's object id: equal id, equal bytes."""

    path: str
    id: str


@dataclass(frozen=True, slots=True)
class Tree:
    """Files of one branch at one commit; `commit` is "" when the branch does not exist yet."""

    commit: str
    blobs: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Checkout:
    """Both branches after one fetch. `fetched_at_s` is `Clock.monotonic` at the start of the fetch."""

    desired: Tree
    status: Tree


class StatusRepo(Protocol):
    """git <-> bytes by path. Knows no YAML. Errors: RetryableError GitUnavailable; TerminalError GitRefused, AuthFailed."""

    def fetch(self) -> Checkout:
        """One ls-remote; fetches only if a head moved."""
        ...

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Contents by object id, in one batch."""
        ...

    def publish(self, changes: Mapping[str, bytes | None], message: str, base: str) -> str:
        """Commit `changes` (None deletes) on the status branch at `base` and push. Returns the new head; no commit if nothing changes.

        A rejected push: fetch; if nothing under runs/ or claims/ changed since `base`, the same changes go on the new head;
        otherwise Superseded. Needs the lease; LeaseLost without it.
        Without changes it proves that `base` is the head, to the side that takes pushes, or is Superseded.
        """
        ...

    def is_ancestor(self, commit: str, of: str) -> bool: ...
    def hold_lease(self) -> bool:
        """Take or renew the lease if that is due. False: somebody else holds it."""
        ...

    def lease_age_s(self) -> float | None:
        """Seconds since the start of the push that last renewed our lease; None when we do not hold it."""
        ...

    def release_lease(self) -> None: ...
