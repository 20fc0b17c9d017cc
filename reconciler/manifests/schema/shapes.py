"""What all kinds share: strictness, metadata, references and the checked scalars.

What it is: the pydantic edge between YAML and types. What it is not: checks across objects (resolve.py).
Strict: a string is never taken for a number or a boolean. `status` and unknown metadata are ignored, so the output of
`kubectl get -o yaml` loads; any other unknown field is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from reconciler.manifests.spelling import camel

API_VERSION = "forklift.konveyor.io/v1beta1"
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


class Model(BaseModel):
    """Base of every block. A null is the same as an absent field, as it is for the Kubernetes API server."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=camel, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and None in raw.values():
            known = {f.alias for f in cls.model_fields.values()}
            return {k: v for k, v in raw.items() if v is not None or k not in known}
        return raw


def is_subdomain(text: str) -> bool:
    """RFC 1123 subdomain as Kubernetes checks object names."""
    return len(text) <= 253 and SUBDOMAIN.fullmatch(text) is not None


def is_label(text: str) -> bool:
    return len(text) <= 63 and LABEL.fullmatch(text) is not None


def _object_name(text: str) -> str:
    if not is_subdomain(text):
        raise PydanticCustomError("bad_name", "must be a DNS-1123 name: lower-case letters, digits, '-' and '.'")
    return text


def _namespace_name(text: str) -> str:
    if not is_label(text):
        raise PydanticCustomError("bad_name", "must be a DNS-1123 label: at most 63 lower-case letters, digits and '-'")
    return text


def _time(raw: Any) -> Any:
    if isinstance(raw, str):
        if not _RFC3339.fullmatch(raw):
            raise PydanticCustomError("bad_time", 'must be an RFC 3339 time with a zone, for example "2026-09-12T22:00:00Z"')
        try:
            return datetime.fromisoformat(raw).astimezone(UTC)
        except (ValueError, OverflowError):
            raise PydanticCustomError("bad_time", "is not a possible date and time") from None
    return raw


def matching(pattern: str, words: str) -> Callable[[str], str]:
    """A check that the whole text matches; `words` says so to a person."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise PydanticCustomError("bad_text", "{words}", {"words": words})
        return text

    return check


ObjectName = Annotated[str, AfterValidator(_object_name), Field(min_length=1, max_length=253)]
NamespaceName = Annotated[str, AfterValidator(_namespace_name), Field(min_length=1, max_length=63)]
Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
QUANTITY = r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
Quantity = Annotated[str, AfterValidator(matching(QUANTITY, "must be a quantity, for example 20Gi"))]
PowerState = Literal["on", "off", "auto"]


class Metadata(Model):
    """Object metadata. Everything but these four is accepted and ignored (uid, resourceVersion, ownerReferences …)."""

    model_config = ConfigDict(extra="ignore")

    name: ObjectName
    namespace: NamespaceName | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Manifest(Model):
    """Top level of every kind; each kind adds `kind` and `spec`."""

    api_version: Literal["forklift.konveyor.io/v1beta1"]
    metadata: Metadata
    status: Any = Field(default=None, description="Written by controllers; ignored.")


class ObjectReference(Model):
    """Kubernetes ObjectReference; only namespace and name count. An empty namespace means the manifest's own."""

    name: str = ""
    namespace: str = ""
    api_version: str = ""
    kind: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class Ref(Model):
    """A thing in a provider's inventory. `id` wins over `name`."""

    id: str = Field(default="", description="The provider's object id, for example vm-1042.")
    name: str = Field(default="", description="Object name; vSphere: may be a path with / when the bare name is not unique.")
    namespace: str = Field(default="", description="OpenShift sources only.")
    type: str = Field(default="", description="Qualifier; pod for the pod network of an OpenShift source.")


class ProviderPair(Model):
    source: ObjectReference
    destination: ObjectReference
