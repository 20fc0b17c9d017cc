"""Migration: starts a Plan; later edits give the cutover or cancel VMs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reconciler.manifests.schema.shapes import Manifest, Model, ObjectReference, Ref, Time


class VmCutover(Model):
    id: str = Field(min_length=1, description="VM id; names do not match here.")
    cutover: Time


class MigrationSpec(Model):
    plan: ObjectReference
    cancel: list[Ref] = Field(default_factory=list, description="VMs to cancel.")
    cutover: Time | None = Field(default=None, description="Warm: when to finalise all VMs; the past means now.")
    vm_cutover: list[VmCutover] = Field(default_factory=list, description="Warm: per-VM override of cutover.")
    resume_conversion: bool = Field(default=False, description="Skip copying, run the conversion of the failed run again.")


class Migration(Manifest):
    """One run of a Plan."""

    kind: Literal["Migration"]
    spec: MigrationSpec
