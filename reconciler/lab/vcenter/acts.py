"""What a client may do to a VirtualMachine: power, guest shutdown, reconfiguration; and the gate before every such act.

Where it stands: calls.py has checked session and object; the world does it, at once or at the end of a task. snapshot_acts.py and
leases.py add their methods here.
Source: vSphere Web Services API 8.0.2, VirtualMachine: the power methods, ShutdownGuest, ReconfigVM_Task, RelocateVM_Task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from reconciler.lab.machines import Power, Vm
from reconciler.lab.vcenter import faults
from reconciler.lab.vcenter.changes import Changes
from reconciler.lab.vcenter.machine_view import vm_ref
from reconciler.lab.vcenter.reconfigure import privileges, reconfigure
from reconciler.lab.vcenter.tasks import Tasks
from reconciler.lab.world import NoTools, World, WrongPower

_AT_ANY_TIME = ("ShutdownGuest", "QueryChangedDiskAreas")  # another task on the machine is no hindrance
Act = Callable[[Vm, str, dict[str, Any]], Any]


def lacks(denied: Collection[str], privilege: str, moid: str) -> bool:
    """`denied` holds privileges ("everywhere"), and privileges on one object as "PRIVILEGE@MOID"."""
    return privilege in denied or f"{privilege}@{moid}" in denied


class Acts:
    """`drs`: the cluster's scheduler places machines, which changes the type of the power-on event."""

    def __init__(self, world: World, tasks: Tasks, denied: set[str]) -> None:
        self._world = world
        self._tasks = tasks
        self._denied = denied
        self.drs = True
        self.changes = Changes(world)
        self.methods: dict[str, tuple[str, Act]] = {
            "PowerOnVM_Task": ("VirtualMachine.Interact.PowerOn", self._power_on),
            "PowerOffVM_Task": ("VirtualMachine.Interact.PowerOff", self._power_off),
            "SuspendVM_Task": ("VirtualMachine.Interact.Suspend", self._suspend),
            "ResetVM_Task": ("VirtualMachine.Interact.Reset", self._reset),
            "ShutdownGuest": ("VirtualMachine.Interact.PowerOff", self._shutdown),
            "ReconfigVM_Task": ("System.View", self._reconfigure),
            "RelocateVM_Task": ("Resource.ColdMigrate", self._relocate),
            "QueryChangedDiskAreas": ("VirtualMachine.Provisioning.DiskRandomRead", self.changes.query),
        }

    def do(self, method: str, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        """Errors: NoPermission, InvalidPowerState, ToolsUnavailable, TaskInProgress."""
        privilege, act = self.methods[method]
        self.allow(vm, privilege)
        if method not in _AT_ANY_TIME:
            self.alone(vm)
        return act(vm, user, args)

    def allow(self, vm: Vm, privilege: str) -> None:
        if lacks(self._denied, privilege, vm_ref(vm)._moId):
            raise faults.no_permission(vm_ref(vm), privilege)

    def alone(self, vm: Vm) -> None:
        if (task := self._tasks.running(vm)) is not None:
            raise faults.task_in_progress(task)

    def in_task(self, vm: Vm, operation: str, user: str, wanted: Power | None, act: Callable[[], Any]) -> Any:
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
        return self.in_task(vm, "powerOn", user, Power.ON, lambda: self._world.power_on(vm, user, cause))

    def _power_off(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        return self.in_task(vm, "powerOff", user, Power.OFF, lambda: self._world.power_off(vm, user))

    def _suspend(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        return self.in_task(vm, "suspend", user, Power.SUSPENDED, lambda: self._world.suspend(vm, user))

    def _reset(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        return self.in_task(vm, "reset", user, Power.ON, lambda: self._world.reset(vm, user))

    def _shutdown(self, vm: Vm, user: str, args: dict[str, Any]) -> None:
        try:
            self._world.shutdown_guest(vm, user)
        except WrongPower:
            raise faults.invalid_power(vm.power, Power.ON) from None
        except NoTools:
            raise faults.tools_unavailable() from None

    def _reconfigure(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        for privilege in privileges(args["spec"]):
            self.allow(vm, privilege)
        return self.in_task(vm, "reconfigure", user, None, lambda: reconfigure(self._world, vm, user, args["spec"]))

    def _relocate(self, vm: Vm, user: str, args: dict[str, Any]) -> Any:
        """To another datastore, all disks. Errors: InvalidArgument."""
        wanted = args["spec"].datastore
        store = next((d for d in self._world.datastores.values() if wanted is not None and wanted._moId == f"datastore-{d.key}"), None)
        if store is None:
            raise faults.invalid_argument("spec.datastore")
        found = store
        return self.in_task(vm, "relocate", user, None, lambda: self._world.relocate(vm, found, user))
