"""One authenticated request -> one reply: the API server above HTTP.

What it is: the verbs, bound to registry, deletion, lists and streams; counts calls and keeps the audit.
What it is not: sockets, TLS and faults (server.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from reconciler.lab.cluster import streams
from reconciler.lab.cluster.deletion import DeleteOptions, delete
from reconciler.lab.cluster.discovery import document
from reconciler.lab.cluster.failures import ApiError, bad_request
from reconciler.lab.cluster.kinds import ACCESS_REVIEW, POD, Kind
from reconciler.lab.cluster.lists import Lists, predicate
from reconciler.lab.cluster.registry import Registry, Target, WriteOptions, Written
from reconciler.lab.cluster.routes import Route, parse, split
from reconciler.lab.cluster.store import Store, dump

Json = dict[str, Any]
USER = "system:serviceaccount:openshift-mtv:reconciler"


class Audit(NamedTuple):
    """One mutating call. `actor`: fieldManager if given, else the first word of the user agent."""

    verb: str
    resource: str
    namespace: str
    name: str
    actor: str


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    stale: bool
    gone: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` as bytes, or as a stream of chunks."""

    code: int
    body: bytes | Iterator[bytes]
    media: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class PodLogs(Protocol):
    def read_log(self, pod: Json, query: dict[str, str], gone: Callable[[], bool]) -> bytes | Iterator[bytes]: ...


