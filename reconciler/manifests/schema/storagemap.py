"""StorageMap: source storage to target storage classes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reconciler.manifests.schema.shapes import Manifest, Model, ProviderPair, Ref

XcopyVendor = Literal[
    "flashsystem", "vantara", "ontap", "primera3par", "pureFlashArray", "powerflex", "powermax", "powerstore", "infinibox"
]


class StorageDestination(Model):
    storage_class: str = Field(min_length=1)
    volume_mode: Literal["Filesystem", "Block"] | None = None
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"] | None = None


class VsphereXcopyConfig(Model):
    secret_ref: str = Field(description="Name of a Secret in the source provider's namespace.")
    storage_vendor_product: XcopyVendor
    dedicated_migration_hosts: list[str] = Field(default_factory=list, description="ESXi host ids that run the copy.")


class CsiVolumeImport(Model):
    secret_ref: str = Field(description="Name of a Secret in the source provider's namespace.")
    storage_vendor_product: Literal["primera3par", "ontap"]


class OffloadPlugin(Model):
    """Copy inside the storage array."""

    vsphere_xcopy_config: VsphereXcopyConfig | None = None
    csi_volume_import: CsiVolumeImport | None = None


class StorageEntry(Model):
    source: Ref
    destination: StorageDestination
    offload_plugin: OffloadPlugin | None = None


class StorageMapSpec(Model):
    provider: ProviderPair
    map: list[StorageEntry]


class StorageMap(Manifest):
    """Which datastore, domain or volume type becomes which storage class."""

    kind: Literal["StorageMap"]
    spec: StorageMapSpec
