"""The state machine of one VM, as tables: which step is the first not true, and what to do about it.

What it is: one table per mode and milestone, and UNWIND for failure and cancel. A phase is derived from what is observed, never remembered.
What it is not: the join of the world (core/view.py) nor the bookkeeping of a pass (core/decide.py). Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from reconciler.core import copying, handing, moves, preflight, reserving, unwinding, warming
from reconciler.core.model import Milestone, Mode, Power
from reconciler.core.moves import Move
from reconciler.core.view import View


class Phase(StrEnum):
    """Forklift's names where the meaning is the same."""

    PENDING = "Pending"
    CLAIM = "Started"
    RESERVE_NAMESPACE = "ReserveNamespace"
    CREATE_VOLUMES = "CreateDataVolumes"
    BIND_VOLUMES = "BindVolumes"
    PREFLIGHT = "Preflight"
    RESERVE_VM = "ReserveVM"
    RELEASE_BINDER = "ReleaseBinder"
    ENABLE_TRACKING = "EnableChangeTracking"
    PRECOPY = "Precopy"
    POWER_OFF = "PowerOffSource"
    PROVE_OFF = "ProveSourceOff"
    COPY_DISKS = "CopyDisks"
    CONSOLIDATE = "Consolidate"
    COPY_CHANGES = "CopyFinalChanges"
    HAND_OVER = "HandOver"
    START_TARGET = "StartTarget"
    RELEASE = "Release"
    COMPLETED = "Completed"
    STOP_WRITERS = "StopWriters"
    DROP_SNAPSHOTS = "RemoveSnapshots"
    DIRTY_MARKS = "DirtyMarks"
    GIVE_BACK = "PowerOnSource"
    WATCH_GUEST = "WatchGuest"
    DELETE_TARGET = "DeleteTarget"


class Stage(StrEnum):
    """Forklift's pipeline steps."""

    INITIALIZE = "Initialize"
    DISK_TRANSFER = "DiskTransfer"
    CUTOVER = "Cutover"
    VM_CREATION = "VirtualMachineCreation"
    UNWIND = "Unwind"


@dataclass(frozen=True, slots=True)
class Step:
    phase: Phase
    stage: Stage
    done: Callable[[View], bool]
    move: Callable[[View], Move]


def _namespace_there(v: View) -> bool:
    return v.frozen.namespace in v.inventory.namespaces


def _volumes_there(v: View) -> bool:
    run = str(v.record.run)
    return len(v.volumes) == len(v.frozen.disks) and all(x.migration == run and not x.deleting for _, x in v.volumes)


def _may_write(v: View) -> bool:
    """Or a round of warm.precopy is under way, which ends first."""
    return moves.undisturbed(v) or v.round is not None


def _volumes_bound(v: View) -> bool:
    return all(x.phase == "Bound" for _, x in v.volumes)


def _vm_reserved(v: View) -> bool:
    vm = v.our_target_vm
    return vm is not None and vm.migration == str(v.record.run) and not vm.deleting


def _binder_gone(v: View) -> bool:
    return v.binder is None


def _jobs_gone(v: View) -> bool:
    return not v.jobs


def _target_as_wanted(v: View) -> bool:
    """As asked, or changed by somebody since: one that was to stay off is on, one that was started is off. That is theirs to decide."""
    vm = v.our_target_vm
    if vm is None:
        return False
    if v.frozen.want_power is Power.OFF or (vm.power is Power.ON and vm.ready):
        return True
    return v.started_once and vm.power is Power.OFF and vm.run_strategy == "Halted"


def _copied(v: View) -> bool:
    """What is in a machine of others now is copied again before the target starts."""
    return v.all_marked and not v.taken and not v.record.spoilt


# Whatever the target can refuse is refused here, with the guest still up.
_RESERVE: tuple[Step, ...] = (
    Step(Phase.CLAIM, Stage.INITIALIZE, reserving.claimed, reserving.claim),
    Step(Phase.RESERVE_NAMESPACE, Stage.INITIALIZE, _namespace_there, reserving.ensure_namespace),
    Step(Phase.CREATE_VOLUMES, Stage.INITIALIZE, lambda v: _volumes_there(v) and _may_write(v), reserving.ensure_volumes),
    Step(Phase.BIND_VOLUMES, Stage.INITIALIZE, _volumes_bound, reserving.bind_volumes),
    Step(Phase.PREFLIGHT, Stage.INITIALIZE, preflight.tried, preflight.try_volumes),
    Step(Phase.RESERVE_VM, Stage.INITIALIZE, _vm_reserved, reserving.reserve_vm),
    Step(Phase.RELEASE_BINDER, Stage.INITIALIZE, _binder_gone, moves.drop_binder),
)

