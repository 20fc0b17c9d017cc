"""One request to a cluster, through the SDK's own client: path, body, timeout, and our errors instead of its.

What it is: verbs on JSON objects. What it is not: a judge of whose object it is (apply.py). It never tries twice, and it logs no body.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTResponse

from reconciler import permit
from reconciler.drivers.kubevirt import failures
from reconciler.drivers.kubevirt.failures import Call
from reconciler.drivers.kubevirt.labels import MANAGER, Obj
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.drivers.kubevirt.resources import Resource
from reconciler.ports import Clock

log = logging.getLogger(__name__)

_STRICT = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_JSON = "application/json"


class Reply:
    """Body and the one header we read (the server's clock)."""

    __slots__ = ("body", "date")

    def __init__(self, body: bytes, date: str) -> None:
        self.body = body
        self.date = date


class Watch:
    """An open stream of changes, of which only the fact matters."""

    def __init__(self, response: urllib3.HTTPResponse) -> None:
        self._response = response
        self._chunks = response.stream()

    def wait(self) -> bool:
        """True: something changed. False: the stream ended, or was stopped, or lost."""
        try:
            return any(chunk.strip() for chunk in self._chunks)
        except (urllib3.exceptions.HTTPError, OSError):
            return False

    def stop(self) -> None:
        """Wakes a `wait` in another thread."""
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):  # it has ended by itself
            return

    def close(self) -> None:
        self._response.close()


class Hide(Protocol):
    def __call__(self, text: str) -> str: ...


