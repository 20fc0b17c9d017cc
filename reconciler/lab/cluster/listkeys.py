"""Which lists and maps of the API are merged by item, by value, or replaced whole.

What it is: the `x-kubernetes-list-type` and `patchMergeKey` facts of the kinds served here; read by patching.py and fieldsets.py.
Source: the OpenAPI of Kubernetes 1.3x. Lists of custom resources without keys in their CRD are atomic, KubeVirt's among them.
"""

from __future__ import annotations

from typing import Any, Final

SET: Final = ("",)
_METADATA: dict[str, tuple[str, ...]] = {"ownerReferences": ("uid",), "finalizers": SET}
_BUILT_IN: dict[str, tuple[str, ...]] = {
    **_METADATA,
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "conditions": ("type",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
}
_ATOMIC_MAPS = frozenset(
    {
        "selector",
        "labelSelector",
        "nodeSelector",
        "dataSource",
        "claimRef",
        "involvedObject",
        "secretKeyRef",
        "configMapKeyRef",
        "fieldRef",
        "resourceFieldRef",
        "nodeSelectorTerms",
    }
)
# Key fields that an item may leave out, and what it then counts as.
_DEFAULTS = {"protocol": "TCP"}


def list_keys(name: str, custom: bool, in_metadata: bool) -> tuple[str, ...] | None:
    """The key fields of the list `name`; SET for lists merged by value; None for atomic ones."""
    return (_METADATA if custom and in_metadata else {} if custom else _BUILT_IN).get(name)


def atomic_map(name: str, custom: bool) -> bool:
    return not custom and name in _ATOMIC_MAPS


def item_key(item: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: item.get(key, _DEFAULTS.get(key)) for key in keys if item.get(key, _DEFAULTS.get(key)) is not None}
