"""Random lives of one run over the toy: whatever happens, in whatever order, the safety contract's standing invariants hold.

`ci` is derandomized and short; `deep` (--deep) looks for new ones. A counterexample is a finding: hypothesis prints the shortest life.
Judges stand in lives.py, at the place where the rule would be broken.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from reconciler.core.actions import VmKey
from reconciler.core.desired import InventoryRef, MigrationSpec, PlanVm, ShutdownPolicy, WantPower
from reconciler.core.model import ObjectRef, Power
from reconciler.core.record import Category, FrozenVm, VmRecord
from reconciler.core.target import JobPhase, TargetVm
from tests.unit.core.lives import Fate, LiveLand
from tests.unit.core.toyland import NS, PLACE, PLAN, RUN, desired_for, source_vm

NAMES = ("web", "db")
ACTS = (
    "EnsureVolumes",
    "EnsureBinder",
    "EnsureVm",
    "PowerSource",
    "ProveOff",
    "EnsureCopy",
    "PutMarks",
    "DropCopy",
    "StartTarget",
    "DropVolumes",
)
KINDS = ("retryable", "retryable", "terminal", "void", "internal")
RUN2 = ObjectRef(NS, "run-2")
TEMPORARY = frozenset({"Retrying", "Pending"})


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.frozen: dict[VmKey, FrozenVm | None] = {}

    @initialize(web_disks=st.integers(1, 2), db_on=st.booleans(), shy=st.booleans(), head_start=st.integers(0, 30))
    def begin(self, web_disks: int, db_on: bool, shy: bool, head_start: int) -> None:
        vms = {
            "web": source_vm("web", disks=web_disks, number=1),
            "db": source_vm("db", number=2, power=Power.ON if db_on else Power.OFF),
        }
        self.land = LiveLand(vms, desired_for(list(NAMES)))
        self.land.obey_shutdown = not shy
        self.revision = 1
        self.restored = self.lent = False
        self.land.back_up()
        self.tick(head_start, 1.0, True)

    def edit(self, **change: object) -> None:
        self.revision += 1
        self.land.desired = replace(self.land.desired, revision=f"c{self.revision}", **change)  # type: ignore[arg-type]
        for process in self.land.processes.values():
            process.recall.release_held()

    # ---- passes ----

    @rule(count=st.integers(1, 6), seconds=st.sampled_from([0.2, 1.0, 5.0]), eager=st.booleans())
    def tick(self, count: int, seconds: float, eager: bool) -> None:
        for _ in range(count):
            self.land.one_pass(self.land.lease, Fate(eager=eager))
            self.land.judge()
            self.land.go_on(seconds)
            self.land.judge()

    @rule(seconds=st.sampled_from([10.0, 59.0, 61.0, 700.0, 200_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.land.go_on(seconds)

    @rule(die=st.sampled_from(["published", "acted"]))
    def die(self, die: str) -> None:
        self.land.one_pass(self.land.lease, Fate(die=die))

    @rule()
    def forget_everything(self) -> None:
        self.land.processes[self.land.lease] = self.land.newborn()

    @rule()
    def lose_a_push(self) -> None:
        self.land.one_pass(self.land.lease, Fate(push_lost=True))

    @rule(act=st.sampled_from(ACTS), kind=st.sampled_from(KINDS), lands=st.booleans())
    def fault(self, act: str, kind: str, lands: bool) -> None:
        """An effect that lands though the answer says otherwise is a lost reply, which is Retryable always."""
        lands = lands and kind == "retryable"
        self.land.one_pass(self.land.lease, Fate(faults={act: (kind, lands)}))

    @rule(in_act=st.booleans())
    def change_of_the_guard(self, in_act: bool) -> None:
        """The holder hangs between its publish and its acts, or in a direct read; the other takes over, acts, and then the first wakes."""
        was = self.land.lease
        other = "b" if was == "a" else "a"

        def hang() -> None:
            self.land.lease = other
            self.land.one_pass(other)
            self.land.go_on()
            self.land.one_pass(other)

        self.land.one_pass(was, Fate(asleep=hang) if in_act else Fate(between=hang))

    @rule()
    def the_other_looks_too(self) -> None:
        other = "b" if self.land.lease == "a" else "a"
        before = (self.land.records, len(self.land.log))
        self.land.one_pass(other)
        assert (self.land.records, len(self.land.log)) == before, "without the lease nothing is written and nothing is done"

    # ---- the repo ----

    @rule(name=st.sampled_from(NAMES))
    def cancel(self, name: str) -> None:
        self.edit(migrations={**self.land.desired.migrations, RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name=name),))})

    @rule()
    def remove_the_migration(self) -> None:
        self.edit(migrations={k: v for k, v in self.land.desired.migrations.items() if k != RUN})

    @rule()
    def restore_the_manifests(self) -> None:
        fresh = desired_for(list(NAMES))
        keep = {k: v for k, v in self.land.desired.migrations.items() if k == RUN2}
        self.edit(migrations={**fresh.migrations, **keep}, plans=fresh.plans, providers=fresh.providers, complete=True)

    @rule()
    def break_the_tree(self) -> None:
        self.edit(migrations={}, plans={}, complete=False)

    @rule(
        power=st.sampled_from(WantPower),
        policy=st.sampled_from(ShutdownPolicy),
        left=st.sampled_from(((), ("db",))),
        tidy=st.booleans(),
    )
    def edit_the_plan(self, power: WantPower, policy: ShutdownPolicy, left: tuple[str, ...], tidy: bool) -> None:
        """What is frozen already keeps what it has; what has not begun follows, or is cancelled where its entry left."""
        if (plan := self.land.desired.plans.get(PLAN)) is not None:
            entries = (PlanVm(InventoryRef(name=n), PLACE, target_power=power, delete_on_fail=tidy) for n in NAMES if n not in left)
            self.edit(plans={PLAN: replace(plan, vms=tuple(entries), shutdown_policy=policy)})

    @rule()
    def try_again(self) -> None:
        self.edit(migrations={**self.land.desired.migrations, RUN2: MigrationSpec(RUN2, PLACE, PLAN)})

    # ---- people at the source ----

    @rule(name=st.sampled_from(NAMES), on=st.booleans(), in_between=st.booleans())
    def power(self, name: str, on: bool, in_between: bool) -> None:
        def press() -> None:
            self.land.ours_on.discard(name)
            (self.land.power_on if on else self.land.power_off)(name)

        if in_between:
            self.land.one_pass(self.land.lease, Fate(between=press))
        else:
            press()

    @rule(name=st.sampled_from(NAMES), in_between=st.booleans())
    def boot_and_stop_unseen(self, name: str, in_between: bool) -> None:
        def press() -> None:
            if self.land.vms[name].power is Power.OFF:
                self.land.power_on(name)
                self.land.power_off(name)

        if in_between:
            self.land.one_pass(self.land.lease, Fate(between=press))
        else:
            press()

    @rule(in_between=st.booleans())
    def add_a_disk(self, in_between: bool) -> None:
        def add() -> None:
            vm = self.land.vms["web"]
            if len(vm.disks) < 3:
                first = vm.disks[0]
                disk = replace(first, key=f"9{len(vm.disks)}", uuid=f"added-{len(vm.disks)}", label="added", unit=9)
                self.land.vms["web"] = replace(vm, disks=(*vm.disks, disk))
                self.land.version[disk.uuid] = [1, 1]
                self.land.keep_finals()

        if in_between:
            self.land.one_pass(self.land.lease, Fate(between=add))
        else:
            add()

    @rule(down=st.booleans())
    def source_out_of_sight(self, down: bool) -> None:
        self.land.source_unknown = down

    @rule(obey=st.booleans())
    def guest_manners(self, obey: bool) -> None:
        self.land.obey_shutdown = obey

    # ---- the cluster ----

    @precondition(lambda self: self.land.pods)
    @rule(code=st.sampled_from([75, 137, 65]))
    def pod_dies(self, code: int) -> None:
        self.land.end_pod(self.land.pods[0], code)

    @precondition(lambda self: self.land.pods)
    @rule()
    def node_lost(self) -> None:
        pod = self.land.pods[0]
        pod.lost = True
        if (job := self.land.jobs.get(pod.job)) is not None:
            self.land.jobs[pod.job] = replace(job, phase=JobPhase.FAILED)

    @rule()
    def node_fenced(self) -> None:
        self.land.pods = [p for p in self.land.pods if not p.lost]

    @precondition(lambda self: self.land.jobs)
    @rule()
    def delete_our_job(self) -> None:
        name, job = next(iter(self.land.jobs.items()))
        self.land.jobs[name] = replace(job, deleting=True)

    @precondition(lambda self: self.land.volumes)
    @rule(which=st.integers(0, 3), in_between=st.booleans())
    def delete_our_pvc(self, which: int, in_between: bool) -> None:
        def delete() -> None:
            mine = sorted(n for n in self.land.volumes if n not in self.land.foreign)
            if mine:
                self.land.forget(mine[which % len(mine)])

        if in_between:
            self.land.one_pass(self.land.lease, Fate(between=delete))
        else:
            delete()

    @precondition(lambda self: self.land.targets)
    @rule(which=st.integers(0, 3), in_between=st.booleans())
    def delete_our_vm(self, which: int, in_between: bool) -> None:
        def delete() -> None:
            mine = sorted(n for n in self.land.targets if n not in self.land.foreign)
            if mine:
                del self.land.targets[mine[which % len(mine)]]

        if in_between:
            self.land.one_pass(self.land.lease, Fate(between=delete))
        else:
            delete()

    @precondition(lambda self: any(t.power is Power.ON and t.ours for t in self.land.targets.values()))
    @rule()
    def stop_our_vm(self) -> None:
        self.land.person_stops(next(n for n, t in self.land.targets.items() if t.power is Power.ON and t.ours))

    @precondition(lambda self: any(t.power is Power.OFF and t.ours for t in self.land.targets.values()))
    @rule(in_between=st.booleans(), unseen=st.booleans())
    def start_our_vm(self, in_between: bool, unseen: bool) -> None:
        def start() -> None:
            for name, vm in self.land.targets.items():
                if vm.ours and vm.power is Power.OFF and not any(w.role == "importer" for w in self.land.users_of(name)):
                    self.land.person_starts(name)
                    if unseen:
                        self.land.person_stops(name)
                    return

        if in_between:
            self.land.one_pass(self.land.lease, Fate(between=start))
        else:
            start()

    @rule(name=st.sampled_from(NAMES))
    def foreign_vm_takes_the_name(self, name: str) -> None:
        if name not in self.land.targets:
            vm = TargetVm("shop", name, f"foreign-{name}", "1", False, "", "", "", "", "Always", Power.ON, True, "")
            self.land.targets[name] = vm
            self.land.foreign[name] = vm

    @precondition(lambda self: self.land.volumes and not self.land.taken)
    @rule(which=st.integers(0, 3), in_between=st.booleans())
    def somebody_takes_a_disk(self, which: int, in_between: bool) -> None:
        mine = sorted(n for n in self.land.volumes if n not in self.land.foreign)
        if not mine:
            return
        self.lent = True
        pvc = mine[which % len(mine)]
        if in_between:
            self.land.one_pass(self.land.lease, Fate(between=lambda: self.land.take(pvc, ran=False)))
        else:
            self.land.take(pvc)

    @precondition(lambda self: self.land.taken)
    @rule()
    def he_gives_it_back(self) -> None:
        """Once a pass has seen it: of a machine that nobody saw nothing tells (README, Limits)."""
        land = self.land
        mine = [v for v in land.volumes.values() if v.name in land.taken]
        if all(v.name in land.told_spoilt or (v.mark is None and v.watermark is None and not land.jobs) for v in mine):
            land.give_back()

    # ---- disasters ----

    @rule()
    def back_up(self) -> None:
        self.land.back_up()

    @rule(age=st.integers(0, 5))
    def restore_the_cluster(self, age: int) -> None:
        """A start of a target that git does not know of, and then no cluster that does: nobody can tell (README, Limits)."""
        if self.land.unseen_starts:
            self.land.one_pass(self.land.lease)
        if self.land.unseen_starts or self.lent:  # nor that somebody had a disk when its mark was made
            return
        self.restored = True  # what an ended run removed may be back
        self.land.restore_cluster(-1 - age % len(self.land.backups))
        for name, vm in list(self.land.foreign.items()):
            if self.land.targets.get(name) != vm:
                del self.land.foreign[name]

    @precondition(lambda self: self.land.past)
    @rule(age=st.integers(0, 40))
    def restore_git(self, age: int) -> None:
        self.restored = True
        self.land.restore_git(-1 - age % len(self.land.past))

    def let_it_end(self) -> None:
        """What a person has to say besides, once everything is mended; a cold run needs no more."""

    # ---- what must hold ----

    @invariant()
    def contract(self) -> None:
        if hasattr(self, "land"):
            self.land.judge()
            for record in self.land.records.vms.values() if not self.restored else ():
                assert record.frozen == self.frozen.setdefault(record.key, record.frozen) or self.frozen[record.key] is None, (
                    "an edit got in"
                )
                self.frozen[record.key] = record.frozen

    def teardown(self) -> None:
        """Everything is mended and nobody meddles any more: each VM ends, or says (Critical) why it is held."""
        if not hasattr(self, "land"):
            return
        land = self.land
        land.source_unknown, land.obey_shutdown = False, True
        self.restore_the_manifests()
        self.let_it_end()
        self.node_fenced()
        for _ in range(300):
            if land.taken:
                self.he_gives_it_back()
            land.one_pass(land.lease)
            land.judge()
            land.go_on(20.0)
            land.judge()
            for record in land.records.vms.values():
                held_by_power = any(c.type == "SourceChanged" and c.reason == "PoweredOn" for c in record.conditions)
                if record.source and record.result is None and held_by_power:
                    land.power_off(record.source.name)
            begun = set(land.desired.migrations) <= set(land.records.runs)
            if land.records.runs and begun and all(r.result for r in land.records.runs.values()):
                break
        stuck = [v for v in land.records.vms.values() if v.result is None and not _says_why(v)]
        assert not stuck, f"neither ended nor held: {[(str(v.run), v.slug, v.milestone, v.phase, v.message, v.unwinding) for v in stuck]}"
        for _ in range(5):
            before = land.records
            land.one_pass(land.lease)
            moved = [(v.phase, v.message, v.conditions) for k, v in land.records.vms.items() if before.vms.get(k) != v]
        assert before.commit == land.records.commit, f"it goes on committing though nothing happens: {moved}"
        if not self.restored and land.records.runs and all(r.result for r in land.records.runs.values()):
            land.judge_quiet()


def _says_why(record: VmRecord) -> bool:
    return any(c.category is Category.CRITICAL and c.type != "InternalError" for c in record.conditions)


def live(machine: type[Lives], examples: int, steps: int, *, derandomize: bool) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=profile)  # type: ignore[no-untyped-call]


def test_random_lives() -> None:
    live(Lives, 50, 40, derandomize=True)


@pytest.mark.deep
def test_many_random_lives() -> None:
    live(Lives, 3000, 60, derandomize=False)
