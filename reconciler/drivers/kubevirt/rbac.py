"""The rights that this driver needs on a target cluster, for whoever writes the ClusterRole. Data only.

What it is: exactly the verbs that target.py and wake.py use; a test compares them with the requests of a whole migration.
What it is not: a manifest (commands/install renders one), or the rights of the pods, which have none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """`optional`: the kind may not exist (CDI, Multus, instance types), the right to look must."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    optional: bool = False


RULES: tuple[Rule, ...] = (
    Rule("", "namespaces", ("get", "list", "create")),
    Rule("", "nodes", ("get", "list")),
    Rule("", "persistentvolumeclaims", ("get", "list", "watch", "create", "patch", "delete")),
    Rule("", "persistentvolumes", ("list",)),
    Rule("", "pods", ("get", "list", "create", "delete")),
    Rule("", "pods/log", ("get",)),
    Rule("", "secrets", ("get", "create", "patch")),
    Rule("", "events", ("list",)),
    Rule("batch", "jobs", ("get", "list", "watch", "create", "patch", "delete")),
    Rule("storage.k8s.io", "storageclasses", ("get", "list")),
    Rule("kubevirt.io", "virtualmachines", ("get", "list", "create", "patch", "delete")),
    Rule("kubevirt.io", "virtualmachineinstances", ("get", "list")),
    Rule("instancetype.kubevirt.io", "virtualmachineinstancetypes", ("list",), optional=True),
    Rule("instancetype.kubevirt.io", "virtualmachineclusterinstancetypes", ("list",), optional=True),
    Rule("cdi.kubevirt.io", "storageprofiles", ("list",), optional=True),
    Rule("cdi.kubevirt.io", "cdiconfigs", ("get",), optional=True),
    Rule("k8s.cni.cncf.io", "network-attachment-definitions", ("list",), optional=True),
)
