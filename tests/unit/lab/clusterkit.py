"""What the tests of the simulated cluster share: a clock to turn by hand, connected clients, and small objects."""

from __future__ import annotations

import atexit
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.dynamic import DynamicClient

from reconciler.lab.cluster.site import Cluster
from reconciler.lab.tls import LabCa

Json = dict[str, Any]


class SimClock:
    """A LabClock that moves only when told."""

    def __init__(self) -> None:
        self._at = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._at)

    def monotonic(self) -> float:
        return self._at

    def advance(self, seconds: float) -> None:
        self._at += seconds


class Site:
    """A cluster in simulated time with the real client connected to it."""

    def __init__(self, cluster: Cluster, clock: SimClock, api: client.ApiClient, root: Path) -> None:
        self.cluster, self.clock, self.api, self.root = cluster, clock, api, root
        self.core, self.batch = client.CoreV1Api(api), client.BatchV1Api(api)
        self.custom = client.CustomObjectsApi(api)

    def dynamic(self) -> DynamicClient:
        """With a discovery cache of its own: the default one is a file in /tmp that outlives the port's next owner."""
        return DynamicClient(self.api, cache_file=str(self.root / "discovery.json"))

    def request(self, method: str, path: str, body: bytes = b"{}") -> tuple[int, str]:
        """A request as no generated method makes it."""
        with urllib3.PoolManager(ca_certs=self.api.configuration.ssl_ca_cert, retries=False) as pool:
            headers = {"Authorization": f"Bearer {self.cluster.token}", "Content-Type": "application/json"}
            reply = pool.request(method, self.cluster.url + path, body=body, headers=headers)
            return reply.status, reply.data.decode()

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.cluster.step()

    def until(self, done: Callable[[], object]) -> None:
        """Step until a real process has done its part; at most ten real seconds."""
        pause = threading.Event()
        for _ in range(500):
            self.cluster.step()
            if done():
                return
            pause.wait(0.02)
        raise AssertionError("it did not come to pass within ten seconds")


@cache
def ca() -> LabCa:
    folder = Path(mkdtemp(prefix="lab-ca-"))
    atexit.register(shutil.rmtree, folder)
    return LabCa(folder)


@contextmanager
def site_at(root: Path, programs: Mapping[str, Sequence[str]] | None = None, **options: Any) -> Iterator[Site]:
    clock = SimClock()
    with Cluster(root / "cluster", ca(), clock, programs=programs or {}, **options) as cluster:
        cluster.write_kubeconfig(root / "kubeconfig")
        settings = client.Configuration()
        settings.retries = False  # a fault must reach the test, not urllib3's second try
        config.load_kube_config(str(root / "kubeconfig"), client_configuration=settings)
        api = client.ApiClient(settings)
        site = Site(cluster, clock, api, root)
        try:
            site.core.create_namespace({"metadata": {"name": "shop"}})
            yield site
        finally:
            api.close()


def claim(name: str, storage_class: str = "bulk", size: str = "1Mi", **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": size}},
            **spec,
        },
    }


def pod(name: str, claims: Sequence[str] = (), command: Sequence[str] = ("sleep", "infinity"), **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main",
                    "image": "example.com/image:1",
                    "command": list(command),
                    "volumeMounts": [{"name": c, "mountPath": f"/mnt/{c}"} for c in claims],
                }
            ],
            "volumes": [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims],
            **spec,
        },
    }


def job(name: str, template_pod: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"backoffLimit": 0, "template": {"spec": template_pod["spec"]}, **spec},
    }
