"""Tasks of the simulated vCenter: a long act on a machine, its state as the client sees it, and its end at its due time.

Where it stands: acts.py starts them, inventory.py shows them, the world's timeline ends them.
Source: vSphere Web Services API 8.0.2, Task, TaskInfo. A finished task is remembered for a while, as vCenter does (10 minutes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.lab.machines import Vm
from reconciler.lab.vcenter.inventory import Node
from reconciler.lab.vcenter.machine_view import escape_name, vm_ref
from reconciler.lab.vcenter.vmomi import vim, vmodl
from reconciler.lab.world import World

KEPT_S = 600.0


@dataclass(slots=True)
class Task:
    key: str
    operation: str  # VirtualMachine.powerOff
    vm: Vm
    user: str
    queue_at: datetime
    state: str = "running"
    holds: bool = True  # keeps other tasks from the machine
    open: bool = False  # ends when somebody closes it
    complete_at: datetime | None = None
    error: Any = None
    result: Any = None
    revision: int = 0


class Tasks:
    """Called under the world's lock. `seconds` is how long each task takes; `operation_s` says otherwise for one ("removeSnapshot")."""

    def __init__(self, world: World, seconds: float) -> None:
        self._world = world
        self.seconds = seconds
        self.operation_s: dict[str, float] = {}
        self._fail: dict[str, list[Any]] = {}
        self.known: dict[str, Task] = {}

    def start(self, vm: Vm, operation: str, user: str, act: Callable[[], Any]) -> Any:
        """A reference to the new task; `act` runs at its end, and a MethodFault from it becomes the task's error."""
        task = self._new(vm, operation, user)

        def end() -> None:
            error: Any = None
            try:
                if failures := self._fail.get(operation):
                    raise failures.pop(0)
                task.result = act()
            except vmodl.MethodFault as err:
                error = err
            self.close(task, error)

        self._world.later(self.operation_s.get(operation, self.seconds), end)
        return vim.Task(task.key)

    def open(self, vm: Vm, operation: str, user: str, holds: bool) -> Task:
        """A task that runs until close(), and can be canceled."""
        task = self._new(vm, operation, user)
        task.open, task.holds = True, holds
        return task

    def _new(self, vm: Vm, operation: str, user: str) -> Task:
        task = Task(f"task-{self._world.key()}", f"VirtualMachine.{operation}", vm, user, self._world.now())
        self.known[task.key] = task
        self._world.changed(vm)
        return task

    def close(self, task: Task, error: Any) -> None:
        task.error, task.state = error, "error" if error is not None else "success"
        task.complete_at = self._world.now()
        task.revision += 1
        self._world.changed(task.vm)
        self._world.later(KEPT_S, lambda: self._forget(task))

    def fail_next(self, operation: str, fault: Any) -> None:
        """The next task of that operation ends in `fault` and does nothing."""
        self._fail.setdefault(operation, []).append(fault)

    def _forget(self, task: Task) -> None:
        self.known.pop(task.key, None)
        self._world.changed(task.vm)

    def running(self, vm: Vm) -> Any:
        """The reference of the task that holds `vm`, or None."""
        return next((vim.Task(t.key) for t in self.known.values() if t.vm is vm and t.state == "running" and t.holds), None)

    def recent(self, vm: Vm) -> list[Any]:
        return [vim.Task(t.key) for t in self.known.values() if t.vm is vm]

    def node(self, moid: str) -> Node | None:
        task = self.known.get(moid)
        return Node(vim.Task(moid), task, {"info": _info}, task.revision) if task else None


def _info(task: Task) -> Any:
    return vim.TaskInfo(
        key=task.key,
        task=vim.Task(task.key),
        descriptionId=task.operation,
        entity=vm_ref(task.vm),
        entityName=escape_name(task.vm.name),
        state=task.state,
        cancelled=False,
        cancelable=task.open and task.state == "running",
        error=task.error,
        result=task.result,
        reason=vim.TaskReasonUser(userName=task.user),
        queueTime=task.queue_at,
        startTime=task.queue_at,
        completeTime=task.complete_at,
        eventChainId=int(task.key.rpartition("-")[2]),
        progress=50 if task.state == "running" else None,
    )
