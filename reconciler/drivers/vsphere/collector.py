"""Bulk property reads of one vCenter: everything once, page by page, or what has changed since the last time.

What it is: PropertyCollector and ContainerView, named properties only; a fixed number of calls per page, never one per object.
What it is not: a model; it gives dictionaries of digested properties. Runs inside `Session.run`.
Source: vSphere Web Services API, PropertyCollector: RetrievePropertiesEx, CreateFilter, WaitForUpdatesEx; ViewManager.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.drivers.vsphere.digest import Properties, digest
from reconciler.drivers.vsphere.sdk import kind, moid, vim, vmodl

PAGE = 200  # objects a reply, whose tree is held whole; vCenter's own limit is about a thousand

VM_PROPERTIES = (
    "availableField",
    "config.bootOptions.efiSecureBootEnabled",
    "config.changeTrackingEnabled",
    "config.cpuAffinity.affinitySet",
    "config.cpuHotAddEnabled",
    "config.cpuHotRemoveEnabled",
    "config.extraConfig",
    "config.firmware",
    "config.ftInfo",
    "config.guestFullName",
    "config.guestId",
    "config.hardware.device",
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "config.hardware.numCoresPerSocket",
    "config.instanceUuid",
    "config.memoryHotAddEnabled",
    "config.nestedHVEnabled",
    "config.template",
    "config.uuid",
    "customValue",
    "guest.disk",
    "guest.guestFullName",
    "guest.hostName",
    "guest.ipAddress",
    "guest.ipStack",
    "guest.net",
    "guest.toolsRunningStatus",
    "guest.toolsStatus",
    "guest.toolsVersionStatus2",
    "name",
    "network",
    "parent",
    "runtime.connectionState",
    "runtime.consolidationNeeded",
    "runtime.host",
    "runtime.powerState",
    "snapshot",
    "summary.config.tpmPresent",
    "summary.storage.committed",
    # summary.quickStats.* is left out on purpose: it changes for every running VM every 20 s, and nothing decides by it.
)
PLACE_PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "Folder": ("name", "parent"),
    "Datacenter": ("name", "parent"),
    "ComputeResource": ("name", "parent"),
    "ClusterComputeResource": (
        "name",
        "parent",
        "configuration.dasConfig.enabled",
        "configuration.dasVmConfig",
        "configuration.drsConfig.enabled",
        "configuration.drsConfig.defaultVmBehavior",
        "configuration.drsVmConfig",
    ),
    "HostSystem": ("name", "parent", "runtime.inMaintenanceMode", "summary.config.sslThumbprint", "summary.hardware.uuid"),
    "Datastore": ("name", "parent", "summary.type"),
    "Network": ("name", "parent"),
    "DistributedVirtualPortgroup": ("name", "parent", "key"),
    "OpaqueNetwork": ("name", "parent", "summary"),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One object entered, changed or left. `values`: new values by path; `gone`: paths that have no value now."""

    kind: str
    id: str
    entered: bool
    left: bool
    values: Properties
    gone: tuple[str, ...] = ()


@dataclass(slots=True)
class Watch:
    """A filter on a collector of its own, in one session. `version` is what has been applied; asking with it again repeats a lost reply."""

    generation: int
    view: Any
    collector: Any
    version: str = field(default="")


def read_all(content: Any) -> Iterator[tuple[str, str, Properties]]:
    """(kind, id, properties) of every object, in pages. A page that fails is an error of the whole read."""
    view = _view(content)
    collector = content.propertyCollector
    try:
        page = collector.RetrievePropertiesEx([_filter_spec(view)], vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=PAGE))
        while page is not None:
            for found in page.objects:
                yield kind(found.obj), moid(found.obj), _properties(found)
            page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
    finally:
        view.DestroyView()


def read_one(content: Any, reference: Any, paths: tuple[str, ...]) -> Properties:
    """Named properties of one object. Errors: ManagedObjectNotFound."""
    return read_some(content, [reference], paths)[0][1]


