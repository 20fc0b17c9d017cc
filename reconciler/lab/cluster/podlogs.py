"""The /log subresource: whole, tail, since, limited or followed. Reads the files that the kubelet lets processes write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reconciler.lab.clock import LabClock
from reconciler.lab.cluster.failures import ApiError, bad_request
from reconciler.lab.cluster.kinds import NODE
from reconciler.lab.cluster.kubelet import Kubelets
from reconciler.lab.cluster.scheduling import node_ready
from reconciler.lab.cluster.store import Store
from reconciler.lab.cluster.streams import follow_log

Json = dict[str, Any]
_TRUE = ("true", "True", "1", "t", "T", "TRUE")


class PodLogFiles:
    def __init__(self, store: Store, clock: LabClock, kubelets: Kubelets) -> None:
        self._store, self._clock, self._kubelets = store, clock, kubelets

    def read_log(self, pod: Json, query: dict[str, str], gone: Callable[[], bool]) -> bytes | Iterator[bytes]:
        name = self._container(pod, query)
        self._check(pod, name, query)
        path = self._kubelets.files_of(pod) / f"{name}.log"
        start = self._since(pod, query.get("sinceSeconds"))
        if (lines := query.get("tailLines")) is not None:
            start = max(start, _tail(path, int(lines)))
        if query.get("follow") in _TRUE:
            uid = pod["metadata"]["uid"]
            return follow_log(path, start, lambda: uid in self._kubelets.running, gone)
        data = _read(path, start)
        if (limit := query.get("limitBytes")) is not None:
            data = data[: int(limit)]
        return data

    def _container(self, pod: Json, query: dict[str, str]) -> str:
        names = [container["name"] for container in pod["spec"]["containers"]]
        every = names + [container["name"] for container in pod["spec"].get("initContainers") or []]
        chosen = query.get("container", "")
        if not chosen and len(names) > 1:
            raise bad_request(f"a container name must be specified for pod {pod['metadata']['name']}, choose one of: [{' '.join(names)}]")
        if chosen and chosen not in every:
            raise bad_request(f"container {chosen} is not valid for pod {pod['metadata']['name']}")
        return chosen or names[0]

    def _check(self, pod: Json, name: str, query: dict[str, str]) -> None:
        meta, node = pod["metadata"], pod["spec"].get("nodeName", "")
        if query.get("previous") in _TRUE:
            raise bad_request(f'previous terminated container "{name}" in pod "{meta["name"]}" not found')
        if node and not node_ready(self._store.get(NODE, "", node)):
            where = f"https://{node}:10250/containerLogs/{meta['namespace']}/{meta['name']}/{name}"
            raise ApiError(500, "InternalError", f'Get "{where}": dial tcp: i/o timeout')
        if pod["status"].get("phase") == "Pending":
            rows = pod["status"].get("containerStatuses") or [{}]
            why = ((rows[0].get("state") or {}).get("waiting") or {}).get("reason", "ContainerCreating")
            raise bad_request(f'container "{name}" in pod "{meta["name"]}" is waiting to start: {why}')

    def _since(self, pod: Json, seconds: str | None) -> int:
        """The log's size at that time, as far as the kubelet has looked."""
        running = self._kubelets.running.get(pod["metadata"]["uid"])
        if seconds is None or running is None:
            return 0
        limit = self._clock.monotonic() - float(seconds)
        return max((size for at, size in running.sizes if at < limit), default=0)


def _read(path: Path, start: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as log:
        log.seek(start)
        return log.read()


def _tail(path: Path, lines: int) -> int:
    """The offset at which the last `lines` lines begin; reads from the end, so that a long log costs nothing."""
    if not path.exists():
        return 0
    with path.open("rb") as log:
        end = at = log.seek(0, 2)
        found = 0
        while at > 0:
            step = min(1 << 16, at)
            log.seek(at - step)
            block = log.read(step)
            for index in range(len(block) - 1, -1, -1):
                if block[index] == 0x0A and at - step + index != end - 1:
                    found += 1
                    if found == lines:
                        return at - step + index + 1
            at -= step
    return 0 if lines else end
