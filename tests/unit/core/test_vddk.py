"""VMware's library in a run: which setting brings it, the trial before the power-off, and the pods that get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from reconciler.core.actions import DropBinder, EnsureBinder, EnsureCopy, PowerSource
from reconciler.core.copyspec import VDDK_INVALID, CopyResult, result_line
from reconciler.core.desired import Limits
from reconciler.core.model import Power, Result
from reconciler.core.record import VmRecord
from reconciler.core.vddk import Named, configuration, named
from tests.unit.core.toyland import SOURCE, Toyland, desired_for, source_vm

IMAGE, OTHER = "registry.example.com/infra/vddk:8.0.3", "registry.example.com/infra/vddk:8.0.2"


def land(image: str = IMAGE, controller: str = "") -> Toyland:
    world = Toyland({"web": source_vm("web", disks=2)}, desired_for(["web"]))
    world.desired = replace(world.desired, limits=Limits(vddk_image=controller))
    if image:
        use(world, image)
    return world


def use(world: Toyland, image: str) -> None:
    settings = {"vddkInitImage": image} if image else {}
    providers = {**world.desired.providers, SOURCE: replace(world.desired.providers[SOURCE], settings=settings)}
    world.desired = replace(world.desired, providers=providers)


def only(world: Toyland) -> VmRecord:
    (record,) = world.records.vms.values()
    return record


def until(world: Toyland, kind: type) -> None:
    for _ in range(30):
        if world.acts(kind):
            return
        world.tick()
    raise AssertionError(f"no {kind.__name__}: {only(world).phase} {only(world).message}")


def binders(world: Toyland) -> list[str]:
    return [a.spec.vddk_image for a in world.log if isinstance(a, EnsureBinder)]


def copies(world: Toyland) -> list[tuple[str, set[str]]]:
    return [(a.job.vddk_image, {d.path for d in a.disks}) for a in world.log if isinstance(a, EnsureCopy)]


def refuse(world: Toyland) -> None:
    """The trial that was asked for comes back: no library."""
    fault = result_line(CopyResult((), "nbdkit's plugin does not load libvixDiskLib.so.9", VDDK_INVALID))
    world.binders = {n: replace(b, phase="Failed", exit_code=65, termination_message=fault) for n, b in world.binders.items()}


def held(world: Toyland) -> list[tuple[str, str]]:
    return [(c.type, c.reason) for c in only(world).conditions if c.category.value == "Critical"]


def test_a_provider_goes_before_the_controller_and_vsphere_alone_has_vddk() -> None:
    provider, limits = desired_for([]).providers[SOURCE], Limits(vddk_image=OTHER)
    own = replace(provider, settings={"vddkInitImage": IMAGE})
    assert named(own, limits) == Named(IMAGE, f"vddkInitImage of Provider {SOURCE}")
    assert named(provider, limits) == Named(OTHER, "vddk_image of the ForkliftController")
    assert named(provider, Limits()) == named(None, limits) == named(replace(own, platform="ovirt"), limits) == Named()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, ""),
        ({"vddkConfig": "a=1"}, ""),
        ({"useVddkAioOptimization": "yes", "vddkConfig": "a=1"}, ""),
        ({"useVddkAioOptimization": "true", "vddkConfig": "a=1"}, "a=1"),
        ({"useVddkAioOptimization": "T"}, "VixDiskLib.nfcAio.Session.BufSizeIn64KB=16\nVixDiskLib.nfcAio.Session.BufCount=4\n"),
    ],
)
def test_a_configuration_counts_as_in_forklift(settings: Mapping[str, str], text: str) -> None:
    assert configuration(settings) == text


@pytest.mark.parametrize(("image", "controller"), [(IMAGE, ""), ("", IMAGE), (IMAGE, OTHER)])
def test_the_pods_get_the_image_and_the_disks_the_path(image: str, controller: str) -> None:
    world = land(image, controller)
    world.run()
    assert only(world).result is Result.SUCCEEDED
    assert binders(world) == [IMAGE]
    assert copies(world) == [(IMAGE, {"vddk"})]
    frozen = only(world).frozen
    assert frozen is not None
    setting = "vddkInitImage of Provider" if image else "vddk_image of the ForkliftController"
    assert all(setting in disk.path_reason for disk in frozen.disks)


def test_without_a_setting_no_pod_gets_one() -> None:
    world = land("")
    world.run()
    assert (binders(world), copies(world)) == ([""], [("", {"datastore"})])


def test_an_image_that_is_set_later_is_for_later_runs() -> None:
    world = land("")
    until(world, EnsureBinder)
    use(world, IMAGE)
    world.run()
    assert (binders(world), copies(world)) == ([""], [("", {"datastore"})])


def test_a_library_that_does_not_load_holds_the_vm_with_its_guest_on_until_the_image_is_another() -> None:
    world = land()
    until(world, EnsureBinder)
    refuse(world)
    for _ in range(5):
        world.tick(60)
    assert held(world) == [(VDDK_INVALID, "NotValid")]
    assert "libvixDiskLib.so.9" in only(world).message
    assert binders(world) == [IMAGE]
    assert world.vms["web"].power is Power.ON
    use(world, OTHER)
    world.run()
    assert only(world).result is Result.SUCCEEDED
    assert binders(world) == [IMAGE, OTHER]
    assert len(world.acts(DropBinder)) == 2
    assert copies(world) == [(OTHER, {"vddk"})]


def test_the_same_image_is_tried_again_when_a_person_deletes_the_pod() -> None:
    world = land()
    until(world, EnsureBinder)
    refuse(world)
    world.tick()
    (name,) = world.binders
    assert f"delete pod {name}" in only(world).message
    world.binders = {}
    world.run()
    assert only(world).result is Result.SUCCEEDED
    assert binders(world) == [IMAGE, IMAGE]


def test_a_pod_that_waits_for_an_image_is_replaced_when_the_name_is_corrected() -> None:
    world = land()
    until(world, EnsureBinder)
    said = "init container vddk-side-car: ImagePullBackOff: no such image"
    world.binders = {n: replace(b, phase="Pending", exit_code=None, message=said) for n, b in world.binders.items()}
    for _ in range(5):
        world.tick(3600)
    assert said in only(world).message
    assert (held(world), binders(world)) == ([], [IMAGE])
    use(world, OTHER)
    world.run()
    assert only(world).result is Result.SUCCEEDED
    assert binders(world) == [IMAGE, OTHER]


def test_what_was_tried_is_not_tried_again_for_a_new_image() -> None:
    """The copy, which has begun or is about to, takes the new one; it says itself when that does not load."""
    world = land()
    until(world, PowerSource)
    use(world, OTHER)
    world.run()
    assert (binders(world), copies(world)) == ([IMAGE], [(OTHER, {"vddk"})])


@pytest.mark.parametrize("when", [EnsureBinder, PowerSource])
def test_an_image_that_is_named_no_more_holds_what_was_planned_with_it(when: type) -> None:
    world = land()
    until(world, when)
    if when is EnsureBinder:
        world.binders = {n: replace(b, phase="Pending") for n, b in world.binders.items()}
    use(world, "")
    for _ in range(5):
        world.tick()
    assert held(world) == [("VDDKInitImageUnavailable", "NotSet")]
    assert not copies(world)
    use(world, IMAGE)
    world.binders = {n: replace(b, phase="Succeeded", exit_code=0) for n, b in world.binders.items()}
    world.run()
    assert only(world).result is Result.SUCCEEDED


def test_what_was_judged_with_vddk_is_judged_so_again_before_the_power_off() -> None:
    """A chain below a snapshot of somebody else: VDDK reads it, and nothing else here would."""
    world = land()
    vm = world.vms["web"]
    chained = tuple(replace(d, backing=replace(d.backing, parents=("[ds] web/base.vmdk",))) for d in vm.disks)
    world.vms["web"] = replace(vm, disks=chained)
    world.run()
    assert only(world).result is Result.SUCCEEDED
    assert copies(world) == [(IMAGE, {"vddk"})]
