"""A disk export of a worker that died: why the VM cannot be powered on, or its snapshot removed, and when that ends.

What it is: the name for it. While an HttpNfcLease is held the site refuses what would change the VM (TaskInProgress), and the export shows
as a task that runs on. What it is not: an end to it. A lease can be aborted by who has its id, which no list names and only the worker was
told; its task carries no key of ours, so that it could as well be somebody else's export, which we must not cancel. The site itself ends a
lease whose holder reports no more progress, after HttpNfcLeaseInfo.leaseTimeout; so this is waited for.
Source: vSphere Web Services API, HttpNfcLease, HttpNfcLeaseInfo, TaskInProgress.
"""

from __future__ import annotations

from typing import Any

from reconciler.core.model import VmRef
from reconciler.drivers.vsphere import subject
from reconciler.drivers.vsphere.digest import Properties
from reconciler.errors import RetryableError

TIMEOUT_S = 300  # leaseTimeout as vCenter sets it; only the holder can read it
AGAIN_S = 15.0


def open_lease(content: Any, vm: VmRef, refusal: Any, tasks: list[Any]) -> RetryableError | None:
    """What to say instead of `refusal`, a TaskInProgress, when an export of `vm` is under way. `tasks`: its `recentTask`."""
    asked = [*tasks, refusal.task] if refusal.task is not None and refusal.task not in tasks else tasks
    if not any(subject.alive(task) and _exports(task) for task in subject.read_tasks(content, asked)):
        return None
    return RetryableError(
        "LeaseOpen",
        f"{vm}: an export of its disks is open and holds it; the site ends it within {TIMEOUT_S} s after its reader died. "
        "If nobody reads it, cancel its task in vSphere",
        retry_after_s=AGAIN_S,
    )


def _exports(task: Properties) -> bool:
    """`VirtualMachine.exportVm`, `VirtualMachine.ExportVmLRO`, `vm.Snapshot.exportSnapshot`."""
    return "export" in str(task.get("info.descriptionId") or "").lower()
