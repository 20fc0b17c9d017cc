"""The safety contract, row by row, by name: each scenario that a cold vSphere migration can meet, and the rule it must obey.

Over the whole lab (SimLab: real git, SOAP, REST and worker) where a platform takes part, over the toy (LiveLand, which judges the bytes at
each start of a target) where the core alone decides. Rows 14, 15 and 20 are about warm rounds, which cold does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.actions import Decision, EnsureBinder, EnsureCopy, EnsureVolumes, Outcome, PowerSource, PutMarks, StartTarget
from reconciler.core.copyspec import Reader
from reconciler.core.desired import InventoryRef, MigrationSpec, ShutdownPolicy
from reconciler.core.inventory import SourceVm
from reconciler.core.model import MarkState, Milestone, ObjectRef, Power, PowerRequest, Result
from reconciler.core.record import Records, VmRecord
from reconciler.core.target import JobPhase
from reconciler.drivers.vsphere.notes import Note
from reconciler.engine.loop import Engine
from reconciler.engine.memory import Recollection
from reconciler.errors import Superseded
from reconciler.lab import machines
from reconciler.lab.machines import Happening
from reconciler.mover.local import open_target
from tests.integration import simlab
from tests.integration.loops import TTL_S, condition, critical, go_on, happened, machine, passes, record_of, succeeded
from tests.integration.simlab import SimLab
from tests.integration.taps import Wire
from tests.unit.core.lives import Fate, LiveLand, Reconciler
from tests.unit.core.toyland import HOST, NS, PLACE, PLAN, RUN, SOURCE, desired_for, source_vm

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

RUN2 = ObjectRef(NS, "run-2")


# ---- the toy ----------------------------------------------------------------------------------------------------------------------------


def land(*, disks: int = 1, power: Power = Power.ON, keep: bool = False, **change: object) -> LiveLand:
    vm = replace(source_vm("web", disks=disks, power=power), **change)  # type: ignore[arg-type]
    desired = desired_for(["web"])
    if keep:
        plan = desired.plans[PLAN]
        desired = replace(desired, plans={PLAN: replace(plan, vms=tuple(replace(v, delete_on_fail=False) for v in plan.vms))})
    return LiveLand({"web": vm}, desired)


def live(world: LiveLand, until: Callable[[LiveLand], bool], limit: int = 300, seconds: float = 1.0) -> None:
    for _ in range(limit):
        if until(world):
            return
        world.one_pass(world.lease)
        world.judge()
        world.go_on(seconds)
        world.judge()
    raise AssertionError(f"never came: {[(v.phase, v.message) for v in world.records.vms.values()]}")


def go(world: LiveLand, count: int, seconds: float = 1.0) -> None:
    for _ in range(count):
        world.one_pass(world.lease)
        world.go_on(seconds)
        world.judge()


def only(world: LiveLand, run: ObjectRef = RUN) -> VmRecord:
    return next(v for v in world.records.vms.values() if v.run == run)


def at(milestone: Milestone) -> Callable[[LiveLand], bool]:
    return lambda world: bool(world.records.vms) and only(world).milestone is milestone


def ended(world: LiveLand) -> bool:
    return world.records.runs.keys() >= world.desired.migrations.keys() and all(r.result for r in world.records.runs.values())


def marked(world: LiveLand) -> bool:
    return bool(world.volumes) and all(v.mark for v in world.volumes.values())


def held(world: LiveLand, run: ObjectRef = RUN) -> list[str]:
    return critical(only(world, run).conditions)


def again(world: LiveLand) -> None:
    world.desired = replace(world.desired, migrations={**world.desired.migrations, RUN2: MigrationSpec(RUN2, PLACE, PLAN)})


# ---- the lab ----------------------------------------------------------------------------------------------------------------------------


def arrange(lab: SimLab, *, disks: int = 1, on: bool = True, **fields: object) -> None:
    lab.vm("web", disks=disks, on=on, **fields)
    lab.plan("web")
    lab.migration()
    lab.commit()


def reached(lab: SimLab, milestone: Milestone) -> Callable[[], bool]:
    return lambda: bool(lab.vms()) and lab.record("web").milestone is milestone


def lab_marked(lab: SimLab) -> Callable[[], bool]:
    def there() -> bool:
        claims = lab.cluster.find_all("PersistentVolumeClaim", "shop")
        return bool(claims) and all("reconciler.dev/mark" in c["metadata"].get("annotations", {}) for c in claims)

    return there


# ---- the rows ---------------------------------------------------------------------------------------------------------------------------


def test_row_01_a_kept_disk_is_not_trusted_after_the_source_ran() -> None:
    world = land(disks=2, keep=True)
    live(world, marked)
    world.desired = replace(world.desired, migrations={RUN: MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))})
    live(world, ended)
    assert world.volumes and world.vms["web"].power is Power.ON
    dirty = next(i for i, a in enumerate(world.log) if isinstance(a, PutMarks) and a.marks[0][1] is None)
    powered = next(i for i, a in enumerate(world.log) if isinstance(a, PowerSource) and a.want is PowerRequest.ON)
    assert dirty < powered, "marks are made dirty before we power a source on"
    world.go_on(172_800.0)
    again(world)
    live(world, ended)
    assert only(world, RUN2).result is Result.SUCCEEDED and "web" in world.started


def test_row_01_a_mark_of_another_epoch_is_not_proof() -> None:
    """The source was off from the start, so nothing is given back and the marks stay; then somebody boots it for two days."""
    world = land(disks=2, power=Power.OFF, keep=True)
    live(world, marked)
    world.one_pass("a", Fate(faults={"ProveOff": ("terminal", False)}))
    live(world, ended)
    assert marked(world), "worth keeping"
    world.power_on("web")
    world.go_on(172_800.0)
    world.power_off("web")
    copies = len(world.acts(EnsureCopy))
    again(world)
    live(world, ended)
    fresh = world.acts(EnsureCopy)[copies:]
    assert [isinstance(a, EnsureCopy) and {d.compare for d in a.disks} for a in fresh] == [{True}], "all disks are compared"
    assert only(world, RUN2).result is Result.SUCCEEDED


def test_row_01_cutover_is_reached_with_proof_and_before_the_first_byte() -> None:
    world = land()
    live(world, lambda w: bool(w.acts(EnsureCopy)))
    assert only(world).milestone is Milestone.CUTOVER and only(world).epoch == world.vms["web"].epoch


def test_row_02_there_is_no_conversion_to_fail_half_way() -> None:
    """Without skipGuestConversion the plan is refused before any guest is touched."""
    world = land()
    plan = world.desired.plans[PLAN]
    from reconciler.core.desired import Unsupported

    item = Unsupported("spec.skipGuestConversion", "guest conversion is not available yet", blocking=True)
    world.desired = replace(world.desired, plans={PLAN: replace(plan, skip_conversion=False, unsupported=(item,))})
    go(world, 10)
    assert not world.log and world.vms["web"].power is Power.ON


def test_row_02_a_disk_that_is_being_converted_counts_as_nothing_and_is_copied_anew() -> None:
    world = land()
    live(world, marked)
    for name, volume in world.volumes.items():
        assert volume.mark is not None
        world.volumes[name] = replace(volume, mark=replace(volume.mark, state=MarkState.CONVERTING))
    copies = len(world.acts(EnsureCopy))
    live(world, lambda w: len(w.acts(EnsureCopy)) > copies or bool(w.acts(StartTarget)))
    assert not world.acts(StartTarget), "handed over on a half-converted disk"


def chained(vm: SourceVm) -> SourceVm:
    first = vm.disks[0]
    return replace(vm, disks=(replace(first, backing=replace(first.backing, parents=("[ds] web/base.vmdk",))), *vm.disks[1:]))


def encrypted(vm: SourceVm) -> SourceVm:
    first = vm.disks[0]
    return replace(vm, disks=(replace(first, backing=replace(first.backing, key_id="k1")), *vm.disks[1:]))


def unconsolidated(vm: SourceVm) -> SourceVm:
    return replace(vm, consolidation_needed=True)


@pytest.mark.parametrize("spoil", [chained, encrypted, unconsolidated])
@pytest.mark.parametrize("when", ["before", "claimed", "cutover"])
def test_row_03_a_file_that_is_not_the_disk_is_never_read(spoil: Callable[[SourceVm], SourceVm], when: str) -> None:
    """Before the start: exported, or refused. Before the power-off: refused with the guest on. After it: nothing is handed over."""
    world = land()
    if when == "claimed":
        live(world, lambda w: bool(w.acts(EnsureVolumes)))
    elif when == "cutover":
        live(world, marked)
    world.vms["web"] = spoil(world.vms["web"])
    go(world, 30)
    if when == "cutover":
        assert held(world) == ["SourceChanged"] and not world.acts(StartTarget)
    elif when == "claimed" or not world.acts(EnsureCopy):
        assert held(world) and not world.acts(PowerSource, EnsureCopy) and world.vms["web"].power is Power.ON
    else:
        assert {d.path for act in world.acts(EnsureCopy) if isinstance(act, EnsureCopy) for d in act.disks} == {"export"}


def test_row_03_a_chain_in_the_lab_is_exported_and_its_flat_file_never_asked_for(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        lab.world.create_snapshot(machine(lab, "web"), "backup")
        lab.clock.sleep(5)
        go_on(lab, lambda: succeeded(lab, "web"))
        lab.assert_moved("web")
        assert {d.reader for d in record_of(lab, "web").disks} == {"vmdk-stream"}


def test_row_04_no_second_writer_beside_a_lost_pod() -> None:
    world = land()
    live(world, lambda w: bool(w.pods))
    pod = world.pods[0]
    pod.lost = True
    world.jobs[pod.job] = replace(world.jobs[pod.job], phase=JobPhase.FAILED)
    go(world, 40)
    assert len(world.acts(EnsureCopy)) == 1, "nothing is started while the first pod may still write"
    world.pods.remove(pod)  # its node is deleted, or tainted out-of-service
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED and len(world.acts(EnsureCopy)) == 2


def test_row_05_a_sleeper_does_not_act_after_another_took_the_lease() -> None:
    world = land()
    live(world, lambda w: marked(w) and not w.jobs)

    def hang() -> None:
        world.lease = "b"
        for _ in range(8):
            world.one_pass("b")
            world.go_on()

    while not world.acts(StartTarget):
        world.one_pass("a", Fate(between=hang))
    starts = len(world.acts(StartTarget))
    world.one_pass("a")
    assert len(world.acts(StartTarget)) == starts and not [a for a in world.acts(PowerSource) if a.want is PowerRequest.ON]  # type: ignore[union-attr]
    live(world, ended)
    assert world.targets["web"].power is Power.ON and world.vms["web"].power is Power.OFF


def test_row_05_an_old_intent_does_not_start_the_target_beside_a_booted_source() -> None:
    world = land()
    while not world.records.vms or only(world).milestone is not Milestone.HANDED_OVER:
        world.one_pass("a", Fate(faults={"StartTarget": ("retryable", False)}))
        world.go_on()
    world.processes["a"] = world.newborn()
    assert "web" not in world.started
    world.power_on("web")
    go(world, 20)
    assert "web" not in world.started and held(world) == ["SourceChanged"]
    world.power_off("web")
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED, "what the source wrote meanwhile came along"


def test_row_05_a_guard_reads_again_right_before_the_start() -> None:
    """The source is booted between the commit of the intent and the act: the bulk view knew nothing of it."""
    world = land()
    boots: list[int] = []

    def boot() -> None:
        if only(world).milestone is Milestone.HANDED_OVER and not boots:
            boots.append(1)
            world.power_on("web")

    for _ in range(40):
        world.one_pass("a", Fate(between=boot))
        world.go_on()
    assert boots and "web" not in world.started
    assert any(i.void for i in only(world).intents) and held(world) == ["SourceChanged"]


def test_row_05_who_takes_the_lease_over_in_mid_pass_acts_on_nothing_older(tmp_path: Path) -> None:
    """B fetches an intent of A to power the source off; before B has the lease, A commits the cancel and lets go of it."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab, pytest.MonkeyPatch.context() as patch:
        arrange(lab)
        ours, execute = lab.start("a"), Engine._execute
        hangs: list[Engine] = []

        def acting(engine: Engine, decision: Decision, after: Records) -> tuple[Outcome, ...]:
            if engine is ours and any(isinstance(action, PowerSource) for action in decision.actions):
                hangs.append(engine)
            return () if engine in hangs else execute(engine, decision, after)

        patch.setattr(Engine, "_execute", acting)
        go_on(lab, lambda: bool(hangs))
        before = happened(lab, "web")
        theirs = lab.start("b")
        hold = theirs._repo.hold_lease

        def late() -> bool:
            if hangs:
                lab.migration(cancel=["web"])
                lab.commit("cancel")
                ours.one_pass()
                hangs.clear()
                ours.close()
            return hold()

        patch.setattr(theirs._repo, "hold_lease", late)
        with pytest.raises(Superseded, match="is not where pushes go"):
            theirs.one_pass()
        assert happened(lab, "web") == before, "no act"
        go_on(lab, lab.ended, seconds=10.0)
        assert record_of(lab, "web").result is Result.CANCELED and happened(lab, "web") == before


