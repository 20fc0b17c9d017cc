"""The streamOptimized decoder on streams that are right, odd, cut at every length, and hostile."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.errors import RetryableError, TerminalError
from reconciler.wire.vmdk import VmdkParcel, parcels
from tests.contract import vmdk_writer as writer
from tests.contract.suite_disk import KIB, MIB, content
from tests.contract.vmdk_writer import Shape

SIZE = 3 * MIB + 77 * 512


def exactly(data: bytes) -> Callable[[int], bytes]:
    file = io.BytesIO(data)

    def read(length: int) -> bytes:
        got = file.read(length)
        if len(got) < length:
            raise RetryableError("StreamBroken", "cut")
        return got

    return read


def decode(data: bytes, size: int = SIZE, window: int = 256 * KIB) -> bytes:
    out, at = bytearray(b"\xee" * size), 0
    for parcel in parcels(exactly(data), size, window, "disk 1"):
        assert parcel.offset == at and parcel.length > 0
        at += parcel.length
        if parcel.zero:
            out[parcel.offset : at] = bytes(parcel.length)
        else:
            assert parcel.offset // window == (at - 1) // window
            with memoryview(out)[parcel.offset : at] as view:
                parcel.unpack(view)
    assert at == size
    return bytes(out)


@pytest.mark.parametrize("window", [64 * KIB, MIB, 64 * MIB])
@pytest.mark.parametrize("sectors", [8, 128])
def test_the_disk_comes_out(window: int, sectors: int) -> None:
    data = content(SIZE)
    assert decode(writer.stream(data, Shape(grain_sectors=sectors)), SIZE, window) == data


@pytest.mark.parametrize("data", [bytes(SIZE), b"x" + bytes(SIZE - 1), bytes(SIZE - 1) + b"x", b"\xff" * SIZE])
def test_holes_at_either_end_and_everywhere(data: bytes) -> None:
    assert decode(writer.stream(data)) == data


def test_a_last_grain_that_ends_with_the_disk() -> None:
    """Writers fill it up (as above), or do not."""
    data, last = b"\xff" * SIZE, SIZE // (64 * KIB) * 64 * KIB
    short = writer.grain(last // 512, zlib.compress(data[last:]))
    begin = writer.front(Shape(), SIZE)
    assert decode(begin + short + writer.END) == bytes(last) + data[last:]


def test_tables_in_front_are_passed_over() -> None:
    data = content(SIZE)
    assert decode(writer.stream(data, Shape(overhead_sectors=2000))) == data


def test_bytes_behind_the_end_do_not_matter() -> None:
    data = content(SIZE)
    assert decode(writer.stream(data) + b"x" * 1000) == data


def test_a_stream_cut_anywhere_is_an_error() -> None:
    whole = writer.stream(content(SIZE))
    for length in [*range(0, len(whole), len(whole) // 30), len(whole) - 513, len(whole) - 512, len(whole) - 1]:
        with pytest.raises(RetryableError, match="StreamBroken"):
            decode(whole[:length])


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(magic=b"COWD"), "StreamUnsupported"),
        (Shape(version=9), "StreamUnsupported"),
        (Shape(flags=1), "StreamUnsupported"),
        (Shape(flags=0x10001), "StreamUnsupported"),
        (Shape(algorithm=0), "StreamUnsupported"),
        (Shape(ends=b"\n \n\n"), "StreamCorrupt"),
        (Shape(capacity_sectors=SIZE // 512 - 1), "SourceChanged"),
        (Shape(capacity_sectors=1 << 60), "SourceChanged"),
        (Shape(grain_sectors=100), "StreamUnsupported"),
        (Shape(grain_sectors=4), "StreamUnsupported"),
        (Shape(grain_sectors=256), "StreamUnsupported"),
    ],
)
def test_a_header_that_we_do_not_know(shape: Shape, reason: str) -> None:
    data = writer.header(replace(shape), SIZE).ljust(1 << 20, b"\0")
    with pytest.raises(TerminalError, match=reason) as caught:
        decode(data)
    assert "disk 1" in caught.value.message


@pytest.mark.parametrize("sectors", [0, 1 << 62])
def test_a_header_with_a_wrong_overhead(sectors: int) -> None:
    with pytest.raises(TerminalError, match="StreamUnsupported"):
        decode(writer.header(Shape(overhead_sectors=sectors), SIZE).ljust(1 << 20, b"\0"))


GOOD = zlib.compress(b"a" * 64 * KIB)


@pytest.mark.parametrize(
    "grains",
    [
        [writer.grain(128, GOOD), writer.grain(0, GOOD)],
        [writer.grain(0, GOOD), writer.grain(0, GOOD)],
        [writer.grain(64, GOOD)],
        [writer.grain(SIZE // 512 // 128 * 128 + 128, GOOD)],
        [writer.grain(1 << 60, GOOD)],
        [writer.grain(0, b"\xff" * 3000)],
        [writer.grain(0, GOOD[:-5])],
        [writer.grain(0, GOOD[:-1] + bytes([GOOD[-1] ^ 1]))],
        [writer.grain(0, GOOD + b"more")],
        [writer.grain(0, zlib.compress(b"a" * 100))],
        [writer.grain(0, zlib.compress(b"a" * (64 * KIB + 1)))],
        [writer.grain(0, zlib.compress(bytes(100 * MIB), 9))],
        [struct.pack("<QI", 0, 1 << 31).ljust(512, b"\0")],
        [struct.pack("<QII", 5, 0, 0).ljust(512, b"\0")],
        [struct.pack("<QII", 1, 0, 7).ljust(512, b"\0")],
        [struct.pack("<QII", 1 << 50, 0, 1).ljust(512, b"\0")],
        [struct.pack("<QII", 1 << 50, 0, 2).ljust(512, b"\0")],
    ],
)
def test_a_hostile_grain_or_marker_is_corrupt_and_costs_no_memory(grains: list[bytes]) -> None:
    """Out of order, twice, beyond the disk, a bad deflate stream or check sum, too short, too long, a bomb, absurd sizes."""
    data = b"".join([writer.front(Shape(), SIZE), *grains, writer.END])
    tracemalloc.start()
    with pytest.raises(TerminalError, match="StreamCorrupt"):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SIZE + len(data) + 4 * MIB


def test_a_large_disk_costs_no_memory_and_no_time() -> None:
    size = 62 << 40
    capacity = Shape(capacity_sectors=size // 512)
    data = writer.front(capacity, size) + writer.grain((size - 64 * KIB) // 512, GOOD) + writer.END
    got = list(parcels(exactly(data), size, MIB, "disk 1"))
    assert [(p.offset, p.length, p.zero) for p in got] == [(0, size - MIB, True), (size - MIB, MIB, False)]


def test_a_parcel_lets_go_of_its_bytes() -> None:
    parcel = VmdkParcel("x", 0, 64 * KIB, 64 * KIB, [(0, memoryview(GOOD))])
    view = memoryview(bytearray(64 * KIB))
    parcel.unpack(view)
    assert view == b"a" * 64 * KIB and not parcel.grains
