"""The words that everything else is said in: references, power, milestones, marks, and what is known.

What it is: small frozen values without behaviour beyond their own text form. Pure.
What it is not: inventory (core/inventory.py), desired state (core/desired.py) or records (core/record.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """Namespace and name of a manifest or a cluster object; the kind is known from the place it stands in."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Platform(StrEnum):
    """`Provider.spec.type`. Only the first four are sources that we aim at."""

    VSPHERE = "vsphere"
    OVIRT = "ovirt"
    OPENSTACK = "openstack"
    OPENSHIFT = "openshift"
    OVA = "ova"
    HYPERV = "hyperv"
    EC2 = "ec2"
    NUTANIX = "nutanix"


class Mode(StrEnum):
    COLD = "cold"
    WARM = "warm"


class Power(StrEnum):
    """Observed power, in Forklift's spelling of `restorePowerState`."""

    ON = "On"
    OFF = "Off"
    SUSPENDED = "Suspended"
    UNKNOWN = "Unknown"


class PowerRequest(StrEnum):
    """What a driver is asked to do. SHUTDOWN is the guest's own shutdown; OFF pulls the plug."""

    ON = "on"
    SHUTDOWN = "shutdown"
    OFF = "off"


class Right(StrEnum):
    """What our account must be allowed to do at a source (core/rights.py); the values are the words for it."""

    POWER_OFF = "shut it down"
    POWER_ON = "power it on again after a failure or a cancel"
    READ_FILES = "read its disks as files"
    READ_DISKS = "open its disks"
    EXPORT = "export it"
    SNAPSHOT = "make and remove our snapshots"
    READ_CHANGES = "ask what changed"
    TRACK = "switch change tracking on"


class Milestone(StrEnum):
    """What lies behind is never done again. Ordered by `order`."""

    NONE = "None"
    CUTOVER = "Cutover"  # the source is off for good, proven
    HANDED_OVER = "HandedOver"  # the intent to start the target is committed
    DONE = "Done"

    @property
    def order(self) -> int:
        return list(Milestone).index(self)


class Result(StrEnum):
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


@dataclass(frozen=True, slots=True)
class Known(Generic[T_co]):
    value: T_co


@dataclass(frozen=True, slots=True)
class Absent:
    """Proven not to be there: from a complete list of a site whose identity was checked in this pass."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """We could not look. Never a reason to act."""

    reason: str
    message: str
    terminal: bool = False  # asking again without a commit cannot help (wrong password, wrong thumbprint)


@dataclass(frozen=True, slots=True, order=True)
class VmRef:
    """One source VM, as frozen by a run. `site_uuid` is the vCenter's instanceUuid (engine id, project, kube-system uid)."""

    provider: ObjectRef
    site_uuid: str
    id: str  # the platform's object id, for example vm-1042
    uuid: str  # survives a rebuilt inventory: vSphere instanceUuid
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


class MarkState(StrEnum):
    CLEAN = "clean"
    CONVERTING = "converting"
    CONVERTED = "converted"


@dataclass(frozen=True, slots=True)
class Mark:
    """Proof that a target disk holds the source disk's bytes. Kept as PVC annotation `reconciler.dev/mark`.

    `epoch` is the source epoch at which the bytes were true (safety 1). `change_id` is set in warm runs only: what was written since then
    can be asked for. `proven_bytes`: only [0, proven_bytes) is as of `change_id` (an interrupted first copy); None: the whole disk.
    `target`: View.reserved when it was made; with another one a guest may have run on this disk since, so the mark counts no more.
    """

    disk_uuid: str
    volume_uid: str  # PVC uid
    round: int
    epoch: str
    change_id: str | None
    state: MarkState
    proven_bytes: int | None = None
    target: str = ""


@dataclass(frozen=True, slots=True)
class Watermark:
    """Bytes [0, proven_bytes) are flushed on the target. Counts only with the round key it was written for."""

    round_key: str
    proven_bytes: int


class Secret:
    """Text that must not be seen: repr, str and format give ***; `reveal()` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)