SECOND_WAY = {"name: vc,": "name: vc2,", "{name: net,": "{name: net2,", "{name: store,": "{name: store2,"}


def test_row_06_one_source_vm_under_two_provider_names_is_claimed_once(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        sites, plan = simlab.MANIFESTS.format(url=lab.vcenter.url), (lab.clone / "plans/wave.yaml").read_text()
        for old, new in SECOND_WAY.items():
            sites, plan = sites.replace(old, new), plan.replace(old, new)
        docs = [d for d in sites.split("---\n") if "name: host, namespace: openshift-mtv}\nspec" not in d]
        lab.write("second.yaml", "---\n".join(docs))
        lab.write("plans/zz.yaml", plan.replace("name: wave", "name: zz").replace("targetNamespace: shop", "targetNamespace: other"))
        go_on(lab, lambda: bool(lab.records().claims))
        lab.migration("zz-run", "zz")
        lab.commit("the same once more")
        go_on(lab, lambda: any(critical(v.conditions) == ["VMClaimed"] for v in lab.vms() if v.run.name == "zz-run"))
        go_on(lab, lambda: any(v.run.name == "run-1" and v.result is Result.SUCCEEDED for v in lab.vms()))
        assert not next(v for v in lab.vms() if v.run.name == "zz-run").intents
        assert not lab.cluster.find_all("PersistentVolumeClaim", "other")
        claims = lab.records().claims
        assert len(claims) == 1 and next(iter(claims.values())).forever


def test_row_06_a_snapshot_with_another_reconcilers_key_keeps_the_vm_up_until_it_is_gone(tmp_path: Path) -> None:
    """Met before the run begins, and again when the other one takes it in mid-run. The cold copy by export would read past it."""
    theirs = str(Note("0badcafe/openshift-mtv/their-run/web-1/r3", None))
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        vm = machine(lab, "web")
        first = lab.world.create_snapshot(vm, "theirs", theirs)
        passes(lab, 6)
        told = condition(lab.record("web").conditions, "VMClaimed")
        assert "theirs (run openshift-mtv/their-run) was made by another reconciler" in told.message
        assert lab.record("web").frozen is None, "it has not begun"
        assert not lab.cluster.find_all("PersistentVolumeClaim", "shop")
        lab.world.remove_snapshot(vm, first.key)
        go_on(lab, lambda: lab.record("web").phase == "BindVolumes")
        second = lab.world.create_snapshot(vm, "theirs", theirs)
        passes(lab, 12)
        assert critical(lab.record("web").conditions) == ["VMClaimed"]
        assert vm.power is machines.Power.ON and Happening.OFF not in happened(lab, "web")
        lab.world.remove_snapshot(vm, second.key)
        go_on(lab, lambda: succeeded(lab, "web"))


ACKNOWLEDGED = """\
apiVersion: forklift.konveyor.io/v1beta1
kind: Migration
metadata: {{name: run-1, namespace: openshift-mtv, annotations: {{reconciler.dev/acknowledge-rewind: "{commits}"}}}}
spec: {{plan: {{name: wave, namespace: openshift-mtv}}}}
"""


def test_row_07_git_restored_from_last_night(tmp_path: Path) -> None:
    """The loop runs on meanwhile: what it had proven before the restore counts no more. A commit acknowledges, and the run goes on."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab, disks=2)
        go_on(lab, lambda: bool(lab.vms()) and lab.record("web").phase == "BindVolumes")
        old = lab.git("rev-parse", "reconciler/status", cwd=lab.repo).strip()
        go_on(lab, lab_marked(lab))
        lab.git("update-ref", "refs/heads/reconciler/status", old, cwd=lab.repo)
        before = lab.cluster.calls.copy()
        passes(lab, 6)
        found = condition(lab.record("web").conditions, "StatusRewound")
        writes = {k: n for k, n in (lab.cluster.calls - before).items() if not str(k).startswith(("GET", "get", "list", "watch"))}
        assert not writes, "no effects"
        commits = found.message.rsplit('"', 2)[1]
        lab.write("migrations/run-1.yaml", ACKNOWLEDGED.format(commits=commits))
        lab.commit()
        go_on(lab, lab.ended)
        lab.assert_moved("web")


def test_row_07_a_finished_move_is_not_begun_again_after_a_restore() -> None:
    """Git forgot the whole run, a person stopped the migrated VM: its disks are not adopted and not written."""
    world = land()
    live(world, ended)
    uids = {v.name: v.uid for v in world.volumes.values()}
    content = {k: list(v) for k, v in world.content.items()}
    world.targets["web"] = replace(world.targets["web"], power=Power.OFF, run_strategy="Halted")
    world.restore_git(0)
    world.desired = replace(world.desired, migrations={RUN2: MigrationSpec(RUN2, PLACE, PLAN)}, revision="c9")
    acts = len(world.log)
    go(world, 30)
    assert held(world, RUN2) == ["StatusRewound"] and "handed over" in only(world, RUN2).message and len(world.log) == acts
    assert {v.name: v.uid for v in world.volumes.values()} == uids and world.content == content


def test_row_07_a_cluster_restored_without_the_target_is_not_papered_over() -> None:
    world = land(power=Power.OFF)
    world.back_up()
    live(world, marked)
    world.restore_cluster(0)
    go(world, 30)
    assert not world.acts(StartTarget)
    assert only(world).milestone is Milestone.CUTOVER and (held(world) or only(world).result is Result.FAILED)


def test_row_08_a_lost_race_drops_the_whole_decision(tmp_path: Path) -> None:
    """Somebody moved runs/ between our fetch and our push: no act, no overwriting; the next pass begins with what is there now."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, lambda: bool(lab.vms()) and lab.record("web").phase == "ReserveVM")
        engine = lab.engine
        assert engine is not None
        publish, other = engine._repo.publish, tmp_path / "other"

        def race(changes: Any, *args: Any) -> str:
            if not changes:
                return publish(changes, *args)
            lab.git("clone", "-q", "-b", "reconciler/status", str(lab.repo), str(other), cwd=tmp_path)
            path = next(other.glob("runs/**/vms/*.yaml"))
            path.write_text(path.read_text() + "# theirs\n")
            lab.git("commit", "-qam", "theirs", cwd=other)
            lab.git("push", "-q", "origin", "HEAD:reconciler/status", cwd=other)
            return publish(changes, *args)

        acts = lab.cluster.calls.copy()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Superseded):
            patch.setattr(engine._repo, "publish", race)
            while not other.exists():
                acts = lab.cluster.calls.copy()
                engine.one_pass()
                lab.clock.sleep(0.5)
        assert not [k for k in lab.cluster.calls - acts if not str(k).startswith(("GET", "get", "list", "watch"))], "no act"
        theirs = lab.git("rev-parse", "HEAD", cwd=other).strip()
        head = lab.git("rev-parse", "reconciler/status", cwd=lab.repo).strip()
        assert head == theirs, "nothing is rendered over it"


