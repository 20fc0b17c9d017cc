"""Safety rows 7 and 9 on the target's side: a guest that ran on the target disks before hand-over, seen or unseen, is never handed over.

Over the toy, which judges the bytes at each start of a target, and once over the lab, whose cluster counts generations as Kubernetes does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.actions import DropCopy, EnsureCopy, EnsureVolumes, StartTarget
from reconciler.core.model import Milestone, Power, Result
from reconciler.core.target import Volume, Writer
from tests.integration.loops import TTL_S, go_on
from tests.integration.simlab import SimLab
from tests.integration.test_safety import RUN2, again, arrange, ended, go, held, lab_marked, land, live, marked, only
from tests.unit.core.lives import Fate, LiveLand
from tests.unit.core.toyland import desired_for, source_vm

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def virtctl(lab: SimLab, name: str, power: str) -> None:
    vm = lab.cluster.find("VirtualMachine", "shop", name)
    assert vm is not None
    lab.cluster._kubevirt.request(vm, power)


def settle(lab: SimLab) -> None:
    for _ in range(20):
        lab.clock.sleep(1.0)


def unseen(world: LiveLand) -> None:
    """Started and stopped between two looks. The guest has written to its disks."""
    world.person_starts("web")
    world.person_stops("web")
    assert all(half == -1 for volume in world.volumes.values() for half in world.content[volume.uid])


@pytest.mark.parametrize("when", ["copying", "marked"])
def test_row_09_a_target_that_ran_unseen_before_hand_over_is_copied_again(when: str) -> None:
    world = land(disks=2)
    live(world, marked if when == "marked" else lambda w: bool(w.pods) and w.pods[0].step == 1)
    copies = len(world.acts(EnsureCopy))
    unseen(world)
    go(world, 1)
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and len(world.acts(EnsureCopy)) > copies, "and LiveLand judged the bytes at the start"


def test_row_09_it_is_said_why_it_is_copied_again() -> None:
    world = land(disks=2)
    live(world, marked)
    unseen(world)
    told = []
    for _ in range(6):
        go(world, 1)
        told.append(only(world).message)
    assert any("was changed, perhaps started" in text for text in told), told


def test_row_09_a_change_of_the_labels_alone_costs_no_copy() -> None:
    world = land(disks=2)
    live(world, marked)
    world.targets["web"] = replace(world.targets["web"], resource_version="99")
    live(world, ended)
    assert len(world.acts(EnsureCopy)) == 1


@pytest.mark.parametrize("ran", [False, True])
def test_row_09_what_a_failed_run_kept_counts_only_if_no_guest_ran_on_it_since(ran: bool) -> None:
    """The halted VM stays with the disks that it vouches for. The next run copies nothing again, or everything."""
    world = land(disks=2, power=Power.OFF)
    live(world, marked)
    world.one_pass("a", Fate(faults={"ProveOff": ("terminal", False)}))
    live(world, ended)
    assert only(world).result is Result.FAILED and marked(world) and "web" in world.targets
    if ran:
        unseen(world)
    copies = len(world.acts(EnsureCopy))
    again(world)
    live(world, ended)
    fresh = world.acts(EnsureCopy)[copies:]
    assert [isinstance(a, EnsureCopy) and len(a.disks) for a in fresh] == ([2] if ran else [])
    assert only(world, RUN2).result is Result.SUCCEEDED


def test_row_09_our_own_start_is_no_reason_to_copy_again() -> None:
    """We died right after the start, and a person stopped the target since: what it wrote is not overwritten."""
    world = land()
    for _ in range(60):
        world.one_pass("a")
        if "web" in world.started:
            break
        world.go_on()
    world.processes["a"] = world.newborn()
    world.person_stops("web")
    copies = len(world.acts(EnsureCopy))
    go(world, 10)
    assert only(world).milestone in (Milestone.HANDED_OVER, Milestone.DONE) and len(world.acts(EnsureCopy)) == copies


def handing_over(world: LiveLand) -> bool:
    return bool(world.records.vms) and only(world).milestone is Milestone.HANDED_OVER


def test_row_09_a_target_that_ran_unseen_between_the_look_and_its_start_is_copied_again() -> None:
    """The intent is committed, and a person starts and stops the target before our own start comes."""
    world = land(disks=2)
    ran: list[int] = []

    def meddle() -> None:
        if handing_over(world) and not ran:
            ran.append(1)
            unseen(world)

    while not ran:
        world.one_pass("a", Fate(between=meddle))
        world.go_on()
    copies = len(world.acts(EnsureCopy))
    go(world, 1)
    assert any(i.void for i in only(world).intents) and "web" not in world.started
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and len(world.acts(EnsureCopy)) == copies + 1, "LiveLand judged the bytes at the start"


@pytest.mark.parametrize("dies", [False, True])
def test_row_09_a_start_whose_reply_was_lost_is_known_by_the_vm(dies: bool) -> None:
    """A person stopped the target before we looked again: it is neither started again nor copied again."""
    world = land(disks=2)
    while "web" not in world.started:
        world.one_pass("a", Fate(faults={"StartTarget": ("retryable", True)}))
        world.go_on()
    if dies:
        world.processes["a"] = world.newborn()
    world.person_stops("web")
    acts = (len(world.acts(EnsureCopy)), len(world.acts(StartTarget)))
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and world.targets["web"].power is Power.OFF
    assert (len(world.acts(EnsureCopy)), len(world.acts(StartTarget))) == acts


class Haunted(LiveLand):
    """With a guest of somebody else's VM on our PVCs, while `guest` is set."""

    guest = False

    def _with_writers(self, volume: Volume) -> Volume:
        seen = super()._with_writers(volume)
        alien = (Writer("virt-launcher-alien", "Running", False, False, "vmi"),) if self.guest else ()
        return replace(seen, writers=(*seen.writers, *alien))


