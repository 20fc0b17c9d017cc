"""The simulated vCenter against the real pyVmomi: updates, power, tasks, events and the fault script.

Simulated time throughout: nothing here waits for a clock, except where a client waits on the wire.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pyVmomi import SoapStubAdapter, vim, vmodl

from reconciler.lab.tls import LabCa
from tests.unit.lab.vcenterkit import PC, Site, all_vms, ref, spec


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> LabCa:
    return LabCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def site(tmp_path: Path, ca: LabCa) -> Iterator[Site]:
    made = Site(tmp_path, ca)
    made.vcenter.start()
    yield made
    made.vcenter.stop()


# ---- updates --------------------------------------------------------------------------------------------------------------------------


def test_updates_come_in_versions_and_are_repeated_after_a_lost_reply(site: Site) -> None:
    with site.client() as si:
        collector = si.content.propertyCollector
        collector.CreateFilter(spec(all_vms(si), ["name", "runtime.powerState"]), False)
        first = collector.WaitForUpdatesEx("", PC.WaitOptions(maxObjectUpdates=3))
        assert first.truncated and [len(f.objectSet) for f in first.filterSet] == [3]
        second = collector.WaitForUpdatesEx(first.version, PC.WaitOptions(maxObjectUpdates=3))
        assert not second.truncated and [u.kind for f in second.filterSet for u in f.objectSet] == ["enter", "enter"]
        assert collector.WaitForUpdatesEx(second.version, PC.WaitOptions(maxWaitSeconds=0)) is None
        site.world.power_on(site.vm(3), user="alice")
        third = collector.CheckForUpdates(second.version)
        again = collector.CheckForUpdates(second.version)
        for seen in (third, again):
            (update,) = seen.filterSet[0].objectSet
            assert (update.kind, update.obj._moId) == ("modify", f"vm-{site.vm(3).key}")
            assert [(c.name, c.op, c.val) for c in update.changeSet] == [("runtime.powerState", "assign", "poweredOn")]
        gone = site.world.vms.pop(site.vm(4).key)
        site.world.touch()
        leave = collector.CheckForUpdates(again.version).filterSet[0].objectSet
        assert [(u.kind, u.obj._moId) for u in leave] == [("leave", f"vm-{gone.key}")]
        with pytest.raises(vmodl.query.InvalidCollectorVersion):
            collector.CheckForUpdates("999")


def test_a_waiting_client_hears_of_a_change_at_once(site: Site) -> None:
    with site.client() as si:
        collector = si.content.propertyCollector
        collector.CreateFilter(spec(all_vms(si), ["runtime.powerState"]), False)
        first = collector.WaitForUpdatesEx("", PC.WaitOptions())
        timer = threading.Timer(0.1, lambda: site.world.power_on(site.vm(0)))
        timer.start()
        heard = collector.WaitForUpdatesEx(first.version, PC.WaitOptions(maxWaitSeconds=4))
        timer.join()
        assert heard.filterSet[0].objectSet[0].changeSet[0].val == "poweredOn"


def test_stop_cuts_off_those_who_wait(site: Site) -> None:
    with site.client() as si:
        collector = si.content.propertyCollector
        timer = threading.Timer(0.1, site.vcenter.stop)
        timer.start()
        with pytest.raises((OSError, http.client.HTTPException, vmodl.MethodFault)):
            collector.WaitForUpdatesEx("", PC.WaitOptions(maxWaitSeconds=60))
        timer.join()
    assert not [t for t in threading.enumerate() if "process_request" in t.name or t.name == "vcenter"]


# ---- power, tasks, events -------------------------------------------------------------------------------------------------------------


def test_power_is_a_task_that_takes_its_time(site: Site) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        task = vm.PowerOnVM_Task()
        assert (task.info.state, vm.runtime.powerState) == ("running", "poweredOff")
        with pytest.raises(vim.fault.TaskInProgress) as busy:
            vm.PowerOnVM_Task()
        assert busy.value.task._moId == task._moId
        site.pass_time(10)
        assert (task.info.state, vm.runtime.powerState, task.info.completeTime) == ("success", "poweredOn", site.clock.now())
        assert [t._moId for t in vm.recentTask] == [task._moId]
        again = vm.PowerOnVM_Task()
        site.pass_time(10)
        assert again.info.state == "error" and isinstance(again.info.error, vim.fault.InvalidPowerState)
        site.pass_time(700)
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            task.info  # noqa: B018


def test_a_guest_is_shut_down_through_its_tools(site: Site) -> None:
    record = site.vm(0)
    record.shutdown_s = 45.0
    with site.client() as si:
        vm = ref(site, si, 0)
        with pytest.raises(vim.fault.InvalidPowerState):
            vm.ShutdownGuest()
        site.world.power_on(record)
        record.tools = False
        with pytest.raises(vim.fault.ToolsUnavailable):
            vm.ShutdownGuest()
        record.tools = True
        vm.ShutdownGuest()
        site.pass_time(44)
        assert vm.runtime.powerState == "poweredOn"
        site.pass_time(1)
        assert (vm.runtime.powerState, vm.guest.guestState) == ("poweredOff", "notRunning")
        assert vm.runtime.bootTime is None


def test_a_privilege_may_be_lacking(site: Site) -> None:
    site.vcenter.denied.add("VirtualMachine.Interact.PowerOff")
    site.world.power_on(site.vm(0))
    with site.client() as si:
        vm = ref(site, si, 0)
        with pytest.raises(vim.fault.NoPermission):
            vm.ShutdownGuest()
        wanted = ["VirtualMachine.Interact.PowerOff", "VirtualMachine.Interact.PowerOn"]
        key = si.content.sessionManager.currentSession.key
        (found,) = si.content.authorizationManager.HasPrivilegeOnEntities([vm], key, wanted)
        assert [p.isGranted for p in found.privAvailability] == [False, True]
        (held,) = si.content.authorizationManager.FetchUserPrivilegeOnEntities([vm], site.vcenter.user)
        assert wanted[0] not in held.privileges and wanted[1] in held.privileges


def test_events_tell_who_powered_what_and_when(site: Site) -> None:
    with site.client() as si:
        task = ref(site, si, 0).PowerOnVM_Task()
        site.pass_time(10)
        assert task.info.state == "success"
        after = site.clock.now() + timedelta(seconds=1)
        site.pass_time(5)
        site.world.power_off(site.vm(0), user="bob")
        site.world.power_on(site.vm(0), user="alice")
        site.world.power_on(site.vm(1), user="carol")
        events = si.content.eventManager
        entity = vim.event.EventFilterSpec.ByEntity(entity=ref(site, si, 0), recursion="self")
        mine = events.QueryEvents(vim.event.EventFilterSpec(entity=entity))
        kinds = [type(e).__name__.rpartition(".")[2] for e in mine]
        assert kinds == ["VmStartingEvent", "DrsVmPoweredOnEvent", "VmPoweredOffEvent", "VmStartingEvent", "VmPoweredOnEvent"]
        assert [e.userName for e in mine] == [site.vcenter.user, site.vcenter.user, "bob", "alice", "alice"]
        time = vim.event.EventFilterSpec.ByTime(beginTime=after)
        types = ["VmPoweredOnEvent", "vim.event.DrsVmPoweredOnEvent"]
        late = vim.event.EventFilterSpec(time=time, eventTypeId=types)
        assert [e.userName for e in events.QueryEvents(late)] == ["alice", "carol"]
        collector = events.CreateCollectorForEvents(late)
        assert [e.userName for e in collector.ReadNextEvents(1)] == ["alice"]
        assert [e.userName for e in collector.ReadNextEvents(9)] == ["carol"]
        assert not collector.ReadNextEvents(9)
        collector.ResetCollector()
        assert [e.userName for e in collector.ReadPreviousEvents(9)] == ["carol", "alice"]
        collector.RewindCollector()
        assert [e.userName for e in collector.ReadNextEvents(9)] == ["alice", "carol"]
        collector.SetCollectorPageSize(1)
        assert [e.userName for e in collector.latestPage] == ["carol"]
        collector.DestroyCollector()
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            collector.ReadNextEvents(1)
        folder = si.content.searchIndex.FindByInventoryPath("DC1/vm/Shop")
        below = vim.event.EventFilterSpec.ByEntity(entity=folder, recursion="all")
        assert {e.vm.name for e in events.QueryEvents(vim.event.EventFilterSpec(entity=below))} == {"vm-1"}


def test_the_history_of_a_deleted_machine_stays(site: Site) -> None:
    gone = site.vm(0)
    site.world.power_on(gone, user="alice")
    site.world.remove_vm(gone)
    with site.client() as si:
        found = si.content.eventManager.QueryEvents(vim.event.EventFilterSpec())
        assert {(e.vm.name, e.userName) for e in found} == {("vm-0", "alice")}
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            vim.VirtualMachine(f"vm-{gone.key}", si._stub).PowerOffVM_Task()


def test_snapshots_are_made_and_removed_by_task(site: Site) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        task = vm.CreateSnapshot_Task(name="ours", description="d", memory=False, quiesce=False)
        site.pass_time(10)
        snapshot = task.info.result
        assert vm.snapshot.currentSnapshot._moId == snapshot._moId
        assert [s.name for s in vm.snapshot.rootSnapshotList] == ["ours"]
        backing = next(d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)).backing
        assert (backing.fileName, backing.parent.fileName) == ("[ds-fast] vm-0/vm-0-000001.vmdk", "[ds-fast] vm-0/vm-0.vmdk")
        assert backing.deltaDiskFormat == "seSparseFormat"
        snapshot.RemoveSnapshot_Task(removeChildren=False)
        site.pass_time(10)
        assert vm.snapshot is None


# ---- the fault script -----------------------------------------------------------------------------------------------------------------


def power_on(label: str) -> bool:
    return label == "VirtualMachine.PowerOnVM_Task"


@pytest.mark.parametrize(("letter", "landed"), [("R", False), ("RR", False), ("L", True), ("T", True)])
def test_a_broken_connection_may_or_may_not_have_done_it(site: Site, letter: str, landed: bool) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        site.vcenter.faults.script(letter, power_on)
        for _ in letter:
            with pytest.raises(Exception) as broken:
                vm.PowerOnVM_Task()
            assert not isinstance(broken.value, vmodl.MethodFault)
        assert site.vcenter.faults.spent
        site.pass_time(10)
        assert vm.runtime.powerState == ("poweredOn" if landed else "poweredOff")


def test_busy_expired_and_hanging(site: Site) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        site.vcenter.faults.script("B", power_on)
        with pytest.raises(vim.fault.TaskInProgress):
            vm.PowerOnVM_Task()
        site.vcenter.faults.script("E", power_on)
        with pytest.raises(vim.fault.NotAuthenticated):
            vm.PowerOnVM_Task()
        assert not site.world.history
    impatient = SoapStubAdapter("127.0.0.1", site.vcenter.port, sslContext=site.context, httpConnectionTimeout=0.3)
    site.vcenter.faults.script("H")
    with pytest.raises(TimeoutError):
        vim.ServiceInstance("ServiceInstance", impatient).RetrieveContent()
    impatient.DropConnections()


def test_a_stale_read_is_the_answer_before_this_one(site: Site) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        assert vm.runtime.powerState == "poweredOff"
        site.world.power_on(site.vm(0))
        site.vcenter.faults.script("S", lambda label: label == "VirtualMachine.runtime")
        assert vm.runtime.powerState == "poweredOff"
        assert vm.runtime.powerState == "poweredOn"
