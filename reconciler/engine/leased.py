"""The sites as one act sees them: each call that would change something asks for the lease first, at that very moment.

What it is: the one gate in front of all effects, so that no handler can forget it; and inside a call, by permit.py, in front of each
request that changes something. What it is not: a guard: what the sites hold is judged by core/guards.py. The names of a port's methods say
what has an effect (ports.py): `read_` and `describe_` have none, all others may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from reconciler import permit
from reconciler.core.model import ObjectRef
from reconciler.engine.sites import Sites
from reconciler.ports import SourceDriver, TargetDriver

LOOKS = ("read_", "describe_")


class Leased:
    """`ask`: raises unless the lease is good now. A direct read may take minutes, and the machine may sleep in it: an older yes is none."""

    def __init__(self, sites: Sites, ask: Callable[[], None]) -> None:
        self._sites, self._ask = sites, ask

    def source_at(self, ref: ObjectRef) -> SourceDriver:
        return cast(SourceDriver, _Gate(self._sites.source_at(ref), self._ask))

    def target_at(self, ref: ObjectRef) -> TargetDriver:
        return cast(TargetDriver, _Gate(self._sites.target_at(ref), self._ask))


class _Gate:
    def __init__(self, driver: object, ask: Callable[[], None]) -> None:
        self._driver, self._ask = driver, ask

    def __getattr__(self, name: str) -> object:
        method = getattr(self._driver, name)
        if name.startswith(LOOKS):
            return method

        def asked(*args: object) -> object:
            self._ask()
            with permit.needed(self._ask):
                return method(*args)

        return asked
