"""What a step of core/itinerary.py may answer when it is not done, and the answers that several steps share.

What it is: the words (Wait, Do, Declare, Reach, Refresh, Fail, Hold) and pure functions View -> Move. The steps' own answers stand in
core/reserving.py (before the source goes off), core/copying.py, core/handing.py (the target takes over) and core/unwinding.py.
What it is not: the order of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from reconciler.core import datapath, strangers
from reconciler.core.actions import (
    Action,
    DropBinder,
    DropCopy,
    PutMarks,
)
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Absent, Known, Milestone, Power, Result, Unknown, VmRef
from reconciler.core.record import IntentKind, Retry, VmRecord
from reconciler.core.target import Volume
from reconciler.core.view import View


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do but look again, at `until` at the latest. `timers` count seconds in which both sites
    were seen, as long as they are named, pass after pass and over restarts: the record keeps them."""

    message: str
    timers: tuple[str, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Do:
    """`attempt`, if set, is the number of the next importer Job, `retry` when it may begin; committed before the act."""

    action: Action
    message: str
    timers: tuple[str, ...] = ()
    attempt: int | None = None
    retry: Retry | None = None


@dataclass(frozen=True, slots=True)
class Declare:
    """An irreversible act: the intent is committed first, then the guards are read again, then it is done."""

    intent: IntentKind
    action: Action
    message: str
    milestone: Milestone | None = None
    timers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """A milestone, or proof, that needs no act. `epoch`, if set, is the newly proven source epoch; `tried` the volumes proven to open."""

    milestone: Milestone
    message: str
    epoch: str | None = None
    result: Result | None = None
    tried: str | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """The source was proven anew with another epoch: what was copied before counts no more."""

    epoch: str
    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something learned that is written down, and the table is asked again: a round begins, ends, or has its snapshot."""

    record: VmRecord


@dataclass(frozen=True, slots=True)
class Fail:
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Hold:
    """No action until the world or a commit changes. Becomes a Critical condition of this type."""

    type: str
    reason: str
    message: str
    items: tuple[str, ...] = field(default=())


Move = Wait | Do | Declare | Reach | Refresh | Note | Fail | Hold


def ref(v: View) -> VmRef:
    if v.record.source is None:
        raise ValueError(f"{v.record.slug} has no source")
    return v.record.source


def out_of_sight(v: View) -> Wait | Hold | None:
    """Unknown yields no action; a source that is proven gone is a person's business."""
    match v.source:
        case Unknown(reason, message):
            return Wait(f"the source is out of sight ({reason}: {message})")
        case Absent():
            text = f"source VM {ref(v)} is no longer in the inventory, so nothing can be proven about it; put it back, or cancel this VM"
            return Hold("SourceChanged", "NotFound", text)
        case Known():
            return None


def source_changed(v: View) -> Hold:
    return Hold(
        "SourceChanged",
        "PoweredOn",
        f"{ref(v).name} was powered on after the cutover, by somebody else. The target stays off. Power the source off and this "
        "run goes on (its changes are copied), or cancel this VM to keep the source",
    )


def changed_disks(v: View, vm: SourceVm) -> Hold | None:
    """Safety 12: disks are identified by backing uuid and looked at again before power-off and after it.

    While a snapshot of ours is there each disk is a chain, as it must be; its round looks at that itself.
    """
    frozen = {d.uuid: d for d in v.frozen.disks}
    seen = {d.uuid: d for d in vm.disks}
    for disk in vm.disks if not v.our_snapshots else ():
        if disk.uuid in frozen and (choice := datapath.lost(frozen[disk.uuid].path, disk, vm)) is not None:
            text = f"disk {disk.label} of {vm.name} can no longer be read as this run planned: {choice.reason}. {choice.remedy}".rstrip()
            return Hold("SourceChanged", "ChainChanged", text, (disk.label,))
    added = [d.label for u, d in seen.items() if u not in frozen]
    removed = [d.label for u, d in frozen.items() if u not in seen]
    sized = [d.label for u, d in seen.items() if u in frozen and frozen[u].capacity_bytes != d.capacity_bytes]
    if not (added or removed or sized):
        return None
    parts = [f"{what}: {', '.join(x)}" for what, x in (("added", added), ("removed", removed), ("resized", sized)) if x]
    return Hold(
        "SourceChanged",
        "DisksChanged",
        f"the disks of {vm.name} are not those that this run began with ({'; '.join(parts)}); cancel this VM and start another Migration",
        tuple(added + removed + sized),
    )


def dying(v: View) -> str | None:
    """A PVC that somebody deletes in mid-run stays while a pod mounts it, and takes the copied disk with it then. One that is Lost (a
    backup of the cluster brought it back, for example) has taken it already."""
    if lost := [x.name for _, x in v.volumes if x.phase == "Lost"]:
        return f"PVC {', '.join(lost)} in {v.frozen.namespace} is Lost: its volume is not there any more"
    gone = [x.name for _, x in v.volumes if x.deleting]
    return f"PVC {', '.join(gone)} in {v.frozen.namespace} is being deleted, not by this run" if gone else None


def drop_binder(v: View) -> Move:
    binder = v.binder
    assert binder is not None
    if binder.deleting:
        return Wait(f"binder pod {binder.name} is ending")
    return Do(DropBinder(v.key, v.frozen.destination, binder.namespace, binder.name, v.owner), "the binder pod goes")


def dirty(v: View) -> tuple[Volume, ...]:
    """Volumes that the source makes untrue once it runs again. A change id outlives that: what is written later can be asked for."""
    claims = (x for _, x in v.volumes if x.mark is not None or x.watermark is not None)
    return tuple(x for x in claims if x.mark is None or x.mark.change_id is None)


def untrue(v: View) -> tuple[Volume, ...]:
    """Volumes with proofs that somebody else has written to, or may have: with a change id or without, none is true."""
    if not target_still(v) or v.set_back:
        return v.proofs
    return tuple(x for x in v.proofs if v.others_have(x) or x.name in v.record.spoilt)


def dirty_marks(v: View) -> Move:
    """Before a source is powered on, or because of somebody on the disks. Of one run at a time: what is not adopted is an earlier one's."""
    volumes = untrue(v) or dirty(v)
    run = volumes[0].migration
    marks = tuple((x, None) for x in volumes if x.migration == run)
    act = PutMarks(v.key, v.frozen.destination, marks, replace(v.owner, migration=run))
    return Do(act, "the copies are marked dirty: one side or the other runs, or may have run")


def target_still(v: View) -> bool:
    """No guest runs on the disks: not the reserved VM, and no other VMI (safety 7)."""
    vm = v.our_target_vm
    return (vm is None or vm.power is Power.OFF) and not _guests(v)


def undisturbed(v: View) -> bool:
    """... nor did one since the proofs were made, as far as this branch knows, and nobody else has a disk: no machine, no pod."""
    return target_still(v) and not v.set_back and not v.taken and not v.record.spoilt and not any(v.meddlers(x) for _, x in v.volumes)


def _guests(v: View) -> tuple[str, ...]:
    return tuple(f"pod {pod} on PVC {x.name}" for _, x in v.volumes for pod in v.guests_on(x))


def _meddlers(v: View) -> str:
    return "; ".join(f"pod {pod} has PVC {x.name}" for _, x in v.volumes for pod in v.meddlers(x))


def _had(v: View) -> str:
    return f"somebody else had PVC {', '.join(v.record.spoilt)}" if v.record.spoilt and target_still(v) else ""


def disturbed(v: View) -> Move:
    """Somebody started the reserved VM before it was handed over: it has written to its disks, so no mark on them is true any more. Or he
    may have, in a time that a restored cluster has forgotten. Or a disk is in another machine now, and we write to it no more."""
    f = v.frozen
    for job in v.jobs:
        if not job.deleting:
            act = DropCopy(v.key, f.destination, job.namespace, job.name, v.owner)
            why = strangers.taken_text(v.taken) or _meddlers(v) or _had(v) or "a guest runs, or ran, on the target disks"
            return Do(act, f"the copy is stopped: {why}", attempt=job.attempt + 1)
    if untrue(v):
        return dirty_marks(v)
    if v.taken:
        text = (
            f"{strangers.taken_text(v.taken)}: nothing is written to it. Take it out of that machine, and it is copied anew; or cancel "
            "this VM, which leaves it there; another Migration can move it then under another pvcNameTemplate"
        )
        return Hold("VolumeTaken", "NotUnique", text, tuple(sorted(v.taken)))
    if meddlers := _meddlers(v):
        return Wait(f"WriterNotFenced: {meddlers}; it may write to the disk, which is copied anew when that pod has ended")
    if target_still(v):
        return Wait("the importer Job is ending")
    guests = "; ".join(_guests(v))
    which = f" ({guests})" if guests else ""
    return Hold(
        "TargetRunning",
        "PoweredOn",
        f"a guest runs on the disks of VirtualMachine {f.namespace}/{f.name}{which}, which was not handed over: somebody started it. "
        "Stop it, and the disks are copied anew",
    )
