"""The bandwidth limit, in simulated time."""

from __future__ import annotations

from reconciler.mover.throttle import Throttle
from tests.unit.mover.test_ledger import StillClock


def test_the_rate_holds_over_time() -> None:
    clock = StillClock()
    throttle = Throttle(1000, clock)
    for _ in range(100):
        throttle.take(100)
    assert 9.5 <= clock.time <= 10.5


def test_an_idle_time_is_no_credit_for_later() -> None:
    clock = StillClock()
    throttle = Throttle(1000, clock)
    clock.time = 3600.0
    for _ in range(100):
        throttle.take(100)
    assert clock.time - 3600 >= 9.5


def test_a_request_larger_than_a_second_s_worth_is_let_through_in_its_time() -> None:
    clock = StillClock()
    throttle = Throttle(100, clock)
    throttle.take(1000)
    assert 9.5 <= clock.time <= 10.5


def test_no_limit_never_waits() -> None:
    clock = StillClock()
    Throttle(None, clock).take(1 << 40)
    assert clock.time == 0
