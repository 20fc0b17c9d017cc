"""The example estate: a small shop's vCenter, with the machines that the example repository migrates and some that it leaves alone.

Where it stands: fills an empty world; used by labrun and by tests. Names, sizes and ids are the same for every run.
"""

from __future__ import annotations

from reconciler.lab.machines import Vm
from reconciler.lab.world import World

BYSTANDERS = 4


def build_shop_estate(world: World) -> None:
    """DC1 with one cluster, two hosts, two datastores and three networks. Machines that run are running when this returns."""
    dc = world.add_datacenter("DC1")
    cluster = world.add_cluster("Cluster1", dc)
    hosts = [world.add_host(name, cluster) for name in ("esxi-01.lab.example", "esxi-02.lab.example")]
    fast, bulk = world.add_datastore("ds-fast", dc, "VMFS"), world.add_datastore("ds-bulk", dc, "NFS")
    vm_network = world.add_network("VM Network", dc)
    app = world.add_network("App VLAN 210", dc, switch="DSwitch-1", vlan=210)
    backup = world.add_network("Backup LAN", dc)

    web = world.add_vm("web-01", hosts[0], folder="Shop", memory_mib=2048)
    world.add_disk(web, fast, 96, 40, "pvscsi")
    world.add_nic(web, vm_network)

    db = world.add_vm("db-01", hosts[1], folder="Shop", firmware="efi", secure_boot=True, cpus=4, cores_per_socket=2, memory_mib=4096)
    world.add_disk(db, fast, 128, 48, "pvscsi")
    world.add_disk(db, bulk, 64, 24, "nvme")
    world.add_nic(db, app)
    world.add_nic(db, backup)

    batch = world.add_vm("batch-01", hosts[0], folder="Shop")
    world.add_disk(batch, bulk, 64, 20, "sata")
    world.add_nic(batch, vm_network)

    legacy = world.add_vm("Legacy App_01", hosts[1], guest_id="windows2019srv_64Guest", guest_name="Microsoft Windows Server 2019 (64-bit)")
    world.add_disk(legacy, fast, 64, 24, "sata")
    world.add_nic(legacy, vm_network, "e1000")

    for vm in (web, db, legacy, *_bystanders(world)):
        world.power_on(vm)


def add_warm_wave(world: World, tracked: bool = True) -> tuple[Vm, Vm, Vm]:
    """Running machines for warm moves, beside the shop's: (mail-01, chat-01, erp-01).

    The first two lie on NFS, where the base below a snapshot can be read while they run; erp-01 lies on VMFS, where it cannot.
    `tracked`: their changed blocks are recorded from this boot on; otherwise somebody has to switch that on.
    """
    hosts, network = list(world.hosts.values()), world.networks["VM Network"]
    mail = world.add_vm("mail-01", hosts[0], folder="Shop", memory_mib=2048)
    world.add_disk(mail, world.datastores["ds-bulk"], 96, 32, "pvscsi")
    chat = world.add_vm("chat-01", hosts[0], folder="Shop", memory_mib=2048)
    world.add_disk(chat, world.datastores["ds-bulk"], 64, 16, "pvscsi")
    erp = world.add_vm("erp-01", hosts[1], folder="Shop", firmware="efi", cpus=4, memory_mib=4096)
    world.add_disk(erp, world.datastores["ds-fast"], 64, 24, "pvscsi")
    world.add_disk(erp, world.datastores["ds-fast"], 32, 8, "nvme")
    for vm in (mail, chat, erp):
        world.add_nic(vm, network)
        if tracked:
            world.set_change_tracking(vm, True)
        world.power_on(vm)
    return mail, chat, erp


def _bystanders(world: World) -> list[Vm]:
    """Machines that nobody migrates; the tests check that they stay as they are."""
    hosts, network, store = list(world.hosts.values()), world.networks["VM Network"], world.datastores["ds-bulk"]
    made = []
    for number in range(BYSTANDERS):
        vm = world.add_vm(f"bystander-{number + 1:02d}", hosts[number % 2], folder="Others")
        world.add_disk(vm, store, 16, 2)
        world.add_nic(vm, network)
        made.append(vm)
    template = world.add_vm("tmpl-rhel9", hosts[0], folder="Templates", template=True)
    world.add_disk(template, store, 16, 2)
    world.add_nic(template, network)
    return made[:-1]
