"""The logged-in connection to one vCenter or ESXi host: login on first use, one session for all calls, a new login when it has expired.

What it is: transport, login and the border where vendor errors become ours (with faults.py). SDK types stop here and in the modules
that read inventory. What it is not: any knowledge of VMs. Thread-safe.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from reconciler.core.desired import ProviderSpec
from reconciler.core.inventory import SiteInfo
from reconciler.core.model import Secret
from reconciler.drivers.vsphere.collector import read_one
from reconciler.drivers.vsphere.faults import CALL_ERRORS, explain
from reconciler.drivers.vsphere.sdk import reference, vim
from reconciler.drivers.vsphere.soap import Stub
from reconciler.drivers.vsphere.trust import Endpoint, PinnedConnection, Trust, endpoint_of, text, trust_of
from reconciler.errors import RetryableError, TerminalError, UserError

log = logging.getLogger(__name__)

T = TypeVar("T")

# Versions of the API, as pyVmomi names them: 6.7, which newer servers go on answering, and 7.0, which also maps guest disks to devices.
API_VERSION, API_VERSION_FROM_7 = "vim.version.version12", "vim.version.v7_0"
TIMEOUT_S = 60.0
IDLE_S = 30  # a pooled connection idle for longer may be closed at the other end
CONNECTIONS = 8
ESXI = "esxi"  # the value of sdkEndpoint; without it, vCenter
HOST_AGENT = "HostAgent"  # apiType of an ESXi host; a vCenter's is VirtualCenter
HARDWARE_UUID = "summary.hardware.uuid"


class Session:
    """`generation` grows with each login: views, filters and versions of an earlier one are gone.

    An ESXi host has no instanceUuid; `content.about` then has the hardware's, so that nobody else needs to know.
    """

    def __init__(self, provider: ProviderSpec, secret: Mapping[str, Secret]) -> None:
        self.endpoint: Endpoint = endpoint_of(provider)
        self.trust: Trust = trust_of(provider, secret)
        self.is_host = provider.settings.get("sdkEndpoint") == ESXI
        self.site = f"{'ESXi' if self.is_host else 'vCenter'} {self.endpoint.authority}"
        self.generation = 0
        user, password = text(secret, "user"), secret.get("password")
        if not user or password is None or not password.reveal():
            missing = [key for key in ("user", "password") if not text(secret, key)]
            raise UserError("SecretNotValid", f"the secret of {self.site} ({provider.ref}) lacks {' and '.join(missing)}")
        self.credentials: Mapping[str, Secret] = {"user": Secret(user), "password": password}
        self._timeout_s = _timeout(provider)
        self._lock = threading.RLock()
        self._content: Any = None
        self._stub: Any = None
        self._refused: TerminalError | None = None

    def run(self, what: str, call: Callable[[Any], T]) -> T:
        """`call` with the service content, in a live session.

        When the server says that the session is gone, one new login and `call` once more, so it must be repeatable as a whole.
        Errors: TerminalError and RetryableError only; `what` opens the message.
        """
        generation, content = self._open(what)
        try:
            return call(content)
        except vim.fault.NotAuthenticated:
            log.info("session expired, logging in again", extra={"site": self.site})
        except CALL_ERRORS as err:
            raise self._explain(err, what) from err
        self._drop(generation)
        _, content = self._open(what)
        try:
            return call(content)
        except vim.fault.NotAuthenticated as err:
            text = f"{what}: {self.site} dropped two sessions in a row; it is asked again. Check its limits on sessions if that lasts"
            raise RetryableError("SessionLost", text) from err
        except CALL_ERRORS as err:
            raise self._explain(err, what) from err

    def read_site(self) -> SiteInfo:
        """Identity and the server's own time; the call also shows whether the session still lives."""

        def call(content: Any) -> tuple[Any, datetime]:
            return content.about, reference(content, vim.ServiceInstance, "ServiceInstance").CurrentTime()

        about, now = self.run("read the site", call)
        return SiteInfo(about.instanceUuid, about.fullName or about.name, about.version, now.astimezone(UTC))

    def close(self) -> None:
        """Log out if that is possible; close all connections in any case."""
        with self._lock:
            if self._stub is None:
                return
            try:
                if self._content is not None:
                    self._content.sessionManager.Logout()
            except CALL_ERRORS as err:
                log.debug("logout failed", extra={"site": self.site, "error": str(self._explain(err, "log out"))})
            finally:
                self._stub.DropConnections()
                self._stub = self._content = None

    def _open(self, what: str) -> tuple[int, Any]:
        with self._lock:
            if self._refused is not None:
                raise TerminalError(self._refused.reason, self._refused.message)
            if self._content is None:
                self._content = self._login(what)
                self.generation += 1
            return self.generation, self._content

    def _login(self, what: str) -> Any:
        if self._stub is None:
            self._stub = self._connect()
        self._stub.SetSessionId("")  # a login whose reply was lost may have taken; on that session a second one is refused
        try:
            content = vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()
            self._check_kind(content.about)  # before the login, so that a wrong kind of server keeps no session of ours
            if int(content.about.apiVersion.partition(".")[0]) >= 7:
                self._stub.ComputeVersionInfo(API_VERSION_FROM_7)
            content.sessionManager.Login(self.credentials["user"].reveal(), self.credentials["password"].reveal())
            if self.is_host:
                self._identify(content)
        except CALL_ERRORS as err:
            ours = self._explain(err, f"{what}: log in")
            if isinstance(ours, TerminalError) and ours.reason == "AuthFailed":
                self._refused = ours  # asking again could lock the account; a changed secret makes a new Session
            raise ours from err
        log.info("logged in", extra={"site": self.site, "version": content.about.version})
        return content

    def _check_kind(self, about: Any) -> None:
        """Errors: TerminalError NotAVCenter, NotAnEsxiHost."""
        if self.is_host and about.apiType != HOST_AGENT:
            raise TerminalError("NotAnEsxiHost", f"{self.site} is a vCenter; take sdkEndpoint: esxi away, or give the url of one host")
        if not self.is_host and (about.apiType == HOST_AGENT or not about.instanceUuid):
            raise TerminalError(
                "NotAVCenter", f"{self.site} is an ESXi host; give the url of its vCenter, or set sdkEndpoint: esxi to use it alone"
            )

    def _identify(self, content: Any) -> None:
        """Errors: TerminalError NoIdentity; those of the call, after a logout."""
        try:
            uuid = read_one(content, reference(content, vim.HostSystem, "ha-host"), (HARDWARE_UUID,)).get(HARDWARE_UUID)
            if not uuid:
                raise TerminalError("NoIdentity", f"{self.site} does not tell the UUID of its hardware; use its vCenter")
            content.about.instanceUuid = str(uuid).lower()
        except Exception:
            with contextlib.suppress(*CALL_ERRORS):
                content.sessionManager.Logout()
            raise

    def _connect(self) -> Any:
        stub = Stub(
            host=self.endpoint.host,
            port=self.endpoint.port,
            path=self.endpoint.path,
            version=API_VERSION,
            sslContext=self.trust.context(),
            poolSize=CONNECTIONS,
            connectionPoolTimeout=IDLE_S,
            httpConnectionTimeout=self._timeout_s,
        )
        stub.scheme = functools.partial(PinnedConnection, pin=self.trust.tls)
        return stub

    def _drop(self, generation: int) -> None:
        """Forget a dead session, unless another thread has logged in again already."""
        with self._lock:
            if self.generation == generation and self._content is not None:
                self._content = None

    def _explain(self, err: Exception, what: str) -> Exception:
        return explain(err, what, self.site, (self.credentials["password"].reveal(),))


def _timeout(provider: ProviderSpec) -> float:
    """Setting `requestTimeoutSeconds`: how long one answer may keep us waiting, for slow links and large vCenters."""
    written = provider.settings.get("requestTimeoutSeconds", "")
    try:
        seconds = float(written) if written else TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 3600.0:
        raise UserError("SettingsNotValid", f"requestTimeoutSeconds of provider {provider.ref} is {written!r}; give seconds, 1 to 3600")
    return seconds
