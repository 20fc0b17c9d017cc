"""The disk contracts: ReaderContract and WriterContract, each subclassed with a `site` fixture by whoever has a transport or a target.

Also here: content that has every kind of place in it (holes, data, zeroes that were written, odd ends), and a clock that only counts.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.errors import RetryableError, TerminalError
from reconciler.lab.faults import Faults
from reconciler.ports import DiskReader, DiskWriter

KIB, MIB = 1 << 10, 1 << 20


def content(size: int, seed: int = 1) -> bytes:
    """Runs of data and zero from 1 byte to 300 KiB; nothing is aligned to anything."""
    rng = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        length = rng.choice([1, 511, 512, 4 * KIB, 64 * KIB, rng.randrange(1, 300 * KIB)])
        out += rng.randbytes(length) if rng.random() < 0.5 else bytes(length)
    return bytes(out[:size])


class CountingClock:
    """Time passes only by `sleep`."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=sum(self.slept))

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def new_id(self) -> str:
        return "id"

    def jitter(self) -> float:
        return 0.5


class ReaderSite(ABC):
    """A source disk with known bytes, and the faults of the server in front of it."""

    content: bytes
    faults: Faults

    @abstractmethod
    def open(self) -> DiskReader: ...


class ReaderContract:
    """`site.content` is at least 1 MiB long."""

    @staticmethod
    def read(reader: DiskReader, offset: int, length: int) -> bytes:
        buffer = bytearray(b"\xa5" * length)
        reader.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def test_any_range_is_the_disk_s_bytes(self, site: ReaderSite) -> None:
        reader = site.open()
        size = len(site.content)
        assert reader.capacity_bytes == size
        for offset, length in [(0, 1), (0, MIB), (511, 513), (64 * KIB - 1, 2), (size - 1, 1), (size - 70_001, 70_001)]:
            assert self.read(reader, offset, length) == site.content[offset : offset + length]
        reader.close()

    def test_data_ranges_leave_out_nothing_but_zeroes(self, site: ReaderSite) -> None:
        reader = site.open()
        ranges = reader.data_ranges()
        if ranges is not None:
            at = 0
            for offset, length in ranges:
                assert offset >= at and not any(site.content[at:offset])
                at = offset + length
            assert not any(site.content[at:])
        reader.close()

    def test_a_clone_is_independent(self, site: ReaderSite) -> None:
        first = site.open()
        second = first.clone()
        assert self.read(first, 0, 100) == self.read(second, 0, 100) == site.content[:100]
        first.close()
        assert self.read(second, 1000, 100) == site.content[1000:1100]
        second.close()

    def test_close_may_be_repeated(self, site: ReaderSite) -> None:
        reader = site.open()
        self.read(reader, 0, 1)
        reader.close()
        reader.close()

    @pytest.mark.parametrize("letters", ["T", "R", "B", "E", "TRBE", "..T"])
    def test_a_passing_fault_is_not_seen_in_the_bytes(self, site: ReaderSite, letters: str) -> None:
        reader = site.open()
        site.faults.script(letters)
        for at in range(3):
            assert self.read(reader, at * 70_000, 70_000) == site.content[at * 70_000 : (at + 1) * 70_000]
        assert site.faults.spent
        reader.close()

    @pytest.mark.parametrize("letter", ["T", "R", "B", "E"])
    def test_a_lasting_fault_is_an_error_not_wrong_bytes(self, site: ReaderSite, letter: str) -> None:
        reader = site.open()
        site.faults.script(letter * 100)
        with pytest.raises(RetryableError):
            self.read(reader, 0, 70_000)
        assert len(site.faults.seen) < 20
        site.faults.script("")
        assert self.read(reader, 0, 70_000) == site.content[:70_000]
        reader.close()


class WriterSite(ABC):
    """A target of `capacity` bytes. `prefill` makes it hold 0xff everywhere, as an earlier tenant left it."""

    capacity: int

    @abstractmethod
    def open(self) -> DiskWriter: ...
    @abstractmethod
    def prefill(self) -> None: ...
    @abstractmethod
    def bytes(self) -> bytes: ...


class WriterContract:
    """The target's first `capacity` bytes are the disk."""

    def test_bytes_written_are_there_wherever_they_went(self, site: WriterSite) -> None:
        site.prefill()
        want = bytearray(b"\xff" * site.capacity)
        writer = site.open()
        for offset, data in [(0, b"a"), (1, b"b" * 4096), (70_001, b"c" * 99_999), (site.capacity - 3, b"end")]:
            writer.write(offset, memoryview(data))
            want[offset : offset + len(data)] = data
        writer.flush()
        writer.close()
        assert site.bytes() == want

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 4096), (1, 1), (1, 4094), (4095, 2), (513, 100_000), (0, 70_000), (8192, 65536), (-513, 513), (-4097, 4097)],
    )
    def test_zero_wins_over_stale_bytes_and_touches_no_others(self, site: WriterSite, offset: int, length: int) -> None:
        site.prefill()
        offset %= site.capacity
        writer = site.open()
        assert not writer.fresh
        writer.zero(offset, length)
        writer.flush()
        writer.close()
        want = bytearray(b"\xff" * site.capacity)
        want[offset : offset + length] = bytes(length)
        assert site.bytes() == want

    def test_zero_of_all_of_it(self, site: WriterSite) -> None:
        site.prefill()
        writer = site.open()
        writer.zero(0, site.capacity)
        writer.flush()
        writer.close()
        assert site.bytes() == bytes(site.capacity)

    def test_what_was_flushed_is_read_back(self, site: WriterSite) -> None:
        site.prefill()
        data = content(site.capacity, seed=3)
        writer = site.open()
        writer.write(0, memoryview(data))
        writer.flush()
        for offset, length in [(0, site.capacity), (4096, 8192), (1, 100), (site.capacity - 1, 1)]:
            buffer = bytearray(length)
            writer.read_back(offset, memoryview(buffer))
            assert buffer == data[offset : offset + length]
        assert writer.readback_mode == "ok" or writer.readback_mode.startswith("no-direct-io: ")
        writer.close()

    def test_reading_back_beyond_the_end_is_an_error(self, site: WriterSite) -> None:
        site.prefill()
        writer = site.open()
        with pytest.raises(RetryableError):
            writer.read_back(site.capacity + 8192, memoryview(bytearray(4096)))
        writer.close()

    def test_a_second_writer_is_kept_out(self, site: WriterSite) -> None:
        site.prefill()
        first = site.open()
        with pytest.raises(RetryableError, match="TargetBusy"):
            site.open()
        first.close()
        site.open().close()

    def test_too_small_a_target_is_said_before_a_byte_is_written(self, site: WriterSite) -> None:
        site.prefill()
        before = site.bytes()
        site.capacity = 1 << 60
        with pytest.raises(TerminalError, match="TargetTooSmall"):
            site.open()
        site.capacity = len(before)
        assert site.bytes() == before
