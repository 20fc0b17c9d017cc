"""Which kinds there are. One row per kind; nothing else in the package lists them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from reconciler.manifests.schema.forkliftcontroller import ForkliftController
from reconciler.manifests.schema.hook import Hook
from reconciler.manifests.schema.host import Host
from reconciler.manifests.schema.migration import Migration
from reconciler.manifests.schema.networkmap import NetworkMap
from reconciler.manifests.schema.plan import Plan
from reconciler.manifests.schema.provider import Provider
from reconciler.manifests.schema.shapes import Manifest
from reconciler.manifests.schema.storagemap import StorageMap


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    plural: str
    model: type[Manifest]


KINDS = MappingProxyType(
    {
        row.name: row
        for row in (
            Kind("Provider", "providers", Provider),
            Kind("Host", "hosts", Host),
            Kind("NetworkMap", "networkmaps", NetworkMap),
            Kind("StorageMap", "storagemaps", StorageMap),
            Kind("Plan", "plans", Plan),
            Kind("Migration", "migrations", Migration),
            Kind("Hook", "hooks", Hook),
            Kind("ForkliftController", "forkliftcontrollers", ForkliftController),
        )
    }
)

# Made by Forklift's own controllers, never by people; found in cluster exports and left alone.
INTERNAL_KINDS = frozenset(
    {
        "Conversion",
        "OVAProviderServer",
        "HyperVProviderServer",
        "OvirtVolumePopulator",
        "OpenstackVolumePopulator",
        "VSphereXcopyVolumePopulator",
    }
)
