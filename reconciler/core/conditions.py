"""(Desired, Observed, Records) -> status of every manifest: Forklift's conditions, computed whole in each pass.

What it is: pure. No code clears stale conditions: what is not set here any more is gone (durable ones excepted).
What it is not: VM conditions (core/decide.py sets those as it walks) or text layout (report/).
Only objects whose answer changed are handed back to be written; `lastTransitionTime` and `observedRevision` stay when nothing else changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from reconciler.core import archive, hosts, planchecks, runs, story
from reconciler.core.desired import Desired, InventoryRef, NetworkMapSpec, PlanSpec, ProviderSpec, Severity, StorageMapSpec
from reconciler.core.examine import examine
from reconciler.core.findings import Finding, critical
from reconciler.core.ledger import Ledger
from reconciler.core.lookup import Ambiguous, SiteIndex
from reconciler.core.model import Absent, Known, ObjectRef, Platform, Result, Unknown
from reconciler.core.record import Category, Condition, ObjectStatus, Records, RunRecord, VmRecord
from reconciler.core.view import Observed

AUTH_REASONS = frozenset({"AuthFailed"})


def summarize(
    desired: Desired, observed: Observed, records: Records, indexes: Mapping[ObjectRef, SiteIndex], now: datetime
) -> dict[tuple[str, ObjectRef], ObjectStatus]:
    """Statuses by (kind, ref); those of objects whose sites were not looked at in this pass stay as they were."""
    fresh: dict[tuple[str, ObjectRef], ObjectStatus] = {}
    for status in _all(desired, observed, records, indexes):
        key = (status.kind, status.ref)
        old = records.statuses.get(key)
        conditions = story.carry_times(status.conditions, old.conditions if old else (), now)
        status = replace(status, conditions=conditions)
        if old is not None and replace(old, observed_revision=status.observed_revision) == status:
            status = old
        fresh[key] = status
    return fresh


def _all(
    desired: Desired, observed: Observed, records: Records, indexes: Mapping[ObjectRef, SiteIndex]
) -> Iterable[ObjectStatus]:  # fmt: skip
    for provider in desired.providers.values():
        seen = observed.sources.get(provider.ref) or observed.targets.get(provider.ref)
        if seen is None:
            yield _kept(records, "Provider", provider.ref, desired)
        else:
            yield _status("Provider", provider.ref, desired, _provider(provider, seen))
    for nmap in desired.network_maps.values():
        if (old := _unlooked(records, observed, desired, "NetworkMap", nmap)) is not None:
            yield old
        else:
            yield _status("NetworkMap", nmap.ref, desired, _network_map(nmap, indexes, observed))
    for smap in desired.storage_maps.values():
        if (old := _unlooked(records, observed, desired, "StorageMap", smap)) is not None:
            yield old
        else:
            yield _status("StorageMap", smap.ref, desired, _storage_map(smap, indexes, observed))
    ledger = Ledger.over(records.runs, records.vms)
    for plan in desired.plans.values():
        if (closing := archive.standing(plan, desired, observed, records)) and ledger.active(plan.ref) is None:
            yield _archived(plan, desired, records, closing)
        elif (old := _unlooked(records, observed, desired, "Plan", plan)) is not None:
            yield old
        else:
            yield _plan(plan, desired, observed, records, indexes, ledger)
    for ref in {*desired.migrations, *records.runs}:
        yield _migration(ref, desired, observed, records, indexes, ledger)
    yield from _broken(desired)
    for ref in desired.hooks:
        text = "hooks are not run yet; a plan that uses one is blocked"
        yield _status("Hook", ref, desired, [Finding("NotSupported", Category.WARN, "NotSupported", text)])
    for controller in desired.controllers.values():
        said = [Finding("WithoutEffect", Category.WARN, "NotSupported", item.message) for item in controller.unsupported]
        yield _status("ForkliftController", controller.ref, desired, said)
    for host in desired.hosts.values():
        seen = observed.sources.get(host.provider) if host.provider is not None else None
        if seen is None and host.provider in desired.providers:
            yield _kept(records, "Host", host.ref, desired)
        else:
            yield _status("Host", host.ref, desired, hosts.findings(host, seen))


def _broken(desired: Desired) -> Iterable[ObjectStatus]:
    """Manifests that are so wrong that there is no spec of them: they still have a status that says why."""
    known = {
        "Provider": desired.providers,
        "NetworkMap": desired.network_maps,
        "StorageMap": desired.storage_maps,
        "Plan": desired.plans,
        "Migration": desired.migrations,
        "Hook": desired.hooks,
        "Host": desired.hosts,
        "ForkliftController": desired.controllers,
    }
    for identity in sorted(desired.broken):
        kind, _, name = identity.partition("/")
        ref = ObjectRef(*name.split("/", 1))
        if ref not in known.get(kind, {}):
            yield _status(kind, ref, desired, ())


def _kept(records: Records, kind: str, ref: ObjectRef, desired: Desired) -> ObjectStatus:
    return records.statuses.get((kind, ref)) or ObjectStatus(kind, ref, (), desired.revision, phase="Staging")


def _unlooked(
    records: Records, observed: Observed, desired: Desired, kind: str, spec: NetworkMapSpec | StorageMapSpec | PlanSpec
) -> ObjectStatus | None:  # fmt: skip
    """The old status, when a site that this object needs was not looked at in this pass: no news is not bad news."""
    seen = observed.sources.keys() | observed.targets.keys()
    asked = {r for r in (spec.source, spec.destination) if r is not None and r in desired.providers}
    implemented = {r for r in asked if desired.providers[r].platform in (Platform.VSPHERE, Platform.OPENSHIFT)}
    return records.statuses.get((kind, spec.ref)) if implemented - seen else None


def _status(kind: str, ref: ObjectRef, desired: Desired, findings: Iterable[Finding], phase: str = "") -> ObjectStatus:
    """Findings of one type are merged into one condition with items; Ready is added when nothing blocks."""
    found = [*findings]
    if f"{kind}/{ref}" in desired.broken:
        texts = "; ".join(
            f"{p.place}: {p.message}" for p in desired.problems if p.object == f"{kind}/{ref}" and p.severity is Severity.ERROR
        )
        found.append(critical("NotValid", "NotValid", texts or "the manifest has errors", "run `reconciler validate`"))
    conditions = merge(found)
    blocked = any(c.category in (Category.CRITICAL, Category.ERROR) for c in conditions)
    if not blocked:
        conditions = (*conditions, Condition("Ready", True, Category.REQUIRED, "", f"the {kind} is ready"))
    return ObjectStatus(kind, ref, conditions, desired.revision, phase=phase)


def merge(findings: Iterable[Finding]) -> tuple[Condition, ...]:
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.type, []).append(finding)
    order = list(Category)
    conditions = []
    for kind, same in grouped.items():
        worst = min(same, key=lambda f: order.index(f.category))
        texts = tuple(dict.fromkeys(f.message for f in same))
        hints = tuple(dict.fromkeys(f.suggestion for f in same if f.suggestion))
        message = texts[0] if len(texts) == 1 else f"{texts[0]} (and {len(texts) - 1} more)"
        conditions.append(
            Condition(kind, True, worst.category, worst.reason, message, "; ".join(hints), items=texts if len(texts) > 1 else ())
        )
    return tuple(conditions)


# ---- providers and maps -----------------------------------------------------------------------------------------------------------------


def _provider(provider: ProviderSpec, seen: Known[object] | Unknown) -> list[Finding]:
    if provider.platform not in (Platform.VSPHERE, Platform.OPENSHIFT):
        text = f"providers of type {provider.platform} are not implemented yet"
        known = provider.platform in list(Platform)
        return [critical("NotSupported" if known else "ProviderTypeNotSupported", "NotSupported", text)]
    match seen:
        case Unknown(reason, message):
            kind = {"SecretNotFound": "SecretNotValid", "SecretNotValid": "SecretNotValid"}.get(reason, "ConnectionTestFailed")
            kind = "ConnectionAuthFailed" if reason in AUTH_REASONS else kind
            return [critical(kind, reason, message)]
        case _:
            return [
                Finding("ConnectionTestSucceeded", Category.REQUIRED, "Tested", "the login worked and the identity was read"),
                Finding("InventoryCreated", Category.REQUIRED, "Completed", "the inventory was read completely"),
                Finding("Validated", Category.ADVISORY, "Completed", "nothing speaks against it"),
            ]


def _network_map(spec: NetworkMapSpec, indexes: Mapping[ObjectRef, SiteIndex], observed: Observed) -> list[Finding]:
    found = [f for p in spec.pairs for f in _source_item("Network", spec.ref, p.source, indexes.get(spec.source) if spec.source else None)]
    target = observed.targets.get(spec.destination) if spec.destination else None
    if isinstance(target, Known):
        for pair in spec.pairs:
            name = f"{pair.namespace}/{pair.name}"
            if pair.kind == "multus" and name not in target.value.networks:
                text = f"NetworkAttachmentDefinition {name} does not exist in {spec.destination}"
                found.append(critical("DestinationNetworkNotValid", "NotFound", text, "create it, or correct the map"))
    return found


def _storage_map(spec: StorageMapSpec, indexes: Mapping[ObjectRef, SiteIndex], observed: Observed) -> list[Finding]:
    found = [f for p in spec.pairs for f in _source_item("Storage", spec.ref, p.source, indexes.get(spec.source) if spec.source else None)]
    target = observed.targets.get(spec.destination) if spec.destination else None
    if isinstance(target, Known):
        classes = {c.name for c in target.value.storage_classes}
        for pair in spec.pairs:
            if pair.storage_class not in classes:
                text = f"storage class {pair.storage_class!r} does not exist in {spec.destination}"
                hint = f"classes there: {', '.join(sorted(classes)) or 'none'}"
                found.append(critical("DestinationStorageNotValid", "NotFound", text, hint))
    return found


def _source_item(word: str, ref: ObjectRef, source: InventoryRef, index: SiteIndex | None) -> list[Finding]:
    """Forklift: a source that is not in the inventory is a warning on the map; a VM that uses it is caught later."""
    kind = f"Source{word}NotValid"
    if not (source.id or source.name or source.type):
        return [critical(kind, "NotSet", f"an entry of {word}Map {ref} names no source")]
    if index is None:
        return []
    match index.network(source) if word == "Network" else index.storage(source):
        case Absent():
            return [Finding(kind, Category.WARN, "NotFound", f"{word.lower()} {source} of map {ref} is not in the source inventory")]
        case Ambiguous(candidates):
            ids = ", ".join(c.id for c in candidates)
            return [critical(kind, "Ambiguous", f"{source} of map {ref} matches several: {ids}", "use the id")]
        case Known():
            return []


# ---- plans and migrations ---------------------------------------------------------------------------------------------------------------


def _archived(plan: PlanSpec, desired: Desired, records: Records, closing: tuple[Finding, ...]) -> ObjectStatus:
    """Never Ready. Once it is archived, what was said last stays."""
    old = records.statuses.get(("Plan", plan.ref))
    if plan.ref in records.archived and old is not None and any(c.type == "Archived" for c in old.conditions):
        return old
    return ObjectStatus("Plan", plan.ref, merge(closing), desired.revision, counts=dict(old.counts) if old else {})


def _plan(
    plan: PlanSpec,
    desired: Desired,
    observed: Observed,
    records: Records,
    indexes: Mapping[ObjectRef, SiteIndex],
    ledger: Ledger,
) -> ObjectStatus:
    mine = ledger.of_plan.get(plan.ref, ())
    vms = [v for r in mine for v in ledger.of_run.get(r.run, ())]
    last = mine[-1] if mine else None
    if last is not None and last.result is None:
        findings = [*planchecks.plan_findings(desired, observed, plan).findings, *_vm_findings(vms)]
        findings.append(Finding("Executing", Category.ADVISORY, "", f"run {last.run} is under way"))
        if last.plan_digest and last.plan_digest != planchecks.digest(desired, plan):
            text = (
                f"plan or maps were edited after run {last.run} began; VMs already claimed go on as frozen, "
                "the edit counts for the rest and for the next run"
            )
            findings.append(Finding("Modified", Category.WARN, "Modified", text))
        findings += archive.standing(plan, desired, observed, records)
    else:
        findings = _offered(plan, desired, observed, indexes, ledger)
        if last is not None:
            text = f"run {last.run} {str(last.result).lower()}"
            findings.append(Finding(str(last.result), Category.ADVISORY, "Completed", text))
    status = _status("Plan", plan.ref, desired, findings)
    newest = {v.slug: v for v in vms}
    counts = Counter(v.result.value if v.result else v.phase for v in newest.values())
    return replace(status, counts={"VMs": len(plan.vms), **dict(sorted(counts.items()))})


def _vm_findings(vms: Iterable[VmRecord]) -> list[Finding]:
    return [
        Finding(c.type, c.category, c.reason, c.message, c.suggestion)
        for v in vms
        for c in v.conditions
        if v.result is None and c.category is not Category.ADVISORY
    ]


def _offered(
    plan: PlanSpec, desired: Desired, observed: Observed, indexes: Mapping[ObjectRef, SiteIndex], ledger: Ledger
) -> list[Finding]:  # fmt: skip
    """What a pull request is answered with: all plan-level findings, and those of every VM that is still to be moved."""
    found = [*planchecks.plan_findings(desired, observed, plan).findings]
    ground = planchecks.ground(desired, observed, indexes, plan)
    if ground is None:
        return found
    done = ledger.succeeded(plan.ref)
    names: dict[str, str] = {}
    for vm in plan.vms:
        if runs.slug_of(plan, vm.ref) in done:
            continue
        result = examine(ground, vm, names)
        if result.frozen is not None and result.source is not None:
            names[result.frozen.name] = result.source.uuid
        found += result.findings
    return found


def _migration(
    ref: ObjectRef, desired: Desired, observed: Observed, records: Records, indexes: Mapping[ObjectRef, SiteIndex], ledger: Ledger
) -> ObjectStatus:
    vms = ledger.of_run.get(ref, ())
    run, spec = records.runs.get(ref), desired.migrations.get(ref)
    findings: list[Finding] = []
    if run is None:
        findings += _not_begun(ref, desired, observed, ledger)
    else:
        findings += _run_findings(run, desired, vms, indexes.get(run.source))
    for item in spec.unsupported if spec else ():
        findings.append(
            Finding("NotSupported", Category.CRITICAL if item.blocking else Category.WARN, "NotSupported", f"{item.field}: {item.message}")
        )
    status = _status("Migration", ref, desired, findings)
    counts = Counter(v.result.value if v.result else v.phase for v in vms)
    return replace(status, counts=dict(sorted(counts.items())))


def _not_begun(ref: ObjectRef, desired: Desired, observed: Observed, ledger: Ledger) -> list[Finding]:
    spec = desired.migrations[ref]
    plan = desired.plans.get(spec.plan) if spec.plan else None
    if plan is None:
        reason = "NotFound" if spec.plan else "NotSet"
        return [critical("PlanNotValid", reason, f"there is no Plan {spec.plan}" if spec.plan else "spec.plan is not set")]
    if plan.archived:
        return [critical("PlanNotReady", "Archived", f"Plan {plan.ref} is archived")]
    active = ledger.active(plan.ref)
    if active is not None:
        return [Finding("Pending", Category.ADVISORY, "Started", f"waits for run {active.run} of the same plan")]
    blockers = [f for f in planchecks.plan_findings(desired, observed, plan).findings if f.category is Category.CRITICAL]
    return [critical("PlanNotReady", f.reason, f.message, f.suggestion) for f in blockers]


def _run_findings(run: RunRecord, desired: Desired, vms: tuple[VmRecord, ...], index: SiteIndex | None) -> list[Finding]:
    found: list[Finding] = []
    if run.result is not None:
        found.append(Finding(run.result.value, Category.ADVISORY, "Completed", _outcome(run, vms)))
    else:
        found.append(Finding("Running", Category.ADVISORY, "Started", f"began at commit {run.revision[:12]}"))
        found += _vm_findings(vms)
    spec = desired.migrations.get(run.run)
    if spec is None and run.result is None:
        found.append(Finding("ManifestGone", Category.WARN, "NotFound", "the Migration's file is gone; see the VMs for what that means"))
    for ref in spec.cancel if spec else ():
        hits = runs.meant(ref, vms, index)
        if len(hits) > 1:
            several = ", ".join(f"{v.wanted} ({v.id})" for v in hits)
            text = f"spec.cancel names {ref}, which fits {len(hits)} VMs of this run: {several}; none of them is cancelled for it"
            found.append(Finding("DuplicateVM", Category.WARN, "Ambiguous", text, "use the id or the full path"))
            continue
        if not hits:
            found.append(Finding("VMNotFound", Category.WARN, "NotFound", f"spec.cancel names {ref}, which is no VM of this run"))
        late = [v for v in hits if v.cancel_at is None and (v.result is Result.SUCCEEDED or v.milestone.order >= 2)]
        found += [
            Finding("CancelTooLate", Category.WARN, "UserRequested", f"{v.name} was handed over before the cancel came") for v in late
        ]
    return found


def _outcome(run: RunRecord, vms: tuple[VmRecord, ...]) -> str:
    counts = Counter(v.result.value.lower() for v in vms if v.result)
    parts = ", ".join(f"{n} {word}" for word, n in sorted(counts.items(), reverse=True))
    return f"the run ended: {parts}" if parts else "there was nothing left to move"
