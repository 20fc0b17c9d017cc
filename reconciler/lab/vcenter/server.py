"""The simulated vCenter as a TLS server on loopback: /sdk (SOAP), /folder (datastore files) and /nfc (disks of a lease).

What it is not: the machines (lab/world.py) or the methods (calls.py). Where it stands: the outermost layer of lab/vcenter; real clients
(pyVmomi, HTTP readers) talk to it. Each request asks the fault script by its label: "Class.Method", or "GET /folder/…".
"""

from __future__ import annotations

import hashlib
import ssl
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from reconciler.lab.clock import LabClock
from reconciler.lab.faults import Faults
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter import faults as vsphere_faults
from reconciler.lab.vcenter import folder, snapshot_view, soap
from reconciler.lab.vcenter.acts import Acts
from reconciler.lab.vcenter.calls import Calls, result_xml
from reconciler.lab.vcenter.collector import Retrieval, Updates
from reconciler.lab.vcenter.events import Events
from reconciler.lab.vcenter.http import Listener, Request, Response
from reconciler.lab.vcenter.inventory import Inventory
from reconciler.lab.vcenter.leases import Leases
from reconciler.lab.vcenter.parts import Parts
from reconciler.lab.vcenter.properties import Reader
from reconciler.lab.vcenter.sessions import COOKIE, Session, Sessions
from reconciler.lab.vcenter.snapshot_acts import SnapshotActs
from reconciler.lab.vcenter.tasks import Tasks
from reconciler.lab.vcenter.vmomi import vim, vmodl
from reconciler.lab.world import World


@dataclass(slots=True)
class _Answered:
    status: int
    body: bytes
    cookie: str | None = None


