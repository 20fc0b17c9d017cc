"""Writes streamOptimized VMDKs as ESXi streams them: grains in order, then grain tables, directory, footer and end marker.

What it is: the tests' own, for content that no ordinary writer would make too. qemu-img reads what it writes (test_disk_stream.py).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SECTOR, ENTRIES = 512, 512
AT_END = (1 << 64) - 1
END = bytes(SECTOR)


@dataclass(frozen=True)
class Shape:
    """What may differ from an ordinary stream."""

    grain_sectors: int = 128
    magic: bytes = b"KDMV"
    version: int = 3
    flags: int = 0x30001
    ends: bytes = b"\n \r\n"
    algorithm: int = 1
    capacity_sectors: int | None = None
    overhead_sectors: int = 128
    level: int = 1


def header(shape: Shape, size: int, directory: int = AT_END) -> bytes:
    capacity = -(-size // SECTOR) if shape.capacity_sectors is None else shape.capacity_sectors
    fields = (shape.magic, shape.version, shape.flags, capacity, shape.grain_sectors, 1, 20, ENTRIES, 0, directory)
    return struct.pack("<4sIIQQQQIQQQB4sH", *fields, shape.overhead_sectors, 0, shape.ends, shape.algorithm).ljust(SECTOR, b"\0")


def descriptor(size: int) -> bytes:
    text = (
        '# Disk DescriptorFile\nversion=1\nCID=123a45b6\nparentCID=ffffffff\ncreateType="streamOptimized"\n'
        f'RW {size // SECTOR} SPARSE "disk.vmdk"\nddb.adapterType = "lsilogic"\n'
    )
    return text.encode()


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % SECTOR)


def grain(sector: int, packed: bytes) -> bytes:
    return padded(struct.pack("<QI", sector, len(packed)) + packed)


def marker(kind: int, payload: bytes) -> bytes:
    payload = padded(payload)
    return struct.pack("<QII", len(payload) // SECTOR, 0, kind).ljust(SECTOR, b"\0") + payload


def front(shape: Shape, size: int) -> bytes:
    text = header(shape, size) + descriptor(size)
    return text.ljust(shape.overhead_sectors * SECTOR, b"\0")


def pieces(data: bytes, shape: Shape = Shape()) -> Iterator[bytes]:
    """The whole stream, piece by piece: front, grains that are not all zero, tables, directory, footer, end."""
    at = len(first := front(shape, len(data)))
    yield first
    step, tables = shape.grain_sectors * SECTOR, []
    span = step * ENTRIES
    for begin in range(0, len(data), span):
        table = [0] * ENTRIES
        for offset in range(begin, min(begin + span, len(data)), step):
            plain = data[offset : offset + step]
            if any(plain):
                table[(offset - begin) // step] = at // SECTOR
                piece = grain(offset // SECTOR, zlib.compress(plain.ljust(step, b"\0"), shape.level))
                at += len(piece)
                yield piece
        if any(table):
            yield (piece := marker(1, struct.pack(f"<{ENTRIES}I", *table)))
            tables.append(at // SECTOR + 1)
            at += len(piece)
        else:
            tables.append(0)
    yield (piece := marker(2, struct.pack(f"<{len(tables)}I", *tables)))
    directory = at // SECTOR + 1
    yield marker(3, header(shape, len(data), directory))
    yield END


def stream(data: bytes, shape: Shape = Shape()) -> bytes:
    return b"".join(pieces(data, shape))
