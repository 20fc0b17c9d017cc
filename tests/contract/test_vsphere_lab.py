"""The vSphere driver against the simulated vCenter: the source contract, and what only vSphere has."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.clock import SystemClock
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Power, PowerRequest, Right, Secret, VmRef
from reconciler.drivers.vsphere import collector
from reconciler.drivers.vsphere.source import connect
from reconciler.errors import RetryableError, TerminalError
from reconciler.lab.machines import Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.events import Events
from reconciler.lab.vcenter.properties import NO_SESSION_MISSING, UNSET_ASSIGNED, UNSET_ON_LATER_PAGES
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.ports import DiskChoice, SourceDriver
from tests.contract.sdkequal import assert_read_alike
from tests.contract.suite_source import PASSWORD, Site, SourceContract, assert_is_world, by_name, known

PROVIDER = ObjectRef("openshift-mtv", "vcenter")
USER = "administrator@vsphere.local"


class HandClock:
    """Lab time that moves only when a test says so."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, 12, 0, tzinfo=UTC) + timedelta(seconds=self.at_s)

    def monotonic(self) -> float:
        return self.at_s


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabCa, LabCa]:
    folder = tmp_path_factory.mktemp("ca")
    return LabCa(folder / "right"), LabCa(folder / "stranger")


def build(world: World) -> Vm:
    """Seven machines, so that pages of three do not end evenly."""
    east, west = world.add_datacenter("DC East"), world.add_datacenter("DC/West")
    cluster, far = world.add_cluster("prod", east), world.add_cluster("far", west)
    host, distant = world.add_host("esx-1.lab", cluster), world.add_host("esx-2.lab", far)
    vmfs, nfs = world.add_datastore("vmfs 1", east), world.add_datastore("nfs&2", west, "NFS")
    lan, dmz = world.add_network("VM Network", east), world.add_network("pg-dmz", east, switch="dvs-1", vlan=7)
    web = world.add_vm("web 01", host, folder="prod/web", firmware="efi", secure_boot=True, cpus=4, cores_per_socket=2)
    world.add_disk(web, vmfs, capacity_mib=16, data_mib=2)
    world.add_disk(web, vmfs, capacity_mib=8, data_mib=1, bus="sata")
    world.add_nic(web, lan)
    world.add_nic(web, dmz, "e1000e")
    for number in range(4):
        vm = world.add_vm(f"app-{number}", host)
        world.add_disk(vm, vmfs, capacity_mib=4)
        world.add_nic(vm, lan)
    other = world.add_vm("name/with%odd\\signs", distant)
    world.add_disk(other, nfs, capacity_mib=4, data_mib=1)
    snapped = world.add_vm("snapped", host)
    world.create_snapshot(snapped, "before update")
    world.power_on(web)
    return web


@pytest.fixture
def vcenter(tmp_path: Path, cas: tuple[LabCa, LabCa]) -> Iterator[VCenter]:
    clock = HandClock()
    world = World(tmp_path / "world", clock)
    build(world)
    center = VCenter(world, cas[0], clock, user=USER, password=PASSWORD, page_size=3)
    center.start()
    yield center
    center.stop()


@pytest.fixture
def site(vcenter: VCenter, cas: tuple[LabCa, LabCa]) -> Iterator[Site]:
    drivers: list[SourceDriver] = []
    world = vcenter.world

    def make(
        *,
        url: str | None = None,
        password: str | None = None,
        ca_pem: str | None = None,
        thumbprint: str | None = None,
        insecure: bool = False,
        timeout_s: float | None = None,
        follow: bool = False,
    ) -> SourceDriver:
        given = {"thumbprint": thumbprint, "requestTimeoutSeconds": str(timeout_s or 20)}
        settings = {key: value for key, value in given.items() if value}
        spec = ProviderSpec(PROVIDER, "vsphere", url or vcenter.url, None, settings, Place("provider.yaml", 1))
        texts = {
            "user": USER,
            "password": password or PASSWORD,
            "ca.crt": cas[0].pem if ca_pem is None else ca_pem,
            "insecureSkipVerify": str(insecure).lower(),
        }
        drivers.append(connect(spec, {key: Secret(value) for key, value in texts.items()}, SystemClock(), follow=follow))
        return drivers[-1]

    def ref(vm: Vm) -> VmRef:
        return VmRef(PROVIDER, vcenter.instance_uuid, f"vm-{vm.key}", vm.instance_uuid, vm.name)

    def advance(seconds: float) -> None:
        world.clock.at_s += seconds  # type: ignore[attr-defined]
        world.settle()

    def delete(vm: Vm) -> None:
        with world.lock:
            del world.vms[vm.key]
            world.touch()

    def expire() -> None:
        with world.lock:
            vcenter.sessions.drop_all()

    yield Site(
        driver=make(),
        connect=make,
        world=world,
        faults=vcenter.faults,
        vm=ref(world.vm("web 01")),
        advance=advance,
        ref=ref,
        requests=lambda: sum(vcenter.calls.values()),
        is_power=lambda label: label.startswith("VirtualMachine."),
        is_login=lambda label: label == "SessionManager.Login",
        delete_vm=delete,
        expire_sessions=expire,
        site_uuid=vcenter.instance_uuid,
        ca_pem=cas[0].pem,
        stranger_ca_pem=cas[1].pem,
        thumbprint=vcenter.thumbprint_sha256,
        path="datastore",
    )
    vcenter.faults.script("")
    for driver in drivers:
        driver.close()


