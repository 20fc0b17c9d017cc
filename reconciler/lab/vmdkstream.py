"""A lab disk as a streamOptimized VMDK, the format in which vSphere exports disks: compressed grains, their tables behind them.

Made on the way, front to back, in the memory of a grain, a grain table and the directory, whatever the disk's size. Holes and zeros are
left out. What it is not: a reader. Where it stands: an exporting skin sends it.
Source: VMware, Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from reconciler.lab.sparse import data_extents

SECTOR = 512
GRAIN_SECTORS = 128
GRAIN_BYTES = GRAIN_SECTORS * SECTOR
TABLE_ENTRIES = 512
TABLE_BYTES = TABLE_ENTRIES * GRAIN_BYTES  # of the disk that one grain table maps
OVERHEAD_SECTORS = 128
DESCRIPTOR_SECTORS = 20
AT_END = 0xFFFF_FFFF_FFFF_FFFF
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433x")
_MARKER = struct.Struct("<QII496x")
_END_OF_STREAM, _GRAIN_TABLE, _GRAIN_DIRECTORY, _FOOTER = range(4)
_ZEROS = bytes(GRAIN_BYTES)


def stream(path: Path, capacity_bytes: int, name: str) -> Iterator[bytes]:
    """Pieces of the file, none much larger than a grain. The disk must not change meanwhile. Errors: OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        yield from _Writer(fd, capacity_bytes).pieces(name)
    finally:
        os.close(fd)


class _Writer:
    """`at`: sectors sent so far."""

    def __init__(self, fd: int, capacity_bytes: int) -> None:
        self._fd = fd
        self._capacity = capacity_bytes
        self._at = 0

    def pieces(self, name: str) -> Iterator[bytes]:
        head = _header(self._capacity, AT_END) + _descriptor(self._capacity, name).ljust(DESCRIPTOR_SECTORS * SECTOR, b"\0")
        yield self._count(head.ljust(OVERHEAD_SECTORS * SECTOR, b"\0"))
        directory = [0] * -(-self._capacity // TABLE_BYTES)
        table: list[int] = []
        last = -1
        for grain in self._grains():
            number = grain // TABLE_ENTRIES
            if number != last and table:
                yield from self._table(directory, last, table)
            if number != last:
                table, last = [0] * TABLE_ENTRIES, number
            data = os.pread(self._fd, min(GRAIN_BYTES, self._capacity - grain * GRAIN_BYTES), grain * GRAIN_BYTES).ljust(GRAIN_BYTES, b"\0")
            if data != _ZEROS:
                table[grain % TABLE_ENTRIES] = self._at
                packed = zlib.compress(data, 1)
                yield self._count(_padded(struct.pack("<QI", grain * GRAIN_SECTORS, len(packed)) + packed))
        if table:
            yield from self._table(directory, last, table)
        yield from self._end(directory)

    def _grains(self) -> Iterator[int]:
        """Numbers of the grains that may hold data, ascending, each once."""
        after = 0
        for offset, length in data_extents(self._fd, self._capacity):
            end = -(-(offset + length) // GRAIN_BYTES)
            yield from range(max(after, offset // GRAIN_BYTES), end)
            after = max(after, end)

    def _table(self, directory: list[int], number: int, table: list[int]) -> Iterator[bytes]:
        if any(table):
            yield self._count(_marker(TABLE_ENTRIES * 4 // SECTOR, _GRAIN_TABLE))
            directory[number] = self._at
            yield self._count(struct.pack(f"<{TABLE_ENTRIES}I", *table))

    def _end(self, directory: list[int]) -> Iterator[bytes]:
        packed = _padded(struct.pack(f"<{len(directory)}I", *directory))
        yield self._count(_marker(len(packed) // SECTOR, _GRAIN_DIRECTORY))
        footer = _header(self._capacity, self._at)
        yield packed + _marker(1, _FOOTER) + footer + _marker(0, _END_OF_STREAM)

    def _count(self, piece: bytes) -> bytes:
        self._at += len(piece) // SECTOR
        return piece


def _header(capacity_bytes: int, directory_sector: int) -> bytes:
    """Flags: newline test, compressed grains, markers. Version 3 and the footer's own directory offset go with streams."""
    sectors = -(-capacity_bytes // GRAIN_BYTES) * GRAIN_SECTORS
    flags = 1 | 1 << 16 | 1 << 17
    places = (1, DESCRIPTOR_SECTORS, TABLE_ENTRIES, 0, directory_sector, OVERHEAD_SECTORS)
    return _HEADER.pack(b"KDMV", 3, flags, sectors, GRAIN_SECTORS, *places, 0, b"\n \r\n", 1)


def _marker(sectors: int, kind: int) -> bytes:
    return _MARKER.pack(sectors, 0, kind)


def _padded(piece: bytes) -> bytes:
    return piece + bytes(-len(piece) % SECTOR)


def _descriptor(capacity_bytes: int, name: str) -> bytes:
    sectors = capacity_bytes // SECTOR
    lines = (
        "# Disk DescriptorFile",
        "version=1",
        "CID=5a17c0de",
        "parentCID=ffffffff",
        'createType="streamOptimized"',
        "",
        "# Extent description",
        f'RW {sectors} SPARSE "{name}"',
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        'ddb.adapterType = "lsilogic"',
        f'ddb.geometry.cylinders = "{min(65535, sectors // (255 * 63))}"',
        'ddb.geometry.heads = "255"',
        'ddb.geometry.sectors = "63"',
        'ddb.virtualHWVersion = "20"',
    )
    return ("\n".join(lines) + "\n").encode()
