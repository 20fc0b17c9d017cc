"""The vSphere driver against ESXi hosts of the lab: one as a provider of its own, and one behind a vCenter by a Host manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.core.desired import HostSpec, InventoryRef, Place, ProviderSpec
from reconciler.core.inventory import HostAccess
from reconciler.core.model import ObjectRef, Power, Secret, VmRef
from reconciler.drivers.vsphere.doors import AFTER_SUCCESS_S, AGAIN_S, LOGIN_TIMEOUT_S
from reconciler.drivers.vsphere.source import connect
from reconciler.errors import RetryableError, TerminalError
from reconciler.lab.machines import Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.esxi import Esxi
from reconciler.lab.vcenter.infrastructure import hardware_uuid
from reconciler.lab.vcenter.properties import NO_EVENTS
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from reconciler.ports import CopySource, DiskChoice, SourceDriver
from tests.contract.suite_source import PASSWORD, Site, SourceContract, by_name, fetch, known
from tests.contract.test_vsphere_lab import HandClock

PROVIDER = ObjectRef("openshift-mtv", "vcenter")
HOST = ObjectRef("openshift-mtv", "esx-1")
USER, HOST_USER, HOST_PASSWORD = "administrator@vsphere.local", "root", "pa55-of-the-host"


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabCa, LabCa]:
    folder = tmp_path_factory.mktemp("ca")
    return LabCa(folder / "right"), LabCa(folder / "stranger")


def build(world: World) -> None:
    """Two hosts in one datacenter; most machines are on the first."""
    dc = world.add_datacenter("DC East")
    cluster = world.add_cluster("prod", dc)
    hosts = [world.add_host(f"esx-{number}.lab", cluster) for number in (1, 2)]
    store, nfs = world.add_datastore("vmfs 1", dc), world.add_datastore("nfs&2", dc, "NFS")
    lan = world.add_network("VM Network", dc)
    web = world.add_vm("web 01", hosts[0], folder="prod", firmware="efi")
    world.add_disk(web, store, capacity_mib=8, data_mib=2)
    world.add_disk(web, nfs, capacity_mib=4, data_mib=1)
    for name, host in (("app-0", hosts[0]), ("app-1", hosts[0]), ("elsewhere", hosts[1])):
        world.add_disk(world.add_vm(name, host), store, capacity_mib=1, data_mib=1)
    for vm in world.vms.values():
        world.add_nic(vm, lan)
    world.power_on(web)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "world", HandClock())
    build(made)
    return made


@pytest.fixture
def esxi(world: World, cas: tuple[LabCa, LabCa]) -> Iterator[Esxi]:
    made = Esxi(world, world.hosts["esx-1.lab"], cas[0], world.clock, user=HOST_USER, password=PASSWORD)
    made.start()
    yield made
    made.stop()


# ---- an ESXi host as the provider ----


@pytest.fixture
def site(esxi: Esxi, world: World, cas: tuple[LabCa, LabCa]) -> Iterator[Site]:
    drivers: list[SourceDriver] = []

    def make(
        *,
        url: str | None = None,
        password: str | None = None,
        ca_pem: str | None = None,
        thumbprint: str | None = None,
        insecure: bool = False,
        timeout_s: float | None = None,
    ) -> SourceDriver:
        given = {"sdkEndpoint": "esxi", "thumbprint": thumbprint, "requestTimeoutSeconds": str(timeout_s or 20)}
        settings = {key: value for key, value in given.items() if value}
        spec = ProviderSpec(PROVIDER, "vsphere", url or esxi.url, None, settings, Place("provider.yaml", 1))
        texts = {
            "user": HOST_USER,
            "password": password or PASSWORD,
            "ca.crt": cas[0].pem if ca_pem is None else ca_pem,
            "insecureSkipVerify": str(insecure).lower(),
        }
        drivers.append(connect(spec, {key: Secret(value) for key, value in texts.items()}, SystemClock()))
        return drivers[-1]

    def ref(vm: Vm) -> VmRef:
        return VmRef(PROVIDER, hardware_uuid(esxi.host), f"vm-{vm.key}", vm.instance_uuid, vm.name)

    def advance(seconds: float) -> None:
        world.clock.at_s += seconds  # type: ignore[attr-defined]
        world.settle()

    def delete(vm: Vm) -> None:
        world.remove_vm(vm)

    def expire() -> None:
        with world.lock:
            esxi.sessions.drop_all()

    yield Site(
        driver=make(),
        connect=make,
        world=esxi.world,
        faults=esxi.faults,
        vm=ref(world.vm("web 01")),
        advance=advance,
        ref=ref,
        requests=lambda: sum(esxi.calls.values()),
        is_power=lambda label: label.startswith("VirtualMachine."),
        is_login=lambda label: label == "SessionManager.Login",
        delete_vm=delete,
        expire_sessions=expire,
        site_uuid=hardware_uuid(esxi.host),
        ca_pem=cas[0].pem,
        stranger_ca_pem=cas[1].pem,
        thumbprint=esxi.thumbprint_sha256,
        path="datastore",
    )
    esxi.faults.script("")
    for driver in drivers:
        driver.close()


@pytest.mark.deep
class TestEsxiLab(SourceContract):
    """Everything in the contract; the default tests below are what differs from a vCenter."""


def test_a_host_is_a_site_of_its_own(site: Site) -> None:
    inventory = site.driver.read_inventory()
    assert inventory.site.uuid == site.site_uuid
    assert "ESXi" in inventory.site.product
    web = by_name(inventory)["web 01"]
    assert web.path == "/ha-datacenter/vm/web 01"
    assert {vm.name for vm in inventory.vms} == {"web 01", "app-0", "app-1"}
    assert [disk.backing.datacenter_path for disk in web.disks] == ["ha-datacenter"] * 2
    assert [item.id for item in inventory.hosts] == ["ha-host"]
    assert web.host_id == "ha-host"
    host = web.attributes["host"]
    assert isinstance(host, Mapping)
    assert host["name"] == "esx-1.lab"


def test_its_disks_are_read_from_it(site: Site) -> None:
    SourceContract().test_the_copy_source_is_readable_once_the_vm_is_off_and_locked_while_it_is_on(site)


def test_its_events_tell_the_epoch_and_a_restart_of_its_agent_proves_nothing(site: Site, esxi: Esxi) -> None:
    """After a restart events count from one again: equal keys must not look like one power-on."""
    site.world.power_off(site.machine)
    first = known(site.driver.read_vm(site.vm)).epoch
    assert known(site.driver.read_vm(site.vm)).epoch == first
    esxi.restart_agent()
    forgotten = known(site.driver.read_vm(site.vm)).epoch
    site.world.power_on(site.machine)
    site.world.power_off(site.machine)
    again = known(site.driver.read_vm(site.vm)).epoch
    assert len({first, forgotten, again}) == 3


def test_a_power_on_shows_though_the_agent_forgot_it(site: Site, esxi: Esxi) -> None:
    fresh = site.world.add_vm("never-on", site.machine.host)
    before = known(site.driver.read_vm(site.ref(fresh))).epoch
    site.world.power_on(fresh)
    site.world.power_off(fresh)
    esxi.restart_agent()
    assert known(site.driver.read_vm(site.ref(fresh))).epoch != before


def test_a_host_that_keeps_no_history_proves_nothing(site: Site, esxi: Esxi) -> None:
    """vcsim's ESXi has no EventManager. The direct read fails before the guest goes off, so no run gets further there."""
    esxi.reader.oddities.add(NO_EVENTS)
    with pytest.raises(RetryableError, match="EpochUnknown"):
        site.driver.read_vm(site.vm)
    assert by_name(site.driver.read_inventory())["web 01"].power is Power.ON