class TestVsphereLab(SourceContract):
    """Everything in the contract."""


def test_a_read_costs_a_fixed_number_of_calls(site: Site, vcenter: VCenter) -> None:
    site.driver.read_inventory()
    site.driver.read_inventory()
    vcenter.calls.clear()
    site.driver.read_inventory()
    assert vcenter.calls == {"ServiceInstance.CurrentTime": 1, "PropertyCollector.WaitForUpdatesEx": 1}


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PAGE", 3)


@pytest.mark.usefixtures("small_pages")
def test_a_loop_reads_everything_once(site: Site, vcenter: VCenter) -> None:
    driver = site.connect(follow=True)
    vcenter.calls.clear()
    assert_is_world(site, driver.read_inventory())
    assert vcenter.calls["PropertyCollector.CreateFilter"] == 1
    assert vcenter.calls["PropertyCollector.RetrievePropertiesEx"] == 0
    pages = vcenter.calls["PropertyCollector.WaitForUpdatesEx"]
    assert pages > 3
    site.world.power_off(site.machine)
    assert_is_world(site, driver.read_inventory())
    assert vcenter.calls["PropertyCollector.WaitForUpdatesEx"] == pages + 1


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("script", ["R", "B", "E", "L", "T"])
@pytest.mark.parametrize("before", [3, 6])
def test_a_first_read_of_a_loop_that_breaks_off_is_whole_the_next_time(site: Site, script: str, before: int) -> None:
    """At the making of the filter, and in the middle of its pages."""
    driver = site.connect(follow=True)
    driver.read_site()
    site.faults.script("." * before + script)
    with contextlib.suppress(RetryableError):
        assert_is_world(site, driver.read_inventory())
    site.faults.script("")
    assert_is_world(site, driver.read_inventory())
    site.world.power_off(site.machine)
    assert_is_world(site, driver.read_inventory())


@pytest.mark.parametrize("oddity", ["", UNSET_ASSIGNED, UNSET_ON_LATER_PAGES])
def test_answers_are_read_as_pyvmomi_reads_them(site: Site, vcenter: VCenter, oddity: str) -> None:
    vcenter.reader.oddities.add(oddity)
    assert_read_alike(site.driver._session)  # type: ignore[attr-defined]


def test_a_lost_filter_is_answered_by_a_full_read(site: Site, vcenter: VCenter) -> None:
    for _ in range(3):
        site.driver.read_inventory()
    with vcenter.world.lock:
        for session in vcenter.sessions.open.values():
            for collector in session.collectors.values():
                collector.version += 5
    site.world.power_off(site.machine)
    assert_is_world(site, site.driver.read_inventory())
    assert_is_world(site, site.driver.read_inventory())


def test_only_what_changed_is_converted_again(site: Site) -> None:
    for _ in range(3):
        before = {vm.id: vm for vm in site.driver.read_inventory().vms}
    site.world.power_off(site.machine)
    after = {vm.id: vm for vm in site.driver.read_inventory().vms}
    assert {id_ for id_ in after if after[id_] is not before[id_]} == {site.vm.id}


