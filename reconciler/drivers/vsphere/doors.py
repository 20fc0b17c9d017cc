"""Host manifests: the ESXi hosts of a vCenter whose disks are read from them directly, each proven by a login before a guest goes off.

What it is: manifest and inventory -> the address, trust and credentials that a copy pod gets, or why it cannot have them. What it is not:
a reader (that is the copy pod), or a choice of path. Where it stands: asked after each bulk read; a host is only tried when its Secret,
its address or its certificate is new, or some time after the last try. Thread-safe as source.py uses it: one bulk read at a time.
Trust, first that is there: the Secret's own word; the certificate that the vCenter knows the host by; the provider's `insecureSkipVerify`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from reconciler.core.desired import HostSpec, ProviderSpec
from reconciler.core.inventory import HostAccess
from reconciler.core.model import ObjectRef, Secret
from reconciler.drivers.vsphere.places import HostFacts
from reconciler.drivers.vsphere.session import ESXI, Session
from reconciler.drivers.vsphere.trust import Trust, text
from reconciler.errors import ReconcilerError, RetryableError, TerminalError
from reconciler.ports import Clock

log = logging.getLogger(__name__)

ReadSecret = Callable[[ObjectRef], Mapping[str, Secret]]

LOGIN_TIMEOUT_S = "10"
HOST_DATACENTER = "ha-datacenter"  # the one that every ESXi host has
AGAIN_S, AFTER_SUCCESS_S = 60.0, 900.0
PATIENCE_S = 2.0  # for a host that was tried before
THREADS = 8
_TRUST_KEYS = ("ca.crt", "cacert", "thumbprint", "insecureSkipVerify")


@dataclass(frozen=True, slots=True)
class Door:
    """How a copy pod reaches datastores. `authority` is host[:port]; `datacenter_path` "" leaves it to each disk."""

    authority: str
    trust: Trust
    credentials: Mapping[str, Secret]
    datacenter_path: str


@dataclass(frozen=True, slots=True)
class _Tried:
    """The last try of one Host: with what, when, and what came of it. `final`: the same again would only lock the account."""

    facts: HostFacts
    secret: Mapping[str, Secret]
    at_s: float
    access: HostAccess
    door: Door | None = None
    final: bool = False


class Doors:
    def __init__(self, provider: ProviderSpec, own: Mapping[str, Secret], read_secret: ReadSecret, clock: Clock) -> None:
        """`own`: the provider's secret. Every Host of `provider` names a Secret that `read_secret` gives."""
        self._provider, self._own, self._read_secret, self._clock = provider, own, read_secret, clock
        self._tried: dict[ObjectRef, _Tried] = {}
        self._trying: dict[ObjectRef, Future[_Tried]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._access: Mapping[ObjectRef, HostAccess] = {}

    def check(self, hosts: Sequence[HostFacts]) -> Mapping[ObjectRef, HostAccess]:
        """What each Host manifest comes to now. Hosts that are due are tried, side by side; one that was tried before is waited for only
        a moment, so that a dead host does not hold up its vCenter each minute."""
        access: dict[ObjectRef, HostAccess] = {}
        found: dict[ObjectRef, HostFacts] = {}
        for spec in sorted(self._provider.hosts, key=lambda spec: spec.ref):
            facts = _matching(spec, hosts)
            if isinstance(facts, HostAccess):
                access[spec.ref] = facts
            elif facts.id in {other.id for other in found.values()}:
                text_ = f"Host {spec.ref} is for {facts.name}, which another Host is for too"
                access[spec.ref] = _refusal(spec, facts, "RefNotValid", "NotUnique", text_, "keep one of them")
            else:
                found[spec.ref] = facts
        specs = {spec.ref: spec for spec in self._provider.hosts}
        self._tried = {ref: tried for ref, tried in self._tried.items() if ref in found}
        self._try_those_due(specs, found)
        access |= {ref: _in_service(specs[ref], found[ref], tried.access) for ref, tried in self._tried.items()}
        self._access = access
        return access

    def close(self) -> None:
        """Waits for a try that is under way."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool, self._trying = None, {}

    def _try_those_due(self, specs: Mapping[ObjectRef, HostSpec], found: Mapping[ObjectRef, HostFacts]) -> None:
        for ref, facts in found.items():
            if ref not in self._trying and self._is_due(ref, facts):
                self._pool = self._pool or ThreadPoolExecutor(THREADS, thread_name_prefix="host")
                self._trying[ref] = self._pool.submit(self._look, specs[ref], facts)
        wait([future for ref, future in self._trying.items() if ref not in self._tried and ref in found])
        wait(self._trying.values(), timeout=PATIENCE_S)
        for ref, future in list(self._trying.items()):
            if future.done():
                del self._trying[ref]
                if ref in found:
                    self._tried[ref] = future.result()

    def of(self, host_id: str) -> Door | None:
        """The door to a host; None when no Host manifest is for it. Errors: RetryableError HostNotReady."""
        ref = next((ref for ref, access in self._access.items() if access.host_id == host_id and access.reason != "NotUnique"), None)
        if ref is None:
            return None
        access, tried = self._access[ref], self._tried.get(ref)
        if access.type or tried is None or tried.door is None:
            raise RetryableError("HostNotReady", f"Host {ref}: {access.message or 'it has not been tried yet'}")
        return tried.door

    def _is_due(self, ref: ObjectRef, facts: HostFacts) -> bool:
        last = self._tried.get(ref)
        if last is None or (last.facts.thumbprint, last.facts.uuid) != (facts.thumbprint, facts.uuid):
            return True
        return self._clock.monotonic() - last.at_s >= (AGAIN_S if last.access.type else AFTER_SUCCESS_S)

    def _look(self, spec: HostSpec, facts: HostFacts) -> _Tried:
        last, now = self._tried.get(spec.ref), self._clock.monotonic()
        assert spec.secret is not None  # manifests/checks refuses a Host without
        try:
            secret = self._filled(self._read_secret(spec.secret), facts)
        except ReconcilerError as err:
            return _Tried(facts, {}, now, _refusal(spec, facts, "SecretNotValid", err.reason, err.message, "create the Secret"))
        if last is not None and last.final and (last.secret, last.facts.uuid) == (secret, facts.uuid):
            return replace(last, at_s=now)
        return self._try(spec, facts, secret, now)

    def _filled(self, secret: Mapping[str, Secret], facts: HostFacts) -> Mapping[str, Secret]:
        """What the Secret leaves open: credentials of a host that is the provider itself, and trust."""
        filled = dict(secret)
        if self._provider.settings.get("sdkEndpoint") == ESXI:
            filled = {**{key: self._own[key] for key in ("user", "password") if key in self._own}, **filled}
        if any(text(filled, key) for key in _TRUST_KEYS):
            return filled
        if facts.thumbprint:
            return {**filled, "thumbprint": Secret(facts.thumbprint)}
        return {**filled, **{key: self._own[key] for key in ("insecureSkipVerify",) if key in self._own}}

    def _try(self, spec: HostSpec, facts: HostFacts, secret: Mapping[str, Secret], now: float) -> _Tried:
        """A login, and whether the machine there is the one that the manifest means."""
        settings = {"sdkEndpoint": ESXI, "requestTimeoutSeconds": LOGIN_TIMEOUT_S}
        try:
            address = replace(self._provider, ref=spec.ref, url=f"https://{_authority(spec.ip_address)}/sdk", settings=settings)
            session = Session(address, secret)
            try:
                uuid = session.read_site().uuid
            finally:
                session.close()
        except ReconcilerError as err:
            kind = "SecretNotValid" if err.reason in ("SecretNotValid", "AuthFailed", "ThumbprintNotValid") else "ConnectionTestFailed"
            access = _refusal(spec, facts, kind, err.reason, err.message, "")
            return _Tried(facts, secret, now, access, final=isinstance(err, TerminalError))
        if facts.uuid and uuid != facts.uuid:
            message = f"at {spec.ip_address} answers another ESXi host ({uuid}) than {facts.name} ({facts.uuid})"
            return _Tried(facts, secret, now, _refusal(spec, facts, "ConnectionTestFailed", "WrongHost", message, "correct ipAddress"))
        log.info("host can be read from directly", extra={"host": facts.name, "address": spec.ip_address})
        door = Door(session.endpoint.authority, session.trust, session.credentials, HOST_DATACENTER)
        return _Tried(facts, secret, now, HostAccess(facts.id, facts.name, spec.ip_address), door)


def _matching(spec: HostSpec, hosts: Sequence[HostFacts]) -> HostFacts | HostAccess:
    wanted = spec.host
    found = [facts for facts in hosts if (facts.id == wanted.id if wanted.id else facts.name == wanted.name)]
    if len(found) == 1:
        return found[0]
    reason = "Ambiguous" if found else "NotFound"
    message = f"{len(found) or 'no'} ESXi host of the inventory is {wanted}"
    return HostAccess("", str(wanted), spec.ip_address, "RefNotValid", reason, message, "correct id or name")


def _in_service(spec: HostSpec, facts: HostFacts, access: HostAccess) -> HostAccess:
    if not facts.maintenance or access.type:
        return access
    return _refusal(spec, facts, "InMaintenance", "StateEvaluated", f"{facts.name} is in maintenance mode", "take it out of that, or wait")


def _refusal(spec: HostSpec, facts: HostFacts, type_: str, reason: str, message: str, suggestion: str) -> HostAccess:
    return HostAccess(facts.id, facts.name, spec.ip_address, type_, reason, message, suggestion)


def _authority(address: str) -> str:
    """`ipAddress` as a URL wants it: IPv6 in brackets. A name, and a port behind it, are taken too."""
    try:
        bare = ipaddress.ip_address(address)
    except ValueError:
        return address
    return f"[{address}]" if bare.version == 6 else address
