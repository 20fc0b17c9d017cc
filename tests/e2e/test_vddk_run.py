"""Runs with VDDK on the whole lab, as in tests/integration/test_vddk.py, through the real nbdkit and its real plugin.

VMware's library is the stand-in of tests/e2e/vddk, which an init image brings into the copy pod.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.model import Result
from reconciler.lab import machines
from tests.e2e import parts
from tests.integration.loops import go_on, record_of
from tests.integration.simlab import PASSWORD
from tests.integration.test_vddk import MIB, SIZE, Lab, begin, cut_over, ended, held, rounds_done, warm_vm

# The plugin has no place of its own here, so its name is replaced by its path, and nothing else.
WRAPPER = """#!/bin/sh
for word do
  shift
  [ "$word" = vddk ] && word={plugin}
  set -- "$@" "$word"
done
echo "$@" >>{log}
exec {nbdkit} "$@"
"""


class RealLab(Lab):
    lines: Path  # nbdkit's command lines

    def become_real(self, tools: Path, nbdkit: str, plugin: Path) -> None:
        self.lines = self.root / "nbdkit.log"
        (tools / "nbdkit").write_text(WRAPPER.format(plugin=plugin, log=self.lines, nbdkit=nbdkit))
        library = parts.c_library(Path(__file__).parent / "vddk" / "vixdisklib.c", "libvixDiskLib.so.8")
        shutil.copy(library, self.library)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealLab]:
    nbdkit, plugin = parts.program("nbdkit", "nbdkit"), parts.vddk_plugin()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with RealLab(tmp_path, ttl_s=600.0) as lab:
        lab.furnish(tmp_path / "bin")
        lab.become_real(tmp_path / "bin", nbdkit, plugin)
        yield lab
        lab.site.close()


def test_a_chain_is_copied_cold(lab: RealLab) -> None:
    vm = lab.vm("web", mib=4, disks=2)
    lab.world.create_snapshot(vm, "before the upgrade")
    begin(lab, "web")
    go_on(lab, lambda: ended(lab), 300)
    lab.assert_moved("web")
    assert {d.reader for d in record_of(lab, "web").disks} == {"nbd"}
    assert {q.snapshot for q in lab.site.asked} == {""}
    trial, *copies = lab.lines.read_text().splitlines()
    assert "--dump-plugin" in trial
    assert len(copies) == 2
    assert PASSWORD not in lab.lines.read_text()


def test_warm_rounds_read_deltas_of_our_snapshots(lab: RealLab) -> None:
    lab.store = lab.locked
    vm = warm_vm(lab)
    begin(lab, "web")
    go_on(lab, lambda: rounds_done(lab) >= 3, 300, seconds=2.0)
    first, *deltas = record_of(lab, "web").rounds
    assert SIZE * MIB // 2 <= first.read_bytes < SIZE * MIB
    assert all(0 < r.read_bytes < first.read_bytes for r in deltas)
    before = len(lab.site.asked)
    cut_over(lab)
    lab.assert_moved("web")
    assert {q.snapshot for q in lab.site.asked[before:]} == {""}
    assert [r.snapshot for r in (first, *deltas)] == list(dict.fromkeys(q.snapshot for q in lab.site.asked[:before]))
    assert 0 < record_of(lab, "web").rounds[-1].read_bytes < first.read_bytes
    assert not vm.snapshots


def test_what_vddk_refuses_in_the_copy_gives_the_source_back(lab: RealLab) -> None:
    vm = lab.vm("web")
    lab.site.refuse = ["You do not have access rights to this file"] * 50
    begin(lab, "web")
    go_on(lab, lambda: ended(lab), 300)
    record = record_of(lab, "web")
    assert record.error is not None
    assert (record.result, record.error.reason) == (Result.FAILED, "SourceForbidden")
    assert vm.power is machines.Power.ON


def test_a_library_of_no_version_that_is_known_is_met_with_the_guest_on(lab: RealLab) -> None:
    vm = lab.vm("web")
    lab.library.write_bytes(b"no library")
    begin(lab, "web")
    go_on(lab, lambda: bool(held(lab)), 60)
    assert held(lab) == ["VDDKInvalid"]
    assert "libvixDiskLib.so.8" in lab.record("web").message
    assert vm.power is machines.Power.ON
