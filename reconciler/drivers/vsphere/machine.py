"""One VM, wire -> model: its named properties become a SourceVm.

What it is: conversion, tolerant of missing properties (permissions, a VM that is just being made). What it is not: any call, nor the
document that concerns read (workload.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.core.inventory import SourceDisk, SourceSnapshot, SourceVm
from reconciler.core.model import Power
from reconciler.drivers.vsphere.changeid import ChangeId
from reconciler.drivers.vsphere.devices import place_devices
from reconciler.drivers.vsphere.digest import Properties, Snapshots, plain
from reconciler.drivers.vsphere.hardware import Devices
from reconciler.drivers.vsphere.places import Places
from reconciler.drivers.vsphere.workload import change_tracking, workload

FROZEN = "snapshot config"  # ours: properties of each own snapshot, by its id, beside the VM's in a direct read
_POWER = {"poweredOn": Power.ON, "poweredOff": Power.OFF, "suspended": Power.SUSPENDED}
_MIB = 1 << 20


def convert_vm(id_: str, properties: Properties, places: Places, earlier: SourceVm | None) -> SourceVm:
    """`earlier` is the same VM as read before: guest facts that vanish when a guest goes down are kept from it."""
    extra = properties.get("config.extraConfig") or {}
    tracking = change_tracking(properties, extra)
    hardware = place_devices(properties.get("config.hardware.device") or Devices(), extra, places, tracking)
    raw_name = str(properties.get("name", id_))
    return SourceVm(
        id=id_,
        uuid=str(properties.get("config.instanceUuid") or ""),
        bios_uuid=str(properties.get("config.uuid") or ""),
        name=plain(raw_name),
        path=places.vm_path(str(properties.get("parent") or ""), raw_name),
        power=power_of(properties.get("runtime.powerState")),
        tools_running=properties.get("guest.toolsRunningStatus") == "guestToolsRunning",
        firmware=str(properties.get("config.firmware") or "bios"),
        secure_boot=bool(properties.get("config.bootOptions.efiSecureBootEnabled")),
        tpm=bool(properties.get("summary.config.tpmPresent")),
        cpus=int(properties.get("config.hardware.numCPU") or 0),
        cores_per_socket=int(properties.get("config.hardware.numCoresPerSocket") or 1),
        memory_bytes=int(properties.get("config.hardware.memoryMB") or 0) * _MIB,
        guest_id=str(properties.get("config.guestId") or (earlier.guest_id if earlier else "")),
        guest_name=str(properties.get("config.guestFullName") or ""),
        host_id=str(properties.get("runtime.host") or ""),
        disks=hardware.disks,
        nics=hardware.nics,
        snapshots=_snapshots(properties, places),
        consolidation_needed=bool(properties.get("runtime.consolidationNeeded")),
        change_tracking=tracking,
        is_template=bool(properties.get("config.template")),
        connected=str(properties.get("runtime.connectionState", "connected")) == "connected",
        nested_virtualization=bool(properties.get("config.nestedHVEnabled")),
        attributes=workload(id_, properties, extra, hardware, places, earlier.attributes if earlier else {}),
    )


def _snapshots(properties: Properties, places: Places) -> tuple[SourceSnapshot, ...]:
    snapshots: Snapshots | None = properties.get("snapshot")
    if snapshots is None:
        return ()
    frozen: Mapping[str, Properties] = properties.get(FROZEN) or {}
    return tuple(
        replace(each, disks=_frozen_disks(frozen[each.id], snapshots, each.id, places)) if each.id in frozen else each
        for each in snapshots.all
    )


def _frozen_disks(config: Properties, snapshots: Snapshots, id_: str, places: Places) -> tuple[SourceDisk, ...]:
    """The VM's disks as a snapshot froze them, with change ids as we give them out."""
    extra = config.get("config.extraConfig") or {}
    devices = config.get("config.hardware.device") or Devices()
    facts = {str(fact.key): fact for fact in devices.disks}
    disks = place_devices(devices, extra, places, change_tracking(config, extra)).disks
    ids = {disk.key: ChangeId.of(facts[disk.key], snapshots.moments.get(id_)) for disk in disks}
    return tuple(replace(disk, change_id=None if (ours := ids[disk.key]) is None else str(ours)) for disk in disks)


def power_of(state: object) -> Power:
    return _POWER.get(str(state), Power.UNKNOWN)
