"""What ForkliftController and Host manifests do to a run, over the toy of both sites."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.actions import EnsureBinder, EnsureCopy, EnsureVm, PowerSource
from reconciler.core.conditions import summarize
from reconciler.core.desired import ControllerSpec, HostSpec, InventoryRef, Limits, Unsupported
from reconciler.core.inventory import HostAccess, Inventory
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Known, ObjectRef, Power, Unknown
from reconciler.core.record import Category, ObjectStatus
from reconciler.core.target import PodWishes
from reconciler.core.view import Observed
from tests.unit.core.toyland import HOST, NS, PLACE, PLAN, SOURCE, Toyland, desired_for, source_vm

ESX = ObjectRef(NS, "esx-1")
DOOR = HostAccess("host-1", "esx1", "10.0.0.1")
REFUSED = replace(DOOR, type="SecretNotValid", reason="AuthFailed", message="user and password are refused")


def land(limits: Limits) -> Toyland:
    return Toyland({"web": source_vm("web")}, replace(desired_for(["web"]), limits=limits))


def test_pods_get_the_resources_of_now_not_those_of_the_beginning() -> None:
    world = land(Limits(pods=PodWishes({"limits": {"memory": "1Gi"}})))
    while not world.acts(EnsureBinder):
        world.tick()
    later = PodWishes({"limits": {"memory": "2Gi"}}, "Always")
    world.desired = replace(world.desired, limits=Limits(pods=later))
    world.run()
    (binder,) = (a for a in world.log if isinstance(a, EnsureBinder))
    (copy,) = (a for a in world.log if isinstance(a, EnsureCopy))
    assert binder.spec.wishes.resources == {"limits": {"memory": "1Gi"}}
    assert copy.job.wishes == later


def test_the_serial_is_the_source_s_own_style_unless_that_is_switched_off() -> None:
    serials = []
    for limits in (Limits(), Limits(vmware_serial=False)):
        world = land(limits)
        world.run()
        serials.append(next(a.spec.serial for a in world.log if isinstance(a, EnsureVm)))
    assert serials == ["VMware-42 00 00 00 00 00 00 00-00 00 00 00 00 00 00 01", "42000000-0000-0000-0000-000000000001"]


def test_concerns_block_unless_they_are_switched_off() -> None:
    for judged in (True, False):
        world = land(Limits(judge_concerns=judged))
        world.vms["web"] = replace(world.vms["web"], attributes={"name": "web", "devices": [{"kind": "VirtualPCIPassthrough"}]})
        for _ in range(30):
            world.tick()
        assert bool(world.acts(PowerSource)) is not judged


# ---- status ----


class Behind(Toyland):
    """A provider with a Host manifest, which came to `access`."""

    access = DOOR

    def inventory(self) -> Inventory:
        return replace(super().inventory(), host_access={ESX: self.access})


def behind() -> Behind:
    spec = HostSpec(ESX, PLACE, SOURCE, InventoryRef(name="esx1"), "10.0.0.1", ObjectRef(NS, "s"))
    return Behind({"web": source_vm("web")}, replace(desired_for(["web"]), hosts={ESX: spec}))


def status(world: Toyland, kind: str, ref: ObjectRef, *, unknown: bool = False) -> ObjectStatus:
    seen = Unknown("Unreachable", "down") if unknown else Known(world.inventory())
    observed = Observed({SOURCE: seen}, {HOST: Known(world.target())})
    return summarize(world.desired, observed, world.records, {SOURCE: SiteIndex(world.inventory())}, world.now)[(kind, ref)]


def types(found: ObjectStatus) -> dict[str, Category]:
    return {c.type: c.category for c in found.conditions}


def test_a_host_that_let_us_in_is_ready_and_named_where_its_disks_are_read() -> None:
    world = behind()
    assert types(status(world, "Host", ESX))["Ready"] is Category.REQUIRED
    world.run()
    (vm,) = world.records.vms.values()
    assert vm.frozen is not None
    assert vm.frozen.disks[0].path_reason.endswith(", from esx1 at 10.0.0.1 (Host openshift-mtv/esx-1)")


def test_a_host_that_does_not_holds_its_vms_back_with_the_guest_on() -> None:
    world = behind()
    world.access = REFUSED
    for _ in range(20):
        world.tick()
    assert world.vms["web"].power is Power.ON
    assert not world.acts(PowerSource)
    assert types(status(world, "Host", ESX)) == {"SecretNotValid": Category.CRITICAL}
    assert types(status(world, "Plan", PLAN))["HostNotReady"] is Category.CRITICAL
    world.access = DOOR
    world.run()
    assert world.acts(PowerSource)


def test_other_hosts_and_a_second_manifest_hold_nobody_back() -> None:
    for access in (replace(REFUSED, host_id="host-2"), replace(REFUSED, type="RefNotValid", reason="NotUnique")):
        world = behind()
        world.access = access
        world.run()
        assert world.acts(PowerSource)


def test_a_host_of_a_provider_that_cannot_be_asked_is_not_ready() -> None:
    found = status(behind(), "Host", ESX, unknown=True)
    assert types(found) == {"ConnectionTestFailed": Category.CRITICAL}


def test_the_controller_s_status_says_what_has_no_meaning_here() -> None:
    ref = ObjectRef(NS, "controller")
    world = land(Limits())
    said = (Unsupported("spec.a", "a has no meaning here: because", False), Unsupported("spec.b", "b has no meaning here: because", False))
    world.desired = replace(world.desired, controllers={ref: ControllerSpec(ref, PLACE, said)})
    found = status(world, "ForkliftController", ref)
    assert types(found) == {"WithoutEffect": Category.WARN, "Ready": Category.REQUIRED}
    assert next(c for c in found.conditions if c.type == "WithoutEffect").items == tuple(item.message for item in said)