@pytest.mark.parametrize("when", ["reserving", "copying", "marked"])
def test_row_07_a_pvc_used_by_any_vmi_is_never_written(when: str) -> None:
    world = Haunted({"web": source_vm("web")}, desired_for(["web"]))
    points = {"reserving": lambda w: bool(w.acts(EnsureVolumes)), "copying": lambda w: bool(w.pods), "marked": marked}
    live(world, points[when])
    world.guest = True
    copies = len(world.acts(EnsureCopy))
    go(world, 6)
    assert held(world) == ["TargetRunning"] and "virt-launcher-alien" in only(world).message
    assert not world.pods and not marked(world) and len(world.acts(EnsureCopy)) == copies and not world.acts(StartTarget)
    assert bool(world.acts(DropCopy)) is (when != "reserving"), "what copies beside a guest is stopped"
    world.guest = False
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED


def test_row_09_the_lab_counts_a_start_and_a_stop(tmp_path: Path) -> None:
    """virtctl start and stop through the subresources, while nobody looks; the guest's writes are real bytes on the PVC."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, lab_marked(lab))
        record = lab.record("web")
        assert record.frozen is not None and record.milestone is Milestone.CUTOVER
        before = lab.cluster.find("VirtualMachine", "shop", record.frozen.name)
        assert before is not None
        virtctl(lab, record.frozen.name, "start")
        settle(lab)
        assert lab.target_on("web")
        with lab.cluster.volume_path("shop", record.frozen.disks[0].pvc).open("r+b") as disk:
            disk.write(b"a guest was here")
        virtctl(lab, record.frozen.name, "stop")
        settle(lab)
        after = lab.cluster.find("VirtualMachine", "shop", record.frozen.name)
        assert after is not None and after["metadata"]["generation"] == before["metadata"]["generation"] + 2
        assert not lab.target_on("web") and lab_marked(lab)(), "the marks are still there"
        go_on(lab, lab.ended)
        lab.assert_moved("web")
