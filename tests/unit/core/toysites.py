"""The drivers of LiveLand: what the real engine/execute.py acts on, so that its own guards stand between a decision and the toy world.

What it is: ports.SourceDriver and TargetDriver over the toy's dictionaries, refusing what real ones refuse (other owners, moved resource
versions, names that are taken). Each effect is judged where it lands. What it is not: a guard; whatever is asked for is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reconciler.core.actions import EnsureCopy, StartTarget
from reconciler.core.copyspec import CopyDisk, CopySpec, Reader, TlsSpec
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Absent, Known, Mark, ObjectRef, Power, PowerRequest, VmRef, Watermark
from reconciler.core.target import BinderSpec, CopyJob, Job, JobPhase, Owner, TargetVm, TargetVmSpec, Volume, VolumeSpec
from reconciler.errors import RetryableError, TerminalError
from reconciler.ports import Changes, CopySource, DiskChoice

if TYPE_CHECKING:
    from tests.unit.core.lives import LiveLand


@dataclass
class ToySites:
    land: LiveLand

    def source_at(self, ref: ObjectRef) -> ToySource:
        return ToySource(self.land)

    def target_at(self, ref: ObjectRef) -> ToyTarget:
        return ToyTarget(self.land)


@dataclass
class ToySource:
    land: LiveLand

    def read_vm(self, vm: VmRef) -> Known[SourceVm] | Absent:
        return self.land.looked(self.land.direct(vm.uuid))

    def request_power(self, vm: VmRef, want: PowerRequest) -> None:
        land = self.land
        land.direct(vm.uuid)
        with land.effect():
            if want is PowerRequest.ON:
                running = [t for t in land.targets.values() if t.power is Power.ON and t.source.endswith(vm.uuid)]
                assert not running, "both on by us"
                land.ours_on.add(vm.name)
                land.power_on(vm.name)
                return
            reserved = [t for t in land.targets.values() if t.source.endswith(vm.uuid)]
            assert reserved, "powered off though nothing is reserved"
            if want is PowerRequest.OFF or land.obey_shutdown:
                land.power_off(vm.name)

    def describe_copy(self, vm: SourceVm, disks: Sequence[DiskChoice], at: str | None = None) -> CopySource:
        urls = {d.disk_uuid: (Reader.HTTP_RANGE, f"toy:{d.disk_uuid}") for d in disks}
        return CopySource(urls, TlsSpec(), None, {}, 1, 1 << 20)

    def read_changes(self, vm: VmRef, at: str | None, since: Mapping[str, str]) -> Changes:
        return self.land.looked(self.land.changes(vm.uuid, at, since))

    def enable_tracking(self, vm: VmRef) -> None:
        with self.land.effect():
            self.land.track(vm.name, True)

    def ensure_snapshot(self, vm: VmRef, key: str) -> None:
        self.land.direct(vm.uuid)
        with self.land.effect():
            self.land.ensure_snapshot(vm.uuid, key)

    def drop_snapshot(self, vm: VmRef, key: str, merge: bool = False) -> None:
        self.land.direct(vm.uuid)
        with self.land.effect():
            self.land.drop_snapshot(vm.uuid, key, merge)


@dataclass
class ToyTarget:
    land: LiveLand

    # ---- reads ----

    def read_vm(self, namespace: str, name: str) -> Known[TargetVm] | Absent:
        found = self.land.targets.get(name)
        return self.land.looked(Known(found) if found else Absent())

    def read_vms(self, namespace: str) -> tuple[TargetVm, ...]:
        return self.land.looked(tuple(self.land.targets.values()))

    def read_volume(self, namespace: str, name: str) -> Known[Volume] | Absent:
        found = self.land.volumes.get(name)
        return self.land.looked(Known(self.land._with_writers(found)) if found else Absent())

    # ---- what a VM needs ----

    def ensure_namespace(self, name: str) -> None:
        with self.land.effect():
            self.land.namespaces.add(name)

    def ensure_volume(self, spec: VolumeSpec, adopt: Volume | None) -> None:
        land = self.land
        with land.effect():
            assert adopt is None or spec.name not in land.taken, f"{spec.name} is adopted, which somebody else has"
            found = land.volumes.get(spec.name)
            if found is None and adopt is None:
                land.make_volume(spec)
                made = replace(land.volumes[spec.name], commit=spec.owner.commit)
                land.volumes[spec.name] = made
                land.content[made.uid] = [0, 0]
            elif found is None:
                raise RetryableError("NotFound", spec.name)
            elif not found.ours or found.key != f"{spec.source_vm_uuid}/{spec.disk_uuid}":
                raise TerminalError("NameTaken", spec.name)
            elif found.migration != spec.owner.migration:
                if adopt is None or (adopt.uid, adopt.resource_version) != (found.uid, found.resource_version):
                    raise RetryableError("Conflict", spec.name)
                land.volumes[spec.name] = replace(found, migration=spec.owner.migration, commit=spec.owner.commit)

    def ensure_binder(self, spec: BinderSpec) -> None:
        with self.land.effect():
            if any(pvc not in self.land.volumes for pvc, _ in spec.volumes):
                raise RetryableError("NotFound", spec.name)
            self.land.bind(spec)

    def drop_binder(self, namespace: str, name: str, owner: Owner) -> None:
        with self.land.effect():
            if name in self.land.binders:
                self.land.unbind(name)

    def ensure_vm(self, spec: TargetVmSpec) -> None:
        land, owner = self.land, spec.owner
        with land.effect():
            found = land.targets.get(spec.name)
            if found is None:
                land.make_vm(spec)
                found = replace(land.targets[spec.name], uid=f"uid-{land.serial}")
            elif not found.ours or found.source != owner.source:
                raise TerminalError("NameTaken", spec.name)
            land.targets[spec.name] = replace(found, migration=owner.migration, milestone=owner.milestone, commit=owner.commit)

    def request_power(self, namespace: str, name: str, want: Power, owner: Owner) -> None:
        """Only a start: each byte is judged that the guest would see."""
        land = self.land
        action = land.action
        assert want is Power.ON and isinstance(action, StartTarget)
        with land.effect():
            vm = land.targets.get(name)
            assert vm is not None and vm.ours and vm.source == owner.source, "what is started is not the reserved VM"
            source = next((v for v in land.vms.values() if v.uuid == action.source.uuid), None)
            assert source is not None and source.power is Power.OFF, "both on by us"
            assert {d.uuid for d in source.disks} == {u for _, u in action.volumes}, "started without all disks"
            assert vm.power is not Power.ON, "a start is asked for twice"
            for pvc, uuid in action.volumes:
                assert land.content[land.volumes[pvc].uid] == land.version[uuid], f"{pvc} does not hold the bytes of {uuid}"
            land.started_uids.add(vm.uid)
            on = replace(vm, power=Power.ON, ready=True, run_strategy="Always", generation=vm.generation + 1)
            land.targets[name] = replace(on, milestone=owner.milestone, commit=owner.commit)

    # ---- copies and proofs ----

    def ensure_copy(self, job: CopyJob, disks: Sequence[CopyDisk], source: CopySource, spec: CopySpec) -> None:
        land = self.land
        action = land.action
        assert isinstance(action, EnsureCopy)
        with land.effect():
            if (found := land.jobs.get(job.name)) is not None:
                if found.round_key != job.round_key:
                    raise TerminalError("NameTaken", job.name)
                return
            land.judge_copy(action)
            run, slug = job.owner.migration, job.owner.vm
            land.jobs[job.name] = Job(
                job.namespace, job.name, job.name, JobPhase.RUNNING, run, slug, job.round_key, job.attempt, None, "", ""
            )
            land.begin_pod(job.name, action, disks)

    def drop_copy(self, namespace: str, name: str, owner: Owner) -> None:
        with self.land.effect():
            if (job := self.land.jobs.get(name)) is not None:
                self._must_own(True, job.migration, owner)
                self.land.jobs[name] = replace(job, deleting=True)

    def put_mark(self, volume: Volume, mark: Mark | None, owner: Owner) -> None:
        with self.land.effect():
            now = self._swap(volume)
            self._must_own(now.ours, now.migration, owner)
            watermark = None if mark is None else now.watermark
            self.land.volumes[volume.name] = replace(now, mark=mark, watermark=watermark, commit=owner.commit)

    def put_watermark(self, volume: Volume, watermark: Watermark) -> None:
        with self.land.effect():
            self.land.volumes[volume.name] = replace(self._swap(volume), watermark=watermark)

    # ---- the way back, and the end ----

    def release_volumes(self, vm: TargetVm, volumes: Sequence[Volume], owner: Owner) -> None:
        with self.land.effect():
            for seen in volumes:
                now = self.land.volumes.get(seen.name)
                if now is None or now.uid != seen.uid:
                    raise RetryableError("Conflict", seen.name)
            self.land.give(vm, tuple(volumes))

    def drop_vm(self, namespace: str, name: str, owner: Owner) -> None:
        with self.land.effect():
            if (found := self.land.targets.get(name)) is not None:
                self._must_own(found.ours, found.migration, owner)
                assert found.power is Power.OFF, "a VM is deleted while it runs"
                del self.land.targets[name]

    def drop_volume(self, namespace: str, name: str, owner: Owner) -> None:
        with self.land.effect():
            if (found := self.land.volumes.get(name)) is not None:
                self._must_own(found.ours, found.migration, owner)
                busy = [w.pod for w in self.land._with_writers(found).writers if not w.fenced]
                assert not busy, f"{name} is deleted while {busy} may write to it"
                self.land.forget(name)

    def _swap(self, seen: Volume) -> Volume:
        now = self.land.volumes.get(seen.name)
        if now is None or (now.uid, now.resource_version) != (seen.uid, seen.resource_version):
            raise RetryableError("Conflict", seen.name)
        return now

    @staticmethod
    def _must_own(ours: bool, migration: str, owner: Owner) -> None:
        if not ours or migration != owner.migration:
            raise TerminalError("NotOurs", migration)
