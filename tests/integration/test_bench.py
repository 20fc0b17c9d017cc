"""The bench of passes at scale still runs: what is only run by hand breaks unseen. Its figures are not judged here."""

from __future__ import annotations

import pytest

from tests.bench import bench_engine


def test_the_engine_bench_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("PLANS", 8), ("PER_PLAN", 1), ("NEW", 2)):
        monkeypatch.setattr(bench_engine, name, count)
    assert bench_engine.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines if "bar" in line] == [
        "idle pass (bar 0.2 s)",
        *["one manifest changed among 10,000, warm (bar 1 s)"] * 3,
        "one manifest changed, from cold (bar 15 s)",
        "new 500-VM plan: load, decide, publish, first acts (bar 5 s)",
        f"{lines[-1]}",
    ]
