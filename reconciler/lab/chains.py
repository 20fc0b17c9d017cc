"""Chains of a disk's files: a snapshot freezes the running file and puts a redo file on top; removing it merges the two.

In the lab each file of a chain holds the whole disk as it was, which is how the bytes can be judged; to a client the files have the
names and the roles of a platform's redo logs, and only the base can be read as a raw image.
Where it stands: world.py calls it under its lock. No reverts, so a chain is a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reconciler.lab import sparse
from reconciler.lab.machines import Disk, Layer


def push(disk: Disk, snapshot: int) -> None:
    """Freeze the running file for `snapshot`; the guest goes on in a new one."""
    stem = (disk.layers[0].file if disk.layers else disk.file).removesuffix(".vmdk")
    disk.deltas += 1
    file = f"{stem}-{disk.deltas:06d}.vmdk"
    path = disk.path.with_name(file.replace(".vmdk", "-sesparse.vmdk"))
    sparse.copy(disk.path, path)
    disk.layers.append(Layer(snapshot, disk.file, disk.path))
    disk.file, disk.path = file, path


def merge(disk: Disk, snapshot: int) -> None:
    """Lay the file above the one that `snapshot` froze into it. A disk that is younger than the snapshot stays as it is."""
    at = next((n for n, layer in enumerate(disk.layers) if layer.snapshot == snapshot), None)
    if at is None:
        return
    below = disk.layers.pop(at)
    if at < len(disk.layers):
        above = disk.layers[at]
        above.path.replace(below.path)
        disk.layers[at] = Layer(above.snapshot, below.file, below.path)
    else:
        disk.path.replace(below.path)
        disk.file, disk.path = below.file, below.path


def names(disk: Disk) -> Iterator[str]:
    """Descriptor and extent of each file of the chain, the running one first."""
    for file, path in running_first(disk):
        yield file
        yield path.name


def running_first(disk: Disk) -> Iterator[tuple[str, Path]]:
    yield disk.file, disk.path
    for layer in reversed(disk.layers):
        yield layer.file, layer.path


def backings(disk: Disk) -> tuple[str, ...]:
    """`[datastore] folder/file` of what lies below the running file, nearest first; then what a linked clone shares."""
    own = tuple(f"[{disk.datastore.name}] {disk.folder}/{layer.file}" for layer in reversed(disk.layers))
    return own + disk.parents
