"""streamOptimized VMDK: bytes in order -> parcels of a disk, in order.

What it is: the format alone, in constant memory; whoever reads the bytes hands in `read`. What it is not: transport (wire/export.py), and
not a reader of other VMDKs. Where it stands: the bytes of an NFC lease pass through here. Units: bytes; the format counts 512-byte sectors.
Source: VMware Virtual Disk Format 5.0: SparseExtentHeader, compressed grains with markers, footer, end-of-stream marker. Grain tables and
directories are for random access and are passed over. What is in no grain is zero.
Everything here is hostile: sizes are bounded before they are read, a grain inflates to no more than its size, and only the end-of-stream
marker makes a disk whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from reconciler.errors import TerminalError

Read = Callable[[int], bytes]  # exactly so many bytes, or an error

_SECTOR = 512
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")  # the rest of its sector is padding
_COMPRESSED, _MARKERS = 1 << 16, 1 << 17
_DEFLATE = 1
_LEAST_GRAIN, _MOST_GRAIN = 8 * _SECTOR, 128 * _SECTOR  # 64 KiB is what VMware and everybody else writes
_MARKER = struct.Struct("<QI")  # of a grain: sector, bytes; then the deflated bytes
_META = struct.Struct("<QII")  # of metadata: sectors that follow, 0, kind
_END, _TABLE, _DIRECTORY, _FOOTER = 0, 1, 2, 3
_SKIP_BYTES = 1 << 20


@dataclass(slots=True)
class VmdkParcel:
    """A stretch of the disk. `zero`: no grain is in it, however long it is. `unpack` may be called once, from any thread."""

    label: str
    offset: int
    length: int
    grain_bytes: int
    grains: list[tuple[int, memoryview]] = field(default_factory=list)

    @property
    def zero(self) -> bool:
        return not self.grains

    def unpack(self, view: memoryview) -> None:
        """Fill all of the view, which is `length` long. Errors: TerminalError StreamCorrupt."""
        grains, self.grains = self.grains, []
        at = 0
        for offset, packed in grains:
            start = offset - self.offset
            view[at:start] = bytes(start - at)
            at = min(start + self.grain_bytes, self.length)
            view[start:at] = self._inflate(offset, packed, at - start)
        view[at:] = bytes(self.length - at)

    def _inflate(self, offset: int, packed: memoryview, want: int) -> memoryview:
        """`want` is less than a grain where the disk ends within it; writers then fill up the grain, or do not."""
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(packed, self.grain_bytes + 1)
        except zlib.error as err:
            raise TerminalError("StreamCorrupt", f"{self.label}: the grain at {offset} cannot be inflated: {err}; export again") from err
        if not inflate.eof or inflate.unused_data or len(data) not in (want, self.grain_bytes):
            raise TerminalError("StreamCorrupt", f"{self.label}: the grain at {offset} does not inflate to its size; export again")
        return memoryview(data)[:want]


def parcels(read: Read, capacity_bytes: int, window_bytes: int, label: str) -> Iterator[VmdkParcel]:
    """Cover the disk without a gap, ascending. What holds grains is cut at multiples of `window_bytes`, a multiple of 64 KiB.

    Errors: TerminalError StreamUnsupported, SourceChanged (the capacity), StreamCorrupt; what `read` raises.
    """
    grain_bytes = _read_header(read, capacity_bytes, label)
    at, parcel = 0, None
    for offset, packed in _grains(read, grain_bytes, capacity_bytes, label):
        if parcel is None or offset >= parcel.offset + parcel.length:
            if parcel is not None:
                yield parcel
                at = parcel.offset + parcel.length
            begin = offset // window_bytes * window_bytes
            if begin > at:
                yield VmdkParcel(label, at, begin - at, grain_bytes)
            parcel = VmdkParcel(label, begin, min(window_bytes, capacity_bytes - begin), grain_bytes)
        parcel.grains.append((offset, packed))
    if parcel is not None:
        yield parcel
        at = parcel.offset + parcel.length
    if at < capacity_bytes:
        yield VmdkParcel(label, at, capacity_bytes - at, grain_bytes)


def _read_header(read: Read, capacity_bytes: int, label: str) -> int:
    """Read up to the first marker. Returns the size of a grain."""
    magic, version, flags, capacity, grain, _, _, _, _, _, overhead, _, ends, algorithm = _HEADER.unpack_from(read(_SECTOR))
    if magic != b"KDMV":
        raise _unsupported(label, "it does not begin as a sparse VMDK extent")
    if ends != b"\n \r\n":
        raise TerminalError("StreamCorrupt", f"{label}: line ends were changed on the way; something treats the stream as text")
    if version not in (1, 2, 3) or not flags & _COMPRESSED or not flags & _MARKERS or algorithm != _DEFLATE:
        raise _unsupported(label, f"version {version}, flags {flags:#x}, compression {algorithm} are not those of streamOptimized")
    if capacity * _SECTOR != capacity_bytes:
        raise TerminalError("SourceChanged", f"{label}: has {capacity * _SECTOR} bytes, the disk has {capacity_bytes}; read the VM again")
    if grain & (grain - 1) or not _LEAST_GRAIN <= grain * _SECTOR <= _MOST_GRAIN:
        raise _unsupported(label, f"a grain of {grain} sectors")
    if not 1 <= overhead <= (_tables(capacity_bytes) + (1 << 20)) // _SECTOR:
        raise _unsupported(label, f"{overhead} sectors in front of the data")
    _skip(read, (overhead - 1) * _SECTOR)
    return int(grain) * _SECTOR


def _tables(capacity_bytes: int) -> int:
    """More than two sets of tables and directories for the smallest grain: an entry has 4 bytes."""
    return capacity_bytes // _LEAST_GRAIN * 4 * 3


def _grains(read: Read, grain_bytes: int, capacity_bytes: int, label: str) -> Iterator[tuple[int, memoryview]]:
    """(offset, deflated), ascending, up to the end-of-stream marker."""
    at = -1
    while True:
        sector = read(_SECTOR)
        value, size, kind = _META.unpack_from(sector)
        if not size:
            if kind == _END and not value:
                return
            most = {_TABLE: 1 << 20, _DIRECTORY: _tables(capacity_bytes) + (1 << 20), _FOOTER: _SECTOR}.get(kind, -1)
            if value * _SECTOR > most:
                raise TerminalError("StreamCorrupt", f"{label}: a marker of kind {kind} with {value} sectors behind the data at {at}")
            _skip(read, value * _SECTOR)
            continue
        offset = value * _SECTOR
        if offset <= at or offset % grain_bytes or offset >= capacity_bytes or size > 2 * grain_bytes:
            raise TerminalError("StreamCorrupt", f"{label}: a grain of {size} bytes for {offset} follows the one at {at}; export again")
        at = offset
        whole = -(-(_MARKER.size + size) // _SECTOR) * _SECTOR
        data = sector if whole == _SECTOR else sector + read(whole - _SECTOR)
        yield offset, memoryview(data)[_MARKER.size : _MARKER.size + size]


def _skip(read: Read, length: int) -> None:
    while length:
        length -= len(read(min(length, _SKIP_BYTES)))


def _unsupported(label: str, what: str) -> TerminalError:
    return TerminalError("StreamUnsupported", f"{label}: not a streamOptimized VMDK that we know: {what}; use another data path")
