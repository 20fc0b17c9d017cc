"""What the engine may be told to do: one frozen dataclass per action. `plan` prints them, engine/execute.py runs them.

What it is: data. What it is not: code that acts. `decide` makes at most one action per VM and pass.
Each action names its VM by `key` (run, slug) and the site that it goes to by `site` (the Provider), which is how execution is spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.core.copyspec import Verify
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Absent, Known, Mark, ObjectRef, PowerRequest, VmRef, Watermark
from reconciler.core.ranges import Range
from reconciler.core.record import IntentKind
from reconciler.core.target import BinderSpec, CopyJob, Owner, TargetVm, TargetVmSpec, Volume, VolumeSpec

VmKey = tuple[ObjectRef, str]


@dataclass(frozen=True, slots=True)
class EnsureNamespace:
    key: VmKey
    site: ObjectRef
    namespace: str


@dataclass(frozen=True, slots=True)
class EnsureVolumes:
    """`volumes`: what to make, with the volume of ours to adopt, if an earlier run left one."""

    key: VmKey
    site: ObjectRef
    volumes: tuple[tuple[VolumeSpec, Volume | None], ...]


@dataclass(frozen=True, slots=True)
class EnsureBinder:
    key: VmKey
    site: ObjectRef
    spec: BinderSpec


@dataclass(frozen=True, slots=True)
class DropBinder:
    key: VmKey
    site: ObjectRef
    namespace: str
    name: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class EnsureVm:
    key: VmKey
    site: ObjectRef
    spec: TargetVmSpec


@dataclass(frozen=True, slots=True)
class PowerSource:
    """Declared (`intent`): guest shutdown, hard power-off, or power-on of the source."""

    key: VmKey
    site: ObjectRef
    vm: VmRef
    want: PowerRequest
    intent: IntentKind
    target: tuple[ObjectRef, str, str] | None  # (site, namespace, name) that must be off for a power-on


@dataclass(frozen=True, slots=True)
class ProveOff:
    """A direct read of the source: off, with its epoch and disks as they are now."""

    key: VmKey
    site: ObjectRef
    vm: VmRef


@dataclass(frozen=True, slots=True)
class EnableTracking:
    key: VmKey
    site: ObjectRef
    vm: VmRef


@dataclass(frozen=True, slots=True)
class EnsureSnapshot:
    key: VmKey
    site: ObjectRef
    vm: VmRef
    snapshot: str  # our key


@dataclass(frozen=True, slots=True)
class DropSnapshot:
    """`merge`: what the removal of it left behind, too. Else files that are left over stay as they are: they may be somebody else's."""

    key: VmKey
    site: ObjectRef
    vm: VmRef
    snapshot: str
    merge: bool = False


@dataclass(frozen=True, slots=True)
class CopyDiskWish:
    """One disk for EnsureCopy. `resume_bytes` and `compare` as in copyspec.CopyDisk.

    since: a change id: [0, rest_from) of the target is as of then, so that only what was written since is copied, and all from `rest_from`.
    check, check_copied: as in copyspec.CopyDisk.
    """

    disk_uuid: str
    label: str
    path: str
    capacity_bytes: int
    block: bool
    resume_bytes: int
    compare: bool
    since: str | None = None
    rest_from: int = 0
    check: tuple[Range, ...] | None = None
    check_copied: bool = False


@dataclass(frozen=True, slots=True)
class EnsureCopy:
    """`at`: the id of our snapshot that is read, in a round while the guest runs; None: the source is off, at `epoch`."""

    key: VmKey
    site: ObjectRef
    source: VmRef
    job: CopyJob
    disks: tuple[CopyDiskWish, ...]
    epoch: str
    verify: Verify
    bandwidth_bytes_per_s: int | None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class PutMarks:
    """Marks after a proven result, or None to make them dirty."""

    key: VmKey
    site: ObjectRef
    marks: tuple[tuple[Volume, Mark | None], ...]
    owner: Owner


@dataclass(frozen=True, slots=True)
class PutWatermarks:
    key: VmKey
    site: ObjectRef
    watermarks: tuple[tuple[Volume, Watermark], ...]


@dataclass(frozen=True, slots=True)
class DropCopy:
    key: VmKey
    site: ObjectRef
    namespace: str
    name: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class StartTarget:
    """Declared. The source must be off with `epoch`, the marks those of round `number`, nobody else on the volumes."""

    key: VmKey
    site: ObjectRef
    source: VmRef
    epoch: str
    number: int
    namespace: str
    name: str
    volumes: tuple[tuple[str, str], ...]  # (PVC, disk uuid)
    owner: Owner


@dataclass(frozen=True, slots=True)
class ReleaseVolumes:
    key: VmKey
    site: ObjectRef
    vm: TargetVm
    volumes: tuple[Volume, ...]
    owner: Owner


@dataclass(frozen=True, slots=True)
class DropTargetVm:
    """Declared (DELETE_TARGET): the reserved, never started VM of a failed or cancelled run."""

    key: VmKey
    site: ObjectRef
    namespace: str
    name: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class DropVolumes:
    """Declared (DELETE_TARGET)."""

    key: VmKey
    site: ObjectRef
    namespace: str
    names: tuple[str, ...]
    owner: Owner


Action = (
    EnsureNamespace
    | EnsureVolumes
    | EnsureBinder
    | DropBinder
    | EnsureVm
    | PowerSource
    | ProveOff
    | EnableTracking
    | EnsureSnapshot
    | DropSnapshot
    | EnsureCopy
    | PutMarks
    | PutWatermarks
    | DropCopy
    | StartTarget
    | ReleaseVolumes
    | DropTargetVm
    | DropVolumes
)

DECLARED = (PowerSource, StartTarget, DropTargetVm, DropVolumes)


@dataclass(frozen=True, slots=True)
class ActError:
    """kind: retryable, terminal, user, void (a guard said no: the intent is decided anew), internal."""

    kind: str
    reason: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one action came to; an input of the next pass. `doubted`: disk uuids whose change id does not count any more, and why."""

    key: VmKey
    action: str  # class name
    at: datetime
    error: ActError | None = None
    proof: Known[SourceVm] | Absent | None = None
    doubted: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """`actions` run after the records are published. `wake_at`: when to look again even if nothing happens.

    seen_on: VMs whose source was on in this pass -> when the pass began.
    """

    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None
    bugs: tuple[tuple[VmKey, Exception], ...] = ()
    seen_on: Mapping[VmKey, datetime] = field(default_factory=dict)
