"""The worker reading through nbdkit's own VDDK plugin.

VMware's library is a stand-in (vddk/vixdisklib.c) that checks what it is asked for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from reconciler.core.copyspec import CopyDisk, CopyResult, CopySpec, Reader, TlsSpec, VddkSpec, Verify, parse_line
from reconciler.wire.nbdkit import arguments
from reconciler.wire.tls import read_sha1
from tests.contract.disk_server import DiskServer
from tests.contract.suite_disk import KIB, MIB, content
from tests.e2e import parts

MAIN = "import sys; from pathlib import Path; from reconciler.commands.worker import run; sys.exit(run(Path(sys.argv[1])))"
USER, PASSWORD = "administrator@vsphere.local", "pa55-of-the-test"
FILE = "[ds 1] web 01/web 01.vmdk"
SIZE = 4 * MIB + 512


@dataclass
class Site:
    """`server` stands for the vCenter: the worker reads the certificate to pin from it. `want` is what the library demands."""

    folder: Path
    server: DiskServer
    data: bytes
    plugin: Path
    want: dict[str, str] = field(default_factory=dict)

    @property
    def target(self) -> Path:
        return self.folder / "disk.img"

    def spec(self, **changes: object) -> CopySpec:
        disk = CopyDisk("uuid-1", "disk 1", Reader.NBD, "", len(self.data), str(self.target), False)
        config = "".join(f"{key}={value}\n" for key, value in self.want.items())
        vddk = VddkSpec(self.server.url, "vm-12", "snapshot-7", (("uuid-1", FILE),), str(self.folder / "vddk"), "nbdssl", config)
        tls = TlsSpec(ca_file=str(self.server.ca.path))
        spec = CopySpec("run", "vm", "round", (disk,), tls, str(self.folder / "credentials"), vddk=replace(vddk, plugin=str(self.plugin)))
        spec = replace(spec, termination_file=str(self.folder / "termination"), connections=2)
        return replace(spec, **changes)  # type: ignore[arg-type]

    def vddk(self, **changes: object) -> VddkSpec:
        spec = self.spec().vddk
        assert spec is not None
        return replace(spec, **changes)  # type: ignore[arg-type]

    def start(self, spec: CopySpec) -> subprocess.Popen[str]:
        path = self.folder / "spec.json"
        path.write_text(spec.to_json())
        command = [sys.executable, "-W", "error", "-X", "dev", "-c", MAIN, str(path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, spec: CopySpec | None = None) -> tuple[int, CopyResult]:
        with self.start(spec or self.spec()) as process:
            out, err = process.communicate(timeout=90)
        result = parse_line(out.splitlines()[-1])
        assert isinstance(result, CopyResult), err
        assert PASSWORD not in out + err and "Traceback" not in err
        assert not self.nbdkits()
        return process.returncode, result

    def nbdkits(self) -> list[str]:
        """Command lines of the nbdkits that serve this test."""
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_text().replace("\0", " ")
            except OSError:
                continue
            if line.startswith("nbdkit ") and str(self.folder) in line:
                lines.append(line)
        return lines


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    plugin = parts.vddk_plugin()
    library = parts.c_library(Path(__file__).parent / "vddk" / "vixdisklib.c", "libvixDiskLib.so.8")
    data = content(MIB) + bytes(2 * MIB) + content(MIB, 2) + b"\x5a" * 512
    (tmp_path / "disk").write_bytes(data)
    (tmp_path / "vddk" / "lib64").mkdir(parents=True)
    (tmp_path / "vddk" / "lib64" / library.name).symlink_to(library)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "user").write_text(USER + "\n")
    (tmp_path / "credentials" / "password").write_text(PASSWORD + "\n")
    server = DiskServer(tmp_path / "disk", tmp_path / "tls")
    made = Site(tmp_path, server, data, plugin)
    host, port = "127.0.0.1", int(server.url.split(":")[2].split("/")[0])
    made.want = {
        "server": host,
        "user": USER,
        "password": PASSWORD,
        "thumbprint": read_sha1(host, port, TlsSpec(ca_file=str(server.ca.path))),
        "vm": "moref=vm-12",
        "snapshot": "snapshot-7",
        "transports": "nbdssl",
        "file": FILE,
        "disk": str(tmp_path / "disk"),
    }
    yield made
    server.close()


@pytest.mark.parametrize("verify", [Verify.READBACK, Verify.SOURCE])
def test_a_disk_at_a_snapshot(site: Site, verify: Verify) -> None:
    code, result = site.run(site.spec(verify=verify))
    assert (code, result.error) == (0, None) and site.target.read_bytes() == site.data
    assert result.disks[0].read_bytes < len(site.data) - MIB, "what is not allocated is not read"


def test_a_machine_that_is_off_has_no_snapshot(site: Site) -> None:
    del site.want["snapshot"]
    assert site.run(site.spec(vddk=site.vddk(snapshot=None)))[0] == 0
    assert site.target.read_bytes() == site.data


def test_a_delta_with_odd_edges(site: Site) -> None:
    """VDDK reads whole sectors only."""
    site.target.write_bytes(b"\xee" * len(site.data))
    ranges = ((1000, 3), (2 * MIB - 100, 70 * KIB))
    disks = (replace(site.spec().disks[0], ranges=ranges),)
    assert site.run(site.spec(disks=disks))[0] == 0
    want = bytearray(b"\xee" * len(site.data))
    for offset, length in ranges:
        want[offset : offset + length] = site.data[offset : offset + length]
    assert site.target.read_bytes() == want


def test_a_password_is_in_no_command_line(site: Site) -> None:
    spec = site.spec()
    assert spec.vddk is not None
    line = arguments(spec.vddk, spec.disks[0], spec.tls, site.folder / "credentials", site.folder)
    assert PASSWORD not in " ".join(line) and f"password=+{site.folder}/credentials/password" in line
    with site.start(site.spec(bandwidth_bytes_per_s=MIB)) as process:
        until = time.monotonic() + 20
        while not (lines := site.nbdkits()):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert PASSWORD not in "".join(lines)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 75 and not site.nbdkits()


def test_nbdkit_does_not_outlive_a_killed_worker(site: Site) -> None:
    with site.start(site.spec(bandwidth_bytes_per_s=MIB)) as process:
        until = time.monotonic() + 20
        while not site.nbdkits():
            assert time.monotonic() < until
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    while site.nbdkits():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("want", "reason", "code"),
    [
        ({"password": "another"}, "AuthFailed", 65),
        ({"thumbprint": "00:11"}, "ThumbprintMismatch", 75),
        ({"file": "[ds 1] moved.vmdk"}, "SourceNotFound", 65),
        ({"at": "open", "fail": "The disk is locked by another process"}, "SourceBusy", 75),
        ({"at": "open", "fail": "You do not have access rights to this file"}, "SourceForbidden", 65),
        ({"at": "connect", "fail": "Cannot connect to host"}, "SourceUnreachable", 75),
        ({"at": "read", "fail": "NBD_ERR_GENERIC"}, "SourceIo", 75),
    ],
)
def test_what_vddk_says_is_said(site: Site, want: dict[str, str], reason: str, code: int) -> None:
    site.want |= want
    begin = time.monotonic()
    got, result = site.run()
    assert (got, result.reason) == (code, reason), result.error
    assert "disk 1: VDDK says: " in (result.error or "")
    assert code == 75 or time.monotonic() - begin < 10, "what is refused for good is asked once: accounts get locked"


@pytest.mark.parametrize("changes", [{"libdir": "/nonexistent"}, {"plugin": "nonexistent"}])
def test_a_vddk_that_is_not_there(site: Site, changes: dict[str, str]) -> None:
    code, result = site.run(site.spec(vddk=site.vddk(**changes)))
    assert (code, result.reason) == (65, "VddkMissing")


def test_a_certificate_that_is_not_trusted_is_not_pinned(site: Site) -> None:
    code, result = site.run(site.spec(tls=TlsSpec(thumbprint="AA:" * 19 + "AA")))
    assert (code, result.reason) == (75, "ThumbprintMismatch")
