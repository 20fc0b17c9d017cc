"""What we understand: quantities, marks, writers and fencing (safety 4), Job and VM states, reasons for a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import Mark, MarkState, Power, Watermark
from reconciler.core.target import Instance, JobPhase, VolumeMode
from reconciler.drivers.kubevirt import labels, parse, quantity, reasons, writers

US = Instance("us", ("before",))
MARK = Mark("disk", "pvc-uid", 3, "epoch-1", "52 de ad/9", MarkState.CLEAN)


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"namespace": "shop", "name": name, "uid": f"uid-{name}", "resourceVersion": "7", **more}


def node(ready: str = "True", taint: str | None = None) -> dict[str, Any]:
    taints = [{"key": taint, "effect": "NoExecute"}] if taint else []
    return {"metadata": meta("n1"), "spec": {"taints": taints}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def pod(phase: str, node_name: str | None = "n1", **status: Any) -> dict[str, Any]:
    spec = {"nodeName": node_name, "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "web-disk-0"}}, {"emptyDir": {}}]}
    return {"metadata": meta("p1", labels={}), "spec": spec, "status": {"phase": phase, **status}}


# ---- text forms


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("10Gi", 10 << 30),
        ("1.5Mi", 1572864),
        ("1000M", 10**9),
        ("2e3", 2000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1500m", 2),
        (7, 7),
        ("0", 0),
    ],
)
def test_quantities(text: str | int, want: int) -> None:
    assert quantity.to_bytes(text) == want


@pytest.mark.parametrize("text", ["", "ten", "1 Gi", "1GiB", "--1"])
def test_what_is_no_quantity_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.to_bytes(text)


@given(st.integers(0, 1 << 62))
def test_quantities_survive_the_way_out_and_back(size: int) -> None:
    assert quantity.to_bytes(quantity.from_bytes(size)) == size


def test_marks_and_watermarks_survive_the_way_out_and_back() -> None:
    assert labels.mark_from_text(labels.mark_to_text(MARK)) == MARK
    assert labels.watermark_from_text(labels.watermark_to_text(Watermark("r1", 5))) == Watermark("r1", 5)


@pytest.mark.parametrize(
    "text", [None, "", "clean", "[]", "{}", '{"state": "clean"}', labels.mark_to_text(MARK).replace("clean", "spotless")]
)
def test_a_mark_that_cannot_be_read_is_no_mark(text: str | None) -> None:
    assert labels.mark_from_text(text) is None
    assert labels.watermark_from_text(text) is None


# ---- writers


@pytest.mark.parametrize(
    ("phase", "nodes", "fenced"),
    [
        ("Running", {"n1": node()}, False),
        ("Pending", {"n1": node()}, False),
        ("Succeeded", {"n1": node()}, True),
        ("Failed", {"n1": node()}, True),
        ("Failed", {"n1": node("Unknown")}, False),
        ("Succeeded", {"n1": node("False")}, False),
        ("Running", {"n1": node("Unknown")}, False),
        ("Running", {}, True),
        ("Failed", {}, True),
        ("Running", {"n1": node("Unknown", "node.kubernetes.io/out-of-service")}, True),
        ("Failed", {"n1": node("Unknown", "node.kubernetes.io/unreachable")}, False),
    ],
)
def test_only_an_ended_pod_on_a_ready_node_or_a_lost_node_is_fenced(phase: str, nodes: dict[str, Any], fenced: bool) -> None:
    assert writers.writer(pod(phase), nodes, US).fenced is fenced


def test_a_pod_that_no_node_took_yet_may_be_placed_at_any_moment() -> None:
    assert writers.writer(pod("Pending", None), {}, US).fenced is False
    assert writers.writer(pod("Failed", None), {}, US).fenced is True


def test_a_pod_in_deletion_still_writes() -> None:
    going = pod("Running")
    going["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"
    assert writers.writer(going, {"n1": node()}, US).fenced is False


def test_roles_tell_ours_from_guests_and_from_strangers() -> None:
    ours, guest, stranger, another = pod("Running"), pod("Running"), pod("Running"), pod("Running")
    ours["metadata"]["labels"] = {labels.MANAGED_BY: labels.MANAGER, labels.INSTANCE: "us", labels.ROLE: "importer"}
    another["metadata"]["labels"] = {labels.MANAGED_BY: labels.MANAGER, labels.INSTANCE: "them", labels.ROLE: "importer"}
    guest["metadata"]["labels"] = {"kubevirt.io": "virt-launcher"}
    stranger["metadata"]["labels"] = {labels.ROLE: "importer"}
    found = [writers.writer(p, {"n1": node()}, US) for p in (ours, guest, stranger, another)]
    assert [(w.role, w.ours) for w in found] == [("importer", True), ("vmi", False), ("", False), ("", False)]
    assert list(writers.by_claim([ours], {"n1": node()}, US)) == ["web-disk-0"]


@pytest.mark.parametrize(("instance", "ours"), [("us", True), ("before", True), ("them", False), ("", False), (None, False)])
def test_the_instance_tells_what_is_ours_from_what_another_reconciler_made(instance: str | None, ours: bool) -> None:
    found = {labels.MANAGED_BY: labels.MANAGER} | ({labels.INSTANCE: instance} if instance is not None else {})
    claim = {"metadata": meta("x", labels=found), "spec": {}}
    machine_ = {"metadata": meta("x", labels=found, generation=3), "spec": {}}
    assert parse.volume(claim, (), (), False, US).ours is ours and parse.target_vm(machine_, None, US).ours is ours
    assert parse.target_vm(machine_, None, US).generation == 3
    found.pop(labels.MANAGED_BY)
    assert not parse.volume(claim, (), (), False, US).ours


# ---- Jobs


def job(*true: str, suspend: bool = False) -> dict[str, Any]:
    conditions = [{"type": kind, "status": "True", "reason": "R", "message": "M"} for kind in true]
    notes = {labels.MIGRATION: "mtv/run", labels.VM: "web", labels.ROUND_KEY: "r1", labels.ATTEMPT: "2"}
    return {"metadata": meta("copy", annotations=notes), "spec": {"suspend": suspend}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("obj", "pods", "want"),
    [
        (job(suspend=True), [], JobPhase.SUSPENDED),
        (job(), [], JobPhase.PENDING),
        (job(), [pod("Pending")], JobPhase.PENDING),
        (job(), [pod("Running")], JobPhase.RUNNING),
        (job(), [pod("Succeeded")], JobPhase.RUNNING),
        (job("SuccessCriteriaMet"), [pod("Running")], JobPhase.RUNNING),
        (job("FailureTarget"), [pod("Running")], JobPhase.RUNNING),
        (job("FailureTarget", "Failed"), [pod("Failed")], JobPhase.FAILED),
        (job("SuccessCriteriaMet", "Complete"), [pod("Succeeded")], JobPhase.SUCCEEDED),
        (job(suspend=True), [pod("Running")], JobPhase.RUNNING),
    ],
)
def test_a_job_has_ended_only_when_kubernetes_says_that_its_pods_have(obj: dict[str, Any], pods: list[Any], want: JobPhase) -> None:
    assert parse.job(obj, pods, {}).phase is want


@pytest.mark.parametrize(
    ("finished", "at"),
    [("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)), ("yesterday", None), (None, None)],
)
def test_how_a_trial_ended_comes_from_its_pod(finished: str | None, at: datetime | None) -> None:
    ended = {"terminated": {"exitCode": 65, "reason": "Error", "message": "said", "finishedAt": finished}}
    found = parse.binder(pod("Failed", containerStatuses=[{"state": ended}]), {}, "apart")
    assert (found.phase, found.exit_code, found.termination_message, found.ended_at, found.apart) == ("Failed", 65, "said", at, "apart")
    evicted = parse.binder(pod("Failed", reason="Evicted"), {})
    assert (evicted.exit_code, evicted.ended_at, evicted.message) == (None, None, "Evicted")


def test_exit_code_and_message_come_from_the_pod() -> None:
    ended = {"terminated": {"exitCode": 75, "reason": "Error", "message": "again"}}
    found = parse.job(job("Failed"), [pod("Failed", containerStatuses=[{"state": ended}])], {})
    assert (found.exit_code, found.termination_message, found.round_key, found.attempt) == (75, "again", "r1", 2)


def init(**state: Any) -> dict[str, Any]:
    """A pod's status before its own container began."""
    waits = {"waiting": {"reason": "PodInitializing"}}
    return {"initContainerStatuses": [{"name": "vddk", "state": state}], "containerStatuses": [{"state": waits}]}


