"""Change ids as we give them out: vCenter's own, and all that must be unchanged for it to count.

What it is: pure text and comparison. A vCenter's id (`52 0a … 1f/7`: the tracking record's uuid, and a number that grows with each
snapshot) is only good as long as the record tells everything that was written. FileFault is the answer to an id of another record; but
after a revert, a toggle of the tracking or a resize the answer may be short, and no fault comes with it. So the id that leaves the driver
carries what a lie would need to have changed: the device key, the capacity, the file at the root of the disk's chain, and the moment of
the event history right *before* the snapshot was asked for (history.py). That moment is written into the snapshot's description, so that
it is the same whoever reads the id, and whenever. What it is not: a change id of the platform; nobody but changes.py takes it apart.

Form: `<vCenter's id>#<device key>,<capacity>,<root file, hashed>,<event key>@<event time>`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from reconciler.drivers.vsphere.hardware import DiskFacts
from reconciler.drivers.vsphere.notes import Moment


@dataclass(frozen=True, slots=True)
class ChangeId:
    """`raw` is what vCenter gave, "" where it does not tell. `root` stands for datastore and path of the chain's first file."""

    raw: str
    device: str
    capacity_bytes: int
    root: str
    moment: Moment | None

    def __str__(self) -> str:
        return f"{self.raw}#{self.device},{self.capacity_bytes},{self.root},{self.moment or '-'}"

    @classmethod
    def of(cls, disk: DiskFacts, moment: Moment | None, *, tracked: bool = False) -> ChangeId | None:
        """Of a disk as vCenter shows it; None while its changes are not tracked. `tracked`: they are, though no id may be told."""
        if not disk.change_id and not tracked:
            return None
        return cls(disk.change_id or "", str(disk.key), disk.capacity_bytes, _root(disk), moment)

    @classmethod
    def parse(cls, text: str) -> ChangeId | None:
        raw, _, rest = text.rpartition("#")
        parts = rest.split(",")
        if not raw or len(parts) != 4 or not parts[1].isdecimal():
            return None
        return cls(raw, parts[0], int(parts[1]), parts[2], Moment.parse(parts[3]))

    @property
    def record(self) -> str:
        return self.raw.rpartition("/")[0]

    @property
    def sequence(self) -> int | None:
        number = self.raw.rpartition("/")[2]
        return int(number) if number.isdecimal() else None


def doubt(then: ChangeId | None, now: ChangeId | None) -> str | None:
    """Why what the platform says about the time between these two may be a lie; None when the disk itself gives no reason."""
    if then is None:
        return "the change id is not one of ours"
    if now is None:
        return "its changes are no longer tracked"
    if now.device != then.device:
        return f"it is another device of the VM now ({now.device}, it was {then.device})"
    if now.capacity_bytes != then.capacity_bytes:
        return f"its size changed from {then.capacity_bytes} to {now.capacity_bytes} bytes"
    if now.root != then.root:
        return "its file is another one now: it was moved or replaced"
    if not then.record or then.sequence is None:
        return "the change id is not one of ours"
    if not now.raw:  # then the site's own comparison of the ids stands alone: FileFault
        return None
    if now.record != then.record:
        return "the tracking of changes began anew"
    if now.sequence is None or now.sequence < then.sequence:
        return "the tracking of changes went back: a snapshot was reverted, or the host lost it"
    return None


def _root(disk: DiskFacts) -> str:
    """Snapshots put files on top of a chain; only a move or a replacement changes its foot."""
    chain = (disk.file, *disk.parents)
    return hashlib.sha256(chain[-1].encode()).hexdigest()[:16]
