"""The event history: what the world remembers of power, as vSphere events, with the filters of QueryEvents and of a collector.

Where it stands: called by calls.py under the world's lock. Events are never lost here; a vCenter keeps them for 30 days or so.
Filters by type are exact: a DrsVmPoweredOnEvent is not found by asking for VmPoweredOnEvent, as the document promises nothing else.
Source: vSphere Web Services API 8.0.2, EventManager, EventFilterSpec, EventHistoryCollector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconciler.lab.machines import Happening, PowerEvent, Vm
from reconciler.lab.vcenter.inventory import Inventory
from reconciler.lab.vcenter.machine_view import escape_name, vm_ref
from reconciler.lab.vcenter.vmomi import vim
from reconciler.lab.world import World

QUERY_LIMIT = 1000  # the most that QueryEvents returns
_TYPES = {
    Happening.STARTING: ("VmStartingEvent", "{vm} on host {host} in {dc} is starting"),
    Happening.ON: ("VmPoweredOnEvent", "{vm} on {host} in {dc} is powered on"),
    Happening.OFF: ("VmPoweredOffEvent", "{vm} on {host} in {dc} is powered off"),
    Happening.GUEST_SHUTDOWN: ("VmGuestShutdownEvent", "Guest OS shut down for {vm} on {host} in {dc}"),
    Happening.RESET: ("VmResettingEvent", "{vm} on {host} in {dc} is reset"),
    Happening.SUSPENDED: ("VmSuspendedEvent", "{vm} on {host} in {dc} is suspended"),
    Happening.REVERTED: (
        "com.vmware.vc.vm.VmStateRevertedToSnapshot",
        "{vm} on {host} in {dc} went back to a snapshot",
    ),
    Happening.MIGRATED: ("VmRelocatedEvent", "Completed the relocation of {vm} to {host} in {dc}"),
    Happening.RECONFIGURED: ("VmReconfiguredEvent", "Reconfigured {vm} on {host} in {dc}"),
}
_HA = {Happening.ON: "com.vmware.vc.ha.VmRestartedByHAEvent", Happening.OFF: "VmDisconnectedEvent"}  # a host died under the machine


@dataclass(slots=True)
class Collector:
    """`at` counts the events already read, from the oldest; `page` is how many `latestPage` shows."""

    id: str
    filter: Any
    at: int = 0
    page: int = 100


class Events:
    def __init__(self, world: World, inventory: Inventory) -> None:
        self._world = world
        self._inventory = inventory

    def query(self, wanted: Any, limit: int | None = None) -> list[Any]:
        """Matching events, oldest first; of too many, the newest."""
        found = [e for e in self._world.history if self._fits(e, wanted)]
        most = min(wanted.maxCount or QUERY_LIMIT, QUERY_LIMIT) if limit is None else limit
        return [self._event(e) for e in (found[-most:] if most else [])]

    def next_page(self, collector: Collector, count: int) -> list[Any]:
        """ReadNextEvents: from where the last page ended towards the newest."""
        found = [e for e in self._world.history if self._fits(e, collector.filter)][collector.at : collector.at + count]
        collector.at += len(found)
        return [self._event(e) for e in found]

    def previous_page(self, collector: Collector, count: int) -> list[Any]:
        """ReadPreviousEvents: towards the oldest, newest first."""
        found = [e for e in self._world.history if self._fits(e, collector.filter)]
        start = max(0, collector.at - count)
        page, collector.at = found[start : collector.at], start
        return [self._event(e) for e in reversed(page)]

    def to_end(self, collector: Collector) -> None:
        collector.at = sum(1 for e in self._world.history if self._fits(e, collector.filter))

    def latest_page(self, collector: Collector) -> list[Any]:
        """Newest first, as the property is documented."""
        return self.query(collector.filter, collector.page)[::-1]

    def _fits(self, event: PowerEvent, wanted: Any) -> bool:
        if wanted.time is not None:
            if wanted.time.beginTime is not None and event.at < wanted.time.beginTime:
                return False
            if wanted.time.endTime is not None and event.at > wanted.time.endTime:
                return False
        name = _type_name(event)
        if wanted.eventTypeId and not {name, f"vim.event.{name}"} & set(wanted.eventTypeId):
            return False
        if wanted.type and name not in {t.__name__.rpartition(".")[2] for t in wanted.type}:
            return False
        if wanted.userName is not None and wanted.userName.userList and event.user not in wanted.userName.userList:
            return False
        return wanted.entity is None or self._concerns(event, wanted.entity)

    def _concerns(self, event: PowerEvent, by: Any) -> bool:
        if by.entity._moId == f"vm-{event.vm}":
            return str(by.recursion) != "children"
        vm = self._world.known[event.vm]
        return str(by.recursion) != "self" and self._inventory.is_below(self._inventory.node(vm), by.entity._moId)

    def _event(self, event: PowerEvent) -> Any:
        vm = self._world.known[event.vm]
        text = _TYPES[event.kind][1].format(vm=vm.name, host=vm.host.name, dc=vm.datacenter.name)
        name = _type_name(event)
        extended = {"eventTypeId": name} if "." in name else {}
        return getattr(vim.event, "EventEx" if extended else name)(
            key=event.number,
            chainId=event.number,
            createdTime=event.at,
            userName=event.user,
            fullFormattedMessage=text,
            **_arguments(vm),
            **(extended or _own_fields(event, vm)),
        )


def _type_name(event: PowerEvent) -> str:
    if event.kind is Happening.ON and event.cause == "drs":
        return "DrsVmPoweredOnEvent"
    if event.cause == "ha" and event.kind in _HA:
        return _HA[event.kind]
    return _TYPES[event.kind][0]


def _own_fields(event: PowerEvent, vm: Vm) -> dict[str, Any]:
    """What the event's own type asks for."""
    fields: dict[str, Any] = {"template": vm.template}
    if event.kind is Happening.RECONFIGURED:
        fields["configSpec"] = vim.vm.ConfigSpec()
    if event.kind is Happening.MIGRATED:
        fields["sourceHost"] = vim.event.HostEventArgument(name=escape_name(vm.host.name), host=vim.HostSystem(f"host-{vm.host.key}"))
    return fields


def _arguments(vm: Vm) -> dict[str, Any]:
    cluster, dc = vm.host.cluster, vm.datacenter
    return {
        "datacenter": vim.event.DatacenterEventArgument(name=escape_name(dc.name), datacenter=vim.Datacenter(f"datacenter-{dc.key}")),
        "computeResource": vim.event.ComputeResourceEventArgument(
            name=escape_name(cluster.name), computeResource=vim.ClusterComputeResource(f"domain-c{cluster.key}")
        ),
        "host": vim.event.HostEventArgument(name=escape_name(vm.host.name), host=vim.HostSystem(f"host-{vm.host.key}")),
        "vm": vim.event.VmEventArgument(name=escape_name(vm.name), vm=vm_ref(vm)),
    }