def read_some(content: Any, references: list[Any], paths: tuple[str, ...]) -> list[tuple[str, Properties]]:
    """Id and named properties of a few objects of one type, in one call where they fit into one page."""
    query = vmodl.query.PropertyCollector
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=reference) for reference in references],
        propSet=[query.PropertySpec(type=type(references[0]), pathSet=list(paths))],
    )
    page = content.propertyCollector.RetrievePropertiesEx([spec], query.RetrieveOptions())
    found = list(page.objects)
    while page is not None and page.token:
        page = content.propertyCollector.ContinueRetrievePropertiesEx(page.token)
        found.extend(page.objects if page is not None else ())
    return [(moid(each.obj), _properties(each)) for each in found]


def open_watch(content: Any, generation: int) -> Watch:
    """A new filter on the same properties; its first changes are all objects, as entered."""
    view = _view(content)
    collector = content.propertyCollector.CreatePropertyCollector()
    # partialUpdates off: a changed device list comes whole, so no nested paths need to be patched into it.
    collector.CreateFilter(_filter_spec(view), False)
    return Watch(generation, view, collector)


def read_changes(watch: Watch) -> tuple[list[Change], str]:
    """What has happened since `watch.version`, without waiting, and the version to note once it has been applied.

    Errors: InvalidCollectorVersion when the server no longer knows that version.
    """
    options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=0, maxObjectUpdates=PAGE)
    changes: list[Change] = []
    version, more = watch.version, True
    while more:
        update = watch.collector.WaitForUpdatesEx(version, options)
        if update is None:
            break
        version, more = update.version, bool(update.truncated)
        changes.extend(_change(found) for part in update.filterSet for found in part.objectSet)
    return changes, version


def close_watch(watch: Watch) -> None:
    """The collector takes its filter with it."""
    watch.collector.Destroy()
    watch.view.DestroyView()


def _properties(found: Any) -> Properties:
    """Errors: NotAuthenticated. When a session ends, the collector still answers, with every property missing for that reason."""
    for missing in found.missingSet or ():
        if isinstance(missing.fault, vim.fault.NotAuthenticated):
            raise missing.fault
    return {p.name: digest(p.name, p.val) for p in found.propSet if p.val is not None}


def _change(found: Any) -> Change:
    """A property that became unset comes as "remove", or as "assign" without a value (PropertyChange.val is optional)."""
    set_now = [c for c in found.changeSet if c.op in ("assign", "add") and c.val is not None]
    values = {c.name: digest(c.name, c.val) for c in set_now}
    gone = tuple(c.name for c in found.changeSet if c.op in ("remove", "indirectRemove") or c.val is None)
    return Change(kind(found.obj), moid(found.obj), found.kind == "enter", found.kind == "leave", values, gone)


def _view(content: Any) -> Any:
    types = [vim.VirtualMachine, vim.Folder, vim.Datacenter, vim.ComputeResource, vim.HostSystem, vim.Datastore, vim.Network]
    return content.viewManager.CreateContainerView(container=content.rootFolder, type=types, recursive=True)


def _filter_spec(view: Any) -> Any:
    query = vmodl.query.PropertyCollector
    walk = query.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
    sdk_types = {
        "Folder": vim.Folder,
        "Datacenter": vim.Datacenter,
        "ComputeResource": vim.ComputeResource,
        "ClusterComputeResource": vim.ClusterComputeResource,
        "HostSystem": vim.HostSystem,
        "Datastore": vim.Datastore,
        "Network": vim.Network,
        "DistributedVirtualPortgroup": vim.dvs.DistributedVirtualPortgroup,
        "OpaqueNetwork": vim.OpaqueNetwork,
    }
    wanted = [query.PropertySpec(type=sdk_types[name], pathSet=list(paths)) for name, paths in PLACE_PROPERTIES.items()]
    wanted.append(query.PropertySpec(type=vim.VirtualMachine, pathSet=list(VM_PROPERTIES)))
    return query.FilterSpec(objectSet=[query.ObjectSpec(obj=view, skip=True, selectSet=[walk])], propSet=wanted)
