"""Which reader a source disk gets, or why it gets none, in words that status shows.

What it is: a pure function over one disk and its VM, asked before the power-off and again before and after each copy.
What it is not: a probe; it judges what the platform reports, and the worker still has to open the file.
Where it stands: source inventory -> here -> the frozen disk of a run, and `SourceDriver.describe_copy`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.core.inventory import SourceDisk, SourceVm
from reconciler.core.model import Mode, Power

DATASTORE, EXPORT, VDDK = "datastore", "export", "vddk"

# Only these hold a disk as a plain file that the /folder URL serves; vSAN and vVol objects have no flat file behind the name.
_FILE_DATASTORES = frozenset({"vmfs", "nfs", "nfs41"})


@dataclass(frozen=True, slots=True)
class PathChoice:
    """`path` None: no implemented path reads this disk. `blocking`: the VM may not start, and nothing was powered off for it."""

    path: str | None
    reason: str
    remedy: str
    blocking: bool


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    remedy: str


def choose(disk: SourceDisk, vm: SourceVm, *, vddk: str, mode: Mode) -> PathChoice:
    """The path for one disk. `vddk`: which setting names an image with VDDK (core/vddk.py); "" where none does.

    Where the flat file does not hold exactly what the guest sees, it is never read: a wrong file read in full and verified against
    itself would pass every later check. Then the platform's own export reads it, which is one stream of the whole disk, so that a warm
    run, which must read what changed later, is refused.
    """
    for judge in (*_JUDGES, *(_WARM_JUDGES if mode is Mode.WARM else ())):
        if refusal := judge(disk, vm):
            return PathChoice(None, refusal.reason, refusal.remedy, blocking=True)
    if vddk:
        return PathChoice(VDDK, _vddk_words(vddk, vm, mode), "", blocking=False)
    no_file = _chain(disk, vm) or _format(disk, vm)
    if no_file is None:
        return PathChoice(DATASTORE, _flat_words(disk, vm, mode), "", blocking=False)
    if mode is Mode.WARM:
        remedy = f"{no_file.remedy}; or set vddkInitImage on the Provider; or migrate it cold"
        reason = f"{no_file.reason}, and without VDDK nothing else can read what changes while the guest runs"
        return PathChoice(None, reason, remedy, blocking=True)
    return PathChoice(EXPORT, f"{no_file.reason}; the VM's own export reads it, as one stream", no_file.remedy, blocking=False)


def lost(path: str, disk: SourceDisk, vm: SourceVm) -> PathChoice | None:
    """Why a disk that was planned to be read by `path` cannot be read so (with the VM off); None when it can."""
    choice = choose(disk, vm, vddk=path if path == VDDK else "", mode=Mode.COLD)
    fits = choice.path is not None if path == EXPORT else choice.path == path
    return None if fits else choice


def _vddk_words(setting: str, vm: SourceVm, mode: Mode) -> str:
    when = f"our snapshots while {vm.name} runs, and at the cutover the disk itself" if mode is Mode.WARM else "the disk once the VM is off"
    return f"VDDK reads {when}, because of {setting}"


def _flat_words(disk: SourceDisk, vm: SourceVm, mode: Mode) -> str:
    where = f"flat file without parent on {disk.backing.datastore_type} datastore {disk.storage_name}"
    if mode is Mode.WARM:
        return f"{where}; whether it can be read while {vm.name} runs is tried after the first snapshot"
    return f"{where}, {'the VM is off' if vm.power is Power.OFF else 'the VM is switched off before the copy'}"


def _vm_state(disk: SourceDisk, vm: SourceVm) -> _Refusal | None:
    if not vm.connected:
        return _Refusal(f"the host of {vm.name} is not connected, so its disks cannot be judged", "reconnect the host")
    if vm.is_template:
        return _Refusal(f"{vm.name} is a template", "convert it to a virtual machine, or deploy one from it")
    if vm.power is Power.SUSPENDED:
        return _Refusal(
            f"{vm.name} is suspended: what its guest has not written yet would be lost", f"resume {vm.name}, or power it off on purpose"
        )
    return None


def _encryption(disk: SourceDisk, vm: SourceVm) -> _Refusal | None:
    if disk.backing.key_id is None:
        return None
    return _Refusal(f"{_named(disk)} is encrypted, and its file holds only ciphertext", f"decrypt {_named(disk)} (storage policy) first")


def _raw_device(disk: SourceDisk, vm: SourceVm) -> _Refusal | None:
    if not (disk.rdm or disk.backing.kind.startswith("RawDisk")):
        return None
    return _Refusal(
        f"{_named(disk)} is a raw device mapping, its bytes are on a LUN and not in a file",
        f"convert {_named(disk)} to a virtual disk with Storage vMotion, or detach it",
    )


def _disk_mode(disk: SourceDisk, vm: SourceVm) -> _Refusal | None:
    if disk.mode in ("", "persistent", "independent_persistent"):
        return None
    return _Refusal(
        f"{_named(disk)} is in mode {disk.mode}: its writes are thrown away at power-off", f"change {_named(disk)} to a persistent mode"
    )


def _sharing(disk: SourceDisk, vm: SourceVm) -> _Refusal | None:
    if not disk.shared:
        return None
    return _Refusal(
        f"{_named(disk)} is attached to more than one VM, which may write while it is copied", f"detach {_named(disk)} from all VMs but one"
    )


def _chain(disk: SourceDisk, vm: SourceVm) -> _Refusal | None:
    if vm.consolidation_needed:
        return _Refusal(
            f"{vm.name} needs disk consolidation: {_named(disk)} may be spread over leftover snapshot files",
            f"consolidate the disks of {vm.name}, then its snapshots are really gone",
        )
    if not disk.backing.parents:
        return None
    if vm.snapshots:
        count = len(vm.snapshots)
        return _Refusal(
            f"{_named(disk)} is a chain of {len(disk.backing.parents) + 1} files because {vm.name} has {count} snapshot(s)",
            f"remove or consolidate the snapshots of {vm.name}",
        )
    return _Refusal(
        f"{_named(disk)} depends on {disk.backing.parents[0]} without a snapshot of {vm.name}: a linked clone, or a broken chain",
        f"consolidate the disks of {vm.name}, or make a full clone of it",
    )


def _format(disk: SourceDisk, vm: SourceVm) -> _Refusal | None:
    remedy = f"move {_named(disk)} with Storage vMotion to a VMFS or NFS datastore"
    kind = disk.backing.datastore_type
    if kind.lower() not in _FILE_DATASTORES:
        shown = {"vsan": "vSAN", "vvol": "vVol"}.get(kind.lower(), kind or "unknown")
        return _Refusal(f"{_named(disk)} is on a datastore of type {shown}, where it is not one readable file", remedy)
    if disk.backing.kind != "FlatVer2":
        return _Refusal(f"{_named(disk)} has the format {disk.backing.kind}, which is not a flat file", remedy)
    if not disk.backing.datacenter_path:
        return _Refusal(
            f"the datacenter of datastore {disk.storage_name} is not visible to this account",
            "give the account read access to the datacenter and the datastore",
        )
    return None


def _named(disk: SourceDisk) -> str:
    return f"disk {disk.label} ({disk.backing.file})" if disk.backing.file else f"disk {disk.label}"


def _independent(disk: SourceDisk, vm: SourceVm) -> _Refusal | None:
    if not disk.mode.startswith("independent"):
        return None
    return _Refusal(f"{_named(disk)} is independent: it takes no part in snapshots", f"make {_named(disk)} dependent, or migrate it cold")


# The first that refuses is what a person reads, so what must be changed first stands first.
_JUDGES: tuple[Callable[[SourceDisk, SourceVm], _Refusal | None], ...] = (_vm_state, _encryption, _raw_device, _disk_mode, _sharing)
_WARM_JUDGES = (_independent,)
