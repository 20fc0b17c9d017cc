"""A toy of both sites for the pure core: inventories as values, and what each action does to them.

Not a fake of any platform (the lab is that): it only says what the world looks like after an action landed, so that `decide` can be walked
from a commit to the end, thousands of times a second, without I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from reconciler.core import archive
from reconciler.core.actions import (
    ActError,
    Action,
    DropBinder,
    DropCopy,
    DropTargetVm,
    DropVolumes,
    EnsureBinder,
    EnsureCopy,
    EnsureNamespace,
    EnsureVm,
    EnsureVolumes,
    Outcome,
    PowerSource,
    ProveOff,
    PutMarks,
    PutWatermarks,
    ReleaseVolumes,
    StartTarget,
    VmKey,
)
from reconciler.core.copyspec import CopyResult, DiskResult, result_line
from reconciler.core.decide import Memory, decide
from reconciler.core.desired import (
    Desired,
    InventoryRef,
    MigrationSpec,
    NetworkMapSpec,
    NetworkPair,
    Place,
    PlanSpec,
    PlanVm,
    ProviderSpec,
    StorageMapSpec,
    StoragePair,
)
from reconciler.core.inventory import Backing, Inventory, NamedItem, SiteInfo, SourceDisk, SourceNic, SourceVm
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Known, Mode, ObjectRef, Power, PowerRequest, Unknown
from reconciler.core.record import Records
from reconciler.core.target import (
    Binder,
    BinderSpec,
    Job,
    JobPhase,
    StorageClass,
    TargetInventory,
    TargetVm,
    TargetVmSpec,
    Volume,
    VolumeMode,
    VolumeSpec,
    Writer,
)
from reconciler.core.view import Observed

NS = "openshift-mtv"
SOURCE, HOST = ObjectRef(NS, "vc"), ObjectRef(NS, "host")
PLAN, RUN = ObjectRef(NS, "wave"), ObjectRef(NS, "run-1")
START = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = Place("plans/wave.yaml", 1)
GIB = 1 << 30


def source_vm(name: str, *, power: Power = Power.ON, disks: int = 1, host: str = "host-1", number: int = 1) -> SourceVm:
    return SourceVm(
        id=f"vm-{number}",
        uuid=f"uuid-{name}",
        bios_uuid=f"42000000-0000-0000-0000-{number:012d}",
        name=name,
        path=f"/DC/vm/{name}",
        power=power,
        tools_running=True,
        firmware="bios",
        secure_boot=False,
        tpm=False,
        cpus=2,
        cores_per_socket=1,
        memory_bytes=GIB,
        guest_id="rhel9_64Guest",
        guest_name="RHEL",
        host_id=host,
        disks=tuple(
            SourceDisk(
                key=str(2000 + i),
                uuid=f"disk-{name}-{i}",
                label=f"[ds] {name}/{name}_{i}.vmdk",
                capacity_bytes=GIB,
                storage_id="ds-1",
                storage_name="ds",
                bus="scsi",
                controller_key=1000,
                unit=i,
                mode="persistent",
                backing=Backing("FlatVer2", f"[ds] {name}/{name}_{i}.vmdk", datastore_type="VMFS", datacenter_path="DC"),
            )
            for i in range(disks)
        ),
        nics=(SourceNic("4000", f"00:50:56:00:{number // 256:02x}:{number % 256:02x}", "net-1", "VM Network", "vmxnet3"),),
        epoch=f"on:{number}",
    )


def desired_for(names: list[str], *, revision: str = "c1", **plan: object) -> Desired:
    spec = PlanSpec(
        ref=PLAN,
        place=PLACE,
        description="",
        source=SOURCE,
        destination=HOST,
        network_map=ObjectRef(NS, "net"),
        storage_map=ObjectRef(NS, "store"),
        target_namespace="shop",
        mode=Mode.COLD,
        type="cold",
        archived=False,
        vms=tuple(PlanVm(InventoryRef(name=n), PLACE) for n in names),
        skip_conversion=True,
    )
    return Desired(
        revision=revision,
        providers={
            SOURCE: ProviderSpec(SOURCE, "vsphere", "https://vc/sdk", ObjectRef(NS, "s"), {}, PLACE),
            HOST: ProviderSpec(HOST, "openshift", "", None, {}, PLACE),
        },
        network_maps={
            ObjectRef(NS, "net"): NetworkMapSpec(
                ObjectRef(NS, "net"), SOURCE, HOST, (NetworkPair(InventoryRef(name="VM Network"), "pod"),), PLACE
            )
        },
        storage_maps={
            ObjectRef(NS, "store"): StorageMapSpec(
                ObjectRef(NS, "store"), SOURCE, HOST, (StoragePair(InventoryRef(name="ds"), "fast"),), PLACE
            )
        },
        plans={PLAN: replace(spec, **plan)},  # type: ignore[arg-type]
        migrations={RUN: MigrationSpec(RUN, PLACE, PLAN)},
    )


@dataclass
class Toyland:
    """Both sites and the process's memory; `tick` is one pass. `fail`: action name -> error to give once."""

    vms: dict[str, SourceVm]
    desired: Desired
    records: Records = field(default_factory=lambda: Records("s0"))
    now: datetime = START
    namespaces: set[str] = field(default_factory=set)
    volumes: dict[str, Volume] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    binders: dict[str, Binder] = field(default_factory=dict)
    targets: dict[str, TargetVm] = field(default_factory=dict)
    outcomes: dict[VmKey, Outcome] = field(default_factory=dict)
    acted: dict[VmKey, set[str]] = field(default_factory=dict)
    seen_on: dict[VmKey, datetime] = field(default_factory=dict)
    fail: dict[str, ActError] = field(default_factory=dict)
    log: list[Action] = field(default_factory=list)
    source_unknown: bool = False
    obey_shutdown: bool = True
    job_exit: list[int] = field(default_factory=list)
    trial_exit: list[int] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)  # disks that no copy gets to the end of
    serial: int = 0

    def inventory(self) -> Inventory:
        return Inventory(
            SiteInfo("vc-uuid", "vCenter", "8.0.3", None),
            tuple(self.vms.values()),
            (NamedItem("net-1", "VM Network"),),
            (NamedItem("ds-1", "ds", "VMFS"),),
            (NamedItem("host-1", "esx1"),),
        )

    def target(self) -> TargetInventory:
        return TargetInventory(
            site=SiteInfo("kube-uid", "Kubernetes", "1.34", None),
            namespaces=frozenset(self.namespaces),
            storage_classes=(StorageClass("fast", True, VolumeMode.FILESYSTEM, "ReadWriteOnce", 0.06),),
            networks=frozenset(),
            volumes=tuple(self.volumes.values()),
            jobs=tuple(self.jobs.values()),
            binders=tuple(self.binders.values()),
            vms=tuple(self.targets.values()),
        )

    def tick(self, seconds: float = 1.0) -> None:
        self.now += timedelta(seconds=seconds)
        inventory = self.inventory()
        seen: Known[Inventory] | Unknown = Unknown("Unreachable", "down") if self.source_unknown else Known(inventory)
        observed = Observed({SOURCE: seen}, {HOST: Known(self.target())})
        indexes = {} if self.source_unknown else {SOURCE: SiteIndex(inventory)}
        memory = Memory(
            outcomes=dict(self.outcomes),
            watched=dict.fromkeys(self.records.vms, seconds),
            read_s=seconds,
            acted={k: frozenset(v) for k, v in self.acted.items()},
            origin="repo",
            descends=frozenset(self.records.runs),
            seen_on=dict(self.seen_on),
        )
        after, decision = decide(self.desired, observed, self.records, memory, indexes, self.now)
        self.records, decision = archive.advance(self.desired, observed, after, decision, memory, self.now)
        self.seen_on |= decision.seen_on
        self.outcomes = {}
        assert len({a.key for a in decision.actions}) == len(decision.actions), "at most one action per VM"
        for action in decision.actions:
            self.log.append(action)
            self.outcomes[action.key] = self._act(action)

    def _act(self, action: Action) -> Outcome:
        name = type(action).__name__
        if (error := self.fail.pop(name, None)) is not None:
            return Outcome(action.key, name, self.now, error)
        found = self._apply(action)
        return Outcome(action.key, name, self.now, None, None if isinstance(found, tuple) else found)

    def _apply(self, action: Action) -> Known[SourceVm] | tuple[tuple[str, str], ...] | None:
        self.serial += 1
        match action:
            case EnsureNamespace():
                self.namespaces.add(action.namespace)
            case EnsureVolumes():
                for spec, adopt in action.volumes:
                    if adopt:
                        self.volumes[spec.name] = replace(adopt, migration=spec.owner.migration)
                    else:
                        self.make_volume(spec)
            case EnsureBinder():
                self.bind(action.spec)
            case DropBinder():
                self.unbind(action.name)
            case EnsureVm():
                self.make_vm(action.spec)
            case PowerSource():
                self._power(action)
            case ProveOff():
                return Known(next(v for v in self.vms.values() if v.uuid == action.vm.uuid))
            case EnsureCopy():
                self._copy(action)
            case PutMarks():
                for volume, mark in action.marks:
                    kept = replace(self.volumes[volume.name], mark=mark)
                    self.volumes[volume.name] = replace(kept, watermark=None) if mark is None else kept
            case PutWatermarks():
                for volume, watermark in action.watermarks:
                    self.volumes[volume.name] = replace(self.volumes[volume.name], watermark=watermark)
            case DropCopy():
                self.jobs.pop(action.name, None)
            case StartTarget():
                self.targets[action.name] = replace(
                    self.targets[action.name], power=Power.ON, ready=True, run_strategy="Always", generation=2
                )
            case ReleaseVolumes():
                self.give(action.vm, action.volumes)
            case DropTargetVm():
                del self.targets[action.name]
            case DropVolumes():
                for pvc in action.names:
                    del self.volumes[pvc]
        return None

    def make_volume(self, spec: VolumeSpec) -> None:
        self.volumes[spec.name] = Volume(
            namespace=spec.namespace,
            name=spec.name,
            uid=f"uid-{self.serial}-{spec.name}",
            resource_version="1",
            phase="Pending",
            storage_class=spec.storage_class,
            volume_mode=spec.volume_mode,
            request_bytes=spec.request_bytes,
            capacity_bytes=spec.capacity_bytes,
            ours=True,
            key=f"{spec.source_vm_uuid}/{spec.disk_uuid}",
            migration=spec.owner.migration,
            commit="",
            mark=None,
            watermark=None,
            writers=(),
            waits_for_consumer=True,
            source=spec.owner.source,
        )

    def bind(self, spec: BinderSpec) -> None:
        code = self.trial_exit.pop(0) if self.trial_exit else 0
        fault = CopyResult((), "PVC (Filesystem): EACCES", "VolumeNotUsable") if code else CopyResult(())
        self.binders[spec.name] = Binder(
            spec.namespace,
            spec.name,
            "Failed" if code else "Succeeded",
            "",
            spec.owner.migration,
            spec.owner.vm,
            trial=spec.trial,
            exit_code=code,
            termination_message=result_line(fault),
            ended_at=self.now,
        )
        for pvc, _ in spec.volumes:
            writer = Writer(spec.name, "Succeeded", True, True, "binder")
            self.volumes[pvc] = replace(self.volumes[pvc], phase="Bound", writers=(writer,))

    def unbind(self, name: str) -> None:
        del self.binders[name]
        self.volumes = {k: replace(v, writers=()) for k, v in self.volumes.items()}

    def make_vm(self, spec: TargetVmSpec) -> None:
        owner = spec.owner
        self.targets[spec.name] = TargetVm(
            namespace=spec.namespace,
            name=spec.name,
            uid=f"uid-{spec.name}",
            resource_version="1",
            ours=True,
            migration=owner.migration,
            source=owner.source,
            milestone="None",
            commit="",
            run_strategy="Halted",
            power=Power.OFF,
            ready=False,
            message="",
            generation=1,
            claims=frozenset(d.pvc for d in spec.disks),
        )

    def give(self, vm: TargetVm, volumes: tuple[Volume, ...]) -> None:
        for volume in volumes:
            self.volumes[volume.name] = replace(self.volumes[volume.name], owners=frozenset({vm.uid}))

    def _power(self, action: PowerSource) -> None:
        vm = next(v for v in self.vms.values() if v.uuid == action.vm.uuid)
        self.acted.setdefault(action.key, set()).add(f"PowerSource:{action.want.value}")
        if action.want is PowerRequest.ON:
            self.power_on(vm.name)
        elif action.want is PowerRequest.OFF or self.obey_shutdown:
            self.vms[vm.name] = replace(vm, power=Power.OFF)

    def power_on(self, name: str) -> None:
        self.serial += 1
        self.vms[name] = replace(self.vms[name], power=Power.ON, epoch=f"on:{self.serial}")

    def power_off(self, name: str) -> None:
        self.vms[name] = replace(self.vms[name], power=Power.OFF)

    def _copy(self, action: EnsureCopy) -> None:
        broken = self.broken & {d.disk_uuid for d in action.disks}
        code = self.job_exit.pop(0) if self.job_exit else 75 if broken else 0
        whole = {d.disk_uuid for d in action.disks if code == 0 or (broken and d.disk_uuid not in broken)}
        results = tuple(DiskResult(d.disk_uuid, d.disk_uuid in whole, 1, 1, 0, 1, 1.0, "http-range", "ok") for d in action.disks)
        result = CopyResult(results, None if code == 0 else "ConnectionLost: the source went away", None if code == 0 else "ConnectionLost")
        job = action.job
        self.jobs[job.name] = Job(
            namespace=job.namespace,
            name=job.name,
            uid=job.name,
            phase=JobPhase.SUCCEEDED if code == 0 else JobPhase.FAILED,
            migration=job.owner.migration,
            vm=job.owner.vm,
            round_key=job.round_key,
            attempt=job.attempt,
            exit_code=code,
            termination_message=result_line(result),
            message="",
        )

    def run(self, passes: int = 60, seconds: float = 1.0) -> None:
        for _ in range(passes):
            self.tick(seconds)
            if self.records.runs and all(r.result for r in self.records.runs.values()):
                return

    def acts(self, *kinds: type) -> list[Action]:
        return [a for a in self.log if isinstance(a, kinds)]
