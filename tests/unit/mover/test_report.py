"""The termination message fits and can be read back; lines say what they must, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.copyspec import TERMINATION_LIMIT_BYTES, CopyResult, DiskResult, parse_line
from reconciler.mover.report import Reporter, shorten
from tests.unit.mover.test_ledger import StillClock


def disk(at: int, readback: str = "ok") -> DiskResult:
    return DiskResult(f"6000C29{at:029d}", True, 1 << 44, 1 << 44, 0, 1 << 24, 123456.789, "http-range", readback, None, "a" * 64)


@pytest.mark.parametrize("count", [0, 1, 5, 12, 60])
@pytest.mark.parametrize("error", [None, "short", "long " * 2000, "ö" * 5000])
@pytest.mark.parametrize("readback", ["ok", "no-direct-io: " + "x" * 500])
def test_it_fits_and_stays_readable(count: int, error: str | None, readback: str) -> None:
    text = shorten(CopyResult(tuple(disk(at, readback) for at in range(count)), error, "Reason" if error else None))
    assert len(text.encode()) <= TERMINATION_LIMIT_BYTES
    got = parse_line(text)
    assert isinstance(got, CopyResult)
    assert (got.error is None) == (error is None)
    assert [d.uuid for d in got.disks] == [disk(at).uuid for at in range(len(got.disks))]
    if count <= 5:
        assert len(got.disks) == count


def test_what_fits_is_not_touched() -> None:
    result = CopyResult((disk(0), disk(1)), None, None)
    assert parse_line(shorten(result)) == result


def test_secrets_are_struck_out_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(tmp_path / "termination", lambda: ("hunter2",), StillClock())
    reporter.finish(CopyResult((), "server said: hunter2 is wrong", "X"))
    both = capsys.readouterr().out + (tmp_path / "termination").read_text()
    assert "hunter2" not in both and both.count("***") == 2


def test_a_termination_file_that_cannot_be_written_does_not_hide_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(tmp_path / "no" / "such", lambda: (), StillClock()).finish(CopyResult((disk(0),)))
    assert isinstance(parse_line(capsys.readouterr().out.strip()), CopyResult)
