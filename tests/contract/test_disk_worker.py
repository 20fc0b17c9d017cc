"""The copy pod as a process: lines and exit codes, SIGTERM, kill -9 and resume, memory, no secrets, what it imports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.core.copyspec import CopyDisk, CopyResult, CopySpec, DiskProgress, Reader, TlsSpec, Verify, parse_line
from tests.contract.disk_server import PASSWORD, USER, DiskServer
from tests.contract.suite_disk import KIB, MIB, content
from tests.contract.test_disk_local import device_size, loop_device

SIZE = 3 * MIB + 5
MAIN = "import sys; from pathlib import Path; from reconciler.commands.worker import run; sys.exit(run(Path(sys.argv[1])))"


@dataclass
class Pod:
    server: DiskServer
    root: Path
    data: bytes

    @property
    def target(self) -> Path:
        return self.root / "disk.img"

    @property
    def termination(self) -> Path:
        return self.root / "termination"

    def spec(self, **changes: object) -> CopySpec:
        disk = CopyDisk("uuid-1", "disk 1", Reader.HTTP_RANGE, self.server.url, len(self.data), str(self.target), False)
        tls = TlsSpec(ca_file=str(self.server.ca.path))
        spec = CopySpec("ns/run", "vm", "round", (disk,), tls, str(self.root / "credentials"), termination_file=str(self.termination))
        return replace(spec, **changes)  # type: ignore[arg-type]

    def disk(self, **changes: object) -> tuple[CopyDisk, ...]:
        return (replace(self.spec().disks[0], **changes),)  # type: ignore[arg-type]

    @contextmanager
    def start(self, spec: CopySpec) -> Iterator[subprocess.Popen[str]]:
        path = self.root / "spec.json"
        path.write_text(spec.to_json())
        command = [sys.executable, "-W", "error", "-X", "dev", "-c", MAIN, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, spec: CopySpec) -> tuple[int, list[str], str]:
        with self.start(spec) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out.splitlines(), err


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    data = content(SIZE)
    (tmp_path / "source").write_bytes(data)
    (tmp_path / "credentials").mkdir()
    server = DiskServer(tmp_path / "source", tmp_path / "tls")
    yield Pod(server, tmp_path, data)
    server.close()


def result(lines: list[str]) -> CopyResult:
    last = parse_line(lines[-1])
    assert isinstance(last, CopyResult)
    return last


def progress(lines: list[str]) -> list[DiskProgress]:
    return [line[0] for line in map(parse_line, lines) if isinstance(line, tuple)]


class TestEnds:
    @pytest.mark.parametrize("verify", list(Verify))
    def test_done(self, pod: Pod, verify: Verify) -> None:
        code, lines, err = pod.run(pod.spec(verify=verify))
        assert (code, err) == (0, "")
        assert pod.target.read_bytes() == pod.data
        assert result(lines).done and json.loads(pod.termination.read_text()) == json.loads(lines[-1])
        last = progress(lines)[-1]
        assert last.done_bytes == last.watermark_bytes == last.total_bytes == SIZE
        assert last.verified_bytes == (SIZE if verify is Verify.SOURCE else 0)
        assert pod.target.stat().st_mode & 0o777 == 0o660

    def test_two_disks_of_one_job(self, pod: Pod) -> None:
        disks = pod.disk() + pod.disk(uuid="uuid-2", target=str(pod.root / "disk2.img"), block=False)
        code, lines, _ = pod.run(pod.spec(disks=disks))
        assert code == 0 and [d.uuid for d in result(lines).disks] == ["uuid-1", "uuid-2"]
        assert pod.target.read_bytes() == (pod.root / "disk2.img").read_bytes() == pod.data

    def test_a_delta_round(self, pod: Pod) -> None:
        """Ranges through the spec's JSON; of two disks one has nothing to do; one stretch is checked."""
        pod.target.write_bytes(bytes(1000) + pod.data[1000:])
        other = pod.root / "disk2.img"
        other.write_bytes(pod.data)
        disks = pod.disk(ranges=((0, 1000),), check=((0, 4096),)) + pod.disk(uuid="uuid-2", target=str(other), ranges=())
        spec = pod.spec(disks=disks)
        assert CopySpec.from_json(spec.to_json()) == spec
        code, lines, err = pod.run(spec)
        assert (code, err) == (0, "") and pod.target.read_bytes() == other.read_bytes() == pod.data
        assert [(d.read_bytes, d.verified_bytes) for d in result(lines).disks] == [(1000, 4096), (0, 0)]
        last = parse_line(lines[-2])
        assert isinstance(last, tuple) and [d.watermark_bytes for d in last] == [SIZE, SIZE]

    @pytest.mark.parametrize("check", [((0, 4096),), None])
    def test_a_disk_whose_second_read_failed_is_not_done_and_the_other_one_is(
        self, pod: Pod, check: tuple[tuple[int, int], ...] | None
    ) -> None:
        """A mark may follow from each disk's own word, though the Job failed."""
        pod.target.write_bytes(pod.data)
        other = pod.root / "disk2.img"
        other.write_bytes(b"\xff" + pod.data[1:])
        disks = pod.disk(ranges=(), check=((0, 65536),)) + pod.disk(uuid="uuid-2", target=str(other), ranges=(), check=check)
        code, lines, _ = pod.run(pod.spec(disks=disks, verify=Verify.SOURCE, connections=1))
        assert code == 65 and result(lines).reason == "SourceMismatch"
        assert [(d.done, d.mismatch) for d in result(lines).disks] == [(True, False), (False, True)]
        last = parse_line(lines[-2])
        assert isinstance(last, tuple) and [d.watermark_bytes for d in last] == [SIZE, 0]

    def test_a_wrong_spec_is_65(self, pod: Pod) -> None:
        code, lines, _ = pod.run(replace(pod.spec(), disks=()))
        assert code == 65 and result(lines).reason == "SpecInvalid"

    def test_a_reader_that_is_not_here_is_65(self, pod: Pod) -> None:
        code, lines, _ = pod.run(pod.spec(disks=pod.disk(reader=Reader.GLANCE)))
        assert code == 65 and result(lines).reason == "ReaderUnknown"

    def test_a_terminal_error_is_65(self, pod: Pod) -> None:
        pod.server.ignores_range = True
        code, lines, err = pod.run(pod.spec())
        assert code == 65 and result(lines).reason == "RangesIgnored" and not result(lines).done and "Traceback" not in err

    def test_a_target_that_is_missing_is_65(self, pod: Pod) -> None:
        code, lines, _ = pod.run(pod.spec(disks=pod.disk(target=str(pod.root / "no" / "disk.img"))))
        assert code == 65 and result(lines).reason == "TargetMissing"

    def test_refused_credentials_are_75_and_stay_secret(self, pod: Pod) -> None:
        pod.server.basic = True
        (pod.root / "credentials" / "user").write_text(USER)
        (pod.root / "credentials" / "password").write_text("wrong-" + PASSWORD)
        code, lines, err = pod.run(pod.spec())
        assert code == 75 and result(lines).reason == "AuthFailed"
        assert PASSWORD not in "".join(lines) + err + pod.termination.read_text()

    def test_a_secret_in_a_message_is_struck_out(self, pod: Pod) -> None:
        """An endpoint that echoes the password in its answer."""
        (pod.root / "credentials" / "user").write_text(USER)
        (pod.root / "credentials" / "password").write_text(PASSWORD)
        pod.server.says_range = f"bytes {PASSWORD}"
        code, lines, err = pod.run(pod.spec())
        assert code == 65 and result(lines).reason == "RangeWrong"
        assert "***" in lines[-1] and PASSWORD not in "".join(lines) + err + pod.termination.read_text()


