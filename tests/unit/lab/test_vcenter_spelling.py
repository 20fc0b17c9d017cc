"""The quick spelling of values against pyVmomi's own serializer, for every property that the simulated vCenter shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim
from pyVmomi.SoapAdapter import Deserialize

from reconciler.lab.clock import WallClock
from reconciler.lab.machines import Power
from reconciler.lab.tracking import Tracking
from reconciler.lab.vcenter import soap
from reconciler.lab.vcenter.inventory import Inventory
from reconciler.lab.vcenter.properties import Reader
from reconciler.lab.vcenter.spelling import NotPlain, spell
from reconciler.lab.world import World

VERSION = soap.version_of("")
XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns="urn:vim25"'


def build(root: Path) -> World:
    """One of each: bus, backing, card, power state, snapshot, option."""
    world = World(root, WallClock())
    dc = world.add_datacenter("DC & <1>")
    host = world.add_host("esxi", world.add_cluster("C", dc))
    stores = [world.add_datastore(kind, dc, kind) for kind in ("VMFS", "NFS", "vsan")]
    networks = [world.add_network("VM Network", dc), world.add_network("App", dc, switch="DS", vlan=3)]
    for number, kind in enumerate(("FlatVer2", "SeSparse", "SparseVer2", "RawDiskMappingVer1")):
        bus = ("pvscsi", "sata", "nvme", "ide")[number]
        vm = world.add_vm(f"vm {number} <&>", host, tpm=True, firmware="efi", secure_boot=True, cpu_affinity=(0, 1), folder="a/b")
        vm.extra_config = {"a<b": "c&d", "e": "f"}
        vm.annotation = "line\n<b>"
        record = Tracking("52" + "ab" * 15, 3)
        world.add_disk(vm, stores[number % 3], 1, bus=bus, kind=kind, tracking=record, parents=("[x] y/z.vmdk",) * (number % 3))
        if kind == "FlatVer2":
            vm.disks[0].key_id = "key"
        world.add_disk(vm, stores[0], 1, bus="lsilogic")
        for card, network in zip(("vmxnet3", "e1000"), networks, strict=True):
            world.add_nic(vm, network, card)
        if number:
            world.power_on(vm)
            world.create_snapshot(vm, "s")
            world.create_snapshot(vm, "t")
        if number == 2:
            world.suspend(vm)
    assert {vm.power for vm in world.vms.values()} == set(Power)
    return world


def test_both_write_the_same_and_pyvmomi_reads_it_back(tmp_path: Path) -> None:
    world = build(tmp_path)
    inventory = Inventory(world)
    reader, quick = Reader(inventory), 0
    for node in inventory.every():
        for path in node.table:
            value: Any = reader.value(node, path)
            if value is None:
                continue
            slow = soap.render_slowly(value, "val", object, VERSION)
            try:
                assert spell(value, "val", object, VERSION) == slow
                quick += 1
            except NotPlain:
                assert node.id[:3] != "vm-" or not path.startswith(("config.hardware", "guest", "runtime", "summary"))
            # Reading back checks the type of every field, which the quick builder of objects does not.
            Deserialize(slow.replace("<val ", f"<val {XSI} ", 1))
    assert quick > 150


def test_a_field_that_must_be_set_is_missed(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="label"):
        spell(vim.Description(summary="s", label=None), "val", object, VERSION)


def test_faults_are_left_to_pyvmomi() -> None:
    with pytest.raises(NotPlain):
        spell(vim.fault.InvalidLogin(msg="no"), "val", object, VERSION)