def test_an_init_container_that_failed_ends_its_pod_and_speaks_not_for_the_worker() -> None:
    """Its exit code and its words are another program's: 65 would mean that nothing is tried again."""
    said = {"exitCode": 65, "reason": "Error", "message": '{"type": "result", "disks": []}', "finishedAt": "2026-03-01T12:00:00Z"}
    ended = pod("Failed", **init(terminated=said))
    binder, copy = parse.binder(ended, {}), parse.job(job("Failed"), [ended], {})
    assert (binder.exit_code, binder.termination_message) == (copy.exit_code, copy.termination_message) == (None, "")
    assert binder.ended_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert "init container vddk: Error: exit code 65" in binder.message
    assert "init container vddk: Error: exit code 65" in copy.message


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
            "ImagePullBackOff: no such",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]},
            "Unschedulable: 0/3",
        ),
        ({"reason": "Evicted", "message": "low on disk"}, "Evicted: low on disk"),
        ({"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}, "OOMKilled: exit code 137"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, ""),
        (init(waiting={"reason": "ErrImagePull", "message": "no such image"}), "init container vddk: ErrImagePull: no such"),
        (init(terminated={"exitCode": 1, "reason": "Error", "message": "cp: no room"}), "init container vddk: Error: exit code 1: cp: no"),
        (init(waiting={"reason": "PodInitializing"}), ""),
        (init(terminated={"exitCode": 0, "reason": "Completed"}), ""),
        (init(running={}), ""),
    ],
)
def test_a_pods_trouble_is_said_in_the_clusters_words(status: dict[str, Any], says: str) -> None:
    text = parse.job(job(), [pod("Pending", **status)], {}).message
    assert text.startswith(says)
    assert bool(text) is bool(says)