class TestInterrupted:
    SLOW = 2 * MIB  # bytes per second

    def slow(self, pod: Pod) -> CopySpec:
        pod.data = content(8 * MIB)
        pod.server.path.write_bytes(pod.data)
        return pod.spec(request_bytes=64 * KIB, bandwidth_bytes_per_s=self.SLOW, connections=2)

    def test_sigterm_ends_it_with_75_and_an_honest_watermark(self, pod: Pod) -> None:
        with pod.start(self.slow(pod)) as process:
            assert process.stdout is not None
            while not any(p.done_bytes for p in progress([process.stdout.readline()])):
                pass
            begin = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
        lines = out.splitlines()
        assert process.returncode == 75 and err == "" and time.monotonic() - begin < 10
        assert result(lines).reason == "Stopped" and not result(lines).done
        mark = progress(lines)[-1].watermark_bytes
        assert 0 < mark < len(pod.data) and pod.target.read_bytes()[:mark] == pod.data[:mark]
        assert self.finish(pod, mark) <= len(pod.data) - mark

    def test_sigterm_does_not_wait_for_a_server_that_hangs(self, pod: Pod) -> None:
        pod.server.faults.script("H" * 8)
        with pod.start(pod.spec()) as process:
            while not pod.server.requests:
                time.sleep(0.01)
            begin = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=25)
        assert process.returncode == 75 and time.monotonic() - begin < 10 and result(out.splitlines()).reason == "Stopped"

    def test_kill_9_and_resume_from_the_last_line(self, pod: Pod) -> None:
        """FLUSH_S is 5 s, so the killed process says a watermark once a second flush was due; the rest is spoilt before the resume."""
        spec = self.slow(pod)
        with pod.start(replace(spec, bandwidth_bytes_per_s=MIB)) as process:
            assert process.stdout is not None
            mark = 0
            while not mark:
                line = process.stdout.readline()
                assert line
                mark = max((p.watermark_bytes for p in progress([line])), default=0)
            process.kill()
            process.wait()
        with pod.target.open("r+b") as file:
            file.seek(mark)
            file.write(b"\xff" * (len(pod.data) - mark))
        assert self.finish(pod, mark) == len(pod.data) - mark

    def finish(self, pod: Pod, mark: int) -> int:
        code, lines, err = pod.run(pod.spec(disks=pod.disk(resume_bytes=mark)))
        assert (code, err) == (0, "") and pod.target.read_bytes() == pod.data
        return result(lines).disks[0].read_bytes


