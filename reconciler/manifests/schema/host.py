"""Host: which ESXi address and credentials to use for disk transfer (vSphere only)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reconciler.manifests.schema.shapes import Manifest, ObjectReference, Ref


class HostSpec(Ref):
    provider: ObjectReference
    ip_address: str = Field(min_length=1, description="ESXi address for transfers.")
    secret: ObjectReference


class Host(Manifest):
    """An ESXi host used directly for transfers."""

    kind: Literal["Host"]
    spec: HostSpec
