"""Random lives of a warm run: the rules of test_random_lives.py, and what only rounds, snapshots and a cutover by commit can meet.

Judges stand in warmland.py and lives.py, at the place where the rule would be broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from reconciler.core.desired import Desired, InventoryRef, MigrationSpec
from reconciler.core.model import Mode, ObjectRef, Power
from tests.unit.core.lives import Fate
from tests.unit.core.test_random_lives import ACTS, KINDS, NAMES, RUN2, Lives, live
from tests.unit.core.toyland import PLACE, PLAN, RUN, desired_for
from tests.unit.core.warmland import WarmLand, warm_vm

DICE = st.integers(0, 3)
WARM_ACTS = (*ACTS, "EnsureSnapshot", "DropSnapshot")


def warm_plan() -> Desired:
    return desired_for(list(NAMES), mode=Mode.WARM, type="warm", precopy_interval_s=30.0)


class WarmLives(Lives):
    land: WarmLand

    @initialize(
        web_disks=st.integers(1, 2),
        db_on=st.booleans(),
        shy=st.booleans(),
        head_start=st.integers(0, 30),
        locked=st.integers(0, 5),
        slow=st.integers(1, 6),
    )
    def begin(self, web_disks: int, db_on: bool, shy: bool, head_start: int, locked: int, slow: int) -> None:
        vms = {
            "web": warm_vm("web", disks=web_disks, number=1),
            "db": warm_vm("db", number=2, power=Power.ON if db_on else Power.OFF),
        }
        self.land = WarmLand(vms, warm_plan())
        self.land.obey_shutdown, self.land.locked = not shy, locked == 5
        self.land.slow = slow
        self.revision = 1
        self.restored = self.lent = False
        self.land.back_up()
        self.tick(head_start, 1.0, True)

    @rule(count=st.integers(1, 6), seconds=st.sampled_from([0.2, 1.0, 5.0, 20.0]), eager=st.booleans())
    def tick(self, count: int, seconds: float, eager: bool) -> None:
        for _ in range(count):
            self.land.one_pass(self.land.lease, Fate(eager=eager))
            self.land.judge()
            self.land.count_strays()
            self.land.go_on(seconds)
            self.land.judge()

    @rule(act=st.sampled_from(WARM_ACTS), kind=st.sampled_from(KINDS), lands=st.booleans())
    def fault(self, act: str, kind: str, lands: bool) -> None:
        super().fault(act, kind, lands)

    @rule(count=st.integers(4, 12), seconds=st.sampled_from([1.0, 5.0]))
    def go_on_for_a_while(self, count: int, seconds: float) -> None:
        self.tick(count, seconds, True)

    @rule(count=st.integers(4, 25))
    def go_on_for_longer(self, count: int) -> None:
        self.tick(count, 3.0, True)

    @precondition(lambda self: self.land.pods)
    @rule(steps=st.integers(0, 2), code=st.sampled_from([75, 75, 137, 65]))
    def a_copy_breaks_off(self, steps: int, code: int) -> None:
        self.tick(steps, 1.0, True)
        if self.land.pods:
            self.land.end_pod(self.land.pods[-1], code)

    # ---- what ends most lives is rare ----

    @rule(name=st.sampled_from(NAMES), dice=DICE)
    def cancel(self, name: str, dice: int) -> None:
        if dice == 0:
            found = self.land.desired.migrations.get(RUN, MigrationSpec(RUN, PLACE, PLAN))
            self.edit(migrations={**self.land.desired.migrations, RUN: replace(found, cancel=(InventoryRef(name=name),))})

    @rule(in_between=st.booleans(), dice=DICE)
    def add_a_disk(self, in_between: bool, dice: int) -> None:
        if dice == 0:
            super().add_a_disk(in_between)

    @rule(name=st.sampled_from(NAMES), dice=DICE)
    def foreign_vm_takes_the_name(self, name: str, dice: int) -> None:
        if dice == 0:
            super().foreign_vm_takes_the_name(name)

    @precondition(lambda self: self.land.volumes)
    @rule(which=st.integers(0, 3), in_between=st.booleans(), dice=DICE)
    def delete_our_pvc(self, which: int, in_between: bool, dice: int) -> None:
        if dice == 0:
            super().delete_our_pvc(which, in_between)

    @precondition(lambda self: self.land.targets)
    @rule(which=st.integers(0, 3), in_between=st.booleans(), dice=DICE)
    def delete_our_vm(self, which: int, in_between: bool, dice: int) -> None:
        if dice == 0:
            super().delete_our_vm(which, in_between)

    @precondition(lambda self: self.land.volumes and not self.land.taken)
    @rule(which=st.integers(0, 3), in_between=st.booleans(), dice=DICE)
    def somebody_takes_a_disk(self, which: int, in_between: bool, dice: int) -> None:
        if dice == 0:
            super().somebody_takes_a_disk(which, in_between)

    @rule(in_between=st.booleans(), unseen=st.booleans(), dice=DICE)
    def start_our_vm(self, in_between: bool, unseen: bool, dice: int) -> None:
        if dice == 0 and any(t.power is Power.OFF and t.ours for t in self.land.targets.values()):
            super().start_our_vm(in_between, unseen)

    @rule(age=st.integers(0, 5), dice=DICE)
    def restore_the_cluster(self, age: int, dice: int) -> None:
        if dice == 0:
            self.land.restored = True
            super().restore_the_cluster(age)

    @precondition(lambda self: self.land.past)
    @rule(age=st.integers(0, 40), dice=DICE)
    def restore_git(self, age: int, dice: int) -> None:
        if dice == 0:
            self.land.restored = True
            super().restore_git(age)

    # ---- the cutover, by commit ----

    @rule(run=st.sampled_from([RUN, RUN2]), after_s=st.sampled_from([0.0, 0.0, 40.0, 100_000.0]))
    def cut_over(self, run: ObjectRef, after_s: float) -> None:
        found = self.land.desired.migrations.get(run)
        if found is not None:
            at = self.land.now + timedelta(seconds=after_s)
            self.edit(migrations={**self.land.desired.migrations, found.ref: replace(found, cutover_at=at)})

    @rule()
    def withdraw_the_cutover(self) -> None:
        self.edit(migrations={k: replace(m, cutover_at=None) for k, m in self.land.desired.migrations.items()})

    @rule()
    def restore_the_manifests(self) -> None:
        fresh = warm_plan()
        keep = {k: v for k, v in self.land.desired.migrations.items() if k == RUN2}
        self.edit(migrations={**fresh.migrations, **keep}, plans=fresh.plans, providers=fresh.providers, complete=True)

    @rule(seconds=st.sampled_from([0.0, 61.0, -90_000.0]))
    def clock_skews(self, seconds: float) -> None:
        self.land.skew_s = seconds

    # ---- people and other tools at the source ----

    @rule(name=st.sampled_from(NAMES), in_between=st.booleans())
    def backup_takes_a_snapshot(self, name: str, in_between: bool) -> None:
        def take() -> None:
            uuid = self.land.vms[name].uuid
            if len(self.land.chains[uuid]) < 3:
                self.land.freeze(uuid, None)

        self._meanwhile(in_between, take)

    @rule(name=st.sampled_from(NAMES), ours=st.booleans(), in_between=st.booleans())
    def somebody_removes_a_snapshot(self, name: str, ours: bool, in_between: bool) -> None:
        def remove() -> None:
            uuid = self.land.vms[name].uuid
            for snap in [s for s in self.land.chains[uuid] if (s.key is not None) is ours]:
                self.land.remove(uuid, next(s for s in self.land.chains[uuid] if s.id == snap.id))

        self._meanwhile(in_between, remove)

    @rule(name=st.sampled_from(NAMES))
    def somebody_reverts(self, name: str) -> None:
        self.land.revert(name)

    @rule(name=st.sampled_from(NAMES), in_between=st.booleans())
    def change_tracking_is_reset(self, name: str, in_between: bool) -> None:
        self._meanwhile(in_between, lambda: self.land.forget_changes(name))

    @rule(name=st.sampled_from(NAMES), on=st.booleans())
    def change_tracking_is_switched(self, name: str, on: bool) -> None:
        if self.land.vms[name].change_tracking is not on:
            self.land.track(name, on)

    @rule(on=st.booleans())
    def files_are_left_behind(self, on: bool) -> None:
        self.land.sloppy = on

    @rule(dice=st.integers(0, 5))
    def the_base_is_locked(self, dice: int) -> None:
        self.land.locked = dice == 5

    def _meanwhile(self, in_between: bool, what: Callable[[], None]) -> None:
        if in_between:
            self.land.one_pass(self.land.lease, Fate(between=what))
        else:
            what()

    def teardown(self) -> None:
        """As in a cold life, and everybody is cut over."""
        if not hasattr(self, "land"):
            return
        land = self.land
        land.skew_s, land.sloppy, land.locked, land.slow = 0.0, False, False, 1
        for name, vm in land.vms.items():
            if not vm.change_tracking:
                land.track(name, True)
            for snap in [s for s in land.chains[vm.uuid] if s.key is None]:
                land.remove(vm.uuid, next(s for s in land.chains[vm.uuid] if s.id == snap.id))
        super().teardown()
        if not self.restored and land.records.runs and all(r.result for r in land.records.runs.values()):
            for vm in land.vms.values():
                assert not [s for s in land.chains[vm.uuid] if s.key], f"a snapshot of ours is left on {vm.name}"

    def let_it_end(self) -> None:
        self.edit(migrations={k: replace(m, cutover_at=self.land.now) for k, m in self.land.desired.migrations.items()})


def test_warm_lives() -> None:
    live(WarmLives, 40, 40, derandomize=True)


@pytest.mark.deep
def test_many_warm_lives() -> None:
    live(WarmLives, 3000, 60, derandomize=False)
