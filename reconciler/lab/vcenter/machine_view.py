"""A lab machine as the properties of a vSphere VirtualMachine.

Where it stands: the property table that inventory.py registers for VirtualMachine; read by properties.py, one object at a time.
Each entry is a path prefix, so that a deep path need not build all of `config`.
Source: vSphere Web Services API 8.0.2, VirtualMachine, VirtualMachineConfigInfo, VirtualMachineRuntimeInfo, GuestInfo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from reconciler.lab.machines import Power, Snapshot, Vm
from reconciler.lab.vcenter.devices import datastore_ref, devices, network_ref
from reconciler.lab.vcenter.guest_view import guest, tools
from reconciler.lab.vcenter.vmomi import make, support, vim

_vm: Any = vim.vm
POWER = {Power.ON: "poweredOn", Power.OFF: "poweredOff", Power.SUSPENDED: "suspended"}


def escape_name(name: str) -> str:
    """vSphere escapes %, / and \\ in the names of managed entities."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def vm_ref(vm: Vm) -> Any:
    return vim.VirtualMachine(f"vm-{vm.key}")


def path_name(vm: Vm) -> str:
    if not vm.disks:
        return f"[] /vmfs/{vm.name}.vmx"
    return f"[{vm.disks[0].datastore.name}] {vm.disks[0].folder}/{vm.name}.vmx"


def _files(vm: Vm) -> Any:
    return make(_vm.FileInfo, vmPathName=path_name(vm), snapshotDirectory=path_name(vm).rpartition("/")[0] + "/")


def _options(vm: Vm) -> Any:
    made = [make(vim.option.OptionValue, key=key, value=value) for key, value in sorted(vm.extra_config.items())]
    return vim.option.OptionValue.Array(made)


def _boot_options(vm: Vm) -> Any:
    return make(_vm.BootOptions, bootDelay=0, enterBIOSSetup=False, efiSecureBootEnabled=vm.secure_boot, bootRetryEnabled=False)


def _affinity(vm: Vm) -> Any:
    return make(_vm.AffinityInfo, affinitySet=list(vm.cpu_affinity)) if vm.cpu_affinity else None


def _power_ops(vm: Vm) -> Any:
    return make(_vm.DefaultPowerOpInfo, powerOffType="soft", suspendType="hard", resetType="soft", standbyAction="checkpoint")


def _tools_config(vm: Vm) -> Any:
    return make(_vm.ToolsConfigInfo, toolsVersion=12352 if vm.tools else 0, afterPowerOn=True, beforeGuestShutdown=True)


HARDWARE: Mapping[str, Callable[[Vm], Any]] = {
    "numCPU": lambda vm: vm.cpus,
    "numCoresPerSocket": lambda vm: vm.cores_per_socket,
    "memoryMB": lambda vm: vm.memory_mib,
    "virtualICH7MPresent": lambda vm: False,
    "virtualSMCPresent": lambda vm: False,
    "device": lambda vm: vim.vm.device.VirtualDevice.Array(devices(vm)),
}


def _hardware(vm: Vm) -> Any:
    return make(_vm.VirtualHardware, **{name: read(vm) for name, read in HARDWARE.items()})


CONFIG: Mapping[str, Callable[[Vm], Any]] = {
    "changeVersion": lambda vm: str(vm.config_version),
    "modified": lambda vm: datetime(1970, 1, 1, tzinfo=UTC),
    "name": lambda vm: escape_name(vm.name),
    "guestFullName": lambda vm: vm.guest_name,
    "version": lambda vm: "vmx-20",
    "uuid": lambda vm: vm.uuid,
    "instanceUuid": lambda vm: vm.instance_uuid,
    "locationId": lambda vm: "564d0000-0000-0000-0000-000000000000",
    "template": lambda vm: vm.template,
    "guestId": lambda vm: vm.guest_id,
    "alternateGuestName": lambda vm: "",
    "annotation": lambda vm: vm.annotation or None,
    "files": _files,
    "tools": _tools_config,
    "flags": lambda vm: _flags(vm),
    "defaultPowerOps": _power_ops,
    "hardware": _hardware,
    "cpuAllocation": lambda vm: _allocation(vm.cpus * 1000),
    "memoryAllocation": lambda vm: _allocation(vm.memory_mib * 10),
    "latencySensitivity": lambda vm: make(vim.LatencySensitivity, level="normal"),
    "memoryHotAddEnabled": lambda vm: vm.memory_hot_add,
    "cpuHotAddEnabled": lambda vm: vm.cpu_hot_add,
    "cpuHotRemoveEnabled": lambda vm: False,
    "cpuAffinity": _affinity,
    "extraConfig": _options,
    "bootOptions": _boot_options,
    "firmware": lambda vm: vm.firmware,
    "nestedHVEnabled": lambda vm: vm.nested_virtualization,
    "vPMCEnabled": lambda vm: False,
    "changeTrackingEnabled": lambda vm: vm.change_tracking,
    "swapPlacement": lambda vm: "inherit",
    "guestAutoLockEnabled": lambda vm: True,
    "keyId": lambda vm: None,
}


def _config(vm: Vm) -> Any:
    return make(_vm.ConfigInfo, **{name: read(vm) for name, read in CONFIG.items()})


def _flags(vm: Vm) -> Any:
    return make(
        _vm.FlagInfo,
        disableAcceleration=False,
        enableLogging=True,
        useToe=False,
        runWithDebugInfo=False,
        monitorType="release",
        htSharing="any",
        snapshotDisabled=False,
        snapshotLocked=False,
        diskUuidEnabled=False,
        snapshotPowerOffBehavior="powerOff",
        recordReplayEnabled=False,
        cbrcCacheEnabled=False,
        vvtdEnabled=False,
        vbsEnabled=False,
        faultToleranceType="unset",
    )


