"""The vSphere table of concerns: 29 rules over the workload document of one VM. Pure.

Ids, categories and triggers follow Forklift 2.12's `vmware` policies, so that people find the concerns they know; words are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from reconciler.core.concerns.rule import (
    MISSING,
    UNSUPPORTED_UNLESS_NAMED,
    ConcernCategory,
    Document,
    Finding,
    Rule,
    invalid_name,
    is_true,
    is_truthy,
    items,
    not_empty,
    number,
    read,
    too_many,
    truthy,
    when,
)

_C, _W, _I = ConcernCategory.CRITICAL, ConcernCategory.WARNING, ConcernCategory.INFORMATION
_MIB = 1 << 20
_FREE_BYTES = {"/": 100 * _MIB, "/boot": 50 * _MIB, "c:": 100 * _MIB, "c:\\": 100 * _MIB, "c:/": 100 * _MIB}
_OTHER_FREE_BYTES = 10 * _MIB
_SUPPORTED_GUEST_ID = re.compile(r"rhel(7|8|9|10)(_64)?guest|windows(10|11|2016|2019|2022|2025).*guest")

_Find = Callable[[Document], Iterable[Finding]]


def _any_disk(test: Callable[[object], bool]) -> _Find:
    return when(lambda doc: any(test(disk) for disk in items(doc, "disks")))


def _any_device(kind: str) -> _Find:
    return when(lambda doc: any(read(device, "kind") == kind for device in items(doc, "devices")))


def _disks_without_cbt(doc: Document) -> Iterable[Finding]:
    """Each disk is named as in the VM's settings: bus, controller number, unit. Controller keys count from a multiple of 100."""
    for disk in items(doc, "disks"):
        bus, unit, controller = read(disk, "bus"), read(disk, "unitNumber"), number(read(disk, "controllerKey"))
        complete = controller is not None and MISSING not in (bus, unit, read(disk, "file"))
        if read(disk, "changeTrackingEnabled") is False and complete:
            yield {"bus": bus, "controller": int(controller or 0) % 100, "unit": unit}


def _bad_capacities(doc: Document) -> Iterable[Finding]:
    for disk in items(doc, "disks"):
        capacity, file = number(read(disk, "capacity")), read(disk, "file")
        if capacity is not None and capacity <= 0 and file is not MISSING:
            yield {"file": file, "capacity": capacity}


def _full_filesystems(doc: Document) -> Iterable[Finding]:
    """Conversion needs room in each guest file system; how much depends on what is mounted there."""
    for disk in items(doc, "guestDisks"):
        path, free = read(disk, "diskPath"), number(read(disk, "freeSpace"))
        if isinstance(path, str) and free is not None and free < _FREE_BYTES.get(path.lower(), _OTHER_FREE_BYTES):
            yield {"path": path, "free": free}


def _unmapped_guest_disks(doc: Document) -> Iterable[Finding]:
    guest_id = read(doc, "guestId")
    if not isinstance(guest_id, str) or "windows" not in guest_id.lower():
        return
    for disk in items(doc, "guestDisks"):
        path, key = read(disk, "diskPath"), read(disk, "key")
        if isinstance(path, str) and (key is MISSING or key == 0):
            yield {"path": path}


def _hot_plug(doc: Document) -> bool:
    return any(read(doc, name) is True for name in ("cpuHotAddEnabled", "cpuHotRemoveEnabled", "memoryHotAddEnabled"))


def _truncated_serials(doc: Document) -> bool:
    return read(doc, "diskEnableUuid") is True and any(read(disk, "bus") == "scsi" for disk in items(doc, "disks"))


def _host_affinity(doc: Document) -> bool:
    pinned = items(doc, "host", "cluster", "hostAffinityVms")
    own = read(doc, "id")
    return any(read(vm, "id") == own for vm in pinned)


def _no_addresses(doc: Document) -> bool:
    networks = read(doc, "guestNetworks")
    return isinstance(networks, list | tuple) and not networks


