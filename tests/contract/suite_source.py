"""The SourceDriver contract, cold, as a class that each platform subclasses with a `site` fixture.

The site is a simulated platform over the lab's world, or a real one that offers the same handles. Time moves only by `site.advance`;
a fault script plays one letter per request. Each test starts from a fresh site.
"""

from __future__ import annotations

import base64
import http.client
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

import pytest

from reconciler.clock import SystemClock
from reconciler.core.inventory import Inventory, SourceVm
from reconciler.core.model import Absent, Known, Power, PowerRequest, VmRef
from reconciler.errors import RetryableError, TerminalError
from reconciler.lab.faults import Faults
from reconciler.lab.machines import Happening, Vm
from reconciler.lab.machines import Power as LabPower
from reconciler.lab.world import World
from reconciler.ports import DiskChoice, SourceDriver

PASSWORD = "pa55-of-the-lab&<\"'"
FAULT_LETTERS = "RBLT"  # each of them must come out as a RetryableError, and so must H, which takes its time; E and S must not show
LAB_POWER = {LabPower.ON: Power.ON, LabPower.OFF: Power.OFF, LabPower.SUSPENDED: Power.SUSPENDED}


class Connect(Protocol):
    """Another driver for the same site. Each argument replaces what the right driver has."""

    def __call__(
        self,
        *,
        url: str | None = None,
        password: str | None = None,
        ca_pem: str | None = None,
        thumbprint: str | None = None,
        insecure: bool = False,
        timeout_s: float | None = None,
    ) -> SourceDriver: ...


@dataclass
class Site:
    """`vm`: powered on, guest tools running, two disks, in a folder. `stranger_ca_pem`: a CA that did not sign the site.

    ref: the VmRef of a lab machine. requests: number of API requests so far. is_power: labels of requests that change power.
    path: the data path that `describe_copy` is asked for.
    """

    driver: SourceDriver
    connect: Connect
    world: World
    faults: Faults
    vm: VmRef
    advance: Callable[[float], None]
    ref: Callable[[Vm], VmRef]
    requests: Callable[[], int]
    is_power: Callable[[str], bool]
    is_login: Callable[[str], bool]
    delete_vm: Callable[[Vm], None]
    expire_sessions: Callable[[], None]
    site_uuid: str
    ca_pem: str
    stranger_ca_pem: str
    thumbprint: str
    path: str

    @property
    def machine(self) -> Vm:
        return self.world.vm(self.vm.name)


def known(found: Known[SourceVm] | Absent) -> SourceVm:
    assert isinstance(found, Known)
    return found.value


def by_name(inventory: Inventory) -> Mapping[str, SourceVm]:
    return {vm.name: vm for vm in inventory.vms}


def ups_and_downs(site: Site, kind: Happening) -> int:
    return sum(1 for event in site.world.history if event.vm == site.machine.key and event.kind is kind)