class VCenter:
    """start() … stop(). `faults` is the script, `calls` counts requests by label, `denied` names privileges that the user lacks."""

    certificate = "vcenter"

    def __init__(
        self,
        world: World,
        ca: LabCa,
        clock: LabClock,
        *,
        port: int = 0,
        user: str = "administrator@vsphere.local",
        password: str = "VMware1!",
        page_size: int = 1000,
        task_s: float = 0.2,
        session_idle_s: float = 1800.0,
    ) -> None:
        self.world = world
        self.clock = clock
        self.user, self.password = user, password
        self.ca_path, self.ca_pem = ca.path, ca.pem
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.instance_uuid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"lab-vcenter:{world.root}"))
        self.denied: set[str] = set()
        context, self.thumbprint_sha256 = ca.server_context(self.certificate)
        self._listener = Listener(context, port, clock, self._serve)
        self.inventory = self._inventory(world)
        self.sessions = Sessions(world, user, password, session_idle_s)
        self.reader = Reader(self.inventory)
        self.retrieval = Retrieval(self.reader, page_size)
        self.tasks = Tasks(world, task_s)
        self.inventory.extra = lambda moid: self.tasks.node(moid) or snapshot_view.node(world, moid) or self.leases.node(moid)
        self.inventory.recent_tasks = self.tasks.recent
        self.acts = Acts(world, self.tasks, self.denied)
        self.snapshots = SnapshotActs(world, self.acts)
        self.changes = self.acts.changes
        self.leases = Leases(world, self.tasks, self.acts, self.snapshots, _sha1(ca.path.parent / f"{self.certificate}.crt"))
        self.inventory.disabled_methods = self.leases.disabled
        self._methods = Calls(
            Parts(
                world,
                self.inventory,
                self.sessions,
                self.reader,
                self.retrieval,
                Updates(self.reader, world, self._is_live),
                self.acts,
                self.snapshots,
                self.leases,
                Events(world, self.inventory),
                self._about(),
                self.denied,
            )
        )
        self._last: dict[tuple[str, bytes], _Answered] = {}
        self._refusals = 0

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/sdk"

    def start(self) -> None:
        self._listener.start()

    def stop(self) -> None:
        """Close all sockets and end all threads; calls that wait are cut off."""
        with self.world.lock:
            self.sessions.drop_all()
            self.world.touch()
        self._listener.stop()

    def restart(self, context: ssl.SSLContext) -> None:
        """With another certificate, at the same port; who was logged in is not any more."""
        self.stop()
        self._listener.context = context
        self.start()

    def _inventory(self, world: World) -> Inventory:
        return Inventory(world)

    def _is_live(self, session: Session) -> bool:
        return session.key in self.sessions.open

    def _about(self) -> Any:
        return vim.AboutInfo(
            name="VMware vCenter Server",
            fullName="VMware vCenter Server 8.0.2 build-22617221",
            vendor="VMware, Inc.",
            version="8.0.2",
            build="22617221",
            localeVersion="INTL",
            localeBuild="000",
            osType="linux-x64",
            productLineId="vpx",
            apiType="VirtualCenter",
            apiVersion=soap.API_VERSION,
            instanceUuid=self.instance_uuid,
            licenseProductName="VMware VirtualCenter Server",
            licenseProductVersion="8.0",
        )

    # ---- requests ---------------------------------------------------------------------------------------------------------------------

    def _serve(self, request: Request) -> Response:
        path = request.target.partition("?")[0]
        if path == "/sdk" and request.method == "POST":
            return self._sdk(request)
        if path == "/sdk/vimServiceVersions.xml" and request.method == "GET":
            return self._scripted(request, f"GET {path}", lambda: _Answered(200, soap.versions_document()))
        if path.startswith("/folder/") and request.method in ("GET", "HEAD"):
            return self._folder(request, f"{request.method} {path}")
        if path.startswith("/nfc/") and request.method == "GET":
            return self._nfc(request, f"GET {path}")
        return Response(404 if request.method in ("GET", "HEAD") else 405)

    def _sdk(self, request: Request) -> Response:
        try:
            call = soap.parse(request.body, request.headers.get("SOAPAction", ""))
        except soap.BadRequest as err:
            return Response(500, soap.fault(soap.bad_request(str(err)), soap.version_of("")), kind="text/xml; charset=utf-8")
        name = call.args["prop"] if call.method == "Fetch" else call.method
        label = f"{type(call.this)._wsdlName}.{name}"
        return self._scripted(request, label, lambda: self._call(request, call), call)

    def _scripted(self, request: Request, label: str, act: Any, call: soap.Call | None = None) -> Response:
        """Play the script's letter for this request around `act`."""
        with self.world.lock:
            self.calls[label] += 1
        letter = self.faults.next(label)
        if letter == "B" and call is not None and isinstance(call.this, vim.VirtualMachine | vim.vm.Snapshot) and call.method != "Fetch":
            busy = vsphere_faults.task_in_progress(vim.Task("task-0"))
            return Response(500, soap.fault(busy, call.version), kind="text/xml; charset=utf-8")
        if (early := self._before(request, letter)) is not None:
            return early
        stale = self._stale(label, request.body) if letter == "S" else None
        answered = stale or act()
        with self.world.lock:
            self._last[(label, request.body)] = self._last[(label, b"")] = answered
            if len(self._last) > 500:
                self._last.clear()
        cookie = f'{COOKIE}="{answered.cookie}"; Path=/; HttpOnly; Secure; ' if answered.cookie else None
        return Response(
            answered.status, answered.body, kind="text/xml; charset=utf-8", cookie=cookie, cut=letter == "T", drop=letter == "L"
        )

    def _stale(self, label: str, body: bytes) -> _Answered | None:
        """The answer before this one, to the same question. A collector is asked for what is newer than a version, so that its answer
        before may be to another one; that of a method on an object (which areas changed between two points) to another question is no
        older state, but false."""
        collected = self._last.get((label, b"")) if label.startswith("PropertyCollector.") else None
        return self._last.get((label, body)) or collected

    def _before(self, request: Request, letter: str) -> Response | None:
        """Letters that keep the request from having its effect. R alternates between 503 and a reset connection."""
        if letter == "R":
            self._refusals += 1
            return Response(503, b"Service Unavailable") if self._refusals % 2 else Response(0, drop=True)
        if letter == "B":
            return Response(503, b"Service Unavailable", retry_after_s=1)
        if letter == "H":
            return Response(0, hang=True)
        if letter == "E":
            with self.world.lock:
                self.sessions.drop(self.sessions.by_cookie(request.headers.get("Cookie", "")))
        return None

    def _call(self, request: Request, call: soap.Call) -> _Answered:
        with self.world.lock:
            self.world.settle()
            session = self.sessions.by_cookie(request.headers.get("Cookie", ""))
            cookie = None
            try:
                if call.method == "Login":
                    made, value = self._methods.login(call)
                    cookie = made.key
                elif call.method == "Logout":
                    self.sessions.drop(session)
                    value = None
                else:
                    value = self._methods.run(session, call)
                return _Answered(200, soap.reply(call.method, result_xml(value, call)), cookie)
            except vmodl.MethodFault as err:
                return _Answered(500, soap.fault(err, call.version))

    def _nfc(self, request: Request, label: str) -> Response:
        """A leased disk. The ticket in the path is all that is asked for; ranges are not known here, as on ESXi."""
        with self.world.lock:
            self.calls[label] += 1
        letter = self.faults.next(label)
        if (early := self._before(request, letter)) is not None:
            return early
        with self.world.lock:
            self.world.settle()
            pieces = self.leases.stream(unquote(request.target))
        if pieces is None:
            return Response(404)
        return Response(200, kind="application/x-vnd.vmware-streamVmdk", pieces=pieces, cut=letter == "T", drop=letter == "L")

    def _folder(self, request: Request, label: str) -> Response:
        with self.world.lock:
            self.calls[label] += 1
        letter = self.faults.next(label)
        if (early := self._before(request, letter)) is not None:
            return early
        with self.world.lock:
            self.world.settle()
            session = self.sessions.by_cookie(request.headers.get("Cookie", ""))
            basic = letter != "E" and self.sessions.by_basic(request.headers.get("Authorization", ""))
            if session is None and not basic:
                return Response(401, b"<html><body>401 Unauthorized</body></html>", authenticate=True)
            if {"Datastore.Browse", "Datastore.FileManagement"} & self.denied:
                return Response(403)
            found = folder.answer(self.world, request.target, request.headers.get("Range"))
        return Response(
            found.status,
            found.body,
            kind=found.kind,
            path=found.path,
            start=found.start,
            length=found.length,
            size=found.size,
            cut=letter == "T",
            drop=letter == "L",
        )


def _sha1(certificate: Path) -> str:
    """vSphere names certificates so in leases and host summaries."""
    digest = hashlib.sha1(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest().upper()
    return ":".join(digest[n : n + 2] for n in range(0, 40, 2))
