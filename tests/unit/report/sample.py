"""Records to report about: one plan under way, one that went wrong, one that only waits. Built by hand, no YAML."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from reconciler.core.copyspec import Verify
from reconciler.core.desired import Place, Problem, Severity, ShutdownPolicy
from reconciler.core.model import Milestone, Mode, ObjectRef, Power, Result, VmRef
from reconciler.core.record import (
    Category,
    Condition,
    DiskRecord,
    Failure,
    FrozenDisk,
    FrozenVm,
    Instant,
    Intent,
    IntentKind,
    ObjectStatus,
    Outage,
    PhaseTime,
    Progress,
    Records,
    RoundRecord,
    RunRecord,
    StepRecord,
    VmRecord,
)
from reconciler.core.target import Owner, Placement, TargetVmSpec, VolumeMode

NS = "openshift-mtv"
PLAN = ObjectRef(NS, "shop-wave-1")
RUN = ObjectRef(NS, "shop-wave-1-go")
SOURCE = ObjectRef(NS, "vcenter-a")
TARGET = ObjectRef(NS, "host")
T0 = datetime(2026, 11, 24, 14, 0, tzinfo=UTC)
GIB = 1024**3
HOSTILE = (
    "x|<script>alert(1)</script> @admin #1 [a](javascript:b) `c` www.evil.example https://evil.example "
    "\x1b[31m\u202egnp.exe\nReconciled-From: bad"
)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def frozen(name: str, disks: int, capacity: int = 40 * GIB) -> FrozenVm:
    owner = Owner(str(PLAN), str(RUN), name, f"vc/{name}", "None", "")
    return FrozenVm(
        target_site_uuid="kube",
        destination=TARGET,
        namespace="shop",
        name=name,
        disks=tuple(
            FrozenDisk(
                uuid=f"{name}-d{i}",
                key=str(2000 + i),
                label=f"Hard disk {i + 1}",
                capacity_bytes=capacity,
                pvc=f"{name}-{i}",
                request_bytes=capacity,
                storage_class="fast",
                volume_mode=VolumeMode.FILESYSTEM,
                access_mode="ReadWriteOnce",
                path="datastore",
                path_reason="flat file on VMFS, source off",
            )
            for i in range(disks)
        ),
        vm=TargetVmSpec(
            namespace="shop",
            name=name,
            cpu_sockets=1,
            cpu_cores=2,
            memory_bytes=4 * GIB,
            firmware="efi",
            secure_boot=False,
            tpm=False,
            uuid="u",
            serial="s",
            disks=(),
            nics=(),
            owner=owner,
            source_name=name,
        ),
        want_power=Power.ON,
        placement=Placement(),
        verify=Verify.READBACK,
        shutdown_policy=ShutdownPolicy.FAIL,
        shutdown_timeout_s=600,
        copy_stall_s=900,
        delete_on_fail=True,
    )


def vm(name: str, phase: str = "", *, disks: int = 1, plan: ObjectRef = PLAN, run: ObjectRef = RUN, **more: object) -> VmRecord:
    source = VmRef(SOURCE, "vc", f"vm-{name}", f"uuid-{name}", name)
    base = VmRecord(
        run=run,
        slug=f"{''.join(c for c in name if c.isalnum() and c.isascii()) or 'vm'}-1a2b3c4d",
        plan=plan,
        wanted=name,
        id=source.id,
        name=name,
        phase=phase,
        started=T0,
        source=source,
        restore_power_state=Power.ON,
        frozen=frozen(name, disks),
        phases=(PhaseTime(phase, at(3)),) if phase else (),
    )
    return replace(base, **more)  # type: ignore[arg-type]


def copying(name: str, percent: int, disks: int = 1) -> VmRecord:
    total = disks * 40 * 1024
    step = StepRecord("DiskTransfer", phase="Running", progress=Progress(total * percent // 100, total))
    return vm(
        name,
        "CopyDisks",
        disks=disks,
        milestone=Milestone.CUTOVER,
        intents=(Intent(IntentKind.POWER_OFF_SOURCE, at(1), at(2)),),
        outage=outage(1),
        pipeline=(step,),
    )


def outage(off: float, back: float | None = None) -> Outage:
    return Outage(Instant(at(off)), Instant(at(back)) if back is not None else None)


def round_of(number: int, began: float, mib: int = 12, *, ended: bool = True, **more: object) -> RoundRecord:
    """Took two minutes, three seconds of which bytes moved."""
    made = RoundRecord(number, at(began), snapshot=f"snapshot-{number}")
    if ended:
        made = replace(made, ended=at(began + 2), read_bytes=mib << 20, written_bytes=mib << 20, seconds=3.0)
    return replace(made, **more)  # type: ignore[arg-type]


def warm(name: str, *rounds: RoundRecord, **more: object) -> VmRecord:
    """Copied while it runs; an hour between rounds. Marked when the last round has ended."""
    rests = bool(rounds) and rounds[-1].ended is not None
    marked = (DiskRecord(f"{name}-d0", marked=rests and not rounds[-1].abandoned),)
    due = rounds[-1].ended + timedelta(hours=1) if rests and rounds[-1].ended is not None else None
    base = vm(name, "Precopy", rounds=rounds, disks=1, next_round_at=due)
    return replace(base, **{"disks": marked, **more})  # type: ignore[arg-type]


def succeeded(name: str, disks: int = 1) -> VmRecord:
    done = vm(
        name,
        "Completed",
        disks=disks,
        milestone=Milestone.DONE,
        result=Result.SUCCEEDED,
        completed=at(12),
        intents=(Intent(IntentKind.POWER_OFF_SOURCE, at(1), at(2)), Intent(IntentKind.START_TARGET, at(10), at(10.5))),
        outage=outage(1, 10.5),
    )
    return replace(done, disks=tuple(DiskRecord(f"{name}-d{i}", marked=True, seconds=75.0, sha256="ab" * 32) for i in range(disks)))


def failed(name: str, message: str = "the guest did not shut down within 600 s; look at VMware Tools in the guest") -> VmRecord:
    return vm(
        name,
        "WatchGuest",
        result=Result.FAILED,
        completed=at(20),
        error=Failure("PowerOffSource", "GuestShutdownTimeout", message),
    )


def held(name: str) -> VmRecord:
    condition = Condition("SourceChanged", True, Category.CRITICAL, "Modified", "the source was powered on after cutover; power it off")
    return vm(name, "StartTarget", milestone=Milestone.HANDED_OVER, conditions=(condition,))


def records(*vms: VmRecord, commit: str = "5" * 40) -> Records:
    runs: dict[ObjectRef, RunRecord] = {}
    for v in vms:
        known = runs.get(v.run)
        slugs = (*known.vms, v.slug) if known else (v.slug,)
        runs[v.run] = RunRecord(v.run, v.plan, Mode.COLD, SOURCE, TARGET, "c" * 40, "origin", T0, slugs)
    return Records(commit, runs=runs, vms={v.key: v for v in vms}, statuses=statuses())


def statuses() -> dict[tuple[str, ObjectRef], ObjectStatus]:
    good = Condition("Ready", True, Category.REQUIRED, "", "The plan is ready.")
    bad = Condition("ConnectionTestFailed", True, Category.CRITICAL, "Tested", "the certificate of vcenter-b has expired; renew it")
    missing = Condition("StorageNotMapped", True, Category.CRITICAL, "NotFound", "datastore-15 (ds-old) is not in the storage map")
    return {
        ("Provider", SOURCE): ObjectStatus("Provider", SOURCE, (good,), "c" * 40),
        ("Provider", TARGET): ObjectStatus("Provider", TARGET, (good,), "c" * 40),
        ("Provider", ObjectRef(NS, "vcenter-b")): ObjectStatus("Provider", ObjectRef(NS, "vcenter-b"), (bad,), "c" * 40),
        ("Plan", PLAN): ObjectStatus("Plan", PLAN, (good,), "c" * 40),
        ("Plan", ObjectRef(NS, "erp-wave-1")): ObjectStatus("Plan", ObjectRef(NS, "erp-wave-1"), (missing,), "c" * 40),
    }


def problem(message: str = "unknown field storageclass", hint: str = "did you mean storageClass?") -> Problem:
    return Problem(Place("plans/erp.yaml", 14, 9), f"Plan/{NS}/erp", "spec.map", "UnknownField", message, hint, Severity.ERROR)
