"""Builder of the VirtualMachine (kubevirt.io/v1). Pure.

Two forms of the same thing: `create` with runStrategy Halted, for the POST that makes it, and `desired` without any runStrategy, for the
server-side apply that brings ours up to date. Applying a run strategy would turn a running VM off; power is a request of its own.
"""

from __future__ import annotations

from reconciler.core.names import label_value
from reconciler.core.target import TargetDisk, TargetNic, TargetVmSpec
from reconciler.drivers.kubevirt import labels
from reconciler.drivers.kubevirt.objects import Json
from reconciler.drivers.kubevirt.quantity import from_bytes

API_VERSION = "kubevirt.io/v1"
HALTED, ALWAYS = "Halted", "Always"


def create(spec: TargetVmSpec) -> Json:
    vm = desired(spec)
    vm["spec"]["runStrategy"] = HALTED
    return vm


def desired(spec: TargetVmSpec) -> Json:
    own = labels.owner_labels(spec.owner)
    # Not our own labels: KubeVirt hands the template's on to VMI and virt-launcher pod, which are not ours to delete.
    vm_spec: Json = {"template": {"metadata": {"labels": {**spec.labels, "vm.kubevirt.io/name": label_value(spec.name)}}}}
    if spec.instance_type:
        vm_spec["instancetype"] = instance_type(spec.instance_type)
    vm_spec["template"]["spec"] = _template_spec(spec)
    return {
        "apiVersion": API_VERSION,
        "kind": "VirtualMachine",
        "metadata": {
            "namespace": spec.namespace,
            "name": spec.name,
            "labels": {**spec.labels, **own},
            "annotations": {**spec.annotations, **labels.owner_annotations(spec.owner), labels.SOURCE_NAME: spec.source_name},
        },
        "spec": vm_spec,
    }


def instance_type(name: str) -> Json:
    """ "ns/name" is in the VM's own namespace, "/name" or "name" is cluster-wide (KubeVirt's default kind)."""
    namespace, _, bare = name.rpartition("/")
    return {"kind": "VirtualMachineInstancetype" if namespace else "VirtualMachineClusterInstancetype", "name": bare}


def _template_spec(spec: TargetVmSpec) -> Json:
    template: Json = {
        "domain": _domain(spec),
        "networks": [_network(nic) for nic in spec.nics],
        "volumes": [{"name": disk.name, "persistentVolumeClaim": {"claimName": disk.pvc}} for disk in spec.disks],
        # Enough for a guest to shut down; KubeVirt's default of 30 s pulls the plug on databases.
        "terminationGracePeriodSeconds": 180,
    }
    if spec.placement.node_selector:
        template["nodeSelector"] = dict(spec.placement.node_selector)
    if spec.placement.affinity:
        template["affinity"] = dict(spec.placement.affinity)
    return template


def _domain(spec: TargetVmSpec) -> Json:
    domain: Json = {
        "clock": {
            "utc": {},
            "timer": {"hpet": {"present": False}, "pit": {"tickPolicy": "delay"}, "rtc": {"tickPolicy": "catchup"}},
        },
        "features": {"acpi": {"enabled": True}},
        "firmware": _firmware(spec),
        "devices": _devices(spec),
    }
    if spec.secure_boot:
        # KubeVirt's webhook refuses secure boot without system management mode.
        domain["features"]["smm"] = {"enabled": True}
    if not spec.instance_type:  # KubeVirt refuses CPU or memory beside an instance type
        domain["cpu"] = _cpu(spec)
        domain["memory"] = {"guest": from_bytes(spec.memory_bytes)}
    return domain


def _cpu(spec: TargetVmSpec) -> Json:
    cpu: Json = {"sockets": spec.cpu_sockets, "cores": spec.cpu_cores, "threads": 1}
    if spec.nested_virtualization is not None:
        # "optional" lets a node without the other vendor's feature run the VM.
        policy = "optional" if spec.nested_virtualization else "disable"
        cpu["features"] = [{"name": name, "policy": policy} for name in ("vmx", "svm")]
    return cpu


def _firmware(spec: TargetVmSpec) -> Json:
    efi = spec.firmware == "efi"
    firmware: Json = {"bootloader": {"efi": {"secureBoot": spec.secure_boot}} if efi else {"bios": {}}}
    if spec.uuid:
        firmware["uuid"] = spec.uuid
    if spec.serial:
        firmware["serial"] = spec.serial
    return firmware


def _devices(spec: TargetVmSpec) -> Json:
    emulated = any(disk.bus == "sata" for disk in spec.disks)  # compatibility mode: a guest without virtio drivers
    return {
        "disks": [_disk(disk) for disk in spec.disks],
        "interfaces": [_interface(nic) for nic in spec.nics],
        # Without this KubeVirt gives a VM that has no NIC one on the pod network.
        "autoattachPodInterface": bool(spec.nics),
        "inputs": [{"name": "tablet", "type": "tablet", "bus": "usb" if emulated else "virtio"}],
        # Off in so many words: a preference must not add one to a guest that never had it.
        "tpm": {"persistent": True} if spec.tpm else {"enabled": False},
    }


def _disk(disk: TargetDisk) -> Json:
    out: Json = {"name": disk.name, "disk": {"bus": disk.bus}}
    if disk.boot_order is not None:
        out["bootOrder"] = disk.boot_order
    if disk.serial:
        out["serial"] = disk.serial
    if disk.shareable:
        out |= {"shareable": True, "cache": "none"}
    return out


def _interface(nic: TargetNic) -> Json:
    binding = "masquerade" if nic.pod_network else "bridge"
    mac = {"macAddress": nic.mac} if nic.mac else {}
    return {"name": nic.name, **mac, "model": nic.model, binding: {}}


def _network(nic: TargetNic) -> Json:
    return {"name": nic.name, "pod": {}} if nic.pod_network else {"name": nic.name, "multus": {"networkName": nic.network}}
