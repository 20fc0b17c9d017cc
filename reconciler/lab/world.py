"""The neutral world that all simulated sites share: virtual machines, their disks as real sparse files, power, time and history.

What it is not: a platform. It knows no wire, no id format and no fault type; the skins (lab/vcenter, …) show it in their own words.
Where it stands: built by an estate, changed by the skins' calls and by guests that write while they run, judged by the tests.
Time: whatever is due happens at the next `settle()` (every skin calls it before it answers), at its due time. With `start()` a thread
does that and lets the guests write in wall-clock time; without it, time moves only when the caller's clock does and `tick()` is called.
"""

from __future__ import annotations

import random
import threading
import uuid
from pathlib import Path

from reconciler.lab import sparse
from reconciler.lab.clock import LabClock
from reconciler.lab.machines import (
    Cluster,
    Datacenter,
    Datastore,
    Disk,
    GuestWrite,
    Happening,
    Host,
    Network,
    Nic,
    Power,
    PowerEvent,
    Snapshot,
    Vm,
)
from reconciler.lab.timeline import Timeline

TICK_S = 0.1
WRITE_BYTES = (512, 4096)


class WrongPower(Exception):
    """The act does not fit the power state the VM is in."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(f"{vm.name} is {vm.power}")
        self.vm = vm


class NoTools(Exception):
    """The guest cannot be asked: its tools are not running."""


class World(Timeline):
    """All of a lab's machines. Thread-safe, see Timeline."""

    def __init__(self, root: Path, clock: LabClock, seed: int = 1) -> None:
        super().__init__(clock)
        self.root = root
        self.datacenters: dict[str, Datacenter] = {}
        self.clusters: dict[str, Cluster] = {}
        self.hosts: dict[str, Host] = {}
        self.datastores: dict[str, Datastore] = {}
        self.networks: dict[str, Network] = {}
        self.vms: dict[int, Vm] = {}
        self.files: dict[tuple[str, str], tuple[Vm, Disk]] = {}  # (datastore, path in it) of extents and descriptors
        self.history: list[PowerEvent] = []
        self._rng = random.Random(seed)
        self._seed = seed
        self._next_key = 10
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- time ----------------------------------------------------------------------------------------------------------------------------

    def changed(self, record: Vm | Host | Datastore | Network | Datacenter | Cluster) -> None:
        """Say that something about `record` changed, so that caches and waiting clients see it."""
        with self.lock:
            record.revision += 1
            self.touch()

    def start(self) -> None:
        """Guests write and time passes by itself, until stop()."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._live, name="lab-world", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _live(self) -> None:
        while not self._stop.wait(TICK_S):
            self.tick()

    def tick(self) -> None:
        """One beat: what is due happens, then every running guest writes a little to each of its disks."""
        with self.lock:
            self.settle()
            for vm in self.vms.values():
                if vm.power is Power.ON and vm.guest_up:
                    self._guest_writes(vm)

    def _guest_writes(self, vm: Vm) -> None:
        for disk in vm.disks:
            with disk.path.open("r+b") as file:
                for _ in range(vm.writes_per_tick):
                    length = self._rng.choice(WRITE_BYTES)
                    offset = self._rng.randrange(0, max(1, disk.capacity_bytes - length) // 512 + 1) * 512
                    file.seek(offset)
                    file.write(self._rng.randbytes(length))
                    vm.writes.append(GuestWrite(self.now(), disk.uuid, offset, length))
                    vm.write_count += 1

    # ---- building ---------------------------------------------------------------------------------------------------------------------

    def key(self) -> int:
        with self.lock:
            self._next_key += 1
            return self._next_key

    def uuid(self) -> str:
        """Deterministic for a seed and an order of calls."""
        with self.lock:
            return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def add_datacenter(self, name: str) -> Datacenter:
        self.datacenters[name] = made = Datacenter(self.key(), name)
        return made

    def add_cluster(self, name: str, datacenter: Datacenter) -> Cluster:
        self.clusters[name] = made = Cluster(self.key(), name, datacenter)
        return made

    def add_host(self, name: str, cluster: Cluster) -> Host:
        self.hosts[name] = made = Host(self.key(), name, cluster)
        return made

    def add_datastore(self, name: str, datacenter: Datacenter, kind: str = "VMFS") -> Datastore:
        folder = self.root / "datastores" / f"{len(self.datastores)}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        self.datastores[name] = made = Datastore(self.key(), name, datacenter, kind, folder)
        return made

    def add_network(self, name: str, datacenter: Datacenter, switch: str = "", vlan: int = 0) -> Network:
        self.networks[name] = made = Network(self.key(), name, datacenter, switch, vlan)
        return made

    def add_vm(self, name: str, host: Host, **fields: object) -> Vm:
        """A powered-off VM without disks; `fields` are those of machines.Vm."""
        with self.lock:
            made = Vm(self.key(), name, host.cluster.datacenter, host, self.uuid(), self.uuid(), **fields)  # type: ignore[arg-type]
            self.vms[made.key] = made
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
            for file in (path.name, made.file):
                self.files[(datastore.name, f"{folder}/{file}")] = vm, made
            self.changed(vm)
            return made

    def add_nic(self, vm: Vm, network: Network, model: str = "vmxnet3") -> Nic:
        with self.lock:
            number = vm.key * 8 + len(vm.nics)
            made = Nic(f"00:50:56:{(number >> 16) & 0x3F:02x}:{(number >> 8) & 0xFF:02x}:{number & 0xFF:02x}", network, model)
            vm.nics.append(made)
            self.changed(vm)
            return made

    def vm(self, name: str) -> Vm:
        """The VM of that name. Errors: KeyError when there is none, or more than one."""
        with self.lock:
            found = [vm for vm in self.vms.values() if vm.name == name]
        if len(found) != 1:
            raise KeyError(f"{len(found)} virtual machines are named {name!r}")
        return found[0]

    # ---- power ------------------------------------------------------------------------------------------------------------------------

    def power_on(self, vm: Vm, user: str = "root", cause: str = "user") -> None:
        """Errors: WrongPower when it is on already."""
        with self.lock:
            if vm.power is Power.ON:
                raise WrongPower(vm)
            if vm.power is Power.OFF and vm.boots:
                self._freeze(vm)
            self._tell(vm, Happening.STARTING, user, cause)
            vm.power, vm.boot_at, vm.shutting_down = Power.ON, self.now(), False
            vm.boots += 1
            self._boot(vm)
            self._tell(vm, Happening.ON, user, cause)

    def power_off(self, vm: Vm, user: str = "root", cause: str = "user") -> None:
        """The plug is pulled. Errors: WrongPower when it is off already."""
        with self.lock:
            if vm.power is Power.OFF:
                raise WrongPower(vm)
            vm.power, vm.boot_at, vm.guest_up, vm.shutting_down = Power.OFF, None, False, False
            for disk in vm.disks:
                if disk.frozen is not None:
                    disk.frozen.unlink()
                    disk.frozen = None
            self._tell(vm, Happening.OFF, user, cause)

    def shutdown_guest(self, vm: Vm, user: str = "root") -> None:
        """Ask the guest; it goes off after `shutdown_s`, or never if it ignores that. Errors: WrongPower, NoTools."""
        with self.lock:
            if vm.power is not Power.ON:
                raise WrongPower(vm)
            if not vm.tools_running:
                raise NoTools(vm.name)
            self._tell(vm, Happening.GUEST_SHUTDOWN, user, "user")
            if vm.ignores_shutdown or vm.shutting_down:
                return
            vm.shutting_down = True
            boot = vm.boots

            def off() -> None:
                if vm.boots == boot and vm.power is Power.ON:
                    self.power_off(vm, "", "guest")

            self.later(vm.shutdown_s, off)

    def suspend(self, vm: Vm, user: str = "root") -> None:
        with self.lock:
            if vm.power is not Power.ON:
                raise WrongPower(vm)
            vm.power, vm.guest_up = Power.SUSPENDED, False
            self._tell(vm, Happening.SUSPENDED, user, "user")

    def reset(self, vm: Vm, user: str = "root") -> None:
        with self.lock:
            if vm.power is not Power.ON:
                raise WrongPower(vm)
            vm.shutting_down = False
            self._boot(vm)
            self._tell(vm, Happening.RESET, user, "user")

    def _boot(self, vm: Vm) -> None:
        vm.guest_up = vm.boot_s <= 0
        if vm.guest_up:
            return
        boot = vm.boots

        def up() -> None:
            if vm.boots == boot and vm.power is Power.ON:
                vm.guest_up = True
                self.changed(vm)

        self.later(vm.boot_s, up)

    def _tell(self, vm: Vm, kind: Happening, user: str, cause: str) -> None:
        self.history.append(PowerEvent(len(self.history) + 1, self.now(), vm.key, kind, user, cause))
        self.changed(vm)

    # ---- snapshots --------------------------------------------------------------------------------------------------------------------

    def create_snapshot(self, vm: Vm, name: str, description: str = "") -> Snapshot:
        with self.lock:
            made = Snapshot(self.key(), name, description, self.now(), vm.power, vm.current_snapshot)
            vm.snapshots.append(made)
            vm.current_snapshot = made.key
            self.changed(vm)
            return made

    def remove_snapshot(self, vm: Vm, key: int) -> None:
        """Children move up to the parent. Errors: KeyError."""
        with self.lock:
            gone = next((s for s in vm.snapshots if s.key == key), None)
            if gone is None:
                raise KeyError(key)
            vm.snapshots.remove(gone)
            for child in vm.snapshots:
                if child.parent == key:
                    child.parent = gone.parent
            if vm.current_snapshot == key:
                vm.current_snapshot = gone.parent
            self.changed(vm)

    # ---- what the tests judge by ------------------------------------------------------------------------------------------------------

    def _freeze(self, vm: Vm) -> None:
        """Keep the bytes of the last power-off before a new boot changes them."""
        for disk in vm.disks:
            disk.frozen = self.root / "frozen" / f"{disk.uuid}.raw"
            disk.frozen.parent.mkdir(parents=True, exist_ok=True)
            sparse.copy(disk.path, disk.frozen)

    def bytes_at_power_off(self, vm: Vm, disk: Disk) -> Path:
        """A file with the disk's bytes at the last power-off. Errors: LookupError when it has been on ever since its first boot."""
        with self.lock:
            if vm.power is Power.OFF:
                return disk.path
            if disk.frozen is None:
                raise LookupError(f"{vm.name} has not been powered off")
            return disk.frozen

    def source_sha256(self, vm: Vm, disk: Disk) -> str:
        """Of the disk as it is now; the guest waits meanwhile."""
        with self.lock:
            return sparse.sha256(disk.path)

    def sha256_at_power_off(self, vm: Vm, disk: Disk) -> str:
        with self.lock:
            return sparse.sha256(self.bytes_at_power_off(vm, disk))