def test_row_09_a_boot_between_that_nobody_saw_is_copied_too(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, lab_marked(lab))
        vm = machine(lab, "web")
        lab.world.power_on(vm, user="vpxd", cause="ha")
        lab.world.tick()
        lab.world.power_off(vm)
        go_on(lab, lab.ended)
        lab.assert_moved("web")
        assert lab.inline.starts == 2, "one more round"


def test_row_09_a_revert_of_a_source_that_stays_off_is_copied_too(tmp_path: Path) -> None:
    """Its disks go back in one moment without anybody running it: what was copied before does not fit what is copied after."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab, disks=2)
        vm = machine(lab, "web")
        theirs = lab.world.create_snapshot(vm, "before the update")
        for disk in vm.disks:
            lab.world.guest_write(vm, disk, 0, b"after the update")
        go_on(lab, lab_marked(lab))
        lab.world.revert_to_snapshot(vm, theirs.key)
        go_on(lab, lab.ended)
        lab.assert_moved("web")
        assert lab.inline.starts == 2 and Happening.ON not in happened(lab, "web")[3:], "copied once more, and nobody ran it"


def test_row_09_a_source_that_runs_is_left_alone_and_named(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, lab_marked(lab))
        lab.world.power_on(machine(lab, "web"), user="vpxd", cause="ha")
        passes(lab, 8)
        assert critical(lab.record("web").conditions) == ["SourceChanged"]
        assert not lab.target_on("web") and machine(lab, "web").power.value == "on"


def test_row_10_a_broken_tree_cancels_nothing() -> None:
    world = land()
    live(world, lambda w: bool(w.acts(EnsureVolumes)))
    world.desired = replace(world.desired, migrations={}, complete=False, revision="c2")
    acts = len(world.log)
    go(world, 30, 59.0)
    assert only(world).cancel_at is None and held(world) == ["ManifestGone"] and len(world.log) == acts
    world.desired = desired_for(["web"], revision="c3")
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED


@pytest.mark.parametrize("origin", ["another#HEAD:.", "repo"])
def test_row_10_another_repo_branch_or_path_cancels_nothing(origin: str) -> None:
    """The reconciler is started again on a branch without this Migration. In the repo where the run began, that is a cancel."""
    world = land()
    live(world, lambda w: bool(w.acts(EnsureVolumes)))
    world.processes["a"] = Reconciler(Recollection(world.clock, origin))
    world.desired = replace(world.desired, migrations={}, revision="c2")
    go(world, 30, 59.0)
    if origin == "repo":
        assert only(world).result is Result.CANCELED
    else:
        assert only(world).cancel_at is None and held(world) == ["ManifestGone"]


def test_row_11_what_cannot_be_listed_is_not_absent(tmp_path: Path) -> None:
    """Permission to list PVCs is taken away after the cutover: no PVC is made, no Job, nothing is given up."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        go_on(lab, reached(lab, Milestone.CUTOVER))
        claims = {c["metadata"]["uid"] for c in lab.cluster.find_all("PersistentVolumeClaim", "shop")}
        jobs = len(lab.cluster.find_all("Job", "shop"))
        lab.cluster.deny("list", "persistentvolumeclaims", "shop")
        passes(lab, 8)
        assert lab.record("web").result is None and not lab.record("web").unwinding
        assert {c["metadata"]["uid"] for c in lab.cluster.find_all("PersistentVolumeClaim", "shop")} == claims
        assert len(lab.cluster.find_all("Job", "shop")) <= max(1, jobs)
        lab.cluster.allow_all()
        go_on(lab, lab.ended)
        lab.assert_moved("web")


