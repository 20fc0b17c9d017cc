"""`reconciler sweep`: what of ours is left on targets and sources and explained by no run; with --delete it goes.

What it is: one look at each target and at each source of warm runs, core/sweep.py, and a list. Removal takes the lease first and goes
through engine/execute.py, so that the same keys and guards are checked. What it is not: part of a pass; run it when a person wonders, or
after records were deleted by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TextIO

from reconciler.app import open_repo, open_sites
from reconciler.commands.reading import Reader
from reconciler.core.desired import Desired
from reconciler.core.model import Mode, ObjectRef, Platform
from reconciler.core.record import Records
from reconciler.core.sweep import Leftover, commits_of, leftovers, readers, snapshots
from reconciler.engine.execute import Hands, execute
from reconciler.engine.sites import Sites
from reconciler.errors import LeaseLost
from reconciler.ports import Clock, StatusRepo
from reconciler.report.escape import clean
from reconciler.report.numbers import plural
from reconciler.settings import Settings

Format = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A leftover and what became of it: "" was not tried, "deleted", or why not."""

    leftover: Leftover
    result: str = ""


def run(settings: Settings, *, everywhere: bool, delete: bool, format: Format, clock: Clock, out: TextIO) -> int:
    """0 when nothing is left (any more), else 1. Errors: LeaseLost when another reconciler is active; those of repo and sites."""
    repo = open_repo(settings, clock)
    sites = open_sites(settings, clock)
    try:
        if delete and not repo.hold_lease():
            raise LeaseLost("LeaseLost", "another reconciler is active on this repo; --delete needs the lease, so stop it first")
        records, desired = Reader(repo).read()
        found = [Finding(x) for x in look(desired, records, sites, repo, everywhere)]
        if delete:
            found = [_remove(x.leftover, Hands(sites, repo, clock, settings.lease_ttl_s)) for x in found]
    finally:
        sites.close()
        if delete:
            repo.release_lease()
    out.write(_json(found) if format == "json" else _text(found, delete))
    return 1 if any(x.result != "deleted" for x in found) else 0


def look(desired: Desired, records: Records, sites: Sites, repo: StatusRepo, everywhere: bool) -> list[Leftover]:
    """Every site once, though two Providers may lead there. Readers of snapshots are on the targets, so those come first."""
    sites.use(desired.providers, records.instance)
    found: dict[tuple[str, str, str, str], Leftover] = {}
    reading: frozenset[str] = frozenset()
    for provider in desired.providers.values():
        if provider.platform != Platform.OPENSHIFT:
            continue
        driver = sites.target(provider)
        names: Iterable[str] = driver.read_inventory(()).namespaces if everywhere else _namespaces(desired, records, provider.ref)
        inventory = driver.read_inventory(tuple(sorted(names)))
        history = frozenset(c for c in commits_of(inventory) if repo.is_ancestor(c, records.commit))
        for left in leftovers(provider.ref, inventory, records, history):
            found.setdefault((inventory.site.uuid, left.kind, left.namespace, left.name), left)
        reading |= readers(inventory)
    for ref in sorted(_warm_sources(desired, records) & desired.providers.keys()):
        seen = sites.source(desired.providers[ref]).read_inventory()
        for left in snapshots(ref, seen, records, reading):
            found.setdefault((seen.site.uuid, left.kind, left.namespace, left.name), left)
    return list(found.values())


def _warm_sources(desired: Desired, records: Records) -> set[ObjectRef]:
    planned = {p.source for p in desired.plans.values() if p.mode is Mode.WARM and p.source is not None}
    return planned | {r.source for r in records.runs.values() if r.mode is Mode.WARM}


def _namespaces(desired: Desired, records: Records, ref: ObjectRef) -> set[str]:
    """All that plans and records name, ended and archived ones too."""
    planned = {p.target_namespace for p in desired.plans.values() if p.destination == ref and p.target_namespace}
    return planned | {v.frozen.namespace for v in records.vms.values() if v.frozen is not None and v.frozen.destination == ref}


def _remove(left: Leftover, hands: Hands) -> Finding:
    if left.action is None:
        return Finding(left, left.hindrance)
    hands.repo.hold_lease()  # renewed when that is due; execute() looks at its age
    error = execute(left.action, hands).error
    return Finding(left, "deleted" if error is None else f"{error.reason}: {error.message}")


def _text(found: list[Finding], delete: bool) -> str:
    lines = []
    for x in found:
        left = x.leftover
        lines.append(clean(f"{left.kind} {left.namespace}/{left.name} ({left.site}): {left.why}"))
        fate = f"stays: {left.hindrance}" if left.hindrance else "would be deleted"
        lines.append(f"    {clean(x.result or fate)}")
    if not found:
        lines.append("nothing of ours is left")
    elif delete:
        gone = sum(x.result == "deleted" for x in found)
        lines.append(f"{gone} of {plural(len(found), 'leftover')} deleted")
    else:
        lines.append(f"{plural(len(found), 'leftover')}; delete with --delete")
    return "\n".join(lines) + "\n"


def _json(found: list[Finding]) -> str:
    items = [
        {
            "provider": str(x.leftover.site),
            "kind": x.leftover.kind,
            "namespace": x.leftover.namespace,
            "name": x.leftover.name,
            "run": x.leftover.run,
            "why": x.leftover.why,
            "deletable": x.leftover.action is not None,
            "hindrance": x.leftover.hindrance,
            "result": x.result,
        }
        for x in found
    ]
    return json.dumps({"leftovers": items}, indent=2) + "\n"
