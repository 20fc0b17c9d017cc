"""Hosts, datastores, portgroups and switches of the lab as vSphere data objects.

What it is not: the tree they hang in (inventory.py). Source: vSphere Web Services API 8.0.2.
"""

from __future__ import annotations

import uuid
from typing import Any

from reconciler.lab.machines import Datastore, Host, Network
from reconciler.lab.vcenter.devices import datastore_ref
from reconciler.lab.vcenter.machine_view import escape_name
from reconciler.lab.vcenter.vmomi import vim


def switch_ref(network: Network) -> Any:
    return vim.dvs.VmwareDistributedVirtualSwitch(f"dvs-{network.datacenter.key}{sum(network.switch.encode()) % 997:03d}")


def host_runtime(host: Host) -> Any:
    return vim.host.RuntimeInfo(
        connectionState="connected" if host.connected else "notResponding",
        powerState="poweredOn",
        inMaintenanceMode=host.maintenance,
    )


def hardware_uuid(host: Host) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"lab-host:{host.key}:{host.name}"))


def host_summary(host: Host) -> Any:
    hardware = vim.host.Summary.HardwareSummary(
        vendor="Lab",
        model="Bench",
        uuid=hardware_uuid(host),
        memorySize=64 << 30,
        cpuModel="Lab CPU",
        cpuMhz=2400,
        numCpuPkgs=1,
        numCpuCores=8,
        numCpuThreads=16,
        numNics=2,
        numHBAs=1,
    )
    config = vim.host.Summary.ConfigSummary(
        name=host.name, port=443, sslThumbprint=host.thumbprint or None, vmotionEnabled=True, faultToleranceEnabled=False
    )
    return vim.host.Summary(
        hardware=hardware,
        runtime=host_runtime(host),
        config=config,
        quickStats=vim.host.Summary.QuickStats(),
        overallStatus="green",
        rebootRequired=False,
    )


def _datastore_url(store: Datastore) -> str:
    return f"ds:///vmfs/volumes/{store.key:08x}-4b1c2d3e-0f1a-005056000001/"


def datastore_summary(store: Datastore) -> Any:
    return vim.Datastore.Summary(
        datastore=datastore_ref(store.key),
        name=escape_name(store.name),
        url=_datastore_url(store),
        capacity=store.capacity_bytes,
        freeSpace=store.capacity_bytes // 2,
        accessible=store.accessible,
        multipleHostAccess=store.shared,
        type=store.kind,
        maintenanceMode="normal",
    )


def datastore_info(store: Datastore) -> Any:
    common = {
        "name": escape_name(store.name),
        "url": _datastore_url(store),
        "freeSpace": store.capacity_bytes // 2,
        "maxFileSize": 62 << 40,
    }
    if store.kind.startswith("NFS"):
        nas = vim.host.NasVolume(type=store.kind, name=store.name, capacity=store.capacity_bytes, remoteHost="nas.lab", remotePath="/vol")
        return vim.host.NasDatastoreInfo(nas=nas, **common)
    if store.kind != "VMFS":
        return vim.Datastore.Info(**common)
    extent = vim.host.ScsiDisk.Partition(diskName=f"naa.6000{store.key:012x}", partition=1)
    volume: Any = vim.host.VmfsVolume(
        type="VMFS",
        name=store.name,
        capacity=store.capacity_bytes,
        blockSizeMb=1,
        maxBlocks=63963136,
        majorVersion=6,
        version="6.82",
        uuid=f"{store.key:08x}-4b1c2d3e-0f1a-005056000001",
        extent=[extent],
        vmfsUpgradable=False,
    )
    return vim.host.VmfsDatastoreInfo(vmfs=volume, **common)


def portgroup_config(network: Network) -> Any:
    vlan: Any = vim.dvs.VmwareDistributedVirtualSwitch.VlanIdSpec(vlanId=network.vlan, inherited=False)
    return vim.dvs.DistributedVirtualPortgroup.ConfigInfo(
        key=f"dvportgroup-{network.key}",
        name=escape_name(network.name),
        numPorts=8,
        distributedVirtualSwitch=switch_ref(network),
        defaultPortConfig=vim.dvs.VmwareDistributedVirtualSwitch.VmwarePortConfigPolicy(vlan=vlan),
        type="earlyBinding",
        policy=vim.dvs.DistributedVirtualPortgroup.PortgroupPolicy(
            blockOverrideAllowed=True,
            shapingOverrideAllowed=False,
            vendorConfigOverrideAllowed=False,
            livePortMovingAllowed=False,
            portConfigResetAtDisconnect=True,
        ),
        uplink=False,
    )
