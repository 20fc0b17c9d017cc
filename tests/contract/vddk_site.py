"""The vCenter as VMware's library meets it: who may read which file of which VM, at which snapshot, and where the lab has its bytes.

What it is: a unix socket beside the lab's vCenter. The stand-ins for VDDK ask it: one in C behind nbdkit's real plugin (tests/e2e/vddk),
and one for all of nbdkit where none is installed (vddk_nbdkit.py). Its path reaches them as a real configuration does: by vddkConfig.
What it is not: VMware's protocol. One line a question: user, password, thumbprint, vm, snapshot ("" for none) and file, by tabs; the
answer is `OK PATH` or `ERR` and VDDK's text.
"""

from __future__ import annotations

import shutil
import socketserver
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.lab import chains
from reconciler.lab.machines import Power, Snapshot, Vm
from reconciler.lab.world import World

IMAGE = "registry.example.com/infra/vddk:8.0.3"
DISTRIB = "vmware-vix-disklib-distrib"


@dataclass(frozen=True)
class Question:
    user: str
    password: str
    thumbprint: str
    vm: str
    snapshot: str
    file: str


class Refused(Exception):
    """In the words of VixDiskLib_GetErrorText, or of its log."""


class VddkSite:
    """`asked` holds all questions; `refuse` a text for each that is to be refused, "" for one that is not."""

    def __init__(self, world: World, user: str, password: str, thumbprint: Callable[[], str]) -> None:
        self._world, self._account, self._thumbprint = world, (user, password), thumbprint
        self.asked: list[Question] = []
        self.refuse: list[str] = []
        self._folder = tempfile.mkdtemp(prefix="vddk-", dir="/var/tmp")  # short, and not in /tmp, which the lab's pods have of their own
        self.socket = Path(self._folder) / "s"
        self._server = _Server(str(self.socket), _Handler)
        self._server.site = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def settings(self) -> str:
        """Of the Provider, as YAML."""
        return f'{{vddkInitImage: "{IMAGE}", useVddkAioOptimization: "true", vddkConfig: "broker={self.socket}"}}'

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        shutil.rmtree(self._folder)

    def answer(self, question: Question) -> str:
        self.asked.append(question)
        if text := self.refuse.pop(0) if self.refuse else "":
            return f"ERR {text}"
        try:
            with self._world.lock:
                return f"OK {self._find(question)}"
        except Refused as err:
            return f"ERR {err}"

    def _find(self, q: Question) -> Path:
        if (q.user, q.password) != self._account:
            raise Refused("Incorrect user name or password")
        if q.thumbprint != self._thumbprint():
            raise Refused("The thumbprint of the host does not match")
        vm = next((v for v in self._world.vms.values() if q.vm == f"moref=vm-{v.key}"), None)
        if vm is None:
            raise Refused("The virtual machine does not exist")
        if not q.snapshot and vm.power is not Power.OFF:
            raise Refused("The file is locked by the running virtual machine")
        return self._file(vm, self._snapshot(vm, q.snapshot), q.file)

    @staticmethod
    def _snapshot(vm: Vm, moref: str) -> Snapshot | None:
        found = next((s for s in vm.snapshots if moref == f"snapshot-{s.key}"), None)
        if moref and found is None:
            raise Refused("The snapshot does not exist")
        return found

    def _file(self, vm: Vm, snapshot: Snapshot | None, file: str) -> Path:
        """Each file of a chain holds the whole disk in the lab, as VDDK shows it."""
        for disk in vm.disks:
            layer = chains.frozen_by(disk, snapshot.key) if snapshot else None
            name, path = (layer.file, layer.path) if layer else (disk.file, disk.path)
            if file == f"[{disk.datastore.name}] {disk.folder}/{name}":
                return path
        raise Refused("A file was not found")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = False
    site: Any


class _Handler(socketserver.StreamRequestHandler):
    server: Any

    def handle(self) -> None:
        fields = self.rfile.readline().decode().rstrip("\n").split("\t")
        self.wfile.write(f"{self.server.site.answer(Question(*fields))}\n".encode())