def _allocation(shares: int) -> Any:
    return make(
        vim.ResourceAllocationInfo,
        reservation=0,
        expandableReservation=False,
        limit=-1,
        shares=make(vim.SharesInfo, shares=shares, level="normal"),
    )


def _runtime(vm: Vm) -> Any:
    return make(
        _vm.RuntimeInfo,
        host=vim.HostSystem(f"host-{vm.host.key}"),
        connectionState="connected" if vm.connected else "disconnected",
        powerState=POWER[vm.power],
        faultToleranceState="notConfigured",
        toolsInstallerMounted=False,
        bootTime=vm.boot_at,
        suspendInterval=0,
        maxCpuUsage=vm.cpus * 2600,
        maxMemoryUsage=vm.memory_mib,
        numMksConnections=0,
        recordReplayState="inactive",
        onlineStandby=False,
        consolidationNeeded=vm.consolidation_needed,
    )


def _summary_config(vm: Vm) -> Any:
    return make(
        _vm.Summary.ConfigSummary,
        name=escape_name(vm.name),
        template=vm.template,
        vmPathName=path_name(vm),
        memorySizeMB=vm.memory_mib,
        numCpu=vm.cpus,
        numEthernetCards=len(vm.nics),
        numVirtualDisks=len(vm.disks),
        uuid=vm.uuid,
        instanceUuid=vm.instance_uuid,
        guestId=vm.guest_id,
        guestFullName=vm.guest_name,
        annotation=vm.annotation,
        tpmPresent=vm.tpm,
    )


def _summary(vm: Vm) -> Any:
    status, version, running = tools(vm)
    return make(
        _vm.Summary,
        vm=vm_ref(vm),
        runtime=_runtime(vm),
        guest=make(_vm.Summary.GuestSummary, toolsStatus=status, toolsVersionStatus2=version, toolsRunningStatus=running),
        config=_summary_config(vm),
        quickStats=make(_vm.Summary.QuickStats, guestHeartbeatStatus="green" if vm.tools_running else "gray"),
        overallStatus="green",
    )


def snapshot_ref(snapshot: Snapshot) -> Any:
    return _vm.Snapshot(f"snapshot-{snapshot.key}")


def _snapshots(vm: Vm) -> Any:
    if not vm.snapshots:
        return None

    def below(parent: int | None) -> list[Any]:
        return [
            make(
                _vm.SnapshotTree,
                snapshot=snapshot_ref(s),
                vm=vm_ref(vm),
                name=escape_name(s.name),
                description=s.description,
                id=number + 1,
                createTime=s.at,
                state=POWER[s.power],
                quiesced=False,
                childSnapshotList=below(s.key),
            )
            for number, s in enumerate(vm.snapshots)
            if s.parent == parent
        ]

    current = next((s for s in vm.snapshots if s.key == vm.current_snapshot), None)
    return make(_vm.SnapshotInfo, currentSnapshot=snapshot_ref(current) if current else None, rootSnapshotList=below(None))


def _layout(vm: Vm) -> Any:
    made: list[Any] = []
    for disk in vm.disks:
        for name, kind, size in (
            (disk.backing, "diskDescriptor", 600),
            (f"[{disk.datastore.name}] {disk.folder}/{disk.path.name}", "diskExtent", disk.capacity_bytes),
        ):
            if kind == "diskExtent" and not disk.datastore.flat_files:
                continue
            made.append(make(_vm.FileLayoutEx.FileInfo, key=len(made), name=name, type=kind, size=size, uniqueSize=size, accessible=True))
    return make(_vm.FileLayoutEx, file=made, timestamp=datetime(1970, 1, 1, tzinfo=UTC))


def _datastores(vm: Vm) -> Any:
    return vim.Datastore.Array([datastore_ref(key) for key in dict.fromkeys(d.datastore.key for d in vm.disks)])


def _networks(vm: Vm) -> Any:
    return vim.Network.Array([network_ref(n) for n in {n.network.key: n.network for n in vm.nics}.values()])


_CANNOT = (
    "recordReplaySupported",
    "vmNpivWwnSupported",
    "npivWwnOnNonRdmVmSupported",
    "disableSnapshotsSupported",
    "lockSnapshotsSupported",
)


def _capability(vm: Vm) -> Any:
    must = [p.name for p in _vm.Capability._GetPropertyList() if not p.flags & support.F_OPTIONAL]
    fields: dict[str, Any] = dict.fromkeys(must, True) | dict.fromkeys(_CANNOT, False)
    return make(_vm.Capability, **{**fields, "changeTrackingSupported": vm.supports_change_tracking})


PROPERTIES: Mapping[str, Callable[[Vm], Any]] = {
    "capability": _capability,
    "name": lambda vm: escape_name(vm.name),
    "config": _config,
    **{f"config.{name}": read for name, read in CONFIG.items()},
    **{f"config.hardware.{name}": read for name, read in HARDWARE.items()},
    "runtime": _runtime,
    "guest": guest,
    "guestHeartbeatStatus": lambda vm: "green" if vm.tools_running else "gray",
    "summary": _summary,
    "summary.config": _summary_config,
    "summary.runtime": _runtime,
    "snapshot": _snapshots,
    "layoutEx": _layout,
    "datastore": _datastores,
    "network": _networks,
    "overallStatus": lambda vm: "green",
    "resourcePool": lambda vm: None if vm.template else vim.ResourcePool(f"resgroup-{vm.host.cluster.key}"),
}
