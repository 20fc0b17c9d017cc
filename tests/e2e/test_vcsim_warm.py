"""What of a warm round vcsim can do: tracking switched on, and snapshots of ours made, known by their key and removed.

It records no changed blocks and tells no newest event, so no change id counts there, and that is what the driver says.
"""

from __future__ import annotations

import time

import pytest

from reconciler.errors import RetryableError
from tests.contract.suite_source import Site, known
from tests.e2e import test_vcsim as cold

program, pki, stranger, site = cold.program, cold.pki, cold.stranger, cold.site
KEY = "run-1/vm-7/round-1"


def test_snapshots_of_ours_come_and_go_by_their_key(site: Site) -> None:
    driver = site.driver
    for _ in range(2):
        driver.enable_tracking(site.vm)
    settle(lambda: known(driver.read_vm(site.vm)).change_tracking)
    vm = known(driver.read_vm(site.vm))
    assert all(disk.change_tracking for disk in vm.disks)
    for _ in range(2):
        driver.ensure_snapshot(site.vm, KEY)
    settle(lambda: bool(known(driver.read_vm(site.vm)).snapshots))
    (snapshot,) = known(driver.read_vm(site.vm)).snapshots
    assert snapshot.key == KEY
    assert {disk.uuid for disk in snapshot.disks} == {disk.uuid for disk in vm.disks}
    since = {vm.disks[0].uuid: "52 00/1#1,2,3,-"}
    assert set(driver.read_changes(site.vm, snapshot.id, since).doubts) == set(since)
    with pytest.raises(RetryableError, match="SnapshotGone"):
        driver.read_changes(site.vm, "snapshot-999999", since)
    driver.drop_snapshot(site.vm, "another key")
    assert known(driver.read_vm(site.vm)).snapshots
    for _ in range(2):
        driver.drop_snapshot(site.vm, KEY)
    settle(lambda: not known(driver.read_vm(site.vm)).snapshots)


def settle(done: object, limit_s: float = 10.0) -> None:
    assert callable(done)
    until = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)
