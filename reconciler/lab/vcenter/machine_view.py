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
from reconciler.lab.vcenter.vmomi import vim

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


def _hardware(vm: Vm) -> Any:
    return _vm.VirtualHardware(
        numCPU=vm.cpus,
        numCoresPerSocket=vm.cores_per_socket,
        memoryMB=vm.memory_mib,
        virtualICH7MPresent=False,
        virtualSMCPresent=False,
        device=devices(vm),
    )


def _config(vm: Vm) -> Any:
    files = _vm.FileInfo(vmPathName=path_name(vm), snapshotDirectory=path_name(vm).rpartition("/")[0] + "/")
    options = [vim.option.OptionValue(key=key, value=value) for key, value in sorted(vm.extra_config.items())]
    return _vm.ConfigInfo(
        changeVersion=str(vm.revision),
        modified=datetime(1970, 1, 1, tzinfo=UTC),
        name=escape_name(vm.name),
        guestFullName=vm.guest_name,
        version="vmx-20",
        uuid=vm.uuid,
        instanceUuid=vm.instance_uuid,
        locationId="564d0000-0000-0000-0000-000000000000",
        template=vm.template,
        guestId=vm.guest_id,
        alternateGuestName="",
        annotation=vm.annotation or None,
        files=files,
        tools=_vm.ToolsConfigInfo(toolsVersion=12352 if vm.tools else 0, afterPowerOn=True, beforeGuestShutdown=True),
        flags=_flags(vm),
        defaultPowerOps=_vm.DefaultPowerOpInfo(powerOffType="soft", suspendType="hard", resetType="soft", standbyAction="checkpoint"),
        hardware=_hardware(vm),
        cpuAllocation=_allocation(vm.cpus * 1000),
        memoryAllocation=_allocation(vm.memory_mib * 10),
        latencySensitivity=vim.LatencySensitivity(level="normal"),
        memoryHotAddEnabled=vm.memory_hot_add,
        cpuHotAddEnabled=vm.cpu_hot_add,
        cpuHotRemoveEnabled=False,
        cpuAffinity=_vm.AffinityInfo(affinitySet=list(vm.cpu_affinity)) if vm.cpu_affinity else None,
        extraConfig=options,
        bootOptions=_vm.BootOptions(bootDelay=0, enterBIOSSetup=False, efiSecureBootEnabled=vm.secure_boot, bootRetryEnabled=False),
        firmware=vm.firmware,
        nestedHVEnabled=vm.nested_virtualization,
        vPMCEnabled=False,
        changeTrackingEnabled=vm.change_tracking,
        swapPlacement="inherit",
        guestAutoLockEnabled=True,
        keyId=None,
    )