def test_row_11_an_unknown_source_is_not_a_source_that_is_off() -> None:
    world = land()
    live(world, marked)
    world.source_unknown = True
    acts = len(world.log)
    go(world, 10)
    assert not [a for a in world.log[acts:] if isinstance(a, StartTarget | PowerSource)]


def disks_added(vm: SourceVm) -> SourceVm:
    return replace(vm, disks=(*vm.disks, replace(vm.disks[0], uuid="another", key="9", unit=9)))


def disks_grown(vm: SourceVm) -> SourceVm:
    return replace(vm, disks=(replace(vm.disks[0], capacity_bytes=vm.disks[0].capacity_bytes * 2), *vm.disks[1:]))


def disks_removed(vm: SourceVm) -> SourceVm:
    return replace(vm, disks=vm.disks[1:])


@pytest.mark.parametrize("change", [disks_added, disks_grown, disks_removed])
@pytest.mark.parametrize("late", [False, True])
def test_row_12_other_disks_than_those_it_began_with(change: Callable[[SourceVm], SourceVm], late: bool) -> None:
    world = land(disks=2)
    live(world, marked if late else lambda w: bool(w.acts(EnsureVolumes)))
    world.vms["web"] = change(world.vms["web"])
    world.version.update({d.uuid: 1 for d in world.vms["web"].disks if d.uuid not in world.version})
    go(world, 30)
    assert held(world) == ["SourceChanged"] and only(world).milestone is (Milestone.CUTOVER if late else Milestone.NONE)
    assert not world.acts(StartTarget) and (late or world.vms["web"].power is Power.ON)
    commits = world.commits
    go(world, 5)
    assert world.commits == commits, "a hold is said once"


