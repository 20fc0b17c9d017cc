"""Desired -> Observed: one bulk read per live site, the log tails of running copies, and which commits the target knows that git does not.

What it is: read-only calls, side by side per site. What it is not: a decision. Sites that nothing live needs are not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import datetime

from reconciler.core import archive
from reconciler.core.copyspec import CopyResult, DiskProgress
from reconciler.core.desired import Desired, ProviderSpec
from reconciler.core.inventory import Inventory
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Known, ObjectRef, Platform, Unknown
from reconciler.core.record import Records
from reconciler.core.target import JobPhase, TargetInventory
from reconciler.core.view import Observed
from reconciler.engine import rights
from reconciler.engine.rights import RightsMemory
from reconciler.engine.sites import Sites
from reconciler.errors import ReconcilerError
from reconciler.ports import StatusRepo

REVALIDATE_S = 600.0
RETRY_S = 30.0
PROGRESS_BUDGET_S = 5.0

Tail = tuple[tuple[DiskProgress, ...], CopyResult | None]
ProgressMap = dict[tuple[ObjectRef, str, str], Tail]


@dataclass(slots=True)
class Watch:
    """When each provider was last asked, and for which commit. `tails`: log tails that were asked for and have not come yet."""

    asked: dict[ObjectRef, tuple[str, datetime, bool]] = field(default_factory=dict)  # revision, when, answered
    proven_commits: set[str] = field(default_factory=set)
    status_head: str = ""
    tails: dict[tuple[ObjectRef, str, str], Future[Tail]] = field(default_factory=dict)
    rights: dict[ObjectRef, RightsMemory] = field(default_factory=dict)


def live(desired: Desired, records: Records, watch: Watch, now: datetime) -> frozenset[ObjectRef]:
    """Providers to ask in this pass: of active runs and unstarted Migrations, of manifests not yet validated, or validated long ago."""
    wanted: set[ObjectRef] = set()
    for run in records.runs.values():
        if run.result is None:
            wanted |= {run.source, run.destination}
    for migration in desired.migrations.values():
        plan = desired.plans.get(migration.plan) if migration.plan else None
        if plan is not None and migration.ref not in records.runs and not plan.archived:
            wanted |= {r for r in (plan.source, plan.destination) if r}
    wanted |= archive.places(desired, records).keys()
    for ref in desired.providers:
        if _due(ref, desired.revision, watch, now):
            wanted.add(ref)
    return frozenset(r for r in wanted if r in desired.providers)


def _due(ref: ObjectRef, revision: str, watch: Watch, now: datetime) -> bool:
    last = watch.asked.get(ref)
    if last is None:
        return True
    seen, at, answered = last
    return seen != revision or (now - at).total_seconds() >= (REVALIDATE_S if answered else RETRY_S)


def observe(
    desired: Desired, records: Records, sites: Sites, repo: StatusRepo, watch: Watch, now: datetime
) -> tuple[Observed, dict[ObjectRef, SiteIndex]]:
    wanted = live(desired, records, watch, now)
    observed, indexes = look(desired, records, sites, wanted, watch, now)
    for ref in wanted:
        seen = observed.sources.get(ref) or observed.targets.get(ref)
        watch.asked[ref] = (desired.revision, now, isinstance(seen, Known))
    progress, lost = _progress(sites, records, observed.targets, watch), rewound(repo, records, observed.targets, watch)
    return replace(observed, progress=progress, rewound=lost), indexes


def look(
    desired: Desired, records: Records, sites: Sites, wanted: Iterable[ObjectRef], watch: Watch, now: datetime
) -> tuple[Observed, dict[ObjectRef, SiteIndex]]:  # fmt: skip
    """One bulk read of each wanted provider, side by side; no progress of copies."""
    sites.use(desired.providers, records.instance)
    providers = {r: desired.providers[r] for r in wanted}
    source_reads = {
        r: (p, _source_read(sites, p, desired, records, watch, now)) for r, p in providers.items() if p.platform == Platform.VSPHERE
    }
    target_reads = {
        r: (p, _target_read(sites, p, _namespaces(desired, records, r))) for r, p in providers.items() if p.platform == Platform.OPENSHIFT
    }
    seen = sites.read_all({**source_reads, **target_reads})
    sources = {r: _as_source(seen[r]) for r in source_reads}
    targets = {r: _as_target(seen[r]) for r in target_reads}
    return Observed(sources, targets, us=records.instance), {r: sites.index(r, k.value) for r, k in sources.items() if isinstance(k, Known)}


def _source_read(
    sites: Sites, provider: ProviderSpec, desired: Desired, records: Records, watch: Watch, now: datetime
) -> Callable[[], Inventory | TargetInventory]:  # fmt: skip
    memory = watch.rights.setdefault(provider.ref, RightsMemory())
    return lambda: rights.read(sites.source(provider), provider.ref, desired, records, memory, now)


def _target_read(sites: Sites, provider: ProviderSpec, namespaces: tuple[str, ...]) -> Callable[[], Inventory | TargetInventory]:
    return lambda: sites.target(provider).read_inventory(namespaces)


def _as_source(seen: Known[Inventory | TargetInventory] | Unknown) -> Known[Inventory] | Unknown:
    if isinstance(seen, Known):
        assert isinstance(seen.value, Inventory)
        return Known(seen.value)
    return seen


def _as_target(seen: Known[Inventory | TargetInventory] | Unknown) -> Known[TargetInventory] | Unknown:
    if isinstance(seen, Known):
        assert isinstance(seen.value, TargetInventory)
        return Known(seen.value)
    return seen


def _namespaces(desired: Desired, records: Records, ref: ObjectRef) -> tuple[str, ...]:
    """Target namespaces that plans, active VMs and plans about to be archived use on this destination."""
    plans = (p for p in desired.plans.values() if p.destination == ref and p.target_namespace and p.ref not in records.archived)
    found = {p.target_namespace for p in plans} | archive.places(desired, records).get(ref, frozenset())
    found |= {v.frozen.namespace for v in records.vms.values() if v.frozen and v.result is None and v.frozen.destination == ref}
    return tuple(sorted(found))


def _progress(
    sites: Sites, records: Records, targets: Mapping[ObjectRef, Known[TargetInventory] | Unknown], watch: Watch
) -> ProgressMap:  # fmt: skip
    """The log tail of each Job of a run that goes on: running ones, and failed ones for what they had proven.

    One that did not come in time (its node is lost) is not asked for twice, nor waited for again.
    """
    active = {str(r.run) for r in records.runs.values() if r.result is None}
    late, watch.tails = watch.tails, {}
    for ref, seen in targets.items():
        if not isinstance(seen, Known):
            continue
        for job in seen.value.jobs:
            if job.migration in active and job.phase in (JobPhase.RUNNING, JobPhase.FAILED) and not job.deleting:
                key = (ref, job.namespace, job.name)
                watch.tails[key] = late.get(key) or sites.submit(("log", ref), _tail(sites, *key))
    wait([tail for key, tail in watch.tails.items() if key not in late], timeout=PROGRESS_BUDGET_S)
    come = {key: tail.result() for key, tail in watch.tails.items() if tail.done()}
    watch.tails = {key: tail for key, tail in watch.tails.items() if key not in come}
    return come


def _tail(sites: Sites, ref: ObjectRef, namespace: str, name: str) -> Callable[[], Tail]:
    def read() -> Tail:
        try:
            seen = sites.target_at(ref).read_progress(namespace, name)
        except ReconcilerError:  # progress is for people and watermarks; without it nothing is decided
            return ((), None)
        return (seen.disks, seen.result)

    return read


def rewound(
    repo: StatusRepo, records: Records, targets: Mapping[ObjectRef, Known[TargetInventory] | Unknown], watch: Watch
) -> frozenset[str]:
    """Commits named by objects of ours that the status branch does not have among its ancestors (safety 7).

    Of whichever run: after a restore the run that made them may be unknown, and its objects up for adoption.
    """
    named: set[str] = set()
    for seen in targets.values():
        if isinstance(seen, Known):
            named |= {v.commit for v in seen.value.volumes if v.commit and v.ours}
            named |= {v.commit for v in seen.value.vms if v.commit and v.ours}
    if watch.status_head and watch.status_head != records.commit and not repo.is_ancestor(watch.status_head, records.commit):
        watch.proven_commits.clear()  # the branch was set back while we ran
    watch.status_head = records.commit
    unproven = named - watch.proven_commits
    lost = {c for c in unproven if not repo.is_ancestor(c, records.commit)}
    watch.proven_commits |= unproven - lost
    return frozenset(lost)