def provider(url: str, endpoint: str) -> ProviderSpec:
    return ProviderSpec(PROVIDER, "vsphere", url, None, {"sdkEndpoint": endpoint}, Place("p.yaml", 1))


def secret(ca: LabCa, user: str = USER, password: str = PASSWORD) -> dict[str, Secret]:
    return {"user": Secret(user), "password": Secret(password), "ca.crt": Secret(ca.pem)}


def test_a_host_taken_for_a_vcenter_is_refused_without_a_login(site: Site, esxi: Esxi, cas: tuple[LabCa, LabCa]) -> None:
    driver = connect(provider(esxi.url, "vcenter"), secret(cas[0], HOST_USER), SystemClock())
    for _ in range(3):
        with pytest.raises(TerminalError, match=r"NotAVCenter.*sdkEndpoint: esxi"):
            driver.read_site()
    driver.close()
    assert esxi.calls["SessionManager.Login"] == 0
    assert esxi.sessions.open == {}


# ---- a Host manifest behind a vCenter ----


class Hand:
    """SystemClock with time that moves by hand."""

    def __init__(self) -> None:
        self.at_s = 5.0
        self.clock = SystemClock()

    def monotonic(self) -> float:
        return self.at_s

    def __getattr__(self, name: str) -> object:
        return getattr(self.clock, name)


