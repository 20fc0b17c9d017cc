"""DiskWriter on what the copy pod sees of its volume: a `disk.img` in a mounted file system, or a block device.

What it is: whole writes, real zeroes, flush, and reading back past the page cache. What it is not: a decision on what may be skipped;
copy.py asks `fresh`. Where it stands: the last step before the volume. Units: bytes.
Platform: Linux; fallocate(2) FALLOC_FL_PUNCH_HOLE, BLKZEROOUT (block layer: the device zeroes, or the kernel writes zeroes), O_DIRECT.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import mmap
import os
import stat
import struct
from functools import cache
from pathlib import Path

from reconciler.errors import ReconcilerError, RetryableError, TerminalError

log = logging.getLogger(__name__)

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
_BLKZEROOUT = 0x127F  # linux/fs.h: _IO(0x12, 127), argument uint64_t[2] {start, length}
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW  # a link inside a volume is somebody else's idea
_PAGE = 4096  # satisfies O_DIRECT and BLKZEROOUT on 512 and 4096 byte sectors alike
_WRITE_BYTES = 512 << 10  # the page cache takes pieces as large as a write, and large ones cost a guest first use of its host's memory
_ZEROES = memoryview(bytes(1 << 20))
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def open_target(path: Path, capacity_bytes: int, *, block: bool, proven_bytes: int = 0) -> LocalWriter:
    """Open `path` for writing `capacity_bytes`, creating the file (not a device) if it is missing and nothing in it was proven.

    Errors: TerminalError TargetMissing, TargetChanged (the proven bytes are not there), TargetTooSmall, TargetForbidden, TargetFull;
    RetryableError TargetBusy, TargetIo.
    """
    try:
        fd, fresh = _open_file(path) if not block and not proven_bytes else (os.open(path, os.O_RDWR | _SAFE), False)
    except FileNotFoundError as err:
        if proven_bytes and not block:
            raise _changed(path, proven_bytes) from err
        raise _fault(err, path, "open") from err
    except OSError as err:
        raise _fault(err, path, "open") from err
    try:
        _lock(fd, path)
        if os.lseek(fd, 0, os.SEEK_END) < proven_bytes:
            raise _changed(path, proven_bytes)
        _size(fd, path, capacity_bytes, block=block, fresh=fresh)
        return LocalWriter(path, fd, block=block, fresh=fresh)
    except BaseException:
        os.close(fd)
        raise


class LocalWriter:
    """One open target. Thread-safe: every call carries its own offset and there is no file position."""

    def __init__(self, path: Path, fd: int, *, block: bool, fresh: bool) -> None:
        self._path = path
        self._fd = fd
        self._block = block
        self._device = stat.S_ISBLK(os.fstat(fd).st_mode)
        self._fresh = fresh
        self._can_punch = not self._device
        self._can_zeroout = block
        self._direct, self.readback_mode = _open_direct(path)

    @property
    def fresh(self) -> bool:
        return self._fresh

    def write(self, offset: int, data: memoryview) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done : done + _WRITE_BYTES], offset + done)
        except OSError as err:
            raise _fault(err, self._path, f"write at {offset + done}") from err

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeroes, whatever was there: without writing where the file system or device can, else by writing."""
        if self._can_zeroout:
            start, end = -(-offset // _PAGE) * _PAGE, (offset + length) // _PAGE * _PAGE
            if start < end and self._zeroout(start, end - start):
                self._write_zeroes(offset, start - offset)
                self._write_zeroes(end, offset + length - end)
                return
        if self._can_punch and length and self._punch(offset, length):
            return
        self._write_zeroes(offset, length)

    def read_back(self, offset: int, buffer: memoryview) -> None:
        """What the medium returns for flushed bytes. Past the page cache if `readback_mode` is "ok", else after asking to drop it."""
        try:
            if self._direct is None:
                os.posix_fadvise(self._fd, offset, len(buffer), os.POSIX_FADV_DONTNEED)
                _read_full(self._fd, offset, buffer)
            elif offset % _PAGE or len(buffer) % _PAGE:
                self._bounce(self._direct, offset, buffer)
            else:
                self._read_direct(self._direct, offset, buffer)
        except OSError as err:
            raise _fault(err, self._path, f"read back at {offset}") from err

    def flush(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as err:
            raise _fault(err, self._path, "flush") from err

    def close(self) -> None:
        fds, self._fd, self._direct = [self._fd, self._direct], -1, None
        for fd in fds:
            if fd is not None and fd >= 0:
                os.close(fd)

    def _read_direct(self, fd: int, offset: int, buffer: memoryview) -> None:
        try:
            _read_full(fd, offset, buffer)
        except OSError as err:
            if err.errno != errno.EINVAL:
                raise
            self._bounce(fd, offset, buffer)  # the caller's memory is not aligned

    def _bounce(self, fd: int, offset: int, buffer: memoryview) -> None:
        start, end = offset // _PAGE * _PAGE, -(-(offset + len(buffer)) // _PAGE) * _PAGE
        with mmap.mmap(-1, end - start) as area, memoryview(area) as view:
            got = os.preadv(fd, [view], start)  # at the end of an odd-sized file it is short, and right
            if got < offset + len(buffer) - start:
                raise OSError(errno.EIO, f"read {got} of {end - start} bytes")
            with view[offset - start : offset - start + len(buffer)] as part:
                buffer[:] = part

    def _punch(self, offset: int, length: int) -> bool:
        code = _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)
        if code and code not in _UNSUPPORTED:
            err = OSError(code, os.strerror(code))
            raise _fault(err, self._path, f"punch a hole at {offset}") from err
        self._can_punch = not code
        return self._can_punch

    def _zeroout(self, start: int, length: int) -> bool:
        try:
            fcntl.ioctl(self._fd, _BLKZEROOUT, struct.pack("QQ", start, length))
        except OSError as err:
            if err.errno not in _UNSUPPORTED:
                raise _fault(err, self._path, f"zero at {start}") from err
            self._can_zeroout = False
        return self._can_zeroout

    def _write_zeroes(self, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            step = min(end - offset, len(_ZEROES))
            self.write(offset, _ZEROES[:step])
            offset += step


def _open_file(path: Path) -> tuple[int, bool]:
    """O_EXCL tells us whether it was us: a file left by an earlier, dead attempt is never fresh."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, 0o660)
    except FileExistsError:
        return os.open(path, os.O_RDWR | _SAFE), False
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # a power cut must not take the name of a file whose bytes we call flushed
    finally:
        os.close(folder)
    return fd, True


def _lock(fd: int, path: Path) -> None:
    """A second writer on this node is a fencing failure; the lock goes with the process."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise RetryableError("TargetBusy", f"{path} is locked by another process; wait until it has ended") from err
    except OSError as err:
        if err.errno not in _UNSUPPORTED | {errno.ENOLCK}:
            raise _fault(err, path, "lock") from err
        log.debug("target cannot be locked", extra={"path": str(path), "errno": err.errno})


def _size(fd: int, path: Path, capacity: int, *, block: bool, fresh: bool) -> None:
    """Make a file exactly as large as the disk; check that a device, and the file system, is large enough."""
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise TerminalError("TargetWrong", f"{path} is neither a file nor a block device; check the volume's mode")
        if block:
            have = os.lseek(fd, 0, os.SEEK_END)
        else:
            system = os.fstatvfs(fd)
            have = system.f_blocks * system.f_frsize
        if have < capacity:
            raise TerminalError("TargetTooSmall", f"{path} has room for {have} bytes, the disk has {capacity}; ask for a larger volume")
        if not block:
            os.ftruncate(fd, capacity)
    except OSError as err:
        raise _fault(err, path, "size") from err
    except TerminalError:
        if fresh:  # we made it, and nothing is in it
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _open_direct(path: Path) -> tuple[int | None, str]:
    """A second descriptor that bypasses the page cache, proven by one read; or why there is none. tmpfs before 6.6 refuses, FUSE may."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as err:
        return None, f"no-direct-io: open: {err.strerror}"
    try:
        with mmap.mmap(-1, _PAGE) as area, memoryview(area) as view:
            os.preadv(fd, [view], 0)
    except OSError as err:
        os.close(fd)
        return None, f"no-direct-io: read: {err.strerror}"
    return fd, "ok"


def _read_full(fd: int, offset: int, buffer: memoryview) -> None:
    done = 0
    while done < len(buffer):
        got = os.preadv(fd, [buffer[done:] if done else buffer], offset + done)
        if not got:
            raise OSError(errno.EIO, f"end of file at {offset + done}")
        done += got


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return libc


def _fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """0 or an errno. The os module has posix_fallocate only, which takes no mode."""
    return 0 if _libc().fallocate(fd, mode, offset, length) == 0 else ctypes.get_errno()


def _changed(path: Path, proven_bytes: int) -> TerminalError:
    return TerminalError("TargetChanged", f"{path}: {proven_bytes} bytes were proven, but they are not there any more; copy from the start")


def _fault(err: OSError, path: Path, doing: str) -> ReconcilerError:
    text = f"{path}: cannot {doing}: {err.strerror}"
    if err.errno in _FULL:
        return TerminalError("TargetFull", f"{text}; the volume is too small for this disk's data")
    if err.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
        return TerminalError("TargetMissing", f"{text}; check that the volume is mounted in the mode the spec says")
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return TerminalError("TargetForbidden", f"{text}; the pod runs as uid 107 and needs fsGroup 107, or a device that it may open")
    return RetryableError("TargetIo", text)
