"""The documents from which clients learn what is served: /api, /apis, resource lists, /version. Derived from kinds.py."""

from __future__ import annotations

from typing import Any

from reconciler.lab.cluster.kinds import SUBRESOURCES, Kind

Json = dict[str, Any]
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
VERSION: Json = {
    "major": "1",
    "minor": "33",
    "gitVersion": "v1.33.2",
    "gitCommit": "a57b6f7709f6c2722b92f07b8b4c48210a51fc40",
    "gitTreeState": "clean",
    "buildDate": "2025-06-17T18:32:14Z",
    "goVersion": "go1.24.4",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def document(parts: list[str], kinds: tuple[Kind, ...], address: str) -> Json | None:
    """The document at that path; None when the path is not one of discovery's."""
    match parts:
        case ["version"]:
            return VERSION
        case ["api"]:
            servers = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": servers}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g, kinds) for g in _groups(kinds)]}
        case ["apis", group] if group in _groups(kinds):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, kinds)}
        case ["api", "v1"]:
            return _resources("", "v1", kinds)
        case ["apis", group, version] if version in _versions(group, kinds):
            return _resources(group, version, kinds)
    return None


def _groups(kinds: tuple[Kind, ...]) -> list[str]:
    return [*dict.fromkeys(k.group for k in kinds if k.group), SUBRESOURCES]


def _versions(group: str, kinds: tuple[Kind, ...]) -> list[str]:
    return ["v1"] if group == SUBRESOURCES else list(dict.fromkeys(k.version for k in kinds if k.group == group))


def _group(group: str, kinds: tuple[Kind, ...]) -> Json:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in _versions(group, kinds)]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resources(group: str, version: str, kinds: tuple[Kind, ...]) -> Json:
    rows: list[Json] = []
    for kind in kinds:
        if (kind.group, kind.version) != (group, version):
            continue
        row = {"name": kind.plural, "singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
        rows.append({**row, "verbs": ["create"] if kind.transient else VERBS, **({"shortNames": list(kind.short)} if kind.short else {})})
        for name in kind.subresources:
            verbs = ["get"] if name == "log" else ["get", "patch", "update"]
            rows.append({**row, "name": f"{kind.plural}/{name}", "singularName": "", "verbs": verbs})
    if group == SUBRESOURCES:
        for name in ("start", "stop", "restart"):
            row = {"name": f"virtualmachines/{name}", "singularName": "", "namespaced": True, "kind": "VirtualMachine"}
            rows.append({**row, "verbs": ["update"]})
    api_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": rows}
