"""Real parts: found, built and cached, or missing with a reason.

What it is: the rule that a missing part fails in CI and skips elsewhere, and the cache of Go programs by the hash of their sources.
What it is not: running them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

_SOURCES = Path(__file__).parent
_KUBERNETES = "k8s.io/kubernetes"
_VDDK = "nbdkit-vddk-plugin.so"


def missing(what: str) -> NoReturn:
    """In CI a part that is not there is a failure; on a person's machine it is a test that cannot run."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"the e2e tier needs {what}", pytrace=False)
    pytest.skip(f"needs {what}")


def program(name: str, package: str) -> str:
    """`/usr/sbin` is often not on a person's PATH."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/lib/git-core")
    return found or missing(f"the program {name} (package {package})")


def crds() -> Path:
    folder = os.environ.get("RECONCILER_E2E_CRDS")
    if not folder:
        missing("RECONCILER_E2E_CRDS: a folder with the CRDs of KubeVirt, CDI, Multus and Forklift, one a file")
    path = Path(folder).absolute()
    for kind in ("virtualmachines.kubevirt.io", "plans.forklift.konveyor.io", "storageprofiles.cdi.kubevirt.io"):
        if not (path / f"{kind}.yaml").is_file():
            missing(f"{kind}.yaml in RECONCILER_E2E_CRDS ({path})")
    return path


def cache() -> Path:
    return Path(os.environ.get("RECONCILER_E2E_CACHE") or Path.home() / ".cache" / "reconciler-e2e").absolute()


def go_program(name: str) -> Path:
    """tests/e2e/NAME as a program, built if this source was never built here."""
    sources = sorted((_SOURCES / name).glob("go.*")) + sorted((_SOURCES / name).glob("*.go"))
    digest = hashlib.sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in sources)).hexdigest()
    built = cache() / f"{name}-{digest[:16]}" / name
    if not built.exists():
        _build(_SOURCES / name, built)
    return built


def _build(source: Path, built: Path) -> None:
    built.parent.mkdir(parents=True, exist_ok=True)
    fresh = built.with_suffix(f".{os.getpid()}")
    command = [program("go", "golang"), "build", "-trimpath", "-ldflags", _flags(source / "go.mod"), "-o", str(fresh), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, env={**os.environ, "CGO_ENABLED": "0"})
    if done.returncode:
        missing(f"to build {source.name}: {done.stderr[-1500:]}")
    fresh.rename(built)


def _flags(module: Path) -> str:
    """Without a version the API server calls itself v0.0.0, and refuses its own feature gates."""
    words = [line.split() for line in module.read_text().splitlines() if f"{_KUBERNETES} v" in line]
    if not words:
        return "-s -w"
    version = words[0][-1]
    major, minor, _ = version.removeprefix("v").split(".", 2)
    named = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w", *(f"-X {package}.{key}={value}" for package in packages for key, value in named.items())])


def free_ports(count: int) -> list[int]:
    """All at once, so that they differ. Somebody may take one before its server does: rare enough for tests."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def c_library(source: Path, name: str) -> Path:
    """A shared library of C, built if this source was never built here."""
    built = cache() / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}" / name
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        fresh = built.with_suffix(f".{os.getpid()}")
        command = [program("cc", "gcc"), "-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-o", str(fresh), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            missing(f"to build {source.name}: {done.stderr[-1500:]}")
        fresh.rename(built)
    return built


def vddk_plugin() -> Path:
    """nbdkit's VDDK plugin as Debian builds it: installed, or out of the package of Debian 13, which runs with older nbdkits too."""
    said = subprocess.run([program("nbdkit", "nbdkit"), "--dump-config"], capture_output=True, text=True, check=True).stdout
    folder = next(line.partition("=")[2] for line in said.splitlines() if line.startswith("plugindir="))
    kept = cache() / "nbdkit-plugin-vddk"
    for path in (Path(folder) / _VDDK, kept / _VDDK):
        if path.exists():
            return path
    kept.mkdir(parents=True, exist_ok=True)
    _fetch_debian("nbdkit-plugin-vddk", kept)
    found = next(kept.rglob(f"usr/**/{_VDDK}"), None)
    if found is None:
        missing("nbdkit-plugin-vddk (Debian 13, contrib)")
    (kept / _VDDK).symlink_to(found)
    return kept / _VDDK


def _fetch_debian(package: str, folder: Path) -> None:
    """By apt, with lists and cache of its own: nothing is installed. Signatures are checked."""
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    key = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not key.exists():
        missing(f"the package {package}, or Debian's keyring to fetch it")
    (folder / "sources.list").write_text(f"deb [signed-by={key}] http://deb.debian.org/debian trixie main contrib\n")
    options = ["Dir::Etc::sourceparts=/nonexistent", f"Dir::Etc::sourcelist={folder}/sources.list", f"Dir::Cache={folder}/cache"]
    options += [f"Dir::State::lists={folder}/lists", "APT::Sandbox::User=", "Acquire::Languages=none"]
    apt = [program("apt-get", "apt"), *(word for option in options for word in ("-o", option))]
    for command in ([*apt, "update"], [*apt, "download", package]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            missing(f"the package {package}: {done.stderr[-500:]}")
    for deb in folder.glob("*.deb"):
        subprocess.run([program("dpkg-deb", "dpkg"), "-x", deb, folder], check=True)
