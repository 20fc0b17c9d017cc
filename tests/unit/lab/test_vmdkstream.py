"""The lab's streamOptimized VMDK, judged by qemu-img: the bytes come back, and its check finds nothing wrong.

Without qemu-img these tests are skipped; where CI=true they fail instead.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from reconciler.lab import sparse, vmdkstream


@pytest.fixture(scope="module")
def qemu_img() -> str:
    found = shutil.which("qemu-img")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("qemu-img is not installed")
        pytest.skip("qemu-img is not installed")
    return found


@pytest.mark.parametrize("shape", ["scattered", "empty", "full", "odd end"])
def test_qemu_reads_back_every_byte(tmp_path: Path, qemu_img: str, shape: str) -> None:
    raw, vmdk, back = tmp_path / "disk.raw", tmp_path / "disk.vmdk", tmp_path / "back.raw"
    sparse.create(raw, {"odd end": 33 * sparse.MIB, "full": 4 * sparse.MIB}.get(shape, 80 * sparse.MIB))
    if shape != "empty":
        sparse.scatter(raw, {"full": 4, "odd end": 2}.get(shape, 12) * sparse.MIB, seed=3)
    with raw.open("r+b") as file:  # written zeros are no data either
        file.seek(sparse.MIB + 4096)
        file.write(bytes(200_000))
    with vmdk.open("wb") as out:
        for piece in vmdkstream.stream(raw, raw.stat().st_size, "disk.vmdk"):
            out.write(piece)
    run = lambda *argv: subprocess.run([qemu_img, *argv], check=True, capture_output=True, text=True, timeout=60).stdout  # noqa: E731
    assert "streamOptimized" in run("info", "-f", "vmdk", str(vmdk))
    assert "No errors were found" in run("check", "-f", "vmdk", str(vmdk))
    run("convert", "-f", "vmdk", "-O", "raw", str(vmdk), str(back))
    assert sparse.sha256(back) == sparse.sha256(raw)


def test_memory_does_not_grow_with_the_disk(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    sparse.create(raw, 64 << 30)
    with raw.open("r+b") as file:
        for at in range(0, 64 << 30, 8 << 30):
            file.seek(at)
            file.write(random.Random(at).randbytes(sparse.MIB))
    tracemalloc.start()
    try:
        sent = sum(len(piece) for piece in vmdkstream.stream(raw, 64 << 30, "d"))
        assert tracemalloc.get_traced_memory()[1] < sparse.MIB
    finally:
        tracemalloc.stop()
    assert 8 * sparse.MIB < sent < 9 * sparse.MIB
