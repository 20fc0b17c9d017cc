"""The mover from reader to writer, over real HTTPS and real files: bytes equal, resume, compare, proofs, and a target that loses power."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.core.copyspec import RANGE_GAP_BYTES, RANGES_OF_A_JOB, CopyDisk, Reader, TlsSpec, Verify
from reconciler.core.ranges import limit, merge, total
from reconciler.errors import ReconcilerError, TerminalError
from reconciler.mover import ledger
from reconciler.mover.copy import DiskCopy, Job, run_flusher
from reconciler.mover.intake import RangeIntake
from reconciler.mover.local import open_target
from reconciler.mover.pool import Pool, Stop
from reconciler.mover.throttle import Throttle
from reconciler.ports import DiskReader, DiskWriter
from reconciler.wire.auth import FileAuth
from reconciler.wire.http import HttpRangeReader
from tests.contract.disk_server import DiskServer
from tests.contract.suite_disk import KIB, content

SIZE = (2 << 20) + 333 * KIB + 77
REQUEST = 128 * KIB


@dataclass
class Copying:
    server: DiskServer
    folder: Path
    data: bytes

    @property
    def target(self) -> Path:
        return self.folder / "disk.img"

    def disk(self, **changes: object) -> CopyDisk:
        disk = CopyDisk("uuid-1", "disk 1", Reader.HTTP_RANGE, self.server.url, len(self.data), str(self.target), False)
        return replace(disk, **changes)  # type: ignore[arg-type]

    def reader(self) -> DiskReader:
        tls = TlsSpec(ca_file=str(self.server.ca.path))
        return HttpRangeReader.open(self.server.url, len(self.data), tls, FileAuth(self.folder), SystemClock(), 5.0)

    def run(
        self,
        disk: CopyDisk | None = None,
        verify: Verify = Verify.READBACK,
        wrap: Callable[[DiskWriter], DiskWriter] = lambda writer: writer,
        reader: DiskReader | None = None,
        lanes: int = 3,
    ) -> DiskCopy:
        """One disk to the end. Raises what stopped it."""
        disk, stop, bell = disk or self.disk(), Stop(), threading.Event()
        job = Job(SystemClock(), stop, Throttle(None, SystemClock()), REQUEST, verify)
        writer = open_target(Path(disk.target), disk.capacity_bytes, block=disk.block, proven_bytes=disk.kept_bytes)
        try:
            copy = DiskCopy(disk, RangeIntake(reader or self.reader()), wrap(writer), job, bell)
            finish(Pool([copy], lanes, stop, [lambda: run_flusher([copy], job, bell)]), stop)
            if stretches := copy.to_check:
                finish(Pool([copy.begin_check(stretches)], lanes, stop), stop)
        finally:
            writer.close()
        return copy

    def got(self) -> bytes:
        return self.target.read_bytes()[: len(self.data)]


def finish(pool: Pool, stop: Stop) -> None:
    pool.start()
    while not pool.wait(0.1):
        pass
    if stop.error is not None:
        raise stop.error


@pytest.fixture
def copying(tmp_path: Path) -> Iterator[Copying]:
    data = content(SIZE)
    (tmp_path / "source").write_bytes(data)
    server = DiskServer(tmp_path / "source", tmp_path / "tls")
    yield Copying(server, tmp_path, data)
    server.close()


class Wrapped:
    """A DiskWriter around another, to be changed in one way."""

    def __init__(self, writer: DiskWriter) -> None:
        self.inner = writer
        self.readback_mode = writer.readback_mode

    @property
    def fresh(self) -> bool:
        return self.inner.fresh

    def write(self, offset: int, data: memoryview) -> None:
        self.inner.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.inner.zero(offset, length)

    def read_back(self, offset: int, buffer: memoryview) -> None:
        self.inner.read_back(offset, buffer)

    def flush(self) -> None:
        self.inner.flush()

    def close(self) -> None:
        self.inner.close()


class TestBytes:
    @pytest.mark.parametrize("verify", list(Verify))
    def test_a_fresh_file_becomes_the_source_holes_and_all(self, copying: Copying, verify: Verify) -> None:
        copy = copying.run(verify=verify)
        assert copying.got() == copying.data
        result = copy.result()
        assert result.done and result.read_bytes == SIZE and result.written_bytes + result.zeroed_bytes == SIZE and result.zeroed_bytes > 0
        assert result.readback in ("off" if verify is Verify.NONE else "ok", copy.writer.readback_mode)
        assert result.sha256 == (hashlib.sha256(copying.data).hexdigest() if verify is Verify.SOURCE else None)

    @pytest.mark.parametrize("block", [False, True])
    def test_stale_bytes_do_not_shine_through(self, copying: Copying, block: bool) -> None:
        """Safety 16: the target holds 0xff everywhere, as a recycled LUN would."""
        copying.target.write_bytes(b"\xff" * SIZE)
        copying.run(copying.disk(block=block))
        assert copying.got() == copying.data

    def test_an_all_zero_disk_over_stale_bytes(self, copying: Copying) -> None:
        copying.data = bytes(SIZE)
        copying.server.path.write_bytes(copying.data)
        copying.target.write_bytes(b"\xff" * SIZE)
        result = copying.run().result()
        assert copying.got() == copying.data and result.written_bytes == 0

    def test_a_fresh_file_stays_sparse(self, copying: Copying) -> None:
        copying.data = bytes(SIZE - 1) + b"x"
        copying.server.path.write_bytes(copying.data)
        copying.run()
        assert copying.got() == copying.data
        assert copying.target.stat().st_blocks * 512 <= 128 * KIB

    def test_ranges_that_a_transport_knows_to_be_empty_are_not_read_but_zeroed(self, copying: Copying) -> None:
        hole = range(256 * KIB, 1 << 20)
        copying.data = copying.data[: hole.start] + bytes(len(hole)) + copying.data[hole.stop :]
        copying.server.path.write_bytes(copying.data)
        copying.target.write_bytes(b"\xff" * SIZE)
        copy = copying.run(reader=Knowing(copying.reader(), [(0, hole.start), (hole.stop, SIZE - hole.stop)]))
        assert copying.got() == copying.data
        assert copy.result().read_bytes == SIZE - len(hole)

    def test_faults_on_the_way_do_not_show(self, copying: Copying) -> None:
        copying.server.faults.script("..T.R..E..T")
        copying.run()
        assert copying.got() == copying.data and copying.server.faults.spent

    def test_never_more_connections_than_allowed(self, copying: Copying) -> None:
        reader = Counting(copying.reader())
        copying.run(lanes=2, reader=reader)
        assert reader.count.most == 2


class TestResume:
    def test_the_rest_is_written_whatever_is_there(self, copying: Copying) -> None:
        resume = 5 * REQUEST
        copying.target.write_bytes(copying.data[:resume] + b"\xff" * (SIZE - resume))
        copy = copying.run(copying.disk(resume_bytes=resume))
        assert copying.got() == copying.data
        assert copy.result().read_bytes == SIZE - resume
        assert min(int(r.split("=")[1].split("-")[0]) for r, _ in copying.server.requests) == resume

    def test_an_unaligned_watermark_does(self, copying: Copying) -> None:
        copying.target.write_bytes(copying.data[:70_001] + b"\xff" * (SIZE - 70_001))
        copying.run(copying.disk(resume_bytes=70_001))
        assert copying.got() == copying.data

    def test_a_proven_prefix_that_is_gone_is_an_error(self, copying: Copying) -> None:
        for _ in range(2):  # the first attempt must not leave a file that the second believes
            with pytest.raises(TerminalError, match="TargetChanged"):
                copying.run(copying.disk(resume_bytes=REQUEST))

    def test_a_file_shorter_than_its_watermark_is_an_error(self, copying: Copying) -> None:
        copying.target.write_bytes(copying.data[:100])
        for _ in range(2):
            with pytest.raises(TerminalError, match="TargetChanged"):
                copying.run(copying.disk(resume_bytes=REQUEST))

    def test_all_of_it_was_done(self, copying: Copying) -> None:
        copying.target.write_bytes(copying.data)
        assert copying.run(copying.disk(resume_bytes=SIZE)).result().done
        assert copying.server.requests == []


class TestCompare:
    def test_only_what_differs_is_written(self, copying: Copying) -> None:
        stale = bytearray(copying.data)
        stale[70_000:70_010] = b"\x55" * 10
        stale[SIZE - 1] ^= 1
        copying.target.write_bytes(stale)
        result = copying.run(copying.disk(compare=True)).result()
        assert copying.got() == copying.data
        assert 0 < result.written_bytes + result.zeroed_bytes <= 3 * 64 * KIB

    def test_nothing_differs(self, copying: Copying) -> None:
        copying.target.write_bytes(copying.data)
        result = copying.run(copying.disk(compare=True)).result()
        assert copying.got() == copying.data and result.written_bytes == result.zeroed_bytes == 0 and result.read_bytes == SIZE

    def test_everything_differs(self, copying: Copying) -> None:
        copying.target.write_bytes(b"\xff" * SIZE)
        copying.run(copying.disk(compare=True, block=True))
        assert copying.got() == copying.data


class TestDelta:
    """Warm rounds: the target holds an earlier state, and a list says what may differ."""

    AREAS = ((0, 512), (70_000, 130_001), (5 * REQUEST - 1, 2), (SIZE - 100, 100))

    def stale(self, copying: Copying) -> bytes:
        """Right outside of the areas, wrong within. 0xff elsewhere would not tell whether too much was written."""
        data = bytearray(copying.data)
        for offset, length in self.AREAS:
            data[offset : offset + length] = b"\xff" * length
        return bytes(data)

    @pytest.mark.parametrize("block", [False, True])
    @pytest.mark.parametrize("compare", [False, True])
    def test_the_target_becomes_the_source(self, copying: Copying, block: bool, compare: bool) -> None:
        copying.target.write_bytes(self.stale(copying))
        copy = copying.run(copying.disk(block=block, compare=compare, ranges=self.AREAS))
        assert copying.got() == copying.data
        size = sum(length for _, length in self.AREAS)
        result, last = copy.result(), copy.progress(0)
        assert result.done and result.read_bytes == size == last.done_bytes == last.total_bytes and last.watermark_bytes == SIZE

    def test_nothing_else_is_read_or_written(self, copying: Copying) -> None:
        copying.target.write_bytes(b"\xff" * SIZE)
        copying.run(copying.disk(ranges=self.AREAS))
        want = bytearray(b"\xff" * SIZE)
        for offset, length in self.AREAS:
            want[offset : offset + length] = copying.data[offset : offset + length]
        assert copying.got() == want
        asked = [tuple(map(int, header.removeprefix("bytes=").split("-"))) for header, _ in copying.server.requests]
        assert merge((start, end + 1 - start) for start, end in asked) == list(self.AREAS)

    def test_a_zero_is_made_zero(self, copying: Copying) -> None:
        copying.server.path.write_bytes(bytes(SIZE))
        copying.target.write_bytes(b"\xff" * SIZE)
        copying.run(copying.disk(ranges=((4096, 200_000),)))
        assert copying.got() == b"\xff" * 4096 + bytes(200_000) + b"\xff" * (SIZE - 204_096)

    def test_no_ranges_are_done_at_once(self, copying: Copying) -> None:
        copying.target.write_bytes(b"\xff" * SIZE)
        copy = copying.run(copying.disk(ranges=()))
        assert copy.result().done and copy.progress(0).watermark_bytes == SIZE and copying.server.requests == []
        assert copying.got() == b"\xff" * SIZE

    def test_a_resume_skips_what_lies_below(self, copying: Copying) -> None:
        copying.target.write_bytes(self.stale(copying))
        resume = 100_000
        copy = copying.run(copying.disk(ranges=self.AREAS, resume_bytes=resume))
        want = bytearray(copying.data)
        for offset, length in self.AREAS:
            end = min(resume, offset + length)
            want[offset:end] = b"\xff" * max(0, end - offset)
        assert copying.got() == want
        assert copy.result().read_bytes == sum(length for _, length in self.AREAS) - 512 - 30_000
        assert copy.progress(0).done_bytes == copy.progress(0).total_bytes

    def test_a_target_that_is_gone_or_short_is_no_target_for_a_delta(self, copying: Copying) -> None:
        for _ in range(2):
            with pytest.raises(TerminalError, match="TargetChanged"):
                copying.run(copying.disk(ranges=self.AREAS))
            assert not copying.target.exists()
        copying.target.write_bytes(copying.data[:-101])
        with pytest.raises(TerminalError, match="TargetChanged"):
            copying.run(copying.disk(ranges=self.AREAS))

    def test_the_tail_of_a_grown_disk_is_a_delta(self, copying: Copying) -> None:
        copying.target.write_bytes(copying.data[:REQUEST])
        copying.run(copying.disk(ranges=((REQUEST, SIZE - REQUEST),)))
        assert copying.got() == copying.data

    def test_a_wrong_bit_in_a_range_is_found(self, copying: Copying) -> None:
        copying.target.write_bytes(copying.data)

        class Wrong(Flips):
            at = 70_001

        with pytest.raises(TerminalError, match="ReadbackMismatch"):
            copying.run(copying.disk(ranges=self.AREAS), wrap=Wrong)

    @pytest.mark.parametrize("wrong", [((0, SIZE + 1),), ((5, 5), (10, 1)), ((9, 1), (5, 1)), ((1, 0),)])
    def test_ranges_that_make_no_sense_are_refused(self, copying: Copying, wrong: tuple[tuple[int, int], ...]) -> None:
        copying.target.write_bytes(copying.data)
        with pytest.raises(TerminalError, match="SpecInvalid"):
            copying.run(copying.disk(ranges=wrong))

    def test_one_percent_of_scattered_changes_costs_little_more(self, copying: Copying) -> None:
        """The bar: bytes read ≤ 1.2 x changed, when 64 KiB areas are limited in number too."""
        areas = [(at * 64 * KIB, 64 * KIB) for at in random.Random(5).sample(range((64 << 30) // (64 * KIB)), 10_485)]
        for most in (RANGES_OF_A_JOB, 10_000):
            assert total(limit([areas], most, RANGE_GAP_BYTES)[0]) <= 1.2 * total(areas)


class TestStretch:
    """`check` and `check_copied`: this round's eighth of the disk, and what it copied, against the source."""

    STRETCH = (REQUEST + 1, 3 * REQUEST)

    def test_equal(self, copying: Copying) -> None:
        copying.target.write_bytes(copying.data)
        copy = copying.run(copying.disk(ranges=(), check=(self.STRETCH,)))
        result = copy.result()
        assert result.verified_bytes == 3 * REQUEST == copy.progress(0).verified_bytes and result.sha256 is None
        assert sum(1 for _ in copying.server.requests) == 4

    @pytest.mark.parametrize("at", [REQUEST + 1, 4 * REQUEST])
    def test_a_byte_that_differs_within_is_named(self, copying: Copying, at: int) -> None:
        stale = bytearray(copying.data)
        stale[at] ^= 1
        copying.target.write_bytes(stale)
        with pytest.raises(TerminalError, match="SourceMismatch") as caught:
            copying.run(copying.disk(ranges=(), check=(self.STRETCH,)))
        found = re.search(r"block at (\d+)", caught.value.message)
        assert found and int(found[1]) <= at < int(found[1]) + 64 * KIB

    @pytest.mark.parametrize("at", [REQUEST, 4 * REQUEST + 1])
    def test_what_differs_outside_is_another_rounds(self, copying: Copying, at: int) -> None:
        stale = bytearray(copying.data)
        stale[at] ^= 1
        copying.target.write_bytes(stale)
        copying.run(copying.disk(ranges=(), check=(self.STRETCH,)), verify=Verify.SOURCE)

    def test_nothing_to_check_is_not_the_whole_disk(self, copying: Copying) -> None:
        copying.target.write_bytes(copying.data)
        for disk in (copying.disk(ranges=(), check=()), copying.disk(ranges=(), check_copied=True)):
            copy = copying.run(disk, verify=Verify.SOURCE)
            assert copy.result().done and copy.result().verified_bytes == 0
        assert copying.server.requests == []

    def test_what_a_round_copied_is_read_twice_and_nothing_else(self, copying: Copying) -> None:
        copying.target.write_bytes(bytes(2000) + copying.data[2000:])
        copy = copying.run(copying.disk(ranges=((0, 1000), (1500, 500)), check=(self.STRETCH,), check_copied=True), verify=Verify.SOURCE)
        assert copy.result().verified_bytes == 1500 + 3 * REQUEST and copy.result().sha256 is None
        assert copying.got()[:1000] == copying.data[:1000] and copying.got()[1000:1500] == bytes(500)

    def test_a_full_copy_that_is_checked_has_its_hash(self, copying: Copying) -> None:
        copy = copying.run(copying.disk(check=((0, REQUEST),), check_copied=True), verify=Verify.SOURCE)
        assert copy.result().sha256 == hashlib.sha256(copying.data).hexdigest()

    def test_a_delta_that_reads_otherwise_the_second_time_is_found(self, copying: Copying) -> None:
        copying.target.write_bytes(bytes(2000) + copying.data[2000:])

        class Late(Wrapped):
            def flush(self) -> None:
                self.inner.flush()
                copying.server.path.write_bytes(b"\xff" + copying.data[1:])

        with pytest.raises(TerminalError, match="SourceMismatch"):
            copying.run(copying.disk(ranges=((0, 2000),), check=(), check_copied=True), verify=Verify.SOURCE, wrap=Late)

    @pytest.mark.parametrize("wrong", [((5, 5), (10, 1)), ((SIZE, 1),), ((0, 0),)])
    def test_stretches_that_make_no_sense_are_refused(self, copying: Copying, wrong: tuple[tuple[int, int], ...]) -> None:
        copying.target.write_bytes(copying.data)
        with pytest.raises(TerminalError, match="SpecInvalid"):
            copying.run(copying.disk(ranges=(), check=wrong))