@dataclass
class Behind:
    """A vCenter, one of its hosts with a door of its own, and the Secret of that Host."""

    vcenter: VCenter
    esxi: Esxi
    ca: LabCa
    clock: Hand
    secret: dict[str, str]
    spec: ProviderSpec
    asked: list[ObjectRef] = field(default_factory=list)
    drivers: list[SourceDriver] = field(default_factory=list)
    missing: bool = False

    def driver(self, *hosts: HostSpec) -> SourceDriver:
        spec = replace(self.spec, hosts=hosts or (self.host(),))
        self.drivers.append(connect(spec, secret(self.ca), self.clock, self.read))  # type: ignore[arg-type]
        return self.drivers[-1]

    def host(self, name: str = "esx-1", wanted: InventoryRef | None = None, address: str = "") -> HostSpec:
        ref = ObjectRef("openshift-mtv", name)
        found = wanted or InventoryRef(name="esx-1.lab")
        return HostSpec(ref, Place("h.yaml", 1), PROVIDER, found, address or self.esxi.address, ObjectRef("openshift-mtv", "s"))

    def read(self, ref: ObjectRef) -> Mapping[str, Secret]:
        self.asked.append(ref)
        if self.missing:
            raise RetryableError("SecretNotFound", f"Secret {ref} is not in any known place; create it there")
        return {key: Secret(text) for key, text in self.secret.items()}

    def access(self, driver: SourceDriver) -> HostAccess:
        return driver.read_inventory().host_access[HOST]


@pytest.fixture
def behind(world: World, cas: tuple[LabCa, LabCa], tmp_path: Path) -> Iterator[Behind]:
    own = LabCa(tmp_path / "host-ca")  # its certificate is none of the vCenter's
    vcenter = VCenter(world, cas[0], world.clock, user=USER, password=PASSWORD)
    esxi = Esxi(world, world.hosts["esx-1.lab"], own, world.clock, user=HOST_USER, password=HOST_PASSWORD)
    vcenter.start()
    esxi.start()
    texts = {"user": HOST_USER, "password": HOST_PASSWORD}
    made = Behind(vcenter, esxi, cas[0], Hand(), texts, replace(provider(vcenter.url, "vcenter"), settings={}))
    yield made
    for driver in made.drivers:
        driver.close()
    esxi.stop()
    vcenter.stop()


def copy_of(behind: Behind, driver: SourceDriver, name: str) -> tuple[Vm, CopySource]:
    machine = behind.vcenter.world.vm(name)
    ref = VmRef(PROVIDER, behind.vcenter.instance_uuid, f"vm-{machine.key}", machine.instance_uuid, name)
    vm = known(driver.read_vm(ref))
    return machine, driver.describe_copy(vm, [DiskChoice(disk.uuid, "datastore") for disk in vm.disks])


def test_disks_are_read_from_the_host_with_its_own_account_and_certificate(behind: Behind) -> None:
    driver = behind.driver()
    assert behind.access(driver) == HostAccess(f"host-{behind.esxi.host.key}", "esx-1.lab", behind.esxi.address)
    assert behind.esxi.sessions.open == {}  # the try leaves no session
    behind.vcenter.world.power_off(behind.vcenter.world.vm("web 01"))
    machine, source = copy_of(behind, driver, "web 01")
    assert all(url.startswith(f"https://{behind.esxi.address}/folder/") for _, url in source.disks.values())
    assert source.credentials["password"].reveal() == HOST_PASSWORD
    assert source.tls.thumbprint == behind.esxi.host.thumbprint  # what the vCenter knows it by; the Secret says nothing
    assert not source.tls.insecure
    own = (Path(behind.esxi.ca_path)).read_text()
    for disk in machine.disks:
        status, body = fetch(source.disks[disk.uuid][1], {"user": HOST_USER, "password": HOST_PASSWORD}, own)
        assert (status, body == disk.path.read_bytes()) == (200, True)


def test_vms_of_other_hosts_are_read_through_the_vcenter(behind: Behind) -> None:
    driver = behind.driver()
    behind.access(driver)
    _, source = copy_of(behind, driver, "elsewhere")
    assert all(f":{behind.vcenter.port}/" in url for _, url in source.disks.values())
    assert source.credentials["password"].reveal() == PASSWORD
    assert source.tls.thumbprint is None


def test_a_wrong_account_is_tried_once_until_the_secret_changes(behind: Behind) -> None:
    behind.secret["password"] = "wrong"
    driver = behind.driver()
    access = behind.access(driver)
    assert (access.type, access.reason) == ("SecretNotValid", "AuthFailed")
    with pytest.raises(RetryableError, match=r"HostNotReady.*esx-1"):
        copy_of(behind, driver, "web 01")
    for _ in range(3):
        behind.clock.at_s += 10 * AGAIN_S
        behind.access(driver)
    assert behind.esxi.calls["SessionManager.Login"] == 1  # ESXi locks an account after five
    behind.secret["password"] = HOST_PASSWORD
    behind.clock.at_s += AGAIN_S
    assert behind.access(driver).type == ""