COLD_BEFORE: tuple[Step, ...] = (
    *_RESERVE,
    Step(Phase.POWER_OFF, Stage.INITIALIZE, lambda v: v.source_power is Power.OFF, reserving.power_off),
    Step(Phase.PROVE_OFF, Stage.INITIALIZE, lambda v: False, reserving.prove_off),
)

WARM_BEFORE: tuple[Step, ...] = (
    *_RESERVE,
    Step(Phase.ENABLE_TRACKING, Stage.INITIALIZE, warming.tracked, warming.enable_tracking),
    Step(Phase.PRECOPY, Stage.DISK_TRANSFER, warming.precopied, warming.precopy),
    Step(Phase.POWER_OFF, Stage.CUTOVER, lambda v: v.source_power is Power.OFF, reserving.power_off),
    Step(Phase.PROVE_OFF, Stage.CUTOVER, lambda v: False, reserving.prove_off),
)

COLD_COPY: tuple[Step, ...] = (
    Step(Phase.COPY_DISKS, Stage.DISK_TRANSFER, lambda v: v.all_marked and moves.undisturbed(v), copying.next_move),
    Step(Phase.HAND_OVER, Stage.VM_CREATION, lambda v: False, handing.hand_over),
)

WARM_COPY: tuple[Step, ...] = (
    Step(Phase.CONSOLIDATE, Stage.CUTOVER, warming.no_snapshot, warming.drop_snapshots),
    Step(Phase.COPY_CHANGES, Stage.CUTOVER, lambda v: v.all_marked and moves.undisturbed(v), warming.final_copy),
    Step(Phase.HAND_OVER, Stage.VM_CREATION, lambda v: False, handing.hand_over),
)

# A person may have run the source between hand-over and start: then its changes are compared before anything starts.
_TAKE_OVER: tuple[Step, ...] = (
    Step(Phase.START_TARGET, Stage.VM_CREATION, _target_as_wanted, handing.start_target),
    Step(Phase.RELEASE, Stage.VM_CREATION, lambda v: _jobs_gone(v) and handing.released(v), handing.release),
    Step(Phase.COMPLETED, Stage.VM_CREATION, lambda v: False, handing.finish),
)

COLD_AFTER: tuple[Step, ...] = (
    Step(Phase.COPY_DISKS, Stage.DISK_TRANSFER, lambda v: v.left_to_target or _copied(v), copying.next_move),
    *_TAKE_OVER,
)

WARM_AFTER: tuple[Step, ...] = (
    Step(Phase.COPY_CHANGES, Stage.CUTOVER, lambda v: v.left_to_target or _copied(v), warming.final_copy),
    *_TAKE_OVER,
)

TABLES: dict[tuple[Mode, Milestone], tuple[Step, ...]] = {
    (Mode.COLD, Milestone.NONE): COLD_BEFORE,
    (Mode.COLD, Milestone.CUTOVER): COLD_COPY,
    (Mode.COLD, Milestone.HANDED_OVER): COLD_AFTER,
    (Mode.WARM, Milestone.NONE): WARM_BEFORE,
    (Mode.WARM, Milestone.CUTOVER): WARM_COPY,
    (Mode.WARM, Milestone.HANDED_OVER): WARM_AFTER,
}

# Everything that a failed or cancelled VM owes, in the order in which it is given back. Nothing here has a deadline.
UNWIND: tuple[Step, ...] = (
    Step(Phase.STOP_WRITERS, Stage.UNWIND, lambda v: _jobs_gone(v) and _binder_gone(v) and not v.unfenced, unwinding.stop_writers),
    Step(Phase.DROP_SNAPSHOTS, Stage.UNWIND, warming.no_snapshot, warming.drop_snapshots),
    Step(Phase.DIRTY_MARKS, Stage.UNWIND, unwinding.marks_may_stay, moves.dirty_marks),
    Step(Phase.GIVE_BACK, Stage.UNWIND, unwinding.source_given_back, unwinding.power_on),
    Step(Phase.WATCH_GUEST, Stage.UNWIND, unwinding.guest_settled, unwinding.watch_guest),
    Step(Phase.DELETE_TARGET, Stage.UNWIND, unwinding.target_clean, unwinding.delete_target),
    Step(Phase.COMPLETED, Stage.UNWIND, lambda v: False, unwinding.end_unwind),
)


def table_for(v: View, mode: Mode) -> tuple[Step, ...]:
    return UNWIND if v.record.unwinding else TABLES[(mode, v.record.milestone)]


def current(steps: tuple[Step, ...], view: View) -> Step:
    """The first step that is not done. The last row of every table is never done, so there always is one."""
    return next(s for s in steps if not s.done(view))
