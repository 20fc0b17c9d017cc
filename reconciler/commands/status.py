"""`reconciler status [KIND/NAME]`: what the status branch says, as tables, or as YAML or JSON in Forklift's full shape.

What it is: read-only; it needs the repo and nothing else, no lease, no cluster. What it is not: the live truth of the sites; a reconciler
that runs keeps the branch fresh. Where it stands: StatusRepo -> Records and Desired -> report.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from reconciler.commands.reading import Reader
from reconciler.core.desired import Desired
from reconciler.core.model import ObjectRef
from reconciler.core.record import Records, VmRecord
from reconciler.errors import RetryableError, UserError
from reconciler.manifests.composed import compose_status
from reconciler.manifests.emit import dump
from reconciler.manifests.load import DEFAULT_NAMESPACE
from reconciler.manifests.schema.registry import KINDS
from reconciler.manifests.spelling import did_you_mean
from reconciler.ports import Clock, StatusRepo
from reconciler.report import tables
from reconciler.report.plans import plan_view, plan_views
from reconciler.report.vmdetail import vm_detail
from reconciler.report.words import standing, vm_name

log = logging.getLogger(__name__)

Output = Literal["table", "yaml", "json"]
_WATCH_EVERY_S = 2.0
_NARROW = 100


@dataclass(frozen=True, slots=True)
class Target:
    """`kind` is one of ours, or VM. `namespace` "" searches the default one."""

    kind: str
    ref: ObjectRef


def run(repo: StatusRepo, *, target: str | None, watch: bool, output: Output, clock: Clock, out: TextIO) -> int:
    """0. With `watch`, prints again whenever a branch moved, until interrupted.

    Errors: UserError for an unknown target; those of StatusRepo.
    """
    wanted = parse_target(target) if target else None
    reader = Reader(repo)
    console = Console(file=out, width=None if out.isatty() else _NARROW, soft_wrap=False)
    shown = ""
    try:
        while True:
            shown = _show_once(reader, wanted, output, console, shown, clock.now(), forgiving=watch and shown != "")
            if not watch:
                return 0
            clock.sleep(_WATCH_EVERY_S)
    except KeyboardInterrupt:
        return 0


def _show_once(reader: Reader, wanted: Target | None, output: Output, console: Console, shown: str, now: datetime, forgiving: bool) -> str:
    """Returns what both branches stood at. `forgiving`: a remote that is away for a moment does not end a watch."""
    try:
        records, desired = reader.read()
    except RetryableError as err:
        if not forgiving:
            raise
        log.warning("repo not readable now", extra={"reason": err.reason, "detail": err.message})
        return shown
    stand = f"{records.commit} {desired.revision}"
    if stand == shown:
        return shown
    if shown and console.is_terminal:
        console.clear()
    if output == "table":
        for part in _tables(records, desired, wanted, now):
            console.print(part)
    else:
        console.file.write(_document(records, desired, wanted, output, now))
    console.file.flush()
    return stand


# ---- target ---------------------------------------------------------------------------------------------------------------------------


def parse_target(text: str) -> Target:
    """`plan/NAME`, `plans/NAMESPACE/NAME`, `vm/NAME`. Errors: UserError."""
    kind, _, rest = text.partition("/")
    namespace, _, name = rest.rpartition("/")
    if not name or "/" in namespace:
        raise UserError("InvalidArgument", f'"{text}" is not KIND/NAME or KIND/NAMESPACE/NAME, for example plan/shop-wave-1')
    by_word = {word: row.name for row in KINDS.values() for word in (row.name.lower(), row.plural)} | {"vm": "VM", "vms": "VM"}
    if kind.lower() not in by_word:
        raise UserError("UnknownKind", f'unknown kind "{kind}"; known are vm, {", ".join(k.lower() for k in KINDS)}')
    return Target(by_word[kind.lower()], ObjectRef(namespace or DEFAULT_NAMESPACE, name))


def find_vms(records: Records, ref: ObjectRef) -> list[VmRecord]:
    """The newest record of each VM of that source name, new name, id or record name. Errors: UserError NotFound."""
    every = [vm for plan in plan_views(records) for vm in plan.vms]
    found = [vm for vm in every if ref.name in (vm_name(vm), vm.wanted, vm.new_name, vm.id, vm.slug) and vm.run.namespace == ref.namespace]
    if not found:
        hint = did_you_mean(ref.name, [vm_name(vm) for vm in every])
        raise UserError("NotFound", f"no run in {ref.namespace} has a VM {ref.name}{': ' + hint if hint else ''}")
    return found


# ---- tables ---------------------------------------------------------------------------------------------------------------------------


def _tables(records: Records, desired: Desired, wanted: Target | None, now: datetime) -> Iterator[RenderableType]:
    match wanted:
        case None:
            yield from _overview(records, desired, now)
        case Target("VM", ref):
            for vm in find_vms(records, ref):
                yield tables.vms_view([vm], now, f"{vm.plan} ({vm.run.name})")
                yield vm_detail(vm)
        case Target("Plan", ref):
            yield from _conditions(compose_status(records, desired, "Plan", ref))
            plan = plan_view(records, ref)
            yield tables.vms_view(plan.vms, now, str(ref)) if plan.runs else Text("no Migration has started this plan yet")
        case Target("Migration", ref):
            yield from _conditions(compose_status(records, desired, "Migration", ref))
            vms = [vm for vm in records.vms.values() if vm.run == ref]
            if vms:
                yield tables.vms_view(sorted(vms, key=lambda vm: (standing(vm), vm.slug)), now, str(ref))
        case Target(kind, ref):
            yield from _conditions(compose_status(records, desired, kind, ref))


def _overview(records: Records, desired: Desired, now: datetime) -> Iterator[RenderableType]:
    if desired.problems:
        yield tables.problems_table(desired.problems)
    if not records.statuses and not records.runs:
        yield Text("the status branch is empty: no reconciler has written to it yet")
        return
    yield tables.providers_table(records)
    yield tables.plans_table(records)
    for plan in plan_views(records):
        if plan.runs:
            yield tables.vms_view(plan.vms, now, str(plan.ref))


def _conditions(status: dict[str, Any]) -> Iterator[RenderableType]:
    yield tables.conditions_table(status["status"]["conditions"])


# ---- YAML, JSON -----------------------------------------------------------------------------------------------------------------------


def _document(records: Records, desired: Desired, wanted: Target | None, output: Output, now: datetime) -> str:
    data = _composed(records, desired, wanted, now)
    if output == "json":
        return json.dumps(data, indent=2, ensure_ascii=True) + "\n"
    return dump(data).decode()


def _composed(records: Records, desired: Desired, wanted: Target | None, now: datetime) -> dict[str, Any]:
    match wanted:
        case None:
            refs = sorted(
                set(records.statuses) | {("Plan", r.plan) for r in records.runs.values()} | {("Migration", r) for r in records.runs}
            )
            return {"apiVersion": "v1", "kind": "List", "items": [compose_status(records, desired, kind, ref, now) for kind, ref in refs]}
        case Target("VM", ref):
            return _vm_document(records, desired, find_vms(records, ref), now)
        case Target(kind, ref):
            return compose_status(records, desired, kind, ref, now)


def _vm_document(records: Records, desired: Desired, vms: list[VmRecord], now: datetime) -> dict[str, Any]:
    """Forklift has no VM object; this is the entry of its migration's status, under the plan that it belongs to."""
    items = []
    for vm in vms:
        entries = compose_status(records, desired, "Migration", vm.run, now)["status"]["vms"]
        entry = next(e for e in entries if e.get("id", "") == vm.id and e["name"] == (vm.name or vm.wanted))
        items.append({"plan": str(vm.plan), "migration": str(vm.run), "milestone": vm.milestone.value, **entry})
    return items[0] if len(items) == 1 else {"items": items}
