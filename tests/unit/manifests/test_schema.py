"""The generated schemas, and that the models know what the reference names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.manifests.schema.affinity import Affinity
from reconciler.manifests.schema.forkliftcontroller import ForkliftControllerSpec
from reconciler.manifests.schema.generate import file_name, main, render, schema_of
from reconciler.manifests.schema.registry import KINDS
from reconciler.manifests.schema.shapes import Model

from .text import loaded, manifest

SCHEMAS = Path(__file__).parents[3] / "schemas"


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_the_generated_one(kind: str) -> None:
    text = (SCHEMAS / file_name(kind)).read_text(encoding="utf-8")
    assert text == render(kind), "run: python -m reconciler.manifests.schema.generate"


def test_there_are_no_other_files(tmp_path: Path) -> None:
    main(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {f.name for f in SCHEMAS.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_refuse_unknown_fields_but_not_metadata_or_status(kind: str) -> None:
    schema = schema_of(kind)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    assert "status" in schema["properties"]
    assert "additionalProperties" not in schema["$defs"]["Metadata"]
    spec = schema["properties"]["spec"]
    assert schema["$defs"][spec["$ref"].rsplit("/", 1)[-1]]["additionalProperties"] is False


def names_of(model: type[Model]) -> set[str]:
    return {str(field.alias) for field in model.model_fields.values()}


PLAN_FIELDS = """
description provider map targetNamespace vms warm type archived transferNetwork preserveStaticIPs preserveClusterCpuModel diskBus
pvcNameTemplate pvcNameTemplateUseGenerateName volumeNameTemplate networkNameTemplate migrateSharedDisks installLegacyDrivers
deleteGuestConversionPod skipGuestConversion useCompatibilityMode targetLabels targetNodeSelector targetAffinity targetPowerState
convertorLabels convertorNodeSelector convertorAffinity deleteVmOnFailMigration runPreflightInspection virtV2vImage xfsCompatibility
enableNestedVirtualization conversionTempStorageClass conversionTempStorageSize customizationScripts skipZoneNodeSelector serviceAccount
rdmAsLun scsiReservation tagMapping
"""
VM_FIELDS = """
id name namespace type hooks luks nbdeClevis rootDisk instanceType pvcNameTemplate volumeNameTemplate networkNameTemplate targetName
targetPowerState deleteVmOnFailMigration migrateSharedDisks enableNestedVirtualization rdmAsLun scsiReservation
"""
SETTINGS = """
vddkInitImage sdkEndpoint useVddkAioOptimization vddkConfig esxiCloneMethod target-az target-region winrmPort managementType prismType
clusterUuid
"""
OUR_SETTINGS = "thumbprint requestTimeoutSeconds"  # a free map of strings in Forklift, so these are legal there too


@pytest.mark.parametrize(
    ("kind", "path", "fields"),
    [
        ("Plan", ("spec",), PLAN_FIELDS),
        ("Plan", ("spec", "vms"), VM_FIELDS),
        ("Provider", ("spec",), "type url secret settings"),
        ("Provider", ("spec", "settings"), f"{SETTINGS} {OUR_SETTINGS}"),
        ("Host", ("spec",), "id name namespace type provider ipAddress secret"),
        ("NetworkMap", ("spec", "map", "source"), "id name namespace type vlan"),
        ("NetworkMap", ("spec", "map", "destination"), "type namespace name"),
        ("StorageMap", ("spec", "map"), "source destination offloadPlugin"),
        ("StorageMap", ("spec", "map", "destination"), "storageClass volumeMode accessMode"),
        ("StorageMap", ("spec", "map", "offloadPlugin"), "vsphereXcopyConfig csiVolumeImport"),
        ("Migration", ("spec",), "plan cancel cutover vmCutover resumeConversion"),
        ("Hook", ("spec",), "image playbook deadline serviceAccount aap"),
        ("Hook", ("spec", "aap"), "jobTemplateId url tokenSecret timeout"),
    ],
)
def test_every_field_of_forklift_is_known(kind: str, path: tuple[str, ...], fields: str) -> None:
    schema = schema_of(kind)
    node: Any = schema
    for part in path:
        node = node["properties"][part]
        node = node.get("items", node)
        node = next((side for side in node.get("anyOf", ()) if "$ref" in side), node)
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    assert set(node["properties"]) == set(fields.split())


def test_four_plan_booleans_and_one_more_default_to_true() -> None:
    spec = schema_of("Plan")["$defs"]["PlanSpec"]["properties"]
    assert {name for name, field in spec.items() if field.get("default") is True} == {
        "preserveStaticIPs", "migrateSharedDisks", "useCompatibilityMode", "runPreflightInspection", "deleteVmOnFailMigration"
    }  # fmt: skip


def test_affinity_is_typed() -> None:
    assert names_of(Affinity) == {"nodeAffinity", "podAffinity", "podAntiAffinity"}


def controller(line: str) -> list[tuple[str, str]]:
    return [(p.field, p.message) for p in loaded(manifest("ForkliftController", "c", line)).problems]


def test_all_controller_keys_are_known() -> None:
    assert len(ForkliftControllerSpec.model_fields) == 145
    assert "controller_snapshot_removal_timeout_minuts" in ForkliftControllerSpec.model_fields  # so spelt upstream


@pytest.mark.parametrize(
    "line",
    ["feature_validation: true", 'feature_validation: "true"', "feature_validation: 0", "controller_max_vm_inflight: 5", "aap_timeout: '5'",
     "controller_log_level: 0", "virt_v2v_container_limits_memory: 8Gi", "api_container_limits_cpu: 2", "metric_interval: 30s",
     "image_pull_policy: Always", "vddk_image: x/y:1", "aap_url: null"],
)  # fmt: skip
def test_controller_values_may_be_boolean_number_or_text(line: str) -> None:
    assert controller(line) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("feature_validation: maybe", 'must be "true" or "false"'),
        ("controller_max_vm_inflight: 0", "must be a whole number, at least 1"),
        ("controller_max_vm_inflight: -1", "must be a whole number, at least 1"),
        ("controller_max_vm_inflight: ten", "must be a whole number, at least 1"),
        ("controller_max_vm_inflight: true", "must be a whole number, at least 1"),
        ("metric_interval: 30", "must be a duration, for example 30s"),
        ("api_container_limits_cpu: lots", "must be a quantity, for example 500m or 1Gi"),
        ("image_pull_policy: Sometimes", "must be one of Always, IfNotPresent, Never"),
    ],
)
def test_controller_values_must_make_sense(line: str, message: str) -> None:
    assert controller(line) == [(f"spec.{line.split(':')[0]}", message)]


def test_a_controller_value_that_is_a_list_is_one_problem() -> None:
    assert [field for field, _ in controller("controller_log_level: [1]")] == ["spec.controller_log_level"]


def test_a_misspelt_controller_key_has_a_suggestion() -> None:
    problem = loaded(manifest("ForkliftController", "c", "controller_max_vm_inflght: 3")).problems[0]
    assert problem.hint == "did you mean controller_max_vm_inflight?"