class Knowing:
    """A reader whose transport can tell where data is."""

    def __init__(self, inner: DiskReader, ranges: list[tuple[int, int]]) -> None:
        self.inner, self.ranges, self.capacity_bytes = inner, ranges, inner.capacity_bytes

    def data_ranges(self) -> Iterator[tuple[int, int]]:
        return iter(self.ranges)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.inner.read_into(offset, buffer)

    def clone(self) -> DiskReader:
        return self.inner.clone()

    def close(self) -> None:
        self.inner.close()


class Count:
    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def add(self, step: int) -> None:
        with self.lock:
            self.now += step
            self.most = max(self.most, self.now)


class Counting:
    """A reader that counts how many of its clones are open at once."""

    def __init__(self, inner: DiskReader, count: Count | None = None, own: int = 0) -> None:
        self.inner, self.own, self.capacity_bytes = inner, own, inner.capacity_bytes
        self.count = count or Count()
        self.count.add(own)

    def data_ranges(self) -> Iterator[tuple[int, int]] | None:
        return None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.inner.read_into(offset, buffer)

    def clone(self) -> DiskReader:
        return Counting(self.inner.clone(), self.count, 1)

    def close(self) -> None:
        self.inner.close()
        self.count.add(-self.own)


class Flips(Wrapped):
    """Storage that returns one wrong bit for the byte at `at`."""

    at = 0

    def read_back(self, offset: int, buffer: memoryview) -> None:
        self.inner.read_back(offset, buffer)
        if offset <= self.at < offset + len(buffer):
            buffer[self.at - offset] ^= 1


