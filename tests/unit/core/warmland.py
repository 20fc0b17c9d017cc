"""The toy world with snapshots, change tracking and guests that write all the time: what a warm run meets, and judges of its rules.

What it is: LiveLand where a source disk is a log of writes, a snapshot freezes what was written, and a delta copies only what the log says.
A copy that reads a snapshot somebody removed reads what the guest writes now. What it is not: a driver: a change id of another time, which
the driver would doubt, is refused here by its number. Tasks end one beat after they were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from reconciler.core.actions import EnsureCopy
from reconciler.core.datapath import DATASTORE, EXPORT
from reconciler.core.desired import Desired
from reconciler.core.inventory import Backing, Inventory, SourceDisk, SourceSnapshot, SourceVm
from reconciler.core.model import Absent, Known, MarkState, Power
from reconciler.core.record import Category, IntentKind, Records, VmRecord
from reconciler.core.target import Volume
from reconciler.core.warming import MAX_SKEW_S
from reconciler.errors import RetryableError
from reconciler.ports import Changes
from tests.unit.core.lives import LiveLand, Pod
from tests.unit.core.toyland import source_vm

BLOCKS = (0, 1)
STRAY_PASSES = 12  # a snapshot whose round was abandoned goes within a few passes that see the source


def warm_vm(name: str, *, disks: int = 1, number: int = 1, power: Power = Power.ON) -> SourceVm:
    vm = source_vm(name, disks=disks, number=number, power=power)
    return replace(vm, change_tracking=True, disks=tuple(replace(d, change_tracking=True) for d in vm.disks))


@dataclass(frozen=True)
class Snap:
    """`frozen`: disk uuid -> its halves; `ids`: disk uuid -> change id, where changes are tracked; `files`: what each disk was then."""

    id: str
    key: str | None
    frozen: dict[str, list[int]]
    ids: dict[str, str]
    disks: tuple[SourceDisk, ...]


@dataclass
class Tracker:
    """Of one VM. A new generation makes all older change ids worthless."""

    generation: int = 1
    log: list[tuple[int, str, int]] = field(default_factory=list)  # (serial, disk, half)
    states: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # change id -> disk -> halves then


class WarmLand(LiveLand):
    def __init__(self, vms: dict[str, SourceVm], desired: Desired) -> None:
        self.trackers = {v.uuid: Tracker() for v in vms.values()}
        self.chains: dict[str, list[Snap]] = {v.uuid: [] for v in vms.values()}
        self.tasks: list[tuple[str, str, Callable[[], None]]] = []  # (VM uuid, key, what ends at the next beat)
        self.leftovers: set[str] = set()  # VMs that need consolidation
        self.theirs: set[str] = set()  # of those, where somebody else left files
        self.sloppy = False  # removals leave files behind
        self.locked = False  # the base of a running VM cannot be read
        self.beats, self.slow = 0, 1  # a pod gets on at every n-th beat
        self.skew_s = 0.0
        self.read_s = 0.0  # how long after the pass began the source tells its time
        self.strays: dict[str, int] = {}
        self.restored = False
        super().__init__(vms, desired)

    # ---- the source ----

    def write(self, name: str) -> None:
        """One half, the other, both, or none."""
        vm = self.vms[name]
        tracker = self.trackers[vm.uuid]
        for disk in vm.disks:
            self.serial += 1
            halves = ((0,), (1,), (0, 1), ())[self.serial % 4]
            for half in halves:
                self.version[disk.uuid] = [self.serial if i == half else v for i, v in enumerate(self.version[disk.uuid])]
                tracker.log.append((self.serial, disk.uuid, half))

    def shown(self, vm: SourceVm, *, direct: bool) -> SourceVm:
        chain = self.chains[vm.uuid]
        left = ("leftover.vmdk",) if vm.uuid in self.leftovers else ()
        disks = tuple(replace(d, backing=self._backing(d, chain, left)) for d in vm.disks)
        seen = tuple(
            SourceSnapshot(
                s.id, s.key or "backup", s.key, tuple(replace(d, change_id=s.ids.get(d.uuid)) for d in s.disks) if direct else ()
            )
            for s in chain
        )
        return replace(vm, disks=disks, snapshots=seen, consolidation_needed=vm.uuid in self.leftovers)

    @staticmethod
    def _backing(disk: SourceDisk, chain: list[Snap], left: tuple[str, ...]) -> Backing:
        """The live file, its parents nearest first: the base, then one file for each snapshot."""
        files = [disk.backing.file, *left, *(f"{s.id}-{disk.uuid}" for s in chain)]
        return replace(disk.backing, file=files[-1], parents=tuple(reversed(files[:-1])))

    def inventory(self) -> Inventory:
        seen = super().inventory()
        asked_at = self.now + timedelta(seconds=self.read_s)
        site = replace(seen.site, time_at=asked_at - timedelta(seconds=self.skew_s), asked_at=asked_at)
        return replace(seen, site=site, vms=tuple(self.shown(v, direct=False) for v in self.vms.values()))

    def direct(self, uuid: str) -> Known[SourceVm] | Absent:
        found = super().direct(uuid)
        return Known(self.shown(found.value, direct=True)) if isinstance(found, Known) else found

    def freeze(self, uuid: str, key: str | None) -> None:
        vm = next(v for v in self.vms.values() if v.uuid == uuid)
        tracker = self.trackers[uuid]
        self.serial += 1
        change_id = f"{tracker.generation}/{self.serial}"
        frozen = {d.uuid: list(self.version[d.uuid]) for d in vm.disks}
        ids = {d.uuid: change_id for d in vm.disks if vm.change_tracking and d.change_tracking}
        tracker.states[change_id] = frozen
        disks = self.shown(vm, direct=False).disks
        self.chains[uuid].append(Snap(f"snap-{self.serial}", key, frozen, ids, disks))

    def remove(self, uuid: str, snap: Snap) -> None:
        """What stood on it moves down one file, so that later snapshots freeze a shorter chain."""
        gone = self.chains[uuid].index(snap)
        rest = [s for s in self.chains[uuid] if s is not snap]
        for i, s in enumerate(rest[gone:], gone):
            plain = {d.uuid: d for v in self.vms.values() for d in v.disks}
            disks = tuple(replace(d, backing=self._backing(plain[d.uuid], rest[:i], ())) for d in s.disks if d.uuid in plain)
            rest[i] = replace(s, disks=disks)
        self.chains[uuid] = rest
        if self.sloppy:
            self.leftovers.add(uuid)

    def forget_changes(self, name: str) -> None:
        self.trackers[self.vms[name].uuid].generation += 1

    def track(self, name: str, on: bool) -> None:
        vm = self.vms[name]
        self.vms[name] = replace(vm, change_tracking=on, disks=tuple(replace(d, change_tracking=on) for d in vm.disks))
        self.forget_changes(name)

    def revert(self, name: str) -> None:
        """To the newest snapshot of somebody else: the machine is off afterwards, and what was written since is gone."""
        vm = self.vms[name]
        foreign = next((s for s in reversed(self.chains[vm.uuid]) if s.key is None), None)
        if foreign is None or vm.power is not Power.ON:
            return
        super(LiveLand, self).power_off(name)
        self.version.update({u: list(h) for u, h in foreign.frozen.items()})
        self.forget_changes(name)
        self.keep_finals()

    # ---- time ----

    def go_on(self, seconds: float = 1.0) -> None:
        self.beats += 1
        tasks, self.tasks = self.tasks, []
        for _, _, end in tasks:
            end()
        super().go_on(seconds)

    def _copy_on(self, pod: Pod) -> None:
        path = {d.path for d in pod.action.disks}
        if self.locked and pod.action.at is not None and DATASTORE in path:
            if not pod.lost:
                self.end_pod(pod, 75, "SourceLocked")
            return
        if self.beats % self.slow == 0:
            super()._copy_on(pod)

    def _read_half(self, pod: Pod, uuid: str) -> int:
        at = pod.action.at
        snap = next((s for chain in self.chains.values() for s in chain if s.id == at), None)
        return snap.frozen[uuid][pod.step] if snap is not None else super()._read_half(pod, uuid)

    def _lines(self, pod: Pod) -> tuple:  # type: ignore[type-arg]
        path = {d.disk_uuid: d.path for d in pod.action.disks}
        return tuple(replace(p, watermark_bytes=0) if path[p.uuid] == EXPORT else p for p in super()._lines(pod))

    # ---- what the drivers are made of ----

    def ensure_snapshot(self, uuid: str, key: str) -> None:
        if any(s.key == key for s in self.chains[uuid]) or any(t[0] == uuid for t in self.tasks):
            return
        assert not [s for s in self.chains[uuid] if s.key], "a second snapshot of ours"
        assert self.action is not None
        record = self.records.vms[self.action.key]
        assert record.rounds and record.rounds[-1].ended is None, "a snapshot is made for a round that git does not know"
        self.tasks.append((uuid, key, lambda: self.freeze(uuid, key)))

    def drop_snapshot(self, uuid: str, key: str, merge: bool) -> None:
        if any(t[0] == uuid and t[1] == key for t in self.tasks):
            raise RetryableError("Busy", key)
        snap = next((s for s in self.chains[uuid] if s.key == key), None)
        if snap is None:
            if merge and not self.chains[uuid]:
                assert uuid not in self.theirs, "files are merged that somebody else left"
                self.leftovers.discard(uuid)
            return
        readers = [p.job for p in self.pods if p.action.at == snap.id]
        assert not readers, f"our snapshot is removed while {readers} may still read it"
        self.tasks.append((uuid, f"drop {key}", lambda: self.remove(uuid, snap) if snap in self.chains[uuid] else None))

    def changes(self, uuid: str, at: str | None, since: Mapping[str, str]) -> Changes:
        tracker = self.trackers[uuid]
        snap = next((s for s in self.chains[uuid] if s.id == at), None)
        capacity = {d.uuid: d.capacity_bytes for v in self.vms.values() for d in v.disks}
        areas: dict[str, list[tuple[int, int]]] = {}
        doubts: dict[str, str] = {}
        for disk, change_id in since.items():
            generation, _, number = change_id.partition("/")
            until = snap.ids.get(disk, "0/0") if snap else f"{tracker.generation}/{self.serial}"
            if generation != str(tracker.generation) or not until.startswith(f"{generation}/"):
                doubts[disk] = "forgotten"
                continue
            last = int(until.partition("/")[2])
            half = capacity[disk] // 2
            areas[disk] = [(h * half, half) for h in sorted({h for n, d, h in tracker.log if d == disk and int(number) < n <= last})]
        return Changes(areas, doubts)

    # ---- judges ----

    def judge_copy(self, action: EnsureCopy) -> None:
        super().judge_copy(action)
        if action.at is not None:
            assert any(s.id == action.at for s in self.chains[action.source.uuid]), "a copy of a snapshot that is gone"

    def judge_commit(self, before: Records, after: Records) -> None:
        super().judge_commit(before, after)
        for key, record in after.vms.items():
            old = before.vms.get(key)
            if _declared(record) > (_declared(old) if old else 0) and not (old and _latched(old)):
                at = self.desired.migrations[record.run].cutover_at if record.run in self.desired.migrations else None
                assert at is not None and at <= self.now, "powered off before its cutover"
                assert abs(self.skew_s) <= MAX_SKEW_S, "powered off though nobody knows what time it is"

    def judge(self) -> None:
        super().judge()
        for vm in self.vms.values():
            ours = [s for s in self.chains[vm.uuid] if s.key]
            making = [k for u, k, _ in self.tasks if u == vm.uuid and not k.startswith("drop")]
            assert len(ours) + len(making) <= 1, f"two snapshots of ours on {vm.name}"
            mine = [r for r in self.records.vms.values() if r.source and r.source.uuid == vm.uuid]
            if (ours or making) and not self.restored:
                assert any(r.result is None for r in mine), f"a snapshot of ours outlives the run of {vm.name}"

    def count_strays(self) -> None:
        """After each pass: a snapshot of ours without a round, which nothing holds and everybody sees, goes soon."""
        for vm in self.vms.values():
            ours = [s for s in self.chains[vm.uuid] if s.key]
            mine = [r for r in self.records.vms.values() if r.source and r.source.uuid == vm.uuid and r.result is None]
            quiet = bool(mine) and all(not _round_open(r) and not r.unwinding and not _held(r) for r in mine)
            stray = bool(ours) and quiet and not self.source_unknown and not any(p.lost for p in self.pods)
            self.strays[vm.uuid] = self.strays.get(vm.uuid, 0) + 1 if stray else 0
            assert self.strays[vm.uuid] <= STRAY_PASSES, f"a snapshot of ours stays on {vm.name} between rounds"

    def _judge_marks(self, vm: SourceVm, uuid: str, capacity: int, volume: Volume) -> None:
        if volume.key != f"{vm.uuid}/{uuid}" or volume.phase == "Lost" or any(t.uid in volume.owners for t in self.targets.values()):
            return
        have, mark, low = self.content[volume.uid], volume.mark, volume.watermark
        if have == [-1, -1] or volume.name in self.taken | self.told_spoilt:
            return
        now = {f"{t.uid}/{t.generation}" for t in self.targets.values() if t.source.endswith(f"/{vm.uuid}")} or {""}
        finals = {r.number for v in self.records.vms.values() if v.source and v.source.uuid == vm.uuid for r in v.rounds if r.final}
        believed = mark is not None and mark.target in now and mark.volume_uid == volume.uid
        tracker = self.trackers[vm.uuid]
        if believed and mark and mark.change_id and mark.state is MarkState.CLEAN:
            then = tracker.states[mark.change_id][uuid]
            generation, _, since = mark.change_id.partition("/")
            if generation == str(tracker.generation):
                for half in BLOCKS:
                    written = any(d == uuid and h == half and n > int(since) for n, d, h in tracker.log)
                    proven = capacity if mark.proven_bytes is None else mark.proven_bytes
                    inside = (half + 1) * capacity // 2 <= proven
                    assert have[half] == then[half] or written or not inside, f"the mark of {volume.name} is ahead of its bytes"
        if believed and mark and mark.epoch == vm.epoch and (mark.change_id is None or mark.round in finals) and not self.restored:
            assert have == self.version[uuid], f"the final mark of {volume.name} is ahead of its bytes"
        if low is not None and low.round_key.rpartition(".")[2] in _hashes(now):
            when = low.round_key.split(":", 1)[1].rsplit(":", 1)[0]
            number = int(low.round_key.rsplit(":", 1)[1].split(".")[0])
            ours = (s for s in self.chains[vm.uuid] if s.id == when and (s.key or "").endswith(f"/r{number}"))
            runs = {"/".join((s.key or "").split("/")[1:3]): s for s in ours}
            snap = next((s for run, s in runs.items() if low.round_key.split(".")[-2] in _hashes({run})), None)
            final = when == vm.epoch and number in finals and not self.restored
            want = snap.frozen[uuid] if snap else self.version[uuid] if final else None
            halves = low.proven_bytes * 2 // capacity
            assert want is None or have[:halves] == want[:halves], f"the watermark of {volume.name} is ahead of its bytes"


def _hashes(reserved: set[str]) -> set[str]:
    from hashlib import sha256

    return {sha256(one.encode()).hexdigest()[:8] for one in reserved}


def _declared(record: VmRecord) -> int:
    return sum(i.kind is IntentKind.POWER_OFF_SOURCE for i in record.intents)


def _latched(record: VmRecord) -> bool:
    return any(i.kind is IntentKind.POWER_OFF_SOURCE and not i.void for i in record.intents)


def _round_open(record: VmRecord) -> bool:
    return bool(record.rounds) and record.rounds[-1].ended is None


def _held(record: VmRecord) -> bool:
    return any(c.category is Category.CRITICAL for c in record.conditions)