def test_paths_and_places_are_written_as_vsphere_writes_them(site: Site) -> None:
    vms = by_name(site.driver.read_inventory())
    assert vms["web 01"].path == "/DC East/vm/prod/web/web 01"
    odd = vms["name/with%odd\\signs"]
    assert odd.path == "/DC%2fWest/vm/name%2fwith%25odd%5csigns"
    assert odd.disks[0].backing.datacenter_path == "DC%2fWest"
    assert odd.attributes["name"] == odd.name
    assert [disk.bus for disk in vms["web 01"].disks] == ["sata", "scsi"]


def test_a_port_group_answers_to_its_key(site: Site) -> None:
    inventory = site.driver.read_inventory()
    dmz = next(network for network in inventory.networks if network.name == "pg-dmz")
    assert dmz.kind == "DistributedVirtualPortgroup"
    assert dmz.aliases == (dmz.id,)


def test_a_disk_file_of_two_vms_is_shared_and_then_not_any_more(site: Site) -> None:
    first, second = site.world.vm("app-0"), site.world.vm("app-1")
    second.disks.append(first.disks[0])
    site.world.changed(second)
    vms = by_name(site.driver.read_inventory())
    assert [disk.shared for disk in vms["app-0"].disks] == [True]
    assert [disk.shared for disk in vms["app-1"].disks].count(True) == 1
    assert [document["shared"] for document in vms["app-0"].attributes["disks"]] == [True]  # type: ignore[attr-defined]
    assert known(site.driver.read_vm(site.ref(first))).disks[0].shared
    second.disks.pop()
    site.world.changed(second)
    assert not any(disk.shared for vm in site.driver.read_inventory().vms for disk in vm.disks)


def test_addresses_of_a_guest_that_went_down_are_kept(site: Site) -> None:
    up = by_name(site.driver.read_inventory())["web 01"].attributes["guestNetworks"]
    assert up
    site.world.power_off(site.machine)
    assert by_name(site.driver.read_inventory())["web 01"].attributes["guestNetworks"] == up
    assert known(site.driver.read_vm(site.vm)).attributes["guestNetworks"] == up


def test_a_missing_privilege_is_named_and_waited_for(site: Site, vcenter: VCenter) -> None:
    vcenter.denied.add("VirtualMachine.Interact.PowerOff")
    with pytest.raises(RetryableError) as caught:
        site.driver.request_power(site.vm, PowerRequest.OFF)
    assert caught.value.reason == "Forbidden"
    assert "VirtualMachine.Interact.PowerOff" in caught.value.message
    vcenter.denied.clear()
    site.driver.request_power(site.vm, PowerRequest.OFF)
    site.advance(5)
    assert site.machine.power == "off"


def test_a_vm_busy_with_another_task_is_retryable(site: Site) -> None:
    site.world.power_off(site.machine)
    site.driver.request_power(site.vm, PowerRequest.ON)
    site.world.power_on(site.machine)
    with pytest.raises(RetryableError) as caught:
        site.driver.request_power(site.vm, PowerRequest.OFF)
    assert caught.value.reason == "Busy"
    site.advance(5)
    site.driver.request_power(site.vm, PowerRequest.OFF)
    site.advance(5)
    assert known(site.driver.read_vm(site.vm)).power is Power.OFF


def test_a_suspended_vm_has_no_guest_to_shut_down(site: Site) -> None:
    site.world.suspend(site.machine)
    with pytest.raises(RetryableError, match="ToolsNotRunning"):
        site.driver.request_power(site.vm, PowerRequest.SHUTDOWN)


def test_a_vm_on_a_host_added_since_is_read_with_its_places(site: Site) -> None:
    site.driver.read_inventory()
    machine = site.machine
    machine.host = site.world.add_host("esx-new.lab", machine.host.cluster)
    site.world.changed(machine)
    vm = known(site.driver.read_vm(site.vm))
    assert vm.host_id == f"host-{machine.host.key}"
    host = vm.attributes["host"]
    assert isinstance(host, dict)
    assert host["name"] == "esx-new.lab"


def test_many_threads_share_one_session(site: Site) -> None:
    site.faults.script("")
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(3):
                known(site.driver.read_vm(site.vm))
                site.driver.read_inventory()
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(map(site.is_login, site.faults.seen)) == 1


