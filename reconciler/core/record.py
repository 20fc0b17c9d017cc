"""What the status branch remembers: runs, VMs, claims and conditions. Values only; manifests/record.py turns them into YAML and back.

What it is: the second half of our memory (the first is the platforms themselves). What it is not: a cache; nothing here can be dropped.
Names in YAML are camelCase of these; fields at their default are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

from reconciler.core.copyspec import Verify
from reconciler.core.desired import ShutdownPolicy
from reconciler.core.model import Milestone, Mode, ObjectRef, Power, Result, VmRef
from reconciler.core.target import Instance, Placement, TargetVmSpec, VolumeMode

Instant = NewType("Instant", datetime)  # to the millisecond, in YAML too; every other time is written to the second


def instant(at: datetime) -> Instant:
    """Cut as YAML will cut it, so that what is said before a commit is what is read after it."""
    return Instant(at.replace(microsecond=at.microsecond // 1000 * 1000))


class Category(StrEnum):
    """Forklift's condition categories."""

    CRITICAL = "Critical"
    ERROR = "Error"
    WARN = "Warn"
    REQUIRED = "Required"
    ADVISORY = "Advisory"


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: bool
    category: Category
    reason: str = ""
    message: str = ""
    suggestion: str = ""
    durable: bool = False
    items: tuple[str, ...] = ()
    last_transition_time: datetime | None = None


class IntentKind(StrEnum):
    """Declared acts (design section 3)."""

    POWER_OFF_SOURCE = "PowerOffSource"
    POWER_ON_SOURCE = "PowerOnSource"
    START_TARGET = "StartTarget"
    DELETE_TARGET = "DeleteTarget"


@dataclass(frozen=True, slots=True)
class Intent:
    """Committed before the act. Closed by `done_at`, or void with a reason; a closed one is history.

    accepted_at: the site took the request for a guest's shutdown, which nothing else tells until the guest is off.
    """

    kind: IntentKind
    declared_at: datetime
    done_at: datetime | None = None
    void: str = ""
    accepted_at: datetime | None = None

    @property
    def open(self) -> bool:
        return self.done_at is None and not self.void


@dataclass(frozen=True, slots=True)
class StepError:
    phase: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """Forklift's: MiB for disk steps, else 0 or 1 of 1."""

    completed: int = 0
    total: int = 1


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One disk inside a disk step."""

    name: str
    phase: str = "Pending"
    progress: Progress = field(default_factory=Progress)
    annotations: Mapping[str, str] = field(default_factory=dict)
    started: datetime | None = None
    completed: datetime | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One entry of Forklift's pipeline: Pending, Running, Completed."""

    name: str
    description: str = ""
    phase: str = "Pending"
    reason: str = ""
    progress: Progress = field(default_factory=Progress)
    annotations: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[TaskRecord, ...] = ()
    started: datetime | None = None
    completed: datetime | None = None
    error: StepError | None = None


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """When a phase of our own state machine began and ended."""

    phase: str
    started: datetime
    ended: datetime | None = None


@dataclass(frozen=True, slots=True)
class FrozenDisk:
    """What a run resolved for one disk before it began; never re-read from plan or maps. Units: bytes."""

    uuid: str
    key: str
    label: str
    capacity_bytes: int
    pvc: str
    request_bytes: int
    storage_class: str
    volume_mode: VolumeMode
    access_mode: str
    path: str
    path_reason: str


@dataclass(frozen=True, slots=True)
class FrozenVm:
    target_site_uuid: str
    destination: ObjectRef
    namespace: str
    name: str
    disks: tuple[FrozenDisk, ...]
    vm: TargetVmSpec
    want_power: Power
    placement: Placement
    verify: Verify
    shutdown_policy: ShutdownPolicy
    shutdown_timeout_s: float
    copy_stall_s: float
    delete_on_fail: bool
    bandwidth_bytes_per_s: int | None = None
    enable_tracking: bool = False
    precopy_interval_s: float | None = None
    downtime_budget_s: float | None = None


