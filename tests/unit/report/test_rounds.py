"""Rounds and downtime in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.core import figures
from reconciler.core.figures import Rounds
from reconciler.core.model import Power
from reconciler.core.record import Intent, IntentKind, VmRecord
from reconciler.report import rounds
from reconciler.report.words import copied, doing

from .sample import GIB, at, copying, failed, outage, round_of, succeeded, vm, warm

ONE, TWO = round_of(1, 0, 40 << 10, seconds=400.0), round_of(2, 60, 360)


def known(vm: VmRecord) -> Rounds:
    found = figures.rounds(vm)
    assert found is not None
    return found


# ---- downtime -------------------------------------------------------------------------------------------------------------------------


def test_downtime_and_the_part_that_is_ours() -> None:
    assert (rounds.downtime_words(vm("a")), rounds.ours_words(vm("a")), rounds.down_for(vm("a"))) == ("", "", "")
    lasts = copying("a", 1)
    assert (rounds.downtime_words(lasts), rounds.ours_words(lasts), rounds.down_for(lasts)) == ("since 14:01", "", "")
    over = succeeded("a")
    assert rounds.down_for(over) == "down for 9 min 30 s, 8 min 15 s of it ours"
    back = replace(failed("a"), outage=outage(1, 6))
    assert (rounds.downtime_words(back), rounds.ours_words(back)) == ("5 min", "")
    was_off = replace(over, restore_power_state=Power.OFF, outage=None)
    assert rounds.downtime_words(was_off) == ""


# ---- rounds ---------------------------------------------------------------------------------------------------------------------------


def test_what_a_warm_vm_is_doing() -> None:
    first, later = warm("a", round_of(1, 0, ended=False)), warm("a", ONE, round_of(2, 60, ended=False))
    assert doing(first) == "copying while the guest runs 0 %"
    assert doing(later) == "round 2: copying changes"
    assert doing(warm("a", ONE)) == "waiting for round 2"
    assert doing(warm("a", ONE, base_unreadable="HTTP 500")) == "waiting for the cutover"
    assert doing(warm("a", ONE, phase="CopyFinalChanges")) == "waiting for round 2"
    cut = warm("a", ONE, phase="CopyFinalChanges", intents=(Intent(IntentKind.POWER_OFF_SOURCE, at(5)),))
    assert doing(cut) == "copying what changed last"


def test_a_delta_takes_nothing_of_what_was_copied_once() -> None:
    later = warm("a", ONE, round_of(2, 60, ended=False))
    assert copied(later).done_bytes == 40 * GIB
    assert copied(warm("a", round_of(1, 0, ended=False))).done_bytes == 0


def test_next_round_and_the_cost_of_a_cutover_are_fixed_texts() -> None:
    rests = known(warm("a", ONE, TWO))
    assert rounds.upcoming_words(rests) == "16:02"
    assert rounds.round_words(TWO) == "360 MiB in 3 s"
    assert rounds.rate_words(rests) == "102 KiB/s"
    assert rounds.expected_words(rests) == "about 13 s", "right before the next round, with the rate of the last"
    assert rounds.expected_words(rests, at(60)) == "about 10 s"
    assert rounds.expected_words(rests, at(60) + timedelta(days=10)) == "about 12 min 10 s"


def test_before_the_second_round_the_cost_is_not_known() -> None:
    assert rounds.expected_words(known(warm("a", ONE))) == "" == rounds.rate_words(known(warm("a", ONE)))
    assert rounds.upcoming_words(known(warm("a", ONE, base_unreadable="HTTP 500"))) == "at the cutover"
    assert rounds.upcoming_words(known(warm("a", ONE, round_of(2, 60, ended=False)))) == "round 2 runs"
    assert rounds.upcoming_words(known(warm("a", ONE, round_of(2, 60, abandoned="x"), next_round_at=None))) == "at once"


def test_a_line_between_rounds_says_what_was_what_comes_and_what_it_would_cost() -> None:
    rests = warm("a", ONE, TWO, message="next round at 2026-11-24 16:02:00 UTC (every 3600 s); no cutover is set")
    assert rounds.waiting_note(rests) == (
        "round 2 was 360 MiB in 3 s; next round at 2026-11-24 16:02:00 UTC (every 3600 s); no cutover is set; "
        "down for about 13 s if cut over until then"
    )
    running = warm("a", ONE, round_of(2, 60, ended=False), message="round 2: the snapshot is made")
    assert rounds.waiting_note(running) == "the snapshot is made"
    assert rounds.waiting_note(vm("a", "CopyDisks", message="3 of 5 MiB")) == "3 of 5 MiB"


def test_what_was_copied_before_the_cutover() -> None:
    assert rounds.precopied_words(warm("a", ONE, TWO, round_of(3, 90, 5, final=True))) == "2 rounds, 40.4 GiB"
    assert rounds.precopied_words(vm("a")) == ""
