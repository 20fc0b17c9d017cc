"""The workload document of one VM: what validation concerns read, with the JSON names of Forklift's inventory.

What it is: conversion of named properties, tolerant of missing ones. Zero values as there: what is not known is "", 0 or false, and a
list that was not sent is null. What it is not: the VM in neutral terms (machine.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.drivers.vsphere.devices import Hardware
from reconciler.drivers.vsphere.digest import Document, Properties, plain
from reconciler.drivers.vsphere.places import Places


def workload(
    id_: str, properties: Properties, extra: Mapping[str, str], hardware: Hardware, places: Places, earlier: Mapping[str, object]
) -> Document:
    """`extra` is extraConfig with lower-case keys. `earlier`: the document as read before, for facts a stopped guest no longer tells."""
    return {
        "id": id_,
        **_settings(properties, extra),
        **_state(properties),
        **_guest(properties, earlier),
        "disks": hardware.disk_documents,
        "nics": hardware.nic_documents,
        "devices": hardware.device_documents,
        "networks": properties.get("network") or [],
        "host": places.host(_text(properties, "runtime.host")),
    }


def change_tracking(properties: Properties, extra: Mapping[str, str]) -> bool:
    """The setting, overridden by extraConfig, where older tools switch it on."""
    override = extra.get("ctkenabled")
    return override.lower() == "true" if override is not None else bool(properties.get("config.changeTrackingEnabled"))


def _settings(properties: Properties, extra: Mapping[str, str]) -> Document:
    numa = extra.get("numa.nodeaffinity", "")
    return {
        "name": plain(str(properties.get("name", ""))),
        "uuid": _text(properties, "config.uuid"),
        "instanceUuid": _text(properties, "config.instanceUuid"),
        "firmware": _text(properties, "config.firmware"),
        "isTemplate": _flag(properties, "config.template"),
        "changeTrackingEnabled": change_tracking(properties, extra),
        "cpuAffinity": properties.get("config.cpuAffinity.affinitySet"),
        "numaNodeAffinity": [node.strip() for node in numa.split(",")] if numa else None,
        "cpuHotAddEnabled": _flag(properties, "config.cpuHotAddEnabled"),
        "cpuHotRemoveEnabled": _flag(properties, "config.cpuHotRemoveEnabled"),
        "memoryHotAddEnabled": _flag(properties, "config.memoryHotAddEnabled"),
        "faultToleranceEnabled": _flag(properties, "config.ftInfo"),
        "nestedHVEnabled": _flag(properties, "config.nestedHVEnabled"),
        "cpuCount": _whole(properties, "config.hardware.numCPU"),
        "coresPerSocket": _whole(properties, "config.hardware.numCoresPerSocket"),
        "memoryMB": _whole(properties, "config.hardware.memoryMB"),
        "diskEnableUuid": extra.get("disk.enableuuid", "").lower() in ("true", "1"),
        "tpmEnabled": _flag(properties, "summary.config.tpmPresent"),
        "secureBoot": _flag(properties, "config.bootOptions.efiSecureBootEnabled"),
        "customDef": properties.get("availableField") or [],
        "customValues": properties.get("customValue") or [],
        "tags": None,  # they live in the REST API, not here
    }


def _state(properties: Properties) -> Document:
    snapshot = properties.get("snapshot")
    return {
        "powerState": _text(properties, "runtime.powerState"),
        "connectionState": _text(properties, "runtime.connectionState"),
        "consolidationNeeded": _flag(properties, "runtime.consolidationNeeded"),
        "snapshot": snapshot.current if snapshot is not None else {"kind": "", "id": ""},
        "storageUsed": _whole(properties, "summary.storage.committed"),
    }


def _guest(properties: Properties, earlier: Mapping[str, object]) -> Document:
    networks, stacks = properties.get("guest.net"), properties.get("guest.ipStack")
    # No list: nobody could say; an empty one: the guest has no address. A guest that goes down reports none, and what it had is what a
    # migration must preserve.
    kept = bool(earlier.get("guestNetworks")) and not networks
    return {
        "guestId": _text(properties, "config.guestId") or earlier.get("guestId", ""),
        "guestName": _text(properties, "config.guestFullName"),
        "guestNameFromVmwareTools": _text(properties, "guest.guestFullName"),
        "hostName": _text(properties, "guest.hostName"),
        "ipAddress": _text(properties, "guest.ipAddress"),
        "toolsStatus": _text(properties, "guest.toolsStatus"),
        "toolsRunningStatus": _text(properties, "guest.toolsRunningStatus"),
        "toolsVersionStatus2": _text(properties, "guest.toolsVersionStatus2"),
        "guestNetworks": earlier.get("guestNetworks") if kept else networks,
        "guestIpStacks": earlier.get("guestIpStacks") if kept else stacks,
        "guestDisks": properties.get("guest.disk"),
    }


def _text(properties: Properties, path: str) -> str:
    return str(properties.get(path) or "")


def _flag(properties: Properties, path: str) -> bool:
    return bool(properties.get(path))


def _whole(properties: Properties, path: str) -> int:
    return int(properties.get(path) or 0)
