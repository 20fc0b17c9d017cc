"""The matrix of design section 7 for one disk: which path, and what a person is told when there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.datapath import PathChoice, choose, lost
from reconciler.core.inventory import Backing, SourceDisk, SourceSnapshot, SourceVm
from reconciler.core.model import Mode, Power

FLAT = Backing("FlatVer2", "[ds1] web/web.vmdk", datastore_type="VMFS", datacenter_path="DC")
DISK = SourceDisk("2000", "6000c29", "Hard disk 1", 1 << 30, "datastore-1", "ds1", "scsi", 1000, 0, "persistent", FLAT)
VM = SourceVm(
    id="vm-1",
    uuid="u",
    bios_uuid="b",
    name="web",
    path="/DC/vm/web",
    power=Power.ON,
    tools_running=True,
    firmware="bios",
    secure_boot=False,
    tpm=False,
    cpus=1,
    cores_per_socket=1,
    memory_bytes=1 << 30,
    guest_id="",
    guest_name="",
    host_id="host-1",
    disks=(DISK,),
    nics=(),
)
SETTING = "vddkInitImage of Provider openshift-mtv/vc"
SNAPSHOT = SourceSnapshot("snapshot-1", "before", None)


def cold(disk: SourceDisk = DISK, vm: SourceVm = VM, *, vddk: str = "") -> PathChoice:
    return choose(disk, vm, vddk=vddk, mode=Mode.COLD)


def with_backing(**changes: object) -> SourceDisk:
    return replace(DISK, backing=replace(FLAT, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [Power.ON, Power.OFF])
@pytest.mark.parametrize("kind", ["VMFS", "NFS", "NFS41", "vmfs"])
def test_a_flat_file_is_read_from_its_datastore(power: Power, kind: str) -> None:
    choice = cold(with_backing(datastore_type=kind), replace(VM, power=power))
    assert (choice.path, choice.blocking, choice.remedy) == ("datastore", False, "")
    assert "ds1" in choice.reason
    assert ("switched off before" in choice.reason) is (power is Power.ON)


@pytest.mark.parametrize(
    "disk",
    [
        replace(DISK, mode="independent_persistent"),  # takes no part in snapshots; the flat file is the disk
        replace(DISK, mode=""),
        with_backing(file="[ds1] web/web-000001.vmdk"),  # a name is no evidence of a snapshot
    ],
)
def test_what_only_looks_odd_is_read_all_the_same(disk: SourceDisk) -> None:
    assert cold(disk).path == "datastore"


def test_a_disk_added_after_a_snapshot_has_no_chain() -> None:
    assert cold(DISK, replace(VM, snapshots=(SNAPSHOT,))).path == "datastore"


@pytest.mark.parametrize(
    ("disk", "vm", "reason", "remedy"),
    [
        (with_backing(key_id="key-1"), VM, "encrypted", "decrypt"),
        (with_backing(kind="RawDiskMappingVer1"), VM, "raw device", "convert"),
        (with_backing(kind="RawDiskVer2", file=""), VM, "raw device", "detach"),
        (replace(DISK, rdm=True), VM, "raw device", "convert"),
        (replace(DISK, mode="independent_nonpersistent"), VM, "thrown away", "persistent"),
        (replace(DISK, mode="undoable"), VM, "thrown away", "persistent"),
        (replace(DISK, shared=True), VM, "more than one VM", "detach"),
        (DISK, replace(VM, power=Power.SUSPENDED), "suspended", "resume"),
        (DISK, replace(VM, connected=False), "not connected", "reconnect"),
        (DISK, replace(VM, is_template=True), "template", "convert"),
    ],
)
@pytest.mark.parametrize("vddk", ["", SETTING])
def test_anything_else_is_refused_before_the_power_off(disk: SourceDisk, vm: SourceVm, reason: str, remedy: str, vddk: str) -> None:
    choice = cold(disk, vm, vddk=vddk)
    assert choice.path is None
    assert choice.blocking
    assert reason in choice.reason
    assert remedy in choice.remedy


NO_FILE = [
    (with_backing(parents=("[ds1] web/base.vmdk",)), replace(VM, snapshots=(SNAPSHOT,)), "snapshot", "remove or consolidate the snapshots"),
    (with_backing(parents=("[ds1] gold/gold.vmdk",)), VM, "linked clone", "full clone"),
    (DISK, replace(VM, consolidation_needed=True), "consolidation", "consolidate"),
    (with_backing(datastore_type="vsan"), VM, "vSAN", "Storage vMotion"),
    (with_backing(datastore_type="VVOL"), VM, "vVol", "Storage vMotion"),
    (with_backing(datastore_type="PMEM"), VM, "PMEM", "Storage vMotion"),
    (with_backing(datastore_type=""), VM, "unknown", "Storage vMotion"),
    (with_backing(kind="SeSparse"), VM, "SeSparse", "Storage vMotion"),
    (with_backing(kind="SparseVer2"), VM, "SparseVer2", "Storage vMotion"),
    (with_backing(datacenter_path=""), VM, "not visible", "read access"),
]


@pytest.mark.parametrize(("disk", "vm", "reason", "remedy"), NO_FILE)
def test_where_the_flat_file_is_not_the_disk_it_is_exported_cold_and_refused_warm(
    disk: SourceDisk, vm: SourceVm, reason: str, remedy: str
) -> None:
    exported, refused = cold(disk, vm), choose(disk, vm, vddk="", mode=Mode.WARM)
    assert (exported.path, exported.blocking) == ("export", False)
    assert refused.path is None
    assert refused.blocking
    for choice in (exported, refused):
        assert reason in choice.reason
        assert remedy in choice.remedy
    assert "vddkInitImage" in refused.remedy


@pytest.mark.parametrize(("disk", "vm"), [(disk, vm) for disk, vm, _, _ in NO_FILE])
@pytest.mark.parametrize("mode", [Mode.COLD, Mode.WARM])
def test_vddk_reads_any_unencrypted_disk(disk: SourceDisk, vm: SourceVm, mode: Mode) -> None:
    choice = choose(disk, vm, vddk=SETTING, mode=mode)
    assert (choice.path, choice.blocking) == ("vddk", False)
    assert SETTING in choice.reason
    assert ("snapshots" in choice.reason) is (mode is Mode.WARM)


def test_the_cause_that_hides_others_is_named_first() -> None:
    """A snapshot on an encrypted vSAN disk: removing the snapshot would not help."""
    disk = with_backing(key_id="k", datastore_type="vsan", parents=("[ds1] web/base.vmdk",))
    assert "encrypted" in cold(disk, replace(VM, snapshots=(SNAPSHOT,))).reason


def test_a_flat_file_is_read_warm_too_but_only_tried_while_the_guest_runs() -> None:
    choice = choose(DISK, VM, vddk="", mode=Mode.WARM)
    assert choice.path == "datastore"
    assert "tried after the first snapshot" in choice.reason


def test_an_independent_disk_is_refused_warm() -> None:
    choice = choose(replace(DISK, mode="independent_persistent"), VM, vddk=SETTING, mode=Mode.WARM)
    assert choice.path is None
    assert "takes no part in snapshots" in choice.reason


@pytest.mark.parametrize(
    ("path", "disk", "holds"),
    [("datastore", DISK, True), ("datastore", with_backing(datastore_type="vsan"), False), ("export", DISK, True), ("vddk", DISK, True)],
)
def test_a_planned_path_is_judged_again(path: str, disk: SourceDisk, holds: bool) -> None:
    assert (lost(path, disk, VM) is None) is holds
