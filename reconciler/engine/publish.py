"""New Records -> files and a commit message; and how urgent the difference is.

What it is: the only place that turns records into changes of the status branch. What it is not: git (gitrepo) or YAML (manifests.record).
Intents, milestones, claims, results, and a round's begin and end are committed in the pass that makes them; other changes at most every
5 s, mere progress every 5 minutes. A pass that changes nothing commits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from reconciler.core.desired import Desired, Problem
from reconciler.core.model import ObjectRef
from reconciler.core.record import Claim, Progress, Records, RunRecord, VmRecord
from reconciler.manifests import record as codec
from reconciler.manifests import recordpaths
from reconciler.manifests.composed import compose_status
from reconciler.manifests.emit import dump
from reconciler.report import commit, markdown

README = "README.md"


class Urgency(IntEnum):
    NONE = 0
    PROGRESS = 1
    SOON = 2
    NOW = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between commits of each urgency below NOW."""

    soon_s: float = 5.0
    progress_s: float = 300.0


def _runs(records: Records) -> dict[ObjectRef, RunRecord]:
    """What runs say besides for how long a removal was watched."""
    return {ref: replace(run, removal_s=0.0) for ref, run in records.runs.items()}


def _core(record: VmRecord) -> tuple[object, ...]:
    return (
        record.milestone,
        record.intents,
        record.result,
        record.unwinding,
        record.cancel_at,
        record.attempt,
        record.source,
        record.frozen,
        record.epoch,
        record.error,
        record.spoilt,
        tuple((r.number, r.ended, r.abandoned) for r in record.rounds),  # a round is written down before its snapshot is made
    )


def _without_progress(record: VmRecord) -> VmRecord:
    disks = tuple(replace(d, watermark_bytes=0) for d in record.disks)
    steps = tuple(replace(s, progress=Progress(), tasks=()) for s in record.pipeline)
    return replace(record, message="", disks=disks, pipeline=steps, timers={})


def _owners(records: Records) -> dict[tuple[str, str], Claim]:
    """What a claim says besides how the target VM was seen last."""
    return {key: replace(claim, reserved="") for key, claim in records.claims.items()}


def urgency(old: Records, new: Records) -> Urgency:
    claimed = old.claims != new.claims and _owners(old) != _owners(new)
    watched = old.runs != new.runs
    if claimed or (watched and _runs(old) != _runs(new)) or old.archived != new.archived or old.instance != new.instance:
        return Urgency.NOW
    quiet = Urgency.PROGRESS if watched else Urgency.NONE
    worst = quiet if (old.statuses, old.claims) == (new.statuses, new.claims) else Urgency.SOON
    for key, record in new.vms.items():
        was = old.vms.get(key)
        if was is record or was == record:
            continue
        if was is None or _core(was) != _core(record):
            return Urgency.NOW
        mild = _without_progress(was) == _without_progress(record)
        worst = max(worst, Urgency.PROGRESS if mild else Urgency.SOON)
    return worst


def changes(old: Records, new: Records, problems: tuple[Problem, ...]) -> dict[str, bytes | None]:
    """Path -> bytes, None for a file that goes. Only what differs is rendered, plus the README."""
    files: dict[str, bytes | None] = {}
    if old.instance != new.instance:
        files[recordpaths.INSTANCE] = codec.render_instance(new.instance)
    for run_ref, run in new.runs.items():
        if old.runs.get(run_ref) != run:
            files[recordpaths.path_of_run(run.run)] = codec.render_run(run)
    for key, vm in new.vms.items():
        if old.vms.get(key) != vm:
            files[recordpaths.path_of_vm(*key)] = codec.render_vm(vm)
    for claim_key, claim in new.claims.items():
        if old.claims.get(claim_key) != claim:
            files[recordpaths.path_of_claim(*claim_key)] = codec.render_claim(claim)
    for claim_key in old.claims.keys() - new.claims.keys():
        files[recordpaths.path_of_claim(*claim_key)] = None
    for status_key, status in new.statuses.items():
        if old.statuses.get(status_key) != status:
            files[recordpaths.path_of_status(status.kind, status.ref)] = codec.render_status(status)
    for kind, ref in old.statuses.keys() - new.statuses.keys():
        files[recordpaths.path_of_status(kind, ref)] = None
    for plan in new.archived - old.archived:
        files |= _archive(plan, new)
    if files:
        files[README] = markdown.render_readme(new, problems).encode()
    return files


def _archive(plan: ObjectRef, records: Records) -> dict[str, bytes]:
    """Copies, complete in one commit; the files under runs/ stay, so that a run never begins again."""
    shape = compose_status(records, Desired(""), "Plan", plan)
    files = {recordpaths.path_of_archive(plan): dump(shape)}
    for run in records.runs.values():
        if run.plan == plan:
            files[recordpaths.path_of_archive(plan, run.run, "run.yaml")] = codec.render_run(run)
    for vm in records.vms.values():
        if vm.plan == plan:
            files[recordpaths.path_of_archive(plan, vm.run, "vms", f"{vm.slug}.yaml")] = codec.render_vm(vm)
    return files


def message(old: Records, new: Records, problems: tuple[Problem, ...], revision: str) -> str:
    return commit.message(old, new, problems, revision=revision)
