"""A toy world that bites: copies that take time, guards read again, deaths, lost pushes, two reconcilers, people and restores.

What it is: Toyland with the real decide, execute, guards, memory, urgency and rewind check, one pass at a time, each with a fate.
Bytes are versions: a running source makes a new one at every beat, a copy carries them over in halves.
What it is not: the engine (engine/loop.py) or a platform; the order of steps in `one_pass` is the engine's, written down once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TypeVar

from reconciler.core.actions import ActError, Action, EnsureCopy, Outcome, PowerSource
from reconciler.core.copyspec import CopyDisk, CopyResult, DiskProgress, DiskResult, result_line
from reconciler.core.decide import decide
from reconciler.core.desired import Desired
from reconciler.core.inventory import Inventory, SourceVm
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Absent, Known, ObjectRef, Power, PowerRequest, Unknown
from reconciler.core.record import IntentKind, Records
from reconciler.core.target import JobPhase, TargetInventory, TargetVm, Volume, Writer
from reconciler.core.view import Observed
from reconciler.engine import publish
from reconciler.engine.execute import Hands, execute
from reconciler.engine.memory import Recollection
from reconciler.engine.observe import Watch, rewound
from reconciler.engine.publish import Urgency
from reconciler.errors import RetryableError
from reconciler.ports import Changes
from tests.unit.core.toyland import HOST, SOURCE, Toyland
from tests.unit.core.toysites import ToySites

T = TypeVar("T")
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


@dataclass
class ToyRepo:
    """What an act asks of the repo."""

    land: LiveLand
    who: str

    def lease_age_s(self) -> float | None:
        return self.land.lease_age_s if self.land.lease == self.who else None


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
    """What becomes of one pass. `between` happens after the publish and before the acts, `asleep` in each behind its first direct read."""

    push_lost: bool = False
    die: str = ""  # published, acted
    between: Callable[[], None] | None = None
    asleep: Callable[[], None] | None = None
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
        self.actor = ""
        self.action: Action | None = None  # the act under way, and whose it is
        self.asleep: Callable[[], None] | None = None
        self.lease_age_s = 0.0
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
        return Observed({SOURCE: seen}, {HOST: Known(self.target())}, lines), indexes

    def is_ancestor(self, commit: str, of: str) -> bool:
        return commit in self.ancestors

    # ---- a pass ----

    def one_pass(self, who: str = "a", fate: Fate | None = None) -> None:
        fate, me = fate or Fate(), self.processes[who]
        drafted = me.draft is not None and me.draft.commit == self.records.commit
        records = me.draft if drafted and me.draft else self.records
        seen, indexes = self.observed()
        me.recall.look(seen, records)
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
        """By the engine's own hands. Nested where `fate.asleep` lets the other reconciler act in the middle of it."""
        name = type(action).__name__
        kind, lands = fate.faults.get(name, ("", True))
        error = ActError(kind, "Injected", "injected") if kind else None
        if not lands:
            return Outcome(action.key, name, self.now, error)
        before = (self.actor, self.action, self.asleep)
        self.actor, self.action, self.asleep = who, action, fate.asleep
        outcome = execute(action, Hands(ToySites(self), ToyRepo(self, who), self.clock, TTL_S))  # type: ignore[arg-type]
        self.actor, self.action, self.asleep = before
        assert outcome.error is None or outcome.error.kind != "internal", outcome.error
        return Outcome(action.key, name, self.now, error) if error else outcome

    # ---- what the drivers are made of (toysites.py) ----

    def looked(self, seen: T) -> T:
        """What a direct read has found may be old by the time that its answer is there."""
        asleep, self.asleep = self.asleep, None
        if asleep is not None:
            asleep()
        return seen

    @contextmanager
    def effect(self) -> Iterator[None]:
        """Around everything that a driver changes: it is judged, and what was changed has another resource version."""
        assert self.action is not None and self.lease == self.actor, f"{self.action} without the lease"
        self.judge_act(self.action)
        self.serial += 1
        before = dict(self.volumes)
        try:
            yield
        finally:
            for name, volume in self.volumes.items():
                if name in before and before[name] != volume:
                    self.volumes[name] = replace(volume, resource_version=str(int(volume.resource_version) + 1))

    def direct(self, uuid: str) -> Known[SourceVm] | Absent:
        if self.source_unknown:
            raise RetryableError("Unreachable", "down")
        found = next((v for v in self.vms.values() if v.uuid == uuid), None)
        return Known(found) if found else Absent()

    def changes(self, uuid: str, at: str | None, since: Mapping[str, str]) -> Changes:
        raise NotImplementedError

    def track(self, name: str, on: bool) -> None:
        raise NotImplementedError

    def ensure_snapshot(self, uuid: str, key: str) -> None:
        raise NotImplementedError

    def drop_snapshot(self, uuid: str, key: str, merge: bool) -> None:
        raise NotImplementedError

    def begin_pod(self, job: str, action: EnsureCopy, disks: Sequence[CopyDisk]) -> None:
        self.progress_of.pop(job, None)
        self.pods.append(Pod(job, action, ranges={d.uuid: _halves(d) for d in disks if d.ranges is not None}))

    def forget(self, pvc: str) -> None:
        uid = self.volumes.pop(pvc).uid
        self.content.pop(uid, None)
        self.gone_uids.add(uid)

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

    @property
    def told_spoilt(self) -> frozenset[str]:
        """PVCs of which git says that nothing proven of them counts: a run that is held cannot take it off yet."""
        return frozenset(pvc for record in self.records.vms.values() for pvc in record.spoilt)

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

    def judge_copy(self, action: EnsureCopy) -> None:
        """Safety 4, and cold: nothing is copied from a guest that runs."""
        for _, pvc, _ in action.job.volumes:
            assert pvc in self.volumes, f"{pvc} is not there"
            busy = [w.pod for w in self._with_writers(self.volumes[pvc]).writers if not w.fenced and w.role != "binder"]
            assert not busy, f"a copy to {pvc} beside {busy}"
            assert pvc not in self.taken, f"a copy to {pvc}, which somebody else has"
        source = next(v for v in self.vms.values() if v.uuid == action.source.uuid)
        if action.at is None:
            assert (source.power, source.epoch) == (Power.OFF, action.epoch), f"{source.name} is copied as of another time"

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
        if have == [-1, -1] or volume.name in self.taken | self.told_spoilt:
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


def _halves(disk: CopyDisk) -> frozenset[int]:
    half = disk.capacity_bytes // 2
    return frozenset(h for h in (0, 1) for at, length in disk.ranges or () if at < (h + 1) * half and at + length > h * half)
