"""Chains of a disk's files: a snapshot freezes the running file and puts a redo file on top; removing it merges the two.

In the lab each file of a chain holds the whole disk as it was, which is how the bytes can be judged; to a client the files have the
names and the roles of a platform's redo logs, and only the base can be read as a raw image.
Where it stands: snapshots.py calls it under the world's lock. The running file's chain is a line (`Disk.layers`); what a revert leaves
above or beside it lies in `Disk.aside` until its snapshot is removed or gone back to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        drop_aside(disk, snapshot)
        return
    below = disk.layers.pop(at)
    if at < len(disk.layers):
        above = disk.layers[at]
        above.path.replace(below.path)
        disk.layers[at] = Layer(above.snapshot, below.file, below.path)
    else:
        disk.path.replace(below.path)
        disk.file, disk.path = below.file, below.path


def drop_aside(disk: Disk, snapshot: int) -> None:
    for layer in [layer for layer in disk.aside if layer.snapshot == snapshot]:
        disk.aside.remove(layer)
        layer.path.unlink(missing_ok=True)


def go_back(disk: Disk, line: Sequence[int], capacity_bytes: int) -> None:
    """Run on from what the last snapshot of `line` (root first) froze; the running file is thrown away."""
    every = {layer.snapshot: layer for layer in (*disk.layers, *disk.aside)}
    kept = [every[key] for key in line if key in every]
    if not kept:
        return
    disk.aside = [layer for key, layer in every.items() if key not in line]
    disk.path.unlink()
    disk.layers, disk.capacity_bytes = kept[:-1], capacity_bytes
    disk.file, disk.path = kept[-1].file, kept[-1].path
    push(disk, kept[-1].snapshot)


def move(disk: Disk, folder: Path) -> None:
    """Every file of the chain into another folder, under its own name."""

    def moved(path: Path) -> Path:
        return path.replace(folder / path.name)

    disk.path = moved(disk.path)
    disk.layers = [Layer(layer.snapshot, layer.file, moved(layer.path)) for layer in disk.layers]
    disk.aside = [Layer(layer.snapshot, layer.file, moved(layer.path)) for layer in disk.aside]


def frozen_by(disk: Disk, snapshot: int) -> Layer | None:
    """None for a disk that the snapshot left out (independent), or did not know."""
    return next((layer for layer in (*disk.layers, *disk.aside) if layer.snapshot == snapshot), None)


def below(disk: Disk, snapshot: int) -> tuple[Layer, ...]:
    """What lies under the file that `snapshot` froze, the root first; nothing for what lies aside."""
    at = next((n for n, layer in enumerate(disk.layers) if layer.snapshot == snapshot), 0)
    return tuple(disk.layers[:at])


def names(disk: Disk) -> Iterator[str]:
    """Descriptor and extent of each file of the chain, the running one first."""
    for file, path in running_first(disk):
        yield file
        yield path.name


def running_first(disk: Disk) -> Iterator[tuple[str, Path]]:
    yield disk.file, disk.path
    for layer in (*reversed(disk.layers), *disk.aside):
        yield layer.file, layer.path


def backings(disk: Disk) -> tuple[str, ...]:
    """`[datastore] folder/file` of what lies below the running file, nearest first; then what a linked clone shares."""
    own = tuple(f"[{disk.datastore.name}] {disk.folder}/{layer.file}" for layer in reversed(disk.layers))
    return own + disk.parents