def test_sha1_pins_hold_as_well(site: Site, cas: tuple[LabCa, LabCa]) -> None:
    with pytest.raises(TerminalError, match="ThumbprintMismatch") as caught:
        site.connect(ca_pem="", thumbprint="00" * 20).read_site()
    shown = next(word for word in caught.value.message.replace(",", " ").split() if word.count(":") == 19)
    assert site.connect(ca_pem="", thumbprint=shown).read_site().uuid == site.site_uuid


def test_closing_logs_out_and_a_closed_driver_can_be_used_again(site: Site, vcenter: VCenter) -> None:
    site.driver.read_inventory()
    site.driver.read_inventory()
    assert len(vcenter.sessions.open) == 1
    site.driver.close()
    site.driver.close()
    assert vcenter.sessions.open == {}
    assert_is_world(site, site.driver.read_inventory())


def test_a_power_on_that_faded_from_the_history_is_not_proven_away(site: Site) -> None:
    """vCenter forgets events after 30 days: "no power-on known" on both sides of one must not look equal."""
    fresh = site.world.add_vm("never-on", site.machine.host)
    before = known(site.driver.read_vm(site.ref(fresh))).epoch
    site.world.power_on(fresh)
    site.world.power_off(fresh)
    shown = known(site.driver.read_vm(site.ref(fresh))).epoch
    site.world.history.clear()
    faded = known(site.driver.read_vm(site.ref(fresh))).epoch
    assert len({before, shown, faded}) == 3


