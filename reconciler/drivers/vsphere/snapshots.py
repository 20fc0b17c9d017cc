"""Snapshots of ours: made with a key, found by it, removed by it; those of others are never touched.

What it is: three requests that return at once; the next read shows what came of them. A task of ours that failed is remembered until the
next call, which reports it, so that the vendor's words reach a person; the call after that tries again. What it is not: a decision when.
No memory and no quiescing: only the powered-off state is ever used, and a quiesced snapshot would stop the guest's applications for it.
Source: vSphere Web Services API, CreateSnapshot_Task, RemoveSnapshot_Task, ConsolidateVMDisks_Task.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from reconciler.core.inventory import SourceSnapshot
from reconciler.core.model import VmRef
from reconciler.drivers.vsphere import subject
from reconciler.drivers.vsphere.digest import Properties, Snapshots
from reconciler.drivers.vsphere.history import read_moment
from reconciler.drivers.vsphere.leases import open_lease
from reconciler.drivers.vsphere.notes import Note, name_of
from reconciler.drivers.vsphere.sdk import moid, reference, vim, vmodl
from reconciler.drivers.vsphere.session import Session
from reconciler.errors import RetryableError, TerminalError

log = logging.getLogger(__name__)

_PROPERTIES = ("snapshot", "recentTask", "runtime.consolidationNeeded")


class OwnSnapshots:
    """Thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._started: dict[tuple[str, str], str] = {}  # (VM's id, key) -> id of the last task of ours

    def ensure(self, vm: VmRef, key: str) -> None:
        """Errors: RetryableError SnapshotFailed, Busy; TerminalError NotSupported, VMGone."""
        self._session.run(f"snapshot of {vm}", lambda content: self._ensure(content, vm, key))

    def drop(self, vm: VmRef, key: str, merge: bool) -> None:
        """`merge`: files that are left over, too; the site merges all that a VM has, so only where they are known to be ours.

        Errors: RetryableError SnapshotFailed, Busy.
        """
        self._session.run(f"removal of our snapshot of {vm}", lambda content: self._drop(content, vm, key, merge))

    def _ensure(self, content: Any, vm: VmRef, key: str) -> None:
        target, properties = subject.read(content, self._session.site, vm, _PROPERTIES)
        if _found(properties, key):
            self._forget(vm, key)
            return
        tasks = subject.read_tasks(content, properties.get("recentTask") or [])
        if any(_creates(task) for task in tasks if subject.alive(task)):
            return  # ours, whose reply was lost; or another's, and then we come again
        self._report(vm, key, tasks)
        note = Note(key, read_moment(content))
        with _explained(content, vm, properties):
            task = target.CreateSnapshot_Task(name=name_of(key), description=str(note), memory=False, quiesce=False)
        self._remember(vm, key, task)
        log.info("snapshot requested", extra={"vm": str(vm), "key": key})

    def _drop(self, content: Any, vm: VmRef, key: str, merge: bool) -> None:
        try:
            target, properties = subject.read(content, self._session.site, vm, _PROPERTIES)
        except TerminalError as err:
            log.warning("no snapshot to remove: the VM is gone", extra={"vm": str(vm), "error": str(err)})
            return
        tasks = subject.read_tasks(content, properties.get("recentTask") or [])
        running = [task for task in tasks if subject.alive(task)]
        found = _found(properties, key)
        if any(_removes(task) for task in running):
            return
        if not found and any(_creates(task) for task in running):
            raise RetryableError("Busy", f"a snapshot of {vm} is being made; whether it is ours shows when it is there")
        if not found and not (merge and properties.get("runtime.consolidationNeeded") and not _all(properties)):
            self._forget(vm, key)
            return
        self._report(vm, key, tasks)
        with _explained(content, vm, properties):
            if found:
                task = reference(content, vim.vm.Snapshot, found[0].id).RemoveSnapshot_Task(removeChildren=False, consolidate=True)
            else:
                task = target.ConsolidateVMDisks_Task()
        self._remember(vm, key, task)
        log.info("removal requested" if found else "consolidation requested", extra={"vm": str(vm), "key": key})

    def _remember(self, vm: VmRef, key: str, task: Any) -> None:
        with self._lock:
            self._started[(vm.id, key)] = moid(task)

    def _forget(self, vm: VmRef, key: str) -> None:
        with self._lock:
            self._started.pop((vm.id, key), None)

    def _report(self, vm: VmRef, key: str, tasks: list[Properties]) -> None:
        """Say, once, that the last task of ours for this key failed."""
        with self._lock:
            last = self._started.pop((vm.id, key), None)
        for task in tasks:
            if task["id"] == last and task.get("info.state") == "error":
                raise _failed(vm, task.get("info.error"))


@contextlib.contextmanager
def _explained(content: Any, vm: VmRef, properties: Properties) -> Iterator[None]:
    try:
        yield
    except vim.fault.TaskInProgress as err:
        if (lease := open_lease(content, vm, err, properties.get("recentTask") or [])) is not None:
            raise lease from err
        raise
    except (vmodl.fault.NotSupported, vim.fault.SnapshotFault) as err:
        raise _failed(vm, err) from err


def _failed(vm: VmRef, fault: Any) -> RetryableError | TerminalError:
    name = type(fault).__name__.rpartition(".")[2]
    if isinstance(fault, vmodl.fault.NotSupported):
        return TerminalError("NotSupported", f"{vm} cannot have snapshots ({subject.words(fault)}); migrate it cold")
    return RetryableError("SnapshotFailed", f"{vm}: the site reports {name} ({subject.words(fault)})")


def _all(properties: Properties) -> tuple[SourceSnapshot, ...]:
    snapshots: Snapshots | None = properties.get("snapshot")
    return snapshots.all if snapshots is not None else ()


def _found(properties: Properties, key: str) -> list[SourceSnapshot]:
    return [snapshot for snapshot in _all(properties) if snapshot.key == key]


def _what(task: Properties) -> str:
    """`VirtualMachine.createSnapshot`, `vim.vm.Snapshot.remove`, `VirtualMachineSnapshot.removeSnapshot`: spelt differently over time."""
    return str(task.get("info.descriptionId") or "").lower()


def _creates(task: Properties) -> bool:
    return "createsnapshot" in _what(task)


def _removes(task: Properties) -> bool:
    what = _what(task)
    return ("snapshot" in what and "remove" in what) or "consolidate" in what
