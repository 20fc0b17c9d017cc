"""The oVirt / RHV table of concerns: 39 rules over the workload document of one VM. Pure.

Ids, categories and triggers follow Forklift 2.12's `ovirt` policies; words are ours. Two of them cannot fire on what its inventory sends
(LUN sizes, NUMA), and are here because another sender may be fuller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from reconciler.core.concerns.rule import (
    MISSING,
    ConcernCategory,
    Document,
    Finding,
    Rule,
    invalid_name,
    is_true,
    items,
    matches,
    not_empty,
    number,
    read,
    too_many,
    when,
)

_C, _W, _I = ConcernCategory.CRITICAL, ConcernCategory.WARNING, ConcernCategory.INFORMATION
_Find = Callable[[Document], Iterable[Finding]]


def _attachments(doc: Document) -> Sequence[object]:
    return items(doc, "diskAttachments")


def _nics(doc: Document) -> Sequence[object]:
    return items(doc, "nics")


def _any(of: Callable[[Document], Sequence[object]], test: Callable[[object], bool]) -> _Find:
    return when(lambda doc: any(test(item) for item in of(doc)))


def _unlike(of: Callable[[Document], Sequence[object]], known: Callable[[object], bool]) -> _Find:
    """Some item is of no known kind: fewer are known than have an id."""
    return when(lambda doc: sum(map(known, of(doc))) != sum(read(item, "id") is not MISSING for item in of(doc)))


def _named(value: object) -> bool:
    """Defined and not the empty text."""
    return isinstance(value, str) and value != ""


def _bad_capacity(attachment: object) -> bool:
    disk = read(attachment, "disk")
    kind = read(disk, "storageType")
    if kind is MISSING:
        return False
    if kind == "lun":
        units = items(disk, "lun", "logicalUnits", "logicalUnit")
        return any((size := number(read(unit, "size"))) is not None and size <= 0 for unit in units)
    size = number(read(disk, "provisionedSize"))
    return size is not None and size <= 0


def _status_invalid(doc: Document) -> bool:
    status = read(doc, "status")
    return isinstance(status, str) and not re.search("up|down", status)


def _resume_behaviour(doc: Document) -> bool:
    behaviour = read(doc, "storageErrorResumeBehaviour")
    return isinstance(behaviour, str) and behaviour != "auto_resume"


def _more_than(limit: int, name: str) -> _Find:
    return when(lambda doc: (count := number(read(doc, name))) is not None and count > limit)


RULES: tuple[Rule, ...] = (
    Rule(
        "ovirt.bios.boot_menu.enabled",
        _W,
        "VM has BIOS boot menu enabled",
        "The target VM has no boot menu.",
        is_true("bootMenuEnabled"),
    ),
    Rule(
        "ovirt.cluster.ksm_enabled",
        _W,
        "Cluster has KSM enabled",
        "Memory of the source is shared between VMs; the target may need more of it.",
        is_true("cluster", "ksmEnabled"),
    ),
    Rule(
        "ovirt.cpu.custom_model.detected",
        _W,
        "Custom CPU Model detected",
        "The VM asks for a CPU model of its own. Set it on the target if it is needed.",
        not_empty("customCpuModel"),
    ),
    Rule(
        "ovirt.cpu.pinning_policy.unsupported",
        _W,
        "Unsupported CPU pinning policy detected",
        "This pinning policy has no counterpart on the target; the VM will be pinned in another way or not at all.",
        when(lambda doc: matches(read(doc, "cpuPinningPolicy"), "resize_and_pin_numa|isolate_threads")),
    ),
    Rule(
        "ovirt.cpu.shares.defined",
        _W,
        "VM has CPU Shares Defined",
        "CPU shares are not carried over.",
        _more_than(0, "cpuShares"),
    ),
    Rule(
        "ovirt.cpu.tuning.detected",
        _W,
        "CPU tuning detected",
        "The VM is pinned to physical CPUs. The target VM will not be.",
        not_empty("cpuAffinity"),
    ),
    Rule(
        "ovirt.disk.capacity.invalid",
        _C,
        "Disk has an invalid capacity",
        "A disk without a positive size cannot be migrated. Check it in the engine.",
        _any(_attachments, _bad_capacity),
    ),
    Rule(
        "ovirt.disk.count.exceeds.limit",
        _W,
        "VM has {count} disks, which exceeds the limit of 165",
        "The target VM may not start with so many disks.",
        too_many("diskAttachments"),
    ),
    Rule(
        "ovirt.disk.illegal_images.detected",
        _C,
        "Illegal disk images detected",
        "Some images of the VM are marked illegal. Repair or remove them before the migration.",
        is_true("hasIllegalImages"),
    ),
    Rule(
        "ovirt.disk.illegal_or_locked_status",
        _C,
        "VM has an illegal or locked disk status condition",
        "A disk is locked or illegal and cannot be read. Wait for its task to end, or repair it.",
        _any(_attachments, lambda a: matches(read(a, "disk", "status"), "illegal|locked")),
    ),
    Rule(
        "ovirt.disk.interface_type.unsupported",
        _W,
        "Unsupported disk interface type detected",
        "A disk has an interface that the target has not; it gets another one, and the guest must know that.",
        _unlike(_attachments, lambda a: matches(read(a, "interface"), "sata|virtio_scsi|virtio")),
    ),
    Rule(
        "ovirt.disk.scsi_reservation.enabled",
        _W,
        "Shared disk detected",
        "SCSI reservations are in use on a disk, so others may share it.",
        _any(_attachments, lambda a: read(a, "scsiReservation") is True),
    ),
    Rule(
        "ovirt.disk.shared.detected",
        _W,
        "Shared disk detected",
        "A disk is attached to more than one VM. Others may write to it while it is copied.",
        _any(_attachments, lambda a: read(a, "disk", "shared") is True),
    ),
    Rule(
        "ovirt.disk.storage_type.unsupported",
        _C,
        "Unsupported disk storage type detected",
        "Only disks that are images or LUNs can be migrated.",
        _unlike(_attachments, lambda a: read(a, "disk", "storageType") in ("image", "lun")),
    ),
    Rule(
        "ovirt.display_type.spice.enabled",
        _I,
        "VM Display Type",
        "SPICE has no counterpart on the target; its console is VNC.",
        when(lambda doc: read(doc, "display") == "spice"),
    ),
    Rule(
        "ovirt.ha.enabled",
        _W,
        "VM configured as HA",
        "High availability is set up in another way on the target (run strategy).",
        is_true("haEnabled"),
    ),
    Rule(
        "ovirt.ha.reservation.enabled",
        _W,
        "Cluster has HA reservation",
        "The target reserves no room for failover.",
        is_true("cluster", "haReservation"),
    ),
    Rule(
        "ovirt.host_devices.mapped",
        _W,
        "VM has mapped host devices",
        "Devices of the host are not carried over.",
        not_empty("hostDevices"),
    ),
    Rule(
        "ovirt.iothreads.configured",
        _I,
        "IO Threads configuration detected",
        "I/O threads are not carried over.",
        _more_than(1, "ioThreads"),
    ),
    Rule(
        "ovirt.memory.ballooning.enabled",
        _I,
        "VM has memory ballooning enabled",
        "The target VM gets its memory in full.",
        is_true("balloonedMemory"),
    ),
    Rule(
        "ovirt.name.invalid",
        _W,
        "Invalid VM Name",
        "The name is no Kubernetes name. The target VM gets a changed one, unless the plan gives targetName.",
        when(invalid_name),
    ),
    Rule(
        "ovirt.nic.custom_properties.detected",
        _W,
        "vNIC custom properties detected",
        "Custom properties of network profiles are not carried over.",
        when(lambda doc: any(items(nic, "profile", "properties") for nic in _nics(doc))),
    ),
    Rule(
        "ovirt.nic.interface_type.unsupported",
        _W,
        "Unsupported NIC interface type detected",
        "A NIC has a model that the target has not; it gets another one.",
        _unlike(_nics, lambda nic: matches(read(nic, "interface"), "e1000|rtl8139|virtio")),
    ),
    Rule(
        "ovirt.nic.network_filter.detected",
        _W,
        "NIC with network filter detected",
        "Network filters are not carried over.",
        _any(_nics, lambda nic: _named(read(nic, "profile", "networkFilter"))),
    ),
    Rule(
        "ovirt.nic.pci_passthrough.detected",
        _W,
        "NIC with host device passthrough detected",
        "A NIC is a device of the host. Give the target VM an SR-IOV network if it needs one.",
        _any(_nics, lambda nic: matches(read(nic, "interface"), "pci_passthrough")),
    ),
    Rule(
        "ovirt.nic.port_mirroring.detected",
        _W,
        "NIC with port mirroring detected",
        "Port mirroring is not carried over.",
        _any(_nics, lambda nic: read(nic, "profile", "portMirroring") is True),
    ),
    Rule(
        "ovirt.nic.qos.detected",
        _W,
        "NIC with QoS settings detected",
        "Quality of service settings are not carried over.",
        _any(_nics, lambda nic: _named(read(nic, "profile", "qos"))),
    ),
    Rule(
        "ovirt.nic.unplugged.detected",
        _W,
        "Unplugged NIC detected",
        "A NIC is unplugged; on the target it may come up connected.",
        _any(_nics, lambda nic: read(nic, "plugged") is False),
    ),
    Rule(
        "ovirt.numa.tuning.detected",
        _W,
        "NUMA tuning detected",
        "The VM is bound to NUMA nodes. The target VM will not be.",
        not_empty("numaNodeAffinity"),
    ),
    Rule(
        "ovirt.os.unsupported",
        _W,
        "Unsupported operating system detected",
        "The guest's system is not supported on the target.",
        when(lambda doc: matches(read(doc, "osType"), "rhel_6")),
    ),
    Rule(
        "ovirt.placement_policy.affinity_set",
        _W,
        "Placement policy affinity",
        "How the VM may be moved between hosts is set up in another way on the target (eviction strategy).",
        when(lambda doc: matches(read(doc, "placementPolicyAffinity"), r"\bmigratable\b")),
    ),
    Rule(
        "ovirt.secure_boot.detected",
        _W,
        "UEFI secure boot detected",
        "Secure boot is set up anew on the target; keys enrolled by hand are lost.",
        when(lambda doc: read(doc, "bios") == "q35_secure_boot"),
    ),
    Rule(
        "ovirt.snapshot.online_memory.detected",
        _W,
        "Online (memory) snapshot detected",
        "Snapshots are not migrated, those with memory least of all.",
        when(lambda doc: any(read(snapshot, "persistMemory") is True for snapshot in items(doc, "snapshots"))),
    ),
    Rule(
        "ovirt.storage.resume_behavior.unsupported",
        _I,
        "VM storage error resume behavior",
        "On the target a VM always resumes by itself after a storage error.",
        when(_resume_behaviour),
    ),
    Rule(
        "ovirt.tpm.required_by_os",
        _W,
        "TPM detected",
        "This system wants a TPM. The target VM gets an empty one.",
        when(lambda doc: matches(read(doc, "osType"), "windows_2022|windows_11")),
    ),
    Rule(
        "ovirt.usb.enabled",
        _W,
        "USB support enabled",
        "USB devices are not carried over.",
        is_true("usbEnabled"),
    ),
    Rule(
        "ovirt.vm.custom_properties.detected",
        _W,
        "VM custom properties detected",
        "Custom properties are not carried over.",
        not_empty("properties"),
    ),
    Rule(
        "ovirt.vm.status_invalid",
        _W,
        "VM has a status condition that may prevent successful migration",
        "The VM is neither up nor down. Bring it into one of the two.",
        when(_status_invalid),
    ),
    Rule(
        "ovirt.watchdog.enabled",
        _W,
        "Watchdog detected",
        "The watchdog is not carried over.",
        not_empty("watchDogs"),
    ),
)