class Api:
    """Thread-safe, like the pool below it. `hide` takes our own credentials out of whatever a server sends back."""

    def __init__(self, client: ApiClient, settings: TargetSettings, clock: Clock, hide: Hide) -> None:
        self._client = client
        self._timeout = (settings.connect_timeout_s, settings.request_timeout_s)
        self._page_size = settings.page_size
        self._clock = clock
        self._hide = hide
        self.site = str(client.configuration.host)

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def get(self, resource: Resource, namespace: str | None, name: str) -> Obj:
        """Errors: failures.NotFound."""
        call = self._call("get", resource, namespace, name)
        return self._parse(call, self.send(call, "GET", resource.path(namespace, name)))

    def find(self, resource: Resource, namespace: str | None, name: str) -> Obj | None:
        try:
            return self.get(resource, namespace, name)
        except failures.NotFound:
            return None

    def list(self, resource: Resource, namespace: str | None = None, selectors: Mapping[str, str] | None = None) -> Sequence[Obj]:
        """The whole list, page by page, or an error; never a part. Errors: failures.NotFound when the kind is not installed."""
        return tuple(item for page in self._pages(resource, namespace, selectors or {}) for item in page)

    def create(self, resource: Resource, obj: Obj) -> Obj:
        """Errors: failures.AlreadyExists."""
        metadata = obj["metadata"]
        call = self._call("create", resource, metadata.get("namespace"), metadata["name"])
        path = resource.path(metadata.get("namespace"))
        return self._parse(call, self.send(call, "POST", path, query=_STRICT, body=obj, content_type=_JSON))

    def apply(self, resource: Resource, obj: Obj) -> Obj:
        """Server-side apply, taking over fields that others set: call it only on what carries our key."""
        metadata = obj["metadata"]
        call = self._call("patch", resource, metadata.get("namespace"), metadata["name"])
        path = resource.path(metadata.get("namespace"), metadata["name"])
        query = {**_STRICT, "force": "true"}
        return self._parse(call, self.send(call, "PATCH", path, query=query, body=obj, content_type=_APPLY))

    def merge(self, resource: Resource, namespace: str | None, name: str, version: str | None, change: Mapping[str, Any]) -> Obj:
        """JSON merge patch, only onto the resource version it was decided on (None: any). Errors: RetryableError Conflict."""
        call = self._call("patch", resource, namespace, name)
        body = {**change, "metadata": {**change.get("metadata", {}), "resourceVersion": version}} if version else change
        path = resource.path(namespace, name)
        return self._parse(call, self.send(call, "PATCH", path, query=_STRICT, body=body, content_type=_MERGE))

    def delete(self, resource: Resource, seen: Obj, propagation: str) -> None:
        """Delete exactly what was seen: uid and resource version are preconditions. Gone already is success."""
        metadata = seen["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        call = self._call("delete", resource, namespace, name)
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
        }
        try:
            self.send(call, "DELETE", resource.path(namespace, name), body=body, content_type=_JSON)
        except failures.NotFound:
            return

    def text(self, resource: Resource, namespace: str, name: str, subresource: str, query: Mapping[str, str]) -> str:
        call = self._call("get", resource, namespace, name)
        path = f"{resource.path(namespace, name)}/{subresource}"
        return self.send(call, "GET", path, query=query).body.decode(errors="replace")

    def watch(self, resource: Resource, selectors: Mapping[str, str], seconds: int) -> Watch:
        """Changes from now on, in the whole cluster, for at most `seconds`; the server then ends the stream."""
        call = self._call("watch", resource, None, None)
        newest = self._parse(call, self.send(call, "GET", resource.path(), query={**selectors, "limit": "1"}))
        version = str((newest.get("metadata") or {}).get("resourceVersion") or "")
        query = {**selectors, "watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        response = self._request(call, "GET", resource.path(), query, None, {}, (self._timeout[0], seconds + self._timeout[1]))
        if response.status != 200:
            said = self._hide(self._body(call, response).decode(errors="replace"))
            raise failures.from_reply(call, response.status, said.encode(), response.headers)
        return Watch(response.response)

    def read_path(self, path: str) -> tuple[Obj, Reply]:
        """A plain document that is no resource, like /version."""
        call = Call("get", path, path, "", None, None, self.site)
        reply = self.send(call, "GET", path)
        return self._parse(call, reply), reply

    def send(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str | None = None,
    ) -> Reply:
        """One request. Errors: what failures.py says, and for all but GET what permit.py says."""
        if method != "GET":
            permit.ask()
        headers = {"Content-Type": content_type} if content_type else {}
        started = self._clock.monotonic()
        response = self._request(call, method, path, query or {}, body, headers, self._timeout)
        data = self._body(call, response)
        seconds = round(self._clock.monotonic() - started, 4)
        log.debug("kubernetes request", extra={"method": method, "path": path, "status": response.status, "seconds": seconds})
        if not 200 <= response.status < 300:
            said = failures.without_values(self._hide(data.decode(errors="replace")), (body or {}).get("data") or {})
            raise failures.from_reply(call, response.status, said.encode(), response.headers)
        return Reply(data, response.headers.get("Date", ""))

    def _request(
        self,
        call: Call,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        timeout: tuple[float, float],
    ) -> RESTResponse:
        """The reply with its body still unread."""
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", **headers},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            return self._client.call_api(*request, _request_timeout=timeout)
        except ApiException as err:  # the SDK's form of a TLS failure: status 0
            cause = self._hide(str(err.reason).replace("\n", ": "))
            make = failures.untrusted if "CERTIFICATE_VERIFY_FAILED" in cause else failures.unreachable
            raise make(call, cause) from err
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise failures.unreachable(call, self._hide(f"{type(err).__name__}: {err}")) from err

    def _body(self, call: Call, response: RESTResponse) -> bytes:
        try:
            return response.read() or b""  # type: ignore[no-untyped-call]
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise failures.unreachable(call, self._hide(f"{type(err).__name__}: {err}")) from err

    def _pages(self, resource: Resource, namespace: str | None, selectors: Mapping[str, str]) -> Iterator[Sequence[Obj]]:
        call = self._call("list", resource, namespace, None)
        query = {**selectors, "limit": str(self._page_size)}
        while True:
            raw = self._parse(call, self.send(call, "GET", resource.path(namespace), query=query))
            items = raw.get("items")
            if not isinstance(items, list):
                raise failures.bad_reply(call, "a list without items")
            yield items
            token = (raw.get("metadata") or {}).get("continue")
            if not token:
                return
            query = {**query, "continue": token}

    def _call(self, verb: str, resource: Resource, namespace: str | None, name: str | None) -> Call:
        return Call(verb, resource.kind, resource.plural, resource.group, namespace, name, self.site)

    def _parse(self, call: Call, reply: Reply) -> Obj:
        try:
            raw = json.loads(reply.body)
        except ValueError as err:
            raise failures.bad_reply(call, f"not JSON ({err})") from err
        if not isinstance(raw, dict):
            raise failures.bad_reply(call, "not a JSON object")
        return raw
