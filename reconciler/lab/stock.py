"""What a world holds and how it is built: places, machines, disks, cards. What happens to them is world.py's.

Where it stands: between timeline.py and world.py; estates and tests call the `add_` methods.
Everything is deterministic for a seed and an order of calls.
"""

from __future__ import annotations

import random
import uuid
from pathlib import Path

from reconciler.lab import chains, sparse
from reconciler.lab.clock import LabClock
from reconciler.lab.machines import Cluster, Datacenter, Datastore, Disk, Happening, Host, Network, Nic, PowerEvent, Vm
from reconciler.lab.timeline import Timeline

_WRITE_CONFIG = (Happening.ON, Happening.RECONFIGURED, Happening.REVERTED, Happening.MIGRATED)


class Stock(Timeline):
    """Thread-safe, see Timeline. `vms` may lose members (a machine is deleted); `known` never does."""

    def __init__(self, root: Path, clock: LabClock, seed: int) -> None:
        super().__init__(clock)
        self.root = root
        self.datacenters: dict[str, Datacenter] = {}
        self.clusters: dict[str, Cluster] = {}
        self.hosts: dict[str, Host] = {}
        self.datastores: dict[str, Datastore] = {}
        self.networks: dict[str, Network] = {}
        self.vms: dict[int, Vm] = {}
        self.files: dict[tuple[str, str], tuple[Vm, Disk]] = {}  # (datastore, path in it)
        self.known: dict[int, Vm] = {}  # every machine that ever was
        self.history: list[PowerEvent] = []
        self.rng = random.Random(seed)
        self._seed = seed
        self._next_key = 10

    def changed(self, record: Vm | Host | Datastore | Network | Datacenter | Cluster) -> None:
        """Say that something about `record` changed, so that caches and waiting clients see it."""
        with self.lock:
            record.revision += 1
            self.touch()

    def key(self) -> int:
        with self.lock:
            self._next_key += 1
            return self._next_key

    def uuid(self) -> str:
        """Deterministic for a seed and an order of calls."""
        with self.lock:
            return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def add_datacenter(self, name: str) -> Datacenter:
        self.datacenters[name] = made = Datacenter(self.key(), name)
        return made

    def add_cluster(self, name: str, datacenter: Datacenter) -> Cluster:
        self.clusters[name] = made = Cluster(self.key(), name, datacenter)
        return made

    def add_host(self, name: str, cluster: Cluster) -> Host:
        self.hosts[name] = made = Host(self.key(), name, cluster)
        return made

    def add_datastore(self, name: str, datacenter: Datacenter, kind: str = "VMFS", base_readable: bool | None = None) -> Datastore:
        """`base_readable`: see Datastore.reads_running_base; left out, it is so on everything but VMFS."""
        readable = kind != "VMFS" if base_readable is None else base_readable
        folder = self.root / "datastores" / f"{len(self.datastores)}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        self.datastores[name] = made = Datastore(self.key(), name, datacenter, kind, folder, reads_running_base=readable)
        return made

    def add_network(self, name: str, datacenter: Datacenter, switch: str = "", vlan: int = 0) -> Network:
        self.networks[name] = made = Network(self.key(), name, datacenter, switch, vlan)
        return made

    def add_vm(self, name: str, host: Host, **fields: object) -> Vm:
        """A powered-off VM without disks; `fields` are those of machines.Vm."""
        with self.lock:
            made = Vm(self.key(), name, host.cluster.datacenter, host, self.uuid(), self.uuid(), **fields)  # type: ignore[arg-type]
            self.vms[made.key] = self.known[made.key] = made
            self.changed(made)
            return made

    def add_disk(self, vm: Vm, datastore: Datastore, capacity_mib: int, data_mib: int = 0, bus: str = "pvscsi", **fields: object) -> Disk:
        """A disk of `capacity_mib` with about `data_mib` of seeded content scattered over it. bus: pvscsi, lsilogic, sata, nvme, ide."""
        with self.lock:
            number = len(vm.disks)
            stem = vm.name if number == 0 else f"{vm.name}_{number}"
            own = next((d.folder for d in vm.disks if d.datastore is datastore), None)
            folder = own or (vm.name if not (datastore.folder / vm.name).exists() else f"{vm.name}_{vm.key}")
            path = datastore.folder / folder / f"{stem}-flat.vmdk"
            sparse.create(path, capacity_mib * sparse.MIB)
            if data_mib:
                sparse.scatter(path, data_mib * sparse.MIB, self._seed * 1_000_003 + vm.key * 64 + number)
            unit = sum(1 for d in vm.disks if d.bus == bus)
            made = Disk(
                self.uuid(),
                f"Hard disk {number + 1}",
                capacity_mib * sparse.MIB,
                datastore,
                folder,
                f"{stem}.vmdk",
                path,
                bus,
                unit + (bus in ("pvscsi", "lsilogic") and unit >= 7),  # unit 7 is the SCSI controller itself
                **fields,  # type: ignore[arg-type]
            )
            vm.disks.append(made)
            self.name_files(vm, made)
            vm.config_version += 1
            self.changed(vm)
            return made

    def add_nic(self, vm: Vm, network: Network, model: str = "vmxnet3") -> Nic:
        with self.lock:
            number = vm.key * 8 + len(vm.nics)
            made = Nic(f"00:50:56:{(number >> 16) & 0x3F:02x}:{(number >> 8) & 0xFF:02x}:{number & 0xFF:02x}", network, model)
            vm.nics.append(made)
            vm.config_version += 1
            self.changed(vm)
            return made

    def vm(self, name: str) -> Vm:
        """The VM of that name. Errors: KeyError when there is none, or more than one."""
        with self.lock:
            found = [vm for vm in self.vms.values() if vm.name == name]
        if len(found) != 1:
            raise KeyError(f"{len(found)} virtual machines are named {name!r}")
        return found[0]

    def grow_disk(self, vm: Vm, disk: Disk, capacity_mib: int, user: str = "root") -> None:
        """A person makes the disk bigger; what is added reads as zeros."""
        with self.lock:
            if capacity_mib * sparse.MIB < disk.capacity_bytes:
                raise ValueError("a disk cannot shrink")
            disk.capacity_bytes = capacity_mib * sparse.MIB
            with disk.path.open("r+b") as file:
                file.truncate(disk.capacity_bytes)
            self.tell(vm, Happening.RECONFIGURED, user, "user")

    def remove_disk(self, vm: Vm, disk: Disk, user: str = "root") -> None:
        """A person takes the disk away; its files stay, since snapshots may need them."""
        with self.lock:
            vm.disks.remove(disk)
            self.tell(vm, Happening.RECONFIGURED, user, "user")

    def remove_vm(self, vm: Vm) -> None:
        """Deleted from the site; its history stays."""
        with self.lock:
            del self.vms[vm.key]
            self.touch()

    def name_files(self, vm: Vm, disk: Disk) -> None:
        """Make the files of a disk's chain known under the names that its datastore shows."""
        with self.lock:
            for name in chains.names(disk):
                self.files[(disk.datastore.name, f"{disk.folder}/{name}")] = vm, disk

    def tell(self, vm: Vm, kind: Happening, user: str, cause: str) -> None:
        """Write it into the history, now."""
        with self.lock:
            self.history.append(PowerEvent(len(self.history) + 1, self.now(), vm.key, kind, user, cause))
            vm.config_version += kind in _WRITE_CONFIG
            self.changed(vm)
