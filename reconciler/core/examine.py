"""One VM of a plan against both sites: what speaks against migrating it, and, if nothing does, what a run would freeze.

What it is: the same answer for the pull request (conditions of the Plan) and for the start of a run (FrozenVm). Pure.
What it is not: the scheduler, or the run itself. Rules: Forklift's Plan conditions per VM, plus what design sections 5 and 7 need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.core import datapath, hosts, names, networks, rights, sizes, strangers, targetvm
from reconciler.core.concerns.evaluate import evaluate
from reconciler.core.desired import Limits, NetworkMapSpec, PlanSpec, PlanVm, ShutdownPolicy, StorageMapSpec, StoragePair, WantPower
from reconciler.core.findings import Finding, critical
from reconciler.core.inventory import NamedItem, SourceDisk, SourceVm
from reconciler.core.lookup import Ambiguous, SiteIndex
from reconciler.core.model import Absent, Known, Milestone, Mode, Platform, Power
from reconciler.core.record import Category, FrozenDisk, FrozenVm
from reconciler.core.target import Instance, Owner, Placement, StorageClass, TargetInventory, TargetNic, VolumeMode

NO_OWNER = Owner("", "", "", "", "", "")


@dataclass(frozen=True, slots=True)
class Examination:
    wanted: str
    source: SourceVm | None
    findings: tuple[Finding, ...]
    frozen: FrozenVm | None

    @property
    def blocked(self) -> bool:
        return any(f.category in (Category.CRITICAL, Category.ERROR) for f in self.findings)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all VMs of one plan share. `siblings`: target names of the plan's other VMs, by source uuid."""

    plan: PlanSpec
    index: SiteIndex
    target: TargetInventory
    network_map: NetworkMapSpec
    storage_map: StorageMapSpec
    limits: Limits
    rewound: frozenset[str] = frozenset()  # view.Observed.rewound
    us: Instance = field(default_factory=Instance)
    vddk: str = ""  # which setting names an image with VDDK (core/vddk.py)

    def storage_class(self, name: str) -> StorageClass | None:
        return next((c for c in self.target.storage_classes if c.name == name), None)


def examine(ground: Ground, vm: PlanVm, claimed_names: Mapping[str, str]) -> Examination:
    """`claimed_names`: target name -> source uuid, of the plan's other VMs."""
    wanted = str(vm.ref)
    found = ground.index.vm(vm.ref)
    match found:
        case Absent():
            what = f"id {vm.ref.id}" if vm.ref.id else f"name {vm.ref.name!r}"
            text = f"no VM with {what} in {ground.plan.source} ({vm.place})"
            return Examination(
                wanted,
                None,
                (
                    critical(
                        "VMNotFound",
                        "NotFound",
                        text,
                        "correct the reference (it is then moved by the next Migration), or remove it from the plan",
                    ),
                ),
                None,
            )
        case Ambiguous(candidates):
            paths = ", ".join(f"{c.path} ({c.id})" for c in candidates[:5])
            text = f"{vm.ref} names {len(candidates)} VMs: {paths} ({vm.place})"
            return Examination(
                wanted,
                None,
                (critical("DuplicateVM", "Ambiguous", text, "use the id or the full path (it is then moved by the next Migration)"),),
                None,
            )
        case Known(source):
            try:
                return _examine_found(ground, vm, source, claimed_names)
            except Exception as err:  # one VM that we cannot digest harms no other
                text = f"{source.name} ({source.id}) could not be examined ({type(err).__name__}: {err}); this is a bug, please report it"
                return Examination(wanted, source, (critical("InternalError", "InternalError", text),), None)


def _examine_found(ground: Ground, vm: PlanVm, source: SourceVm, claimed_names: Mapping[str, str]) -> Examination:
    findings = [
        *_state(source, ground.plan.shutdown_policy),
        *_warm(ground, source),
        *_concerns(source, ground.limits),
        *hosts.obstacles(ground.index.inventory, source),
    ]
    name = _target_name(ground, vm, source, claimed_names, findings)
    disks = _disks(ground, vm, source, name, findings)
    lacking = ground.index.inventory.lacking.get(source.id)
    findings += rights.findings(rights.needed(ground.plan, source, [d.path for d in disks]), lacking, source)
    nics = networks.map_nics(source, ground.network_map.pairs, ground.index.inventory.networks, vm.network_name_template)
    if isinstance(nics, networks.Unmapped):
        findings.append(critical(nics.type, "NotValid", nics.message, f"in NetworkMap {ground.network_map.ref}: {nics.suggestion}"))
    elif missing := sorted({n.network for n in nics if n.network and n.network not in ground.target.networks}):
        text = f"{source.name} goes to network {', '.join(missing)}, which {ground.plan.destination} does not have"
        findings.append(
            critical("DestinationNetworkNotValid", "NotFound", text, "create the NetworkAttachmentDefinition or correct the NetworkMap")
        )
    findings += [*_conflicts(ground, source), *_taken_over(ground, source), *_taken(ground, source, disks)]
    if (
        vm.instance_type
        and not {f"{ground.plan.target_namespace}/{vm.instance_type}", f"/{vm.instance_type}"} & ground.target.instance_types
    ):
        findings.append(
            critical("InstanceTypeNotValid", "NotFound", f"instance type {vm.instance_type} of {source.name} does not exist", "create it")
        )
    frozen = None
    if not any(f.category is Category.CRITICAL for f in findings) and not isinstance(nics, networks.Unmapped):
        frozen = _freeze(ground, vm, source, name, tuple(disks), nics)
    return Examination(str(vm.ref), source, tuple(findings), frozen)