def test_row_13_another_vcenter_behind_the_url() -> None:
    world = land()
    live(world, at(Milestone.CUTOVER))
    original, acts = world.inventory, len(world.log)
    world.inventory = lambda: replace(original(), site=replace(original().site, uuid="another"))  # type: ignore[method-assign]
    go(world, 10)
    assert held(world) == ["ProviderChanged"] and len(world.log) == acts


@pytest.mark.parametrize("milestone", [Milestone.NONE, Milestone.CUTOVER])
def test_row_13_another_cluster_behind_the_url(milestone: Milestone) -> None:
    """Known by the uid of kube-system. What stands there under our names is another world's."""
    world = land()
    live(world, lambda w: bool(w.acts(EnsureVolumes)) if milestone is Milestone.NONE else at(milestone)(w))
    original, acts = world.target, len(world.log)
    world.target = lambda: replace(original(), site=replace(original().site, uuid="another"))  # type: ignore[method-assign]
    go(world, 10)
    assert held(world) == ["ProviderChanged"] and len(world.log) == acts
    world.target = original  # type: ignore[method-assign]
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED


def test_row_13_the_provider_is_gone_in_mid_run() -> None:
    world = land()
    live(world, at(Milestone.CUTOVER))
    acts, providers = len(world.log), world.desired.providers
    world.desired = replace(world.desired, providers={HOST: providers[HOST]}, revision="c2")
    go(world, 10)
    assert held(world) == ["ProviderChanged"] and len(world.log) == acts
    world.desired = replace(world.desired, providers=providers, revision="c3")
    live(world, ended)
    assert SOURCE in providers and only(world).result is Result.SUCCEEDED