def _flags(vm: Vm) -> Any:
    return _vm.FlagInfo(
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
    return vim.ResourceAllocationInfo(
        reservation=0, expandableReservation=False, limit=-1, shares=vim.SharesInfo(shares=shares, level="normal")
    )


def _runtime(vm: Vm) -> Any:
    return _vm.RuntimeInfo(
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


def _tools(vm: Vm) -> tuple[str, str, str]:
    """toolsStatus, toolsVersionStatus2, toolsRunningStatus."""
    if not vm.tools:
        return "toolsNotInstalled", "guestToolsNotInstalled", "guestToolsNotRunning"
    if vm.tools_running:
        return "toolsOk", "guestToolsCurrent", "guestToolsRunning"
    return "toolsNotRunning", "guestToolsCurrent", "guestToolsNotRunning"


def _address(vm: Vm, number: int) -> str:
    return f"10.{20 + number}.{vm.key // 250 % 250}.{vm.key % 250 + 1}"


def _guest(vm: Vm) -> Any:
    status, version, running = _tools(vm)
    up = vm.tools_running
    state = "shuttingDown" if vm.shutting_down else "running"
    return _vm.GuestInfo(
        toolsStatus=status,
        toolsVersionStatus="guestToolsCurrent" if vm.tools else "guestToolsNotInstalled",
        toolsVersionStatus2=version,
        toolsRunningStatus=running,
        toolsVersion="12352" if vm.tools else "0",
        guestId=vm.guest_id if up else None,
        guestFamily="linuxGuest" if up else None,
        guestFullName=vm.guest_name if up else None,
        hostName=vm.name.lower().replace(" ", "-") if up else None,
        ipAddress=_address(vm, 0) if up and vm.nics else None,
        net=_guest_nics(vm) if up else [],
        ipStack=_ip_stack() if up else [],
        disk=[_vm.GuestInfo.DiskInfo(diskPath="/", capacity=1 << 30, freeSpace=1 << 29)] if up else [],
        screen=_vm.GuestInfo.ScreenInfo(width=-1, height=-1),
        guestState=state if up else "notRunning",
        guestOperationsReady=up,
        interactiveGuestOperationsReady=False,
        guestStateChangeSupported=up,
        generationInfo=[],
    )


def _guest_nics(vm: Vm) -> list[Any]:
    made = []
    for number, nic in enumerate(vm.nics):
        address: Any = vim.net.IpConfigInfo.IpAddress(ipAddress=_address(vm, number), prefixLength=24, origin="manual", state="preferred")
        made.append(
            _vm.GuestInfo.NicInfo(
                network=nic.network.name,
                ipAddress=[_address(vm, number)],
                macAddress=nic.mac,
                connected=nic.connected,
                deviceConfigId=4000 + number,
                ipConfig=vim.net.IpConfigInfo(ipAddress=[address]),
            )
        )
    return made


def _ip_stack() -> list[Any]:
    dns: Any = vim.net.DnsConfigInfo(dhcp=False, hostName="", domainName="lab.example", ipAddress=["10.20.0.53"])
    route: Any = vim.net.IpRouteConfigInfo.IpRoute(
        network="0.0.0.0", prefixLength=0, gateway=vim.net.IpRouteConfigInfo.Gateway(ipAddress="10.20.0.254", device="0")
    )
    return [_vm.GuestInfo.StackInfo(dnsConfig=dns, ipRouteConfig=vim.net.IpRouteConfigInfo(ipRoute=[route]))]


def _summary_config(vm: Vm) -> Any:
    return _vm.Summary.ConfigSummary(
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
    status, version, running = _tools(vm)
    return _vm.Summary(
        vm=vm_ref(vm),
        runtime=_runtime(vm),
        guest=_vm.Summary.GuestSummary(toolsStatus=status, toolsVersionStatus2=version, toolsRunningStatus=running),
        config=_summary_config(vm),
        quickStats=_vm.Summary.QuickStats(guestHeartbeatStatus="green" if vm.tools_running else "gray"),
        overallStatus="green",
    )


def snapshot_ref(snapshot: Snapshot) -> Any:
    return _vm.Snapshot(f"snapshot-{snapshot.key}")


def _snapshots(vm: Vm) -> Any:
    if not vm.snapshots:
        return None

    def below(parent: int | None) -> list[Any]:
        return [
            _vm.SnapshotTree(
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
    return _vm.SnapshotInfo(currentSnapshot=snapshot_ref(current) if current else None, rootSnapshotList=below(None))


def _layout(vm: Vm) -> Any:
    made: list[Any] = []
    for disk in vm.disks:
        for name, kind, size in (
            (disk.backing, "diskDescriptor", 600),
            (disk.backing[:-5] + "-flat.vmdk", "diskExtent", disk.capacity_bytes),
        ):
            made.append(_vm.FileLayoutEx.FileInfo(key=len(made), name=name, type=kind, size=size, uniqueSize=size, accessible=True))
    return _vm.FileLayoutEx(file=made, timestamp=datetime(1970, 1, 1, tzinfo=UTC))


def _datastores(vm: Vm) -> Any:
    return vim.Datastore.Array([datastore_ref(key) for key in dict.fromkeys(d.datastore.key for d in vm.disks)])


def _networks(vm: Vm) -> Any:
    return vim.Network.Array([network_ref(n) for n in {n.network.key: n.network for n in vm.nics}.values()])


PROPERTIES: Mapping[str, Callable[[Vm], Any]] = {
    "name": lambda vm: escape_name(vm.name),
    "config": _config,
    "config.hardware": _hardware,
    "runtime": _runtime,
    "guest": _guest,
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
