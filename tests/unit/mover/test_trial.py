"""The trial of a volume: what it proves, what it leaves, and what it says. Refusals are the kernel's own, to root too (sysfs)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from reconciler.core.copyspec import EXIT_AGAIN, EXIT_DONE, EXIT_WRONG
from reconciler.core.target import VolumeMode
from reconciler.mover import trial

NO_FILES, READ_ONLY = Path("/sys/kernel"), Path("/sys/devices/system/cpu/possible")


def tried(mode: VolumeMode, path: Path) -> tuple[str, int]:
    result, code = trial.run([trial.Volume("web-disk-0", mode, path)])
    assert (result.reason is None) is (code == EXIT_DONE)
    return result.error or "", code


def test_a_folder_is_written_and_left_as_it_was(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"proven bytes")
    (tmp_path / trial.PROBE).write_bytes(b"of a trial that was killed")
    assert tried(VolumeMode.FILESYSTEM, tmp_path) == ("", EXIT_DONE)
    assert [p.name for p in tmp_path.iterdir()] == ["disk.img"]
    assert disk.read_bytes() == b"proven bytes"


def test_a_device_is_opened_for_writing_and_only_read(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(bytes(range(256)) * 64)
    before = device.stat()
    assert tried(VolumeMode.BLOCK, device) == ("", EXIT_DONE)
    assert device.read_bytes() == bytes(range(256)) * 64
    assert device.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("mode", "path", "remedies"),
    [
        (VolumeMode.BLOCK, READ_ONLY, ("device_ownership_from_security_context", "mounted read-only")),
        (VolumeMode.FILESYSTEM, NO_FILES, ("fsGroup", "mounted read-only")),
    ],
)
def test_a_refusal_names_claim_mode_errno_and_remedy(mode: VolumeMode, path: Path, remedies: tuple[str, ...]) -> None:
    """EROFS instead of EACCES where this machine mounts /sys read-only."""
    error, code = tried(mode, path)
    assert code == EXIT_WRONG
    assert f"PVC web-disk-0 ({mode.value})" in error and ("(EACCES)" in error or "(EROFS)" in error)
    assert any(r in error for r in remedies)


def test_an_existing_disk_that_cannot_be_opened_is_a_refusal_too(tmp_path: Path) -> None:
    (tmp_path / "disk.img").mkdir()
    error, code = tried(VolumeMode.FILESYSTEM, tmp_path)
    assert code == EXIT_WRONG and "(EISDIR)" in error


@pytest.mark.parametrize("what", ["missing", "folder", "link"])
def test_a_device_that_is_none(tmp_path: Path, what: str) -> None:
    device = tmp_path / "device"
    if what == "folder":
        device.mkdir()
    elif what == "link":
        device.symlink_to("/dev/null")
    error, code = tried(VolumeMode.BLOCK, device)
    assert code == EXIT_WRONG and "volumeMode" in error


def test_all_volumes_are_tried_and_the_gravest_word_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    good = trial.Volume("a", VolumeMode.FILESYSTEM, tmp_path)
    bad = trial.Volume("b", VolumeMode.BLOCK, READ_ONLY)
    result, code = trial.run([good])
    assert code == EXIT_AGAIN and result.error and "PVC a" in result.error and "tried again" in result.error
    assert not list(tmp_path.iterdir())
    for order in ([good, bad], [bad, good]):
        result, code = trial.run(order)
        assert code == EXIT_WRONG and result.error and "PVC a" in result.error and "PVC b" in result.error


@pytest.mark.parametrize(("there", "code"), [(True, EXIT_DONE), (False, EXIT_WRONG)])
def test_a_volume_without_room_is_a_fault_only_while_it_holds_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, code: int
) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if there:
        (tmp_path / "disk.img").write_bytes(b"copied before")
    monkeypatch.setattr(os, "pwrite", full)
    assert tried(VolumeMode.FILESYSTEM, tmp_path)[1] == code


@pytest.mark.parametrize("text", ["Filesystem:web", "Tape:web:/dev/st0", ""])
def test_a_word_that_is_no_volume(text: str) -> None:
    with pytest.raises(ValueError):
        trial.Volume.parse(text)