class TestProof:
    @pytest.mark.parametrize("at", [0, 64 * KIB + 5, SIZE - 1])
    @pytest.mark.parametrize("verify", [Verify.READBACK, Verify.SOURCE])
    def test_one_wrong_bit_is_found_and_named(self, copying: Copying, at: int, verify: Verify) -> None:
        class Wrong(Flips):
            pass

        Wrong.at = at
        seen: list[DiskWriter] = []
        with pytest.raises(TerminalError, match="ReadbackMismatch") as caught:
            copying.run(verify=verify, wrap=lambda writer: seen.append(Wrong(writer)) or seen[0])  # type: ignore[func-returns-value]
        assert "disk 1" in caught.value.message and str(at // REQUEST * REQUEST) in caught.value.message

    def test_a_wrong_bit_among_zeroes_is_found(self, copying: Copying) -> None:
        copying.data = bytes(SIZE)
        copying.server.path.write_bytes(copying.data)

        class Wrong(Flips):
            at = SIZE - 100

        with pytest.raises(TerminalError, match="ReadbackMismatch"):
            copying.run(wrap=Wrong)

    def test_none_does_not_look(self, copying: Copying) -> None:
        copying.run(verify=Verify.NONE, wrap=Flips)
        assert copying.got() == copying.data

    def test_a_source_that_answers_differently_the_second_time(self, copying: Copying) -> None:
        """What a read-back cannot see: the first read itself was wrong."""

        class Late(Wrapped):
            def flush(self) -> None:
                self.inner.flush()
                changed = bytearray(copying.data)
                changed[1_000_000] ^= 1
                copying.server.path.write_bytes(changed)

        with pytest.raises(TerminalError, match="SourceMismatch") as caught:
            copying.run(verify=Verify.SOURCE, wrap=Late)
        block = 1_000_000 // (64 * KIB) * 64 * KIB
        assert str(block) in caught.value.message


class LosesPower(Wrapped):
    """Bytes reach the medium at `flush` only; until then they are in `dirty`. `medium` is what is left after a crash."""

    def __init__(self, writer: DiskWriter, size: int) -> None:
        super().__init__(writer)
        self.medium = bytearray(b"\xff" * size)
        self.dirty: list[tuple[int, bytes]] = []
        self.lock = threading.Lock()
        self.fresh_file = False

    @property
    def fresh(self) -> bool:
        return False

    def write(self, offset: int, data: memoryview) -> None:
        with self.lock:
            self.dirty.append((offset, bytes(data)))

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, memoryview(bytes(length)))

    def flush(self) -> None:
        with self.lock:
            for offset, data in self.dirty:
                self.medium[offset : offset + len(data)] = data
            self.dirty.clear()

    def read_back(self, offset: int, buffer: memoryview) -> None:
        with self.lock:
            buffer[:] = self.medium[offset : offset + len(buffer)]


