"""Changed block tracking of the simulated vCenter, through the real pyVmomi: what it reports, when it begins, how it fails and lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from reconciler.lab import sparse
from reconciler.lab.machines import Disk, Vm
from reconciler.lab.tls import LabCa
from reconciler.lab.tracking import BLOCK_BYTES
from tests.unit.lab.vcenterkit import Site, object_spec, ref

BLOCK = BLOCK_BYTES
Extents = list[tuple[int, int]]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> LabCa:
    return LabCa(tmp_path_factory.mktemp("ca"))


class Warm:
    """One machine of 4 MiB whose changes are tracked, running, and a client."""

    def __init__(self, site: Site, si: Any) -> None:
        self.site, self.world, self.si = site, site.world, si
        self.record: Vm = site.vm(0)
        self.disk: Disk = self.record.disks[0]
        self.world.grow_disk(self.record, self.disk, 4)
        self.vm = ref(site, si, 0)

    def done(self, task: Any) -> Any:
        self.site.pass_time(10)
        info = task.info
        if info.error is not None:
            raise info.error
        return info.result

    def track(self, on: bool = True) -> None:
        self.done(self.vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=on)))

    def snapshot(self, name: str = "s") -> Any:
        return self.done(self.vm.CreateSnapshot_Task(name=name, description="", memory=False, quiesce=False))

    def remove(self, snapshot: Any) -> None:
        self.done(snapshot.RemoveSnapshot_Task(removeChildren=False))

    def write(self, block: int, blocks: int = 1) -> None:
        self.world.guest_write(self.record, self.disk, block * BLOCK + 512, b"x" * ((blocks - 1) * BLOCK + 512))

    def changed(self, snapshot: Any, since: str, key: int = 2000) -> Extents:
        found: Extents = []
        at = 0
        while at < self.disk.capacity_bytes:
            page = self.vm.QueryChangedDiskAreas(snapshot=snapshot, deviceKey=key, startOffset=at, changeId=since)
            assert page.startOffset == at and page.length > 0
            for area in page.changedArea:
                assert at <= area.start and area.start + area.length <= at + page.length
                found.append((area.start, area.length))
            at += page.length
        return found


@pytest.fixture
def warm(tmp_path: Path, ca: LabCa) -> Iterator[Warm]:
    site = Site(tmp_path, ca, vms=1)
    site.vcenter.changes.page_bytes = 1 << 20
    site.vcenter.start()
    with site.client() as si:
        made = Warm(site, si)
        made.track()
        made.world.power_on(made.record)
        yield made
    site.vcenter.stop()


def disk_of(config: Any, key: int = 2000) -> Any:
    return next(d for d in config.hardware.device if d.key == key).backing


def test_what_was_written_between_two_snapshots_is_reported_and_nothing_else(warm: Warm) -> None:
    first = warm.snapshot()
    since = disk_of(first.config).changeId
    warm.remove(first)
    warm.write(3)
    warm.write(4, 2)
    second = warm.snapshot()
    warm.write(60)
    assert warm.changed(second, since) == [(3 * BLOCK, 3 * BLOCK)]
    at_second = disk_of(second.config).changeId
    assert (since.rpartition("/")[0], int(since.rpartition("/")[2]) + 1) == (
        at_second.rpartition("/")[0],
        int(at_second.rpartition("/")[2]),
    )
    assert since.startswith("52 ") and len(since.partition("/")[0]) == 47
    warm.remove(second)
    warm.world.power_off(warm.record)
    assert warm.changed(None, at_second) == [(60 * BLOCK, BLOCK)]
    assert warm.changed(None, since) == [(3 * BLOCK, 3 * BLOCK), (60 * BLOCK, BLOCK)]
    assert disk_of(warm.vm.config).changeId == at_second


def test_every_write_of_a_busy_guest_is_in_the_report(warm: Warm) -> None:
    warm.record.writes_per_tick = 40
    ids = []
    frozen = []
    for number in range(4):
        snapshot = warm.snapshot(str(number))
        ids.append(disk_of(snapshot.config).changeId)
        frozen.append(warm.disk.layers[0].path.read_bytes())
        warm.world.tick()
        if number < 3:
            warm.remove(snapshot)
    for older in range(3):
        areas = warm.changed(snapshot, ids[older])
        copy = bytearray(frozen[older])
        for start, length in areas:
            copy[start : start + length] = frozen[3][start : start + length]
        assert bytes(copy) == frozen[3]
        assert frozen[older] != frozen[3]


def test_pages_cover_the_disk_and_may_be_empty_in_the_middle(warm: Warm) -> None:
    first = warm.snapshot()
    since = disk_of(first.config).changeId
    warm.write(2)
    warm.write(50)
    second = warm.snapshot()
    ask = lambda at: warm.vm.QueryChangedDiskAreas(second, 2000, at, since)  # noqa: E731
    assert [len(ask(n << 20).changedArea) for n in range(4)] == [1, 0, 0, 1]
    assert {ask(n << 20).length for n in range(4)} == {1 << 20}
    warm.site.vcenter.changes.page_bytes = 1 << 30
    warm.site.vcenter.changes.page_areas = 1
    assert (ask(0).length, len(ask(0).changedArea)) == (3 * BLOCK, 1)
    assert ask(3 * BLOCK).length == (4 << 20) - 3 * BLOCK


def test_tracking_begins_at_the_next_stun_and_not_on_snapshots(warm: Warm) -> None:
    assert disk_of(warm.vm.config).changeId is not None  # it was switched on before the machine was
    warm.track(False)
    assert warm.vm.config.changeTrackingEnabled is False
    snapshot = warm.snapshot()
    assert disk_of(snapshot.config).changeId is None
    with pytest.raises(vim.fault.FileFault):
        warm.changed(snapshot, "*")
    warm.track()
    assert warm.vm.config.changeTrackingEnabled is True
    assert disk_of(warm.vm.config).changeId is None
    warm.write(5)
    above = warm.snapshot()
    assert disk_of(above.config).changeId is None
    warm.remove(above)
    warm.remove(snapshot)
    assert disk_of(warm.vm.config).changeId is not None  # the removal of the last one was the stun
    options = {o.key: o.value for o in warm.vm.config.extraConfig}
    assert options == {"ctkEnabled": "TRUE", "scsi0:0.ctkEnabled": "TRUE"}
    assert warm.vm.capability.changeTrackingSupported is True


def test_one_disk_may_be_left_out(warm: Warm) -> None:
    late = warm.world.add_disk(warm.record, warm.disk.datastore, 1, tracks=False)
    alone = warm.world.add_disk(warm.record, warm.disk.datastore, 1, mode="independent_persistent")
    warm.track()
    snapshot = warm.snapshot()
    config = snapshot.config
    assert [disk_of(config, key).changeId is not None for key in (2000, 2001, 2002)] == [True, False, False]
    for key in (2001, 2002):
        with pytest.raises(vim.fault.FileFault):
            warm.vm.QueryChangedDiskAreas(snapshot, key, 0, disk_of(config).changeId)
    keys = {o.key for o in warm.vm.config.extraConfig}
    assert "scsi0:0.ctkEnabled" in keys and not {f"{d.slot}.ctkEnabled" for d in (late, alone)} & keys
    warm.remove(snapshot)
    switch = vim.option.OptionValue(key="scsi0:1.ctkEnabled", value="TRUE")
    warm.done(warm.vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[switch])))
    assert disk_of(warm.snapshot().config, 2001).changeId is not None


def test_a_disk_that_comes_later_has_to_be_switched_on(warm: Warm) -> None:
    warm.world.add_disk(warm.record, warm.disk.datastore, 1)
    before = warm.snapshot()
    assert disk_of(before.config, 2001).changeId is None
    warm.remove(before)
    warm.track()
    assert disk_of(warm.snapshot().config, 2001).changeId is not None


def test_who_may_not_reconfigure_may_not_switch_tracking(warm: Warm) -> None:
    warm.site.vcenter.denied.add("VirtualMachine.Config.ChangeTracking")
    with pytest.raises(vim.fault.NoPermission):
        warm.track(False)
    warm.done(warm.vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x")))
    assert warm.record.annotation == "x" and warm.record.change_tracking


def test_a_star_asks_for_what_is_allocated_and_only_vmfs_knows(warm: Warm) -> None:
    warm.write(9)
    snapshot = warm.snapshot()
    warm.write(20)
    assert warm.changed(snapshot, "*") == [(9 * BLOCK, BLOCK)]
    warm.disk.datastore.kind = "NFS"
    assert warm.changed(snapshot, "*") == [(n << 20, 1 << 20) for n in range(4)]


def test_wrong_questions_get_the_faults_of_the_document(warm: Warm) -> None:
    snapshot = warm.snapshot()
    since = disk_of(snapshot.config).changeId
    ask = warm.vm.QueryChangedDiskAreas
    for offset in (-1, 4 << 20, 1 << 40):
        with pytest.raises(vmodl.fault.InvalidArgument) as wrong:
            ask(snapshot, 2000, offset, since)
        assert wrong.value.invalidProperty == "startOffset"
    with pytest.raises(vmodl.fault.InvalidArgument):
        ask(snapshot, 2000, 0, "nonsense")
    with pytest.raises(vim.fault.NotFound):
        ask(snapshot, 2009, 0, since)
    with pytest.raises(vim.fault.FileFault):
        ask(None, 2000, 0, since)  # running
    stem, _, number = since.rpartition("/")
    for lost in (f"{stem}/{int(number) + 1}", f"52 00{stem[5:]}/{number}"):
        with pytest.raises(vim.fault.FileFault):
            ask(snapshot, 2000, 0, lost)
    warm.remove(snapshot)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        ask(snapshot, 2000, 0, since)
    warm.site.vcenter.denied.add("VirtualMachine.Provisioning.DiskRandomRead")
    with pytest.raises(vim.fault.NoPermission):
        ask(None, 2000, 0, since)


def test_a_record_outlives_shutdown_and_the_next_boot(warm: Warm) -> None:
    first = warm.snapshot()
    since = disk_of(first.config).changeId
    warm.remove(first)
    warm.write(1)
    warm.vm.ShutdownGuest()
    warm.site.pass_time(60)
    assert warm.vm.runtime.powerState == "poweredOff"
    assert warm.changed(None, since) == [(BLOCK, BLOCK)]
    warm.done(warm.vm.PowerOnVM_Task())
    warm.write(40)
    with pytest.raises(vim.fault.FileFault):
        warm.changed(None, since)
    assert warm.changed(warm.snapshot(), since) == [(BLOCK, BLOCK), (40 * BLOCK, BLOCK)]


@pytest.mark.parametrize("letter", ["R", "B", "E", "L", "T"])
def test_the_fault_script_plays_on_questions_too(warm: Warm, letter: str) -> None:
    snapshot = warm.snapshot()
    since = disk_of(snapshot.config).changeId
    warm.changed(snapshot, since)
    warm.site.vcenter.faults.script(letter, lambda label: label == "VirtualMachine.QueryChangedDiskAreas")
    with pytest.raises(Exception) as broken:
        warm.vm.QueryChangedDiskAreas(snapshot, 2000, 0, since)
    known = {"B": vim.fault.TaskInProgress, "E": vim.fault.NotAuthenticated}
    assert isinstance(broken.value, known[letter]) if letter in known else not isinstance(broken.value, vmodl.MethodFault)
    assert warm.site.vcenter.faults.spent


def test_a_question_is_answered_while_a_task_runs(warm: Warm) -> None:
    snapshot = warm.snapshot()
    snapshot.RemoveSnapshot_Task(removeChildren=False)
    assert warm.changed(snapshot, disk_of(snapshot.config).changeId) == []


@pytest.mark.parametrize("accident", ["crash", "move", "off and on"])
def test_a_reset_makes_old_ids_unknown(warm: Warm, accident: str) -> None:
    first = warm.snapshot()
    since = disk_of(first.config).changeId
    warm.remove(first)
    if accident == "crash":
        warm.world.crash_host(warm.record)
    elif accident == "move":
        other = warm.world.add_datastore("ds-other", warm.record.datacenter, "NFS")
        warm.done(warm.vm.RelocateVM_Task(vim.vm.RelocateSpec(datastore=vim.Datastore(f"datastore-{other.key}"))))
        assert disk_of(warm.vm.config).fileName == "[ds-other] vm-0/vm-0.vmdk"
        assert [d._moId for d in warm.vm.datastore] == [f"datastore-{other.key}"]
    else:
        warm.track(False)
        warm.remove(warm.snapshot())
        warm.track()
    second = warm.snapshot()
    assert disk_of(second.config).changeId.partition("/")[0] != since.partition("/")[0]
    with pytest.raises(vim.fault.FileFault):
        warm.changed(second, since)


def test_a_revert_takes_the_bytes_and_the_numbers_back_and_then_the_ids_lie(warm: Warm) -> None:
    theirs = warm.snapshot("theirs")
    old = warm.disk.path.read_bytes()
    warm.write(1)
    ours = warm.snapshot("ours")
    since = disk_of(ours.config).changeId
    warm.remove(ours)
    copied = warm.disk.path.read_bytes()
    warm.done(theirs.RevertToSnapshot_Task())
    assert (warm.vm.runtime.powerState, warm.disk.path.read_bytes()) == ("poweredOff", old)
    assert disk_of(warm.vm.config).changeId == disk_of(theirs.config).changeId
    assert warm.changed(None, disk_of(theirs.config).changeId) == []
    with pytest.raises(vim.fault.FileFault):
        warm.changed(None, since)  # the number is ahead of the machine: for now it is seen
    for _ in range(2):
        warm.remove(warm.snapshot("backup"))
    assert warm.changed(None, since) == []  # and now it is not, though block 1 went back
    assert copied[BLOCK : 2 * BLOCK] != warm.disk.path.read_bytes()[BLOCK : 2 * BLOCK]
    (event,) = [e for e in warm.si.content.eventManager.QueryEvents(vim.event.EventFilterSpec()) if isinstance(e, vim.event.EventEx)]
    assert event.eventTypeId == "com.vmware.vc.vm.VmStateRevertedToSnapshot" and event.vm.vm._moId == warm.vm._moId


def test_records_may_lose_writes_without_a_word(warm: Warm) -> None:
    first = warm.snapshot()
    since = disk_of(first.config).changeId
    warm.write(7)
    warm.world.crash_host(warm.record, resets_tracking=False)
    second = warm.snapshot()
    assert warm.changed(second, since) == []
    assert disk_of(second.config).changeId.partition("/")[0] == since.partition("/")[0]


def test_disks_come_go_and_grow_by_reconfiguration(warm: Warm) -> None:
    snapshot = warm.snapshot()
    spec, kind = vim.vm.device.VirtualDeviceSpec, vim.vm.device.VirtualDisk
    flat = kind.FlatVer2BackingInfo(fileName="[ds-fast]", diskMode="persistent")
    new = kind(key=-1, controllerKey=1000, unitNumber=1, capacityInKB=2048, backing=flat)
    warm.done(warm.vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[spec(operation="add", fileOperation="create", device=new)])))
    assert [d.capacity_bytes for d in warm.record.disks] == [4 << 20, 2 << 20]
    assert [d.key for d in snapshot.config.hardware.device if isinstance(d, kind)] == [2000]
    first = next(d for d in warm.vm.config.hardware.device if d.key == 2000)
    first.capacityInKB, first.capacityInBytes = 8192, 8 << 20
    grow = vim.vm.ConfigSpec(deviceChange=[spec(operation="edit", device=first)])
    with pytest.raises(vim.fault.InvalidDeviceOperation):
        warm.done(warm.vm.ReconfigVM_Task(grow))
    warm.remove(snapshot)
    warm.done(warm.vm.ReconfigVM_Task(grow))
    assert warm.disk.path.stat().st_size == 8 * sparse.MIB
    warm.done(warm.vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[spec(operation="remove", device=first)])))
    assert warm.disk not in warm.record.disks
    kinds = [type(e) for e in warm.si.content.eventManager.QueryEvents(vim.event.EventFilterSpec())]
    assert vim.event.VmReconfiguredEvent in kinds


def test_the_change_version_moves_with_the_configuration_only(warm: Warm) -> None:
    before = warm.vm.config.changeVersion
    warm.world.tick()
    warm.site.pass_time(1000)
    assert warm.vm.config.changeVersion == before
    warm.snapshot()
    assert warm.vm.config.changeVersion != before


def test_the_property_collector_shows_snapshots(warm: Warm) -> None:
    snapshot = warm.snapshot("ours")
    below = warm.snapshot("above")
    collector = warm.si.content.propertyCollector
    (found,) = collector.RetrieveContents([object_spec(snapshot, ["vm", "childSnapshot", "config.hardware.device", "config.name"])])
    values = {p.name: p.val for p in found.propSet}
    assert values["vm"]._moId == warm.vm._moId and [c._moId for c in values["childSnapshot"]] == [below._moId]
    backing = next(d for d in values["config.hardware.device"] if d.key == 2000).backing
    assert (backing.fileName, backing.parent) == ("[ds-fast] vm-0/vm-0.vmdk", None)
    upper = disk_of(below.config)
    assert (upper.fileName, upper.parent.fileName) == ("[ds-fast] vm-0/vm-0-000001.vmdk", "[ds-fast] vm-0/vm-0.vmdk")
    assert int(upper.changeId.rpartition("/")[2]) == int(backing.changeId.rpartition("/")[2]) + 1
    warm.remove(snapshot)
    assert disk_of(below.config).fileName == "[ds-fast] vm-0/vm-0.vmdk"
    assert disk_of(below.config).changeId == upper.changeId
