"""A real Kubernetes control plane on loopback, without nodes: etcd, kube-apiserver with the real CRDs, kube-controller-manager.

What it is: three processes, started in that order and stopped in the other, with RBAC on and one service account that holds exactly
drivers/kubevirt/rbac.RULES. What it is not: kubelets, provisioners or KubeVirt (node.py, volumes.py, virt.py).
The CRDs are applied before the controllers start: the garbage collector looks for new kinds only every 30 s.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
import urllib3
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from reconciler.drivers.kubevirt.rbac import RULES
from reconciler.lab.tls import LabCa
from tests.e2e import parts
from tests.e2e.admin import YAML, Admin, Json, Refused, path

HOME = "openshift-mtv"
ACCOUNT = "reconciler"
_CONTROLLERS = (
    "job garbage-collector namespace serviceaccount root-ca-certificate-publisher persistentvolume-binder persistentvolumeclaim-protection "
    "persistentvolume-protection resourcequota"
)


class ControlPlane:
    """`admin` may do everything; `token` is the reconciler's, with its rights and no more."""

    def __init__(self, binary: Path, crds: Path, folder: Path, ca: LabCa) -> None:
        self._binary, self._crds, self.folder, self.ca = binary, crds, folder, ca
        self._port, self._etcd, self._peer, self._kcm = parts.free_ports(4)
        self.url = f"https://127.0.0.1:{self._port}"
        self._admin_token = secrets.token_urlsafe(24)
        self.admin = Admin(self.url, self._admin_token, str(ca.path))
        self.token = ""
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Clients first, so that nobody waits for open watches; a server that does not listen is killed."""
        self.admin.close()
        while self._running:
            _, process = self._running.pop()
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # ---- starting

    def _start(self) -> None:
        self.ca.server_context("kube-apiserver")  # leaves its .crt and .key beside ca.crt
        self._write_keys()
        self._run("etcd", *self._etcd_flags())
        self._run("kube-apiserver", *self._apiserver_flags())
        self._until("kube-apiserver", 90, lambda: self.admin.call("GET", "/readyz"))
        self._apply_crds()
        self._run("kube-controller-manager", *self._kcm_flags())
        self._account()

    def _run(self, name: str, *flags: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [str(self._binary), name, *flags]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        self._running.append((name, process))

    def _until(self, name: str, seconds: float, met: Callable[[], object]) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := met():
                    return found
                why = "not yet"
            except (Refused, urllib3.exceptions.HTTPError) as err:
                why = str(err)
            dead = [name for name, process in self._running if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                log = (self.folder / f"{(dead or [name])[0]}.log").read_text(errors="replace")
                pytest.fail(f"{name} did not come up ({why}); {dead} ended; its log ends:\n{log[-2000:]}", pytrace=False)
            time.sleep(0.1)

    def _write_keys(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        for name, data in (("accounts.key", private), ("accounts.pub", public)):
            (self.folder / name).write_bytes(data)
        (self.folder / "tokens.csv").write_text(f'{self._admin_token},admin,admin,"system:masters"\n')
        self.write_kubeconfig(self.folder / "admin.kubeconfig", self._admin_token)

    def write_kubeconfig(self, file: Path, token: str | None = None) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": {"server": self.url, "certificate-authority": str(self.ca.path)}}],
            "users": [{"name": "e2e", "user": {"token": token or self.token}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
            "current-context": "e2e",
        }
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(config))

    def _etcd_flags(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",  # thrown away with the session
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _apiserver_flags(self) -> list[str]:
        pki = self.ca.path.parent
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
            f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
            f"--service-account-key-file={self.folder / 'accounts.pub'}",
            "--enable-aggregator-routing=false",
            "--shutdown-delay-duration=0s",
        ]

    def _kcm_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.folder / 'admin.kubeconfig'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._kcm}",
            "--leader-elect=false",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            f"--root-ca-file={self.ca.path}",
            "--pvclaimbinder-sync-period=1s",
            f"--cert-dir={self.folder}",
            "--controllers=" + ",".join(f"{name}-controller" for name in _CONTROLLERS.split()),
        ]

    # ---- what a platform team has there already

    def _apply_crds(self) -> None:
        where = path("CustomResourceDefinition")
        files = sorted(self._crds.glob("*.yaml"))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda file: self.admin.call("POST", where, file.read_bytes(), YAML), files))

        def established() -> bool:
            found = self.admin.all("CustomResourceDefinition")
            met = [
                any(c["type"] == "Established" and c["status"] == "True" for c in crd["status"].get("conditions") or []) for crd in found
            ]
            return len(met) == len(files) and all(met)

        self._until("kube-apiserver", 60, established)

    def _account(self) -> None:
        """The reconciler's service account, with rbac.RULES and nothing else, and a token as `kubectl create token` gives it."""
        self.namespace(HOME)
        subject = {"kind": "ServiceAccount", "namespace": HOME, "name": ACCOUNT}
        self.admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": HOME, "name": ACCOUNT}})
        rules = [{"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)} for rule in RULES]
        group = "rbac.authorization.k8s.io"
        self.admin.create({"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": ACCOUNT}, "rules": rules})
        self.admin.create(
            {
                "apiVersion": f"{group}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": ACCOUNT},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": ACCOUNT},
                "subjects": [subject],
            }
        )
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        granted = self.admin.call("POST", path("ServiceAccount", HOME, ACCOUNT, "token"), request)
        self.token = granted["status"]["token"]

    def namespace(self, name: str) -> Json:
        """With its default service account, which pods need and a controller makes."""
        made = self.admin.ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self._until("kube-controller-manager", 60, lambda: self.admin.get("ServiceAccount", name, "default"))
        return made