class VmPower(Protocol):
    def request(self, vm: Json, power: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Denial:
    """A verb that the cluster's RBAC refuses. "*" or "" matches everything."""

    verb: str
    resource: str
    namespace: str = ""

    def meets(self, verb: str, resource: str, namespace: str) -> bool:
        return self.verb in (verb, "*") and self.resource in (resource, "*") and self.namespace in (namespace, "")


class Endpoints:
    def __init__(self, store: Store, kinds: tuple[Kind, ...], logs: PodLogs, power: VmPower, address: str) -> None:
        self._store, self._kinds, self._logs, self._power, self._address = store, kinds, logs, power, address
        self.registry = Registry(store)
        self.lists = Lists(store)
        self.calls: Counter[str] = Counter()
        self.audit: list[Audit] = []
        self.denials: list[Denial] = []

    def answer(self, request: Request) -> Reply:
        """Errors: ApiError, which the server renders."""
        parts, _ = split(request.target)
        if request.method == "GET":
            if parts[:1] in (["healthz"], ["livez"], ["readyz"]):
                return Reply(200, b"ok", "text/plain")
            if (found := document(parts, self._kinds, self._address)) is not None:
                return Reply(200, dump(found))
        route = parse(request.method, request.target, self._kinds)
        self.calls[route.label] += 1
        self._authorize(route)
        if route.verb in ("get", "list", "watch"):
            return self._read(route, request)
        with self._store.lock:
            return self._write(route, request)

    def _authorize(self, route: Route) -> None:
        if not any(d.meets(route.verb, route.kind.plural, route.namespace) for d in self.denials):
            return
        where = f'in the namespace "{route.namespace}"' if route.namespace else "at the cluster scope"
        named = f'{route.kind.resource} "{route.name}"' if route.name else route.kind.resource
        message = (
            f'{named} is forbidden: User "{USER}" cannot {route.verb} resource "{route.kind.plural}" '
            f'in API group "{route.kind.group}" {where}'
        )
        raise ApiError(403, "Forbidden", message, {"name": route.name, "group": route.kind.group, "kind": route.kind.plural})

    def _read(self, route: Route, request: Request) -> Reply:
        if route.verb == "watch":
            return Reply(200, streams.watch(self._store, route, request.gone))
        if route.verb == "list":
            return Reply(200, self.lists.page(route, request.stale))
        if route.kind is POD and route.subresource == "log":
            pod = self.registry.live(Target(POD, route.namespace, route.name))
            return Reply(200, self._logs.read_log(pod, route.query, request.gone), "text/plain")
        return Reply(200, self.lists.get(route, request.stale))

    def _write(self, route: Route, request: Request) -> Reply:
        if route.verb in ("delete", "deletecollection"):
            return self._delete(route, request)
        if route.power:
            vm = self.registry.live(Target(route.kind, route.namespace, route.name))
            self._power.request(vm, route.power)
            self._note(route, route.name, request)
            return Reply(202, b"", "text/plain")
        body = _json(request.body)
        if route.kind is ACCESS_REVIEW:
            return Reply(201, dump(self._review(body)))
        options = _write_options(route, request)
        target = Target(route.kind, route.namespace, route.name, route.subresource)
        if route.verb == "create":
            written = self.registry.create(target, body, options)
        elif route.verb == "update":
            written = self.registry.update(target, body, options)
        else:
            media = request.headers.get("content-type", "").partition(";")[0].strip()
            written = self.registry.patch(target, media, body, options)
        if not options.dry_run:
            self._note(route, written.obj["metadata"]["name"], request)
        return _written(written)

    def _delete(self, route: Route, request: Request) -> Reply:
        options = _delete_options(route, _json(request.body) if request.body else {})
        if route.verb == "deletecollection":
            wanted = predicate(route)
            chosen = [obj for obj in self._store.all(route.kind, route.namespace) if wanted is None or wanted(obj)]
            for obj in chosen:
                self._note(route, obj["metadata"]["name"], request)
                delete(self._store, route.kind, obj, options)
            return Reply(200, dump({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
        obj = self.registry.live(Target(route.kind, route.namespace, route.name))
        if not options.dry_run:
            self._note(route, route.name, request)
        return Reply(200, dump(delete(self._store, route.kind, obj, options)))

    def _review(self, body: Json) -> Json:
        asked = (body.get("spec") or {}).get("resourceAttributes") or {}
        denied = any(d.meets(asked.get("verb", ""), asked.get("resource", ""), asked.get("namespace", "")) for d in self.denials)
        return {
            "apiVersion": ACCESS_REVIEW.api_version,
            "kind": ACCESS_REVIEW.kind,
            "metadata": {"creationTimestamp": None},
            "spec": body.get("spec") or {},
            "status": {"allowed": not denied},
        }

    def _note(self, route: Route, name: str, request: Request) -> None:
        actor = route.query.get("fieldManager") or _agent(request)
        resource = f"{route.kind.plural}/{route.subresource}" if route.subresource else route.kind.plural
        self.audit.append(Audit(route.verb, resource, route.namespace, name, actor))


def _agent(request: Request) -> str:
    return request.headers.get("user-agent", "unknown").partition("/")[0]


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as err:
        raise bad_request(f"couldn't get version/kind; json parse error: {err}") from err


def _write_options(route: Route, request: Request) -> WriteOptions:
    given = route.query.get("fieldManager", "")
    dry_run = route.query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise ApiError(
            422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "{dry_run}": supported values: "All"'
        )
    return WriteOptions(
        manager=given or _agent(request),
        dry_run=bool(dry_run),
        force=route.flag("force"),
        validation=route.query.get("fieldValidation") or "Warn",
        explicit_manager=bool(given),
    )


def _delete_options(route: Route, body: Json) -> DeleteOptions:
    grace = body.get("gracePeriodSeconds", route.query.get("gracePeriodSeconds"))
    policy = body.get("propagationPolicy") or route.query.get("propagationPolicy") or ""
    if policy not in ("", "Background", "Foreground", "Orphan"):
        raise ApiError(422, "Invalid", f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{policy}"')
    preconditions = body.get("preconditions") or {}
    return DeleteOptions(
        policy=policy,
        grace_s=int(grace) if grace is not None else None,
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        dry_run=bool(body.get("dryRun") or route.query.get("dryRun")),
    )


def _written(written: Written) -> Reply:
    headers = {}
    if written.unknown:
        headers["Warning"] = ", ".join(f'299 - "unknown field \\"{name}\\""' for name in written.unknown)
    return Reply(201 if written.created else 200, dump(written.obj), headers=headers)