def _state(source: SourceVm, policy: ShutdownPolicy) -> list[Finding]:
    found = []
    if source.is_template:
        found.append(critical("VMIsTemplate", "NotSupported", f"{source.name} is a template", "convert it to a VM first"))
    if not source.connected:
        text = f"{source.name} is disconnected, inaccessible or orphaned in the source"
        found.append(critical("VMNotConnected", "NotValid", text, "bring its host or datastore back"))
    if source.power is Power.SUSPENDED:
        text = f"{source.name} is suspended: its disks are not those of a stopped guest"
        found.append(critical("VMSuspended", "NotValid", text, "resume it or power it off"))
    if not source.disks:
        found.append(critical("VMHasNoDisks", "NotValid", f"{source.name} has no disk", "remove it from the plan"))
    if source.power is Power.ON and not source.tools_running and policy is ShutdownPolicy.FAIL:
        text = f"{source.name} runs without VMware Tools, so its guest cannot be asked to shut down"
        found.append(
            critical(
                "GuestToolsIssue",
                "NotValid",
                text,
                "start the Tools in the guest, shut it down by hand, or set reconciler.dev/guest-shutdown-policy: force",
            )
        )
    return found


def _warm(ground: Ground, source: SourceVm) -> list[Finding]:
    """Changes are asked for from the platform's tracking, and read from a file that nobody else's snapshot may stand on."""
    if ground.plan.mode is not Mode.WARM:
        return []
    found = []
    untracked = [d.label for d in source.disks if not d.change_tracking]
    if (not source.change_tracking or untracked) and not ground.plan.enable_tracking:
        what = f"{source.name}" if not source.change_tracking else f"disk {', '.join(untracked)} of {source.name}"
        found.append(
            critical(
                "VMMissingChangedBlockTracking",
                "MissingChangedBlockTracking",
                f"Changed Block Tracking is off for {what}",
                'switch it on, or annotate the Plan with reconciler.dev/enable-cbt: "true", or migrate it cold',
            )
        )
    if source.snapshots and not ground.vddk:
        names_ = ", ".join(s.name for s in source.snapshots[:3])
        text = f"{source.name} has {len(source.snapshots)} snapshot(s) ({names_}), so that its disks are chains"
        found.append(critical("VMHasSnapshots", "NotValid", text, "remove them, or set vddkInitImage on the Provider, or migrate it cold"))
    return found


def _concerns(source: SourceVm, limits: Limits) -> list[Finding]:
    if not source.attributes or not limits.judge_concerns:
        return []
    bad = [c for c in evaluate(Platform.VSPHERE, source.attributes) if c.category == "Critical"]
    return [critical("VMCriticalConcerns", "NotValid", f"{source.name} ({c.label}): {c.assessment}") for c in bad]


def _conflicts(ground: Ground, source: SourceVm) -> list[Finding]:
    own = f"{ground.index.inventory.site.uuid}/{source.uuid}"
    macs = {n.mac for n in source.nics if n.mac}
    others = (vm for mac in sorted(macs) for vm in ground.target.machines_at(mac) if vm.source != own)
    if (vm := next(others, None)) is None:
        return []
    text = f"MAC {', '.join(sorted(macs & set(vm.macs)))} of {source.name} is already on VirtualMachine {vm.namespace}/{vm.name}"
    return [critical("MacConflicts", "NotValid", text, "change the MAC on one of them")]


