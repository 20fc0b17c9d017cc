"""The OpenStack table of concerns: 16 rules over the workload document of one VM. Pure.

Ids, categories and triggers follow Forklift 2.12's `openstack` policies; words are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from reconciler.core.concerns.rule import (
    MISSING,
    ConcernCategory,
    Document,
    Finding,
    Rule,
    count,
    invalid_name,
    items,
    matches,
    number,
    read,
    too_many,
    when,
)

_C, _W = ConcernCategory.CRITICAL, ConcernCategory.WARNING
_Find = Callable[[Document], Iterable[Finding]]
_SUPPORTED = (  # distribution, version; both searched
    ("rhel|centos", "^9|^8|^7"),
    ("windows", "2008|2012|2016|2019|2022|2k8|2k12|2k16|2k19|2k22|^7|^8|^10|^11"),
    ("fedora", "^3[678]$"),
)


def _image(doc: Document, name: str) -> object:
    return read(doc, "image", "properties", name)


def _flavor(doc: Document, name: str) -> object:
    return read(doc, "flavor", "extraSpecs", name)


def _in_flavor(*names: str) -> _Find:
    return when(lambda doc: any(_flavor(doc, name) is not MISSING for name in names))


def _image_unlike(name: str, pattern: str) -> _Find:
    """The image asks for something, and it is none of these. An image that asks for nothing gets the default."""

    def test(doc: Document) -> bool:
        value = _image(doc, name)
        return isinstance(value, str) and not re.search(pattern, value)

    return when(test)


def _bad_capacities(doc: Document) -> Iterable[Finding]:
    for volume in items(doc, "volumes"):
        size, name = number(read(volume, "size")), read(volume, "name")
        if size is not None and size <= 0 and name is not MISSING:
            yield {"name": name, "size": size}


def _unusable_volumes(doc: Document) -> bool:
    return any(not matches(read(volume, "status"), "available|in-use") for volume in items(doc, "volumes"))


def _shared_volumes(doc: Document) -> bool:
    return any((count(read(volume, "attachments")) or 0) > 1 for volume in items(doc, "volumes"))


def _floating(doc: Document) -> bool:
    addresses = read(doc, "addresses")
    networks = addresses.keys() if isinstance(addresses, dict) else ()
    return any(read(entry, "OS-EXT-IPS:type") == "floating" for network in networks for entry in items(addresses, network))


def _unsupported_os(doc: Document) -> bool:
    distro, version = _image(doc, "os_distro"), _image(doc, "os_version")
    if not isinstance(distro, str) or not isinstance(version, str):
        return False
    return not any(re.search(names, distro) and re.search(versions, version) for names, versions in _SUPPORTED)


def _status_invalid(doc: Document) -> bool:
    status = read(doc, "status")
    return isinstance(status, str) and not re.search("ACTIVE|SHUTOFF", status)


RULES: tuple[Rule, ...] = (
    Rule(
        "openstack.bios.boot_menu.enabled",
        _W,
        "VM has BIOS boot menu enabled",
        "The target VM has no boot menu.",
        when(lambda doc: _image(doc, "hw_boot_menu") == "true"),
    ),
    Rule(
        "openstack.cpu.shares.defined",
        _W,
        "VM has CPU Shares Defined",
        "CPU shares of the flavor are not carried over.",
        _in_flavor("quota:cpu_shares"),
    ),
    Rule(
        "openstack.disk.capacity.invalid",
        _C,
        "Volume '{name}' has an invalid size of {size} GB",
        "A volume without a positive size cannot be migrated. Check it in Cinder.",
        _bad_capacities,
    ),
    Rule(
        "openstack.disk.count.exceeds.limit",
        _W,
        "VM has {count} disks, which exceeds the limit of 165",
        "The target VM may not start with so many disks.",
        too_many("volumes"),
    ),
    Rule(
        "openstack.disk.shared.detected",
        _W,
        "Shared disk detected",
        "A volume is attached to more than one VM. Others may write to it while it is copied.",
        when(_shared_volumes),
    ),
    Rule(
        "openstack.disk.status.unsupported",
        _C,
        "VM has one or more disks with an unsupported status",
        "A volume is neither available nor in use, so it cannot be read.",
        when(_unusable_volumes),
    ),
    Rule(
        "openstack.disk.unsupported_interface",
        _W,
        "Unsupported disk interface type detected",
        "The disk bus of the image has no counterpart on the target; disks get another one.",
        _image_unlike("hw_disk_bus", "sata|scsi|virtio"),
    ),
    Rule(
        "openstack.host_devices.mapped",
        _W,
        "VM has mapped host devices",
        "Devices of the host are not carried over.",
        _in_flavor("pci_passthrough:alias"),
    ),
    Rule(
        "openstack.network.floating_ips.detected",
        _W,
        "Floating IPs detected",
        "Floating addresses stay with the cloud. Give the target VM a service or a route instead.",
        when(_floating),
    ),
    Rule(
        "openstack.network.vif_model.unsupported",
        _W,
        "Unsupported VIF model detected",
        "The NIC model of the image has no counterpart on the target; NICs get another one.",
        _image_unlike("hw_vif_model", "e1000|e1000e|rtl8139|virtio|ne2k_pci|pcnet"),
    ),
    Rule(
        "openstack.numa_tuning.detected",
        _W,
        "NUMA tuning detected",
        "The VM is bound to NUMA nodes. The target VM will not be.",
        _in_flavor("hw:pci_numa_affinity_policy", "hw:numa_nodes"),
    ),
    Rule(
        "openstack.os.unsupported",
        _W,
        "Unsupported operative system detected",
        "The guest's system is not supported on the target. It may run, but nobody has tested it.",
        when(_unsupported_os),
    ),
    Rule(
        "openstack.secure_boot.detected",
        _W,
        "UEFI secure boot detected",
        "Secure boot is set up anew on the target; keys enrolled by hand are lost.",
        when(lambda doc: "required" in (_image(doc, "os_secure_boot"), _flavor(doc, "os:secure_boot"))),
    ),
    Rule(
        "openstack.vm.name.invalid",
        _W,
        "Invalid VM Name",
        "The name is no Kubernetes name. The target VM gets a changed one, unless the plan gives targetName.",
        when(invalid_name),
    ),
    Rule(
        "openstack.vm.status.invalid",
        _W,
        "VM has a status condition that may prevent successful migration",
        "The VM is neither active nor shut off. Bring it into one of the two.",
        when(_status_invalid),
    ),
    Rule(
        "openstack.watchdog.detected",
        _W,
        "Watchdog detected",
        "The watchdog is not carried over.",
        when(lambda doc: MISSING is not _flavor(doc, "hw:watchdog_action") or MISSING is not _image(doc, "hw_watchdog_action")),
    ),
)
