"""Everything known about one VM of one run in this pass: what the tables of core/itinerary.py look at.

What it is: a read-only join of record, claim, source, target and earlier outcome. What it is not: a decision.
Where it stands: built by core/decide.py from Desired, Observed and Records, for each VM that is not ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256

from reconciler.core.actions import Outcome, VmKey
from reconciler.core.copyspec import CopyResult, DiskProgress
from reconciler.core.inventory import Inventory, SourceDisk, SourceSnapshot, SourceVm
from reconciler.core.model import Absent, Known, Mark, MarkState, Milestone, Mode, ObjectRef, Power, PowerRequest, Unknown, Watermark
from reconciler.core.record import Claim, FrozenDisk, FrozenVm, IntentKind, RoundRecord, VmRecord
from reconciler.core.target import Binder, Instance, Job, Owner, PodWishes, TargetInventory, TargetVm, Volume

ROUND = 1  # cold runs have one round


@dataclass(frozen=True, slots=True)
class Pace:
    """What a warm VM is told from outside in this pass. `cutover_at`: as its Migration says now; `skew_s`: our clock ahead of the source's.

    refused: why it may begin no round and no cutover right now (the in-flight limit); "" when it may.
    """

    cutover_at: datetime | None = None
    interval_s: float = 3600.0
    skew_s: float = 0.0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """[0, rest_from) of a target disk is as of change id `since`: only what was written later, and all beyond, has to be copied."""

    since: str
    rest_from: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What the sites showed in this pass. A site that was not asked is missing; one that failed is Unknown.

    progress: (destination, namespace, job) -> the newest lines of a running copy.
    us:       who looked; what carries another reconciler's key is told from ours by it.
    rewound:  commits named by target objects of ours that are not ancestors of the status head (safety 7).
    """

    sources: Mapping[ObjectRef, Known[Inventory] | Unknown] = field(default_factory=dict)
    targets: Mapping[ObjectRef, Known[TargetInventory] | Unknown] = field(default_factory=dict)
    progress: Mapping[tuple[ObjectRef, str, str], tuple[tuple[DiskProgress, ...], CopyResult | None]] = field(default_factory=dict)
    rewound: frozenset[str] = frozenset()
    us: Instance = field(default_factory=Instance)


@dataclass(frozen=True, slots=True)
class Backoff:
    """A VM whose last action failed for now. It counts for the phase that the action was part of: when that is done, it is over."""

    until: datetime
    reason: str
    message: str
    count: int
    held: bool = False  # InternalError: no action until a commit or a restart
    phase: str = ""