def test_row_13_a_moref_that_is_somebody_elses_vm() -> None:
    """`vm-1` is another machine now: it is looked up by uuid, and never touched."""
    world = land()
    live(world, lambda w: bool(w.acts(EnsureBinder)))
    world.vms = {"stranger": replace(source_vm("stranger"), id=world.vms["web"].id)}
    world.version["disk-stranger-0"] = 1
    go(world, 20)
    assert not world.acts(PowerSource) and world.vms["stranger"].power is Power.ON


@pytest.mark.parametrize("block", [False, True])
def test_row_16_zeroes_are_written_where_old_data_may_lie(tmp_path: Path, block: bool) -> None:
    size = 1 << 16
    path = tmp_path / "disk.img"
    path.write_bytes(b"\xee" * size)  # a recycled LUN, or a file that an earlier Job left
    writer = open_target(path, size, block=block)
    assert not writer.fresh, "only what this very process created is known to be zero"
    writer.zero(0, size)
    writer.flush()
    writer.close()
    assert path.read_bytes() == bytes(size)


def test_row_16_a_file_of_our_own_is_fresh(tmp_path: Path) -> None:
    writer = open_target(tmp_path / "disk.img", 1 << 16, block=False)
    assert writer.fresh
    writer.close()


def test_row_17_a_cron_run_outwaits_the_lease_of_a_dead_one(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=30.0) as lab:
        arrange(lab)
        go_on(lab, reached(lab, Milestone.CUTOVER))
        lab.wire.dead = True  # it says good-bye to nobody
        lab.stop()
        lab.wire = simlab.Wire()
        begun = lab.clock.monotonic()
        engine = lab.start("another")
        engine.run(once=True, max_wait_s=60.0, on_pass=lambda report: lab.reports.append(report) is None)
        lab.assert_moved("web")
        assert lab.clock.monotonic() - begun >= 20.0, "the other's lease was not taken before it had run out"


def test_row_17_a_lease_long_over_is_taken_without_a_wait(tmp_path: Path) -> None:
    """A cron run that may not wait at all would else give up each time."""
    with SimLab(tmp_path, ttl_s=30.0) as lab:
        arrange(lab)
        go_on(lab, reached(lab, Milestone.CUTOVER))
        lab.wire.dead = True
        lab.stop()
        lab.wire = simlab.Wire()
        lab.clock.at_s += 30.0 + 700.0
        engine = lab.start("another")
        lab.reports.append(engine.one_pass())
        assert lab.reports[-1].holds_lease


