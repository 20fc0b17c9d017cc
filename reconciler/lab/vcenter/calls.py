"""Method by method: a parsed SOAP call -> its result. The session and the object are checked here, the work is done elsewhere.

Where it stands: between server.py (bytes) and collector.py, acts.py, events.py, inventory.py. Called under the world's lock.
Source: vSphere Web Services API 8.0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from reconciler.lab.vcenter import events, faults, soap
from reconciler.lab.vcenter.acts import Acts
from reconciler.lab.vcenter.collector import Collector, Filter, Retrieval, Updates
from reconciler.lab.vcenter.inventory import MINE, ROOT, Inventory, Node
from reconciler.lab.vcenter.properties import Reader
from reconciler.lab.vcenter.search import find_by_path, find_by_uuid
from reconciler.lab.vcenter.sessions import Session, Sessions
from reconciler.lab.vcenter.vmomi import support, vim, vmodl
from reconciler.lab.world import World

ANONYMOUS = frozenset({"RetrieveServiceContent", "Login", "Logout"})
SINGLETONS = {
    "ServiceInstance": vim.ServiceInstance,
    "propertyCollector": vmodl.query.PropertyCollector,
    "ViewManager": vim.view.ViewManager,
    "SessionManager": vim.SessionManager,
    "AuthorizationManager": vim.AuthorizationManager,
    "EventManager": vim.event.EventManager,
    "TaskManager": vim.TaskManager,
    "SearchIndex": vim.SearchIndex,
}


@dataclass(frozen=True, slots=True)
class Xml:
    """A result that is already XML: the `returnval` elements."""

    text: str


@dataclass(slots=True)
class Parts:
    """What the methods work on."""

    world: World
    inventory: Inventory
    sessions: Sessions
    reader: Reader
    retrieval: Retrieval
    updates: Updates
    acts: Acts
    events: events.Events
    about: Any
    denied: set[str]


class Calls:
    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._methods: dict[str, Callable[[Session, soap.Call], Any]] = {
            "CurrentTime": lambda s, c: parts.world.now(),
            "SessionIsActive": lambda s, c: c.args["sessionID"] in parts.sessions.open,
            "CreateContainerView": self._create_view,
            "DestroyView": self._destroy_view,
            "CreateFilter": self._create_filter,
            "DestroyPropertyFilter": self._destroy_filter,
            "CreatePropertyCollector": self._create_collector,
            "DestroyPropertyCollector": lambda s, c: s.collectors.pop(c.this._moId, None) and None,
            "RetrieveProperties": lambda s, c: Xml(parts.retrieval.all(c.args["specSet"], c.version)),
            "RetrievePropertiesEx": self._retrieve,
            "ContinueRetrievePropertiesEx": lambda s, c: _wrap(parts.retrieval.go_on(s, c.args["token"], c.version)),
            "CancelRetrievePropertiesEx": lambda s, c: s.pages.pop(c.args["token"], None) and None,
            "WaitForUpdatesEx": self._wait,
            "CheckForUpdates": self._check,
            "CancelWaitForUpdates": self._cancel_wait,
            "QueryEvents": lambda s, c: parts.events.query(c.args["filter"]),
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
            "RemoveSnapshot_Task": self._remove_snapshot,
        }
        for moid in SINGLETONS:
            parts.inventory.singletons[moid] = partial(self._singleton, moid, None)

    def run(self, session: Session | None, call: soap.Call) -> Any:
        """The typed result, or Xml. Errors: vmodl.MethodFault."""
        if call.method == "RetrieveServiceContent":
            return self.content()
        if call.method == "Fetch":
            return self._fetch(session, call)
        if session is None:
            if call.method in ("RetrieveProperties", "RetrievePropertiesEx") and _is_anonymous(call):
                return self._read_anonymous(call)
            raise faults.not_authenticated()
        if call.method in self._p.acts.methods:
            vm = self._p.inventory.vm(call.this._moId)
            if vm is None:
                raise faults.not_found(call.this)
            return self._p.acts.do(call.method, vm, session.user, call.args)
        method = self._methods.get(call.method)
        if method is None:
            raise faults.not_supported()
        self._known(session, call)
        mine = MINE.set(lambda moid: self.session_node(session, moid))
        try:
            return method(session, call)
        finally:
            MINE.reset(mine)

    def content(self) -> Any:
        made: Any = vim.ServiceInstanceContent(rootFolder=vim.Folder(ROOT), about=self._p.about)
        for moid, kind in SINGLETONS.items():
            if moid != "ServiceInstance":
                setattr(made, moid[0].lower() + moid[1:], kind(moid))
        return made

    # ---- objects of the service itself ------------------------------------------------------------------------------------------------

    def _singleton(self, moid: str, session: Session | None) -> Node:
        table: dict[str, Callable[[Any], Any]] = {}
        if moid == "ServiceInstance":
            table = {"content": lambda _: self.content(), "serverClock": lambda _: self._p.world.now()}
        elif moid == "SessionManager":
            table = {"currentSession": lambda _: self._user_session(session) if session else None}
        return Node(SINGLETONS[moid](moid), moid, table, self._p.world.revision)

    def _user_session(self, session: Session) -> Any:
        return vim.UserSession(
            key=session.key,
            userName=session.user,
            fullName=session.user,
            loginTime=session.login_at,
            lastActiveTime=session.used_at,
            locale="en",
            messageLocale="en",
            extensionSession=False,
            ipAddress="127.0.0.1",
            userAgent="",
            callCount=0,
        )

    def login(self, call: soap.Call) -> tuple[Session, Any]:
        """Errors: InvalidLogin."""
        if not self._p.sessions.is_right(call.args["userName"], call.args["password"]):
            raise faults.invalid_login()
        session = self._p.sessions.login(call.args["userName"])
        session.collectors["propertyCollector"] = Collector("propertyCollector")
        return session, self._user_session(session)

    def session_node(self, session: Session, moid: str) -> Node | None:
        """Views and collectors, which only their own session sees."""
        if moid == "SessionManager":
            return self._singleton(moid, session)
        revision = self._p.world.revision
        if moid in session.views:
            kind, roots, recursive = session.views[moid]
            table = {
                "view": lambda _: self._members(kind, roots, recursive),
                "type": lambda _: None,
                "container": lambda _: vim.Folder(roots),
            }
            return Node(vim.view.ContainerView(moid), moid, table, revision)
        found = session.collectors.get(moid)
        if isinstance(found, events.Collector):
            page = {"latestPage": lambda c: vim.event.Event.Array(self._p.events.latest_page(c))}
            return Node(vim.event.EventHistoryCollector(moid), found, page, revision)
        return None

    def _fetch(self, session: Session | None, call: soap.Call) -> Any:
        """How pyVmomi reads one property: a method of its own, older than the property collector."""
        moid, name = call.this._moId, call.args["prop"]
        if session is None and moid not in ("ServiceInstance", "SessionManager"):
            raise faults.not_authenticated()
        node = (self.session_node(session, moid) if session else None) or self._p.inventory.find(moid)
        if node is None:
            raise faults.not_found(call.this)
        return Xml(soap.render(self._p.reader.value(node, name), "returnval", object, call.version))

    def _read_anonymous(self, call: soap.Call) -> Any:
        """Before log-in only the session manager and the service instance can be read."""
        inner = self._p.retrieval.all(call.args["specSet"], call.version)
        if call.method == "RetrieveProperties":
            return Xml(inner)
        return Xml(f"<returnval>{inner.replace('returnval>', 'objects>')}</returnval>")

    def _known(self, session: Session, call: soap.Call) -> None:
        """Errors: ManagedObjectNotFound for a view, filter or collector of another (or an older) session."""
        moid = call.this._moId
        mine = moid in session.views or moid in session.collectors or moid in SINGLETONS
        if mine or moid.startswith("snapshot-") or any(moid in c.filters for c in session.collectors.values() if isinstance(c, Collector)):
            return
        raise faults.not_found(call.this)

    # ---- views and collectors ---------------------------------------------------------------------------------------------------------

    def _create_view(self, session: Session, call: soap.Call) -> Any:
        moid = f"session[{session.key}]view-{session.number()}"
        container = call.args["container"]
        if self._p.inventory.find(container._moId) is None:
            raise faults.not_found(container)
        session.views[moid] = (tuple(call.args.get("type") or [vim.ManagedEntity]), container._moId, bool(call.args["recursive"]))
        return vim.view.ContainerView(moid)

    def _members(self, kinds: tuple[type, ...], container: str, recursive: bool) -> Any:
        inventory = self._p.inventory
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
        list(self._p.reader.select(call.args["spec"]))  # a bad spec fails here, not at the first wait
        self._collector(session, call).filters[moid] = Filter(moid, call.args["spec"])
        return vmodl.query.PropertyCollector.Filter(moid)

    def _destroy_filter(self, session: Session, call: soap.Call) -> None:
        for each in session.collectors.values():
            if isinstance(each, Collector):
                each.filters.pop(call.this._moId, None)

    def _retrieve(self, session: Session, call: soap.Call) -> Xml:
        limit = call.args["options"].maxObjects
        return _wrap(self._p.retrieval.begin(session, call.args["specSet"], limit, call.version))

    def _wait(self, session: Session, call: soap.Call) -> Xml:
        since, options = call.args.get("version") or "", call.args.get("options")
        return _wrap(self._p.updates.wait(session, self._collector(session, call), since, options, call.version))

    def _check(self, session: Session, call: soap.Call) -> Xml:
        now = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=0)
        return _wrap(self._p.updates.wait(session, self._collector(session, call), call.args.get("version") or "", now, call.version))

    def _cancel_wait(self, session: Session, call: soap.Call) -> None:
        self._collector(session, call).canceled = True
        self._p.world.touch()

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
        def of(privileges: list[str]) -> list[Any]:
            kind = vim.AuthorizationManager.PrivilegeAvailability
            return [kind(privId=p, isGranted=p not in self._p.denied) for p in privileges]

        return [vim.AuthorizationManager.EntityPrivilege(entity=e, privAvailability=of(call.args["privId"])) for e in entities]

    def _user_privileges(self, session: Session, call: soap.Call) -> list[Any]:
        granted = [p for p in PRIVILEGES if p not in self._p.denied]
        return [vim.AuthorizationManager.UserPrivilegeResult(entity=e, privileges=granted) for e in call.args["entities"]]

    def _remove_snapshot(self, session: Session, call: soap.Call) -> Any:
        try:
            return self._p.acts.remove_snapshot(call.this._moId, session.user, bool(call.args["removeChildren"]))
        except KeyError:
            raise faults.not_found(call.this) from None


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
    "VirtualMachine.Config.ChangeTracking",
)


def _wrap(inner: str) -> Xml:
    return Xml(f"<returnval>{inner}</returnval>" if inner else "")


def _is_anonymous(call: soap.Call) -> bool:
    return all(o.obj._moId in ("ServiceInstance", "SessionManager") for s in call.args["specSet"] for o in s.objectSet)


def result_xml(value: Any, call: soap.Call) -> str:
    if isinstance(value, Xml):
        return value.text
    kind: Any = call.info.result if call.info else object
    if isinstance(value, list) and not isinstance(value, support.Array):
        value = kind(value)
    return soap.render(value, "returnval", kind, call.version)