def _taken_over(ground: Ground, source: SourceVm) -> list[Finding]:
    """A target of this very VM that was handed over, though no claim says so: git was restored, or claims were deleted (safety 6, 7)."""
    own = f"{ground.index.inventory.site.uuid}/{source.uuid}"
    for vm in ground.target.machines_of(own):
        if vm.ours and vm.milestone in (Milestone.HANDED_OVER, Milestone.DONE):
            text = (
                f"{source.name} was already handed over to VirtualMachine {vm.namespace}/{vm.name} by run {vm.migration}, "
                f"at status commit {vm.commit[:12] or 'unknown'}, of which this status branch knows nothing"
            )
            if vm.commit in ground.rewound:
                hint = "git was restored from a backup: restore the status branch to a later state, or remove this VM from the plan"
                return [critical("StatusRewound", "Modified", text, hint)]
            return [critical("VMClaimed", "NotUnique", text, "remove it from the plan, or delete that VM by hand")]
    if met := strangers.of_source(ground.target, own):
        return [critical("VMClaimed", "NotUnique", f"{source.name} is not free: {strangers.text(met)}")]
    if told := strangers.snapshots(source, ground.us):
        return [critical("VMClaimed", "NotUnique", f"{source.name} is not free: {told}")]
    return []


def _taken(ground: Ground, source: SourceVm, disks: list[FrozenDisk]) -> list[Finding]:
    """What an earlier run left may be a disk of somebody's own machine by now. A run begins all the same, and holds: it has to see to it
    that what was proven of that disk counts no more."""
    own = f"{ground.index.inventory.site.uuid}/{source.uuid}"
    pvcs = [d.pvc for d in disks]
    found = strangers.takers(ground.target.machines_with(pvcs), ground.plan.target_namespace, pvcs, own)
    if not found:
        return []
    text = f"{strangers.taken_text(found)}; {source.name} is held, with its guest as it is, while that is so"
    hint = "take it out of that machine, or set another pvcNameTemplate in the Plan before the run begins"
    return [Finding("VolumeTaken", Category.WARN, "NotUnique", text, hint)]


def _target_name(ground: Ground, vm: PlanVm, source: SourceVm, claimed: Mapping[str, str], findings: list[Finding]) -> str:
    own = f"{ground.index.inventory.site.uuid}/{source.uuid}"
    namespace = ground.plan.target_namespace

    def foreign(name: str) -> bool:
        there = ground.target.machine(namespace, name)
        return claimed.get(name, source.uuid) != source.uuid or (there is not None and not (there.ours and there.source == own))

    asked = vm.target_name or (source.name if names.is_dns1123_subdomain(source.name) else "")
    if asked and foreign(asked):
        text = f"VirtualMachine {namespace}/{asked} exists and is not ours; {source.name} cannot take that name"
        findings.append(critical("VMAlreadyExists", "NotUnique", text, "set another targetName, or remove that VM"))
    if not asked:
        text = f"{source.name!r} is not a legal name in Kubernetes and no targetName is set; it will be renamed"
        findings.append(Finding("TargetNameNotValid", Category.WARN, "NotValid", text))
    return names.target_vm_name(source.name, vm.target_name, taken=foreign, hash_of=own)


def _disks(ground: Ground, vm: PlanVm, source: SourceVm, target_name: str, findings: list[Finding]) -> list[FrozenDisk]:
    frozen = []
    for i, disk in enumerate(source.disks):
        pair = _storage_pair(ground, disk)
        if pair is None:
            where = f"datastore {disk.storage_name} ({disk.storage_id})"
            text = f"disk {disk.label} of {source.name} is on {where}, which StorageMap {ground.storage_map.ref} lacks"
            findings.append(critical("VMStorageNotMapped", "NotValid", text, "add the datastore to the map"))
            continue
        storage_class = ground.storage_class(pair.storage_class)
        if storage_class is None:
            text = f"storage class {pair.storage_class!r} for datastore {disk.storage_name} does not exist in {ground.plan.destination}"
            known = ", ".join(c.name for c in ground.target.storage_classes) or "none"
            findings.append(critical("DestinationStorageNotValid", "NotFound", text, f"classes there: {known}"))
            continue
        if disk.capacity_bytes <= 0:
            findings.append(critical("InvalidDiskSizes", "NotValid", f"disk {disk.label} of {source.name} has {disk.capacity_bytes} bytes"))
            continue
        choice = datapath.choose(disk, source, vddk=ground.vddk, mode=ground.plan.mode)
        if choice.path is None:
            findings.append(
                critical("DiskPathNotSupported", "NotSupported", f"{source.name}, disk {disk.label}: {choice.reason}", choice.remedy)
            )
            continue
        frozen.append(_freeze_disk(ground, vm, source, disk, i, target_name, pair, storage_class, choice))
    return frozen


def _storage_pair(ground: Ground, disk: SourceDisk) -> StoragePair | None:
    for pair in ground.storage_map.pairs:
        match ground.index.storage(pair.source):
            case Known(NamedItem(id=item_id)) if item_id == disk.storage_id:
                return pair
            case _:
                continue
    return None