class TestWatermark:
    def test_it_is_never_ahead_of_flushed_bytes(self, copying: Copying, monkeypatch: pytest.MonkeyPatch) -> None:
        """After every step of every lane: what lies before the watermark would survive a power cut now."""
        monkeypatch.setattr(ledger, "FLUSH_BYTES", 2 * REQUEST)
        seen: list[int] = []
        power: list[LosesPower] = []
        real = ledger.Ledger.prove

        def watch(books: ledger.Ledger, upto: int, inside: list[ledger.Landed]) -> None:
            real(books, upto, inside)
            with power[0].lock:
                assert power[0].medium[: books.watermark] == copying.data[: books.watermark]
            seen.append(books.watermark)

        monkeypatch.setattr(ledger.Ledger, "prove", watch)
        copying.run(wrap=lambda writer: power.append(LosesPower(writer, SIZE)) or power[0])  # type: ignore[func-returns-value]
        assert seen == sorted(seen) and seen[-1] == SIZE  # how many steps there are depends on how busy the machine is
        assert power[0].medium == copying.data

    @pytest.mark.parametrize("lanes", [1, 4])
    def test_the_watermark_waits_for_a_gap(self, copying: Copying, monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
        monkeypatch.setattr(ledger, "FLUSH_BYTES", 1)
        holds = threading.Event()

        class Slow(Wrapped):
            def write(self, offset: int, data: memoryview) -> None:
                if offset < REQUEST:
                    holds.wait(0.3)
                self.inner.write(offset, data)

        assert copying.run(wrap=Slow, lanes=lanes).result().done
        assert copying.got() == copying.data

    def test_a_failing_flush_moves_nothing(self, copying: Copying) -> None:
        class Broken(Wrapped):
            def flush(self) -> None:
                raise TerminalError("TargetIo", "no")

        books: list[ledger.Ledger] = []
        original = DiskCopy.__init__

        def remember(self: DiskCopy, *args: object) -> None:
            original(self, *args)  # type: ignore[arg-type]
            books.append(self.ledger)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DiskCopy, "__init__", remember)
            with pytest.raises(ReconcilerError, match="TargetIo"):
                copying.run(wrap=Broken)
        assert books[0].watermark == 0


