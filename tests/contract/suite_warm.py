"""The SourceDriver contract of warm rounds, as a class that each platform subclasses with the `site` fixture of suite_source.py.

Where `caps.warm` is false it asks for the refusals only. The truth is the lab's own record of bytes: a round is right when the
areas that the driver names, laid over the copy of the round before, make the copy equal to what the new snapshot froze.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from reconciler.core.inventory import SourceDisk, SourceSnapshot, SourceVm
from reconciler.core.ranges import merge, total
from reconciler.errors import RetryableError, TerminalError
from reconciler.lab.machines import Disk
from reconciler.ports import DiskChoice
from tests.contract.suite_source import Site, by_name, fetch, known

KEY, OTHER_KEY = "reconciler/run-1/vm-7/round-1", "reconciler/run-1/vm-7/round-2"
TASK_S = 5.0
BLOCK = 64 << 10
LETTERS = "RL"  # refused before, and lost after the act; the others are tried on the cold calls


def ours(vm: SourceVm, key: str = KEY) -> list[SourceSnapshot]:
    return [snapshot for snapshot in vm.snapshots if snapshot.key == key]


def freeze(site: Site, key: str = KEY) -> SourceSnapshot:
    """A snapshot of ours, as a direct read shows it."""
    site.driver.ensure_snapshot(site.vm, key)
    site.advance(TASK_S)
    (snapshot,) = ours(known(site.driver.read_vm(site.vm)), key)
    return snapshot


def thaw(site: Site, key: str = KEY) -> None:
    site.driver.drop_snapshot(site.vm, key)
    site.advance(TASK_S)
    assert not ours(known(site.driver.read_vm(site.vm)), key)


def track(site: Site) -> None:
    site.driver.enable_tracking(site.vm)
    site.advance(TASK_S)


def frozen(site: Site, disk: Disk) -> bytes:
    """What the newest snapshot holds of a disk, whoever made it."""
    return site.world.file_at(disk, site.machine.snapshots[-1]).read_bytes()


def since(snapshot: SourceSnapshot, disk: Disk) -> str:
    change_id = by_uuid(snapshot.disks)[disk.uuid].change_id
    assert change_id is not None
    return change_id


def by_uuid(disks: tuple[SourceDisk, ...]) -> Mapping[str, SourceDisk]:
    return {disk.uuid: disk for disk in disks}


def write(site: Site, *offsets: int) -> None:
    """Something new at these places of each disk."""
    for disk in site.machine.disks:
        for offset in offsets:
            site.world.guest_write(site.machine, disk, offset, site.world.rng.randbytes(700))


def lay_over(copy: bytes, now: bytes, areas: list[tuple[int, int]]) -> bytes:
    made = bytearray(copy)
    for offset, length in areas:
        made[offset : offset + length] = now[offset : offset + length]
    return bytes(made)


def changes(site: Site, disk: Disk, at: str | None, then: str) -> list[tuple[int, int]]:
    """Of one disk whose change id must be believed."""
    found = site.driver.read_changes(site.vm, at, {disk.uuid: then})
    assert not found.doubts
    return list(found.areas[disk.uuid])


def doubt_of(site: Site, disk: Disk, at: str | None, then: str) -> str:
    """Why this change id is refused; that it is."""
    found = site.driver.read_changes(site.vm, at, {disk.uuid: then})
    assert not found.areas
    return found.doubts[disk.uuid]


def doubted(site: Site, meddle: Callable[[], object], *, tracked: bool = False) -> str:
    """A round, something that happens, a second round: the words with which the first disk's change id is refused in it."""
    if not tracked:
        track(site)
    disk = site.machine.disks[0]
    then = since(freeze(site), disk)
    thaw(site)
    meddle()
    now = freeze(site, OTHER_KEY)
    why = doubt_of(site, disk, now.id, then)
    assert "compared in full" in why
    return why