def test_an_unreachable_host_is_tried_again_after_a_while_and_not_at_each_pass(behind: Behind) -> None:
    behind.esxi.faults.script("R" * 8)
    driver = behind.driver()
    assert behind.access(driver).type == "ConnectionTestFailed"
    behind.esxi.faults.script("")
    assert behind.access(driver).type == "ConnectionTestFailed"
    assert behind.esxi.faults.seen == []
    behind.clock.at_s += AGAIN_S
    assert behind.access(driver).type == ""
    asked = len(behind.asked)
    behind.clock.at_s += AFTER_SUCCESS_S - 1
    behind.access(driver)
    assert len(behind.asked) == asked


def test_a_host_that_hangs_does_not_hold_up_its_vcenter_again(behind: Behind) -> None:
    driver = behind.driver()
    assert behind.access(driver).type == ""
    behind.clock.at_s += AFTER_SUCCESS_S
    behind.esxi.faults.script("H")
    began = time.monotonic()
    assert behind.access(driver).type == ""  # as it was; the try goes on
    assert time.monotonic() - began < float(LOGIN_TIMEOUT_S) / 2
    behind.esxi.stop()  # ends it
    behind.clock.at_s += 1
    assert behind.access(driver).type == "ConnectionTestFailed"
    behind.esxi.start()


def test_a_host_behind_itself_needs_no_account_of_its_own(behind: Behind) -> None:
    """As Forklift: a Host of an `esxi` Provider takes user and password from the Provider's Secret."""
    behind.secret.clear()
    settings = {"sdkEndpoint": "esxi", "thumbprint": behind.esxi.thumbprint_sha256}
    spec = replace(provider(behind.esxi.url, "esxi"), hosts=(behind.host(),), settings=settings)
    own = {"user": Secret(HOST_USER), "password": Secret(HOST_PASSWORD)}
    driver = connect(spec, own, behind.clock, behind.read)  # type: ignore[arg-type]
    behind.drivers.append(driver)
    assert behind.access(driver) == HostAccess("ha-host", "esx-1.lab", behind.esxi.address)


def test_another_machine_at_the_address_is_no_door(behind: Behind) -> None:
    driver = behind.driver(behind.host(wanted=InventoryRef(id=f"host-{behind.vcenter.world.hosts['esx-2.lab'].key}")))
    behind.secret["insecureSkipVerify"] = "true"
    access = behind.access(driver)
    assert (access.type, access.reason) == ("ConnectionTestFailed", "WrongHost")


def test_a_certificate_that_the_vcenter_does_not_know_is_refused(behind: Behind) -> None:
    behind.esxi.host.thumbprint = "00:" * 19 + "00"
    behind.vcenter.world.changed(behind.esxi.host)
    access = behind.access(behind.driver())
    assert (access.type, access.reason) == ("ConnectionTestFailed", "ThumbprintMismatch")
    assert behind.esxi.calls == {}


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        (lambda b: setattr(b, "missing", True), "SecretNotValid", "SecretNotFound"),
        (lambda b: b.secret.pop("password"), "SecretNotValid", "SecretNotValid"),
        (lambda b: setattr(b.esxi.host, "maintenance", True), "InMaintenance", "StateEvaluated"),
    ],
)
def test_what_is_wrong_with_a_host_has_forklift_s_name(behind: Behind, change: Callable[[Behind], object], kind: str, reason: str) -> None:
    change(behind)
    behind.vcenter.world.changed(behind.esxi.host)
    access = behind.access(behind.driver())
    assert (access.type, access.reason) == (kind, reason)


def test_a_host_that_is_not_there_and_a_second_manifest_for_one_harm_nobody_else(behind: Behind) -> None:
    driver = behind.driver(behind.host(), behind.host("other"), behind.host("ghost", InventoryRef(name="esx-9.lab")))
    access = driver.read_inventory().host_access
    assert [(ref.name, one.type, one.reason) for ref, one in sorted(access.items())] == [
        ("esx-1", "", ""),
        ("ghost", "RefNotValid", "NotFound"),
        ("other", "RefNotValid", "NotUnique"),
    ]
    _, source = copy_of(behind, driver, "app-0")
    assert all(behind.esxi.address in url for _, url in source.disks.values())
