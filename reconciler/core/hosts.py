"""Host manifests, judged: what each one's status says, and which VMs it keeps from starting while it is not as it should be.

What it is: pure; over what the source driver found out (inventory.HostAccess). What it is not: the choice of a reader (datapath.py): a disk
is read in the same way, only from its ESXi host instead of the vCenter.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.desired import HostSpec
from reconciler.core.findings import Finding, critical
from reconciler.core.inventory import HostAccess, Inventory, SourceVm
from reconciler.core.model import Known, ObjectRef, Unknown
from reconciler.core.record import Category


def findings(host: HostSpec, seen: Known[Inventory] | Unknown | None) -> Iterator[Finding]:
    """Conditions of the Host itself, with Forklift's names. `seen`: its provider, as looked at in this pass."""
    if not isinstance(seen, Known):
        why = seen.message if isinstance(seen, Unknown) else f"Provider {host.provider} is not there"
        yield critical("ConnectionTestFailed", "ProviderNotReady", f"its Provider cannot be asked: {why}")
        return
    access = seen.value.host_access.get(host.ref)
    if access is None:
        yield critical("RefNotValid", "NotFound", f"Provider {host.provider} knows nothing of it")
    elif access.type:
        yield critical(access.type, access.reason, access.message, access.suggestion)
    else:
        yield Finding("ConnectionTestSucceeded", Category.REQUIRED, "Tested", f"{access.host_name} let us in at {access.address}")
        yield Finding("Validated", Category.ADVISORY, "Completed", "disks of VMs on this host are read from it directly")


def obstacles(inventory: Inventory, source: SourceVm) -> Iterator[Finding]:
    """A VM on a host whose manifest does not hold waits for that: who names an address wants no other one used."""
    for ref, access in _of(inventory, source):
        if access.type:
            text = f"{source.name} is on {access.host_name}, whose disks Host {ref} wants read from {access.address}: {access.message}"
            yield critical("HostNotReady", access.reason, text, access.suggestion or f"correct Host {ref}, or remove it")


def words(inventory: Inventory, source: SourceVm) -> str:
    """What to add to the reason of a disk's path; "" when it is read where the provider is."""
    return "".join(
        f", from {access.host_name} at {access.address} (Host {ref})" for ref, access in _of(inventory, source) if not access.type
    )


def _of(inventory: Inventory, source: SourceVm) -> Iterator[tuple[ObjectRef, HostAccess]]:
    """A second manifest for the same host harms only itself."""
    for ref, access in inventory.host_access.items():
        if access.host_id and access.host_id == source.host_id and access.reason != "NotUnique":
            yield ref, access
