"""What an account must be allowed to do, for which move, and how a lack is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from reconciler.core import rights
from reconciler.core.model import Mode, Power, Right
from reconciler.core.record import Category
from tests.unit.core.toyland import PLAN, desired_for, source_vm

OFF_AND_ON = {Right.POWER_OFF, Right.POWER_ON}
ROUNDS = {Right.SNAPSHOT, Right.READ_CHANGES}


def need(paths: Iterable[str] = ("datastore",), *, power: Power = Power.ON, tracked: bool = False, **plan: object) -> frozenset[Right]:
    source = source_vm("web", power=power)
    if tracked:
        source = replace(source, change_tracking=True, disks=tuple(replace(d, change_tracking=True) for d in source.disks))
    return rights.needed(desired_for(["web"], **plan).plans[PLAN], source, paths)


@pytest.mark.parametrize(
    ("path", "right"), [("datastore", Right.READ_FILES), ("export", Right.EXPORT), ("vddk", Right.READ_DISKS)]
)  # fmt: skip
def test_a_cold_move_switches_off_and_reads(path: str, right: Right) -> None:
    assert need([path]) == OFF_AND_ON | {right}


def test_a_source_that_is_off_is_not_switched() -> None:
    assert need(power=Power.OFF) == {Right.READ_FILES}


def test_a_warm_move_makes_snapshots_and_tracks_only_when_asked_and_when_it_is_off() -> None:
    warm = OFF_AND_ON | ROUNDS | {Right.READ_FILES}
    assert need(mode=Mode.WARM) == warm
    assert need(mode=Mode.WARM, enable_tracking=True) == warm | {Right.TRACK}
    assert need(mode=Mode.WARM, enable_tracking=True, tracked=True) == warm


def test_all_that_lacks_is_told_at_once_in_the_platforms_words() -> None:
    lacking = {
        Right.POWER_ON: ("P.On on web",),
        Right.READ_FILES: ("D.Browse on datastore a", "D.Files on datastore a"),
        Right.EXPORT: ("E on web",),
    }
    [found] = rights.findings(need(), lacking, source_vm("web"))
    assert (found.type, found.category, found.reason) == ("InsufficientPrivileges", Category.CRITICAL, "PrivilegesNotGranted")
    assert "lacks P.On on web, D.Browse on datastore a, D.Files on datastore a:" in found.message
    assert "power it on again" in found.message and "read its disks as files" in found.message and "E on web" not in found.message
    assert "grant" in found.suggestion


@pytest.mark.parametrize("lacking", [None, {}, {Right.EXPORT: ("E on web",)}])
def test_what_was_not_asked_or_is_not_needed_holds_nobody(lacking: dict[Right, tuple[str, ...]] | None) -> None:
    assert rights.findings(need(), lacking, source_vm("web")) == []