def _unsupported_os(doc: Document) -> bool:
    """True if some fact about the guest's system is known and none of them names a supported one."""
    guest_id, tools_name, name = read(doc, "guestId"), read(doc, "guestNameFromVmwareTools"), read(doc, "guestName")
    told_by_tools = isinstance(tools_name, str) and tools_name != ""
    named = tools_name if told_by_tools else name
    if not isinstance(guest_id, str) and not isinstance(named, str):
        return False
    if isinstance(guest_id, str) and _SUPPORTED_GUEST_ID.search(guest_id.lower()):
        return False
    return not (isinstance(named, str) and UNSUPPORTED_UNLESS_NAMED.search(named))


RULES: tuple[Rule, ...] = (
    Rule(
        "vmware.changed_block_tracking.disabled",
        _W,
        "Changed Block Tracking (CBT) not enabled",
        "Changed Block Tracking is off for this VM. A warm migration needs it.",
        when(lambda doc: read(doc, "changeTrackingEnabled") is False),
    ),
    Rule(
        "vmware.changed_block_tracking.disk.disabled",
        _W,
        "Disk - {bus}{controller}:{unit} does not have CBT enabled",
        "Changed Block Tracking is off for this disk. A warm migration needs it on every disk.",
        _disks_without_cbt,
    ),
    Rule(
        "vmware.consolidation_needed",
        _W,
        "Snapshot consolidation required",
        "Files of removed snapshots are still part of the disks. Consolidate the disks before the migration.",
        is_true("consolidationNeeded"),
    ),
    Rule(
        "vmware.cpu_affinity.detected",
        _W,
        "CPU affinity detected",
        "The VM is pinned to physical CPUs. The target VM will not be; set it up there if it is needed.",
        not_empty("cpuAffinity"),
    ),
    Rule(
        "vmware.cpu_memory.hotplug.enabled",
        _W,
        "CPU/Memory hotplug detected",
        "Hot plug of CPU or memory is on. The target VM is made with fixed sizes.",
        when(_hot_plug),
    ),
    Rule(
        "vmware.datastore.missing",
        _C,
        "Disk is not located on a datastore",
        "A disk lies on no datastore that can be seen, so it can be neither mapped nor read.",
        _any_disk(lambda disk: read(disk, "datastore", "id") == ""),
    ),
    Rule(
        "vmware.device.sriov.detected",
        _W,
        "SR-IOV passthrough adapter configuration detected",
        "SR-IOV adapters are not carried over. Give the target VM an SR-IOV network if it needs one.",
        _any_device("VirtualSriovEthernetCard"),
    ),
    Rule(
        "vmware.disk.capacity.invalid",
        _C,
        "Disk '{file}' has an invalid capacity of {capacity} bytes",
        "A disk without a positive size cannot be migrated. Check it in vSphere.",
        _bad_capacities,
    ),
    Rule(
        "vmware.disk.count.exceeds.limit",
        _W,
        "VM has {count} disks, which exceeds the limit of 165",
        "The target VM may not start with so many disks.",
        too_many("disks"),
    ),
    Rule(
        "vmware.disk.rdm.detected",
        _W,
        "Raw Device Mapped disk detected",
        "The bytes of a raw device mapping are on a LUN. Convert it to a virtual disk, or detach it.",
        _any_disk(lambda disk: truthy(read(disk, "rdm"))),
    ),
    Rule(
        "vmware.disk.shared.detected",
        _W,
        "Shared disk detected",
        "A disk is attached to more than one VM. Others may write to it while it is copied.",
        _any_disk(lambda disk: read(disk, "shared") is True),
    ),
    Rule(
        "vmware.disk_mode.independent",
        _W,
        "Independent disk detected",
        "An independent disk takes no part in snapshots, so it cannot be migrated warm.",
        _any_disk(lambda disk: read(disk, "mode") in ("independent_persistent", "independent_nonpersistent")),
    ),
    Rule(
        "vmware.disk_serial.truncated",
        _I,
        "Disk serial numbers may be truncated",
        "The guest sees disk serial numbers now; on the target they may be shorter. Check what in the guest relies on them.",
        when(_truncated_serials),
    ),
    Rule(
        "vmware.dpm.enabled",
        _I,
        "vSphere DPM detected",
        "Distributed Power Management has no counterpart on the target.",
        is_truthy("host", "cluster", "dpmEnabled"),
    ),
    Rule(
        "vmware.drs.enabled",
        _I,
        "VM running in a DRS-enabled cluster",
        "Distributed Resource Scheduling has no counterpart on the target; the cluster's own scheduler places the VM.",
        is_truthy("host", "cluster", "drsEnabled"),
    ),
    Rule(
        "vmware.fault_tolerance.enabled",
        _I,
        "Fault tolerance",
        "Fault Tolerance has no counterpart on the target.",
        is_truthy("faultToleranceEnabled"),
    ),
    Rule(
        "vmware.guestDisks.freespace",
        _C,
        "Insufficient free space for conversion on '{path}'",
        "Conversion writes into the guest's file systems, and there is too little room ({free} bytes free).",
        _full_filesystems,
    ),
    Rule(
        "vmware.guestDisks.key.not_found",
        _I,
        "Missing disk key mapping for '{path}'",
        "VMware Tools do not say on which virtual disk this drive lies.",
        _unmapped_guest_disks,
    ),
    Rule(
        "vmware.host_affinity.detected",
        _W,
        "VM-Host affinity detected",
        "The VM is bound to hosts. Use node affinity on the target if that is needed.",
        when(_host_affinity),
    ),
    Rule(
        "vmware.hostname.default",
        _W,
        "Default Host Name",
        "The guest is called localhost.localdomain, so names cannot tell it from others.",
        when(lambda doc: read(doc, "hostName") == "localhost.localdomain"),
    ),
    Rule(
        "vmware.hostname.empty",
        _W,
        "Empty Host Name",
        "The guest reports no host name. VMware Tools may be missing or not running.",
        when(lambda doc: read(doc, "hostName") == ""),
    ),
    Rule(
        "vmware.numa_affinity.detected",
        _W,
        "NUMA node affinity detected",
        "The VM is bound to NUMA nodes. The target VM will not be.",
        not_empty("numaNodeAffinity"),
    ),
    Rule(
        "vmware.os.unsupported",
        _W,
        "Unsupported operating system detected",
        "The guest's system is not on the list of supported ones. It may run, but nobody has tested its conversion.",
        when(_unsupported_os),
    ),
    Rule(
        "vmware.passthrough_device.detected",
        _C,
        "Passthrough device detected",
        "A PCI device of the host is passed through. Remove it; the target cannot have it.",
        _any_device("VirtualPCIPassthrough"),
    ),
    Rule(
        "vmware.snapshot.detected",
        _I,
        "VM snapshot detected",
        "Snapshots are not migrated; the target has the present state only.",
        when(lambda doc: read(doc, "snapshot", "kind") == "VirtualMachineSnapshot"),
    ),
    Rule(
        "vmware.tpm.detected",
        _W,
        "TPM detected",
        "The contents of the virtual TPM are not migrated: what the guest sealed in it is lost. Suspend disk encryption first.",
        is_true("tpmEnabled"),
    ),
    Rule(
        "vmware.usb_controller.detected",
        _W,
        "USB controller detected",
        "USB controllers and the devices on them are not migrated.",
        _any_device("VirtualUSBController"),
    ),
    Rule(
        "vmware.vm.name.invalid",
        _W,
        "Invalid VM Name",
        "The name is no Kubernetes name. The target VM gets a changed one, unless the plan gives targetName.",
        when(invalid_name),
    ),
    Rule(
        "vmware.vm_missing_ip.detected",
        _W,
        "VM is missing IP addresses",
        "The guest reports no address, so static addresses cannot be preserved. Start the VM with VMware Tools running.",
        when(_no_addresses),
    ),
)
