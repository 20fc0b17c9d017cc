"""What makes a change id doubtful, one reason at a time: the disk itself, and each kind of event."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.core.model import ObjectRef, VmRef
from reconciler.drivers.vsphere import changes, history
from reconciler.drivers.vsphere.changeid import ChangeId, doubt
from reconciler.drivers.vsphere.hardware import DiskFacts
from reconciler.drivers.vsphere.notes import Moment, Note, name_of
from reconciler.drivers.vsphere.sdk import vim, vmodl

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
MOMENT = Moment(4711, AT)
RAW = "52 0a f1 d2 00 11 22 33-44 55 66 77 88 99 aa bb"
DISK = DiskFacts(
    key=2000,
    label="Hard disk 1",
    capacity_bytes=1 << 30,
    controller_key=1000,
    bus="scsi",
    bus_number=0,
    unit=0,
    backing_kind="FlatVer2",
    uuid="6000C29e-0000-0000-0000-000000000001",
    file="[ds] web/web-000001.vmdk",
    store_id="datastore-1",
    parents=("[ds] web/web.vmdk",),
    key_id=None,
    mode="persistent",
    multi_writer=False,
    change_id=f"{RAW}/7",
    device_name="",
    lun_uuid="",
    compatibility="",
    object_id="",
)


def given(disk: DiskFacts) -> ChangeId:
    made = ChangeId.of(disk, MOMENT)
    assert made is not None
    return made


# ---- the text ----


def test_a_change_id_survives_being_written_down() -> None:
    assert ChangeId.parse(str(given(DISK))) == given(DISK)
    unmarked = replace(given(DISK), moment=None)
    assert ChangeId.parse(str(unmarked)) == unmarked


@pytest.mark.parametrize("text", ["", "*", f"{RAW}/7", f"{RAW}/7#2000", f"{RAW}/7#2000,x,ab,-", "#1,2,3,-"])
def test_what_is_not_a_change_id_of_ours_is_none(text: str) -> None:
    assert ChangeId.parse(text) is None


def test_a_note_is_read_back_and_others_descriptions_are_not_ours() -> None:
    for note in (Note("a/key with spaces, ünïcode", MOMENT), Note("k", None)):
        assert Note.parse(str(note)) == note
    assert Note.parse("") is None
    assert Note.parse("see reconciler key: k") is None
    assert Note.parse("reconciler key: ") is None
    assert Note.parse("reconciler key: k\nhistory before it: yesterday") == Note("k", None)


def test_moments_are_kept_to_the_microsecond_in_any_zone() -> None:
    east = Moment(1, AT.astimezone(timezone(timedelta(hours=5, minutes=30))))
    assert Moment.parse(str(east)) == Moment(1, AT)


def test_names_differ_where_keys_do_and_hold_nothing_that_needs_escaping() -> None:
    long = "x" * 190
    assert name_of(long + "1") != name_of(long + "2")
    assert name_of("a/b%c\\d").startswith("reconciler-a-b-c-d-")
    assert len(name_of(long)) <= 80


# ---- the disk ----


def test_an_equal_or_higher_number_of_the_same_record_is_believed() -> None:
    for number in (7, 8, 70):
        assert doubt(given(DISK), given(replace(DISK, change_id=f"{RAW}/{number}"))) is None


def test_a_snapshot_more_on_the_chain_is_no_reason() -> None:
    assert doubt(given(replace(DISK, file="[ds] web/web.vmdk", parents=())), given(DISK)) is None


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (replace(DISK, change_id="52 ff f1 d2 00 11 22 33-44 55 66 77 88 99 aa bb/8"), "anew"),  # another tracking uuid
        (replace(DISK, change_id=f"{RAW}/6"), "back"),  # a lower sequence
        (replace(DISK, change_id=f"{RAW}/"), "back"),
        (replace(DISK, capacity_bytes=2 << 30), "size"),
        (replace(DISK, key=2001), "device"),
        (replace(DISK, parents=("[ds2] web/web.vmdk",)), "moved"),
        (replace(DISK, parents=("[ds] web/web_1.vmdk",)), "moved"),
    ],
)
def test_each_fact_of_the_disk_that_differs_is_a_doubt(now: DiskFacts, word: str) -> None:
    why = doubt(given(DISK), given(now))
    assert why is not None
    assert word in why


def test_where_the_running_disk_tells_no_id_the_rest_is_compared() -> None:
    untold = replace(DISK, change_id=None)
    assert doubt(given(DISK), ChangeId.of(untold, None, tracked=True)) is None
    assert doubt(given(DISK), ChangeId.of(replace(untold, capacity_bytes=5), None, tracked=True))
    assert doubt(given(replace(DISK, change_id="*")), ChangeId.of(untold, None, tracked=True))


def test_a_disk_that_is_not_tracked_has_no_change_id() -> None:
    assert ChangeId.of(replace(DISK, change_id=None), MOMENT) is None
    assert doubt(given(DISK), None)
    assert doubt(None, given(DISK))


# ---- pages ----


class Site:
    """Answers with what it is given, in order, and notes what was asked from where."""

    def __init__(self, *pages: tuple[int, int, list[tuple[int, int]]]) -> None:
        self.pages = list(pages)
        self.asked: list[int] = []

    def QueryChangedDiskAreas(self, snapshot: Any, deviceKey: int, startOffset: int, changeId: str) -> Any:
        assert (deviceKey, changeId) == (2000, "id")
        self.asked.append(startOffset)
        start, length, areas = self.pages.pop(0)
        found = [SimpleNamespace(start=offset, length=size) for offset, size in areas]
        return SimpleNamespace(startOffset=start, length=length, changedArea=found)


def pages(*given_pages: tuple[int, int, list[tuple[int, int]]], capacity: int = 100) -> tuple[Any, list[int]]:
    site = Site(*given_pages)
    return changes._pages(site, replace(DISK, capacity_bytes=capacity), "id", None), site.asked


def test_an_empty_page_is_not_the_end() -> None:
    assert pages((0, 40, []), (40, 40, []), (80, 20, [(90, 5)])) == ([(90, 5)], [0, 40, 80])


def test_areas_that_touch_across_pages_are_one() -> None:
    assert pages((0, 50, [(40, 10)]), (50, 50, [(50, 1)]))[0] == [(40, 11)]


@pytest.mark.parametrize(
    "broken",
    [
        ((0, 0, []),),  # it does not get on
        ((0, 50, []), (60, 40, [])),  # it leaves out ten bytes
        ((0, 50, []), (10, 40, [])),  # it goes back
    ],
)
def test_pages_that_do_not_join_up_are_no_answer(broken: tuple[Any, ...]) -> None:
    assert pages(*broken)[0] is None


# ---- events ----


def task(description: str) -> Any:
    return vim.event.TaskEvent(key=5, info=vim.TaskInfo(descriptionId=description))


def extended(kind: str) -> Any:
    return vim.event.EventEx(key=5, eventTypeId=kind)


def reconfigured(**fields: Any) -> Any:
    return vim.event.VmReconfiguredEvent(key=5, configSpec=vim.vm.ConfigSpec(**fields))


def change(device: Any) -> list[Any]:
    return [vim.vm.device.VirtualDeviceSpec(operation="edit", device=device)]


def moved(kind: str, before: str, after: str) -> Any:
    def store(id_: str) -> Any:
        return vim.event.DatastoreEventArgument(name=id_, datastore=vim.Datastore(id_))

    return getattr(vim.event, kind)(key=5, sourceDatastore=store(before), ds=store(after))


@pytest.mark.parametrize(
    "event",
    [
        extended("com.vmware.vc.vm.VmStateRevertedToSnapshot"),
        task("VirtualMachine.revertToCurrentSnapshot"),
        task("vim.vm.Snapshot.revert"),
        task("VirtualMachine.relocate"),
        vim.event.VmRelocatedEvent(key=5),
        moved("VmMigratedEvent", "datastore-1", "datastore-2"),
        moved("DrsVmMigratedEvent", "datastore-1", "datastore-2"),
        vim.event.VmRegisteredEvent(key=5),
        vim.event.VmReloadFromPathEvent(key=5),
        vim.event.VmDisconnectedEvent(key=5),
        vim.event.VmRestartedOnAlternateHostEvent(key=5),
        vim.event.VmDasBeingResetEvent(key=5),
        extended("com.vmware.vc.ha.VmRestartedByHAEvent"),
        reconfigured(),
        reconfigured(changeTrackingEnabled=True),
        reconfigured(changeTrackingEnabled=False),
        reconfigured(annotation="x", extraConfig=[vim.option.OptionValue(key="scsi0:0.ctkEnabled", value="FALSE")]),
        reconfigured(deviceChange=change(vim.vm.device.VirtualDisk(key=2000))),
        reconfigured(deviceChange=change(vim.vm.device.VirtualLsiLogicController(key=1000))),
        reconfigured(numCPUs=4, files=vim.vm.FileInfo(vmPathName="[ds] other/other.vmx")),
        vim.event.VmReconfiguredEvent(key=5),
    ],
    ids=lambda event: type(event).__name__,
)
def test_each_of_these_events_is_a_doubt(event: Any) -> None:
    why = history.judge(event)
    assert why is not None
    assert "event 5" in why


@pytest.mark.parametrize(
    "event",
    [
        task("VirtualMachine.createSnapshot"),
        task("VirtualMachine.removeSnapshot"),
        task("VirtualMachine.consolidateDisks"),
        task("VirtualMachine.powerOff"),
        task("VirtualMachine.reconfigure"),  # the event of the reconfiguration itself says what it was
        vim.event.TaskEvent(key=5),
        vim.event.VmPoweredOnEvent(key=5),
        vim.event.VmPoweredOffEvent(key=5),
        vim.event.VmGuestShutdownEvent(key=5),
        vim.event.VmMigratedEvent(key=5),
        moved("DrsVmMigratedEvent", "datastore-1", "datastore-1"),
        vim.event.AlarmStatusChangedEvent(key=5),
        reconfigured(annotation="by a backup product"),
        reconfigured(numCPUs=4, memoryMB=8192),
        reconfigured(deviceChange=change(vim.vm.device.VirtualVmxnet3(key=4000))),
    ],
    ids=lambda event: type(event).__name__,
)
def test_everyday_events_are_not(event: Any) -> None:
    assert history.judge(event) is None


# ---- the history ----


class Manager:
    """An EventManager with these events, all of one VM but for `elsewhere`."""

    def __init__(self, events: list[Any], elsewhere: list[Any]) -> None:
        self._own, self._all = events, sorted([*events, *elsewhere], key=lambda event: (event.createdTime, event.key))

    @property
    def latestEvent(self) -> Any:
        return self._all[-1] if self._all else None

    def QueryEvents(self, wanted: Any) -> list[Any]:
        events = self._all if wanted.entity is None else self._own
        begin, end = wanted.time.beginTime, wanted.time.endTime
        return [e for e in events if (begin is None or e.createdTime >= begin) and (end is None or e.createdTime <= end)]


def site_of(manager: Manager) -> Any:
    """Its property collector tells `latestEvent`, or leaves out what is unset."""

    def retrieve(specs: Any, options: Any) -> Any:
        told = manager.latestEvent
        found = SimpleNamespace(obj=vim.event.EventManager("EventManager"), missingSet=[], propSet=[])
        if told is not None:
            found.propSet.append(SimpleNamespace(name="latestEvent", val=told))
        return SimpleNamespace(objects=[found], token=None)

    content = SimpleNamespace(propertyCollector=SimpleNamespace(RetrievePropertiesEx=retrieve))
    content.eventManager = ManagerRef("EventManager")
    content.eventManager.__dict__["QueryEvents"] = lambda wanted: manager.QueryEvents(wanted)
    return content


class ManagerRef(vim.event.EventManager):  # type: ignore[misc]
    """A reference that the property collector takes, with the calls of a Manager."""


def event(key: int, seconds: float, kind: str = "VmPoweredOnEvent") -> Any:
    return getattr(vim.event, kind)(key=key, createdTime=AT + timedelta(seconds=seconds))


def asked(own: list[Any], elsewhere: list[Any], moment: Moment | None = MOMENT) -> str | None:
    content = site_of(Manager(own, elsewhere))
    return history.doubt_since(content, vim.VirtualMachine("vm-1"), moment)


BEFORE = event(4700, -600)


def test_a_quiet_history_that_reaches_back_is_believed() -> None:
    assert asked([event(4800, 60)], [BEFORE, event(4711, 0)]) is None
    assert asked([], [event(4711, 0)]) is None


def test_what_happened_before_the_moment_does_not_count() -> None:
    assert asked([event(4710, -1, "VmRelocatedEvent")], [event(4711, 0)]) is None


def test_a_later_event_counts_though_its_host_has_a_slow_clock() -> None:
    assert asked([event(4712, -1800, "VmRelocatedEvent")], [BEFORE, event(4713, 1)]) is not None


def test_a_history_without_the_moment_is_no_proof() -> None:
    why = asked([event(4800, 86_400)], [event(4790, 86_000)])
    assert why is not None
    assert "reach" in why


def test_a_history_that_counts_from_one_again_is_no_proof() -> None:
    why = asked([event(3, 86_400)], [BEFORE])
    assert why is not None
    assert "anew" in why


def test_an_account_that_sees_no_history_proves_nothing() -> None:
    assert asked([], []) is not None
    assert asked([], [BEFORE], None) is not None


@pytest.mark.parametrize("fault", [vim.fault.NoPermission, vmodl.fault.NotSupported, vmodl.fault.NotImplemented])
def test_a_history_that_may_not_be_read_proves_nothing(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    def refuse(*args: object) -> Any:
        raise fault

    monkeypatch.setattr(Manager, "QueryEvents", refuse)
    assert asked([], [event(4711, 0)]) is not None
    monkeypatch.setattr(Manager, "latestEvent", property(refuse))
    assert history.read_moment(site_of(Manager([], []))) is None
    assert asked([], [event(4711, 0)]) is not None


def test_the_words_name_vm_disk_and_consequence() -> None:
    ref = VmRef(ObjectRef("ns", "vc"), "site", "vm-1", "uuid", "web")
    said = str(changes._Doubtful(ref, DISK, "its size changed"))
    assert said == "web (vm-1), Hard disk 1: its size changed; the disk is compared in full"


def test_more_events_than_an_answer_holds_are_asked_for_in_parts_or_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of too many the site gives, the one that tells is found; where it cannot be, silence is not believed."""
    monkeypatch.setattr(history, "LISTED", 4)
    for keep in (slice(None, 4), slice(-4, None)):
        whole = Manager.QueryEvents
        monkeypatch.setattr(Manager, "QueryEvents", lambda self, wanted, keep=keep, whole=whole: whole(self, wanted)[keep])
        many = [event(4800 + n, 60 * n) for n in range(20)]
        assert asked(many, [BEFORE]) is None
        for at in (0, 9, 19):
            told = [*many[:at], event(4800 + at, 60 * at, "VmRelocatedEvent"), *many[at + 1 :]]
            assert asked(told, [BEFORE]) is not None
        at_once = asked([event(4800 + n, 60) for n in range(20)], [BEFORE])
        assert at_once is not None
        assert "within a second" in at_once
        monkeypatch.setattr(Manager, "QueryEvents", whole)
