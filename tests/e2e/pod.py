"""The image of this checkout, and a pod template run from it by podman as a kubelet would.

What it is: the build (image/build) once a session; user, groups, capabilities, read-only root, memory limit, mounts and their owners as the
template says them. What it is not: a cluster; the pod has this machine's loopback, and its claims are folders.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import parts

Json = dict[str, Any]
RECIPE = Path(__file__).parent / "image"
PODMAN = str(RECIPE / "podman")
# A machine in a sandbox may not grant podman's own limits. A container that hangs is killed after `timeout` seconds.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--timeout=180")


@functools.cache
def image() -> str:
    """Built from this checkout; its layers stay in the cache of this tier. pytest.fail in CI, pytest.skip elsewhere, where it cannot be."""
    for program in ("podman", "runc", "debootstrap"):
        parts.program(program, program)
    if os.geteuid() != 0:
        parts.missing("to be root, for debootstrap and for a container with uid 107")
    done = subprocess.run([RECIPE / "build"], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"[-4000:]
    return done.stdout.split()[-1]


def podman(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PODMAN, *args], capture_output=True, text=True)


def inspect() -> Json:
    found = json.loads(podman("image", "inspect", image()).stdout)[0]
    return dict(found)


@dataclass(frozen=True)
class Pod:
    """`spec`: of the template. `contents`: the files of each Secret and ConfigMap, by volume. `claims`: a folder for each claim.

    `init`: its init container, which a kubelet runs first, on the same volumes.
    """

    spec: Json
    root: Path
    contents: Mapping[str, Mapping[str, str]]
    claims: Mapping[str, Path] = field(default_factory=dict)
    init: bool = False
    more: tuple[str, ...] = ()  # podman's options, for what the template leaves to the site

    @property
    def container(self) -> Json:
        (only,) = self.spec["initContainers" if self.init else "containers"]
        return dict(only)

    def arguments(self, name: str) -> list[str]:
        command = self.container.get("command", [])
        entry = [f"--entrypoint={json.dumps(command)}"] if command else []
        names = ["run", "--rm", f"--name={name}", "--network=host", *LIMITS, *self._locks(), *self._mounts(), *entry, *self.more]
        env = [f"--env={one['name']}={one['value']}" for one in self.container.get("env", [])]
        return [*names, *env, self.container["image"], *self.container.get("args", [])]

    def _locks(self) -> Iterator[str]:
        ids, lock = self.spec["securityContext"], self.container["securityContext"]
        yield f"--user={ids['runAsUser']}:{ids['runAsGroup']}"
        yield f"--group-add={ids['fsGroup']}"
        yield from (f"--cap-drop={name.lower()}" for name in lock["capabilities"]["drop"])
        if lock["readOnlyRootFilesystem"]:
            yield from ("--read-only", "--read-only-tmpfs=false")
        if not lock["allowPrivilegeEscalation"]:
            yield "--security-opt=no-new-privileges"
        yield f"--memory={self.container['resources']['limits']['memory'].removesuffix('i').lower()}"

    def _mounts(self) -> Iterator[str]:
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            folder = self._folder(volumes[mount["name"]], self.root / f"volume-{mount['name']}")
            yield f"--volume={folder}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}"
        if "terminationMessagePath" in self.container:
            self.termination.touch()
            self.termination.chmod(0o666)
            yield f"--volume={self.termination}:{self.container['terminationMessagePath']}"

    @property
    def termination(self) -> Path:
        return self.root / "termination"

    def _folder(self, volume: Json, fresh: Path) -> Path:
        """Owner root, group fsGroup, setgid: what a kubelet gives a pod with an fsGroup. A Secret's file is root's; the group reads it."""
        group = self.spec["securityContext"]["fsGroup"]
        folder = fresh
        if "persistentVolumeClaim" in volume:
            folder = self.claims[volume["persistentVolumeClaim"]["claimName"]]
        folder.mkdir(exist_ok=True)
        os.chown(folder, 0, group)
        folder.chmod(0o2777 if "emptyDir" in volume else 0o2775)
        source = volume.get("secret") or volume.get("configMap")
        if source:
            wanted = {item["key"]: item["path"] for item in source.get("items", [])}
            for key, text in self.contents[volume["name"]].items():
                if wanted and key not in wanted:
                    continue
                file = folder / wanted.get(key, key)
                file.write_text(text)
                os.chown(file, 0, group)
                file.chmod(source["defaultMode"])
        return folder

    def run(self) -> subprocess.CompletedProcess[str]:
        """To its end."""
        return podman(*self.arguments(_name()))

    @contextmanager
    def running(self) -> Iterator[Running]:
        name = _name()
        self.root.mkdir(exist_ok=True)
        out = self.root / "log"
        with out.open("w") as log, subprocess.Popen([PODMAN, *self.arguments(name)], stdout=log, stderr=log) as process:
            try:
                yield Running(name, process, out)
            finally:
                if process.poll() is None:
                    podman("rm", "--force", "--time=0", name)


@dataclass(frozen=True)
class Running:
    name: str
    process: subprocess.Popen[bytes]
    out: Path

    def execute(self, *command: str) -> str:
        return podman("exec", self.name, *command).stdout

    def terminate(self, seconds: float) -> int:
        """SIGTERM, as a kubelet sends it; the exit code."""
        podman("kill", "--signal=TERM", self.name)
        return self.process.wait(seconds)


def _name() -> str:
    return f"e2e-{uuid.uuid4().hex[:12]}"
