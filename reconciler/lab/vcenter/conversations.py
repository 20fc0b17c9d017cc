"""Methods that keep something with the session (views, filters, pages, event collectors), and the look-ups beside them.

Where it stands: calls.py has found session and object; collector.py, events.py and inventory.py do the work.
Source: vSphere Web Services API 8.0.2: ViewManager, PropertyCollector, EventManager, SearchIndex, AuthorizationManager.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reconciler.lab.vcenter import events, faults, soap
from reconciler.lab.vcenter.acts import lacks
from reconciler.lab.vcenter.collector import Collector, Filter
from reconciler.lab.vcenter.inventory import ROOT
from reconciler.lab.vcenter.parts import Parts, Xml, wrap
from reconciler.lab.vcenter.properties import NO_EVENTS
from reconciler.lab.vcenter.search import find_by_path, find_by_uuid
from reconciler.lab.vcenter.sessions import Session
from reconciler.lab.vcenter.vmomi import vim, vmodl

PRIVILEGES = (
    "System.Anonymous",
    "System.Read",
    "System.View",
    "Sessions.ValidateSession",
    "Datastore.Browse",
    "Datastore.FileManagement",
    "VirtualMachine.Interact.PowerOff",
    "VirtualMachine.Interact.PowerOn",
    "VirtualMachine.Interact.Reset",
    "VirtualMachine.Interact.Suspend",
    "VirtualMachine.Provisioning.DiskRandomRead",
    "VirtualMachine.Provisioning.GetVmFiles",
    "VirtualMachine.State.CreateSnapshot",
    "VirtualMachine.State.RemoveSnapshot",
    "VirtualMachine.State.RevertToSnapshot",
    "Resource.ColdMigrate",
    "VApp.Export",
    "VirtualMachine.Config.ChangeTracking",
)


class Conversations:
    """`methods`: wire name -> handler. Called under the world's lock."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.methods: dict[str, Callable[[Session, soap.Call], Any]] = {
            "CreateContainerView": self._create_view,
            "DestroyView": self._destroy_view,
            "CreateFilter": self._create_filter,
            "DestroyPropertyFilter": self._destroy_filter,
            "CreatePropertyCollector": self._create_collector,
            "DestroyPropertyCollector": lambda s, c: s.collectors.pop(c.this._moId, None) and None,
            "RetrieveProperties": lambda s, c: Xml(parts.retrieval.all(c.args["specSet"], c.version)),
            "RetrievePropertiesEx": self._retrieve,
            "ContinueRetrievePropertiesEx": lambda s, c: wrap(parts.retrieval.go_on(s, c.args["token"], c.version)),
            "CancelRetrievePropertiesEx": lambda s, c: s.pages.pop(c.args["token"], None) and None,
            "WaitForUpdatesEx": self._wait,
            "CheckForUpdates": self._check,
            "CancelWaitForUpdates": self._cancel_wait,
            "QueryEvents": self._query_events,
            "CreateCollectorForEvents": self._create_event_collector,
            "ReadNextEvents": lambda s, c: parts.events.next_page(self._event_collector(s, c), c.args["maxCount"]),
            "ReadPreviousEvents": lambda s, c: parts.events.previous_page(self._event_collector(s, c), c.args["maxCount"]),
            "ResetCollector": lambda s, c: parts.events.to_end(self._event_collector(s, c)),
            "RewindCollector": lambda s, c: setattr(self._event_collector(s, c), "at", 0),
            "SetCollectorPageSize": lambda s, c: setattr(self._event_collector(s, c), "page", c.args["maxCount"]),
            "DestroyCollector": lambda s, c: s.collectors.pop(c.this._moId, None) and None,
            "FindByUuid": lambda s, c: find_by_uuid(parts.world, c.args),
            "FindByInventoryPath": lambda s, c: find_by_path(parts.inventory, parts.reader, c.args["inventoryPath"]),
            "HasPrivilegeOnEntities": lambda s, c: self._privileges(c, c.args["entity"]),
            "HasPrivilegeOnEntity": lambda s, c: [p not in parts.denied for p in c.args["privId"]],
            "FetchUserPrivilegeOnEntities": self._user_privileges,
            "RemoveSnapshot_Task": lambda s, c: self._on_snapshot(parts.snapshots.remove, s, c),
            "RevertToSnapshot_Task": lambda s, c: self._on_snapshot(parts.snapshots.revert, s, c),
        }

    def _query_events(self, session: Session, call: soap.Call) -> Any:
        if NO_EVENTS in self._parts.reader.oddities:
            raise vmodl.fault.NotImplemented(msg="The operation is not implemented.")
        return self._parts.events.query(call.args["filter"])

    # ---- views and collectors ---------------------------------------------------------------------------------------------------------

    def _create_view(self, session: Session, call: soap.Call) -> Any:
        moid = f"session[{session.key}]view-{session.number()}"
        container = call.args["container"]
        if self._parts.inventory.find(container._moId) is None:
            raise faults.not_found(container)
        session.views[moid] = (tuple(call.args.get("type") or [vim.ManagedEntity]), container._moId, bool(call.args["recursive"]))
        return vim.view.ContainerView(moid)

    def members(self, kinds: tuple[type, ...], container: str, recursive: bool) -> Any:
        inventory = self._parts.inventory
        found = [n for n in inventory.every() if isinstance(n.ref, kinds)]
        if not recursive:
            found = [n for n in found if (p := n.table["parent"](n.record)) is not None and p._moId == container]
        elif container != ROOT:
            found = [n for n in found if inventory.is_below(n, container)]
        return vim.ManagedEntity.Array([n.ref for n in found if n.id != ROOT])

    def _destroy_view(self, session: Session, call: soap.Call) -> None:
        session.views.pop(call.this._moId, None)

    def _collector(self, session: Session, call: soap.Call) -> Collector:
        found = session.collectors.get(call.this._moId)
        if not isinstance(found, Collector):
            raise faults.not_found(call.this)
        return found

    def _create_collector(self, session: Session, call: soap.Call) -> Any:
        moid = f"session[{session.key}]collector-{session.number()}"
        session.collectors[moid] = Collector(moid)
        return vmodl.query.PropertyCollector(moid)

    def _create_filter(self, session: Session, call: soap.Call) -> Any:
        moid = f"session[{session.key}]filter-{session.number()}"
        list(self._parts.reader.select(call.args["spec"]))  # a bad spec fails here, not at the first wait
        self._collector(session, call).filters[moid] = Filter(moid, call.args["spec"])
        return vmodl.query.PropertyCollector.Filter(moid)

    def _destroy_filter(self, session: Session, call: soap.Call) -> None:
        for each in session.collectors.values():
            if isinstance(each, Collector):
                each.filters.pop(call.this._moId, None)

    def _retrieve(self, session: Session, call: soap.Call) -> Xml:
        limit = call.args["options"].maxObjects
        return wrap(self._parts.retrieval.begin(session, call.args["specSet"], limit, call.version))

    def _wait(self, session: Session, call: soap.Call) -> Xml:
        since, options = call.args.get("version") or "", call.args.get("options")
        return wrap(self._parts.updates.wait(session, self._collector(session, call), since, options, call.version))

    def _check(self, session: Session, call: soap.Call) -> Xml:
        now = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=0)
        return wrap(self._parts.updates.wait(session, self._collector(session, call), call.args.get("version") or "", now, call.version))

    def _cancel_wait(self, session: Session, call: soap.Call) -> None:
        self._collector(session, call).canceled = True
        self._parts.world.touch()

    def _create_event_collector(self, session: Session, call: soap.Call) -> Any:
        moid = f"session[{session.key}]events-{session.number()}"
        session.collectors[moid] = events.Collector(moid, call.args["filter"])
        return vim.event.EventHistoryCollector(moid)

    def _event_collector(self, session: Session, call: soap.Call) -> events.Collector:
        found = session.collectors.get(call.this._moId)
        if not isinstance(found, events.Collector):
            raise faults.not_found(call.this)
        return found

    # ---- permissions and snapshots ----------------------------------------------------------------------------------------------------

    def _privileges(self, call: soap.Call, entities: list[Any]) -> list[Any]:
        def on(moid: str) -> list[Any]:
            kind, denied = vim.AuthorizationManager.PrivilegeAvailability, self._parts.denied
            return [kind(privId=p, isGranted=not lacks(denied, p, moid)) for p in call.args["privId"]]

        for entity in entities:
            if self._parts.inventory.find(entity._moId) is None:
                raise faults.not_found(entity)
        return [vim.AuthorizationManager.EntityPrivilege(entity=e, privAvailability=on(e._moId)) for e in entities]

    def _user_privileges(self, session: Session, call: soap.Call) -> list[Any]:
        granted = [p for p in PRIVILEGES if p not in self._parts.denied]
        return [vim.AuthorizationManager.UserPrivilegeResult(entity=e, privileges=granted) for e in call.args["entities"]]

    def _on_snapshot(self, act: Callable[[str, str, dict[str, Any]], Any], session: Session, call: soap.Call) -> Any:
        try:
            return act(call.this._moId, session.user, call.args)
        except KeyError:
            raise faults.not_found(call.this) from None
