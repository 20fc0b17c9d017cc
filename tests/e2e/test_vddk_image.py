"""The recipe of `reconciler vddk-image`, followed with podman, and its image used by the pods that we make: init container, then worker.

What it is: the real nbdkit and plugin of our own image, as uid 107 on a read-only root. VMware's library is the stand-in of tests/e2e/vddk.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.commands.vddkimage import DISTRIB, Wishes, text
from reconciler.core.copyspec import VDDK_INVALID, CopyDisk, CopyResult, CopySpec, Reader, TlsSpec, VddkSpec, parse_line
from reconciler.core.target import BinderSpec, CopyJob, Owner, Placement, VolumeMode
from reconciler.drivers.kubevirt import pods
from reconciler.drivers.kubevirt.labels import Obj
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.wire.tls import read_sha1
from tests.contract.disk_server import PASSWORD, USER, DiskServer
from tests.e2e import parts, pod

IMAGE = "localhost/reconciler-e2e-vddk:8.0.3"
OWNER = Owner("ns/wave", "ns/run", "web-01", "site/vm", "None", "c0ffee")
FILE = "[ds 1] web 01/web 01.vmdk"
CLAIM = "web-01-disk"
# podman as this tier has it, which looks for podman in PATH itself. There is no registry to push to.
WRAPPER = """#!/bin/sh
PATH=${{PATH#*:}}
case "$1" in
push) exit 0 ;;
build|run) sub=$1; shift; exec {podman} "$sub" --network=host {limits} "$@" ;;
esac
exec {podman} "$@"
"""


def follow(root: Path, base: str, files: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    """The printed script, run by sh. `files`: what the tarball holds, below its folder."""
    packed = root / "vddk.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        for name, path in files.items():
            info = tar.gettarinfo(path.resolve(), f"{DISTRIB}/{name}")
            info.mode = 0o600  # as careful as somebody's umask
            with path.open("rb") as file:
                tar.addfile(info, file)
    tools = root / "bin"
    tools.mkdir()
    limits = " ".join(limit for limit in pod.LIMITS if "ulimit" in limit)
    (tools / "podman").write_text(WRAPPER.format(podman=pod.PODMAN, limits=limits))
    (tools / "podman").chmod(0o755)
    script = text(Wishes(str(packed), IMAGE, base, "podman"))
    return subprocess.run(["sh"], input=script, capture_output=True, text=True, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ours, with the VDDK image made beside it; a disk to read is in that one, because the stand-in has no network."""
    root, base = tmp_path_factory.mktemp("recipe"), pod.image()
    library = parts.c_library(Path(__file__).parent / "vddk" / "vixdisklib.c", "libvixDiskLib.so.8")
    (root / "disk").write_bytes(os.urandom(1 << 20) + bytes(2 << 20) + os.urandom(1 << 20))
    done = follow(root, base, {"lib64/libvixDiskLib.so.8": library, "disk": root / "disk"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'vddkInitImage: "{IMAGE}"' in done.stdout
    yield base
    pod.podman("image", "rm", "--force", IMAGE)


def run(spec: Obj, root: Path, contents: dict[str, dict[str, str]]) -> tuple[subprocess.CompletedProcess[str], pod.Pod]:
    """As a kubelet: the init container to its end, then ours."""
    made = pod.Pod(spec, root, contents, {CLAIM: root / "claim"})
    first = replace(made, init=True).run()
    assert first.returncode == 0, first.stdout + first.stderr
    return made.run(), made


def binder(image: str) -> Obj:
    spec = BinderSpec("shop", "bind-web-01", ((CLAIM, VolumeMode.FILESYSTEM),), Placement(), OWNER, vddk_image=IMAGE)
    return dict(pods.binder(spec, TargetSettings(worker_image=image))["spec"])


def test_the_binders_pod_loads_the_library(image: str, tmp_path: Path) -> None:
    done, _ = run(binder(image), tmp_path, {})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_library_that_does_not_load_is_told_by_the_binder(image: str, tmp_path: Path) -> None:
    done, made = run(binder(image), tmp_path, {})
    (library,) = made.root.rglob("libvixDiskLib.so.8")
    library.write_bytes(b"no library")
    again = made.run()
    result = parse_line(again.stdout.splitlines()[-1])
    assert isinstance(result, CopyResult)
    assert (done.returncode, again.returncode, result.reason) == (0, 65, VDDK_INVALID)
    assert "libvixDiskLib.so.8" in (result.error or "")


def test_the_importers_pod_reads_through_it(image: str, tmp_path: Path) -> None:
    (tmp_path / "nothing").write_bytes(bytes(512))
    server = DiskServer(tmp_path / "nothing", tmp_path / "tls")  # stands for the vCenter, whose certificate is pinned
    try:
        done, made = run(*importer(image, server, tmp_path))
    finally:
        server.close()
    assert done.returncode == 0, done.stdout + done.stderr
    result = parse_line(done.stdout.splitlines()[-1])
    assert isinstance(result, CopyResult)
    (source,) = made.root.glob(f"volume-*/{DISTRIB}/disk")
    assert (tmp_path / "claim" / "disk.img").read_bytes() == source.read_bytes()
    assert result.disks[0].read_bytes < source.stat().st_size, "what is not allocated is not read"
    assert PASSWORD not in done.stdout + done.stderr


def importer(image: str, server: DiskServer, root: Path) -> tuple[Obj, Path, dict[str, dict[str, str]]]:
    job = CopyJob("shop", "copy-web-01", (("uuid-1", CLAIM, VolumeMode.FILESYSTEM),), Placement(), OWNER, "round", 1, vddk_image=IMAGE)
    template = pods.importer(job, TargetSettings(worker_image=image))["spec"]["template"]
    port = int(server.url.split(":")[2].split("/")[0])
    want = {
        "server": "127.0.0.1",
        "user": USER,
        "password": PASSWORD,
        "thumbprint": read_sha1("127.0.0.1", port, TlsSpec(ca_file=str(server.ca.path))),
        "vm": "moref=vm-12",
        "transports": "nbdssl:nbd",
        "file": FILE,
        "disk": f"{pods.VDDK_LIBDIR}/disk",
    }
    config = "".join(f"{key}={value}\n" for key, value in want.items())
    vddk = VddkSpec(server.url, "vm-12", None, (("uuid-1", FILE),), pods.VDDK_LIBDIR, config=config)
    disk = CopyDisk("uuid-1", "disk 1", Reader.NBD, "", 4 << 20, pods.target_path(0, VolumeMode.FILESYSTEM), False)
    tls = TlsSpec(ca_file=f"{pods.CREDENTIALS_DIR}/ca.crt")
    spec = CopySpec("ns/run", "web-01", "round", (disk,), tls, pods.CREDENTIALS_DIR, termination_file=pods.TERMINATION_FILE, vddk=vddk)
    secret = {"spec.json": spec.to_json(), "user": USER, "password": PASSWORD, "ca.crt": server.ca.pem}
    return template["spec"], root, {"spec": secret, "credentials": secret}
