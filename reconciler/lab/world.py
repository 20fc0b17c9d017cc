"""The neutral world that all simulated sites share: virtual machines, their disks as real sparse files, power, time and history.

What it is not: a platform. It knows no wire, no id format and no fault type; the skins (lab/vcenter, …) show it in their own words.
Where it stands: built by an estate, changed by the skins' calls and by guests that write while they run, judged by the tests.
Time: whatever is due happens at the next `settle()` (every skin calls it before it answers), at its due time. With `start()` a thread
does that and lets the guests write in wall-clock time; without it, time moves only when the caller's clock does and `tick()` is called.
"""

from __future__ import annotations

import threading
from pathlib import Path

from reconciler.lab import sparse
from reconciler.lab.clock import LabClock
from reconciler.lab.machines import Disk, GuestWrite, Happening, Power, Vm
from reconciler.lab.snapshots import Snapshots

TICK_S = 0.1
WRITE_BYTES = (512, 4096)


class WrongPower(Exception):
    """The act does not fit the power state the VM is in."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(f"{vm.name} is {vm.power}")
        self.vm = vm


class NoTools(Exception):
    """The guest cannot be asked: its tools are not running."""


class World(Snapshots):
    """All of a lab's machines. Thread-safe, see Timeline."""

    def __init__(self, root: Path, clock: LabClock, seed: int = 1) -> None:
        super().__init__(root, clock, seed)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- time ----------------------------------------------------------------------------------------------------------------------------

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
                    length = self.rng.choice(WRITE_BYTES)
                    offset = self.rng.randrange(0, max(1, disk.capacity_bytes - length) // 512 + 1) * 512
                    file.seek(offset)
                    file.write(self.rng.randbytes(length))
                    self._note(vm, disk, offset, length)

    def guest_write(self, vm: Vm, disk: Disk, offset: int, data: bytes) -> None:
        """What a test wants the running guest to write. Errors: WrongPower; ValueError beyond the end."""
        with self.lock:
            if vm.power is not Power.ON:
                raise WrongPower(vm)
            if offset + len(data) > disk.capacity_bytes:
                raise ValueError("beyond the end of the disk")
            with disk.path.open("r+b") as file:
                file.seek(offset)
                file.write(data)
            self._note(vm, disk, offset, len(data))

    def _note(self, vm: Vm, disk: Disk, offset: int, length: int) -> None:
        if disk.tracking is not None:
            disk.tracking.note(offset, length)
        vm.writes.append(GuestWrite(self.now(), disk.uuid, offset, length))
        vm.write_count += 1

    # ---- power ------------------------------------------------------------------------------------------------------------------------

    def power_on(self, vm: Vm, user: str = "root", cause: str = "user") -> None:
        """Errors: WrongPower when it is on already."""
        with self.lock:
            if vm.power is Power.ON:
                raise WrongPower(vm)
            if vm.power is Power.OFF and vm.boots:
                self._freeze(vm)
            self.tell(vm, Happening.STARTING, user, cause)
            vm.power, vm.boot_at, vm.shutting_down = Power.ON, self.now(), False
            vm.boots += 1
            self.stun(vm)
            self._boot(vm)
            self.tell(vm, Happening.ON, user, cause)

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
            self.tell(vm, Happening.OFF, user, cause)

    def shutdown_guest(self, vm: Vm, user: str = "root") -> None:
        """Ask the guest; it goes off after `shutdown_s`, or never if it ignores that. Errors: WrongPower, NoTools."""
        with self.lock:
            if vm.power is not Power.ON:
                raise WrongPower(vm)
            if not vm.tools_running:
                raise NoTools(vm.name)
            self.tell(vm, Happening.GUEST_SHUTDOWN, user, "user")
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
            self.tell(vm, Happening.SUSPENDED, user, "user")

    def reset(self, vm: Vm, user: str = "root") -> None:
        with self.lock:
            if vm.power is not Power.ON:
                raise WrongPower(vm)
            vm.shutting_down = False
            self._boot(vm)
            self.tell(vm, Happening.RESET, user, "user")

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

    # ---- what happens to machines -----------------------------------------------------------------------------------------------------

    def revert_to_snapshot(self, vm: Vm, key: int, user: str = "root") -> None:
        """The disks go back, and the machine is off afterwards (no memory was kept). Errors: KeyError."""
        with self.lock:
            to = next((s for s in vm.snapshots if s.key == key), None)
            if to is None:
                raise KeyError(key)
            if vm.power is not Power.OFF:
                self.power_off(vm, user)
            self._go_back(vm, to)
            self.tell(vm, Happening.REVERTED, user, "user")

    def crash_host(self, vm: Vm, restart: bool = True, resets_tracking: bool = True) -> None:
        """The host dies under a running machine and HA starts it elsewhere. Its records of changes begin anew, or else lie."""
        with self.lock:
            self.power_off(vm, "", "ha")
            if resets_tracking:
                self.reset_change_tracking(vm)
            else:
                self.forget_changes(vm)
            others = [h for h in self.hosts.values() if h.cluster is vm.host.cluster and h is not vm.host]
            vm.host = others[0] if others else vm.host
            if restart:
                self.power_on(vm, "", "ha")

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
