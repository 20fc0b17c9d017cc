"""KubeVirt's validating webhook for VirtualMachines, in its own words.

What it is: the refusals that a wrongly built target VM meets. Source: kubevirt.io/v1, virtualmachine-validator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.lab.cluster.failures import ApiError
from reconciler.lab.cluster.kinds import CLUSTER_INSTANCETYPE, INSTANCETYPE
from reconciler.lab.cluster.store import Store

Json = dict[str, Any]
RUN_STRATEGIES = ("Always", "Halted", "Manual", "RerunOnFailure", "Once", "WaitAsReceiver")
_SPEC = "spec.template.spec"


def check_vm(vm: Json) -> None:
    """Errors: 422 with every cause."""
    causes = list(_causes(vm.get("spec") or {}))
    if causes:
        text = ", ".join(message for _, message in causes)
        details: Json = {
            "name": vm["metadata"]["name"],
            "group": "kubevirt.io",
            "kind": "VirtualMachine",
            "causes": [{"reason": "FieldValueInvalid", "message": message, "field": field} for field, message in causes],
        }
        raise ApiError(422, "Invalid", f'admission webhook "virtualmachine-validator.kubevirt.io" denied the request: {text}', details)


def check_instance_type(vm: Json, store: Store) -> None:
    """Errors: 422 when the instance type that the machine names is not there."""
    wanted = vm["spec"].get("instancetype") or {}
    if not wanted.get("name"):
        return
    clustered = "cluster" in str(wanted.get("kind", CLUSTER_INSTANCETYPE.kind)).lower()
    kind = CLUSTER_INSTANCETYPE if clustered else INSTANCETYPE
    namespace = "" if clustered else vm["metadata"]["namespace"]
    if store.get(kind, namespace, wanted["name"]) is None:
        why = f'{kind.resource} "{wanted["name"]}" not found'
        message = f'admission webhook "virtualmachine-validator.kubevirt.io" denied the request: Failure to find instancetype: {why}'
        raise ApiError(422, "Invalid", message)


def _causes(spec: Json) -> Iterator[tuple[str, str]]:
    if not isinstance(spec.get("template"), dict):
        yield "spec.template", "missing virtual machine template."
        return
    if "running" in spec and "runStrategy" in spec:
        yield (
            "spec.running",
            "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead",
        )
    elif "running" not in spec and "runStrategy" not in spec:
        yield "spec.running", "One of Running or RunStrategy must be specified"
    elif "runStrategy" in spec and spec["runStrategy"] not in RUN_STRATEGIES:
        yield "spec.runStrategy", f"Invalid RunStrategy ({spec['runStrategy']})"
    guest = spec["template"].get("spec") or {}
    if not isinstance(guest.get("domain"), dict):
        yield f"{_SPEC}.domain", "spec.template.spec.domain is required"
        return
    yield from _disk_causes(guest)
    yield from _network_causes(guest)
    yield from _cpu_causes(spec, guest)


def _disk_causes(guest: Json) -> Iterator[tuple[str, str]]:
    disks = (guest["domain"].get("devices") or {}).get("disks") or []
    volumes = [volume.get("name") for volume in guest.get("volumes") or []]
    orders: set[int] = set()
    names: set[str] = set()
    for index, disk in enumerate(disks):
        at = f"{_SPEC}.domain.devices.disks[{index}]"
        if disk.get("name") not in volumes:
            yield f"{at}.Name", f"{at}.Name '{disk.get('name')}' not found."
        if disk.get("name") in names:
            yield f"{at}.Name", f"{at} and another must not have the same Name."
        names.add(disk.get("name"))
        order = disk.get("bootOrder")
        if order is not None and (order < 1 or order in orders):
            yield f"{at}.bootOrder", f"{at}.bootOrder must have a boot order > 0 that is unique, if supplied"
        orders.add(order)
        if len(disk.get("serial") or "") > 256:
            yield f"{at}.serial", f"{at}.serial must be less than or equal to 256 in length, if specified"
        bus = (disk.get("disk") or disk.get("lun") or disk.get("cdrom") or {}).get("bus")
        if bus not in (None, "virtio", "sata", "scsi", "usb"):
            yield f"{at}.disk.bus", f"{at} is set with an unrecognized bus {bus}, must be one of: [virtio sata scsi usb]"
    for name in {v for v in volumes if volumes.count(v) > 1}:
        yield f"{_SPEC}.volumes", f"{_SPEC}.volumes must not have the same Name ({name})."


def _network_causes(guest: Json) -> Iterator[tuple[str, str]]:
    networks = {network.get("name"): network for network in guest.get("networks") or []}
    interfaces = (guest["domain"].get("devices") or {}).get("interfaces") or []
    names = [interface.get("name") for interface in interfaces]
    for index, interface in enumerate(interfaces):
        at = f"{_SPEC}.domain.devices.interfaces[{index}]"
        network = networks.get(interface.get("name"))
        if network is None:
            yield f"{at}.name", f"{at}.name '{interface.get('name')}' not found."
        elif "masquerade" in interface and "pod" not in network:
            yield f"{at}.name", f"Masquerade interface only implemented with pod network ({interface.get('name')})"
        if interface.get("model") not in (None, "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio"):
            yield f"{at}.model", f"{at}.model {interface['model']} is not supported"
    for name in networks:
        if name not in names:
            yield f"{_SPEC}.networks", f"{_SPEC}.networks[{list(networks).index(name)}].name '{name}' not found."
    if sum("pod" in network for network in networks.values()) > 1:
        yield f"{_SPEC}.networks", "more than one interface is connected to a pod network in spec.template.spec.interfaces"


def _cpu_causes(spec: Json, guest: Json) -> Iterator[tuple[str, str]]:
    domain = guest["domain"]
    memory = (domain.get("memory") or {}).get("guest") or ((domain.get("resources") or {}).get("requests") or {}).get("memory")
    if "instancetype" in spec:
        if (domain.get("cpu") or {}).keys() & {"cores", "sockets", "threads"}:
            yield f"{_SPEC}.domain.cpu", f"VM field(s) {_SPEC}.domain.cpu conflicts with selected instance type"
    elif not memory:
        yield (
            f"{_SPEC}.domain.memory.guest",
            "no memory requested, at least one of memory.guest, memory.hugepages or resources.memory must be set",
        )