@pytest.mark.parametrize("process", ["new", "frozen meanwhile"])
def test_row_18_a_weekend_without_cron_is_no_time(process: str) -> None:
    world = land()
    world.obey_shutdown = False
    live(world, lambda w: bool(w.acts(PowerSource)))
    go(world, 3, 50.0)
    world.go_on(200_000.0)
    if process == "new":
        world.processes["a"] = world.newborn()
    go(world, 3, 1.0)
    assert only(world).timers == {"shutdown": 103.0} and not only(world).unwinding, "of 600 s"
    world.power_off("web")
    live(world, ended)
    assert only(world).result is Result.SUCCEEDED


@pytest.mark.parametrize("policy", list(ShutdownPolicy))
def test_row_18_ten_cron_runs_of_a_minute_add_up_and_the_policy_applies(policy: ShutdownPolicy) -> None:
    """Each run is a process that knows nothing but git and the sites; so is each that watches the guest that was given back."""
    world = land()
    plan = world.desired.plans[PLAN]
    world.desired = replace(world.desired, plans={PLAN: replace(plan, shutdown_policy=policy)})
    world.obey_shutdown = False
    live(world, lambda w: bool(w.acts(PowerSource)))

    def runs_until(over: Callable[[], bool]) -> int:
        for count in range(40):
            world.processes["a"] = world.newborn()
            for _ in range(30):
                world.one_pass("a")
                if over():
                    return count
                world.go_on(2.0)
                world.judge()
            world.go_on(240.0 if count % 7 else 200_000.0)
        raise AssertionError(f"never came: {only(world).message}")

    if policy is ShutdownPolicy.FORCE:
        assert runs_until(lambda: world.vms["web"].power is Power.OFF) == 10
        live(world, ended)
        assert only(world).result is Result.SUCCEEDED
    else:
        assert runs_until(lambda: only(world).unwinding) == 10
        assert runs_until(lambda: only(world).result is not None) == 10
        assert only(world).result is Result.FAILED and world.vms["web"].power is Power.ON
        assert next(iter(world.records.claims.values())).released is not None


def test_row_18_a_copy_that_stands_still_is_given_up_by_cron_too() -> None:
    world = land()
    live(world, lambda w: bool(w.pods))
    world.pods[0].lost = True
    world.pods[0].step = 2
    for _ in range(40):
        world.processes["a"] = world.newborn()
        go(world, 30, 2.0)
        world.go_on(240.0)
        if only(world).error is not None:
            break
    assert only(world).error is not None and only(world).error.reason == "CopyStalled"  # type: ignore[union-attr]


def test_row_18_a_log_that_comes_only_now_and_then_is_no_progress() -> None:
    world = land()
    live(world, lambda w: bool(w.pods) and w.pods[0].step == 1)
    for count in range(30):
        world.pods[0].lost = count % 2 == 1
        world.one_pass("a")
        world.now += timedelta(seconds=50.0)
        if only(world).error is not None:
            break
    assert only(world).error is not None and only(world).error.reason == "CopyStalled"  # type: ignore[union-attr]


def test_row_18_time_without_sight_does_not_count_and_errors_before_cutover_end_nothing() -> None:
    world = land()
    world.obey_shutdown = False
    live(world, lambda w: bool(w.acts(PowerSource)))
    go(world, 3, 50.0)
    before = only(world).timers
    world.source_unknown = True
    go(world, 60, 50.0)
    assert not only(world).unwinding
    world.source_unknown = False
    go(world, 1)
    assert only(world).timers == before == {"shutdown": 101.0}, "neither counted nor begun anew"
    patient = land()
    for _ in range(80):
        patient.one_pass("a", Fate(faults={"EnsureVm": ("retryable", False)}))
        patient.go_on(59.0)
    assert only(patient).result is None and not only(patient).unwinding
    live(patient, ended)
    assert only(patient).result is Result.SUCCEEDED


def test_row_18_a_held_vm_occupies_no_slot() -> None:
    names = ["web", "zz"]
    world = LiveLand({n: source_vm(n, number=i + 1) for i, n in enumerate(names)}, desired_for(names))
    world.desired = replace(world.desired, limits=replace(world.desired.limits, max_vm_inflight=1))
    live(world, lambda w: any(v.name == "web" and v.milestone is Milestone.CUTOVER for v in w.records.vms.values()))
    world.power_on("web")
    live(world, lambda w: any(v.name == "zz" and v.result is Result.SUCCEEDED for v in w.records.vms.values()))


def test_row_19_a_cancel_once_seen_is_not_withdrawn() -> None:
    world = land()
    live(world, at(Milestone.CUTOVER))
    asked = MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))
    world.desired = replace(world.desired, migrations={RUN: asked}, revision="c2")
    go(world, 1)
    world.desired = replace(world.desired, migrations={RUN: MigrationSpec(RUN, PLACE, PLAN)}, revision="c3")
    live(world, ended)
    assert only(world).result is Result.CANCELED and world.vms["web"].power is Power.ON


