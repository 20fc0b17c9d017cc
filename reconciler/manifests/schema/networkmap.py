"""NetworkMap: source networks to target networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from reconciler.manifests.schema.shapes import Manifest, Model, ProviderPair, Ref, matching

_VLAN = r"[1-9]|[1-9][0-9]{1,2}|[1-3][0-9]{3}|40[0-8][0-9]|409[0-4]"
Vlan = Annotated[
    str,
    AfterValidator(matching(_VLAN, "must be a VLAN from 1 to 4094, in quotes")),
    Field(json_schema_extra={"pattern": f"^({_VLAN})$"}),
]


class NetworkSource(Ref):
    vlan: Vlan | None = Field(default=None, description="Hyper-V only: splits the NICs of one switch.")


class NetworkDestination(Model):
    type: Literal["pod", "multus", "ignored"]
    namespace: str = Field(default="", description="multus: namespace of the NetworkAttachmentDefinition.")
    name: str = Field(default="", description="multus: name of the NetworkAttachmentDefinition.")


class NetworkEntry(Model):
    source: NetworkSource
    destination: NetworkDestination


class NetworkMapSpec(Model):
    provider: ProviderPair
    map: list[NetworkEntry]


class NetworkMap(Manifest):
    """Which source network becomes which target network."""

    kind: Literal["NetworkMap"]
    spec: NetworkMapSpec
