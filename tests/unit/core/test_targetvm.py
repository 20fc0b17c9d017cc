"""Source VM -> target VM: models, topology, boot disk, serials. Matrix of Forklift's rules."""

from __future__ import annotations

import pytest

from reconciler.core import targetvm
from reconciler.core.inventory import Backing, SourceDisk, SourceVm
from reconciler.core.model import Power
from reconciler.core.target import Owner, TargetNic, TargetVmSpec
from reconciler.errors import UserError

OWNER = Owner("mtv/wave", "mtv/run", "web-1", "site/vm-uuid", "None", "")
BIOS_UUID = "421c5e0a-0d4f-11b2-053f-27e1d9a0c3b4"


def disk(n: int, **changes: object) -> SourceDisk:
    fields: dict[str, object] = {
        "key": str(2000 + n),
        "uuid": f"6000c29{n}",
        "label": f"Hard disk {n + 1}",
        "capacity_bytes": 1 << 30,
        "storage_id": "datastore-1",
        "storage_name": "fast",
        "bus": "scsi",
        "controller_key": 1000,
        "unit": n,
        "mode": "persistent",
        "backing": Backing("FlatVer2", f"[fast] web/web_{n}.vmdk"),
    }
    return SourceDisk(**(fields | changes))  # type: ignore[arg-type]


def source(**changes: object) -> SourceVm:
    fields: dict[str, object] = {
        "id": "vm-12",
        "uuid": "vm-uuid",
        "bios_uuid": BIOS_UUID,
        "name": "Web 01",
        "path": "/dc/vm/Web 01",
        "power": Power.ON,
        "tools_running": True,
        "firmware": "efi",
        "secure_boot": True,
        "tpm": False,
        "cpus": 8,
        "cores_per_socket": 4,
        "memory_bytes": 4 << 30,
        "guest_id": "",
        "guest_name": "",
        "host_id": "host-1",
        "disks": (disk(0), disk(1)),
        "nics": (),
    }
    return SourceVm(**(fields | changes))  # type: ignore[arg-type]


def build(vm: SourceVm, **changes: object) -> TargetVmSpec:
    options: dict[str, object] = {
        "namespace": "shop",
        "name": "web-01",
        "pvc_names": {d.uuid: f"pvc-{d.unit}" for d in vm.disks},
        "nics": (TargetNic("net-0", "00:50:56:00:00:01", "virtio", True),),
        "owner": OWNER,
        "compatibility": False,
    }
    return targetvm.build(vm, **(options | changes))  # type: ignore[arg-type]


def test_a_converted_guest_gets_virtio_and_an_unconverted_one_what_every_guest_can_drive() -> None:
    fast, safe = build(source()), build(source(), compatibility=True)
    assert ({d.bus for d in fast.disks}, {n.model for n in fast.nics}) == ({"virtio"}, {"virtio"})
    assert ({d.bus for d in safe.disks}, {n.model for n in safe.nics}) == ({"sata"}, {"e1000e"})


def test_disks_keep_order_get_names_by_template_and_the_first_one_boots() -> None:
    disks = build(source(), volume_name_template="d{{.VolumeIndex}}-{{.PVCName}}").disks
    assert [(d.name, d.pvc, d.boot_order) for d in disks] == [("d0-pvc-0", "pvc-0", 1), ("d1-pvc-1", "pvc-1", None)]


@pytest.mark.parametrize(
    ("root", "boots"), [("/dev/sdb", 1), ("/dev/sdb2", 1), ("/dev/vda", 0), ("", 0), ("[ds] web/web.vmdk", 0), ("/dev/sdz", 0)]
)
def test_the_letter_of_the_root_disk_chooses_what_boots(root: str, boots: int) -> None:
    assert [i for i, d in enumerate(build(source(), root_disk=root).disks) if d.boot_order == 1] == [boots]


def test_a_disk_without_a_pvc_is_left_out_and_the_rest_moves_up() -> None:
    vm = source(disks=(disk(0), disk(1), disk(2)))
    disks = build(vm, pvc_names={disk(1).uuid: "one", disk(2).uuid: "two"}).disks
    assert [(d.pvc, d.name, d.boot_order) for d in disks] == [("one", "vol-0", 1), ("two", "vol-1", None)]


@pytest.mark.parametrize(("cpus", "per_socket", "want"), [(8, 4, (2, 4)), (4, 1, (4, 1)), (6, 4, (6, 1)), (2, 0, (2, 1)), (2, 4, (2, 1))])
def test_sockets_times_cores_is_always_the_number_of_cpus(cpus: int, per_socket: int, want: tuple[int, int]) -> None:
    sockets, cores = targetvm.topology(cpus, per_socket)
    assert (sockets, cores) == want
    assert sockets * cores == cpus


def test_secure_boot_needs_efi() -> None:
    assert build(source()).secure_boot
    assert not build(source(firmware="bios")).secure_boot


def test_firmware_identity_is_what_the_guest_saw_on_vmware() -> None:
    spec = build(source(bios_uuid=BIOS_UUID.upper()))
    assert spec.uuid == BIOS_UUID
    assert spec.serial == "VMware-42 1c 5e 0a 0d 4f 11 b2-05 3f 27 e1 d9 a0 c3 b4"
    odd = build(source(bios_uuid="none"))
    assert (odd.uuid, odd.serial) == ("", "none")


def test_disk_serials_are_clean_short_and_never_empty_or_equal() -> None:
    vm = source(disks=(disk(0, serial="a b;c" + "9" * 30), disk(1), disk(2)))
    serials = [d.serial for d in build(vm).disks]
    assert serials[0] == "abc" + "9" * 17
    assert all(len(s) == 20 for s in serials)
    assert len(set(serials)) == 3
    assert serials == [d.serial for d in build(vm).disks]


@pytest.mark.parametrize(
    ("source_has", "plan_says", "want"), [(True, None, True), (False, None, None), (True, False, False), (False, True, True)]
)
def test_nested_virtualization_follows_the_plan_then_the_source(source_has: bool, plan_says: bool | None, want: bool | None) -> None:
    assert build(source(nested_virtualization=source_has), nested_virtualization=plan_says).nested_virtualization is want


def test_a_renamed_vm_says_what_it_was() -> None:
    assert build(source()).annotations == {"openshift.io/display-name": "Web 01", "original-ID": "vm-12"}
    assert build(source(name="web-01")).annotations == {"openshift.io/display-name": "web-01"}


def test_a_template_that_gives_no_name_is_the_users_mistake() -> None:
    with pytest.raises(UserError):
        build(source(), volume_name_template="{{.Nope}}")