class TestWeight:
    def test_memory_stays_below_the_limit_of_the_pod(self, pod: Pod) -> None:
        """Four times the limit, the largest buffers that a spec can ask for. VmHWM is read while the process runs."""
        size, peak = 512 * MIB, 0
        with pod.server.path.open("r+b") as file:
            file.truncate(size)
            file.seek(size - MIB)
            file.write(pod.data[:MIB])
        disks = pod.disk(capacity_bytes=size, compare=True)
        pod.target.write_bytes(b"\xff")
        with pod.start(pod.spec(disks=disks, connections=16, request_bytes=64 * MIB)) as process:
            while process.poll() is None:
                found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
                peak = max(peak, int(found[1]) << 10 if found else 0)
                time.sleep(0.02)
            process.communicate()
        assert process.returncode == 0 and 0 < peak < 128 * MIB
        with pod.target.open("rb") as file:
            assert file.read(len(pod.data)) == pod.data and not any(file.read(MIB))
            file.seek(size - MIB)
            assert file.read() == pod.data[:MIB]

    def test_it_loads_no_sdk(self) -> None:
        heavy = ["pydantic", "kubernetes", "pyVmomi", "ruamel", "git", "rich", "cattrs", "asyncio", "cryptography"]
        code = f"import sys, reconciler.commands.worker; print([m for m in {heavy} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
        assert done.stdout.strip() == "[]"


@pytest.mark.e2e
@pytest.mark.parametrize("sector", [512, 4096])
class TestOntoABlockDevice:
    """The program onto a loop device full of somebody else's bytes (root and losetup needed). The disk ends within a 4 KiB sector."""

    @pytest.fixture
    def device(self, pod: Pod, sector: int) -> Iterator[Path]:
        (pod.root / "source").write_bytes(pod.data[: 3 * MIB - 512])
        pod.data = pod.data[: 3 * MIB - 512]
        with loop_device(pod.root / "backing", device_size(len(pod.data)), sector) as made:
            made.write_bytes(b"\xff" * device_size(len(pod.data)))
            yield made

    @pytest.mark.parametrize("verify", [Verify.READBACK, Verify.SOURCE])
    def test_every_byte_is_there_and_proven_past_the_cache(self, pod: Pod, device: Path, verify: Verify) -> None:
        code, lines, err = pod.run(pod.spec(disks=pod.disk(target=str(device), block=True), verify=verify))
        assert (code, err) == (0, "")
        assert device.read_bytes() == pod.data + b"\xff" * (device_size(len(pod.data)) - len(pod.data))
        (disk,) = result(lines).disks
        assert disk.done and disk.readback == "ok"
        assert disk.zeroed_bytes > 0

    def test_a_resume_and_a_delta_at_odd_places(self, pod: Pod, device: Path) -> None:
        """What lies before the watermark and outside the ranges is not touched; both begin and end within sectors."""
        proven = MIB + 512
        with device.open("r+b") as file:
            file.write(pod.data[:proven])
        code, _, err = pod.run(pod.spec(disks=pod.disk(target=str(device), block=True, resume_bytes=proven)))
        assert (code, err, device.read_bytes()[: len(pod.data)] == pod.data) == (0, "", True)
        changed = bytearray(pod.data)
        for offset, length in ((512, 1024), (2 * MIB - 512, 4096 + 512)):
            changed[offset : offset + length] = bytes(b ^ 0xFF for b in changed[offset : offset + length])
        (pod.root / "source").write_bytes(changed)
        disks = pod.disk(target=str(device), block=True, ranges=((512, 1024), (2 * MIB - 512, 4096 + 512)))
        code, lines, err = pod.run(pod.spec(disks=disks))
        assert (code, err, device.read_bytes()[: len(changed)] == changed) == (0, "", True)
        assert result(lines).disks[0].read_bytes == 1024 + 4096 + 512
