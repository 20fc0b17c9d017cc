"""The simulated vCenter against the real pyVmomi: sessions, inventory, updates, power, events and the fault script.

Simulated time throughout: nothing here waits for a clock, except where a client waits on the wire.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyVim.connect import SmartConnect
from pyVmomi import SoapStubAdapter, vim, vmodl

from reconciler.lab.machines import Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World

PC = vmodl.query.PropertyCollector
VM_PATHS = [
    "name",
    "config.uuid",
    "config.hardware.device",
    "config.bootOptions.efiSecureBootEnabled",
    "config.annotation",
    "runtime.powerState",
    "guest.toolsRunningStatus",
    "summary.config.tpmPresent",
    "network",
    "datastore",
    "parent",
    "snapshot",
]


class HandClock:
    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


class Site:
    def __init__(self, root: Path, ca: LabCa, vms: int = 5) -> None:
        self.clock = HandClock()
        self.world = World(root, self.clock)
        self.context = ssl.create_default_context(cafile=str(ca.path))
        dc = self.world.add_datacenter("DC1")
        host = self.world.add_host("esxi-01", self.world.add_cluster("Cluster1", dc))
        store = self.world.add_datastore("ds-fast", dc)
        plain = self.world.add_network("VM Network", dc)
        portgroup = self.world.add_network("App", dc, switch="DSwitch", vlan=210)
        for number in range(vms):
            vm = self.world.add_vm(f"vm-{number}/x" if number == 4 else f"vm-{number}", host, folder="Shop" if number else "")
            self.world.add_disk(vm, store, 1, bus=("pvscsi", "sata", "nvme")[number % 3])
            self.world.add_nic(vm, portgroup if number % 2 else plain)
        self.vcenter = VCenter(self.world, ca, self.clock, page_size=2, task_s=10.0, session_idle_s=1800.0)

    def vm(self, number: int) -> Vm:
        return list(self.world.vms.values())[number]

    def pass_time(self, seconds: float) -> None:
        self.clock.passed += seconds

    @contextmanager
    def client(self) -> Iterator[Any]:
        si = SmartConnect(
            host="127.0.0.1",
            port=self.vcenter.port,
            user=self.vcenter.user,
            pwd=self.vcenter.password,
            sslContext=self.context,
            httpConnectionTimeout=5,
        )
        try:
            yield si
        finally:
            si._stub.DropConnections()

    @contextmanager
    def stranger(self) -> Iterator[Any]:
        stub = SoapStubAdapter("127.0.0.1", self.vcenter.port, version="vim.version.v8_0_2_0", sslContext=self.context)
        try:
            yield vim.ServiceInstance("ServiceInstance", stub)
        finally:
            stub.DropConnections()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> LabCa:
    return LabCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def site(tmp_path: Path, ca: LabCa) -> Iterator[Site]:
    made = Site(tmp_path, ca)
    made.vcenter.start()
    yield made
    made.vcenter.stop()


def spec(view: Any, paths: list[str] = VM_PATHS, kind: Any = vim.VirtualMachine) -> Any:
    step = PC.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
    start = PC.ObjectSpec(obj=view, skip=True, selectSet=[step])
    return PC.FilterSpec(objectSet=[start], propSet=[PC.PropertySpec(type=kind, pathSet=paths)])


def all_vms(si: Any) -> Any:
    content = si.content
    return content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)


def ref(site: Site, si: Any, number: int) -> Any:
    return vim.VirtualMachine(f"vm-{site.vm(number).key}", si._stub)


# ---- sessions -------------------------------------------------------------------------------------------------------------------------


def test_a_client_logs_in_and_learns_who_it_talks_to(site: Site) -> None:
    with site.client() as si:
        assert si._stub.version == "vim.version.v8_0_2_0"
        about = si.content.about
        assert (about.apiType, about.apiVersion, about.instanceUuid) == ("VirtualCenter", "8.0.2.0", site.vcenter.instance_uuid)
        assert si.CurrentTime() == site.clock.now()
        assert si.content.sessionManager.currentSession.userName == site.vcenter.user
        assert site.vcenter.calls["SessionManager.Login"] == 1


def test_a_wrong_password_is_refused_and_a_stranger_may_read_nothing(site: Site) -> None:
    with site.stranger() as si:
        assert si.content.sessionManager.currentSession is None
        with pytest.raises(vim.fault.InvalidLogin):
            si.content.sessionManager.Login(site.vcenter.user, "wrong")
        with pytest.raises(vim.fault.NotAuthenticated):
            all_vms(si)
        with pytest.raises(vim.fault.NotAuthenticated):
            si.content.rootFolder.name  # noqa: B018


def test_the_certificate_is_trusted_through_the_ca_only(site: Site) -> None:
    stub = SoapStubAdapter("127.0.0.1", site.vcenter.port, sslContext=ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
    pinned = SoapStubAdapter("127.0.0.1", site.vcenter.port, thumbprint=site.vcenter.thumbprint_sha256)
    assert vim.ServiceInstance("ServiceInstance", pinned).RetrieveContent().about.apiType == "VirtualCenter"
    pinned.DropConnections()


def test_an_idle_session_expires_and_takes_its_views_with_it(site: Site) -> None:
    with site.client() as si:
        view = all_vms(si)
        site.pass_time(1799)
        assert len(view.view) == 5
        site.pass_time(1801)
        with pytest.raises(vim.fault.NotAuthenticated):
            view.view  # noqa: B018
        si.content.sessionManager.Login(site.vcenter.user, site.vcenter.password)
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            view.view  # noqa: B018


def test_a_logout_ends_the_session(site: Site) -> None:
    with site.client() as si:
        si.content.sessionManager.Logout()
        with pytest.raises(vim.fault.NotAuthenticated):
            si.CurrentTime()


# ---- inventory ------------------------------------------------------------------------------------------------------------------------


def test_the_inventory_comes_in_pages_and_is_complete(site: Site) -> None:
    with site.client() as si:
        collector, view = si.content.propertyCollector, all_vms(si)
        pages, result = [], collector.RetrievePropertiesEx([spec(view)], PC.RetrieveOptions())
        while result is not None:
            pages.append([{p.name: p.val for p in o.propSet} for o in result.objects])
            result = collector.ContinueRetrievePropertiesEx(result.token) if result.token else None
        assert [len(p) for p in pages] == [2, 2, 1]
        found = [vm for page in pages for vm in page]
        assert [vm["name"] for vm in found] == ["vm-0", "vm-1", "vm-2", "vm-3", "vm-4%2fx"]
        assert [vm["config.uuid"] for vm in found] == [vm.uuid for vm in site.world.vms.values()]
        assert all("snapshot" not in vm and "config.annotation" not in vm for vm in found)  # unset is absent
        small = collector.RetrievePropertiesEx([spec(view, ["name"])], PC.RetrieveOptions(maxObjects=1))
        assert len(small.objects) == 1
        collector.CancelRetrievePropertiesEx(small.token)
        with pytest.raises(vmodl.fault.InvalidArgument):
            collector.ContinueRetrievePropertiesEx(small.token)


def test_disks_and_cards_are_typed_as_vsphere_types_them(site: Site) -> None:
    with site.client() as si:
        devices = ref(site, si, 1).config.hardware.device
        (disk,) = [d for d in devices if isinstance(d, vim.vm.device.VirtualDisk)]
        (controller,) = [d for d in devices if d.key == disk.controllerKey]
        (card,) = [d for d in devices if isinstance(d, vim.vm.device.VirtualEthernetCard)]
        assert isinstance(controller, vim.vm.device.VirtualAHCIController)
        assert isinstance(disk.backing, vim.vm.device.VirtualDisk.FlatVer2BackingInfo)
        assert (disk.backing.fileName, disk.backing.uuid) == ("[ds-fast] vm-1/vm-1.vmdk", site.vm(1).disks[0].uuid)
        assert disk.backing.parent is None and disk.backing.keyId is None
        assert card.macAddress.startswith("00:50:56:")
        assert isinstance(card, vim.vm.device.VirtualVmxnet3)
        (network,) = ref(site, si, 1).network
        assert card.backing.port.portgroupKey == network._moId == vim.dvs.DistributedVirtualPortgroup(network._moId, si._stub).key


def test_chains_encryption_and_raw_disks_show_in_the_backing(site: Site) -> None:
    disk = site.vm(0).disks[0]
    disk.parents, disk.key_id = ("[ds-fast] vm-0/vm-0-000001.vmdk", "[ds-fast] vm-0/vm-0.vmdk"), "key-1"
    site.vm(1).disks[0].kind = "RawDiskMappingVer1"
    with site.client() as si:
        backing = next(d for d in ref(site, si, 0).config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)).backing
        assert backing.keyId.keyId == "key-1"
        assert [backing.parent.fileName, backing.parent.parent.fileName, backing.parent.parent.parent] == [*disk.parents, None]
        raw = next(d for d in ref(site, si, 1).config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)).backing
        assert isinstance(raw, vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo)


def test_the_tree_can_be_walked_by_traversal_specs(site: Site) -> None:
    with site.client() as si:
        again = PC.SelectionSpec(name="folder")
        folders = PC.TraversalSpec(name="folder", type=vim.Folder, path="childEntity", selectSet=[again, PC.SelectionSpec(name="dc")])
        dc = PC.TraversalSpec(name="dc", type=vim.Datacenter, path="vmFolder", selectSet=[again])
        start = PC.ObjectSpec(obj=si.content.rootFolder, skip=False, selectSet=[folders, dc])
        kinds = [PC.PropertySpec(type=kind, pathSet=["name", "parent"]) for kind in (vim.Folder, vim.Datacenter, vim.VirtualMachine)]
        found = si.content.propertyCollector.RetrieveProperties([PC.FilterSpec(objectSet=[start], propSet=kinds)])
        names = [p.val for o in found for p in o.propSet if p.name == "name"]
        assert sorted(names) == sorted(["Datacenters", "DC1", "vm", "Shop", *(f"vm-{n}" for n in range(4)), "vm-4%2fx"])
        shop = si.content.searchIndex.FindByInventoryPath("DC1/vm/Shop")
        assert [p.name for p in (shop, shop.parent, shop.parent.parent)] == ["Shop", "vm", "DC1"]
        found_vm = si.content.searchIndex.FindByUuid(None, site.vm(2).instance_uuid, True, True)
        assert found_vm._moId == f"vm-{site.vm(2).key}"
        assert si.content.searchIndex.FindByInventoryPath("DC1/vm/nothing") is None


def test_what_may_not_be_read_is_missing_and_what_does_not_exist_is_an_error(site: Site) -> None:
    site.vcenter.reader.denied.add("config")
    with site.client() as si:
        (found,) = si.content.propertyCollector.RetrieveProperties([object_spec(ref(site, si, 0), ["name", "config.uuid"])])
        assert [p.name for p in found.propSet] == ["name"]
        assert [(m.path, type(m.fault)) for m in found.missingSet] == [("config.uuid", vim.fault.NoPermission)]
        with pytest.raises(vmodl.query.InvalidProperty):
            si.content.propertyCollector.RetrieveProperties([object_spec(ref(site, si, 0), ["runtime.colour"])])
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            si.content.propertyCollector.RetrieveProperties([object_spec(vim.VirtualMachine("vm-999999"), ["name"])])


def object_spec(obj: Any, paths: list[str]) -> Any:
    return PC.FilterSpec(objectSet=[PC.ObjectSpec(obj=obj)], propSet=[PC.PropertySpec(type=type(obj), pathSet=paths)])


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
        collector.DestroyCollector()
        folder = si.content.searchIndex.FindByInventoryPath("DC1/vm/Shop")
        below = vim.event.EventFilterSpec.ByEntity(entity=folder, recursion="all")
        assert {e.vm.name for e in events.QueryEvents(vim.event.EventFilterSpec(entity=below))} == {"vm-1"}


def test_snapshots_are_made_and_removed_by_task(site: Site) -> None:
    with site.client() as si:
        vm = ref(site, si, 0)
        task = vm.CreateSnapshot_Task(name="ours", description="d", memory=False, quiesce=False)
        site.pass_time(10)
        snapshot = task.info.result
        assert vm.snapshot.currentSnapshot._moId == snapshot._moId
        assert [s.name for s in vm.snapshot.rootSnapshotList] == ["ours"]
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