@dataclass(frozen=True, slots=True)
class DiskRecord:
    """What the copy of one disk came to; from the worker's result."""

    uuid: str
    marked: bool = False
    watermark_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    zeroed_bytes: int = 0
    ranges: int = 0
    seconds: float = 0.0
    reader: str = ""
    readback: str = ""
    crc32c: str = ""
    sha256: str = ""
    eighths: tuple[int, ...] = ()  # warm, verify: source: which of 0 to 7 a second read has found equal, as of some round


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One pre-copy round of a warm run, or its final copy. `snapshot`: the platform's id, once ours was seen with its change ids.

    change_ids: disk uuid -> change id of that snapshot. doubts: disk uuid -> why it is compared in full. `abandoned`: why nothing of it
    counts. eighth: the part of each disk that it also compares with the source. Units: bytes, seconds of the copy itself.
    """

    number: int
    started: datetime
    final: bool = False
    snapshot: str = ""
    epoch: str = ""
    change_ids: Mapping[str, str] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)
    ended: datetime | None = None
    abandoned: str = ""
    eighth: int | None = None
    read_bytes: int = 0
    written_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outage:
    """The time in which no guest ran, on either side. By our own clock, and never less than it was.

    off_at:  when the source was last seen on before it was seen off; where this process did not see that, when its power-off was declared,
             and else when it was first seen off.
    back_at: when the target was first seen to run, or, before the hand-over, the source again.
    """

    off_at: Instant
    back_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    phase: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Retry:
    """A copy failed: why, and when the next attempt may begin. `count` attempts in a row have proven no more than `proven_bytes`."""

    attempt: int
    due: datetime
    count: int
    proven_bytes: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class VmRecord:
    """One VM of one run: `runs/<ns>/<migration>/vms/<slug>.yaml`. Its git history is the story of that VM.

    `wanted` is what the plan called it. `source` is None while the VM could not be resolved; then it never was claimed.
    `was_on` is the source's power when it was claimed (inherited while the last power-off was ours).
    `unwinding`: failed or cancelled, giving back what we owe. `result`: ended.
    """

    run: ObjectRef
    slug: str
    plan: ObjectRef
    wanted: str
    id: str = ""
    name: str = ""
    new_name: str = ""
    phase: str = ""
    milestone: Milestone = Milestone.NONE
    result: Result | None = None
    message: str = ""
    started: datetime | None = None
    completed: datetime | None = None
    restore_power_state: Power = Power.UNKNOWN
    source: VmRef | None = None
    epoch: str = ""
    cancel_at: datetime | None = None
    unwinding: bool = False
    error: Failure | None = None
    intents: tuple[Intent, ...] = ()
    attempt: int = 1
    retry: Retry | None = None
    conditions: tuple[Condition, ...] = ()
    pipeline: tuple[StepRecord, ...] = ()
    phases: tuple[PhaseTime, ...] = ()
    disks: tuple[DiskRecord, ...] = ()
    frozen: FrozenVm | None = None
    tried: str = ""  # the volumes (View.trial) that a pod was seen to open; others are tried anew
    rounds: tuple[RoundRecord, ...] = ()
    base_unreadable: str = ""  # why the frozen base cannot be read while the guest runs, once that was seen
    next_round_at: datetime | None = None
    merging: bool = False  # what needs consolidation since its last round began is ours: then nothing did, and no other's snapshot was seen
    rounds_forgotten: int = 0  # pre-copies that counted and are no longer among `rounds`
    outage: Outage | None = None
    spoilt: tuple[str, ...] = ()  # PVCs that somebody else was seen to have: what proves their bytes counts no more, until it is all gone
    timers: Mapping[str, float] = field(default_factory=dict)  # deadlines under way -> seconds seen of them; progress, so never ahead

    @property
    def was_on(self) -> bool:
        return self.restore_power_state is Power.ON

    @property
    def key(self) -> tuple[ObjectRef, str]:
        return (self.run, self.slug)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """`runs/<ns>/<migration>/run.yaml`. `vms` are slugs in plan order. `origin`: repo, branch and path that the run began at."""

    run: ObjectRef
    plan: ObjectRef
    mode: Mode
    source: ObjectRef
    destination: ObjectRef
    revision: str
    origin: str
    started: datetime
    vms: tuple[str, ...]
    network_map: ObjectRef | None = None
    storage_map: ObjectRef | None = None
    plan_digest: str = ""  # of what was frozen; a later difference is `Modified`
    gone_since: datetime | None = None  # the Migration manifest is missing since
    completed: datetime | None = None
    result: Result | None = None
    conditions: tuple[Condition, ...] = ()
    removal_since: datetime | None = None  # ... and is a removal since: all five conditions of one hold
    removal_s: float = 0.0  # ... which was watched for so long


@dataclass(frozen=True, slots=True)
class Claim:
    """`claims/<site uuid>/<vm uuid>.yaml`: which run owns a source VM. Kept for ever after HANDED_OVER.

    `reserved`: the target VM as it was seen last (View.reserved), by whichever run.
    """

    site_uuid: str
    vm_uuid: str
    vm_name: str
    run: ObjectRef
    slug: str
    claimed: datetime
    was_on: bool
    powered_off_by_us: bool = False
    released: datetime | None = None
    forever: bool = False
    reserved: str = ""


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """`status/<namespace>/<plural>/<name>.yaml` of one manifest."""

    kind: str
    ref: ObjectRef
    conditions: tuple[Condition, ...]
    observed_revision: str
    phase: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)  # VMs by phase, Plans and Migrations
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Records:
    """The status branch, parsed."""

    commit: str
    runs: Mapping[ObjectRef, RunRecord] = field(default_factory=dict)
    vms: Mapping[tuple[ObjectRef, str], VmRecord] = field(default_factory=dict)
    claims: Mapping[tuple[str, str], Claim] = field(default_factory=dict)
    statuses: Mapping[tuple[str, ObjectRef], ObjectStatus] = field(default_factory=dict)
    archived: frozenset[ObjectRef] = frozenset()  # plans with an archive
    instance: Instance = field(default_factory=Instance)  # `instance.yaml`; without an id until the first publish
