"""Keys of ForkliftController that are accepted and mean nothing here, each with the reason. Said by `validate` and in its status.

What it is: the other side of limits.READ; together they are all keys that the schema has, which a test holds. None of them blocks: they
tune Forklift's own services, or parts that are named as missing elsewhere. A key that gets a meaning moves to limits.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reconciler.core.desired import Unsupported

_CONVERSION = "guest conversion is not implemented"
_ONE_PROCESS = "this is one process without Forklift's services"

# The first pattern that fits a whole key is its reason.
REASONS = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (
            r"controller_container_.*|inventory_.*|api_.*|cli_download_.*|mcp_server_.*|ui_plugin_.*|validation_.*|metric_interval",
            _ONE_PROCESS,
        ),
        (r"feature_(ui_plugin|auth_required|cli_download|mcp_server)|controller_image_fqin|must_gather_image_fqin", _ONE_PROCESS),
        (r"controller_max_concurrent_reconciles", "one pass looks at everything; its acts run in parallel per site"),
        (r"controller_transfer_network", "it is for Forklift's controller pod; give the reconciler's own pod the network instead"),
        (r"controller_log_level", "use --log-level"),
        (r"k8s_cluster", "any cluster with KubeVirt will do; nothing differs on OpenShift"),
        (r"virt_v2v_.*|deep_inspection_.*|virt_customize_.*|feature_(xfs_repair_ignore|use_conversion_cr)", _CONVERSION),
        (r"feature_vsphere_vmware_driver_removal|feature_windows_.*|controller_windows_.*", _CONVERSION),
        (r"controller_vddk_.*", "VDDK is loaded on trial by the pod that opens the volumes, and waited for as long as that takes"),
        (r"(ovirt|vsphere)_osmap_configmap_name", "target VMs are made from the source's hardware, not from templates"),
        (r"feature_copy_offload|naa_oui_.*|controller_host_lease_.*|populator_vsphere_.*", "copy offload is not implemented"),
        (r"feature_volume_populator|populator_(controller|ovirt|openstack)_.*", "importer Jobs fill volumes; no populator is used"),
        (r"controller_max_populator_inflight", "a VM has one importer Job; controller_max_vm_inflight limits those"),
        (r"controller_retain_.*", "pods go when they have done; their result is in the status branch"),
        (r"controller_vsphere_incremental_backup", "changed areas are always read by change id, and compared where that is in doubt"),
        (
            r"wait_for_final_snapshot_consolidation|controller_max_parent_backing_retries",
            "consolidation is always waited for, without a limit",
        ),
        (r"controller_snapshot_.*|controller_cleanup_retries", "what is to be removed is asked for until it is gone"),
        (r"controller_blocker_grace_period_minutes", "what blocks holds a VM until it is gone, however long that takes"),
        (r"controller_tls_connection_timeout_sec", "use requestTimeoutSeconds of the Provider"),
        (r"controller_static_udn_ip_addresses", "addresses are left to the guest"),
        (r"hooks_.*|aap_.*", "these limits of hooks are not implemented"),
        (r"controller_ovirt_.*", "sources of type ovirt have no use for it"),
        (r"feature_ocp_live_migration|controller_ocp_.*", "sources of type openshift are not implemented"),
        (r"ova_.*|feature_ova_.*|hyperv_.*|controller_hyperv_.*", "sources of that type are not implemented"),
    )
)


def reason_of(key: str) -> str | None:
    return next((why for pattern, why in REASONS if pattern.fullmatch(key)), None)


def of_controller(spec: Any, read: set[str]) -> Iterator[Unsupported]:
    """Only keys that the file sets, in their order."""
    for key, value in spec.model_dump(exclude_none=True).items():
        if key not in read and value is not None:
            yield Unsupported(f"spec.{key}", f"{key} has no meaning here: {reason_of(key)}", False)
