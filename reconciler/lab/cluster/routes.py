"""URL -> what is asked for: kind, place, subresource and verb. Pure; knows no sockets and no objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from reconciler.lab.cluster.failures import ApiError, no_such_resource
from reconciler.lab.cluster.kinds import KINDS, NAMESPACE, SUBRESOURCES, VM, VMI, Kind

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # what Go's strconv.ParseBool takes


@dataclass(frozen=True, slots=True)
class Route:
    """One request for one resource. `power` is set for KubeVirt's start, stop and restart."""

    kind: Kind
    verb: str  # get list watch create update patch delete deletecollection
    namespace: str
    name: str
    subresource: str
    query: dict[str, str] = field(default_factory=dict)
    power: str = ""

    def flag(self, name: str) -> bool:
        return self.query.get(name, "") in _TRUE

    @property
    def label(self) -> str:
        resource = f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural
        return f"{self.verb} {resource}"


def split(target: str) -> tuple[list[str], dict[str, str]]:
    parts = urlsplit(target)
    return [unquote(p) for p in parts.path.split("/") if p], dict(parse_qsl(parts.query, keep_blank_values=True))


def parse(method: str, target: str, kinds: tuple[Kind, ...] = KINDS) -> Route:
    """Errors: 404 for a resource that is not served, 405 for a method that it does not have."""
    parts, query = split(target)
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise no_such_resource()
    if group == SUBRESOURCES:
        return _power(method, rest, query)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and len(rest) == 3 and rest[2] in NAMESPACE.subresources):
        namespace, rest = rest[1], rest[2:]
    kind = next((k for k in kinds if (k.group, k.version, k.plural) == (group, version, rest[0])), None)
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if kind is None or len(rest) > 3 or (subresource and subresource not in kind.subresources):
        raise no_such_resource()
    if not kind.namespaced and namespace:
        raise no_such_resource()
    route = Route(kind, "", namespace, name, subresource, query)
    verb = _verb(method, route)
    if kind.namespaced and not namespace and (name or verb in ("create", "deletecollection")):
        raise no_such_resource()
    return Route(kind, verb, namespace, name, subresource, query)


def _verb(method: str, route: Route) -> str:
    if method == "GET":
        return "get" if route.name else "watch" if route.flag("watch") else "list"
    if method == "POST" and not route.name:
        return "create"
    if method == "DELETE" and not route.subresource:
        return "delete" if route.name else "deletecollection"
    if method in ("PUT", "PATCH") and route.name:
        return "update" if method == "PUT" else "patch"
    raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def _power(method: str, rest: list[str], query: dict[str, str]) -> Route:
    match rest:
        case ["namespaces", namespace, "virtualmachines", name, ("start" | "stop" | "restart") as power] if method == "PUT":
            return Route(VM, "update", namespace, name, power, query, power)
        case ["namespaces", namespace, "virtualmachineinstances", name, ("pause" | "unpause") as power] if method == "PUT":
            return Route(VMI, "update", namespace, name, power, query, power)
    raise no_such_resource()
