"""`reconciler inventory PROVIDER`: what a source holds, to write plans and maps from.

What it is: one bulk read of one source, shown as tables or JSON, with the path that each disk would be read by and why, and Forklift's
concerns. What it is not: a judgement of a plan (`reconciler plan`). Read-only: no lease, no write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from rich.console import Console, RenderableType

from reconciler.app import open_repo, open_sites
from reconciler.commands.reading import Reader, from_folder
from reconciler.core import datapath, vddk
from reconciler.core.concerns.evaluate import evaluate
from reconciler.core.concerns.rule import Concern
from reconciler.core.desired import Desired, ProviderSpec
from reconciler.core.inventory import Inventory, NamedItem, SourceDisk, SourceVm
from reconciler.core.model import Mode, ObjectRef, Platform
from reconciler.errors import UserError
from reconciler.manifests.load import DEFAULT_NAMESPACE
from reconciler.manifests.spelling import did_you_mean
from reconciler.ports import Clock
from reconciler.report.numbers import plural, size
from reconciler.report.tables import cell, plain_table
from reconciler.settings import Settings

Output = Literal["table", "json"]
_WIDE = 160


@dataclass(frozen=True, slots=True)
class Source:
    """`vddk`: which setting names an image with VDDK, as a plan's checks would take it."""

    provider: ProviderSpec
    vddk: str


def run(settings: Settings, *, name: str, folder: Path | None, output: Output, clock: Clock, out: TextIO) -> int:
    """0. Errors: UserError for a Provider that is not there or is no source; those of repo and site."""
    desired = from_folder(folder) if folder is not None else Reader(open_repo(settings, clock)).read()[1]
    provider = find_provider(desired, name)
    sites = open_sites(settings, clock)
    try:
        inventory = sites.source(provider).read_inventory()
    finally:
        sites.close()
    source = Source(provider, vddk.named(provider, desired.limits).setting)
    if output == "json":
        out.write(json.dumps(_document(source, inventory), indent=2) + "\n")
        return 0
    console = Console(file=out, width=None if out.isatty() else _WIDE, soft_wrap=False)
    for part in _tables(source, inventory):
        console.print(part)
    return 0


def find_provider(desired: Desired, name: str) -> ProviderSpec:
    """NAME or NAMESPACE/NAME. Errors: UserError NotFound, NotSupported."""
    namespace, _, last = name.rpartition("/")
    ref = ObjectRef(namespace or DEFAULT_NAMESPACE, last)
    provider = desired.providers.get(ref)
    if provider is None:
        hint = did_you_mean(last, [one.name for one in desired.providers])
        raise UserError("NotFound", f"there is no Provider {ref}{': ' + hint if hint else ''}")
    if provider.platform == Platform.OPENSHIFT:
        raise UserError("NotSupported", f"Provider {ref} is a target; name a source, such as a vCenter")
    return provider


# ---- JSON -------------------------------------------------------------------------------------------------------------------------------


def _document(source: Source, inventory: Inventory) -> dict[str, object]:
    site = inventory.site
    return {
        "provider": str(source.provider.ref),
        "site": {"uuid": site.uuid, "product": site.product, "version": site.version},
        "vms": [_vm(source, vm) for vm in _sorted(inventory.vms)],
        "networks": [_item(item) for item in inventory.networks],
        "datastores": [_item(item) for item in inventory.storages],
    }


def _vm(source: Source, vm: SourceVm) -> dict[str, object]:
    return {
        "id": vm.id,
        "name": vm.name,
        "path": vm.path,
        "uuid": vm.uuid,
        "power": vm.power.value,
        "template": vm.is_template,
        "cpus": vm.cpus,
        "memoryBytes": vm.memory_bytes,
        "firmware": vm.firmware,
        "guest": vm.guest_name,
        "disks": [_disk(source, vm, disk) for disk in vm.disks],
        "nics": [{"network": n.network_name, "networkId": n.network_id, "mac": n.mac, "model": n.model} for n in vm.nics],
        "snapshots": [s.name for s in vm.snapshots],
        "concerns": [
            {"category": c.category.value, "label": c.label, "assessment": c.assessment, "id": c.id} for c in _concerns(source, vm)
        ],
    }


def _disk(source: Source, vm: SourceVm, disk: SourceDisk) -> dict[str, object]:
    choice = _choice(source, vm, disk)
    return {
        "label": disk.label,
        "file": disk.backing.file,
        "capacityBytes": disk.capacity_bytes,
        "datastore": disk.storage_name,
        "datastoreId": disk.storage_id,
        "path": choice.path or "",
        "reason": choice.reason,
        "remedy": choice.remedy,
    }


def _item(item: NamedItem) -> dict[str, object]:
    return {"id": item.id, "name": item.name, **({"kind": item.kind} if item.kind else {})}


def _choice(source: Source, vm: SourceVm, disk: SourceDisk) -> datapath.PathChoice:
    return datapath.choose(disk, vm, vddk=source.vddk, mode=Mode.COLD)


def _concerns(source: Source, vm: SourceVm) -> tuple[Concern, ...]:
    known = source.provider.platform in list(Platform) and bool(vm.attributes)
    return evaluate(Platform(source.provider.platform), vm.attributes) if known else ()


def _sorted(vms: Iterable[SourceVm]) -> list[SourceVm]:
    return sorted(vms, key=lambda vm: (vm.path, vm.id))


# ---- tables -----------------------------------------------------------------------------------------------------------------------------


def _tables(source: Source, inventory: Inventory) -> Iterator[RenderableType]:
    site = inventory.site
    version = "" if site.version in site.product else f" {site.version}"
    yield cell(f"{source.provider.ref}: {site.product}{version}, {site.uuid}")
    table = plain_table("Id", "VM", "Path", "Power", "Disks", "Networks", "Read by", "Concerns", title="VMs")
    for vm in _sorted(inventory.vms):
        disks = f"{len(vm.disks)}, {size(sum(d.capacity_bytes for d in vm.disks))}"
        networks = ", ".join(dict.fromkeys(n.network_name for n in vm.nics))
        cells = (vm.id, vm.name, vm.path, vm.power.value, disks, networks, _paths(source, vm), _worries(source, vm))
        table.add_row(*(cell(text) for text in cells))
    yield table
    for title, items in (("Networks", inventory.networks), ("Datastores", inventory.storages)):
        listed = plain_table("Id", "Name", "Kind", title=title)
        for item in sorted(items, key=lambda i: i.name):
            listed.add_row(cell(item.id), cell(item.name), cell(item.kind))
        yield listed


def _paths(source: Source, vm: SourceVm) -> str:
    """One word where all disks are read alike; else the first reason why one cannot be."""
    choices = [_choice(source, vm, d) for d in vm.disks]
    refused = next((c for c in choices if c.path is None), None)
    if refused is not None:
        return f"no path: {refused.reason}. {refused.remedy}"
    return ", ".join(dict.fromkeys(c.path or "" for c in choices))


def _worries(source: Source, vm: SourceVm) -> str:
    """What would block is named; the rest is counted, and stands in the JSON."""
    found = _concerns(source, vm)
    critical = [c.label for c in found if c.category == "Critical"]
    warnings = sum(c.category == "Warning" for c in found)
    return "; ".join([*critical, *([plural(warnings, "warning")] if warnings else [])])
