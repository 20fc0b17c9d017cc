"""What a client may do with snapshots: make, remove, go back to, consolidate. All are tasks.

Where it stands: registered with acts.py (methods of a VirtualMachine) and conversations.py (methods of a VirtualMachineSnapshot).
Source: vSphere Web Services API 8.0.2, CreateSnapshot_Task, CreateSnapshotEx_Task, RemoveSnapshot_Task, RemoveAllSnapshots_Task,
RevertToSnapshot_Task, RevertToCurrentSnapshot_Task, ConsolidateVMDisks_Task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.lab.machines import Snapshot, Vm
from reconciler.lab.snapshots import NotConsolidated, TooManyLevels
from reconciler.lab.vcenter import faults
from reconciler.lab.vcenter.acts import Acts
from reconciler.lab.vcenter.machine_view import snapshot_ref
from reconciler.lab.vcenter.vmomi import vim
from reconciler.lab.world import World

REMOVE, REVERT = "VirtualMachine.State.RemoveSnapshot", "VirtualMachine.State.RevertToSnapshot"


class SnapshotActs:
    """`held` tells the snapshots that somebody reads by lease: they cannot be removed or left behind meanwhile."""

    def __init__(self, world: World, acts: Acts) -> None:
        self._world = world
        self._acts = acts
        self.held: Callable[[Vm], Any] = lambda vm: None
        acts.methods |= {
            "CreateSnapshot_Task": ("VirtualMachine.State.CreateSnapshot", self._create),
            "CreateSnapshotEx_Task": ("VirtualMachine.State.CreateSnapshot", self._create),
            "RemoveAllSnapshots_Task": (REMOVE, self._remove_all),
            "RevertToCurrentSnapshot_Task": (REVERT, self._revert_to_current),
            "ConsolidateVMDisks_Task": (REMOVE, self._consolidate),
        }

    def _create(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        if vm.template:
            raise faults.not_supported()
        name, text = args["name"], args.get("description") or ""

        def act() -> Any:
            try:
                return snapshot_ref(self._world.create_snapshot(vm, name, text))
            except TooManyLevels:
                raise faults.too_many_levels() from None

        return self._acts.in_task(vm, "createSnapshot", user, None, act)

    def _remove_all(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        self._unread(vm)
        consolidate = args.get("consolidate") is not False
        return self._acts.in_task(vm, "removeAllSnapshots", user, None, lambda: self._drop(vm, [s.key for s in vm.snapshots], consolidate))

    def _revert_to_current(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        if vm.current_snapshot is None:
            raise vim.fault.NotFound(msg="The object or item referred to could not be found.")
        self._unread(vm)
        key = vm.current_snapshot
        return self._acts.in_task(vm, "revertToCurrentSnapshot", user, None, lambda: self._world.revert_to_snapshot(vm, key, user))

    def _consolidate(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        return self._acts.in_task(vm, "consolidateDisks", user, None, lambda: self._world.consolidate(vm))

    # ---- of one snapshot --------------------------------------------------------------------------------------------------------------

    def find(self, moid: str, privilege: str) -> tuple[Vm, Snapshot]:
        """Errors: KeyError when there is no such snapshot; NoPermission; TaskInProgress."""
        number = moid.removeprefix("snapshot-")
        if not number.isdigit():
            raise KeyError(moid)
        vm, snapshot = self._world.snapshot(int(number))
        self._acts.allow(vm, privilege)
        self._acts.alone(vm)
        return vm, snapshot

    def remove(self, moid: str, user: str, args: dict[str, Any]) -> Any:
        """VirtualMachineSnapshot.RemoveSnapshot_Task. Errors: see find()."""
        vm, snapshot = self.find(moid, REMOVE)
        self._unread(vm)
        children, consolidate = bool(args["removeChildren"]), args.get("consolidate") is not False

        def act() -> None:
            gone = [snapshot.key]
            while children and (below := [s.key for s in vm.snapshots if s.parent in gone and s.key not in gone]):
                gone += below
            self._drop(vm, gone, consolidate)

        return self._acts.in_task(vm, "removeSnapshot", user, None, act)

    def revert(self, moid: str, user: str, args: dict[str, Any]) -> Any:
        """VirtualMachineSnapshot.RevertToSnapshot_Task. Errors: see find()."""
        vm, snapshot = self.find(moid, REVERT)
        self._unread(vm)
        return self._acts.in_task(vm, "revertToSnapshot", user, None, lambda: self._world.revert_to_snapshot(vm, snapshot.key, user))

    def _unread(self, vm: Vm) -> None:
        if (task := self.held(vm)) is not None:
            raise faults.task_in_progress(task)

    def _drop(self, vm: Vm, keys: list[int], consolidate: bool) -> None:
        """The youngest first. What was removed before the task ran is no error; files that stay behind are."""
        stayed = False
        for key in reversed(keys):
            try:
                self._world.remove_snapshot(vm, key, consolidate)
            except NotConsolidated:
                stayed = True
            except KeyError:
                continue
        if stayed:
            raise faults.file_locked(vm.disks[0].backing if vm.disks else vm.name)
