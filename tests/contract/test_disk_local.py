"""LocalWriter: the writer contract on files, on files taken as block devices, and with each zeroing way switched off by the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.errors import RetryableError, TerminalError
from reconciler.mover import local
from reconciler.mover.local import LocalWriter, open_target
from tests.contract.suite_disk import WriterContract, WriterSite

ODD = 300_001  # not a multiple of 512
EVEN = 512 * 600


class FileSite(WriterSite):
    def __init__(self, path: Path, capacity: int, *, block: bool = False) -> None:
        self.path, self.capacity, self.block = path, capacity, block

    def open(self) -> LocalWriter:
        return open_target(self.path, self.capacity, block=self.block)

    def prefill(self) -> None:
        self.path.write_bytes(b"\xff" * self.capacity)

    def bytes(self) -> bytes:
        return self.path.read_bytes()


class TestFile(WriterContract):
    @pytest.fixture(params=[ODD, EVEN])
    def site(self, tmp_path: Path, request: pytest.FixtureRequest) -> FileSite:
        return FileSite(tmp_path / "disk.img", request.param)


class TestFileAsBlock(WriterContract):
    """BLKZEROOUT answers ENOTTY on a file: the lab's Block volumes."""

    @pytest.fixture(params=[ODD, EVEN])
    def site(self, tmp_path: Path, request: pytest.FixtureRequest) -> FileSite:
        return FileSite(tmp_path / "volume", request.param, block=True)


class TestNoHoles(WriterContract):
    """A file system without hole punching (NFSv3): zeroes are written."""

    @pytest.fixture
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileSite:
        monkeypatch.setattr(local, "_fallocate", lambda fd, mode, offset, length: errno.EOPNOTSUPP)
        return FileSite(tmp_path / "disk.img", ODD)


class TestNoDirectIo(WriterContract):
    """tmpfs of older kernels, some FUSE: reading back says that it could not pass the cache."""

    @pytest.fixture
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileSite:
        real: Callable[..., int] = os.open

        def refuse(path: Path, flags: int, *more: int) -> int:
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(path, flags, *more)

        monkeypatch.setattr(local.os, "open", refuse)
        return FileSite(tmp_path / "disk.img", ODD)

    def test_it_says_so(self, site: FileSite) -> None:
        writer = site.open()
        assert writer.readback_mode == "no-direct-io: open: Invalid argument"
        writer.close()


class TestDeviceThatZeroes(WriterContract):
    """BLKZEROOUT as the kernel does it: it refuses what is not aligned to a sector, and the edges are written."""

    @pytest.fixture(params=[ODD, EVEN])
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> FileSite:
        def zeroout(fd: int, code: int, argument: bytes) -> bytes:
            start, length = int.from_bytes(argument[:8], "little"), int.from_bytes(argument[8:], "little")
            if code != 0x127F:
                raise OSError(errno.ENOTTY, "not a terminal")
            if start % 4096 or length % 4096:
                raise OSError(errno.EIO, "not aligned")
            os.pwrite(fd, bytes(length), start)
            return argument

        monkeypatch.setattr(fcntl, "ioctl", zeroout)
        return FileSite(tmp_path / "volume", request.param, block=True)


class TestFreshness:
    def test_only_the_process_that_made_the_file_calls_it_fresh(self, tmp_path: Path) -> None:
        path = tmp_path / "disk.img"
        first = open_target(path, ODD, block=False)
        assert first.fresh
        first.write(5, memoryview(b"half a copy"))
        first.close()
        second = open_target(path, ODD, block=False)
        assert not second.fresh
        second.close()
        assert path.stat().st_size == ODD

    def test_not_even_an_empty_file_is_fresh(self, tmp_path: Path) -> None:
        (tmp_path / "disk.img").touch()
        writer = open_target(tmp_path / "disk.img", ODD, block=False)
        assert not writer.fresh
        writer.close()

    def test_a_longer_file_is_cut_to_the_disk(self, tmp_path: Path) -> None:
        (tmp_path / "disk.img").write_bytes(b"\xff" * (ODD + 5))
        open_target(tmp_path / "disk.img", ODD, block=False).close()
        assert (tmp_path / "disk.img").stat().st_size == ODD

    def test_a_block_target_is_never_fresh_nor_made(self, tmp_path: Path) -> None:
        (tmp_path / "volume").write_bytes(bytes(ODD))
        writer = open_target(tmp_path / "volume", ODD, block=True)
        assert not writer.fresh
        writer.close()
        with pytest.raises(TerminalError, match="TargetMissing"):
            open_target(tmp_path / "other", ODD, block=True)
        assert not (tmp_path / "other").exists()

    def test_a_file_too_large_for_its_file_system_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises(TerminalError, match="TargetTooSmall"):
            open_target(tmp_path / "disk.img", 1 << 60, block=False)
        assert not (tmp_path / "disk.img").exists()

    def test_the_group_may_write(self, tmp_path: Path) -> None:
        before = os.umask(0o007)
        try:
            open_target(tmp_path / "disk.img", ODD, block=False).close()
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "disk.img").stat().st_mode) == 0o660


