"""A toy world that bites: copies that take time, guards read again, deaths, lost pushes, two reconcilers, people and restores.

What it is: Toyland with the real decide, guards, memory, urgency and rewind check, one pass at a time, each with a fate.
Bytes are versions: a running source makes a new one at every beat, a copy carries them over in halves.
What it is not: the engine (engine/loop.py) or a platform; the order of steps in `one_pass` is the engine's, written down once more.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256

from reconciler.core import guards
from reconciler.core.actions import (
    DECLARED,
    ActError,
    Action,
    DropBinder,
    DropCopy,
    DropTargetVm,
    DropVolumes,
    EnsureBinder,
    EnsureCopy,
    EnsureVm,
    EnsureVolumes,
    Outcome,
    PowerSource,
    ProveOff,
    PutMarks,
    PutWatermarks,
    ReleaseVolumes,
    StartTarget,
)
from reconciler.core.copyspec import CopyResult, DiskProgress, DiskResult, result_line
from reconciler.core.decide import decide
from reconciler.core.desired import Desired
from reconciler.core.inventory import Inventory, SourceVm
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Absent, Known, ObjectRef, Power, PowerRequest, Unknown
from reconciler.core.record import IntentKind, Records
from reconciler.core.target import Job, JobPhase, Owner, TargetInventory, TargetVm, Volume, VolumeMode, Writer
from reconciler.core.view import Observed
from reconciler.engine import publish
from reconciler.engine.copies import Doubts
from reconciler.engine.memory import Recollection
from reconciler.engine.observe import Watch, rewound
from reconciler.engine.publish import Urgency
from tests.unit.core.toyland import HOST, SOURCE, Toyland

TTL_S = 180.0


@dataclass
class ToyClock:
    land: Toyland

    def now(self) -> datetime:
        return self.land.now

    def monotonic(self) -> float:
        return self.land.now.timestamp()

    def sleep(self, seconds: float) -> None:
        self.land.now += timedelta(seconds=seconds)

    def new_id(self) -> str:
        return "id"

    def jitter(self) -> float:
        return 0.5


class Refused(Exception):
    """What a driver or a guard would raise: an ActError in flight."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.error = ActError(kind, reason, reason)


@dataclass
class Reconciler:
    """What one process remembers. A new one remembers nothing."""

    recall: Recollection
    watch: Watch = field(default_factory=Watch)
    draft: Records | None = None


@dataclass
class Pod:
    """An importer at work: each step writes a half of every disk, the third ends it. `lost`: its node is out of contact."""

    job: str
    action: EnsureCopy
    step: int = 0
    lost: bool = False
    ranges: dict[str, frozenset[int]] = field(default_factory=dict)  # disk uuid -> the halves to be copied, where it is not all


@dataclass
class Fate:
    """What becomes of one pass. `between` happens after the publish and before the acts."""

    push_lost: bool = False
    die: str = ""  # published, acted
    between: Callable[[], None] | None = None
    faults: dict[str, tuple[str, bool]] = field(default_factory=dict)  # action -> (kind, the effect lands)
    eager: bool = True  # what is not urgent is committed too


