"""The inventory of one vCenter: read once in full, then kept up with what changes.

What it is: the cache between the collector and the core; only VMs that changed are converted again, and all of them when a place
(host, cluster, datastore, network, folder) did. What it is not: a source of truth: it is dropped at any doubt, and then read in full.
Where it stands: a filter that lives as long as the session tells of everything, and then of what changed; a process that may need only
one read begins with a plain bulk read instead. Thread-safe; every read is complete or an error.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

from reconciler.core.inventory import Inventory, SiteInfo, SourceVm
from reconciler.drivers.vsphere import collector
from reconciler.drivers.vsphere.collector import Watch
from reconciler.drivers.vsphere.digest import Properties
from reconciler.drivers.vsphere.faults import CALL_ERRORS
from reconciler.drivers.vsphere.hardware import Devices
from reconciler.drivers.vsphere.machine import FROZEN, convert_vm
from reconciler.drivers.vsphere.places import HostFacts, Places
from reconciler.drivers.vsphere.sdk import moid, vmodl
from reconciler.drivers.vsphere.session import Session
from reconciler.errors import RetryableError
from reconciler.ports import Clock

log = logging.getLogger(__name__)

VM = "VirtualMachine"
# Replies are millions of small objects without a cycle among them; looking for cycles after every 700 took a quarter of a large read.
GC_ALLOCATIONS = 50_000
# The filter or its version is gone though the session lives on: vCenter restarted, or it dropped what was not asked for in time.
_WATCH_LOST: Any = (vmodl.query.InvalidCollectorVersion, vmodl.fault.ManagedObjectNotFound, vmodl.fault.InvalidArgument)


class InventoryCache:
    """`follow`: the first read opens the filter, since others will come."""

    def __init__(self, session: Session, clock: Clock, follow: bool = False) -> None:
        self._session = session
        self._clock = clock
        self._follows = follow
        self._lock = threading.RLock()
        self._objects: dict[tuple[str, str], Properties] = {}
        self._vms: dict[str, SourceVm] = {}
        self._sharing: frozenset[str] = frozenset()
        self._places: Places | None = None
        self._watch: Watch | None = None
        self._site_uuid = ""

    def read(self, site: SiteInfo) -> Inventory:
        """Everything, as of now."""
        started = self._clock.monotonic()
        with self._lock:
            converted = self._session.run("read the inventory", self._refresh)
            if self._site_uuid != site.uuid:
                raise RetryableError("ProviderChanged", f"{self._session.site} became another vCenter while it was read")
            places = self._known_places()
            vms = tuple(self._vms[id_] for id_ in sorted(self._vms, key=lambda id_: (len(id_), id_)))
        seconds = round(self._clock.monotonic() - started, 3)
        log.debug("inventory read", extra={"site": self._session.site, "vms": len(vms), "converted": converted, "seconds": seconds})
        return Inventory(site, vms, places.networks(), places.storages(), places.hosts())

    def convert_one(self, id_: str, properties: Properties, epoch: str) -> SourceVm:
        """A VM from a direct read, joined with the places of the last bulk read, or of a new one if it is somewhere new."""
        with self._lock:
            if self._places is None or not self._all_known(properties):
                self._session.run("read the inventory", self._refresh)
            vm = convert_vm(id_, properties, self._known_places(), self._vms.get(id_))
            return replace(_mark_shared(vm, self._sharing), epoch=epoch)

    def host_facts(self) -> tuple[HostFacts, ...]:
        """As of the last bulk read."""
        with self._lock:
            return self._known_places().host_facts()

    def _all_known(self, properties: Properties) -> bool:
        places = self._known_places()
        devices: Devices = properties.get("config.hardware.device") or Devices()
        stores = {disk.store_id for disk in devices.disks}
        for config in (properties.get(FROZEN) or {}).values():
            stores.update(disk.store_id for disk in (config.get("config.hardware.device") or Devices()).disks)
        return all(places.knows(id_) for id_ in (properties.get("runtime.host"), *stores) if id_)

    def close(self) -> None:
        with self._lock:
            self._drop_watch()

    def _drop_watch(self) -> None:
        """Give the filter back, if its session still lives: a vCenter keeps the changes of each filter for its client."""
        watch, self._watch = self._watch, None
        if watch is None or watch.generation != self._session.generation:
            return
        try:
            collector.close_watch(watch)
        except CALL_ERRORS as err:
            log.debug("filter not removed", extra={"site": self._session.site, "error": type(err).__name__})

    def _refresh(self, content: Any) -> int:
        """Bring objects and VMs up to date; the number of VMs converted. May be repeated after any error."""
        self._site_uuid = str(content.about.instanceUuid)
        if gc.get_threshold()[0] < GC_ALLOCATIONS:
            gc.set_threshold(GC_ALLOCATIONS, *gc.get_threshold()[1:])
        if not self._follows:
            return self._read_all(content)
        try:
            return self._follow(content)
        except _WATCH_LOST:
            log.info("change filter lost, reading in full", extra={"site": self._session.site})
            self._drop_watch()
            return self._read_all(content)

    def _read_all(self, content: Any) -> int:
        objects = {(kind, id_): properties for kind, id_, properties in collector.read_all(content)}
        self._objects = objects
        self._follows = True
        return self._convert(content, {id_ for kind, id_ in objects if kind == VM}, places_changed=True)

    def _follow(self, content: Any) -> int:
        if self._watch is None or self._watch.generation != self._session.generation:
            self._watch = collector.open_watch(content, self._session.generation)
        changes, version = collector.read_changes(self._watch)
        if not self._watch.version:
            self._objects = {}  # a new filter tells of everything
        dirty, places_changed = self._apply(changes)
        converted = self._convert(content, dirty, places_changed)
        self._watch.version = version
        return converted

    def _apply(self, changes: list[collector.Change]) -> tuple[set[str], bool]:
        """Ids of VMs that changed, and whether any other object did. Applying the same changes twice does no harm."""
        dirty: set[str] = set()
        places_changed = False
        for change in changes:
            key = (change.kind, change.id)
            if change.left:
                self._objects.pop(key, None)
            else:
                known = {} if change.entered else self._objects.get(key, {})
                self._objects[key] = {**known, **change.values}
                for path in change.gone:
                    self._objects[key].pop(path, None)
            if change.kind == VM:
                dirty.add(change.id)
            else:
                places_changed = True
        return dirty, places_changed

    def _convert(self, content: Any, dirty: set[str], places_changed: bool) -> int:
        if places_changed or self._places is None:
            others = {key: properties for key, properties in self._objects.items() if key[0] != VM}
            self._places = Places(others, moid(content.rootFolder))
        present = {id_ for kind, id_ in self._objects if kind == VM}
        wanted = present if places_changed else dirty & present
        earlier = self._vms
        kept = {id_: vm for id_, vm in earlier.items() if id_ in present}
        places = self._known_places()
        fresh = {id_: convert_vm(id_, self._objects[(VM, id_)], places, earlier.get(id_)) for id_ in wanted}
        self._vms = self._share({**kept, **fresh})
        return len(fresh)

    def _share(self, vms: dict[str, SourceVm]) -> dict[str, SourceVm]:
        """Mark disks whose file is attached to more than one VM: only the whole inventory shows that."""
        uses = Counter(disk.backing.file for vm in vms.values() for disk in vm.disks if disk.backing.file)
        self._sharing = frozenset(file for file, count in uses.items() if count > 1)
        return {id_: _mark_shared(vm, self._sharing) for id_, vm in vms.items()}

    def _known_places(self) -> Places:
        assert self._places is not None
        return self._places


def _mark_shared(vm: SourceVm, shared: frozenset[str]) -> SourceVm:
    """The file decides, not the sharing flag: a disk may allow sharing and have one user."""
    if all(disk.shared == (disk.backing.file in shared) for disk in vm.disks):
        return vm
    disks = tuple(replace(disk, shared=disk.backing.file in shared) for disk in vm.disks)
    documents = vm.attributes["disks"]
    assert isinstance(documents, list)
    marked = [{**document, "shared": disk.shared} for document, disk in zip(documents, disks, strict=True)]
    return replace(vm, disks=disks, attributes={**vm.attributes, "disks": marked})
