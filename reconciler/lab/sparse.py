"""Sparse files of the lab: seeded content with holes, a copy that keeps the holes, and hashes of what a guest would see.

What it is not: a disk format. Where it stands: used by lab/world.py for the backing files of simulated disks.
Units: bytes from the start of the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
CHUNK_BYTES = 1 << 20
EXTENT_BYTES = 256 << 10  # data is laid in runs of this size, so that holes and data alternate


def create(path: Path, capacity_bytes: int) -> None:
    """An all-hole file. Errors: FileExistsError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.truncate(capacity_bytes)


def scatter(path: Path, data_bytes: int, seed: int) -> None:
    """Write about `data_bytes` of seeded random content into extents chosen by the seed; the rest stays holes.

    The first extent and the last bytes of the file always hold data: a copy that is off at either end must be seen.
    """
    rng = random.Random(seed)
    capacity = path.stat().st_size
    slots = max(1, capacity // EXTENT_BYTES)
    wanted = min(slots, max(1, data_bytes // EXTENT_BYTES))
    chosen = {0, slots - 1, *rng.sample(range(slots), wanted)}
    with path.open("r+b") as file:
        for slot in sorted(chosen)[: max(2, wanted)]:
            file.seek(slot * EXTENT_BYTES)
            file.write(rng.randbytes(min(EXTENT_BYTES, capacity - slot * EXTENT_BYTES)))
        file.seek(max(0, capacity - 512))
        file.write(rng.randbytes(min(512, capacity)))


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts that are not holes, ascending."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end - start
        at = end


def copy(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source` that keeps the holes."""
    with source.open("rb") as src, target.open("wb") as dst:
        size = os.fstat(src.fileno()).st_size
        dst.truncate(size)
        for offset, length in data_extents(src.fileno(), size):
            for at in range(offset, offset + length, CHUNK_BYTES):
                data = os.pread(src.fileno(), min(CHUNK_BYTES, offset + length - at), at)
                os.pwrite(dst.fileno(), data, at)


def sha256(path: Path) -> str:
    """Of all bytes, holes as zeros."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
