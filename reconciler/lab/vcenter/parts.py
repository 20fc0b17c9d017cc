"""The pieces that vCenter's methods work on, and a result that is XML already. Where it stands: shared by calls.py and conversations.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconciler.lab.vcenter.acts import Acts
from reconciler.lab.vcenter.collector import Retrieval, Updates
from reconciler.lab.vcenter.events import Events
from reconciler.lab.vcenter.inventory import Inventory
from reconciler.lab.vcenter.leases import Leases
from reconciler.lab.vcenter.properties import Reader
from reconciler.lab.vcenter.sessions import Sessions
from reconciler.lab.vcenter.snapshot_acts import SnapshotActs
from reconciler.lab.world import World


@dataclass(frozen=True, slots=True)
class Xml:
    """A result that is already XML: the `returnval` elements."""

    text: str


@dataclass(slots=True)
class Parts:
    """What the methods work on."""

    world: World
    inventory: Inventory
    sessions: Sessions
    reader: Reader
    retrieval: Retrieval
    updates: Updates
    acts: Acts
    snapshots: SnapshotActs
    leases: Leases
    events: Events
    about: Any
    denied: set[str]


def wrap(inner: str) -> Xml:
    """One `returnval`, or none at all for an unset result."""
    return Xml(f"<returnval>{inner}</returnval>" if inner else "")
