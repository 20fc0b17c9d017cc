"""Source inventory -> the target VM in neutral terms: firmware, CPU, memory, NICs, disks, boot order, serials. Pure.

What it is: Forklift's rules of what a guest finds again on the other side. What it is not: KubeVirt's fields (drivers/kubevirt/machine.py),
and not the choice of networks (core/networks.py) or sizes (core/sizes.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from reconciler.core import names
from reconciler.core.inventory import SourceDisk, SourceVm
from reconciler.core.target import Owner, Placement, TargetDisk, TargetNic, TargetVmSpec

DISPLAY_NAME, ORIGINAL_ID = "openshift.io/display-name", "original-ID"
_SERIAL_MAX = 20  # what a guest's SCSI and virtio layers show
_ROOT_DISK = re.compile(r"/dev/[a-z]d([a-z])[0-9]*")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def build(
    vm: SourceVm,
    *,
    namespace: str,
    name: str,
    pvc_names: Mapping[str, str],
    nics: Sequence[TargetNic],
    owner: Owner,
    compatibility: bool,
    volume_name_template: str = "",
    root_disk: str = "",
    instance_type: str | None = None,
    labels: Mapping[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
    affinity: Mapping[str, object] | None = None,
    nested_virtualization: bool | None = None,
) -> TargetVmSpec:
    """The whole VM. `labels` are the Plan's targetLabels.

    pvc_names:     disk uuid -> PVC; a disk without one is not on the target VM.
    compatibility: a guest that nobody converts may lack virtio drivers: SATA and e1000e instead.
    nested_virtualization: None keeps what the source has; a source without it leaves the choice to the cluster.
    Errors: UserError NotValid when the template fails.
    """
    sockets, cores = topology(vm.cpus, vm.cores_per_socket)
    nic_model = "e1000e" if compatibility else "virtio"
    return TargetVmSpec(
        namespace=namespace,
        name=name,
        cpu_sockets=sockets,
        cpu_cores=cores,
        memory_bytes=vm.memory_bytes,
        firmware=vm.firmware or "bios",
        secure_boot=vm.secure_boot and vm.firmware == "efi",
        tpm=vm.tpm,
        uuid=firmware_uuid(vm.bios_uuid),
        serial=firmware_serial(vm.bios_uuid),
        disks=_disks(vm, pvc_names, "sata" if compatibility else "virtio", volume_name_template, root_disk),
        nics=tuple(replace(nic, model=nic_model) for nic in nics),
        owner=owner,
        source_name=vm.name,
        labels=dict(labels or {}),
        annotations={DISPLAY_NAME: vm.name} | ({ORIGINAL_ID: vm.id} if name != vm.name else {}),
        instance_type=instance_type,
        placement=Placement(dict(node_selector or {}), affinity),
        nested_virtualization=vm.nested_virtualization or None if nested_virtualization is None else nested_virtualization,
    )


def _disks(vm: SourceVm, pvc_names: Mapping[str, str], bus: str, template: str, root_disk: str) -> tuple[TargetDisk, ...]:
    copied = [disk for disk in vm.disks if disk.uuid in pvc_names]
    wanted = root_disk_index(root_disk)
    boot = wanted if wanted < len(copied) else 0
    return tuple(
        TargetDisk(
            name=names.render_volume_name(template, pvc_name=pvc_names[disk.uuid], volume_index=index),
            pvc=pvc_names[disk.uuid],
            bus=bus,
            boot_order=1 if index == boot else None,
            serial=disk_serial(vm.id, disk),
            shareable=disk.shared,
        )
        for index, disk in enumerate(copied)
    )


def topology(cpus: int, cores_per_socket: int) -> tuple[int, int]:
    """(sockets, cores). A count that cores do not divide cannot be split evenly: then every CPU is a socket."""
    cores = max(cores_per_socket, 1)
    return (cpus // cores, cores) if cpus >= cores and cpus % cores == 0 else (max(cpus, 1), 1)


def root_disk_index(root_disk: str) -> int:
    """`/dev/sdb2` -> 1: the letter counts, partition digits do not. Anything else is disk 0."""
    match = _ROOT_DISK.fullmatch(root_disk)
    return ord(match.group(1)) - ord("a") if match else 0


def firmware_uuid(bios_uuid: str) -> str:
    """KubeVirt takes canonical UUIDs only; "" leaves the choice to it."""
    text = bios_uuid.lower()
    return text if _UUID.fullmatch(text) else ""


def firmware_serial(bios_uuid: str) -> str:
    """As VMware's BIOS shows it, so that licences bound to the serial number hold: `VMware-42 1c 5e … 05-3f 27 …`."""
    digits = bios_uuid.lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        return bios_uuid
    pairs = [digits[i : i + 2] for i in range(0, 32, 2)]
    return f"VMware-{' '.join(pairs[:8])}-{' '.join(pairs[8:])}"


def disk_serial(vm_id: str, disk: SourceDisk) -> str:
    """The source's serial where that is usable, else a hash of VM and device, so that a guest finds disks by stable names."""
    kept = re.sub(r"[^A-Za-z0-9_.+-]", "", disk.serial)
    return kept[:_SERIAL_MAX] or hashlib.sha256(f"{vm_id}:{disk.key}".encode()).hexdigest()[:_SERIAL_MAX]
