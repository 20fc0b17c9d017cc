"""(platform, workload document) -> concerns. Pure; the one entrance to the tables."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.core.concerns import openstack, ovirt, vmware
from reconciler.core.concerns.rule import Concern, Document, Rule
from reconciler.core.model import Platform

# Forklift ships no policies for OpenShift, EC2 and Nutanix sources: their lists stay empty.
TABLES: Mapping[Platform, tuple[Rule, ...]] = {
    Platform.VSPHERE: vmware.RULES,
    Platform.OVIRT: ovirt.RULES,
    Platform.OPENSTACK: openstack.RULES,
}


def evaluate(platform: Platform, attributes: Document) -> tuple[Concern, ...]:
    """All concerns of one VM, sorted, each once. A document whose name is no text is not a VM's and yields none."""
    if not isinstance(attributes.get("name"), str):
        return ()
    found = {concern for rule in TABLES.get(platform, ()) for concern in rule.concerns(attributes)}
    return tuple(sorted(found))