def test_row_21_two_plans_want_one_target_name(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        lab.vm("other")
        lab.plan(name="zz", entries='[{name: "other", targetName: web}]')
        lab.migration("zz-run", "zz")
        lab.commit()
        go_on(lab, lambda: any(v.result is Result.SUCCEEDED for v in lab.vms()))
        passes(lab, 3)
        (loser,) = [v for v in lab.vms() if v.result is not Result.SUCCEEDED]  # who came first may take the name
        assert loser.result is Result.FAILED or critical(loser.conditions), loser.message
        assert machine(lab, loser.name or loser.wanted).power.value == "on" and len(lab.cluster.find_all("VirtualMachine", "shop")) == 1


def test_row_21_two_source_vms_of_one_name_have_names_of_their_own(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        one, two = lab.vm("web", folder="a"), lab.vm("web", folder="b")
        lab.plan(entries='[{name: "/DC1/vm/a/web"}, {name: "/DC1/vm/b/web", targetName: web-b}]')
        lab.migration()
        lab.commit()
        go_on(lab, lab.ended)
        assert {v.result for v in lab.vms()} == {Result.SUCCEEDED}, [v.message for v in lab.vms()]
        claims = lab.cluster.find_all("PersistentVolumeClaim", "shop")
        assert len({c["metadata"]["name"] for c in claims}) == 2 and one.key != two.key


def test_row_21_a_lost_reply_makes_no_second_pvc_and_a_retry_adopts() -> None:
    world = land(keep=True)
    for _ in range(6):
        world.one_pass("a", Fate(faults={"EnsureVolumes": ("retryable", True)}))
        world.go_on(5.0)
    assert len(world.volumes) == 1
    uid = next(iter(world.volumes.values())).uid
    live(world, at(Milestone.CUTOVER))
    world.exits = [65]
    live(world, ended)
    again(world)
    live(world, ended)
    assert [v.uid for v in world.volumes.values()] == [uid] and only(world, RUN2).result is Result.SUCCEEDED


def test_row_23_the_copy_outlives_the_reconciler() -> None:
    """It is the worker that reads, holds what lease there is, and ends; nobody has to be there."""
    world = land()
    live(world, lambda w: bool(w.pods))
    world.processes["a"] = world.newborn()
    world.go_on(3600.0)
    live(world, ended)
    assert len(world.acts(EnsureCopy)) == 1 and only(world).result is Result.SUCCEEDED
    assert Reader.HTTP_RANGE.value in {d.reader for d in only(world).disks}


class OnceExported(Wire):
    """The copy pod dies as soon as its export is open."""

    def is_last(self, number: int, label: str) -> bool:
        return "Export" in label


def test_row_23_the_lease_of_a_dead_worker_is_waited_for_before_the_source_goes_back_on(tmp_path: Path) -> None:
    """Who opened it could abort it, and is dead; the site ends it. Until then the message says what holds the VM, and nothing fails."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        vm = machine(lab, "web")
        lab.world.create_snapshot(vm, "backup")
        lab.inline.wire = doomed = OnceExported(when="after")
        go_on(lab, lambda: doomed.dead, 200)
        lab.migration(cancel=["web"])
        lab.commit("give it back")
        go_on(lab, lambda: "an export of its disks is open" in lab.record("web").message, 200)
        assert vm.power is machines.Power.OFF
        since = lab.clock.at_s
        go_on(lab, lambda: lab.record("web").result is not None, 200, seconds=5.0)
        assert lab.record("web").result is Result.CANCELED and vm.power is machines.Power.ON
        assert lab.clock.at_s - since > 60.0, "the site ended the lease, not we"
        assert not lab.cluster.find_all("PersistentVolumeClaim", "shop")


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_row_24_a_guest_that_obeys_late_is_powered_on_again(how: str) -> None:
    world = land()
    world.obey_shutdown = False
    live(world, lambda w: bool(w.acts(PowerSource)))
    if how == "cancel":
        asked = MigrationSpec(RUN, PLACE, PLAN, cancel=(InventoryRef(name="web"),))
        world.desired = replace(world.desired, migrations={RUN: asked}, revision="c2")
    live(world, lambda w: only(w).unwinding, seconds=20.0)
    go(world, 5, 20.0)
    world.power_off("web")
    live(world, ended, seconds=20.0)
    assert world.vms["web"].power is Power.ON and "web" in world.ours_on
    claim = next(iter(world.records.claims.values()))
    assert claim.was_on and claim.released is not None


def test_row_24_was_on_is_inherited_while_the_last_power_off_was_ours() -> None:
    """Run 1 could not give the source back; run 2 finds it off, and still knows that it was on."""
    world = land()
    live(world, at(Milestone.CUTOVER))
    claim_key, claim = next(iter(world.records.claims.items()))
    released = replace(claim, released=world.now, powered_off_by_us=True)
    done = replace(only(world), result=Result.FAILED, completed=world.now)
    run = replace(world.records.runs[RUN], result=Result.FAILED, completed=world.now)
    world.jobs.clear()
    world.pods.clear()
    world.records = replace(world.records, claims={claim_key: released}, vms={done.key: done}, runs={RUN: run})
    again(world)
    live(world, ended)
    assert only(world, RUN2).was_on and world.targets["web"].power is Power.ON
