"""What a lab machine's guest tools tell: GuestInfo, and the tools states that other properties repeat.

Where it stands: part of machine_view.py's property table. With the guest down, everything that only tools can know is unset.
Source: vSphere Web Services API 8.0.2, GuestInfo.
"""

from __future__ import annotations

from typing import Any

from reconciler.lab.machines import Vm
from reconciler.lab.vcenter.vmomi import make, vim

_vm: Any = vim.vm


def tools(vm: Vm) -> tuple[str, str, str]:
    """toolsStatus, toolsVersionStatus2, toolsRunningStatus."""
    if not vm.tools:
        return "toolsNotInstalled", "guestToolsNotInstalled", "guestToolsNotRunning"
    if vm.tools_running:
        return "toolsOk", "guestToolsCurrent", "guestToolsRunning"
    return "toolsNotRunning", "guestToolsCurrent", "guestToolsNotRunning"


def _address(vm: Vm, number: int) -> str:
    return f"10.{20 + number}.{vm.key // 250 % 250}.{vm.key % 250 + 1}"


def guest(vm: Vm) -> Any:
    status, version, running = tools(vm)
    up = vm.tools_running
    state = "shuttingDown" if vm.shutting_down else "running"
    return make(
        _vm.GuestInfo,
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
        disk=[make(_vm.GuestInfo.DiskInfo, diskPath="/", capacity=1 << 30, freeSpace=1 << 29)] if up else [],
        screen=make(_vm.GuestInfo.ScreenInfo, width=-1, height=-1),
        guestState=state if up else "notRunning",
        guestOperationsReady=up,
        interactiveGuestOperationsReady=False,
        guestStateChangeSupported=up,
        generationInfo=[],
    )


def _guest_nics(vm: Vm) -> list[Any]:
    made = []
    for number, nic in enumerate(vm.nics):
        address: Any = make(
            vim.net.IpConfigInfo.IpAddress,
            ipAddress=_address(vm, number),
            prefixLength=24,
            origin="manual",
            state="preferred",
        )
        made.append(
            make(
                _vm.GuestInfo.NicInfo,
                network=nic.network.name,
                ipAddress=[_address(vm, number)],
                macAddress=nic.mac,
                connected=nic.connected,
                deviceConfigId=4000 + number,
                ipConfig=make(vim.net.IpConfigInfo, ipAddress=[address]),
            )
        )
    return made


def _ip_stack() -> list[Any]:
    dns: Any = make(vim.net.DnsConfigInfo, dhcp=False, hostName="", domainName="lab.example", ipAddress=["10.20.0.53"])
    route: Any = make(
        vim.net.IpRouteConfigInfo.IpRoute,
        network="0.0.0.0",
        prefixLength=0,
        gateway=make(vim.net.IpRouteConfigInfo.Gateway, ipAddress="10.20.0.254", device="0"),
    )
    return [make(_vm.GuestInfo.StackInfo, dnsConfig=dns, ipRouteConfig=make(vim.net.IpRouteConfigInfo, ipRoute=[route]))]