class TestManyDisks:
    def test_they_share_the_lanes_and_all_arrive(self, copying: Copying) -> None:
        stop = Stop()
        job = Job(SystemClock(), stop, Throttle(None, SystemClock()), REQUEST, Verify.READBACK)
        bells = [threading.Event(), threading.Event()]
        copies, count = [], Count()
        for at in range(5):
            path = copying.folder / f"disk{at}.img"
            disk = copying.disk(uuid=str(at), target=str(path))
            copies.append(
                DiskCopy(disk, RangeIntake(Counting(copying.reader(), count)), open_target(path, SIZE, block=False), job, bells[at % 2])
            )
        flushers = [lambda at=at: run_flusher(copies[at::2], job, bells[at]) for at in range(2)]  # type: ignore[misc]
        finish(Pool(copies, 3, stop, flushers), stop)
        assert count.most == 3
        for copy in copies:
            assert Path(copy.disk.target).read_bytes() == copying.data and copy.result().done
            copy.close()

    def test_the_first_error_stops_them_all(self, copying: Copying) -> None:
        stop = Stop()
        job = Job(SystemClock(), stop, Throttle(None, SystemClock()), REQUEST, Verify.NONE)
        bell = threading.Event()

        class Full(Wrapped):
            def write(self, offset: int, data: memoryview) -> None:
                raise TerminalError("TargetFull", "disk 0")

        copies = []
        for at in range(3):
            path = copying.folder / f"disk{at}.img"
            writer: DiskWriter = open_target(path, SIZE, block=False)
            disk = copying.disk(uuid=str(at), target=str(path))
            copies.append(DiskCopy(disk, RangeIntake(copying.reader()), writer if at else Full(writer), job, bell))
        with pytest.raises(TerminalError, match="TargetFull"):
            finish(Pool(copies, 3, stop, [lambda: run_flusher(copies, job, bell)]), stop)
        assert not copies[0].result().done and copies[0].ledger.watermark == 0
        for copy in copies:
            copy.close()
