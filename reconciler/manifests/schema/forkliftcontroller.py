"""ForkliftController: settings of the whole installation. One per repo.

Every key takes a boolean, a number or a string, because Forklift changed its switches from booleans to strings; the value must
make sense for the key all the same. The model is built from the tables below; the keys that we act on are read in resolve.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model
from pydantic_core import PydanticCustomError

from reconciler.manifests.schema.shapes import QUANTITY, Manifest, Model


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SWITCHES = _words("""
feature_ui_plugin feature_validation feature_volume_populator feature_copy_offload feature_ocp_live_migration
feature_ova_appliance_management feature_vmware_system_serial_number feature_auth_required feature_cli_download feature_mcp_server
feature_vsphere_vmware_driver_removal feature_windows_registry_network_config feature_windows_wait_for_reboot feature_use_conversion_cr
feature_xfs_repair_ignore controller_vsphere_incremental_backup controller_ovirt_warm_migration controller_retain_precopy_importer_pods
controller_retain_populator_pods controller_static_udn_ip_addresses wait_for_final_snapshot_consolidation k8s_cluster
virt_v2v_dont_request_kvm aap_insecure_skip_verify mcp_server_lightspeed_integration mcp_server_lightspeed_set_mcp_gate
mcp_server_kube_insecure mcp_server_read_only
""")

NUMBERS_FROM_ONE = _words("""
controller_max_vm_inflight controller_max_populator_inflight controller_precopy_interval controller_blocker_grace_period_minutes
controller_max_concurrent_reconciles controller_snapshot_removal_timeout_minuts controller_snapshot_status_check_rate_seconds
controller_snapshot_removal_check_retries controller_cleanup_retries controller_vddk_job_active_deadline_sec
controller_tls_connection_timeout_sec controller_windows_reboot_timeout controller_max_parent_backing_retries
controller_host_lease_duration_seconds validation_policy_agent_search_interval virt_v2v_memsize virt_v2v_smp aap_timeout
""")

NUMBERS_FROM_ZERO = _words("""
controller_filesystem_overhead controller_block_overhead controller_log_level mcp_server_max_response_chars mcp_server_verbose
""")

DURATIONS = _words("""
controller_hyperv_refresh_interval controller_hyperv_validation_timeout metric_interval inventory_route_timeout ova_proxy_route_timeout
""")

TEXTS = _words("""
controller_migration_service_account controller_pvc_name_template controller_ocp_pvc_name_template controller_transfer_network
controller_host_lease_namespace validation_extra_volume_name validation_extra_volume_mountpath ovirt_osmap_configmap_name
vsphere_osmap_configmap_name virt_customize_configmap_name naa_oui_map_configmap_name vddk_image virt_v2v_extra_args
virt_v2v_inspector_extra_args virt_v2v_extra_conf_config_map aap_url aap_token_secret_name aap_ca_secret_name
controller_image_fqin virt_v2v_image_fqin virt_v2v_image_xfs_fqin deep_inspection_image_fqin deep_inspection_image_xfs_fqin
api_image_fqin cli_download_image_fqin ui_plugin_image_fqin validation_image_fqin populator_controller_image_fqin
populator_ovirt_image_fqin populator_openstack_image_fqin populator_vsphere_copy_offload_image_fqin ova_provider_server_fqin
hyperv_provider_server_fqin must_gather_image_fqin ova_proxy_fqin
""")

CHOICES = {
    "image_pull_policy": ("Always", "IfNotPresent", "Never"),
    "mcp_server_output_format": ("markdown", "text", "json"),
}

CONTAINERS = _words("""
controller inventory api cli_download mcp_server ui_plugin validation virt_v2v hooks ova hyperv populator ova_proxy
""")
RESOURCES = [f"{c}_container_{kind}_{unit}" for c in CONTAINERS for kind in ("limits", "requests") for unit in ("cpu", "memory")]

_QUANTITY = re.compile(QUANTITY)
_DURATION = re.compile(r"[0-9]+[smh]")
_TRUE, _FALSE = ("true", "1", "t"), ("false", "0", "f")


def is_true(value: bool | int | str) -> bool:
    return str(value).strip().lower() in _TRUE


def _refuse(words: str) -> PydanticCustomError:
    return PydanticCustomError("bad_setting", "{words}", {"words": words})


def _switch(value: bool | int | str) -> bool | int | str:
    if str(value).strip().lower() not in (*_TRUE, *_FALSE):
        raise _refuse('must be "true" or "false"')
    return value


def _number(lowest: int) -> Any:
    def check(value: bool | int | str) -> bool | int | str:
        digits = not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,18}", str(value).strip(), re.ASCII)
        if not digits or int(value) < lowest:
            raise _refuse(f"must be a whole number, at least {lowest}")
        return value

    return check


def _text_of(pattern: re.Pattern[str], words: str) -> Any:
    def check(value: bool | int | str) -> bool | int | str:
        if isinstance(value, bool) or not pattern.fullmatch(str(value)):
            raise _refuse(words)
        return value

    return check


def _choice(allowed: tuple[str, ...]) -> Any:
    def check(value: bool | int | str) -> bool | int | str:
        if value not in allowed:
            raise _refuse(f"must be one of {', '.join(allowed)}")
        return value

    return check


def _one(check: Any) -> Any:
    return (Annotated[bool | int | str | None, AfterValidator(lambda v: v if v is None else check(v))], Field(default=None))


def _fields() -> dict[str, Any]:
    checks: dict[str, Any] = {}
    checks |= dict.fromkeys(SWITCHES, _switch)
    checks |= dict.fromkeys(NUMBERS_FROM_ONE, _number(1))
    checks |= dict.fromkeys(NUMBERS_FROM_ZERO, _number(0))
    checks |= dict.fromkeys(DURATIONS, _text_of(_DURATION, "must be a duration, for example 30s"))
    checks |= dict.fromkeys(RESOURCES, _text_of(_QUANTITY, "must be a quantity, for example 500m or 1Gi"))
    checks |= dict.fromkeys(TEXTS, lambda value: value)
    checks |= {key: _choice(allowed) for key, allowed in CHOICES.items()}
    return {key: _one(check) for key, check in sorted(checks.items())}


class _Snake(Model):
    model_config = {"alias_generator": None}


ForkliftControllerSpec: Any = create_model("ForkliftControllerSpec", __base__=_Snake, **_fields())


class ForkliftController(Manifest):
    """Limits and switches of the installation."""

    kind: Literal["ForkliftController"]
    spec: ForkliftControllerSpec
