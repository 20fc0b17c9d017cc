"""The contract of ports.TargetDriver, for any cluster: a platform's file supplies the `site` fixture (target_site.TargetSite).

Rows of the safety contract that live here: 4 (fencing), 7 (what objects say about the commit), 11 (no partial inventory), 21 (names).
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.core.copyspec import CopyResult, CopySpec, DiskProgress, DiskResult, progress_line, result_line
from reconciler.core.model import Absent, Known, Mark, MarkState, Power, Watermark
from reconciler.core.target import JobPhase, Owner, TargetVm, Volume
from reconciler.errors import RetryableError, TerminalError
from tests.contract import target_site as want
from tests.contract.target_site import NEXT_RUN, OTHER_VM, OWNER, PASSWORD, TargetSite

MANAGED_BY = "app.kubernetes.io/managed-by"
MARK = "reconciler.dev/mark"

ENSURE: dict[str, tuple[str, Callable[[TargetSite], None]]] = {
    "volume": ("PersistentVolumeClaim", lambda s: s.driver.ensure_volume(want.volume(s), None)),
    "binder": ("Pod", lambda s: s.driver.ensure_binder(want.binder(s))),
    "vm": ("VirtualMachine", lambda s: s.driver.ensure_vm(want.machine(s))),
    "copy": ("Job", lambda s: s.driver.ensure_copy(*want.copy_arguments(s))),
}
ENSURE_AS: dict[str, Callable[[TargetSite, Owner], None]] = {
    "volume": lambda s, owner: s.driver.ensure_volume(want.volume(s, owner=owner), None),
    "binder": lambda s, owner: s.driver.ensure_binder(want.binder(s, owner=owner)),
    "vm": lambda s, owner: s.driver.ensure_vm(want.machine(s, owner)),
    "copy": lambda s, owner: s.driver.ensure_copy(*want.copy_arguments(s, owner)),
}
DROP: dict[str, tuple[str, Callable[..., None]]] = {
    "volume": ("web-disk-0", lambda s, owner: s.driver.drop_volume(s.namespace, "web-disk-0", owner)),
    "binder": ("bind-web", lambda s, owner: s.driver.drop_binder(s.namespace, "bind-web", owner)),
    "vm": ("web", lambda s, owner: s.driver.drop_vm(s.namespace, "web", owner)),
    "copy": ("copy-web-r1-a1", lambda s, owner: s.driver.drop_copy(s.namespace, "copy-web-r1-a1", owner)),
}


def seen_volume(site: TargetSite, name: str = "web-disk-0") -> Volume:
    found = site.driver.read_volume(site.namespace, name)
    assert isinstance(found, Known)
    return found.value


def seen_vm(site: TargetSite, name: str = "web") -> TargetVm:
    found = site.driver.read_vm(site.namespace, name)
    assert isinstance(found, Known)
    return found.value


def eventually(site: TargetSite, met: Callable[[], bool], seconds: float = 15.0) -> None:
    """Clusters take their time: pods start and end, collectors collect."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "the cluster did not get there in time"
        time.sleep(0.05)
        site.settle()


def not_in_conflict(act: Callable[[], None]) -> bool:
    """A controller may write between the read and the deletion; the loop above us decides again, and so does the test."""
    try:
        act()
    except RetryableError as err:
        assert err.reason == "Conflict"
        return False
    return True


def switch(site: TargetSite, power: Power, owner: Owner = OWNER) -> None:
    eventually(site, lambda: not_in_conflict(lambda: site.driver.request_power(site.namespace, "web", power, owner)))


def what_we_write(obj: want.Json | None) -> tuple[object, ...]:
    """The part of an object that controllers leave alone."""
    assert obj is not None
    return obj["metadata"]["uid"], obj["metadata"]["labels"], obj["metadata"]["annotations"].get("reconciler.dev/migration"), obj["spec"]


def disk_of(pvc: str) -> want.Json:
    return {"name": "data", "persistentVolumeClaim": {"claimName": pvc}}


def is_write(label: str) -> bool:
    return not label.startswith("GET ")


def strip_key(site: TargetSite, kind: str, name: str, owner_source: str | None) -> None:
    """Make it somebody else's: no label of ours, or the label with another source VM."""
    obj = site.find(kind, name)
    assert obj is not None
    if owner_source is None:
        obj["metadata"]["labels"].pop(MANAGED_BY)
    else:
        obj["metadata"]["annotations"]["reconciler.dev/source"] = owner_source
    site.put(obj)


