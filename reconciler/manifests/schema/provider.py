"""Provider: a source or destination platform and where its credentials are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reconciler.manifests.schema.shapes import Manifest, Model, ObjectReference

ProviderType = Literal["openshift", "vsphere", "ovirt", "openstack", "ova", "hyperv", "ec2", "nutanix"]


class ProviderSettings(Model):
    """All values are strings, as in Forklift."""

    vddk_init_image: str = Field(default="", description="vSphere: image with VDDK; disks are then read through it.")
    sdk_endpoint: Literal["", "vcenter", "esxi"] = Field(default="", description="vSphere: which API is behind url.")
    thumbprint: str = Field(default="", description="vSphere: SHA-1 or SHA-256 of the server certificate, pinned. Ours; Forklift has none.")
    request_timeout_seconds: str = Field(default="", description="vSphere: seconds that one request may take. Ours; Forklift has none.")
    use_vddk_aio_optimization: str = Field(default="", description='vSphere: "true" passes VDDK buffer settings to the copier.')
    vddk_config: str = Field(default="", description="vSphere: text of a VDDK configuration file; counts only with useVddkAioOptimization.")
    esxi_clone_method: Literal["", "vib", "ssh"] = Field(default="", description="vSphere: how vmkfstools is run on ESXi.")
    target_az: str = Field(default="", alias="target-az", description="EC2: availability zone of the volumes.")
    target_region: str = Field(default="", alias="target-region", description="EC2: region, if not the secret's.")
    winrm_port: str = Field(default="", description="Hyper-V: WinRM over HTTPS, 5986 if empty.")
    management_type: Literal["", "standalone", "cluster"] = Field(default="", description="Hyper-V: fail-over cluster mode.")
    prism_type: Literal["", "central", "element"] = Field(default="", description="Nutanix: which Prism is behind url.")
    cluster_uuid: str = Field(default="", description="Nutanix: cluster UUID.")


class ProviderSpec(Model):
    type: ProviderType
    url: str = Field(default="", description="API endpoint; empty only for the openshift provider that is this cluster.")
    secret: ObjectReference
    settings: ProviderSettings = Field(default_factory=ProviderSettings)


class Provider(Manifest):
    """A platform that VMs come from or go to."""

    kind: Literal["Provider"]
    spec: ProviderSpec