class LiveLand(Toyland):
    """`git` is `records`; `ancestors` are the commits behind its head. Judges with `assert` where a rule of the contract is broken."""

    def __init__(self, vms: dict[str, SourceVm], desired: Desired) -> None:
        super().__init__(vms, desired)
        self.progress_of: dict[str, tuple[DiskProgress, ...]] = {}  # the last lines in the logs of ended pods
        self.clock = ToyClock(self)
        self.version = {d.uuid: [1, 1] for v in self.vms.values() for d in v.disks}
        self.content: dict[str, list[int]] = {}  # PVC uid -> the version in each half
        self.gone_uids: set[str] = set()
        self.pods: list[Pod] = []
        self.ancestors: list[str] = ["s0"]
        self.commits = 0
        self.exits: list[int] = []
        self.lease = "a"
        self.processes = {name: self.newborn() for name in ("a", "b")}
        self.past: list[tuple[Records, list[str]]] = []
        self.backups: list[dict[str, dict[str, object]]] = []
        self.finals: dict[tuple[str, str], list[int]] = {}
        self.ours_on: set[str] = set()  # source VM names that we powered on last
        self.started_uids: set[str] = set()  # of target VMs that we started
        self.rewound_at: datetime | None = None
        self.foreign: dict[str, object] = {}
        self.unseen_starts: set[tuple[str, str]] = set()  # (source, View.reserved) of targets that people started, and git does not know it
        self.keep_finals()

    @property
    def started(self) -> set[str]:
        return {t.name for t in self.targets.values() if t.uid in self.started_uids}

    def newborn(self) -> Reconciler:
        return Reconciler(Recollection(self.clock, "repo"))

    # ---- time and bytes ----

    def write(self, name: str) -> None:
        for disk in self.vms[name].disks:
            self.serial += 1
            self.version[disk.uuid] = [self.serial, self.serial]

    def keep_finals(self) -> None:
        for vm in self.vms.values():
            if vm.power is Power.OFF:
                self.finals.update({(d.uuid, vm.epoch or ""): list(self.version[d.uuid]) for d in vm.disks})

    def power_on(self, name: str) -> None:
        if self.vms[name].power is not Power.ON:
            super().power_on(name)
            self.write(name)

    def power_off(self, name: str) -> None:
        if self.vms[name].power is Power.ON:
            self.write(name)
            super().power_off(name)
            self.keep_finals()

    def go_on(self, seconds: float = 1.0) -> None:
        """Guests write, pods copy, what is being deleted goes."""
        self.now += timedelta(seconds=seconds)
        for vm in self.vms.values():
            if vm.power is Power.ON:
                self.write(vm.name)
        for pod in list(self.pods):
            self._copy_on(pod)
        for job in list(self.jobs.values()):
            if job.deleting and not any(p.job == job.name and p.lost for p in self.pods):
                self.pods = [p for p in self.pods if p.job != job.name]
                del self.jobs[job.name]
                self.progress_of.pop(job.name, None)

    def _copy_on(self, pod: Pod) -> None:
        if any(pvc in self.volumes and self.volumes[pvc].phase == "Lost" for _, pvc, _ in pod.action.job.volumes):
            return  # it never starts
        if pod.step < 2:
            for wish, (_, pvc, _) in zip(pod.action.disks, pod.action.job.volumes, strict=True):
                volume = self.volumes.get(pvc)
                if volume is None or pod.step not in pod.ranges.get(wish.disk_uuid, (0, 1)):
                    continue
                if (pod.step + 1) * wish.capacity_bytes // 2 > wish.resume_bytes:
                    self.content[volume.uid][pod.step] = self._read_half(pod, wish.disk_uuid)
            pod.step += 1
        elif not pod.lost:
            self.end_pod(pod, self.exits.pop(0) if self.exits else 0)

    def _read_half(self, pod: Pod, uuid: str) -> int:
        return self.version.get(uuid, [-1, -1])[pod.step]

    def end_pod(self, pod: Pod, code: int, reason: str = "Broken") -> None:
        self.pods.remove(pod)
        if (job := self.jobs.get(pod.job)) is None:
            return
        good = None if code == 0 else 1 if pod.step == 2 and len(pod.action.disks) > 1 else 0  # of several the first one gets through
        whole = [d.disk_uuid for d in pod.action.disks][:good]
        disks = tuple(DiskResult(d.disk_uuid, d.disk_uuid in whole, 1, 1, 0, 1, 1.0, "http-range", "ok") for d in pod.action.disks)
        result = CopyResult(disks, None if code == 0 else f"{reason}: it broke", None if code == 0 else reason)
        text = result_line(result) if code in (0, 65, 75) else ""
        phase = JobPhase.SUCCEEDED if code == 0 else JobPhase.FAILED
        self.jobs[job.name] = replace(job, phase=phase, exit_code=code, termination_message=text)
        self.progress_of[job.name] = self._lines(pod)

    progress_of: dict[str, tuple[DiskProgress, ...]] = {}

    def _lines(self, pod: Pod) -> tuple[DiskProgress, ...]:
        def line(uuid: str, capacity: int, resume: int) -> DiskProgress:
            done = max(resume, pod.step * capacity // 2)
            return DiskProgress(uuid, capacity, done, 0, done, 1.0)

        return tuple(line(d.disk_uuid, d.capacity_bytes, d.resume_bytes) for d in pod.action.disks)

    # ---- what is seen ----

    def target(self) -> TargetInventory:
        seen = super().target()
        return replace(seen, volumes=tuple(self._with_writers(v) for v in seen.volumes))

    def _with_writers(self, volume: Volume) -> Volume:
        pods = tuple(
            Writer(p.job, "Failed" if p.lost else "Running", False, True, "importer")
            for p in self.pods
            if any(pvc == volume.name for _, pvc, _ in p.action.job.volumes)
        )
        guests = tuple(
            Writer(f"launcher-{vm.name}", "Running", False, False, "vmi")
            for vm in self.targets.values()
            if vm.power is Power.ON and volume.key.startswith(vm.source.rpartition("/")[2] + "/")
        )
        return replace(volume, writers=(*volume.writers, *pods, *guests))

    def observed(self) -> tuple[Observed, dict[ObjectRef, SiteIndex]]:
        inventory = self.inventory()
        seen: Known[Inventory] | Unknown = Unknown("Unreachable", "down") if self.source_unknown else Known(inventory)
        lines = {(HOST, "shop", p.job): (self._lines(p), None) for p in self.pods if not p.lost}
        lines |= {(HOST, "shop", name): (said, None) for name, said in self.progress_of.items() if name in self.jobs}
        indexes = {} if self.source_unknown else {SOURCE: SiteIndex(inventory)}
        return Observed({SOURCE: seen}, {HOST: Known(self.target())}, lines), indexes  # type: ignore[dict-item]

    def is_ancestor(self, commit: str, of: str) -> bool:
        return commit in self.ancestors

    # ---- a pass ----

    def one_pass(self, who: str = "a", fate: Fate | None = None) -> None:
        fate, me = fate or Fate(), self.processes[who]
        drafted = me.draft is not None and me.draft.commit == self.records.commit
        records = me.draft if drafted and me.draft else self.records
        seen, indexes = self.observed()
        me.recall.count_time(seen, records)
        seen = replace(seen, rewound=rewound(self, records, seen.targets, me.watch))  # type: ignore[arg-type]
        descends = frozenset(r.run for r in records.runs.values())
        after, decision = decide(self.desired, seen, records, me.recall.view(descends), indexes, self.now)
        assert len({a.key for a in decision.actions}) == len(decision.actions), "at most one action per VM and pass"
        if self.lease != who:
            me.draft = None
            return
        urgency = publish.urgency(self.records, after)
        if urgency is Urgency.NOW or (urgency is not Urgency.NONE and fate.eager):
            me.draft = None
            if fate.push_lost:
                return
            self.commit(after)
        else:
            me.draft = after if urgency is not Urgency.NONE else None
        me.recall.keep(decision, after)
        if fate.die == "published":
            self.processes[who] = self.newborn()
            return
        if fate.between is not None:
            fate.between()
        for action in decision.actions:
            self.log.append(action)
            outcome = self._execute(who, action, fate)
            me.recall.learn(action, outcome, after.vms[action.key].phase)
        if fate.die == "acted":
            self.processes[who] = self.newborn()

    def commit(self, after: Records) -> None:
        self.judge_commit(self.records, after)
        self.past.append((self.records, list(self.ancestors)))
        self.commits += 1
        seen = {(f"{c.site_uuid}/{c.vm_uuid}", c.reserved) for c in after.claims.values()}
        self.unseen_starts -= seen
        self.records = replace(after, commit=f"s{self.commits}")
        self.ancestors.append(self.records.commit)

    def _execute(self, who: str, action: Action, fate: Fate) -> Outcome:
        name = type(action).__name__
        kind, lands = fate.faults.get(name, ("", True))
        error = ActError(kind, "Injected", "injected") if kind else None
        found: Known[SourceVm] | Doubts | None = None
        if lands:
            try:
                age = 0.0 if self.lease == who else None
                if isinstance(action, DECLARED) and (why := guards.lease_fresh(age, TTL_S)):
                    raise Refused("void", why)
                if age is None:
                    raise Refused("retryable", "LeaseLost")
                found = self._apply(action)
            except Refused as refused:
                error = refused.error
        proof, doubted = (None, found) if isinstance(found, tuple) else (found, ())
        return Outcome(action.key, name, self.now, error, None if error else proof, () if error else doubted)

    # ---- acts, as the drivers and engine/execute.py do them ----

    def _apply(self, action: Action) -> Known[SourceVm] | Doubts | None:
        self.judge_act(action)
        before = dict(self.volumes)
        doubted: Doubts = ()
        match action:
            case EnsureVolumes():
                self._ensure_volumes(action)
            case EnsureVm():
                self._ensure_vm(action)
            case EnsureCopy():
                doubted = self._ensure_copy(action)
            case PowerSource():
                self._power_source(action)
            case StartTarget():
                self._start(action)
            case PutMarks():
                self._swap([v for v, _ in action.marks], action.owner)
                for volume, mark in action.marks:
                    kept = self.volumes[volume.name]
                    watermark = None if mark is None else kept.watermark
                    self.volumes[volume.name] = replace(kept, mark=mark, watermark=watermark, commit=action.owner.commit)
            case PutWatermarks():
                self._swap([v for v, _ in action.watermarks], None)
                super()._apply(action)
            case DropCopy():
                if (job := self.jobs.get(action.name)) is not None:
                    self.jobs[job.name] = replace(job, deleting=True)
            case DropVolumes():
                self._drop_volumes(action)
            case DropTargetVm():
                self._drop_vm(action)
            case EnsureBinder() if any(pvc not in self.volumes for pvc, _ in action.spec.volumes):
                raise Refused("retryable", "NotFound")
            case DropBinder() if action.name not in self.binders:
                pass
            case ReleaseVolumes() if any((now := self.volumes.get(v.name)) is None or now.uid != v.uid for v in action.volumes):
                raise Refused("retryable", "Conflict")
            case ProveOff():
                seen = self._direct(action.vm.uuid)
                return seen if isinstance(seen, Known) else None
            case _:
                super()._apply(action)
        for name, volume in self.volumes.items():
            if name in before and before[name] != volume:
                self.volumes[name] = replace(volume, resource_version=str(int(volume.resource_version) + 1))
        return doubted or None

    def _ensure_volumes(self, action: EnsureVolumes) -> None:
        for spec, adopt in action.volumes:
            found = self.volumes.get(spec.name)
            key = f"{spec.source_vm_uuid}/{spec.disk_uuid}"
            if adopt is not None:
                self._must_be_free([spec.name], spec.owner.source)
            if found is None and adopt is None:
                super()._apply(replace(action, volumes=((spec, None),)))
                made = replace(self.volumes[spec.name], commit=spec.owner.commit)
                self.volumes[spec.name] = made
                self.content[made.uid] = [0, 0]
            elif found is None:
                raise Refused("retryable", "NotFound")
            elif not found.ours or found.key != key:
                raise Refused("terminal", "NameTaken")
            elif found.migration != spec.owner.migration:
                if adopt is None or (adopt.uid, adopt.resource_version) != (found.uid, found.resource_version):
                    raise Refused("retryable", "Conflict")
                self.volumes[spec.name] = replace(found, migration=spec.owner.migration, commit=spec.owner.commit)

    def _ensure_vm(self, action: EnsureVm) -> None:
        s = action.spec
        found = self.targets.get(s.name)
        if found is None:
            super()._apply(action)
            self.serial += 1
            found = replace(self.targets[s.name], uid=f"uid-{self.serial}")
        elif not found.ours or found.source != s.owner.source:
            raise Refused("terminal", "NameTaken")
        self.targets[s.name] = replace(
            found, migration=s.owner.migration, milestone=s.owner.milestone, commit=s.owner.commit, source=s.owner.source
        )

    def _ensure_copy(self, action: EnsureCopy) -> Doubts:
        vm = self._direct(action.source.uuid)
        if isinstance(vm, Absent) or not self._readable(action, vm.value):
            raise Refused("retryable", "SourceChanged")
        ranges, doubts = self._changed(action)
        if doubts:
            return doubts
        if (found := self.jobs.get(action.job.name)) is not None:
            if found.round_key != action.job.round_key:
                raise Refused("terminal", "NameTaken")
            return ()
        if guards.may_copy(tuple((pvc, self._read_volume(pvc)) for _, pvc, _ in action.job.volumes)) is not None:
            raise Refused("retryable", "WriterNotFenced")
        j = action.job
        self._must_be_free([pvc for _, pvc, _ in j.volumes], j.owner.source)
        self.jobs[j.name] = Job(
            j.namespace, j.name, j.name, JobPhase.RUNNING, j.owner.migration, j.owner.vm, j.round_key, j.attempt, None, "", ""
        )
        self.progress_of.pop(j.name, None)
        self.pods.append(Pod(j.name, action, ranges=ranges))
        return ()

    def _must_be_free(self, pvcs: list[str], source: str) -> None:
        if guards.taken(tuple(self.targets.values()), "shop", pvcs, source) is not None:
            raise Refused("retryable", "VolumeTaken")

    def _readable(self, action: EnsureCopy, vm: SourceVm) -> bool:
        return vm.power is Power.OFF and vm.epoch == action.epoch

    def _changed(self, action: EnsureCopy) -> tuple[dict[str, frozenset[int]], Doubts]:
        """Disk uuid -> the halves to be copied, where it is not all of them; or whose change id does not count."""
        return {}, ()

    def _direct(self, uuid: str) -> Known[SourceVm] | Absent:
        if self.source_unknown:
            raise Refused("retryable", "Unreachable")
        found = next((v for v in self.vms.values() if v.uuid == uuid), None)
        return Known(found) if found else Absent()

    def _read_vm(self, name: str) -> Known[TargetVm] | Absent:
        return Known(self.targets[name]) if name in self.targets else Absent()

    def _read_volume(self, name: str) -> Known[Volume] | Absent:
        return Known(self._with_writers(self.volumes[name])) if name in self.volumes else Absent()

    def _power_source(self, action: PowerSource) -> None:
        assert action.target is not None
        seen, target = self._direct(action.vm.uuid), self._read_vm(action.target[2])
        on = action.want is PowerRequest.ON
        self._ask((guards.may_power_on if on else guards.may_power_off)(seen, action.vm.uuid, target))
        if not guards.power_need(seen, action.want):
            return
        name = action.vm.name
        if on:
            assert not any(t.power is Power.ON and t.source.endswith(action.vm.uuid) for t in self.targets.values()), "both on by us"
            self.ours_on.add(name)
            self.power_on(name)
        elif action.want is PowerRequest.OFF or self.obey_shutdown:
            self.power_off(name)

    def _start(self, action: StartTarget) -> None:
        volumes = tuple((uuid, self._read_volume(pvc)) for pvc, uuid in action.volumes)
        source = self._direct(action.source.uuid)
        vm = self._read_vm(action.name)
        self._ask(guards.may_start_target(source, action.source.uuid, action.epoch, action.number, vm, volumes, action.owner.source))
        assert isinstance(source, Known) and source.value.power is Power.OFF, "both on by us"
        assert {d.uuid for d in source.value.disks} == {u for _, u in action.volumes}, "started without all disks"
        if self.targets[action.name].power is Power.ON:
            return
        for pvc, uuid in action.volumes:
            assert self.content[self.volumes[pvc].uid] == self.version[uuid], f"{pvc} does not hold the bytes of {uuid}"
        self.started_uids.add(self.targets[action.name].uid)
        self.targets[action.name] = replace(
            self.targets[action.name],
            power=Power.ON,
            ready=True,
            run_strategy="Always",
            generation=self.targets[action.name].generation + 1,
            milestone=action.owner.milestone,
            commit=action.owner.commit,
        )

    def _drop_volumes(self, action: DropVolumes) -> None:
        for pvc in action.names:
            self._ask(guards.may_delete_volume(self._read_volume(pvc), tuple(self.targets.values())))
        for pvc in action.names:
            found = self.volumes.get(pvc)
            if found is None:
                continue
            self._must_own(found.ours, found.migration, action.owner)
            self.forget(pvc)

    def forget(self, pvc: str) -> None:
        uid = self.volumes.pop(pvc).uid
        self.content.pop(uid, None)
        self.gone_uids.add(uid)

    def _drop_vm(self, action: DropTargetVm) -> None:
        self._ask(guards.may_delete_vm(self._read_vm(action.name)))
        found = self.targets.get(action.name)
        if found is not None:
            self._must_own(found.ours, found.migration, action.owner)
            del self.targets[action.name]

    def _swap(self, volumes: list[Volume], owner: Owner | None) -> None:
        for seen in volumes:
            now = self.volumes.get(seen.name)
            if now is None or (now.uid, now.resource_version) != (seen.uid, seen.resource_version):
                raise Refused("retryable", "Conflict")
            if owner is not None:
                self._must_own(now.ours, now.migration, owner)

    @staticmethod
    def _must_own(ours: bool, migration: str, owner: Owner) -> None:
        if not ours or migration != owner.migration:
            raise Refused("terminal", "NotOurs")

    @staticmethod
    def _ask(why_not: str | None) -> None:
        if why_not is not None:
            raise Refused("void", why_not)

    # ---- people and disasters ----

    def users_of(self, name: str) -> list[Writer]:
        """Pods on the volumes that a target VM would mount (ReadWriteOnce keeps it from starting beside them)."""
        mine = [v for v in self.volumes.values() if v.key.startswith(self.targets[name].source.rpartition("/")[2] + "/")]
        return [w for v in mine for w in self._with_writers(v).writers if w.role != "vmi"]

    def person_starts(self, name: str) -> None:
        """The guest writes to its disks, whatever is on them."""
        vm = self.targets[name]
        self.targets[name] = replace(vm, power=Power.ON, run_strategy="Always", ready=True, generation=vm.generation + 1)
        if vm.uid not in self.started_uids:
            self.unseen_starts.add((vm.source, f"{vm.uid}/{vm.generation + 1}"))
        for volume in self.volumes.values():
            if volume.key.startswith(vm.source.rpartition("/")[2] + "/") and vm.uid not in self.started_uids:
                self.content[volume.uid] = [-1, -1]

    def person_stops(self, name: str) -> None:
        vm = self.targets[name]
        self.targets[name] = replace(vm, power=Power.OFF, run_strategy="Halted", ready=False, generation=vm.generation + 1)
        if (now := (vm.source, f"{vm.uid}/{vm.generation}")) in self.unseen_starts:
            self.unseen_starts ^= {now, (vm.source, f"{vm.uid}/{vm.generation + 1}")}

    def take(self, *pvcs: str, ran: bool = True) -> None:
        """Somebody's own machine, which is off, has these disks. `ran`: it was on for a while, when nobody looked."""
        his = TargetVm("shop", "his", "uid-his", "1", False, "", "", "", "", "Halted", Power.OFF, False, "", claims=frozenset(pvcs))
        self.targets["his"] = self.foreign["his"] = his
        for volume in self.volumes.values():
            if ran and volume.name in pvcs:
                self.content[volume.uid] = [-1, -1]

    @property
    def taken(self) -> frozenset[str]:
        return self.targets["his"].claims if "his" in self.targets else frozenset()

    def give_back(self) -> None:
        del self.targets["his"], self.foreign["his"]

    def back_up(self) -> None:
        self.backups.append({n: copy(getattr(self, n)) for n in ("volumes", "jobs", "targets", "binders")})

    def restore_cluster(self, index: int) -> None:
        """A target that runs because of it was not started by us."""
        running = {v.uid for v in self.targets.values() if v.power is Power.ON}
        for name, old in self.backups[index].items():
            setattr(self, name, dict(old))
        self.pods = []
        for name, volume in list(self.volumes.items()):
            if volume.uid in self.gone_uids or volume.uid not in self.content:
                self.volumes[name] = replace(volume, phase="Lost")
        for job in list(self.jobs.values()):  # pods are not in a backup; the Job controller calls such a Job failed
            if job.phase is JobPhase.RUNNING:
                self.jobs[job.name] = replace(job, phase=JobPhase.FAILED, exit_code=None)
                self.progress_of.pop(job.name, None)
        self.started_uids &= running & {v.uid for v in self.targets.values() if v.run_strategy == "Always"}
        self.targets = {k: replace(v, power=Power.ON if v.run_strategy == "Always" else Power.OFF) for k, v in self.targets.items()}

    def restore_git(self, index: int) -> None:
        self.records, self.ancestors = self.past[index][0], list(self.past[index][1])
        self.past = self.past[: index + 1]
        self.rewound_at = self.now
        self.processes = {name: self.newborn() for name in self.processes}

    # ---- judges ----

    def judge_commit(self, before: Records, after: Records) -> None:
        for key, record in after.vms.items():
            old = before.vms.get(key)
            if old is not None:
                assert record.milestone.order >= old.milestone.order, f"{key} went back from {old.milestone}"
                assert old.result is None or record.result is old.result, f"{key} ended twice"
                assert old.cancel_at is None or record.cancel_at == old.cancel_at, "a cancel is not withdrawn"
            if record.frozen and record.source and record.milestone.order >= 2 and (old is None or old.milestone.order < 2):
                for disk in record.frozen.disks:
                    volume = self.volumes.get(disk.pvc)
                    want = self.finals.get((disk.uuid, record.epoch))
                    if volume is not None:  # else TargetLost, or the guard of the start refuses
                        assert self.content.get(volume.uid) == want, f"handed over with other bytes in {disk.pvc}"

    def judge_act(self, action: Action) -> None:
        """Intents are in git before the act; what carries no key of ours is never named by one."""
        record = self.records.vms.get(action.key)
        assert record is not None and record.frozen is not None, "an act for a VM that git does not know"
        wanted = {
            "StartTarget": (IntentKind.START_TARGET,),
            "DropTargetVm": (IntentKind.DELETE_TARGET,),
            "DropVolumes": (IntentKind.DELETE_TARGET,),
            "PowerSource": (IntentKind.POWER_OFF_SOURCE, IntentKind.POWER_ON_SOURCE),
        }.get(type(action).__name__, ())
        if isinstance(action, PowerSource):
            wanted = (action.intent,)
            if action.want is PowerRequest.ON:
                assert record.milestone.order < 2, "the source is powered on behind the hand-over"
        open_ = {i.kind for i in record.intents if i.open}
        assert not wanted or open_ & set(wanted), f"{type(action).__name__} without a committed intent"

    def judge(self) -> None:
        """What must hold after every step."""
        for name, thing in self.foreign.items():
            now = self.targets.get(name) if isinstance(thing, TargetVm) else self.volumes.get(name)
            assert now == thing, f"foreign {name} was changed"
        for vm in self.vms.values():
            running = [t for t in self.targets.values() if t.source.endswith(f"/{vm.uuid}") and t.power is Power.ON]
            if vm.power is Power.ON and vm.name in self.ours_on:
                assert not [t for t in running if t.uid in self.started_uids], "both on by us"
            for disk in vm.disks:
                for volume in self.volumes.values():
                    self._judge_marks(vm, disk.uuid, disk.capacity_bytes, volume)

    def _judge_marks(self, vm: SourceVm, uuid: str, capacity: int, volume: Volume) -> None:
        """A mark or watermark of the epoch that the source is in now is never ahead of the bytes below it."""
        if volume.key != f"{vm.uuid}/{uuid}" or volume.phase == "Lost" or any(t.uid in volume.owners for t in self.targets.values()):
            return
        want, have = self.version[uuid], self.content[volume.uid]
        if have == [-1, -1] or volume.name in self.taken:
            return  # somebody started the target early, or took a disk: its marks are made dirty as soon as that is seen
        mark, low = volume.mark, volume.watermark
        # Proofs of a time before the reserved VM was changed are none, though they stand there until they are written anew.
        now = {f"{t.uid}/{t.generation}" for t in self.targets.values() if t.source.endswith(f"/{vm.uuid}")} or {""}
        if mark is not None and mark.target in now and (mark.volume_uid, mark.epoch) == (volume.uid, vm.epoch):
            assert vm.power is Power.OFF, f"a final mark on {volume.name} while the source runs"
            assert have == want, f"the mark of {volume.name} is ahead of its bytes"
        hashes = {sha256(one.encode()).hexdigest()[:8] for one in now}
        if low is not None and low.round_key.rpartition(".")[2] in hashes and low.round_key.split(":", 1)[1].rsplit(":", 1)[0] == vm.epoch:
            halves = low.proven_bytes * 2 // capacity
            assert have[:halves] == want[:halves], f"the watermark of {volume.name} is ahead of its bytes"

    def judge_quiet(self) -> None:
        """All runs ended: nothing temporary is left, and what is left stands in the records."""
        explained: set[str] = set()
        kept: set[str] = set()
        for record in self.records.vms.values():
            if record.frozen is None or record.result is None:
                continue
            explained.add(record.frozen.name)
            kept |= {d.pvc for d in record.frozen.disks}
        assert not self.jobs and not self.binders and not self.pods, (self.jobs, self.binders)
        assert {v.name for v in self.targets.values() if v.ours} <= explained
        assert {v.name for v in self.volumes.values() if v.ours} <= kept


assert VolumeMode  # the toy's PVCs are Filesystem ones
