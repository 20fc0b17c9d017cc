"""The trial of a volume before anything depends on it: open it as the copy and the guest will, and say what is in the way.

What it is: one short look per volume, run by the binder pod with the copy pod's user, while the source still runs (safety 25).
What it is not: a copy. Nothing that a disk may hold is written: beside `disk.img` a small file is made, synced, read back and removed; an
existing `disk.img` and a device are opened for reading and writing, and only read.
Platform: Linux. A device that the container runtime gave to root answers EACCES; a read-only mount EROFS.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.copyspec import EXIT_AGAIN, EXIT_DONE, EXIT_WRONG, CopyResult
from reconciler.core.target import VolumeMode

REASON = "VolumeNotUsable"
PROBE = ".reconciler-trial"  # one name, so that a trial that was killed leaves nothing that the next does not take away
_DISK = "disk.img"
_SIZE = 1 << 20
_PAGE = 4096
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW  # as mover/local.py opens it
_LIMIT = 1500  # a termination message taken from the log holds 2048 bytes

_DENIED = {errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_WRONG_KIND = {errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_NO_DIRECT = {errno.EINVAL, errno.EOPNOTSUPP}  # tmpfs before 6.6, some FUSE: the copy and KubeVirt then do without


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume as the pod sees it: a mounted folder or a device."""

    claim: str
    mode: VolumeMode
    path: Path

    @classmethod
    def parse(cls, text: str) -> Volume:
        """MODE:CLAIM:PATH. Errors: ValueError."""
        mode, claim, path = text.split(":", 2)
        return cls(claim, VolumeMode(mode), Path(path))


def run(volumes: list[Volume]) -> tuple[CopyResult, int]:
    """All volumes are tried, so that one message names all that is wrong. Exit code 0, 65 (somebody has to mend it) or 75 (try again)."""
    os.umask(0o007)
    faults: list[str] = []
    code = EXIT_DONE
    for volume in volumes:
        try:
            _try_device(volume.path) if volume.mode is VolumeMode.BLOCK else _try_folder(volume.path)
        except OSError as err:
            remedy = _remedy(volume.mode, err.errno or 0)
            code = EXIT_WRONG if remedy or code == EXIT_WRONG else EXIT_AGAIN
            faults.append(_text(volume, err, remedy or "it is tried again"))
    return CopyResult((), "; ".join(faults)[:_LIMIT] or None, REASON if faults else None), code


def _text(volume: Volume, err: OSError, remedy: str) -> str:
    name = errno.errorcode.get(err.errno or 0, str(err.errno))
    return (
        f"PVC {volume.claim} ({volume.mode.value}) as uid {os.getuid()}: {err.filename or volume.path}: {err.strerror} ({name}): {remedy}"
    )


def _remedy(mode: VolumeMode, code: int) -> str:
    """ "" where time may mend it."""
    if code in _DENIED and mode is VolumeMode.BLOCK:
        return (
            "give devices to the pod's user: device_ownership_from_security_context = true in the CRI configuration of containerd or CRI-O "
            "on the nodes, or use volumeMode Filesystem"
        )
    if code in _DENIED:
        return (
            "the volume's root must be writable for gid 107: let the CSI driver apply fsGroup (fsGroupPolicy File), or own the NFS export "
            "by 107:107, or use another storage class"
        )
    if code == errno.EROFS:
        return "it is mounted read-only; look at the class's mount options and at the state of the storage"
    if code in _WRONG_KIND:
        return "it is not there in this mode; check volumeMode in the map against what the class's driver can do"
    return "it has no room for 1 MiB" if code in _FULL else ""


def _try_folder(folder: Path) -> None:
    disk, probe = folder / _DISK, folder / PROBE
    there = disk.exists()
    if there:
        os.close(os.open(disk, os.O_RDWR | _SAFE))
    try:
        _try_file(probe)
    except OSError as err:
        if not (there and err.errno in _FULL):  # an earlier copy takes all the room, which is no fault
            raise
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _try_file(path: Path) -> None:
    sent = os.urandom(_PAGE) * (_SIZE // _PAGE)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _SAFE, 0o660)
    try:
        if os.pwrite(fd, sent, 0) != len(sent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(fd)
        if os.pread(fd, len(sent), 0) != sent:
            raise OSError(errno.EIO, "it returns other bytes than were written", str(path))
    finally:
        os.close(fd)
    _read_direct(path)


def _try_device(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | _SAFE)
    try:
        if not os.pread(fd, _PAGE, 0):
            raise OSError(errno.ENXIO, "it has no bytes", str(path))
    finally:
        os.close(fd)
    _read_direct(path)


def _read_direct(path: Path) -> None:
    """Past the page cache, as readback and QEMU's cache=none do."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT | _SAFE)
        try:
            with mmap.mmap(-1, _PAGE) as area, memoryview(area) as view:
                os.preadv(fd, [view], 0)
        finally:
            os.close(fd)
    except OSError as err:
        if err.errno not in _NO_DIRECT:
            raise
