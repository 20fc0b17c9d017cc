"""What a client may do to a VirtualMachine: power, guest shutdown, snapshots.

Where it stands: calls.py has checked session and object; the world does it, at once or at the end of a task.
Source: vSphere Web Services API 8.0.2, VirtualMachine: the power methods, ShutdownGuest, CreateSnapshot_Task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.lab.machines import Power, Vm
from reconciler.lab.vcenter import faults
from reconciler.lab.vcenter.machine_view import snapshot_ref, vm_ref
from reconciler.lab.vcenter.tasks import Tasks
from reconciler.lab.world import NoTools, World, WrongPower

Act = Callable[[Vm, str, dict[str, Any]], Any]


class Acts:
    """`drs`: the cluster's scheduler places machines, which changes the type of the power-on event."""

    def __init__(self, world: World, tasks: Tasks, denied: set[str]) -> None:
        self._world = world
        self._tasks = tasks
        self._denied = denied
        self.drs = True
        self.methods: dict[str, tuple[str, Act]] = {
            "PowerOnVM_Task": ("VirtualMachine.Interact.PowerOn", self._power_on),
            "PowerOffVM_Task": ("VirtualMachine.Interact.PowerOff", self._power_off),
            "SuspendVM_Task": ("VirtualMachine.Interact.Suspend", self._suspend),
            "ResetVM_Task": ("VirtualMachine.Interact.Reset", self._reset),
            "ShutdownGuest": ("VirtualMachine.Interact.PowerOff", self._shutdown),
            "CreateSnapshot_Task": ("VirtualMachine.State.CreateSnapshot", self._create_snapshot),
            "RemoveAllSnapshots_Task": ("VirtualMachine.State.RemoveSnapshot", self._remove_snapshots),
        }

    def do(self, method: str, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        """Errors: NoPermission, InvalidPowerState, ToolsUnavailable, TaskInProgress."""
        privilege, act = self.methods[method]
        self._allow(vm, privilege)
        if method != "ShutdownGuest":
            self._alone(vm)
        return act(vm, user, args)

    def _allow(self, vm: Vm, privilege: str) -> None:
        if privilege in self._denied:
            raise faults.no_permission(vm_ref(vm), privilege)

    def _alone(self, vm: Vm) -> None:
        if (task := self._tasks.running(vm)) is not None:
            raise faults.task_in_progress(task)

    def _in_task(self, vm: Vm, operation: str, user: str, wanted: Power | None, act: Callable[[], Any]) -> Any:
        def body() -> Any:
            try:
                return act()
            except WrongPower:
                raise faults.invalid_power(vm.power, wanted) from None

        return self._tasks.start(vm, operation, user, body)

    def _power_on(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        if vm.template:
            raise faults.not_supported()
        cause = "drs" if self.drs else "user"
        return self._in_task(vm, "powerOn", user, Power.ON, lambda: self._world.power_on(vm, user, cause))

    def _power_off(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        return self._in_task(vm, "powerOff", user, Power.OFF, lambda: self._world.power_off(vm, user))

    def _suspend(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        return self._in_task(vm, "suspend", user, Power.SUSPENDED, lambda: self._world.suspend(vm, user))

    def _reset(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        return self._in_task(vm, "reset", user, Power.ON, lambda: self._world.reset(vm, user))

    def _shutdown(self, vm: Vm, user: str, args: dict[str, Any]) -> None:
        try:
            self._world.shutdown_guest(vm, user)
        except WrongPower:
            raise faults.invalid_power(vm.power, Power.ON) from None
        except NoTools:
            raise faults.tools_unavailable() from None

    def _create_snapshot(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        name, text = args["name"], args.get("description") or ""
        return self._in_task(vm, "createSnapshot", user, None, lambda: snapshot_ref(self._world.create_snapshot(vm, name, text)))

    def _remove_snapshots(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        def act() -> None:
            for snapshot in list(vm.snapshots):
                self._world.remove_snapshot(vm, snapshot.key)

        return self._in_task(vm, "removeAllSnapshots", user, None, act)

    def remove_snapshot(self, moid: str, user: str, children: bool) -> Any:
        """VirtualMachineSnapshot.RemoveSnapshot_Task. Errors: KeyError when there is no such snapshot."""
        number = int(moid.rpartition("-")[2])
        vm = next((v for v in self._world.vms.values() if any(s.key == number for s in v.snapshots)), None)
        if vm is None:
            raise KeyError(moid)
        self._allow(vm, "VirtualMachine.State.RemoveSnapshot")
        self._alone(vm)
        owner = vm

        def act() -> None:
            gone = [number]
            while children and (below := [s.key for s in owner.snapshots if s.parent in gone and s.key not in gone]):
                gone += below
            for key in reversed(gone):
                self._world.remove_snapshot(owner, key)

        return self._in_task(vm, "removeSnapshot", user, None, act)