@dataclass(frozen=True, slots=True)
class View:
    record: VmRecord
    claim: Claim | None
    source: Known[SourceVm] | Absent | Unknown
    target: Known[TargetInventory] | Unknown
    outcome: Outcome | None
    progress: tuple[DiskProgress, ...]
    result: CopyResult | None
    timers: Mapping[str, float]  # deadlines under way -> seconds seen of them
    acted: frozenset[str]  # acts that this process has seen succeed, and that a look at the sites cannot tell yet
    now: datetime
    commit: str
    instance: Instance = field(default_factory=Instance)
    mode: Mode = Mode.COLD
    pace: Pace = field(default_factory=Pace)
    pods: PodWishes = field(default_factory=PodWishes)
    vddk: str = ""  # the image that brings VDDK, as settings name it now
    on_at: datetime | None = None  # the source was seen on by this process then, or later
    taken: Mapping[str, TargetVm] = field(default_factory=dict)  # PVC of a frozen disk -> a machine of others that has it, too

    @property
    def key(self) -> VmKey:
        return self.record.key

    @property
    def frozen(self) -> FrozenVm:
        if self.record.frozen is None:
            raise ValueError(f"{self.record.slug} is not frozen yet")
        return self.record.frozen

    @property
    def owner(self) -> Owner:
        return owner_of(self.record, self.commit, self.instance)

    # ---- source ----

    @property
    def source_power(self) -> Power:
        match self.source:
            case Known(vm):
                return vm.power
            case _:
                return Power.UNKNOWN

    @property
    def proof(self) -> SourceVm | None:
        """The source as directly read by the outcome of the pass before this one."""
        match self.outcome:
            case Outcome(action="ProveOff", error=None, proof=Known(vm)):
                return vm
            case _:
                return None

    @property
    def shutdown_accepted(self) -> bool:
        """The site took the guest's shutdown, from this process or, as git tells, from one before it: it is not asked for again."""
        opened = [i for i in self.record.intents if i.kind is IntentKind.POWER_OFF_SOURCE and i.open]
        done = f"PowerSource:{PowerRequest.SHUTDOWN.value}" in self.acted
        return bool(opened) and (done or opened[-1].accepted_at is not None)

    def source_disk(self, uuid: str) -> SourceDisk | None:
        match self.source:
            case Known(vm):
                return next((d for d in vm.disks if d.uuid == uuid), None)
            case _:
                return None

    # ---- rounds ----

    @property
    def round(self) -> RoundRecord | None:
        """The round that is under way; behind the cutover only the final one counts. None in a cold run."""
        last = self.record.rounds[-1] if self.record.rounds else None
        if self.record.milestone.order >= Milestone.CUTOVER.order:
            return last if last is not None and last.final else None
        return last if last is not None and last.ended is None and not last.final else None

    @property
    def number(self) -> int:
        """Of the round under way: 0 between rounds, 1 in a cold run."""
        return self.round.number if self.round is not None else 0 if self.mode is Mode.WARM else ROUND

    @property
    def epoch(self) -> str:
        """The source epoch that marks are made for."""
        return self.round.epoch if self.round is not None and not self.round.final else self.record.epoch

    def snapshot_key(self, number: int) -> str:
        return f"{self.instance.short}/{self.record.run}/{self.record.slug}/r{number}"

    @property
    def our_snapshots(self) -> tuple[SourceSnapshot, ...]:
        """Of any run of this reconciler: none may outlive the round that made it."""
        return tuple(s for s in self._snapshots if s.key is not None and self.instance.owns_key(s.key))

    @property
    def foreign_snapshots(self) -> tuple[SourceSnapshot, ...]:
        ours = self.our_snapshots
        return tuple(s for s in self._snapshots if s not in ours)

    @property
    def _snapshots(self) -> tuple[SourceSnapshot, ...]:
        return self.source.value.snapshots if isinstance(self.source, Known) else ()

    # ---- target ----

    @property
    def inventory(self) -> TargetInventory:
        match self.target:
            case Known(inventory):
                return inventory
            case Unknown():
                raise ValueError("the target is Unknown")

    @property
    def target_vm(self) -> TargetVm | None:
        frozen = self.frozen
        return self.inventory.machine(frozen.namespace, frozen.name)

    @property
    def our_target_vm(self) -> TargetVm | None:
        vm = self.target_vm
        return vm if vm and vm.ours and vm.source == self.owner.source else None

    def volume(self, disk: FrozenDisk) -> Volume | None:
        return self.inventory.volume(self.frozen.namespace, disk.pvc)

    def our_volume(self, disk: FrozenDisk) -> Volume | None:
        """With what of its proofs may be believed."""
        volume = self.volume(disk)
        return self._believed(volume) if volume and volume.ours and volume.key == self.volume_key(disk) else None

    @property
    def reserved(self) -> str:
        """TargetVm.reserved of the VirtualMachine made for these disks."""
        vm = self.our_target_vm
        return vm.reserved if vm else ""

    @property
    def started_once(self) -> bool:
        """The start of the target landed: git says so, or the VM itself, by the milestone that it was started with (the reply was lost)."""
        if any(i.kind is IntentKind.START_TARGET and i.done_at is not None for i in self.record.intents):
            return True
        vm, milestone = self.our_target_vm, Milestone.HANDED_OVER
        return vm is not None and self.record.milestone.order >= milestone.order and vm.milestone == milestone.value

    @property
    def set_back(self) -> bool:
        """The target VM is an older one than was seen before: the cluster was restored from a backup. A guest may have run on the disks
        since, and the restored marks know nothing of it. Behind hand-over it runs as it should."""
        last = self.claim.reserved if self.claim is not None and self.record.milestone.order < Milestone.HANDED_OVER.order else ""
        return bool(last and self.reserved) and not _follows(self.reserved, last)

    def _believed(self, volume: Volume) -> Volume:
        """No proof of bytes that were lost, nor a mark of a time before the reserved VM was changed (a watermark says itself, by its round
        key, which time it is of): unproven means dirty. Once it was started, or is to stay off, the disks are the target's own."""
        behind = self.record.milestone.order >= Milestone.HANDED_OVER.order
        if behind and (self.started_once or self.our_target_vm is None or self.frozen.want_power is Power.OFF):
            return volume
        if not behind and self._void(volume):
            return replace(volume, mark=None, watermark=None)
        return volume if volume.mark is None or volume.mark.target == self.reserved else replace(volume, mark=None)

    def _void(self, volume: Volume) -> bool:
        """Nothing that stands on it counts, whenever it was written. A machine that is off now may have run when nobody looked."""
        return volume.phase == "Lost" or self.set_back or self.others_have(volume) or volume.name in self.record.spoilt

    def others_have(self, volume: Volume) -> bool:
        """Now: a machine of others, though it is off, or a pod of theirs."""
        return volume.name in self.taken or bool(self.meddlers(volume))

    def guests_on(self, volume: Volume) -> tuple[str, ...]:
        """Pods of guests, whosever they are, that may write to it."""
        return tuple(w.pod for w in volume.writers if w.role == "vmi" and not w.fenced)

    @property
    def left_to_target(self) -> bool:
        """It was handed over, and started (or is never to be): what its disks hold now is the target's own business."""
        vm = self.our_target_vm
        left = self.started_once or self.frozen.want_power is Power.OFF or (vm is not None and vm.power is Power.ON)
        return left and self.record.milestone.order >= Milestone.HANDED_OVER.order

    @property
    def spoilt(self) -> tuple[str, ...]:
        """VmRecord.spoilt as of now. He may give a disk back before its proofs could be taken off, and we may be killed in between; what a
        copy of before still says is none. So git remembers it until there is neither proof nor copy."""
        if self.left_to_target:
            return ()
        proven = {x.name for x in self.proofs}
        had = {x.name for _, x in self.volumes if self.others_have(x) or self.guests_on(x)}
        return tuple(sorted(name for name in had | set(self.record.spoilt) if self.jobs or name in proven))

    def meddlers(self, volume: Volume) -> tuple[str, ...]:
        """Before the hand-over: a pod that is neither ours nor a guest's may write to it. Later the target has such pods, too."""
        going = self.record.milestone.order < Milestone.HANDED_OVER.order
        return tuple(w.pod for w in volume.writers if going and not (w.fenced or w.ours or w.role))

    @property
    def proofs(self) -> tuple[Volume, ...]:
        """Volumes of ours that carry a mark or a watermark, to be believed or not."""
        ours = ((x, self.volume(d)) for d, x in self.volumes)
        return tuple(x for x, raw in ours if raw is not None and (raw.mark is not None or raw.watermark is not None))

    @property
    def disbelieved(self) -> tuple[str, ...]:
        """Names of PVCs whose mark is not believed."""
        marked = ((d, x) for d in self.frozen.disks if (x := self.volume(d)) is not None and x.mark is not None)
        return tuple(x.name for d, x in marked if (ours := self.our_volume(d)) is not None and ours.mark is None)

    def volume_key(self, disk: FrozenDisk) -> str:
        source = self.record.source
        return f"{source.uuid if source else ''}/{disk.uuid}"

    @property
    def volumes(self) -> tuple[tuple[FrozenDisk, Volume], ...]:
        """The frozen disks that have a volume of ours by now."""
        return tuple((d, v) for d in self.frozen.disks if (v := self.our_volume(d)))

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Importer Jobs of this VM, newest attempt last; of earlier runs too, as long as they are in the cluster."""
        return tuple(sorted(self.inventory.jobs_of(str(self.record.run), self.record.slug), key=lambda j: j.attempt))

    @property
    def binder(self) -> Binder | None:
        return next(iter(self.inventory.binders_of(str(self.record.run), self.record.slug)), None)

    # ---- marks ----

    @property
    def round_key(self) -> str:
        """What a Job and a watermark count for: this source VM, in this epoch (or snapshot) and round, and these very PVCs.

        A PVC made anew under the old name (somebody deleted it, or a backup came back) must not inherit what was proven of another.
        Nor must a disk that is compared, after a doubt, inherit what was proven of changes that are doubted now. Nor a snapshot what was
        proven of another run's, whose id a vCenter that was restored gives out again.
        """
        source, r = self.record.source, self.round
        snapshot = r is not None and not r.final
        when = r.snapshot if r is not None and snapshot else self.epoch
        if r is not None and r.doubts:
            when = f"{when}~{_short('|'.join(sorted(r.doubts)))}"
        run = f".{_short(str(self.record.run))}" if snapshot else ""
        return f"{source.uuid if source else ''}:{when}:{self.number}.{self.trial}{run}.{_short(self.reserved)}"

    @property
    def trial(self) -> str:
        """These very PVCs, by uid: what a trial mount counts for."""
        return _short("|".join(v.uid for _, v in self.volumes))

    def want_mark(self, disk: FrozenDisk, volume: Volume) -> Mark:
        """A final mark keeps the change id of the round before it: what it covers is a part of what was written since then."""
        r = self.round
        base = self.base(disk, volume) if r is not None and r.final else None
        change_id = base.since if base else r.change_ids.get(disk.uuid) if r is not None else None
        return Mark(disk.uuid, volume.uid, self.number, self.epoch, change_id, MarkState.CLEAN, target=self.reserved)

    def marked(self, disk: FrozenDisk) -> bool:
        """Cold: exactly the wanted mark. Warm: of this very round, whichever change id it carries."""
        volume = self.our_volume(disk)
        if volume is None or volume.mark is None or (self.mode is Mode.WARM and self.round is None):
            return False
        mark = volume.mark if self.mode is Mode.COLD else replace(volume.mark, change_id=None)
        return mark == Mark(disk.uuid, volume.uid, self.number, self.epoch, None, MarkState.CLEAN, target=mark.target)

    @property
    def all_marked(self) -> bool:
        return all(self.marked(d) for d in self.frozen.disks)

    def base(self, disk: FrozenDisk, volume: Volume) -> Base | None:
        """What an earlier round (or run) has proven of this disk; None: all of it is copied."""
        mark = volume.mark
        if self.mode is Mode.COLD or mark is None or mark.change_id is None or mark.state is not MarkState.CLEAN:
            return None
        if (mark.disk_uuid, mark.volume_uid) != (disk.uuid, volume.uid) or (self.round and disk.uuid in self.round.doubts):
            return None
        return Base(mark.change_id, disk.capacity_bytes if mark.proven_bytes is None else mark.proven_bytes)

    def watermark(self, volume: Volume) -> Watermark | None:
        mark = volume.watermark
        return mark if mark and mark.round_key == self.round_key and self.provable(volume) else None

    def provable(self, volume: Volume) -> bool:
        """Whether a watermark on it would count. Not on a disk that a conversion has touched: its bytes are the source's no more."""
        touched = volume.mark is not None and volume.mark.state is not MarkState.CLEAN
        return not touched and not self._void(volume)

    @property
    def proven_bytes(self) -> int:
        """Of this round: marked disks whole, others up to their watermarks."""
        return sum(d.capacity_bytes if self.marked(d) else w.proven_bytes if (w := self.watermark(x)) else 0 for d, x in self.volumes)

    @property
    def unfenced(self) -> tuple[str, ...]:
        """Pods that may still write to a volume of this VM, as text for a person."""
        return tuple(
            f"pod {w.pod} ({w.phase}) on PVC {v.name}" for _, v in self.volumes for w in v.writers if not w.fenced and w.role != "binder"
        )


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _follows(reserved: str, last: str) -> bool:
    """The same VM, its spec changed as often or more often. Both as View.reserved tells it."""
    uid, _, generation = reserved.rpartition("/")
    last_uid, _, last_generation = last.rpartition("/")
    return uid == last_uid and int(generation) >= int(last_generation)


def owner_of(record: VmRecord, commit: str, instance: Instance) -> Owner:
    """Full identity for the objects of a VM; see core.target.Owner."""
    source = record.source
    return Owner(
        plan=str(record.plan),
        migration=str(record.run),
        vm=record.slug,
        source=f"{source.site_uuid}/{source.uuid}" if source else "",
        milestone=record.milestone.value,
        commit=commit,
        instance=instance,
    )