def event(uid: str, reason: str, at: str) -> dict[str, Any]:
    return {"metadata": meta(at), "involvedObject": {"uid": uid}, "reason": reason, "message": "m", "lastTimestamp": at}


def test_a_job_that_may_not_make_its_pod_says_so_by_event_newest_first_and_few() -> None:
    found = reasons.by_uid([event("uid-copy", f"R{i}", f"2026-11-24T0{i}:00:00Z") for i in range(6)] + [event("other", "X", "2027")])
    assert found["uid-copy"] == ("R5: m", "R4: m", "R3: m")
    assert parse.job(job(), [], found).message == "R5: m"


# ---- VMs, classes, volumes


def machine(**spec: Any) -> dict[str, Any]:
    return {"metadata": meta("web"), "spec": spec, "status": {"printableStatus": "Stopped"}}


@pytest.mark.parametrize(
    ("spec", "instance", "want"),
    [
        ({"runStrategy": "Halted"}, None, Power.OFF),
        ({"running": False}, None, Power.OFF),
        ({"runStrategy": "Halted"}, "Running", Power.ON),
        ({"runStrategy": "Halted"}, "Succeeded", Power.OFF),
        ({"runStrategy": "Always"}, None, Power.ON),
        ({"running": True}, None, Power.ON),
        ({"runStrategy": "Always"}, "Scheduling", Power.ON),
        ({"runStrategy": "Always"}, "Unknown", Power.UNKNOWN),
        ({"runStrategy": "Manual"}, None, Power.UNKNOWN),
        ({"runStrategy": "RerunOnFailure"}, "Succeeded", Power.UNKNOWN),
    ],
)
def test_a_vm_is_off_only_when_it_is_halted_and_no_instance_is_left(spec: dict[str, Any], instance: str | None, want: Power) -> None:
    vmi = {"metadata": meta("web"), "status": {"phase": instance}} if instance else None
    assert parse.target_vm(machine(**spec), vmi, US).power is want


def test_the_disks_of_a_machine_are_those_of_its_spec_and_those_plugged_into_its_guest() -> None:
    def guest(*volumes: dict[str, Any]) -> dict[str, Any]:
        return {"domain": {}, "volumes": [{"name": f"v{i}", **volume} for i, volume in enumerate(volumes)]}

    root, plugged = {"persistentVolumeClaim": {"claimName": "root"}}, {"dataVolume": {"name": "plugged", "hotpluggable": True}}
    templates = [{"metadata": {"name": "made-for-it"}, "spec": {}}]
    vm = machine(runStrategy="Always", dataVolumeTemplates=templates, template={"spec": guest(root, {"containerDisk": {"image": "x"}})})
    assert parse.target_vm(vm, None, US).claims == {"root", "made-for-it"}
    vmi = {"metadata": meta("web"), "spec": guest(root, plugged), "status": {"phase": "Running"}}
    assert parse.target_vm(vm, vmi, US).claims == {"root", "made-for-it", "plugged"}
    alone = parse.lone_instance(vmi)
    assert (alone.kind, alone.ours, alone.claims, alone.power) == ("VirtualMachineInstance", False, {"root", "plugged"}, Power.ON)
    assert alone.takes("shop", "") == alone.claims and not alone.takes("elsewhere", "")


def test_storage_classes_take_defaults_and_overhead_from_cdi_where_there_is_one() -> None:
    obj = {"metadata": meta("fast"), "provisioner": "csi", "volumeBindingMode": "WaitForFirstConsumer"}
    profile = {"status": {"claimPropertySets": [{"accessModes": ["ReadWriteMany"], "volumeMode": "Block"}]}}
    with_cdi = parse.storage_class(obj, profile, {"global": "0.06", "storageClass": {"fast": "0.1"}})
    assert (with_cdi.default_volume_mode, with_cdi.default_access_mode, with_cdi.overhead) == (VolumeMode.BLOCK, "ReadWriteMany", 0.1)
    assert parse.storage_class(obj, profile, {"global": "0.06"}).overhead == 0.06
    without = parse.storage_class(obj, None, None)
    assert (without.default_volume_mode, without.default_access_mode, without.overhead) == (None, None, None)
    assert without.waits_for_consumer
    assert parse.storage_class(obj, {"status": {}}, {"global": "lots"}).overhead is None


def test_a_bare_foreign_claim_is_readable() -> None:
    found = parse.volume({"metadata": meta("x"), "spec": {}}, (), (), True, US)
    assert (found.ours, found.phase, found.mark, found.request_bytes, found.waits_for_consumer) == (False, "Pending", None, 0, True)