class TargetContract:
    # ---- the site

    def test_the_site_has_an_identity_that_stays_and_a_clock(self, site: TargetSite) -> None:
        first, second = site.driver.read_site(), site.driver.read_site()
        assert first.uuid
        assert first.uuid == second.uuid
        assert first.version
        assert first.time_at is not None
        assert first.time_at.tzinfo is not None

    def test_a_namespace_is_made_once_and_may_be_anybodys(self, site: TargetSite) -> None:
        name = f"{site.namespace}-new"
        site.driver.ensure_namespace(name)
        site.driver.ensure_namespace(name)
        assert site.find("Namespace", name, "") is not None
        assert [w for w in site.writes() if w.endswith(f"namespaces/{name}")] == [f"create namespaces/{name}"]
        assert name in site.driver.read_inventory([]).namespaces

    # ---- volumes

    def test_a_volume_is_made_as_asked_and_read_back(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.settle()
        volume = seen_volume(site)
        assert (volume.ours, volume.key, volume.migration, volume.commit) == (True, "vm-uuid/disk-uuid-0", OWNER.migration, OWNER.commit)
        assert (volume.request_bytes, volume.storage_class, volume.mark) == (8 * want.MIB, site.immediate_class, None)
        assert site.driver.read_inventory([site.namespace]).volumes == (volume,)

    def test_an_absent_volume_is_absent(self, site: TargetSite) -> None:
        assert isinstance(site.driver.read_volume(site.namespace, "nothing"), Absent)
        assert isinstance(site.driver.read_vm(site.namespace, "nothing"), Absent)

    def test_a_volume_of_an_earlier_run_is_adopted_only_as_it_was_seen(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.settle()
        spec = want.volume(site, owner=NEXT_RUN)
        with pytest.raises(RetryableError, match="Conflict"):
            site.driver.ensure_volume(spec, None)
        seen = seen_volume(site)
        site.driver.put_watermark(seen, Watermark("r", 1))
        with pytest.raises(RetryableError, match="Conflict"):
            site.driver.ensure_volume(spec, seen)
        assert seen_volume(site).migration == OWNER.migration
        site.driver.ensure_volume(spec, seen_volume(site))
        adopted = seen_volume(site)
        assert (adopted.migration, adopted.commit, adopted.uid) == (NEXT_RUN.migration, NEXT_RUN.commit, seen.uid)
        site.driver.ensure_volume(spec, seen)  # again, with the old sight: it is ours already
        assert seen_volume(site) == adopted

    def test_two_runs_cannot_both_adopt(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.settle()
        seen = seen_volume(site)
        third = replace(NEXT_RUN, migration="openshift-mtv/run-3")
        site.driver.ensure_volume(want.volume(site, owner=NEXT_RUN), seen)
        with pytest.raises(RetryableError, match="Conflict"):
            site.driver.ensure_volume(want.volume(site, owner=third), seen)
        assert seen_volume(site).migration == NEXT_RUN.migration

    def test_a_volume_grows_with_its_disk_and_never_shrinks(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.settle()
        site.driver.ensure_volume(want.volume(site, mib=16), None)
        site.settle()
        site.driver.ensure_volume(want.volume(site, mib=4), None)
        assert seen_volume(site).request_bytes == 16 * want.MIB

    def test_a_waiting_class_binds_by_the_binder(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site, waiting=True), None)
        site.settle()
        waiting = seen_volume(site)
        assert (waiting.phase, waiting.waits_for_consumer) == ("Pending", True)
        site.driver.ensure_binder(want.binder(site))
        site.driver.ensure_binder(want.binder(site))
        site.settle()
        bound = seen_volume(site)
        assert (bound.phase, bound.waits_for_consumer) == ("Bound", False)
        assert [(w.role, w.ours, w.fenced) for w in bound.writers] == [("binder", True, False)]
        binders = site.driver.read_inventory([site.namespace]).binders
        assert [(b.name, b.migration, b.trial, b.apart) for b in binders] == [("bind-web", OWNER.migration, "volumes-1", "")]
        site.driver.drop_binder(site.namespace, "bind-web", OWNER)
        eventually(site, lambda: seen_volume(site).writers == ())

    # ---- what is not ours

    @pytest.mark.parametrize("what", list(ENSURE))
    @pytest.mark.parametrize("source", [None, OTHER_VM.source], ids=["foreign", "other-vm"])
    def test_a_name_that_is_taken_is_refused_and_its_object_left_alone(self, site: TargetSite, what: str, source: str | None) -> None:
        kind, ensure = ENSURE[what]
        ensure(site)
        site.settle()
        strip_key(site, kind, DROP[what][0], source)
        before = what_we_write(site.find(kind, DROP[what][0]))
        with pytest.raises(TerminalError, match="NameTaken") as caught:
            ensure(site)
        assert f"{site.namespace}/{DROP[what][0]}" in caught.value.message
        assert what_we_write(site.find(kind, DROP[what][0])) == before

    @pytest.mark.parametrize("what", list(DROP))
    def test_what_does_not_carry_our_key_is_not_deleted(self, site: TargetSite, what: str) -> None:
        kind, ensure = ENSURE[what]
        name, drop = DROP[what]
        ensure(site)
        site.settle()
        for stranger in (OTHER_VM, NEXT_RUN):
            with pytest.raises(TerminalError, match="NotOurs"):
                drop(site, stranger)
        strip_key(site, kind, name, None)
        with pytest.raises(TerminalError, match="NotOurs"):
            drop(site, OWNER)
        found = site.find(kind, name)
        assert found is not None
        assert "deletionTimestamp" not in found["metadata"]

    @pytest.mark.parametrize("what", list(ENSURE))
    def test_what_another_reconciler_made_is_left_alone_and_told(self, site: TargetSite, what: str) -> None:
        """The very same source VM and run, but another instance: in no list of ours, and no verb of ours changes it (safety 6)."""
        kind, ensure = ENSURE[what]
        ensure(site)
        site.settle()
        name, drop = DROP[what]
        before = what_we_write(site.find(kind, name))
        other, them = site.connect(instance=want.THEM), replace(OWNER, instance=want.THEM)
        seen = other.read_inventory([site.namespace])
        assert not any(x.ours for x in (*seen.volumes, *seen.vms)) and not seen.jobs and not seen.binders
        assert [(s.name, s.instance, s.migration, s.source) for s in seen.strangers if s.kind == kind and s.name == name] == [
            (name, want.US.id, OWNER.migration, OWNER.source)
        ]
        assert site.driver.read_inventory([site.namespace]).strangers == ()
        with pytest.raises(TerminalError, match="NotOurs"):
            drop(site, them)
        with pytest.raises(TerminalError, match="NameTaken"):
            ENSURE_AS[what](site, them)
        assert what_we_write(site.find(kind, name)) == before

    @pytest.mark.parametrize("what", list(DROP))
    def test_what_is_ours_goes_and_absent_is_success(self, site: TargetSite, what: str) -> None:
        kind, ensure = ENSURE[what]
        name, drop = DROP[what]
        drop(site, OWNER)
        ensure(site)
        eventually(site, lambda: not_in_conflict(lambda: drop(site, OWNER)))
        drop(site, OWNER)
        eventually(site, lambda: site.find(kind, name) is None and site.find_all("Secret") == [])

    def test_a_foreign_vm_is_not_switched_and_a_foreign_volume_not_marked(self, site: TargetSite) -> None:
        site.driver.ensure_vm(want.machine(site, OTHER_VM))
        site.driver.ensure_volume(want.volume(site, owner=OTHER_VM), None)
        site.settle()
        volume = seen_volume(site)
        with pytest.raises(TerminalError, match="NotOurs"):
            site.driver.request_power(site.namespace, "web", Power.ON, OWNER)
        with pytest.raises(TerminalError, match="NotOurs"):
            site.driver.put_mark(volume, None, OWNER)
        with pytest.raises(TerminalError, match="NotOurs"):
            site.driver.release_volumes(seen_vm(site), [volume], OWNER)
        assert seen_vm(site).run_strategy == "Halted"
        assert seen_volume(site).resource_version == volume.resource_version

    def test_a_machine_of_others_that_is_off_uses_its_disks_all_the_same(self, site: TargetSite) -> None:
        """No pod would tell."""
        site.driver.ensure_volume(want.volume(site), None)
        site.driver.ensure_vm(want.machine(site))
        borrower = want.machine(site, OTHER_VM, name="borrower")
        site.driver.ensure_vm(replace(borrower, disks=want.machine(site).disks))
        site.settle()
        bulk, direct = site.driver.read_inventory([site.namespace]).vms, site.driver.read_vms(site.namespace)
        assert sorted(bulk, key=str) == sorted(direct, key=str) and len(direct) == 2
        assert all(vm.claims == {seen_volume(site).name} for vm in direct)
        assert [vm.name for vm in seen_volume(site).users(direct)] == ["borrower"]

    def test_an_instance_without_a_machine_uses_its_disks_until_it_has_ended(self, site: TargetSite) -> None:
        """It says that it is ours, too; a VirtualMachine that was deleted alone leaves one like that."""
        site.driver.ensure_volume(want.volume(site), None)
        site.driver.ensure_vm(want.machine(site))
        site.settle()
        labels = (site.find("VirtualMachine", "web") or {})["metadata"]["labels"]
        guest = {"domain": {"devices": {}}, "nodeSelector": {"no": "where"}, "volumes": [disk_of(seen_volume(site).name)]}
        head = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"}
        vmi = {**head, "metadata": {"namespace": site.namespace, "name": "alone", "labels": labels}, "spec": guest}
        site.put({**vmi, "status": {"phase": "Pending"}})
        bulk, direct = site.driver.read_inventory([site.namespace]).vms, site.driver.read_vms(site.namespace)
        assert {str(vm) for vm in bulk} == {str(vm) for vm in direct} and len(direct) == 2
        assert [str(vm) for vm in seen_volume(site).users(direct)] == [f"VirtualMachineInstance {site.namespace}/alone"]
        site.put({**vmi, "status": {"phase": "Succeeded"}})
        assert [vm.name for vm in site.driver.read_vms(site.namespace)] == ["web"]

    # ---- the VM

    def test_a_vm_is_made_halted(self, site: TargetSite) -> None:
        site.driver.ensure_vm(want.machine(site))
        site.settle()
        vm = seen_vm(site)
        assert (vm.ours, vm.power, vm.run_strategy, vm.source) == (True, Power.OFF, "Halted", OWNER.source)
        assert vm.macs == ("00:50:56:00:00:01",)
        assert site.driver.read_inventory([site.namespace]).vms == (vm,)

    def test_bringing_a_vm_up_to_date_changes_it_and_never_its_power(self, site: TargetSite) -> None:
        site.driver.ensure_vm(want.machine(site))
        switch(site, Power.ON, replace(OWNER, milestone="HandedOver", commit="feed"))
        started = seen_vm(site)
        assert (started.power, started.run_strategy, started.milestone, started.commit) == (Power.ON, "Always", "HandedOver", "feed")
        site.driver.ensure_vm(replace(want.machine(site), memory_bytes=1024 * want.MIB))
        vm = site.find("VirtualMachine", "web")
        assert vm is not None
        assert vm["spec"]["template"]["spec"]["domain"]["memory"]["guest"] == "1Gi"
        assert seen_vm(site).run_strategy == "Always"

    def test_power_goes_both_ways_and_a_repeated_request_changes_nothing(self, site: TargetSite) -> None:
        site.driver.ensure_vm(want.machine(site))
        switch(site, Power.ON)
        site.settle()
        writes = site.writes()
        switch(site, Power.ON)
        assert site.writes() == writes
        switch(site, Power.OFF)
        assert seen_vm(site).run_strategy == "Halted"
        eventually(site, lambda: seen_vm(site).power is Power.OFF)

    def test_a_finished_vm_owns_its_volumes_beside_earlier_owners(self, site: TargetSite) -> None:
        site.driver.ensure_vm(want.machine(site))
        site.driver.ensure_volume(want.volume(site), None)
        site.settle()
        vm, volume = seen_vm(site), seen_volume(site)
        site.driver.release_volumes(vm, [volume], OWNER)
        site.driver.release_volumes(vm, [volume], OWNER)
        assert seen_volume(site).owners == {vm.uid}
        pvc = site.find("PersistentVolumeClaim", "web-disk-0")
        assert pvc is not None
        reference = pvc["metadata"]["ownerReferences"][0]
        assert (reference["kind"], reference["name"]) == ("VirtualMachine", "web")
        assert not reference.get("controller")

    # ---- copies

    def test_a_job_is_suspended_until_its_secret_is_there(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.driver.ensure_copy(*want.copy_arguments(site))
        name = "copy-web-r1-a1"
        assert [w for w in site.writes() if w.endswith(name)] == [f"create jobs/{name}", f"create secrets/{name}", f"patch jobs/{name}"]
        job, secret = site.find("Job", name), site.find("Secret", name)
        assert job is not None
        assert secret is not None
        assert job["spec"]["suspend"] is False
        assert [ref["uid"] for ref in secret["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]
        seen = site.driver.read_inventory([site.namespace]).jobs
        assert [(j.name, j.migration, j.vm, j.round_key, j.attempt) for j in seen] == [(name, OWNER.migration, OWNER.vm, "round-1", 1)]

    def test_a_job_that_brings_vddk_is_accepted_and_tells_its_worker_where(self, site: TargetSite) -> None:
        """Init container, shared volume, and the library's folder in the spec, which stands in the Secret."""
        site.driver.ensure_volume(want.volume(site), None)
        site.driver.ensure_copy(*want.vddk_copy_arguments(site))
        job, secret = site.find("Job", "copy-web-r1-a1"), site.find("Secret", "copy-web-r1-a1")
        assert job is not None
        assert secret is not None
        spec = job["spec"]["template"]["spec"]
        (init,), (main,) = spec["initContainers"], spec["containers"]
        assert init["image"] == want.VDDK_IMAGE
        shared = {mount["name"] for mount in init["volumeMounts"]}
        (seen,) = [mount["mountPath"] for mount in main["volumeMounts"] if mount["name"] in shared]
        told = CopySpec.from_json(base64.b64decode(secret["data"]["spec.json"]).decode()).vddk
        assert told is not None
        assert told.libdir.startswith(f"{seen}/")
        assert (told.snapshot, told.config) == ("snapshot-1", "a=1")

    def test_a_binder_that_brings_vddk_is_accepted(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.driver.ensure_binder(replace(want.binder(site), vddk_image=want.VDDK_IMAGE))
        (pod,) = site.find_all("Pod")
        assert [c["image"] for c in pod["spec"]["initContainers"]] == [want.VDDK_IMAGE]

    @pytest.mark.parametrize("letters", ["R", ".R", "..R", "L", ".L", "..L", "LLL"])
    def test_a_copy_converges_wherever_it_was_cut_off(self, site: TargetSite, letters: str) -> None:
        """Before (R) and after (L) each of the three writes. Between, the pod must not be able to start without its Secret."""
        site.driver.ensure_volume(want.volume(site), None)
        site.faults.script(letters, only=is_write)
        for _ in range(4):
            try:
                site.driver.ensure_copy(*want.copy_arguments(site))
            except RetryableError:
                jobs, secrets = site.find_all("Job"), site.find_all("Secret")
                assert all(job["spec"]["suspend"] for job in jobs) or secrets
                continue
            break
        assert site.faults.spent
        assert [job["spec"]["suspend"] for job in site.find_all("Job")] == [False]
        assert len(site.find_all("Secret")) == 1

    def test_todays_credentials_replace_those_of_a_crashed_start(self, site: TargetSite) -> None:
        job, disks, source, spec = want.copy_arguments(site)
        site.faults.script("..R", only=is_write)
        with pytest.raises(RetryableError):
            site.driver.ensure_copy(job, disks, source, spec)
        site.driver.ensure_copy(job, disks, replace(source, credentials={"cookie": source.credentials["user"]}), spec)
        (secret,) = site.find_all("Secret")
        assert base64.b64decode(secret["data"]["cookie"]) == b"administrator"

    def test_credentials_are_in_the_secret_and_nowhere_else(self, site: TargetSite, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        site.driver.ensure_copy(*want.copy_arguments(site))
        site.settle()
        needles = (PASSWORD, base64.b64encode(PASSWORD.encode()).decode())
        for kind in ("Job", "Pod", "Event", "PersistentVolumeClaim", "VirtualMachine"):
            text = json.dumps(site.find_all(kind))
            assert not any(needle in text for needle in needles), kind
        assert not any(needle in caplog.text + repr(site.driver.read_inventory([site.namespace])) for needle in needles)
        (secret,) = site.find_all("Secret")
        spec = json.loads(base64.b64decode(secret["data"]["spec.json"]))
        assert needles[1] == secret["data"]["password"]
        assert PASSWORD not in json.dumps(spec)
        assert spec["disks"][0]["target"] == "/var/run/reconciler/disks/0/disk.img"

    def test_a_secret_is_read_as_text(self, site: TargetSite) -> None:
        data = {"token": base64.b64encode(b"abc").decode()}
        site.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": site.namespace, "name": "creds"}, "data": data})
        found = site.driver.read_secret(site.namespace, "creds")
        assert found is not None
        assert found["token"].reveal() == "abc"
        assert site.driver.read_secret(site.namespace, "none") is None

    def test_progress_is_read_from_the_running_pod(self, site: TargetSite) -> None:
        progress = DiskProgress("disk-uuid-0", 8 * want.MIB, want.MIB, 0, want.MIB, 5.0)
        result = CopyResult((DiskResult("disk-uuid-0", True, 1, 1, 0, 1, 1.0, "http-range", "ok"),))
        site.worker_prints([progress_line((replace(progress, done_bytes=0),)), "noise", progress_line((progress,)), result_line(result)])
        site.driver.ensure_volume(want.volume(site), None)
        assert site.driver.read_progress(site.namespace, "copy-web-r1-a1").disks == ()
        site.driver.ensure_copy(*want.copy_arguments(site))
        eventually(site, lambda: site.driver.read_progress(site.namespace, "copy-web-r1-a1").result is not None)
        found = site.driver.read_progress(site.namespace, "copy-web-r1-a1")
        assert (found.disks, found.result) == ((progress,), result)
        (job,) = site.driver.read_inventory([site.namespace]).jobs
        assert job.phase is JobPhase.RUNNING
        (writer,) = seen_volume(site).writers
        assert (writer.role, writer.ours, writer.fenced) == ("importer", True, False)

    # ---- marks

    def test_marks_are_set_cleared_and_swapped_only_on_what_was_seen(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.settle()
        seen = seen_volume(site)
        mark = Mark("disk-uuid-0", seen.uid, 1, "epoch-1", None, MarkState.CLEAN)
        site.driver.put_mark(seen, mark, replace(OWNER, milestone="Cutover", commit="feed"))
        marked = seen_volume(site)
        assert (marked.mark, marked.commit) == (mark, "feed")
        with pytest.raises(RetryableError, match="Conflict"):
            site.driver.put_mark(seen, None, OWNER)
        assert seen_volume(site).mark == mark
        site.driver.put_mark(marked, None, OWNER)
        assert seen_volume(site).mark is None
        pvc = site.find("PersistentVolumeClaim", "web-disk-0")
        assert pvc is not None
        assert MARK not in pvc["metadata"]["annotations"]

    def test_watermarks_are_swapped_only_on_what_was_seen(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.settle()
        seen = seen_volume(site)
        site.driver.put_watermark(seen, Watermark("round-1", 4096))
        with pytest.raises(RetryableError, match="Conflict"):
            site.driver.put_watermark(seen, Watermark("round-1", 8192))
        assert seen_volume(site).watermark == Watermark("round-1", 4096)

    def test_a_decision_on_a_stale_sight_does_not_land(self, site: TargetSite) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        site.settle()
        site.driver.put_watermark(seen_volume(site), Watermark("round-1", 1))
        site.faults.script("S", only=lambda label: label.startswith("GET ") and "persistentvolumeclaims/web-disk-0" in label)
        with pytest.raises(RetryableError, match="Conflict"):
            site.driver.drop_volume(site.namespace, "web-disk-0", OWNER)
        assert seen_volume(site).watermark == Watermark("round-1", 1)

    # ---- fencing (safety 4)

    @pytest.mark.parametrize(
        ("phase", "ready", "taint", "fenced"),
        [
            ("Running", "True", None, False),
            ("Succeeded", "True", None, True),
            ("Failed", "True", None, True),
            ("Failed", "Unknown", None, False),
            ("Running", "Unknown", None, False),
            ("Running", "Unknown", "node.kubernetes.io/out-of-service", True),
            ("Running", None, None, True),
        ],
    )
    def test_a_writer_is_fenced_only_when_that_is_proven(
        self, site: TargetSite, phase: str, ready: str | None, taint: str | None, fenced: bool
    ) -> None:
        site.driver.ensure_volume(want.volume(site), None)
        if ready is not None:
            site.put(want.node("node-contract", ready, taint))
        site.put(want.pod_using(site, "web-disk-0", node="node-contract", phase=phase, labels={"kubevirt.io": "virt-launcher"}))
        (listed,) = site.driver.read_inventory([site.namespace]).volumes
        for volume in (seen_volume(site), listed):
            found = [(w.phase, w.role, w.ours, w.fenced) for w in volume.writers]
            # The pod collector removes pods of lost nodes at a time of its choosing.
            assert found == [(phase, "vmi", False, fenced)] or (not found and (ready is None or taint))

    # ---- the bulk read

    def test_a_list_is_read_to_its_last_page(self, site: TargetSite) -> None:
        for n in range(5):
            site.driver.ensure_volume(want.volume(site, n), None)
        paged = site.connect(page_size=2).read_inventory([site.namespace])
        assert [v.name for v in paged.volumes] == [f"web-disk-{n}" for n in range(5)]

    def test_the_number_of_requests_does_not_grow_with_the_number_of_objects(self, site: TargetSite) -> None:
        def cost() -> int:
            before = site.requests()
            site.driver.read_inventory([site.namespace])
            return site.requests() - before

        empty = cost()
        for n in range(4):
            site.driver.ensure_volume(want.volume(site, n), None)
            site.driver.ensure_vm(want.machine(site, name=f"web-{n}"))
        assert cost() == empty

    @pytest.mark.parametrize("kind", ["persistentvolumeclaims", "pods", "jobs", "virtualmachines", "nodes", "storageprofiles"])
    @pytest.mark.parametrize("letter", ["R", "T"])
    def test_an_inventory_is_whole_or_an_error(self, site: TargetSite, kind: str, letter: str) -> None:
        site.faults.script(letter, only=lambda label: f"/{kind}" in label)
        with pytest.raises(RetryableError):
            site.driver.read_inventory([site.namespace])
        assert site.faults.spent

    # ---- faults

    @pytest.mark.parametrize("letter", list("RBHTL"))
    @pytest.mark.parametrize("what", ["read", "write"])
    def test_a_fault_of_the_wire_is_retryable(self, site: TargetSite, letter: str, what: str) -> None:
        driver = site.connect(timeout_s=0.5) if letter == "H" else site.driver
        site.faults.script(letter)
        with pytest.raises(RetryableError):
            if what == "read":
                driver.read_site()
            else:
                driver.ensure_volume(want.volume(site), None)
        assert site.faults.spent

    def test_credentials_that_are_not_accepted_are_for_a_person(self, site: TargetSite) -> None:
        site.faults.script("E")
        with pytest.raises(TerminalError, match="AuthFailed"):
            site.driver.read_site()

    @pytest.mark.parametrize("what", list(ENSURE))
    def test_repeat_after_a_lost_reply_makes_one_object(self, site: TargetSite, what: str) -> None:
        kind, ensure = ENSURE[what]
        site.faults.script("L", only=is_write)
        with pytest.raises(RetryableError):
            ensure(site)
        ensure(site)
        ensure(site)
        assert [obj["metadata"]["name"] for obj in site.find_all(kind) if MANAGED_BY in obj["metadata"]["labels"]][:2] == [DROP[what][0]]
        assert len([w for w in site.writes() if w.startswith("create") and w.endswith(DROP[what][0])]) == (2 if what == "copy" else 1)

    def test_a_used_up_quota_is_named(self, site: TargetSite) -> None:
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"namespace": site.namespace, "name": "gold"},
            "spec": {"hard": {"requests.storage": "9Mi"}},
        }
        site.put(quota | {"status": {"hard": {"requests.storage": "9Mi"}, "used": {"requests.storage": "0"}}})
        site.settle()
        site.driver.ensure_volume(want.volume(site, 0), None)
        with pytest.raises(RetryableError, match="QuotaExceeded") as caught:
            site.driver.ensure_volume(want.volume(site, 1), None)
        assert "gold" in caught.value.message