class SourceContract:
    # ---- login and trust --------------------------------------------------------------------------------------------------------------

    def test_the_site_tells_who_it_is_and_what_time_it_has(self, site: Site) -> None:
        info = site.driver.read_site()
        assert info.uuid == site.site_uuid
        assert info.product
        assert info.version
        assert info.time_at is not None
        assert abs((info.time_at - site.world.now()).total_seconds()) < 1
        began = SystemClock().now()
        told = site.driver.read_inventory().site
        assert told.time_at is not None and told.asked_at is not None
        assert began <= told.asked_at <= SystemClock().now()
        assert told.skew_s == (told.asked_at - told.time_at).total_seconds()

    def test_one_login_serves_many_reads(self, site: Site) -> None:
        site.faults.script("")
        for _ in range(3):
            site.driver.read_site()
            site.driver.read_inventory()
        assert sum(map(site.is_login, site.faults.seen)) == 1

    def test_a_wrong_password_is_terminal_and_not_tried_again(self, site: Site) -> None:
        driver = site.connect(password="wrong-" + PASSWORD)
        with pytest.raises(TerminalError) as caught:
            driver.read_site()
        assert caught.value.reason == "AuthFailed"
        before = site.requests()
        with pytest.raises(TerminalError):
            driver.read_inventory()
        assert site.requests() == before  # an account must not be locked by asking again

    def test_a_wrong_thumbprint_is_terminal_and_the_site_gets_no_request(self, site: Site) -> None:
        digits = site.thumbprint.replace(":", "")
        driver = site.connect(thumbprint=("0" if digits[0] != "0" else "1") + digits[1:])
        before = site.requests()
        with pytest.raises(TerminalError) as caught:
            driver.read_site()
        assert caught.value.reason == "ThumbprintMismatch"
        assert site.requests() == before

    def test_the_right_thumbprint_needs_no_ca(self, site: Site) -> None:
        assert site.connect(ca_pem="", thumbprint=site.thumbprint).read_site().uuid == site.site_uuid

    def test_a_thumbprint_beside_a_ca_must_hold_too(self, site: Site) -> None:
        with pytest.raises(TerminalError, match="ThumbprintMismatch"):
            site.connect(thumbprint="00" * 32).read_site()

    def test_an_unknown_ca_is_terminal_and_the_site_gets_no_request(self, site: Site) -> None:
        before = site.requests()
        for ca_pem in (site.stranger_ca_pem, ""):  # another CA; and the system's roots
            with pytest.raises(TerminalError) as caught:
                site.connect(ca_pem=ca_pem).read_site()
            assert caught.value.reason == "CertificateInvalid"
            assert "ca.crt" in caught.value.message  # the remedy
        assert site.requests() == before

    def test_verification_can_be_waived_in_so_many_words_only(self, site: Site) -> None:
        assert site.connect(ca_pem=site.stranger_ca_pem, insecure=True).read_site().uuid == site.site_uuid

    def test_a_closed_port_is_retryable(self, site: Site) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            with pytest.raises(RetryableError) as caught:
                site.connect(url=f"https://127.0.0.1:{port}/sdk").read_site()
        assert caught.value.reason == "Unreachable"

    def test_secrets_are_in_no_error_and_no_repr(self, site: Site) -> None:
        wrong = "wrong-" + PASSWORD
        for driver in (site.driver, site.connect(password=wrong), site.connect(ca_pem=site.stranger_ca_pem)):
            site.faults.script("T")
            with pytest.raises((RetryableError, TerminalError)) as caught:
                driver.read_site()
                driver.read_inventory()
            shown = f"{caught.value!s} {caught.value!r} {driver!r} {vars(driver)!r}"
            cause = caught.value.__cause__
            shown += f" {cause!s} {cause!r}"
            assert PASSWORD not in shown

    def test_secrets_are_in_no_log(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        site.driver.read_inventory()
        site.expire_sessions()
        vm = known(site.driver.read_vm(site.vm))
        site.driver.request_power(site.vm, PowerRequest.OFF)
        site.driver.describe_copy(vm, [DiskChoice(vm.disks[0].uuid, site.path)])
        with pytest.raises(TerminalError):
            site.connect(password="wrong-" + PASSWORD).read_site()
        site.driver.close()
        assert caplog.records
        assert PASSWORD not in "".join(f"{record.getMessage()} {vars(record)!r}" for record in caplog.records)

    # ---- inventory --------------------------------------------------------------------------------------------------------------------

    def test_the_inventory_is_the_world(self, site: Site) -> None:
        """More machines than fit into one page of the site's answers, so paging is in it."""
        inventory = site.driver.read_inventory()
        assert inventory.site.uuid == site.site_uuid
        assert_is_world(site, inventory)

    def test_the_inventory_follows_changes(self, site: Site) -> None:
        site.driver.read_inventory()
        world = site.world
        world.power_off(site.machine)
        assert by_name(site.driver.read_inventory())[site.vm.name].power is Power.OFF
        host = site.machine.host
        added = world.add_vm("added-later", host)
        world.add_disk(added, next(iter(world.datastores.values())), capacity_mib=8)
        assert_is_world(site, site.driver.read_inventory())
        added.name = "renamed"
        world.changed(added)
        assert_is_world(site, site.driver.read_inventory())
        site.delete_vm(added)
        assert_is_world(site, site.driver.read_inventory())
        assert site.driver.read_inventory().vms == site.driver.read_inventory().vms

    def test_a_reply_that_got_lost_loses_no_change(self, site: Site) -> None:
        for _ in range(2):
            site.driver.read_inventory()
        for letter in FAULT_LETTERS:
            machine = site.machine
            (site.world.power_on if machine.power is LabPower.OFF else site.world.power_off)(machine)
            site.faults.script("." + letter)  # the site itself is asked first
            with pytest.raises(RetryableError):
                site.driver.read_inventory()
            assert_is_world(site, site.driver.read_inventory())

    def test_a_stale_answer_is_caught_up_with(self, site: Site) -> None:
        for _ in range(3):
            site.driver.read_inventory()
        site.world.power_off(site.machine)
        site.faults.script(".S")
        site.driver.read_inventory()
        assert_is_world(site, site.driver.read_inventory())

    # ---- faults -----------------------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("letter", FAULT_LETTERS)
    @pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
    def test_every_fault_is_retryable_and_over_when_it_is_over(self, site: Site, letter: str, at: int) -> None:
        """The n-th request of a first inventory read fails: login, view, a page."""
        site.faults.script("." * at + letter)
        with pytest.raises(RetryableError) as caught:
            site.driver.read_inventory()
        assert site.faults.spent
        assert caught.value.reason
        assert_is_world(site, site.driver.read_inventory())

    @pytest.mark.parametrize("letter", FAULT_LETTERS)
    def test_a_direct_read_that_fails_is_an_error_and_never_absent(self, site: Site, letter: str) -> None:
        site.driver.read_vm(site.vm)
        for at in range(2):
            site.faults.script("." * at + letter)
            with pytest.raises(RetryableError):
                site.driver.read_vm(site.vm)
        assert known(site.driver.read_vm(site.vm)).uuid == site.vm.uuid

    def test_a_site_that_hangs_is_given_up_and_asked_again_later(self, site: Site) -> None:
        driver = site.connect(timeout_s=1.0)
        for at in range(2):
            site.faults.script("." * at + "H")
            with pytest.raises(RetryableError) as caught:
                driver.read_inventory()
            assert caught.value.reason == "Timeout"
        assert_is_world(site, driver.read_inventory())

    def test_an_expired_session_is_renewed_once_and_unseen(self, site: Site) -> None:
        for _ in range(3):
            site.driver.read_inventory()
        site.faults.script("")
        site.expire_sessions()
        assert_is_world(site, site.driver.read_inventory())
        assert sum(map(site.is_login, site.faults.seen)) == 1
        for act in (
            lambda: site.driver.read_site(),
            lambda: site.driver.read_vm(site.vm),
            lambda: site.driver.read_inventory(),
            lambda: site.driver.request_power(site.vm, PowerRequest.OFF),
        ):
            site.faults.script("E")
            act()
        site.advance(5)
        assert site.machine.power is LabPower.OFF

    # ---- one VM -----------------------------------------------------------------------------------------------------------------------

    def test_a_direct_read_shows_what_the_inventory_shows(self, site: Site) -> None:
        direct = known(site.driver.read_vm(site.vm))
        assert direct.epoch is not None
        assert replace(direct, epoch=None) == by_name(site.driver.read_inventory())[site.vm.name]

    def test_an_account_that_may_do_all_lacks_nothing(self, site: Site) -> None:
        vms = site.driver.read_inventory().vms
        assert site.driver.read_rights(vms) == {vm.id: {} for vm in vms}
        assert site.driver.read_rights([]) == {}

    def test_a_direct_read_is_of_now(self, site: Site) -> None:
        site.driver.read_inventory()
        site.world.power_off(site.machine)
        assert known(site.driver.read_vm(site.vm)).power is Power.OFF

    def test_a_deleted_vm_is_absent(self, site: Site) -> None:
        site.driver.read_inventory()
        site.delete_vm(site.machine)
        assert site.driver.read_vm(site.vm) == Absent()
        with pytest.raises(TerminalError, match="VMGone"):
            site.driver.request_power(site.vm, PowerRequest.OFF)

    def test_another_vm_behind_the_same_id_is_absent_and_left_alone(self, site: Site) -> None:
        stranger = replace(site.vm, uuid="00000000-0000-4000-8000-000000000000")
        assert site.driver.read_vm(stranger) == Absent()
        for want in PowerRequest:
            with pytest.raises(TerminalError, match="VMGone"):
                site.driver.request_power(stranger, want)
        site.advance(5)
        assert site.machine.power is LabPower.ON

    def test_another_site_behind_the_url_is_no_proof_of_absence(self, site: Site) -> None:
        elsewhere = replace(site.vm, site_uuid="00000000-0000-4000-8000-000000000000")
        with pytest.raises(RetryableError, match="ProviderChanged"):
            site.driver.read_vm(elsewhere)
        with pytest.raises(RetryableError, match="ProviderChanged"):
            site.driver.request_power(elsewhere, PowerRequest.OFF)

    # ---- power ------------------------------------------------------------------------------------------------------------------------

    def test_shutdown_asks_the_guest_and_returns_at_once(self, site: Site) -> None:
        site.driver.request_power(site.vm, PowerRequest.SHUTDOWN)
        assert site.machine.power is LabPower.ON
        site.advance(5)
        assert known(site.driver.read_vm(site.vm)).power is Power.OFF
        assert ups_and_downs(site, Happening.GUEST_SHUTDOWN) == 1

    def test_shutdown_without_tools_is_for_the_caller_to_decide(self, site: Site) -> None:
        site.machine.tools = False
        site.world.changed(site.machine)
        with pytest.raises(RetryableError, match="ToolsNotRunning"):
            site.driver.request_power(site.vm, PowerRequest.SHUTDOWN)
        site.advance(5)
        assert site.machine.power is LabPower.ON
        site.driver.request_power(site.vm, PowerRequest.OFF)
        site.advance(5)
        assert site.machine.power is LabPower.OFF

    def test_what_is_so_already_is_success(self, site: Site) -> None:
        site.driver.request_power(site.vm, PowerRequest.ON)
        assert ups_and_downs(site, Happening.ON) == 1
        site.world.power_off(site.machine)
        for want in (PowerRequest.OFF, PowerRequest.SHUTDOWN):
            site.driver.request_power(site.vm, want)
        site.advance(5)
        assert ups_and_downs(site, Happening.OFF) == 1

    @pytest.mark.parametrize(("want", "kind"), [(PowerRequest.OFF, Happening.OFF), (PowerRequest.ON, Happening.ON)])
    def test_repeat_after_a_lost_reply_does_one_thing(self, site: Site, want: PowerRequest, kind: Happening) -> None:
        if want is PowerRequest.ON:
            site.world.power_off(site.machine)
        before = ups_and_downs(site, kind)
        site.faults.script("L", only=site.is_power)
        with pytest.raises(RetryableError):
            site.driver.request_power(site.vm, want)
        for _ in range(3):  # while the first one is under way, and after it
            site.driver.request_power(site.vm, want)
            site.advance(5)
        assert ups_and_downs(site, kind) == before + 1

    # ---- epoch (safety 1, 9) ----------------------------------------------------------------------------------------------------------

    def test_the_epoch_survives_our_power_off(self, site: Site) -> None:
        before = known(site.driver.read_vm(site.vm)).epoch
        site.driver.request_power(site.vm, PowerRequest.SHUTDOWN)
        site.advance(5)
        after = known(site.driver.read_vm(site.vm))
        assert (after.power, after.epoch) == (Power.OFF, before)
        site.advance(3600)
        assert known(site.driver.read_vm(site.vm)).epoch == before

    @pytest.mark.parametrize("cause", ["user", "drs", "ha"])
    def test_the_epoch_shows_that_somebody_had_it_on_and_off_again(self, site: Site, cause: str) -> None:
        site.world.power_off(site.machine)
        before = known(site.driver.read_vm(site.vm)).epoch
        site.world.power_on(site.machine, "somebody", cause)
        site.world.power_off(site.machine, "somebody")
        after = known(site.driver.read_vm(site.vm))
        assert after.power is Power.OFF
        assert after.epoch != before

    def test_the_first_power_on_of_all_changes_the_epoch(self, site: Site) -> None:
        fresh = site.world.add_vm("never-on", site.machine.host)
        ref = site.ref(fresh)
        before = known(site.driver.read_vm(ref)).epoch
        assert known(site.driver.read_vm(ref)).epoch == before
        site.world.power_on(fresh)
        site.world.power_off(fresh)
        assert known(site.driver.read_vm(ref)).epoch != before

    def test_a_reset_changes_the_epoch(self, site: Site) -> None:
        before = known(site.driver.read_vm(site.vm)).epoch
        site.world.reset(site.machine)
        assert known(site.driver.read_vm(site.vm)).epoch != before

    # ---- copy source ------------------------------------------------------------------------------------------------------------------

    def test_the_copy_source_is_readable_once_the_vm_is_off_and_locked_while_it_is_on(self, site: Site) -> None:
        vm = known(site.driver.read_vm(site.vm))
        source = site.driver.describe_copy(vm, [DiskChoice(disk.uuid, site.path) for disk in vm.disks])
        assert set(source.disks) == {disk.uuid for disk in vm.disks}
        assert source.ca_pem == site.ca_pem.strip()
        assert not source.tls.insecure
        login = {name: secret.reveal() for name, secret in source.credentials.items()}
        urls = {uuid: url for uuid, (_, url) in source.disks.items()}
        assert all(fetch(url, login, site.ca_pem)[0] >= 400 for url in urls.values())
        site.world.power_off(site.machine)
        for disk in site.machine.disks:
            status, body = fetch(urls[disk.uuid], login, site.ca_pem)
            assert status == 200
            assert body == disk.path.read_bytes()

    def test_a_disk_that_the_vm_has_not_is_refused(self, site: Site) -> None:
        vm = known(site.driver.read_vm(site.vm))
        with pytest.raises(TerminalError, match="DiskGone"):
            site.driver.describe_copy(vm, [DiskChoice("6000C290-0000-0000-0000-000000000000", site.path)])


def assert_is_world(site: Site, inventory: Inventory) -> None:
    """Everything that is migrated, compared field by field with the world's own records."""
    world = site.world
    assert {vm.id for vm in inventory.vms} == {site.ref(vm).id for vm in world.vms.values()}
    found = {vm.uuid: vm for vm in inventory.vms}
    for machine in world.vms.values():
        vm = found[machine.instance_uuid]
        assert (vm.id, vm.name, vm.bios_uuid) == (site.ref(machine).id, machine.name, machine.uuid)
        assert vm.power is LAB_POWER[machine.power]
        assert vm.tools_running == machine.tools_running
        assert (vm.firmware, vm.secure_boot, vm.tpm) == (machine.firmware, machine.secure_boot, machine.tpm)
        assert (vm.cpus, vm.cores_per_socket, vm.memory_bytes) == (machine.cpus, machine.cores_per_socket, machine.memory_mib << 20)
        assert (vm.guest_id, vm.guest_name) == (machine.guest_id, machine.guest_name)
        assert (vm.is_template, vm.connected) == (machine.template, machine.connected)
        assert [s.name for s in vm.snapshots] == [s.name for s in machine.snapshots]
        assert [(n.mac, n.network_name) for n in vm.nics] == [(n.mac, n.network.name) for n in machine.nics]
        disks = {disk.uuid: disk for disk in vm.disks}
        assert set(disks) == {disk.uuid for disk in machine.disks}
        for disk in machine.disks:
            seen = disks[disk.uuid]
            assert (seen.capacity_bytes, seen.mode, seen.storage_name) == (disk.capacity_bytes, disk.mode, disk.datastore.name)
            assert (seen.backing.kind, seen.backing.file) == (disk.kind, disk.backing)
            assert (seen.backing.parents, seen.backing.key_id) == (disk.parents, disk.key_id)
            assert seen.backing.datastore_type == disk.datastore.kind
    for items, records in (
        (inventory.networks, world.networks),
        (inventory.storages, world.datastores),
        (inventory.hosts, world.hosts),
    ):
        assert sorted(item.name for item in items) == sorted(record.name for record in records.values())
    networks = {item.id for item in inventory.networks}
    assert all(nic.network_id in networks for vm in inventory.vms for nic in vm.nics)
    assert all(disk.storage_id in {s.id for s in inventory.storages} for vm in inventory.vms for disk in vm.disks)


def fetch(url: str, login: Mapping[str, str], ca_pem: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    context = ssl.create_default_context(cadata=ca_pem)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context, timeout=10)
    basic = base64.b64encode(f"{login['user']}:{login['password']}".encode()).decode()
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Authorization": f"Basic {basic}"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