class TestErrors:
    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").write_bytes(b"precious")
        (tmp_path / "disk.img").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(TerminalError):
            open_target(tmp_path / "disk.img", ODD, block=False)
        assert (tmp_path / "elsewhere").read_bytes() == b"precious"

    def test_a_directory_is_refused(self, tmp_path: Path) -> None:
        for block in (False, True):
            with pytest.raises(TerminalError, match="TargetMissing"):
                open_target(tmp_path, ODD, block=block)

    @pytest.mark.parametrize(
        ("number", "kind"), [(errno.ENOSPC, TerminalError), (errno.EIO, RetryableError), (errno.EDQUOT, TerminalError)]
    )
    def test_a_failed_punch_is_never_taken_for_unsupported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
    ) -> None:
        monkeypatch.setattr(local, "_fallocate", lambda fd, mode, offset, length: number)
        writer = open_target(tmp_path / "disk.img", ODD, block=False)
        with pytest.raises(kind):
            writer.zero(0, 4096)
        writer.close()

    def test_a_full_volume_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(fd: int, data: memoryview, offset: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        writer = open_target(tmp_path / "disk.img", ODD, block=False)
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(TerminalError, match=r"TargetFull.*disk\.img"):
            writer.write(0, memoryview(b"x"))
        writer.close()

    def test_short_writes_are_gone_on_with(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.pwrite
        writer = open_target(tmp_path / "disk.img", ODD, block=False)
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
        writer.write(3, memoryview(b"longer than seven bytes"))
        monkeypatch.undo()
        writer.close()
        assert (tmp_path / "disk.img").read_bytes()[3:26] == b"longer than seven bytes"

    def test_a_failed_flush_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(fd: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        writer = open_target(tmp_path / "disk.img", ODD, block=False)
        monkeypatch.setattr(os, "fdatasync", broken)
        with pytest.raises(RetryableError, match="TargetIo"):
            writer.flush()
        monkeypatch.undo()
        writer.close()


def device_size(capacity: int) -> int:
    """A little more than the disk, as volumes are."""
    return -(-capacity // 4096) * 4096 + 4096


@contextmanager
def loop_device(backing: Path, size: int, sector: int) -> Iterator[Path]:
    backing.touch()
    os.truncate(backing, size)
    command = ["losetup", "--find", "--show", "--sector-size", str(sector), str(backing)]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield Path(made)
    finally:
        subprocess.run(["losetup", "--detach", made], check=True)


@pytest.mark.e2e
class TestLoopDevice(WriterContract):
    """A real block device of the kernel (root and losetup needed): BLKZEROOUT and O_DIRECT as they are, with 512 and 4096 byte sectors.

    A source's size is a multiple of 512, so on a 4Kn device a disk may end within a sector: its edges are read, changed and written.
    """

    @pytest.fixture(params=[(512, EVEN), (4096, 75 * 4096), (4096, 74 * 4096 + 512)], ids=["512", "4Kn", "4Kn, odd end"])
    def site(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DeviceSite]:
        sector, capacity = request.param
        with loop_device(tmp_path / "backing", device_size(capacity), sector) as device:
            yield DeviceSite(device, capacity, block=True)

    def test_the_device_zeroes_itself_and_is_read_past_the_cache(self, site: DeviceSite, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else the tests above would pass by writing zeroes."""
        site.prefill()
        real, asked = fcntl.ioctl, []

        def note(fd: int, code: int, argument: bytes) -> bytes:
            answer: bytes = real(fd, code, argument)
            asked.append(struct.unpack("QQ", argument))
            return answer

        monkeypatch.setattr(fcntl, "ioctl", note)
        writer = site.open()
        writer.zero(513, 100_000)
        writer.flush()
        assert writer.readback_mode == "ok"
        writer.close()
        assert asked == [(4096, 23 * 4096)]

    def test_what_lies_behind_the_disk_is_left_alone(self, site: DeviceSite) -> None:
        site.prefill()
        writer = site.open()
        writer.zero(0, site.capacity)
        writer.write(site.capacity - 5, memoryview(b"tail!"))
        writer.flush()
        writer.close()
        with site.path.open("rb") as device:
            device.seek(site.capacity - 5)
            assert device.read() == b"tail!" + b"\xff" * (device_size(site.capacity) - site.capacity)


class DeviceSite(FileSite):
    def prefill(self) -> None:
        with self.path.open("r+b") as device:
            size = device.seek(0, os.SEEK_END)
            device.seek(0)
            device.write(b"\xff" * size)
            device.flush()
            os.fsync(device.fileno())

    def bytes(self) -> bytes:
        with self.path.open("rb") as device:
            return device.read(self.capacity)
