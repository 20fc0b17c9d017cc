"""The books of one disk: a plan covers the disk, and the watermark only follows what was flushed without a gap."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.ranges import merge
from reconciler.mover import ledger
from reconciler.mover.ledger import Chunk, Landed, Ledger, plan, plan_only

REQUEST = 16


class StillClock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def new_id(self) -> str:
        return "id"

    def jitter(self) -> float:
        return 0.0


@given(st.integers(1, 200), st.integers(0, 200), st.lists(st.tuples(st.integers(0, 220), st.integers(1, 40)), max_size=6) | st.none())
def test_a_plan_covers_the_rest_of_the_disk_once_in_order(capacity: int, start: int, data: list[tuple[int, int]] | None) -> None:
    start = min(start, capacity)
    known = None if data is None else merge(data)
    chunks = list(plan(start, capacity, known, REQUEST))
    at = start
    for chunk in chunks:
        assert chunk.offset == at and chunk.length > 0
        at = chunk.end
    assert at == capacity
    inside = {n for o, size in known for n in range(o, o + size)} if known is not None else set(range(capacity))
    for chunk in chunks:
        assert all((n in inside) != chunk.zero for n in range(chunk.offset, chunk.end))
        if not chunk.zero:
            assert chunk.offset // REQUEST == (chunk.end - 1) // REQUEST


def test_a_plan_for_an_enormous_disk_is_lazy() -> None:
    chunks = plan(0, 64 << 50, None, REQUEST)
    assert next(chunks) == Chunk(0, REQUEST)


def books(capacity: int = 160, start: int = 0) -> tuple[Ledger, StillClock]:
    clock = StillClock()
    return Ledger(plan(start, capacity, None, REQUEST), start, capacity, clock, done=start, total=capacity), clock


def take_all(of: Ledger) -> list[Chunk]:
    chunks = []
    while (chunk := of.take(0)) is not None:
        chunks.append(chunk)
    return chunks


def land(of: Ledger, chunk: Chunk) -> bool:
    return of.land(Landed(chunk, chunk.length, 0, 1))


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_order_of_landing_a_flush_covers_only_what_landed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FLUSH_BYTES", 1)
    rng = random.Random(seed)
    of, _ = books()
    chunks = take_all(of)
    rng.shuffle(chunks)
    landed: set[int] = set()
    proven: list[Landed] = []
    for chunk in chunks:
        land(of, chunk)
        landed |= set(range(chunk.offset, chunk.end))
        if rng.random() < 0.5 and (due := of.begin_flush()):
            upto, inside = due
            assert set(range(upto)) <= landed
            before = of.watermark
            assert [c.chunk.offset for c in inside] == list(range(before, upto, REQUEST))
            proven += inside
            of.prove(upto, inside)
    if due := of.begin_flush(force=True):
        proven += due[1]
        of.prove(*due)
    assert of.complete and len(proven) == len(chunks) and of.written == of.done == 160


def test_what_lands_during_a_flush_waits_for_the_next() -> None:
    of, _ = books()
    first, second, *rest = take_all(of)
    land(of, first)
    due = of.begin_flush(force=True)
    assert due is not None and due[0] == REQUEST
    land(of, second)
    assert of.watermark == 0
    of.prove(*due)
    assert of.watermark == REQUEST and of.begin_flush() is None
    for chunk in rest:
        land(of, chunk)
    again = of.begin_flush()
    assert again is not None and again[0] == 160 and len(again[1]) == 9


def test_a_flush_is_due_by_bytes_by_time_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FLUSH_BYTES", 3 * REQUEST)
    of, clock = books()
    chunks = take_all(of)
    assert not land(of, chunks[0])
    clock.time = ledger.FLUSH_S
    assert land(of, chunks[1])
    of.prove(*of.begin_flush())  # type: ignore[misc]
    assert not land(of, chunks[2]) and not land(of, chunks[3]) and land(of, chunks[4])
    of.prove(*of.begin_flush())  # type: ignore[misc]
    assert not land(of, chunks[9]), "there is a gap before it"
    assert [land(of, chunk) for chunk in chunks[5:9]][-1]


def test_readers_do_not_run_away_from_the_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RUN_AHEAD_BYTES", 4 * REQUEST)
    of, _ = books()
    chunks = take_all(of)
    assert len(chunks) == 4 and not of.handed_out
    for chunk in chunks:
        land(of, chunk)
    of.prove(*of.begin_flush(force=True))  # type: ignore[misc]
    assert len(take_all(of)) == 4


def test_resume_begins_behind_the_watermark() -> None:
    of, _ = books(start=40)
    assert of.watermark == of.done == 40
    assert take_all(of)[0] == Chunk(40, 8)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=6), st.randoms(use_true_random=False))
def test_the_watermark_jumps_over_what_nobody_has_to_deal_with(some: list[tuple[int, int]], rng: random.Random) -> None:
    """Whatever lands in whatever order: below the watermark, all bytes of the ranges are proven; at the end it is the capacity."""
    wanted, capacity = merge(some), 240
    of = Ledger(plan_only(wanted, REQUEST), 0, capacity, StillClock(), done=0, total=sum(length for _, length in wanted))
    inside = {n for o, size in wanted for n in range(o, o + size)}
    proven: set[int] = set()
    waiting: list[Chunk] = []
    while not of.complete:
        if (chunk := of.take(0)) is not None:
            assert set(range(chunk.offset, chunk.end)) <= inside
            waiting.append(chunk)
        if waiting and (chunk is None or rng.random() < 0.6):
            land(of, waiting.pop(rng.randrange(len(waiting))))
        if due := of.begin_flush(force=rng.random() < 0.4):
            proven |= {n for item in due[1] for n in range(item.chunk.offset, item.chunk.end)}
            of.prove(*due)
        assert {n for n in inside if n < of.watermark} <= proven
    assert proven == inside and of.done == of.total == len(inside)


def test_far_apart_ranges_are_flushed_by_their_bytes_not_by_their_distance() -> None:
    of = Ledger(plan_only([(n << 40, REQUEST) for n in range(50)], REQUEST), 0, 64 << 40, StillClock(), done=0, total=50 * REQUEST)
    chunks = take_all(of)
    assert len(chunks) == 50 and not any(land(of, chunk) for chunk in chunks[:-1]) and land(of, chunks[-1])


def test_a_source_that_failed_has_not_ended() -> None:
    """Asked again after an error, a generator says that there is nothing left; that must not read as a whole disk."""

    def breaks() -> Iterator[Chunk]:
        yield Chunk(0, REQUEST)
        raise OSError("broke off")

    of = Ledger(breaks(), 0, 160, StillClock(), done=0, total=160)
    first = of.take(0)
    assert first is not None
    with pytest.raises(OSError, match="broke off"):
        of.take(0)
    assert of.take(0) is None and not of.handed_out
    land(of, first)
    of.prove(*of.begin_flush(force=True))  # type: ignore[misc]
    assert of.watermark == REQUEST and not of.complete