@pytest.mark.parametrize("oldest_first", [False, True])
def test_the_newest_of_a_history_longer_than_one_answer_is_found(site: Site, oldest_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documents do not say which thousand events QueryEvents gives."""
    last = site.world.history[-1]
    more = [replace(last, number=last.number + n, at=last.at + timedelta(seconds=n)) for n in range(1, 1201)]
    site.world.history.extend(more)
    if oldest_first:
        newest_first = Events.query
        monkeypatch.setattr(Events, "query", lambda self, wanted: newest_first(self, wanted, 10_000)[:1000])
    assert known(site.driver.read_vm(site.vm)).epoch == f"on:{more[-1].number}"


def test_a_certificate_that_is_put_right_needs_no_restart(site: Site, vcenter: VCenter, cas: tuple[LabCa, LabCa]) -> None:
    """Only a refused password is remembered; trust is tried anew each time."""
    right, stranger = (LabCa.server_context(ca, "vcenter")[0] for ca in cas)
    listener = vcenter._listener
    assert listener._server is not None
    listener._server.context = stranger
    with pytest.raises(TerminalError, match="CertificateInvalid"):
        site.driver.read_site()
    listener._server.context = right
    assert site.driver.read_site().uuid == site.site_uuid


def test_nothing_of_ours_is_left_in_the_session_when_a_filter_is_lost(site: Site, vcenter: VCenter) -> None:
    for _ in range(4):
        site.driver.read_inventory()
        with vcenter.world.lock:
            (session,) = vcenter.sessions.open.values()
            for collector in session.collectors.values():
                collector.version += 5
    site.driver.read_inventory()
    site.driver.read_inventory()
    assert len(session.views) == 1
    assert sum(len(collector.filters) for collector in session.collectors.values()) == 1


def test_a_vcenter_replaced_in_mid_read_yields_no_mixed_inventory(site: Site, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch) -> None:
    site.driver.read_inventory()
    about = vcenter._methods._p.about
    monkeypatch.setattr(about, "instanceUuid", "11111111-0000-4000-8000-000000000000")
    site.faults.script(".E")  # the site is asked first; then the session is lost, and the next login meets the other one
    with pytest.raises(RetryableError, match="ProviderChanged"):
        site.driver.read_inventory()
    assert site.driver.read_inventory().site.uuid == "11111111-0000-4000-8000-000000000000"


def test_a_power_on_between_the_two_questions_of_a_read_shows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.world.power_off(site.machine)
    before = known(site.driver.read_vm(site.vm)).epoch
    query = Events.query

    def meddle(self: Events, wanted: Any, limit: int | None = None) -> list[Any]:
        site.world.power_on(site.machine)
        site.world.power_off(site.machine)
        return query(self, wanted, limit)

    monkeypatch.setattr(Events, "query", meddle)
    after = known(site.driver.read_vm(site.vm))
    assert after.power is Power.OFF
    assert after.epoch != before


def test_a_vm_whose_identity_is_not_told_is_neither_known_nor_absent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VM without its files, or an account without the right to read it, has no `config`."""
    monkeypatch.setattr(site.machine, "instance_uuid", "")
    with pytest.raises(RetryableError, match="VMUnreadable"):
        site.driver.read_vm(site.vm)
    with pytest.raises(RetryableError, match="VMUnreadable"):
        site.driver.request_power(site.vm, PowerRequest.OFF)
    site.advance(5)
    assert site.machine.power == "on"


def test_a_path_that_this_driver_has_not_is_refused(site: Site) -> None:
    vm = known(site.driver.read_vm(site.vm))
    with pytest.raises(TerminalError, match="NotSupported"):
        site.driver.describe_copy(vm, [DiskChoice(vm.disks[0].uuid, "imageio")])


# ---- ways of vcsim, which the lab learned from it (tests/e2e/test_vcsim.py) ----


def test_properties_of_a_new_object_that_are_assigned_no_value_have_none(site: Site, vcenter: VCenter) -> None:
    """vcsim says so of every unset property, where a vCenter leaves them out."""
    vcenter.reader.oddities.add(UNSET_ASSIGNED)
    for _ in range(3):
        assert_is_world(site, site.driver.read_inventory())
    added = site.world.add_vm("added-later", site.machine.host)
    assert_is_world(site, site.driver.read_inventory())
    assert known(site.driver.read_vm(site.ref(added))).name == "added-later"


def test_properties_that_are_listed_without_a_value_have_none(site: Site, vcenter: VCenter) -> None:
    """vcsim does so from the second page of a bulk read on."""
    plain = {vm.name: vm for vm in site.driver.read_inventory().vms}
    vcenter.reader.oddities.add(UNSET_ON_LATER_PAGES)
    other = site.connect()
    assert {vm.name: vm for vm in other.read_inventory().vms} == plain
    assert vcenter.calls["PropertyCollector.ContinueRetrievePropertiesEx"] > 0


def test_a_read_that_is_answered_without_a_session_is_asked_again_after_a_login(site: Site, vcenter: VCenter) -> None:
    """Taken at its word, a VM all of whose properties are missing would be one that the account may not read."""
    vcenter.reader.oddities.add(NO_SESSION_MISSING)
    before = known(site.driver.read_vm(site.vm))
    site.faults.script("")
    site.expire_sessions()
    assert known(site.driver.read_vm(site.vm)) == before
    site.expire_sessions()
    site.driver.request_power(site.vm, PowerRequest.OFF)
    assert sum(map(site.is_login, site.faults.seen)) == 2
    site.advance(5)
    assert known(site.driver.read_vm(site.vm)).power is Power.OFF


def test_what_an_account_lacks_is_named_vm_by_vm(site: Site, vcenter: VCenter) -> None:
    """On one machine, on everything, and on a datastore; in two calls and the session's key, however many machines there are."""
    vms = by_name(site.driver.read_inventory())
    vcenter.denied |= {f"VirtualMachine.Interact.PowerOn@{site.vm.id}", "VirtualMachine.State.RemoveSnapshot", "Datastore.FileManagement"}
    before = vcenter.calls["AuthorizationManager.HasPrivilegeOnEntities"]
    found = site.driver.read_rights(tuple(vms.values()))
    assert vcenter.calls["AuthorizationManager.HasPrivilegeOnEntities"] == before + 2
    assert found.keys() == {vm.id for vm in vms.values()}
    mine, other = found[site.vm.id], next(found[vm.id] for vm in vms.values() if vm.id != site.vm.id and vm.disks)
    assert mine[Right.POWER_ON] == (f"VirtualMachine.Interact.PowerOn on {site.vm.name}",)
    assert mine[Right.SNAPSHOT] == (f"VirtualMachine.State.RemoveSnapshot on {site.vm.name}",)
    assert mine[Right.READ_FILES] == ("Datastore.FileManagement on datastore vmfs 1",)
    assert mine.keys() == {Right.POWER_ON, Right.SNAPSHOT, Right.READ_FILES} and other.keys() == {Right.SNAPSHOT, Right.READ_FILES}


def test_beside_a_vm_that_went_away_nothing_is_known_until_the_next_look(site: Site) -> None:
    vms = site.driver.read_inventory().vms
    site.delete_vm(site.machine)
    assert site.driver.read_rights(vms) == {}
    assert len(site.driver.read_rights(site.driver.read_inventory().vms)) == len(vms) - 1
