"""Joining documents: references, defaults, checks that need no site, and what is not implemented."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from reconciler.core.copyspec import Verify
from reconciler.core.desired import Desired, InventoryRef, Limits, PlanSpec, Severity, ShutdownPolicy, Unsupported, WantPower
from reconciler.core.model import Mode, ObjectRef
from reconciler.manifests.limits import READ
from reconciler.manifests.load import Cache, load
from reconciler.manifests.resolve import resolve
from reconciler.manifests.schema.forkliftcontroller import ForkliftControllerSpec
from reconciler.manifests.withouteffect import REASONS, reason_of

from .text import HOST, NET, PAIR, PLAN_SPEC, STORE, VCENTER, files, loaded, manifest, migration, plan, resolved

WAVE = ObjectRef("openshift-mtv", "wave")
RUN = ObjectRef("openshift-mtv", "run-1")


def the_plan(more: str = "vms:\n- name: web\n", *others: str, annotations: str = "") -> PlanSpec:
    desired = resolved(plan(more, annotations=annotations), *others)
    assert desired.complete, desired.problems
    return desired.plans[WAVE]


def findings(desired: Desired) -> list[tuple[str, str]]:
    return [(p.reason, p.field) for p in desired.problems]


# ---- joining --------------------------------------------------------------------------------------------------------------------------


def test_a_sound_tree_is_complete() -> None:
    desired = resolved(plan(), migration())
    assert (desired.complete, desired.broken, desired.problems, desired.revision) == (True, frozenset(), (), "c0ffee")
    found = desired.plans[WAVE]
    assert (found.source, found.destination) == (ObjectRef("openshift-mtv", "vc"), ObjectRef("openshift-mtv", "host"))
    assert (found.network_map, found.storage_map) == (ObjectRef("openshift-mtv", "net"), ObjectRef("openshift-mtv", "store"))
    assert (found.mode, found.target_namespace, found.unsupported) == (Mode.COLD, "shop", ())
    assert str(found.vms[0].place) == "f0.yaml:16:5"
    assert desired.migrations[RUN].plan == WAVE
    assert desired.providers[ObjectRef("openshift-mtv", "host")].secret is None


def test_references_default_to_the_namespace_of_their_manifest() -> None:
    text = plan().replace("namespace: openshift-mtv", "namespace: apps").replace("{name: vc}", "{name: vc, namespace: openshift-mtv}")
    found = resolve(loaded(text), "x").plans[ObjectRef("apps", "wave")]
    assert (found.source, found.destination) == (ObjectRef("openshift-mtv", "vc"), ObjectRef("apps", "host"))


@pytest.mark.parametrize(
    ("line", "mode"),
    [("warm: true\ntype: cold", Mode.WARM), ("type: warm", Mode.WARM), ("type: ''", Mode.COLD), ("warm: false", Mode.COLD)],
)
def test_warm_is_either_field(line: str, mode: Mode) -> None:
    assert the_plan(f"{line}\nvms: [{{name: a}}]\n").mode is mode


def test_the_plans_defaults_reach_its_vms() -> None:
    found = the_plan("""\
        targetPowerState: off
        pvcNameTemplate: "{{.VmName}}-{{.DiskIndex}}"
        volumeNameTemplate: "v{{.VolumeIndex}}"
        enableNestedVirtualization: true
        deleteVmOnFailMigration: false
        vms:
        - {id: vm-1, name: a}
        - {name: b, targetPowerState: on, volumeNameTemplate: "x{{.VolumeIndex}}", enableNestedVirtualization: false,
           deleteVmOnFailMigration: true, targetName: bb, instanceType: small, rootDisk: /dev/sdb}
        """)
    a, b = found.vms
    assert a.ref == InventoryRef("vm-1", "a")
    assert (a.target_power, a.volume_name_template, a.nested_virtualization, a.delete_on_fail) == (
        WantPower.OFF,
        "v{{.VolumeIndex}}",
        True,
        False,
    )
    assert (b.target_power, b.volume_name_template, b.nested_virtualization, b.delete_on_fail) == (
        WantPower.ON,
        "x{{.VolumeIndex}}",
        False,
        True,
    )
    assert (b.target_name, b.instance_type, b.root_disk) == ("bb", "small", "/dev/sdb")
    assert a.pvc_name_template == b.pvc_name_template == "{{.VmName}}-{{.DiskIndex}}"


def test_a_plan_that_deletes_on_failure_beats_the_vm() -> None:
    assert the_plan("vms: [{name: a, deleteVmOnFailMigration: false}]\n").vms[0].delete_on_fail is True


def test_affinity_keeps_kubernetes_spelling_and_only_what_was_written() -> None:
    rule = {"weight": 5, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [rule]}}
    found = the_plan(f"targetAffinity: {json.dumps(affinity)}\nvms: [{{name: a}}]\n")
    assert found.target_affinity == affinity


def test_migration_fields() -> None:
    more = """\
        cancel: [{id: vm-7}, {name: db}]
        cutover: "2026-09-12T22:00:00Z"
        vmCutover: [{id: vm-7, cutover: "2026-09-13T00:00:00+02:00"}]
        """
    found = resolved(plan("type: warm\nvms: [{name: a}]\n"), migration(more)).migrations[RUN]
    at = datetime(2026, 9, 12, 22, tzinfo=UTC)
    assert (found.cancel, found.cutover_at) == ((InventoryRef("vm-7"), InventoryRef(name="db")), at)
    assert (found.vm_cutover, found.unsupported) == ((("vm-7", at),), ())


# ---- annotations and limits -----------------------------------------------------------------------------------------------------------


def test_annotations_set_what_forklift_has_no_field_for() -> None:
    found = the_plan(
        annotations="""\
        reconciler.dev/verify: source
        reconciler.dev/guest-shutdown-policy: force
        reconciler.dev/guest-shutdown-timeout: 20m
        reconciler.dev/copy-stall-timeout: "60"
        reconciler.dev/bandwidth: 100Mi
        example.com/owner: me
        """
    )
    assert (found.verify, found.shutdown_policy, found.shutdown_timeout_s) == (Verify.SOURCE, ShutdownPolicy.FORCE, 1200.0)
    assert (found.copy_stall_s, found.bandwidth_bytes_per_s) == (60.0, 100 * 2**20)


@pytest.mark.parametrize(("text", "bytes_per_s"), [("1", 1), ("1k", 1000), ("1.5Gi", 3 * 2**29), ("10M", 10**7)])
def test_bandwidth_takes_quantities(text: str, bytes_per_s: int) -> None:
    assert the_plan(annotations=f'reconciler.dev/bandwidth: "{text}"').bandwidth_bytes_per_s == bytes_per_s


@pytest.mark.parametrize(
    "line",
    ["verify: all", "guest-shutdown-policy: maybe",
     'guest-shutdown-timeout: "-1"', 'copy-stall-timeout: "0"', "bandwidth: fast", 'bandwidth: "0"',
     "bandwidth: 10MB"],
)  # fmt: skip
def test_wrong_annotation_values_break_the_plan(line: str) -> None:
    desired = resolved(plan(annotations=f"reconciler.dev/{line}"))
    assert findings(desired) == [("NotAllowed", f"metadata.annotations.reconciler.dev/{line.split(':')[0]}")]
    assert str(desired.problems[0].place) == "f0.yaml:7:5"
    assert desired.problems[0].hint
    assert desired.plans == {} and desired.broken == {"Plan/openshift-mtv/wave"} and not desired.complete


def test_unknown_annotations_of_ours_are_errors() -> None:
    desired = resolved(plan(annotations="reconciler.dev/verfy: none"))
    assert findings(desired) == [("UnknownAnnotation", "metadata.annotations.reconciler.dev/verfy")]
    assert desired.problems[0].hint == "did you mean reconciler.dev/verify?"


def test_annotations_of_ours_belong_to_plans() -> None:
    text = migration().replace("spec:", "  annotations: {reconciler.dev/verify: none}\nspec:")
    assert findings(resolved(plan(), text)) == [("UnknownAnnotation", "metadata.annotations.reconciler.dev/verify")]


def test_limits_come_from_the_controller() -> None:
    controller = manifest(
        "ForkliftController",
        "c",
        """\
        controller_max_vm_inflight: "3"
        controller_precopy_interval: 10
        controller_filesystem_overhead: 0
        controller_block_overhead: 1024
        controller_migration_service_account: mover
        controller_pvc_name_template: '\\{\\{.VmName\\}\\}-\\{\\{.DiskIndex\\}\\}'
        """,
    )
    desired = resolved(plan(), controller)
    assert desired.limits == Limits(3, 600.0, 0.0, 1024, "{{.VmName}}-{{.DiskIndex}}", "mover")
    assert desired.plans[WAVE].service_account == "mover"
    assert desired.plans[WAVE].vms[0].pvc_name_template == "{{.VmName}}-{{.DiskIndex}}"


def test_without_a_controller_the_defaults_hold() -> None:
    assert resolved().limits == Limits()


def test_a_changed_controller_reaches_cached_plans() -> None:
    cache: Cache = {}
    for account in ("a", "b"):
        controller = manifest("ForkliftController", "c", f"controller_migration_service_account: {account}")
        desired = resolve(load(files(plan(), controller, VCENTER, HOST, NET, STORE), cache=cache), "x")
        assert desired.plans[WAVE].service_account == account


@pytest.mark.parametrize(
    "controllers",
    [
        [manifest("ForkliftController", name, "controller_max_vm_inflight: 3") for name in "ab"],
        [manifest("ForkliftController", "a", "controller_max_vm_inflight: many")],
        [manifest("ForkliftController", "a", "controller_filesystem_overhead: 100")],
    ],
)
def test_a_wrong_or_second_controller_never_raises_the_limit(controllers: list[str]) -> None:
    desired = resolved(*controllers)
    assert desired.limits.max_vm_inflight == 1
    assert not desired.complete and "ForkliftController/openshift-mtv/a" in desired.broken


def test_what_the_controller_says_of_pods_and_checks() -> None:
    text = """\
        populator_container_limits_memory: 2Gi
        populator_container_limits_cpu: 1500m
        populator_container_requests_cpu: 1
        image_pull_policy: Always
        feature_validation: "false"
        feature_vmware_system_serial_number: false
        """
    limits = resolved(manifest("ForkliftController", "c", text)).limits
    assert limits.pods.resources == {"limits": {"memory": "2Gi", "cpu": "1500m"}, "requests": {"cpu": "1"}}
    assert (limits.pods.pull_policy, limits.judge_concerns, limits.vmware_serial) == ("Always", False, False)


def test_controller_settings_without_effect_are_said_with_the_reason() -> None:
    desired = resolved(
        manifest("ForkliftController", "c", "feature_validation: true\ncontroller_log_level: 2\ncontroller_vddk_job_active_deadline_sec: 9")
    )
    said = desired.controllers[ObjectRef("openshift-mtv", "c")].unsupported
    assert asked(said) == {"spec.controller_log_level": False, "spec.controller_vddk_job_active_deadline_sec": False}
    assert said[0].message == "controller_log_level has no meaning here: use --log-level"
    assert desired.complete


def test_every_key_is_acted_on_or_has_a_reason_why_not() -> None:
    keys = set(ForkliftControllerSpec.model_fields)
    assert keys >= READ
    assert {key for key in keys if (reason_of(key) is None) != (key in READ)} == set()
    used = {next(pattern for pattern, _ in REASONS if pattern.fullmatch(key)) for key in keys - READ}
    assert used == {pattern for pattern, _ in REASONS}, "a reason that no key has"


# ---- not implemented ------------------------------------------------------------------------------------------------------------------


def asked(items: tuple[Unsupported, ...]) -> dict[str, bool]:
    return {item.field: item.blocking for item in items}


@pytest.mark.parametrize(
    ("line", "field", "blocking"),
    [
        ("type: live", "spec.type", True),
        ("type: conversion", "spec.type", True),
        ("transferNetwork: {name: n, namespace: x}", "spec.transferNetwork", True),
        ("rdmAsLun: true", "spec.rdmAsLun", True),
        ("scsiReservation: true", "spec.scsiReservation", True),
        ("migrateSharedDisks: false", "spec.migrateSharedDisks", True),
        ("tagMapping: {labelTags: [a]}", "spec.tagMapping", False),
        ("customizationScripts: {name: c}", "spec.customizationScripts", False),
        ("virtV2vImage: a/b", "spec.virtV2vImage", False),
        ("xfsCompatibility: true", "spec.xfsCompatibility", False),
        ("installLegacyDrivers: true", "spec.installLegacyDrivers", False),
        ("convertorLabels: {a: b}", "spec.convertorLabels", False),
        ("convertorAffinity: {}", "spec.convertorAffinity", False),
        ("runPreflightInspection: true", "spec.runPreflightInspection", False),
        ("preserveStaticIPs: true", "spec.preserveStaticIPs", False),
    ],
)
def test_what_is_not_implemented_is_said(line: str, field: str, blocking: bool) -> None:
    assert asked(the_plan(f"{line}\nvms: [{{name: a}}]\n").unsupported) == {field: blocking}


@pytest.mark.parametrize(
    "line",
    ["type: cold", "migrateSharedDisks: true", "rdmAsLun: false", "tagMapping: {disabled: true}", "runPreflightInspection: false",
     "preserveStaticIPs: false", "transferNetwork: {}", "targetLabels: {a: b}", "targetPowerState: off", "serviceAccount: a",
     "convertorNodeSelector: {a: b}", "targetAffinity: {}", "useCompatibilityMode: true", "installLegacyDrivers: false"],
)  # fmt: skip
def test_what_is_implemented_or_not_asked_for_is_not_said(line: str) -> None:
    assert the_plan(f"{line}\nvms: [{{name: a}}]\n").unsupported == ()


@pytest.mark.parametrize(
    "line",
    ["luks: {name: s}", "nbdeClevis: true", "rdmAsLun: true", "migrateSharedDisks: false", "hooks: [{step: PreHook, hook: {name: h}}]"],
)
def test_what_is_not_implemented_for_a_vm_names_the_vm(line: str) -> None:
    hook = manifest("Hook", "h", "image: x/y:1")
    found = the_plan(f"vms:\n- name: a\n- name: b\n  {line}\n", hook).unsupported
    assert [(one.field, one.blocking, one.vm) for one in found] == [(f"spec.vms[1].{line.split(':')[0]}", True, InventoryRef(name="b"))]


def test_guest_conversion_blocks() -> None:
    found = resolved(plan().replace("skipGuestConversion: true", "skipGuestConversion: false")).plans[WAVE]
    assert asked(found.unsupported) == {"spec.skipGuestConversion": True}


def test_other_sources_block() -> None:
    ovirt = VCENTER.replace("type: vsphere", "type: ovirt")
    found = resolve(loaded(plan(), ovirt, HOST, NET, STORE), "x").plans[WAVE]
    assert asked(found.unsupported) == {"spec.provider.source": True}


@pytest.mark.parametrize(("line", "said"), [("esxiCloneMethod: ssh", True), ("vddkInitImage: a/b", False), ("sdkEndpoint: esxi", False)])
def test_provider_settings_without_effect_are_said_at_the_plan(line: str, said: bool) -> None:
    desired = resolve(loaded(plan(), VCENTER + f"  settings: {{{line}}}\n", HOST, NET, STORE), "x")
    key, value = line.split(": ")
    assert asked(desired.plans[WAVE].unsupported) == ({f"Provider openshift-mtv/vc spec.settings.{key}": False} if said else {})
    assert desired.providers[ObjectRef("openshift-mtv", "vc")].settings == {key: value}


def test_offload_blocks_at_the_map() -> None:
    store = STORE + "    offloadPlugin: {vsphereXcopyConfig: {secretRef: s, storageVendorProduct: ontap}}\n"
    desired = resolve(loaded(plan(), VCENTER, HOST, NET, store), "x")
    assert asked(desired.storage_maps[ObjectRef("openshift-mtv", "store")].unsupported) == {"spec.map[0].offloadPlugin": True}
    assert desired.plans[WAVE].unsupported == ()


def test_a_provider_has_its_hosts_with_it() -> None:
    esx = manifest("Host", "esx", "id: host-1\nipAddress: 10.0.0.1\nprovider: {name: vc}\nsecret: {name: s}")
    bare = manifest("Host", "bare", "ipAddress: 10.0.0.2\nprovider: {name: vc}\nsecret: {name: s}")
    other = manifest("Host", "other", "id: host-2\nipAddress: 10.0.0.3\nprovider: {name: host}\nsecret: {name: s}")
    desired = resolve(loaded(plan(), VCENTER, HOST, NET, STORE, esx, bare, other), "x")
    (found,) = desired.providers[ObjectRef("openshift-mtv", "vc")].hosts
    assert (found.host, found.ip_address, found.secret) == (InventoryRef("host-1"), "10.0.0.1", ObjectRef("openshift-mtv", "s"))
    assert desired.providers[ObjectRef("openshift-mtv", "host")].hosts == ()
    assert desired.plans[WAVE].unsupported == ()


def test_a_cutover_in_a_cold_plan_is_said() -> None:
    more = 'cutover: "2026-09-12T22:00:00Z"\nvmCutover: [{id: vm-1, cutover: "2026-09-12T22:00:00Z"}]\nresumeConversion: true\n'
    found = resolved(plan(), migration(more)).migrations[RUN]
    assert asked(found.unsupported) == {"spec.cutover": False, "spec.vmCutover": False, "spec.resumeConversion": True}


# ---- what does not fit ----------------------------------------------------------------------------------------------------------------


def test_references_to_nothing_are_errors_but_secrets_may_be_elsewhere() -> None:
    desired = resolve(loaded(plan(), migration(plan="wvae"), VCENTER), "x")
    assert findings(desired) == [
        ("NotFound", "spec.provider.destination"),
        ("NotFound", "spec.map.network"),
        ("NotFound", "spec.map.storage"),
        ("NotFound", "spec.plan"),
    ]
    assert desired.broken == {"Plan/openshift-mtv/wave", "Migration/openshift-mtv/run-1"}
    assert WAVE in desired.plans and RUN in desired.migrations
    assert not desired.complete


def test_a_reference_to_another_namespace_has_a_hint() -> None:
    desired = resolved(migration("").replace("{name: wave}", "{name: wave, namespace: x}"), plan())
    assert desired.problems[0].hint == "did you mean openshift-mtv/wave?"


def test_a_reference_to_something_broken_says_so() -> None:
    desired = resolved(migration(), plan("wram: 1\nvms: []\n"))
    assert [(p.reason, p.message) for p in desired.problems if p.object.startswith("Migration")] == [
        ("NotValid", "Plan openshift-mtv/wave has errors of its own")
    ]


def test_an_empty_reference_is_an_error() -> None:
    assert findings(resolved(plan(), migration("").replace("{name: wave}", "{}"))) == [("NotSet", "spec.plan")]


def test_the_destination_must_be_openshift() -> None:
    desired = resolved(plan().replace("destination: {name: host}", "destination: {name: vc}"))
    assert ("TypeNotValid", "spec.provider.destination") in findings(desired)


def test_maps_of_other_providers_are_a_warning() -> None:
    other = VCENTER.replace("name: vc\n", "name: vc2\n")
    desired = resolved(plan().replace("source: {name: vc}", "source: {name: vc2}"), other)
    assert [(p.severity, p.field) for p in desired.problems] == [
        (Severity.WARNING, "spec.map.network"),
        (Severity.WARNING, "spec.map.storage"),
    ]


@pytest.mark.parametrize(
    ("more", "reason", "field"),
    [
        ("vms: [{id: vm-1}, {id: vm-1, name: x}]", "NotUnique", "spec.vms[1]"),
        ("vms: [{name: a}, {id: vm-1, name: a}]", "NotUnique", "spec.vms[1]"),
        ("vms: [{name: a, targetName: t}, {name: b, targetName: t}]", "NotUnique", "spec.vms[1].targetName"),
        ("vms: [{name: a, targetName: T_x}]", "NotValid", "spec.vms[0].targetName"),
        ("vms: [{name: a, instanceType: X}]", "NotValid", "spec.vms[0].instanceType"),
        ("vms: [{targetName: t}]", "NotSet", "spec.vms[0]"),
        ("vms: [{name: a, pvcNameTemplate: '{{.Nope}}'}]", "NotValid", "spec.vms[0].pvcNameTemplate"),
        ("volumeNameTemplate: '{{'\nvms: [{name: a}]", "NotValid", "spec.volumeNameTemplate"),
        ("networkNameTemplate: 'A_{{.NetworkIndex}}'\nvms: [{name: a}]", "NotValid", "spec.networkNameTemplate"),
        ("conversionTempStorageSize: 1Gi\nvms: [{name: a}]", "NotValid", "spec.conversionTempStorageClass"),
        ("targetLabels: {'a b': c}\nvms: [{name: a}]", "NotValid", "spec.targetLabels.a b"),
        ("targetNodeSelector: {a: 'x y'}\nvms: [{name: a}]", "NotValid", "spec.targetNodeSelector.a"),
        ("vms: [{name: a, hooks: [{step: PreHook, hook: {name: h}}]}]", "NotFound", "spec.vms[0].hooks[0].hook"),
    ],
)
def test_mistakes_inside_a_plan(more: str, reason: str, field: str) -> None:
    desired = resolved(plan(more + "\n"))
    assert findings(desired) == [(reason, field)]
    assert desired.broken == {"Plan/openshift-mtv/wave"}


def test_two_ids_may_share_a_name() -> None:
    assert len(the_plan("vms: [{id: vm-1, name: a}, {id: vm-2, name: a}]\n").vms) == 2


@pytest.mark.parametrize("namespace", ["Shop", "a.b", "a_b", "x" * 64])
def test_the_target_namespace_is_a_label(namespace: str) -> None:
    text = manifest("Plan", "wave", PLAN_SPEC.replace("targetNamespace: shop", f"targetNamespace: {namespace}") + "vms: [{name: a}]")
    assert findings(resolved(text)) == [("NotValid", "spec.targetNamespace")]


@pytest.mark.parametrize(
    ("url", "kind", "ok"),
    [
        ("https://vc.example.net/sdk", "vsphere", True),
        ("https://127.0.0.1:18443/sdk", "vsphere", True),
        ("https://[2001:db8::1]/sdk", "vsphere", True),
        ("http://vc.example.net/sdk", "vsphere", False),
        ("vc.example.net", "vsphere", False),
        ("https://", "vsphere", False),
        ("https://[::1/sdk", "vsphere", False),
        ("https://vc:99999/sdk", "vsphere", False),
        ("https://vc/sdk?x=1", "vsphere", False),
        ("https://a b/sdk", "vsphere", False),
        ("", "vsphere", False),
        ("http://keystone:5000/v3", "openstack", True),
        ("server:/export", "ova", True),
        ("/export", "ova", False),
        ("hyperv-host", "hyperv", True),
    ],
)
def test_provider_urls(url: str, kind: str, ok: bool) -> None:
    text = manifest("Provider", "p", f'type: {kind}\nurl: "{url}"\nsecret: {{name: s}}')
    assert findings(resolve(loaded(text), "x")) == ([] if ok else [("Malformed", "spec.url")])


def test_user_info_in_a_url_is_refused_and_not_repeated() -> None:
    desired = resolved(manifest("Provider", "p", "type: vsphere\nurl: https://root:hunter2@vc/sdk\nsecret: {name: s}"))
    assert findings(desired) == [("Malformed", "spec.url")]
    assert "hunter2" not in repr(desired.problems)


def test_a_provider_without_a_secret_is_an_error() -> None:
    assert findings(resolved(manifest("Provider", "p", "type: vsphere\nurl: https://vc/sdk\nsecret: {}"))) == [("NotSet", "spec.secret")]


@pytest.mark.parametrize(
    ("kind", "spec", "reason", "field"),
    [
        ("NetworkMap", PAIR + "map: [{source: {id: n}, destination: {type: multus, name: nad}}]", "Ambiguous", "spec.map[0].destination"),
        ("NetworkMap", PAIR + "map: [{source: {}, destination: {type: pod}}]", "NotSet", "spec.map[0].source"),
        ("StorageMap", PAIR + "map: [{source: {}, destination: {storageClass: a}}]", "NotSet", "spec.map[0].source"),
        (
            "StorageMap",
            PAIR + "map: [{source: {id: a}, destination: {storageClass: A_b}}]",
            "NotValid",
            "spec.map[0].destination.storageClass",
        ),
        (
            "StorageMap",
            PAIR + "map: [{source: {id: a}, destination: {storageClass: a}, offloadPlugin: {}}]",
            "NotValid",
            "spec.map[0].offloadPlugin",
        ),
        ("Hook", "deadline: 5", "NotSet", "spec"),
        ("Hook", "image: a/b\nplaybook: '***'", "DataError", "spec.playbook"),
        ("Hook", "image: a/b\naap: {jobTemplateId: 1}", "NotValid", "spec.aap"),
        ("Host", "ipAddress: 10.0.0.1\nprovider: {name: vc}\nsecret: {name: s}", "NotSet", "spec"),
        ("Host", "id: h\nipAddress: 10.0.0.1\nprovider: {name: host}\nsecret: {name: s}", "TypeErr", "spec.provider"),
        ("Migration", "plan: {name: wave}\ncancel: [{}]", "NotSet", "spec.cancel[0]"),
    ],
)
def test_mistakes_inside_other_kinds(kind: str, spec: str, reason: str, field: str) -> None:
    desired = resolved(manifest(kind, "x", spec), plan())
    assert findings(desired) == [(reason, field)]
    assert desired.broken == {f"{kind}/openshift-mtv/x"}


# ---- incremental ----------------------------------------------------------------------------------------------------------------------


def test_an_unchanged_document_is_not_converted_again() -> None:
    cache: Cache = {}
    tree = files(plan(), VCENTER, HOST, NET, STORE)
    first = resolve(load(tree, cache=cache), "a")
    second = resolve(load([*tree, *files(migration())[:0]], cache=cache), "b")
    assert second.plans[WAVE] is first.plans[WAVE]
    assert (first.revision, second.revision) == ("a", "b")


def test_a_reference_that_becomes_sound_heals_the_cached_plan() -> None:
    cache: Cache = {}
    assert not resolve(load(files(plan(), VCENTER, HOST, NET), cache=cache), "a").complete
    assert resolve(load(files(plan(), VCENTER, HOST, NET, STORE), cache=cache), "b").complete
