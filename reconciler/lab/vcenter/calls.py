"""Method by method: a parsed SOAP call -> its result. The session and the object are checked here, the work is done elsewhere.

Where it stands: between server.py (bytes) and collector.py, acts.py, events.py, inventory.py. Called under the world's lock.
Source: vSphere Web Services API 8.0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from reconciler.lab.vcenter import events, faults, soap
from reconciler.lab.vcenter.collector import Collector
from reconciler.lab.vcenter.conversations import Conversations
from reconciler.lab.vcenter.inventory import MINE, ROOT, Node
from reconciler.lab.vcenter.parts import Parts, Xml, wrap
from reconciler.lab.vcenter.properties import NO_SESSION_MISSING
from reconciler.lab.vcenter.sessions import Session
from reconciler.lab.vcenter.vmomi import support, vim, vmodl

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


class Calls:
    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._talks = Conversations(parts)
        self._methods: dict[str, Callable[[Session, soap.Call], Any]] = {
            "CurrentTime": lambda s, c: parts.world.now(),
            "SessionIsActive": lambda s, c: c.args["sessionID"] in parts.sessions.open,
            **self._talks.methods,
            **parts.leases.methods,
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
            if call.method == "RetrievePropertiesEx" and NO_SESSION_MISSING in self._p.reader.oddities:
                return wrap(self._p.reader.without_session(call.args["specSet"], call.version))
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
        elif moid == "EventManager":
            table = {"latestEvent": lambda _: next(iter(self._p.events.query(vim.event.EventFilterSpec(), 1)), None)}
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
                "view": lambda _: self._talks.members(kind, roots, recursive),
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
        everybodys = moid.startswith("snapshot-") or moid in self._p.leases.known or self._p.inventory.extra(moid) is not None
        if mine or everybodys or any(moid in c.filters for c in session.collectors.values() if isinstance(c, Collector)):
            return
        raise faults.not_found(call.this)


def _is_anonymous(call: soap.Call) -> bool:
    return all(o.obj._moId in ("ServiceInstance", "SessionManager") for s in call.args["specSet"] for o in s.objectSet)


def result_xml(value: Any, call: soap.Call) -> str:
    if isinstance(value, Xml):
        return value.text
    kind: Any = call.info.result if call.info else object
    if isinstance(value, list) and not isinstance(value, support.Array):
        value = kind(value)
    return soap.render(value, "returnval", kind, call.version)
