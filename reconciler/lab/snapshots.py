"""Snapshots of the lab's machines, and the record of changed blocks that lives by them.

A record begins, or ends, when a machine is stunned (powered on, resumed, moved, its snapshots made, removed or gone back to) and its
setting says so; it does not begin on a chain that has snapshots already. Each snapshot ends an epoch of the record.
What it is not: power (world.py) or a platform's calls. Where it stands: between stock.py and world.py.
Source: VMware Virtual Disk Development Kit Programming Guide, "Enable Changed Block Tracking"; vSphere "Managing Snapshots".
"""

from __future__ import annotations

import os
from pathlib import Path

from reconciler.lab import chains, sparse, tracking
from reconciler.lab.machines import Datastore, Disk, Happening, Moment, Snapshot, Vm
from reconciler.lab.stock import Stock

MOST_LEVELS = 32


class TooManyLevels(Exception):
    """The chain of snapshots is as long as the platform allows."""


class NotConsolidated(Exception):
    """The snapshot is gone from the list, its files are not: somebody held them open."""


class Snapshots(Stock):
    """Thread-safe, see Timeline."""

    # ---- changed blocks ---------------------------------------------------------------------------------------------------------------

    def set_change_tracking(self, vm: Vm, on: bool, user: str = "root") -> None:
        """A person or a tool flips the setting, of the machine and its present disks. It takes effect at the next stun."""
        with self.lock:
            vm.change_tracking = on
            vm.extra_config["ctkEnabled"] = str(on).upper()
            for disk in vm.disks:
                if disk.tracks and not disk.independent:
                    vm.extra_config[f"{disk.slot}.ctkEnabled"] = str(on).upper()
            self.tell(vm, Happening.RECONFIGURED, user, "user")

    def stun(self, vm: Vm) -> None:
        """The moment at which settings of change tracking take effect."""
        for disk in vm.disks:
            switched_on = vm.extra_config.get(f"{disk.slot}.ctkEnabled", "").upper() == "TRUE"
            wanted = vm.change_tracking and switched_on and not disk.independent
            if not wanted:
                disk.tracking = None
            elif disk.tracking is None and not disk.layers:
                disk.tracking = self._new_record()

    def _new_record(self) -> tracking.Tracking:
        return tracking.Tracking("52" + self.uuid().replace("-", "")[2:])

    def reset_change_tracking(self, vm: Vm) -> None:
        """The records are thrown away and begun anew: other ids, nothing known of the past (a crash, a move, a repair)."""
        with self.lock:
            for disk in vm.disks:
                if disk.tracking is not None:
                    disk.tracking = self._new_record()
            self.changed(vm)

    def forget_changes(self, vm: Vm) -> None:
        """The records lose what was written so far and their ids stay good: change ids lie, without an error."""
        with self.lock:
            for disk in vm.disks:
                if disk.tracking is not None:
                    disk.tracking.forget()

    def changed_areas(self, vm: Vm, disk: Disk, snapshot: Snapshot | None, since: str) -> list[tuple[int, int]]:
        """(offset, length), in blocks, written from `since` to `snapshot` (None: now). Errors: tracking.Unknown; ValueError for no id."""
        with self.lock:
            moment = self.moment(vm, disk, snapshot)
            if moment.tracking is None:
                raise tracking.Unknown(since)
            blocks = moment.tracking.blocks(since, moment.sequence, and_after=snapshot is None)
            return list(tracking.clip(tracking.runs(blocks), 0, moment.capacity_bytes))

    def allocated_areas(self, vm: Vm, disk: Disk, snapshot: Snapshot | None) -> list[tuple[int, int]]:
        """(offset, length), in blocks, of what holds data at `snapshot` (None: now)."""
        with self.lock:
            moment, size = self.moment(vm, disk, snapshot), tracking.BLOCK_BYTES
            blocks: set[int] = set()
            fd = os.open(self.file_at(disk, snapshot), os.O_RDONLY)
            try:
                for offset, length in sparse.data_extents(fd, moment.capacity_bytes):
                    blocks.update(range(offset // size, (offset + length - 1) // size + 1))
            finally:
                os.close(fd)
            return list(tracking.clip(tracking.runs(blocks), 0, moment.capacity_bytes))

    def moment(self, vm: Vm, disk: Disk, snapshot: Snapshot | None) -> Moment:
        """Errors: KeyError for a disk that the snapshot does not know."""
        if snapshot is None:
            return Moment(disk, disk.capacity_bytes, disk.tracking, disk.tracking.sequence if disk.tracking else 0)
        found = next((m for m in snapshot.disks if m.disk is disk), None)
        if found is None:
            raise KeyError(disk.label)
        return found

    def file_at(self, disk: Disk, snapshot: Snapshot | None) -> Path:
        """The file with the disk's bytes at `snapshot`; an independent disk has only its present."""
        layer = chains.frozen_by(disk, snapshot.key) if snapshot else None
        return layer.path if layer else disk.path

    # ---- snapshots --------------------------------------------------------------------------------------------------------------------

    def snapshot(self, key: int) -> tuple[Vm, Snapshot]:
        """Errors: KeyError."""
        with self.lock:
            for vm in self.vms.values():
                for snapshot in vm.snapshots:
                    if snapshot.key == key:
                        return vm, snapshot
        raise KeyError(key)

    def create_snapshot(self, vm: Vm, name: str, description: str = "") -> Snapshot:
        """From here on the guest writes to redo files; the files below keep the bytes of this instant. Errors: TooManyLevels."""
        with self.lock:
            if len(self.line(vm, vm.current_snapshot)) >= MOST_LEVELS:
                raise TooManyLevels(vm.name)
            self.stun(vm)
            made = Snapshot(self.key(), name, description, self.now(), vm.power, vm.current_snapshot)
            for disk in vm.disks:
                if disk.tracking is not None:
                    disk.tracking.advance()
                made.disks.append(self.moment(vm, disk, None))
                if not disk.independent:
                    chains.push(disk, made.key)
                    self.name_files(vm, disk)
            vm.snapshots.append(made)
            vm.current_snapshot = made.key
            self._shaped(vm)
            return made

    def remove_snapshot(self, vm: Vm, key: int, consolidate: bool = True) -> None:
        """Its redo file is merged into the one below; children move up to the parent. Errors: KeyError, NotConsolidated."""
        with self.lock:
            gone = next((s for s in vm.snapshots if s.key == key), None)
            if gone is None:
                raise KeyError(key)
            fails = consolidate and vm.consolidations_that_fail > 0
            vm.consolidations_that_fail -= fails
            vm.snapshots.remove(gone)
            for child in vm.snapshots:
                if child.parent == key:
                    child.parent = gone.parent
            if vm.current_snapshot == key:
                vm.current_snapshot = gone.parent
            if consolidate and not fails:
                self._merge(vm, gone)
            else:
                vm.consolidation_needed = True
            self.stun(vm)
            self._shaped(vm)
            if fails:
                raise NotConsolidated(vm.name)

    def consolidate(self, vm: Vm) -> None:
        """Merge the files of snapshots that are no longer listed."""
        with self.lock:
            listed = {s.key for s in vm.snapshots}
            for disk in vm.disks:
                for layer in [layer for layer in (*disk.layers, *disk.aside) if layer.snapshot not in listed]:
                    chains.merge(disk, layer.snapshot)
                self.name_files(vm, disk)
            vm.consolidation_needed = False
            self.stun(vm)
            self._shaped(vm)

    def _merge(self, vm: Vm, gone: Snapshot) -> None:
        for disk in {id(d): d for d in (*vm.disks, *(m.disk for m in gone.disks))}.values():
            chains.merge(disk, gone.key)
            self.name_files(vm, disk)

    def _go_back(self, vm: Vm, to: Snapshot) -> None:
        """The disks of a machine that is off become those of `to`; change ids go back with them, under the same record."""
        line = self.line(vm, to.key)
        vm.disks = [m.disk for m in to.disks]
        for moment in to.disks:
            if chains.frozen_by(moment.disk, to.key) is None:
                continue
            chains.go_back(moment.disk, line, moment.capacity_bytes)
            moment.disk.tracking = moment.tracking
            if moment.tracking is not None:
                moment.tracking.rewind(moment.sequence)
            self.name_files(vm, moment.disk)
        vm.current_snapshot = to.key
        self.stun(vm)
        self._shaped(vm)

    def line(self, vm: Vm, key: int | None) -> list[int]:
        """From the root of the snapshots to `key`."""
        parents = {s.key: s.parent for s in vm.snapshots}
        found: list[int] = []
        while key is not None:
            found.insert(0, key)
            key = parents[key]
        return found

    def _shaped(self, vm: Vm) -> None:
        vm.config_version += 1
        self.changed(vm)

    # ---- moves ------------------------------------------------------------------------------------------------------------------------

    def relocate(self, vm: Vm, datastore: Datastore, user: str = "root", keep_ids: bool = False) -> None:
        """Storage vMotion: other datastore, other folder. The records of changes begin anew, unless their ids shall be kept."""
        with self.lock:
            for disk in vm.disks:
                self._move(vm, disk, datastore)
            self.stun(vm)
            if not keep_ids:
                self.reset_change_tracking(vm)
            self.tell(vm, Happening.MIGRATED, user, "user")

    def _move(self, vm: Vm, disk: Disk, datastore: Datastore) -> None:
        if disk.datastore is datastore:
            return
        folder = vm.name if not (datastore.folder / vm.name).exists() or self._lives_in(vm, datastore) else f"{vm.name}_{vm.key}"
        (datastore.folder / folder).mkdir(parents=True, exist_ok=True)
        chains.move(disk, datastore.folder / folder)
        disk.datastore, disk.folder = datastore, folder
        self.name_files(vm, disk)

    def _lives_in(self, vm: Vm, datastore: Datastore) -> bool:
        return any(d.datastore is datastore and d.folder == vm.name for d in vm.disks)
