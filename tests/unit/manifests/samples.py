"""Records with every part filled in, for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from reconciler.core.copyspec import Verify
from reconciler.core.desired import ShutdownPolicy
from reconciler.core.model import Milestone, Mode, ObjectRef, Power, VmRef
from reconciler.core.record import (
    Category,
    Claim,
    Condition,
    DiskRecord,
    Failure,
    FrozenDisk,
    FrozenVm,
    Intent,
    IntentKind,
    PhaseTime,
    Progress,
    RunRecord,
    StepError,
    StepRecord,
    TaskRecord,
    VmRecord,
)
from reconciler.core.target import Owner, Placement, TargetDisk, TargetNic, TargetVmSpec, VolumeMode

AT = datetime(2026, 11, 24, 10, tzinfo=UTC)
RUN = ObjectRef("openshift-mtv", "wave-1-run-1")
PLAN = ObjectRef("openshift-mtv", "wave-1")
SOURCE = ObjectRef("openshift-mtv", "vcenter")
HOST = ObjectRef("openshift-mtv", "host")


def run_of(run: ObjectRef, vms: tuple[str, ...], **fields: Any) -> RunRecord:
    return replace(RunRecord(run, PLAN, Mode.COLD, SOURCE, HOST, "abc", "repo main .", AT, vms), **fields)


def claim_of(name: str, **fields: Any) -> Claim:
    return replace(Claim("site-1", f"uuid-{name}", name, RUN, name, AT, was_on=True), **fields)


def vm_of(run: ObjectRef, slug: str, **fields: Any) -> VmRecord:
    return replace(_full(run, slug), **fields)


def _full(run: ObjectRef, slug: str) -> VmRecord:
    task = TaskRecord("[ds-fast] web/web.vmdk", "Running", Progress(100, 2048), {"unit": "MB"}, AT)
    return VmRecord(
        run=run,
        slug=slug,
        plan=PLAN,
        wanted="web-01",
        id="vm-1001",
        name="web-01",
        new_name="web-01",
        phase="CopyDisks",
        milestone=Milestone.CUTOVER,
        message="copying\nslowly",
        started=AT,
        restore_power_state=Power.ON,
        source=VmRef(SOURCE, "site-1", "vm-1001", "uuid-1", "web-01"),
        epoch="boot-7",
        error=Failure("CopyDisks", "CopyFailed", "no: 'space' left"),
        intents=(Intent(IntentKind.POWER_OFF_SOURCE, AT, AT), Intent(IntentKind.START_TARGET, AT, void="source is on")),
        attempt=2,
        conditions=(
            Condition("Retrying", True, Category.WARN, "Busy", "again soon", items=(" id:vm-1 name:'a' ",), last_transition_time=AT),
        ),
        pipeline=(
            StepRecord("Initialize", "Initialise", "Completed", progress=Progress(1, 1), started=AT, completed=AT),
            StepRecord(
                "DiskTransfer", "Transfer disks", "Running", progress=Progress(100, 2048), annotations={"unit": "MB"}, tasks=(task,)
            ),
            StepRecord("VirtualMachineCreation", error=StepError("CreateVM", ("taken",))),
        ),
        phases=(PhaseTime("Started", AT, AT), PhaseTime("CopyDisks", AT)),
        disks=(DiskRecord("6000C29", True, 5, 4, 3, 2, 1, 0.5, "http-range", "ok", "deadbeef"),),
        frozen=_frozen(run, slug),
    )


def _frozen(run: ObjectRef, slug: str) -> FrozenVm:
    owner = Owner(str(PLAN), str(run), slug, "site-1/uuid-1", "None", "")
    disk = FrozenDisk(
        "6000C29",
        "2000",
        "Hard disk 1",
        1 << 30,
        "wave-1-web-01-disk-0",
        1 << 30,
        "fast",
        VolumeMode.BLOCK,
        "ReadWriteOnce",
        "datastore",
        "",
    )
    vm = TargetVmSpec(
        namespace="shop",
        name="web-01",
        cpu_sockets=1,
        cpu_cores=2,
        memory_bytes=1 << 31,
        firmware="bios",
        secure_boot=False,
        tpm=False,
        uuid="42",
        serial="VMware-42",
        disks=(TargetDisk("vol-0", disk.pvc, "virtio", 1, "6000C29"),),
        nics=(TargetNic("net-0", "00:50:56:00:00:01", "virtio", True),),
        owner=owner,
        source_name="web-01",
        labels={"app.example.com/some_key": "snake_value"},
        placement=Placement({"zone": "a"}, {"nodeAffinity": {"weight": 1}}),
    )
    return FrozenVm(
        "kube-1",
        HOST,
        "shop",
        "web-01",
        (disk,),
        vm,
        Power.ON,
        vm.placement,
        Verify.SOURCE,
        ShutdownPolicy.FORCE,
        600.0,
        900.0,
        True,
        1 << 20,
    )
