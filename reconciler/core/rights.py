"""What the account at a source must be allowed to do to a VM, so that its move cannot end half-way for want of a privilege.

What it is: which rights the steps of one VM's move need, and the finding that names those that the site does not grant. Pure. What it is
not: a promise; rights may change later, and the acts themselves report it then. Where in the flow: engine/rights.py asks the driver,
examine.py judges, so that a missing right is told in the pull request and keeps the VM from starting.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from reconciler.core import datapath
from reconciler.core.desired import PlanSpec
from reconciler.core.findings import Finding, critical
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Mode, Power, Right

_OF_PATH = {datapath.DATASTORE: Right.READ_FILES, datapath.EXPORT: Right.EXPORT, datapath.VDDK: Right.READ_DISKS}


def needed(plan: PlanSpec, source: SourceVm, paths: Iterable[str]) -> frozenset[Right]:
    """`paths`: how the disks would be read. The export that a warm run may fall back to is not counted: it begins with the guest up."""
    rights = {_OF_PATH[p] for p in paths if p in _OF_PATH}
    if source.power is not Power.OFF:
        rights |= {Right.POWER_OFF, Right.POWER_ON}
    if plan.mode is Mode.WARM:
        rights |= {Right.SNAPSHOT, Right.READ_CHANGES}
        if plan.enable_tracking and not (source.change_tracking and all(d.change_tracking for d in source.disks)):
            rights.add(Right.TRACK)
    return frozenset(rights)


def findings(need: Collection[Right], lacking: Mapping[Right, tuple[str, ...]] | None, source: SourceVm) -> list[Finding]:
    """One finding for all that lacks. `lacking`: right -> "privilege on object", in the platform's words; None: the site was not asked."""
    met = [right for right in Right if right in need and (lacking or {}).get(right)]
    if lacking is None or not met:
        return []
    names = ", ".join(dict.fromkeys(name for right in met for name in lacking[right]))
    text = f"the account lacks {names}: for {source.name} it could not {'; nor '.join(met)}"
    return [
        critical(
            "InsufficientPrivileges",
            "PrivilegesNotGranted",
            text,
            "grant it to the account, in a role on that object or on a folder above it with propagation; it is asked for again by itself",
        )
    ]