def _freeze_disk(
    ground: Ground,
    vm: PlanVm,
    source: SourceVm,
    disk: SourceDisk,
    index: int,
    target_name: str,
    pair: StoragePair,
    storage_class: StorageClass,
    choice: datapath.PathChoice,
) -> FrozenDisk:
    mode = VolumeMode(pair.volume_mode) if pair.volume_mode else storage_class.default_volume_mode or VolumeMode.FILESYSTEM
    overhead = ground.limits.filesystem_overhead if ground.limits.filesystem_overhead is not None else storage_class.overhead
    return FrozenDisk(
        uuid=disk.uuid,
        key=disk.key,
        label=disk.backing.file or disk.label,
        capacity_bytes=disk.capacity_bytes,
        pvc=names.render_pvc_name(
            vm.pvc_name_template or ground.limits.pvc_name_template,
            vm_name=source.name,
            target_vm_name=target_name,
            plan_name=ground.plan.ref.name,
            vm_id=source.id,
            disk_index=index,
            file_name=disk.backing.file.rsplit("/", 1)[-1],
            win_drive_letter=str(disk_attribute(source, index, "winDriveLetter")),
            shared=disk.shared,
            root_disk_index=targetvm.root_disk_index(vm.root_disk),
            generate_name=ground.plan.pvc_generate_name,
            hash_of=f"{ground.index.inventory.site.uuid}/{source.uuid}/{disk.uuid}",
        ),
        request_bytes=sizes.request_bytes(disk.capacity_bytes, mode, overhead, ground.limits.block_overhead_bytes),
        storage_class=pair.storage_class,
        volume_mode=mode,
        access_mode=pair.access_mode or storage_class.default_access_mode or "ReadWriteOnce",
        path=choice.path or "",
        path_reason=choice.reason + (hosts.words(ground.index.inventory, source) if choice.path == datapath.DATASTORE else ""),
    )


def disk_attribute(source: SourceVm, index: int, name: str) -> object:
    disks = source.attributes.get("disks")
    if isinstance(disks, list | tuple) and index < len(disks) and isinstance(disks[index], Mapping):
        return disks[index].get(name, "")
    return ""


def want_power(vm: PlanVm, source_was_on: bool) -> Power:
    if vm.target_power is WantPower.AUTO:
        return Power.ON if source_was_on else Power.OFF
    return Power.ON if vm.target_power is WantPower.ON else Power.OFF


def _instance_type(ground: Ground, vm: PlanVm) -> str | None:
    """Forklift: one in the target namespace goes before a cluster-wide one of that name. "ns/name", or the bare name."""
    local = f"{ground.plan.target_namespace}/{vm.instance_type}"
    return local if local in ground.target.instance_types else vm.instance_type or None


def _freeze(
    ground: Ground, vm: PlanVm, source: SourceVm, name: str, disks: tuple[FrozenDisk, ...], nics: tuple[TargetNic, ...]
) -> FrozenVm:
    plan = ground.plan
    placement = Placement(dict(plan.convertor_node_selector), None, plan.service_account or ground.limits.migration_service_account or None)
    spec = targetvm.build(
        source,
        namespace=plan.target_namespace,
        name=name,
        pvc_names={d.uuid: d.pvc for d in disks},
        nics=nics,
        owner=NO_OWNER,
        compatibility=plan.skip_conversion and plan.compatibility_mode,
        volume_name_template=vm.volume_name_template,
        root_disk=vm.root_disk,
        instance_type=_instance_type(ground, vm),
        labels=dict(plan.target_labels),
        node_selector=dict(plan.target_node_selector),
        affinity=plan.target_affinity,
        nested_virtualization=vm.nested_virtualization,
    )
    if not ground.limits.vmware_serial:
        spec = replace(spec, serial=source.bios_uuid)
    assert plan.destination is not None
    return FrozenVm(
        target_site_uuid=ground.target.site.uuid,
        destination=plan.destination,
        namespace=plan.target_namespace,
        name=name,
        disks=disks,
        vm=spec,
        want_power=want_power(vm, source.power is Power.ON),
        placement=placement,
        verify=plan.verify,
        shutdown_policy=plan.shutdown_policy,
        shutdown_timeout_s=plan.shutdown_timeout_s,
        copy_stall_s=plan.copy_stall_s,
        delete_on_fail=vm.delete_on_fail,
        bandwidth_bytes_per_s=plan.bandwidth_bytes_per_s,
        enable_tracking=plan.enable_tracking,
        precopy_interval_s=plan.precopy_interval_s,
        downtime_budget_s=plan.downtime_budget_s,
    )
