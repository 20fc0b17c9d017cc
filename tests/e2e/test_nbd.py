"""The NBD reader against nbdkit and qemu-nbd: bytes, extents, a dirty bitmap as ranges, and a worker that copies from one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.core.copyspec import CopyDisk, CopySpec, Reader, TlsSpec
from reconciler.core.ranges import merge
from reconciler.errors import RetryableError
from reconciler.lab.faults import Faults
from reconciler.wire.nbd import NbdReader
from tests.contract.suite_disk import KIB, MIB, CountingClock, ReaderContract, ReaderSite, content
from tests.e2e import parts

WORKER = "import sys; from pathlib import Path; from reconciler.commands.worker import run; sys.exit(run(Path(sys.argv[1])))"
SIZE = 8 * MIB


@contextmanager
def serving(command: list[str | Path], sock: Path) -> Iterator[str]:
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        try:
            until = time.monotonic() + 20
            while not sock.exists():
                assert server.poll() is None and time.monotonic() < until, server.stderr and server.stderr.read()
                time.sleep(0.02)
            yield f"nbd+unix:///?socket={sock}"
        finally:
            server.terminate()


class Site(ReaderSite):
    def __init__(self, url: str, data: bytes) -> None:
        self.url, self.content, self.faults = url, data, Faults()

    def open(self) -> NbdReader:
        return NbdReader.open(self.url, len(self.content), CountingClock(), 10.0)


@pytest.fixture(params=["nbdkit", "nbdkit-4k", "qemu-nbd"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    raw, sock, data = tmp_path / "raw", tmp_path / "sock", content(SIZE)
    data = data[: 2 * MIB] + bytes(3 * MIB) + data[5 * MIB :]
    with raw.open("wb") as file:
        file.truncate(SIZE)
        for at in (0, 5 * MIB):
            file.seek(at)
            file.write(data[at : at + (2 if not at else 3) * MIB])
    if request.param == "qemu-nbd":
        command = [parts.program("qemu-nbd", "qemu-utils"), "-r", "-t", "-e", "8", "-f", "raw", "-k", sock, raw]
    else:
        filters = ["--filter=blocksize-policy"] if request.param == "nbdkit-4k" else []
        more = ["blocksize-minimum=4096", "blocksize-maximum=1M", "blocksize-error-policy=error"] if filters else []
        command = [parts.program("nbdkit", "nbdkit"), "-f", "-r", "-U", sock, *filters, "file", raw, *more]
    with serving(command, sock) as url:
        yield Site(url, data)


class TestReader(ReaderContract):
    """The faults of the contract need a script that these servers do not have."""

    test_a_passing_fault_is_not_seen_in_the_bytes = None  # type: ignore[assignment]
    test_a_lasting_fault_is_an_error_not_wrong_bytes = None  # type: ignore[assignment]

    def test_the_hole_is_known(self, site: Site) -> None:
        reader = site.open()
        ranges = list(reader.data_ranges() or ())
        assert ranges == merge(ranges) and not any(offset < 5 * MIB and offset + length > 2 * MIB for offset, length in ranges)
        reader.close()


def test_errors_of_nbdkit_are_retried_and_then_said(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(content(MIB))
    trigger = tmp_path / "fails"
    nbdkit: list[str | Path] = [parts.program("nbdkit", "nbdkit"), "-f", "-r", "-U", tmp_path / "sock", "--filter=error"]
    with serving([*nbdkit, "file", tmp_path / "raw", "error-pread-rate=100%", f"error-file={trigger}"], tmp_path / "sock") as url:
        clock = CountingClock()
        reader = NbdReader.open(url, MIB, clock, 10.0)
        assert ReaderContract.read(reader, 0, MIB) == content(MIB)
        trigger.touch()
        with pytest.raises(RetryableError, match="SourceIo"):
            ReaderContract.read(reader, 0, MIB)
        assert len(clock.slept) == 5
        trigger.unlink()
        assert ReaderContract.read(reader, 0, MIB) == content(MIB)
        reader.close()


def test_a_dirty_bitmap_of_qemu_names_the_ranges_of_a_round(tmp_path: Path) -> None:
    """A warm round whole: write behind a bitmap, ask for it over NBD, let the worker copy that and nothing else."""
    disk, sock, target = tmp_path / "disk.qcow2", tmp_path / "sock", tmp_path / "disk.img"
    image = parts.program("qemu-img", "qemu-utils")
    subprocess.run([image, "create", "-q", "-f", "qcow2", disk, str(SIZE)], check=True)
    subprocess.run([image, "bitmap", "--add", "-g", "64K", disk, "round-1"], check=True)
    changes = [(MIB + 70_000, 1000), (6 * MIB, 200_000)]
    nbd = parts.program("qemu-nbd", "qemu-utils")
    with serving([nbd, "-t", "-e", "2", "-f", "qcow2", "-k", sock, disk], sock):
        for offset, length in changes:
            _write(sock, offset, b"\x5a" * length)
    sock.unlink(missing_ok=True)
    target.write_bytes(bytes(SIZE))
    with serving([nbd, "-r", "-t", "-e", "8", "-f", "qcow2", "-B", "round-1", "-k", sock, disk], sock) as url:
        reader = NbdReader.open(url, SIZE, SystemClock(), 10.0)
        dirty = merge((offset, length) for offset, length, flags in reader.extents("qemu:dirty-bitmap:round-1") if flags)
        reader.close()
        assert dirty == [(MIB + 64 * KIB, 64 * KIB), (6 * MIB, 256 * KIB)]
        wish = CopyDisk("uuid-1", "disk 1", Reader.NBD, url, SIZE, str(target), False, ranges=tuple(dirty))
        spec = CopySpec("run", "vm", "round", (wish,), TlsSpec(), str(tmp_path), connections=2)
        (tmp_path / "spec.json").write_text(replace(spec, termination_file=str(tmp_path / "termination")).to_json())
        subprocess.run([sys.executable, "-c", WORKER, str(tmp_path / "spec.json")], check=True, timeout=60, stdout=subprocess.DEVNULL)
    want = bytearray(SIZE)
    for offset, length in changes:
        want[offset : offset + length] = b"\x5a" * length
    assert target.read_bytes() == want


def _write(sock: Path, offset: int, data: bytes) -> None:
    io = parts.program("qemu-io", "qemu-utils")
    command = f"write -P 0x{data[0]:x} {offset} {len(data)}"
    done = subprocess.run([io, "-f", "raw", "-c", command, f"nbd+unix:///?socket={sock}"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
