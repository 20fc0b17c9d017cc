"""A cluster administrator's way to a real API server: JSON objects by kind, over plain HTTPS. Not the SDK that the driver uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import urllib3

Json = dict[str, Any]
MERGE, APPLY, YAML = "application/merge-patch+json", "application/apply-patch+yaml", "application/yaml"
_TABLE = {
    "v1": "Namespace Node Pod Secret ConfigMap Event ServiceAccount PersistentVolumeClaim PersistentVolume ResourceQuota",
    "apps/v1": "Deployment",
    "batch/v1": "Job CronJob",
    "storage.k8s.io/v1": "StorageClass",
    "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition",
    "kubevirt.io/v1": "VirtualMachine VirtualMachineInstance KubeVirt",
    "cdi.kubevirt.io/v1beta1": "StorageProfile CDIConfig",
    "k8s.cni.cncf.io/v1": "NetworkAttachmentDefinition",
    "forklift.konveyor.io/v1beta1": "Provider Plan Migration NetworkMap StorageMap Hook Host",
}
API_VERSION = {kind: version for version, kinds in _TABLE.items() for kind in kinds.split()}
_CLUSTER_WIDE = frozenset(("Namespace", "Node", "PersistentVolume", "StorageClass", "ClusterRole", "ClusterRoleBinding")) | frozenset(
    ("CustomResourceDefinition", "StorageProfile", "CDIConfig")
)
_PLURALS = {"StorageClass": "storageclasses", "NetworkAttachmentDefinition": "network-attachment-definitions"}
# Kinds whose status is written through a request of its own; the others carry it in the object.
WITH_STATUS = frozenset(["Node", "Pod", "PersistentVolumeClaim", "PersistentVolume", "ResourceQuota", "Job", "VirtualMachine", "KubeVirt"])


class Refused(Exception):
    """The API server's answer, by its code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def path(kind: str, namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
    version = API_VERSION[kind]
    parts = ["/apis" if "/" in version else "/api", version]
    if namespace and kind not in _CLUSTER_WIDE:
        parts += ["namespaces", namespace]
    parts += [part for part in (_PLURALS.get(kind, f"{kind.lower()}s"), name, sub) if part]
    return "/".join(parts)


class Admin:
    """Thread-safe. `close` leaves no socket."""

    def __init__(self, url: str, token: str, ca_file: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._pool = urllib3.PoolManager(ca_certs=ca_file, maxsize=16, retries=False, timeout=urllib3.Timeout(30.0))

    def close(self) -> None:
        self._pool.clear()

    def call(self, method: str, where: str, body: Json | bytes | None = None, media: str = "application/json") -> Json:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        reply = self._pool.request(method, self.url + where, body=data, headers={**self._headers, "Content-Type": media})
        found = json.loads(reply.data) if reply.data.startswith(b"{") else {"text": reply.data.decode(errors="replace")}
        if reply.status >= 400:
            raise Refused(reply.status, str(found.get("message") or found.get("text") or ""))
        return dict(found)

    def get(self, kind: str, namespace: str | None, name: str) -> Json | None:
        return self._or_none("GET", path(kind, namespace, name))

    def all(self, kind: str, namespace: str | None = None, query: str = "") -> list[Json]:
        version = API_VERSION[kind]
        found = self.call("GET", path(kind, namespace) + query)["items"]
        return [{"apiVersion": version, "kind": kind, **item} for item in found]

    def create(self, obj: Json, query: str = "") -> Json:
        return self.call("POST", path(obj["kind"], obj["metadata"].get("namespace")) + query, obj)

    def ensure(self, obj: Json) -> Json:
        """Create; what is there already stays as it is."""
        try:
            return self.create(obj)
        except Refused as err:
            if err.code != 409:
                raise
            found = self.get(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"])
            assert found is not None, err.message
            return found

    def replace(self, obj: Json, sub: str = "") -> Json:
        return self.call("PUT", path(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"], sub), obj)

    def patch(self, obj: Json, change: Json, sub: str = "") -> Json | None:
        """None if it went away meanwhile."""
        where = path(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"], sub)
        return self._or_none("PATCH", where, change, MERGE)

    def put_status(self, obj: Json, status: Json) -> Json | None:
        return self.patch(obj, {"status": status}, "status" if obj["kind"] in WITH_STATUS else "")

    def delete(self, obj: Json, grace_s: int | None = None) -> None:
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        self._or_none("DELETE", path(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]), options)

    def _or_none(self, method: str, where: str, body: Json | None = None, media: str = "application/json") -> Json | None:
        try:
            return self.call(method, where, body, media)
        except Refused as err:
            if err.code == 404:
                return None
            raise


def retry_conflicts(act: Callable[[], Json]) -> Json:
    """Controllers write too; an administrator reads again and writes again."""
    for _ in range(20):
        try:
            return act()
        except Refused as err:
            if err.code != 409:
                raise
    return act()