class WarmContract:
    @pytest.fixture(autouse=True)
    def _warm_only(self, site: Site) -> None:
        if not site.driver.caps.warm:
            for call in (lambda: site.driver.ensure_snapshot(site.vm, KEY), lambda: site.driver.drop_snapshot(site.vm, KEY)):
                with pytest.raises(TerminalError, match="NotSupported"):
                    call()
            pytest.skip("this platform has no warm rounds")

    # ---- snapshots --------------------------------------------------------------------------------------------------------------------

    def test_our_snapshot_is_known_by_its_key_in_both_reads(self, site: Site) -> None:
        freeze(site)
        (listed,) = by_name(site.driver.read_inventory())[site.vm.name].snapshots
        (direct,) = known(site.driver.read_vm(site.vm)).snapshots
        assert listed == replace(direct, disks=())
        assert direct.key == KEY
        assert set(by_uuid(direct.disks)) == {disk.uuid for disk in site.machine.disks}

    def test_one_snapshot_however_often_it_is_asked_for(self, site: Site) -> None:
        for _ in range(3):  # at once, while the first is under way, and after it
            site.driver.ensure_snapshot(site.vm, KEY)
            site.driver.ensure_snapshot(site.vm, KEY)
            site.advance(TASK_S / 3)
        assert len(site.machine.snapshots) == 1

    @pytest.mark.parametrize("letter", LETTERS)
    def test_a_fault_on_the_way_makes_no_second_snapshot(self, site: Site, letter: str) -> None:
        site.driver.read_site()
        for at in range(4):
            site.faults.script("." * at + letter)
            with pytest.raises(RetryableError):
                for _ in range(2):  # the second asks less when the first made it
                    site.driver.ensure_snapshot(site.vm, KEY)
                    site.driver.ensure_snapshot(site.vm, OTHER_KEY)
            site.faults.script("")
            site.advance(TASK_S)
            site.driver.ensure_snapshot(site.vm, KEY)
            site.advance(TASK_S)
            vm = known(site.driver.read_vm(site.vm))
            assert len(ours(vm)) == 1
            assert len(ours(vm, OTHER_KEY)) <= 1
            for key in (KEY, OTHER_KEY):
                thaw(site, key)

    def test_a_lost_reply_makes_no_second_snapshot(self, site: Site) -> None:
        site.faults.script("L", only=lambda label: "CreateSnapshot" in label)
        with pytest.raises(RetryableError):
            site.driver.ensure_snapshot(site.vm, KEY)
        assert site.faults.spent
        for _ in range(3):  # while the first one is under way, and after it
            site.driver.ensure_snapshot(site.vm, KEY)
            site.advance(TASK_S)
        assert len(site.machine.snapshots) == 1

    def test_a_lost_reply_to_a_removal_is_no_error_the_next_time(self, site: Site) -> None:
        freeze(site)
        site.faults.script("L", only=lambda label: "RemoveSnapshot" in label)
        with pytest.raises(RetryableError):
            site.driver.drop_snapshot(site.vm, KEY)
        for _ in range(3):
            site.driver.drop_snapshot(site.vm, KEY)
            site.advance(TASK_S)
        assert site.machine.snapshots == []

    def test_snapshots_of_others_are_not_ours_and_stay(self, site: Site) -> None:
        theirs = site.world.create_snapshot(site.machine, "before the update", "by a person")
        freeze(site)
        later = site.world.create_snapshot(site.machine, "backup", "by a product")
        vm = known(site.driver.read_vm(site.vm))
        assert [s.key for s in vm.snapshots] == [None, KEY, None]
        assert [bool(s.disks) for s in vm.snapshots] == [False, True, False]
        site.driver.drop_snapshot(site.vm, OTHER_KEY)
        site.advance(TASK_S)
        assert len(site.machine.snapshots) == 3
        thaw(site)
        assert site.machine.snapshots == [theirs, later]
        site.driver.drop_snapshot(site.vm, KEY)  # absent is success
        site.advance(TASK_S)
        assert site.machine.snapshots == [theirs, later]

    def test_a_removal_while_one_is_being_made_is_not_done_yet(self, site: Site) -> None:
        """Otherwise an unwind would believe that there is nothing, and the snapshot would come after it and stay (safety 20)."""
        site.driver.ensure_snapshot(site.vm, KEY)
        with pytest.raises(RetryableError):
            site.driver.drop_snapshot(site.vm, KEY)
        site.advance(TASK_S)
        thaw(site)
        assert site.machine.snapshots == []

    def test_files_that_a_removal_left_behind_are_consolidated(self, site: Site) -> None:
        before = [disk.file for disk in site.machine.disks]
        freeze(site)
        site.machine.consolidations_that_fail = 1
        site.driver.drop_snapshot(site.vm, KEY)
        site.advance(TASK_S)
        assert known(site.driver.read_vm(site.vm)).consolidation_needed
        with pytest.raises(RetryableError) as caught:  # the failure is told, once
            site.driver.drop_snapshot(site.vm, KEY, merge=True)
        assert caught.value.reason == "SnapshotFailed"
        site.driver.drop_snapshot(site.vm, KEY, merge=True)
        site.driver.drop_snapshot(site.vm, KEY, merge=True)
        site.advance(TASK_S)
        assert not known(site.driver.read_vm(site.vm)).consolidation_needed
        assert [disk.file for disk in site.machine.disks] == before

    def test_another_tools_snapshots_are_never_consolidated_by_us(self, site: Site) -> None:
        site.world.create_snapshot(site.machine, "backup")
        site.machine.consolidation_needed = True
        site.world.changed(site.machine)
        site.driver.drop_snapshot(site.vm, KEY, merge=True)
        site.advance(TASK_S)
        assert site.machine.consolidation_needed

    def test_files_that_are_left_over_are_merged_only_when_asked_for(self, site: Site) -> None:
        """They may be another tool's (safety: only what carries our key is changed)."""
        site.machine.consolidation_needed = True
        site.world.changed(site.machine)
        site.driver.drop_snapshot(site.vm, KEY)
        site.advance(TASK_S)
        assert site.machine.consolidation_needed

    def test_a_snapshot_that_cannot_be_made_says_why_and_is_tried_again(self, site: Site) -> None:
        for number in range(32):
            site.world.create_snapshot(site.machine, f"backup {number}")
        site.driver.ensure_snapshot(site.vm, KEY)
        site.advance(TASK_S)
        with pytest.raises(RetryableError) as caught:
            site.driver.ensure_snapshot(site.vm, KEY)
        assert caught.value.reason == "SnapshotFailed"
        site.world.remove_snapshot(site.machine, site.machine.snapshots[-1].key)
        freeze(site)

    def test_another_vm_behind_the_id_is_left_alone(self, site: Site) -> None:
        freeze(site)
        stranger = replace(site.vm, uuid="00000000-0000-4000-8000-000000000000")
        for call in (
            lambda: site.driver.ensure_snapshot(stranger, OTHER_KEY),
            lambda: site.driver.enable_tracking(stranger),
            lambda: site.driver.read_changes(stranger, None, {site.machine.disks[0].uuid: "x"}),
        ):
            with pytest.raises(TerminalError, match="VMGone"):
                call()
        site.driver.drop_snapshot(stranger, KEY)  # with the VM, what we had made of it is gone
        site.advance(TASK_S)
        assert len(site.machine.snapshots) == 1

    # ---- what a snapshot froze --------------------------------------------------------------------------------------------------------

    def test_a_snapshot_shows_the_chain_that_it_froze(self, site: Site) -> None:
        before = {disk.uuid: disk.backing for disk in site.machine.disks}
        snapshot = freeze(site)
        for uuid, disk in by_uuid(snapshot.disks).items():
            assert (disk.backing.file, disk.backing.parents) == (before[uuid], ())
        for running in known(site.driver.read_vm(site.vm)).disks:
            assert running.backing.parents == (before[running.uuid],)

    def test_the_frozen_base_is_readable_where_the_platform_lets_it_be(self, site: Site) -> None:
        for disk in site.machine.disks:
            disk.datastore.reads_running_base = True
        snapshot = freeze(site)
        held = {disk.uuid: frozen(site, disk) for disk in site.machine.disks}
        write(site, 0, 5 * BLOCK)
        vm = known(site.driver.read_vm(site.vm))
        source = site.driver.describe_copy(vm, [DiskChoice(uuid, site.path) for uuid in held], snapshot.id)
        login = {name: secret.reveal() for name, secret in source.credentials.items()}
        for uuid, (_, url) in source.disks.items():
            status, body = fetch(url, login, source.ca_pem or "")
            assert status == 200
            assert body == held[uuid]

    def test_a_base_below_another_snapshot_is_not_given_out_as_the_disk(self, site: Site) -> None:
        site.world.create_snapshot(site.machine, "before the update")
        write(site, 0)
        snapshot = freeze(site)
        vm = known(site.driver.read_vm(site.vm))
        with pytest.raises(TerminalError, match="ChainNotReadable"):
            site.driver.describe_copy(vm, [DiskChoice(vm.disks[0].uuid, site.path)], snapshot.id)

    def test_a_snapshot_that_went_away_or_is_not_ours_is_not_read(self, site: Site) -> None:
        theirs = site.world.create_snapshot(site.machine, "before the update")
        vm = known(site.driver.read_vm(site.vm))
        assert [s.id for s in vm.snapshots if str(theirs.key) in s.id]
        for at in (vm.snapshots[0].id, vm.snapshots[0].id + "0"):
            with pytest.raises(RetryableError, match="SnapshotGone"):
                site.driver.describe_copy(vm, [DiskChoice(vm.disks[0].uuid, site.path)], at)

    # ---- rounds -----------------------------------------------------------------------------------------------------------------------

    def test_tracking_is_switched_on_once_and_shown_per_disk(self, site: Site) -> None:
        assert not known(site.driver.read_vm(site.vm)).change_tracking
        for _ in range(3):
            track(site)
        assert len([e for e in site.world.history if e.vm == site.machine.key and e.kind == "reconfigured"]) == 1
        vm = known(site.driver.read_vm(site.vm))
        assert vm.change_tracking
        assert all(disk.change_tracking for disk in vm.disks)

    def test_a_vm_whose_changes_cannot_be_tracked_is_refused(self, site: Site) -> None:
        site.machine.supports_change_tracking = False
        with pytest.raises(TerminalError, match="NotSupported"):
            site.driver.enable_tracking(site.vm)

    def test_without_tracking_there_is_no_change_id(self, site: Site) -> None:
        assert [disk.change_id for disk in freeze(site).disks] == [None] * len(site.machine.disks)

    def test_rounds_end_in_the_bytes_of_the_power_off(self, site: Site) -> None:
        """Writes before, under and after each snapshot; the last round is of the disks themselves."""
        track(site)
        last = freeze(site)
        copies = {disk.uuid: frozen(site, disk) for disk in site.machine.disks}
        for number in range(3):
            write(site, 2 * BLOCK, (20 + number) * BLOCK - 300)
            thaw(site, last.key or "")
            write(site, (40 + 3 * number) * BLOCK)
            now = freeze(site, f"round-{number}")
            for disk in site.machine.disks:
                areas = changes(site, disk, now.id, since(last, disk))
                assert areas == merge(areas)
                assert 0 < total(areas) <= 4 * BLOCK
                copies[disk.uuid] = lay_over(copies[disk.uuid], frozen(site, disk), areas)
                assert copies[disk.uuid] == frozen(site, disk)
            last = now
        write(site, 0)
        thaw(site, last.key or "")
        write(site, min(disk.capacity_bytes for disk in site.machine.disks) - 700)
        site.world.power_off(site.machine)
        for disk in site.machine.disks:
            areas = changes(site, disk, None, since(last, disk))
            assert total(areas) == 2 * BLOCK
            assert lay_over(copies[disk.uuid], disk.path.read_bytes(), areas) == disk.path.read_bytes()

    def test_disks_are_judged_one_by_one(self, site: Site) -> None:
        """The lost change id of one is no reason to compare the others."""
        track(site)
        then = freeze(site)
        thaw(site)
        write(site, 0)
        now = freeze(site, OTHER_KEY)
        one, *others = site.machine.disks
        found = site.driver.read_changes(site.vm, now.id, {one.uuid: "lost", **{disk.uuid: since(then, disk) for disk in others}})
        assert set(found.doubts) == {one.uuid}
        assert found.areas == {disk.uuid: [(0, BLOCK)] for disk in others}

    def test_nothing_written_is_nothing_to_copy(self, site: Site) -> None:
        track(site)
        then = freeze(site)
        thaw(site)
        now = freeze(site, OTHER_KEY)
        for disk in site.machine.disks:
            assert changes(site, disk, now.id, since(then, disk)) == []

    def test_changes_of_a_running_vm_are_not_its_last(self, site: Site) -> None:
        track(site)
        disk = site.machine.disks[0]
        then = since(freeze(site), disk)
        thaw(site)
        with pytest.raises(RetryableError):
            changes(site, disk, None, then)

    def test_changes_up_to_a_snapshot_that_went_away_are_not_known(self, site: Site) -> None:
        track(site)
        disk = site.machine.disks[0]
        snapshot = freeze(site)
        thaw(site)
        with pytest.raises(RetryableError):
            changes(site, disk, snapshot.id, since(snapshot, disk))

    @pytest.mark.parametrize("letter", LETTERS)
    def test_a_fault_while_changes_are_read_is_retryable_and_doubts_nothing(self, site: Site, letter: str) -> None:
        track(site)
        disk = site.machine.disks[0]
        then = since(freeze(site), disk)
        thaw(site)
        write(site, 0)
        now = freeze(site, OTHER_KEY)
        for at in range(6):
            site.faults.script("." * at + letter)
            with pytest.raises(RetryableError):
                for _ in range(2):
                    changes(site, disk, now.id, then)
            site.faults.script("")
        assert changes(site, disk, now.id, then) == [(0, BLOCK)]

    def test_an_expired_session_is_renewed_unseen(self, site: Site) -> None:
        track(site)
        disk = site.machine.disks[0]
        site.expire_sessions()
        then = since(freeze(site), disk)
        site.expire_sessions()
        thaw(site)
        now = freeze(site, OTHER_KEY)
        site.expire_sessions()
        assert changes(site, disk, now.id, then) == []

    # ---- doubts (safety 15) -----------------------------------------------------------------------------------------------------------

    def test_doubt_a_change_id_of_another_record(self, site: Site) -> None:
        doubted(site, lambda: site.world.reset_change_tracking(site.machine))

    def test_doubt_after_tracking_was_off_for_a_while(self, site: Site) -> None:
        def toggle() -> None:
            for on in (False, True):
                site.world.set_change_tracking(site.machine, on)
                site.world.remove_snapshot(site.machine, site.world.create_snapshot(site.machine, "stun").key)

        doubted(site, toggle)

    def test_doubt_once_tracking_is_off(self, site: Site) -> None:
        doubted(site, lambda: site.world.set_change_tracking(site.machine, False))

    def test_doubt_after_a_revert_that_leaves_the_numbers_as_they_were(self, site: Site) -> None:
        """The record went back with the disk and counted on from there: the platform answers without an error, and lies."""
        track(site)
        theirs = site.world.create_snapshot(site.machine, "before the update")
        write(site, 0)

        def revert() -> None:
            site.world.revert_to_snapshot(site.machine, theirs.key)
            site.world.power_on(site.machine)

        assert "revert" in doubted(site, revert, tracked=True)

    def test_doubt_a_revert_before_the_change_id_was_read(self, site: Site) -> None:
        """Between the snapshot and our first look at it: what counts is the time before the snapshot was asked for."""
        track(site)
        disk = site.machine.disks[0]
        site.driver.ensure_snapshot(site.vm, KEY)
        site.advance(TASK_S)
        write(site, 0)
        site.world.revert_to_snapshot(site.machine, site.machine.snapshots[0].key)
        site.world.power_on(site.machine)
        (snapshot,) = ours(known(site.driver.read_vm(site.vm)))
        then = since(snapshot, disk)
        thaw(site)
        now = freeze(site, OTHER_KEY)
        assert doubt_of(site, disk, now.id, then)

    def test_doubt_a_revert_seen_at_the_power_off(self, site: Site) -> None:
        track(site)
        theirs = site.world.create_snapshot(site.machine, "before the update")
        disk = site.machine.disks[0]
        then = since(freeze(site), disk)
        thaw(site)
        site.world.revert_to_snapshot(site.machine, theirs.key)
        assert doubt_of(site, disk, None, then)

    def test_a_revert_with_the_vm_off_makes_another_epoch(self, site: Site) -> None:
        """Nobody ran it, and yet its bytes are others: a disk that was copied before does not fit one that is copied after."""
        theirs = site.world.create_snapshot(site.machine, "before the update")
        site.world.power_off(site.machine)
        before = known(site.driver.read_vm(site.vm)).epoch
        site.world.revert_to_snapshot(site.machine, theirs.key)
        assert known(site.driver.read_vm(site.vm)).epoch not in (before, None)

    def test_doubt_after_a_host_died_and_the_record_lies(self, site: Site) -> None:
        doubted(site, lambda: site.world.crash_host(site.machine, resets_tracking=False))

    def test_doubt_after_a_resize(self, site: Site) -> None:
        disk = site.machine.disks[0]
        assert "size" in doubted(site, lambda: site.world.grow_disk(site.machine, disk, (disk.capacity_bytes >> 20) + 1))

    def test_doubt_after_a_storage_move_that_kept_the_ids(self, site: Site) -> None:
        elsewhere = site.world.add_datastore("elsewhere", site.machine.datacenter)
        doubted(site, lambda: site.world.relocate(site.machine, elsewhere, keep_ids=True))

    def test_doubt_after_a_storage_move_there_and_back(self, site: Site) -> None:
        home = site.machine.disks[0].datastore
        elsewhere = site.world.add_datastore("elsewhere", site.machine.datacenter)

        def there_and_back() -> None:
            for store in (elsewhere, home):
                site.world.relocate(site.machine, store, keep_ids=True)

        doubted(site, there_and_back)

    def test_doubt_when_the_history_began_anew(self, site: Site) -> None:
        doubted(site, site.world.history.clear)

    def test_doubt_what_is_no_change_id_of_ours(self, site: Site) -> None:
        track(site)
        disk = site.machine.disks[0]
        snapshot = freeze(site)
        raw = since(snapshot, disk).partition("#")[0]
        for text in ("", "*", raw, "*#1,2,3,4", since(snapshot, disk).replace(raw, "*")):
            assert doubt_of(site, disk, snapshot.id, text)

    def test_a_disk_that_went_away_is_gone(self, site: Site) -> None:
        track(site)
        disk = site.machine.disks[0]
        then = since(freeze(site), disk)
        thaw(site)
        site.world.remove_disk(site.machine, disk)
        now = freeze(site, OTHER_KEY)
        with pytest.raises(TerminalError, match="DiskGone"):
            changes(site, disk, now.id, then)
