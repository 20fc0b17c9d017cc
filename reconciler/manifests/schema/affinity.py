"""Kubernetes core/v1 Affinity, typed, so that a misspelt rule fails in the pull request and not when the target VM is made.

Source: Kubernetes API core/v1 Affinity, 1.31 (matchLabelKeys, mismatchLabelKeys included).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reconciler.manifests.schema.shapes import Model


class NodeRequirement(Model):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] = Field(default_factory=list)


class NodeTerm(Model):
    match_expressions: list[NodeRequirement] = Field(default_factory=list)
    match_fields: list[NodeRequirement] = Field(default_factory=list)


class NodeSelector(Model):
    node_selector_terms: list[NodeTerm]


class PreferredNode(Model):
    weight: int = Field(ge=1, le=100)
    preference: NodeTerm


class NodeAffinity(Model):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredNode] = Field(default_factory=list)


class LabelRequirement(Model):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = Field(default_factory=list)


class LabelSelector(Model):
    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[LabelRequirement] = Field(default_factory=list)


class PodTerm(Model):
    topology_key: str = Field(min_length=1)
    label_selector: LabelSelector | None = None
    namespaces: list[str] = Field(default_factory=list)
    namespace_selector: LabelSelector | None = None
    match_label_keys: list[str] = Field(default_factory=list)
    mismatch_label_keys: list[str] = Field(default_factory=list)


class PreferredPod(Model):
    weight: int = Field(ge=1, le=100)
    pod_affinity_term: PodTerm


class PodAffinity(Model):
    required_during_scheduling_ignored_during_execution: list[PodTerm] = Field(default_factory=list)
    preferred_during_scheduling_ignored_during_execution: list[PreferredPod] = Field(default_factory=list)


class Affinity(Model):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None
