"""Cold runs that turn back: as test_ways_back_warm.py, of which this takes the lab, the acts of a cold run.

The source of a VM that turned back runs again, so that nothing of its copy counts: all of it is deleted, and the next run copies it whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.core.model import Result
from reconciler.lab.machines import Happening
from tests.integration import test_ways_back_warm
from tests.integration.loops import assert_bytes_of, happened
from tests.integration.test_ways_back_warm import BLOCK, ELSEWHERE, Left, Turns, assert_given_back, lived_through

pytestmark = test_ways_back_warm.pytestmark

ACTS = (
    "ensurevolumes",
    "ensurebinder",
    "ensurevm",
    "dropbinder",
    "powersource",
    "proveoff",
    "ensurecopy",
    "putmarks",
    "proveoff-again",
)
WAYS = {"cancel": Result.CANCELED, "fail": Result.FAILED}


class ColdTurns(Turns):
    kind, acts = "cold", ACTS


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Turns, Left]]:
    yield from lived_through(ColdTurns(tmp_path_factory.mktemp("ways-back")))


def test_every_act_before_the_hand_over_is_a_place_to_turn_back(turns: tuple[Turns, Left]) -> None:
    made, _ = turns
    assert made.seen - ELSEWHERE == set(ACTS)
    assert sorted(made.turned) == sorted(made.names[1:])


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("way", WAYS)
def test_the_source_runs_again_and_nothing_is_left_of_the_target(turns: tuple[Turns, Left], way: str, act: str) -> None:
    _, after = turns
    record = next(v for v in after.records.vms.values() if v.name == f"{way}-{act}")
    assert record.result is WAYS[way], record.message
    assert (record.error.reason if record.error else None) == ("Injected" if way == "fail" else None)
    assert after.objects[record.name] == set()
    assert_given_back(after, record)


def test_nothing_more_is_found(turns: tuple[Turns, Left]) -> None:
    _, after = turns
    assert after.temporary == []
    assert after.sweep == (0, [])


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("way", WAYS)
def test_the_next_run_copies_it_whole_and_moves_it(turns: tuple[Turns, Left], way: str, act: str) -> None:
    made, _ = turns
    second = next(v for v in made.lab.vms() if (v.run.name, v.name) == ("run-2", f"{way}-{act}"))
    assert second.result is Result.SUCCEEDED, second.message
    assert sum(d.read_bytes for d in second.disks) == 16 * BLOCK
    assert_bytes_of(made.lab, second)
    assert happened(made.lab, second.name)[-1] is Happening.OFF
