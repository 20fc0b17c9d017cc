"""Copy over HTTPS ranges against `nbdkit curl` + `nbdcopy` and `qemu-img convert`, all from the same nginx. Run by hand, never by pytest.

    python -m tests.bench.bench_copy [--runs 5] [--size-gib 4] [--data-gib 1] [--connections 4] [--request-mib 4] [--only NAME ...]

Needs nginx, nbdkit, libnbd-bin, qemu-utils, qemu-block-extra. The same conditions for all: source file in the page cache, new target file
on one file system, time until fdatasync of the target has returned, bytes compared after each run (not timed), contenders interleaved.
"""

from __future__ import annotations

import argparse
import mmap
import os
import platform
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.copyspec import CopyDisk, CopySpec, Reader, TlsSpec, Verify
from reconciler.lab.tls import LabCa

MIB, GIB = 1 << 20, 1 << 30
PORT = 18443
URL = f"https://127.0.0.1:{PORT}/disk-flat.vmdk"
WORKER = "import sys; from pathlib import Path; from reconciler.commands.worker import run; sys.exit(run(Path(sys.argv[1])))"
NGINX = """
worker_processes {workers}; daemon off; pid {root}/nginx.pid; error_log {root}/error.log; {user}
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{ listen 127.0.0.1:{port} ssl; root {root}/www;
    ssl_certificate {root}/tls/nginx.crt; ssl_certificate_key {root}/tls/nginx.key; }} }}
"""


@dataclass(frozen=True)
class Run:
    seconds: float
    rss_mib: float  # of the first process: the worker, which has no others
    cpu_s: float  # user and system time of the contender, without the server's: tells more than the clock on a busy machine


@dataclass(frozen=True)
class Bench:
    root: Path
    size: int
    connections: int
    request_bytes: int

    @property
    def source(self) -> Path:
        return self.root / "www" / "disk-flat.vmdk"

    @property
    def target(self) -> Path:
        return self.root / "out" / "disk.img"

    def ours(self, verify: Verify) -> list[str]:
        disk = CopyDisk("bench", "bench disk", Reader.HTTP_RANGE, URL, self.size, str(self.target), False)
        spec = CopySpec(
            "run",
            "vm",
            "round",
            (disk,),
            TlsSpec(ca_file=str(self.root / "tls" / "ca.crt")),
            str(self.root),
            verify,
            self.connections,
            self.request_bytes,
            None,
            str(self.root / "termination"),
        )
        (self.root / "spec.json").write_text(spec.to_json())
        return [sys.executable, "-c", WORKER, str(self.root / "spec.json")]

    def nbdkit(self, command: str) -> list[str]:
        return ["nbdkit", "-U", "-", "curl", URL, f"cainfo={self.root}/tls/ca.crt", "--run", command]

    def qemu_direct(self) -> list[str]:
        """Straight from https; its curl driver takes no CA file, so it is spared the check of the chain."""
        image = f"driver=raw,file.driver=https,file.url={URL},file.sslverify=off,file.readahead=1M"
        return ["qemu-img", "convert", "-O", "raw", "-W", "-m", "8", "--image-opts", image, str(self.target)]


def contenders(bench: Bench) -> dict[str, Callable[[], list[str]]]:
    return {
        "worker verify=none": lambda: bench.ours(Verify.NONE),
        "worker verify=readback": lambda: bench.ours(Verify.READBACK),
        "worker verify=source": lambda: bench.ours(Verify.SOURCE),
        "nbdkit curl + nbdcopy": lambda: bench.nbdkit(f'nbdcopy --flush "$uri" {bench.target}'),
        "nbdkit curl + qemu-img": lambda: bench.nbdkit(f'qemu-img convert -f raw -O raw -W -m 8 "$nbd" {bench.target}'),
        "qemu-img https": bench.qemu_direct,
    }


def make_source(path: Path, size: int, data: int) -> None:
    """`data` bytes that do not compress, in runs of 1 to 32 MiB spread over the disk; the rest is holes."""
    rng = random.Random(1)
    lengths: list[int] = []
    while (left := data // MIB - sum(lengths)) > 0:
        lengths.append(min(left, rng.randint(1, 32)))
    gap = (size - data) // MIB // len(lengths)
    with path.open("wb") as file:
        file.truncate(size)
        at = 0
        for length in lengths:
            file.seek(at * MIB)
            for _ in range(length):
                file.write(os.urandom(MIB))
            at += length + gap
        os.fsync(file.fileno())


def touch_free_memory() -> None:
    """Use all free memory once. A virtual machine may get a page from its host at the first use only; that costs a hundred times a copy
    into it (7 ms a MiB were seen), and falls on whichever contender's target comes to lie there."""
    found = re.search(r"MemFree:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    length = max(mmap.PAGESIZE, int(found[1]) * 1024 - GIB) if found else mmap.PAGESIZE
    print(f"using {length / GIB:.1f} GiB of free memory once; on a new virtual machine this takes minutes", file=sys.stderr, flush=True)
    with mmap.mmap(-1, length) as area:
        for at in range(0, length, mmap.PAGESIZE):
            area[at] = 1


def measure(bench: Bench, command: Sequence[str], limit_s: float) -> Run | None:
    """One run into a new file, until its bytes are on the medium. None if it did not end in time."""
    bench.target.unlink(missing_ok=True)
    os.sync()
    with bench.source.open("rb", buffering=0) as file:  # into the page cache, for all alike
        while file.read(16 * MIB):
            pass
    begin, cpu = time.perf_counter(), cpu_of_children()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    rss = 0.0
    while process.poll() is None:
        rss = max(rss, peak_rss_mib(process.pid))
        if time.perf_counter() - begin > limit_s:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
        time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    used = cpu_of_children() - cpu
    fd = os.open(bench.target, os.O_RDWR)
    os.fdatasync(fd)
    os.close(fd)
    seconds = time.perf_counter() - begin
    if subprocess.run(["cmp", bench.source, bench.target], check=False).returncode:
        raise SystemExit(f"{command}: the bytes differ")
    return Run(seconds, rss, used)


def cpu_of_children() -> float:
    """Of those that have ended and their children; the server runs on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_rss_mib(pid: int) -> float:
    """VmHWM, which exec resets; ru_maxrss would show this process's own memory of before the exec."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def serve(root: Path) -> subprocess.Popen[bytes]:
    LabCa(root / "tls").server_context("nginx")
    user = "user root;" if os.getuid() == 0 else ""
    (root / "nginx.conf").write_text(NGINX.format(root=root, port=PORT, workers=os.cpu_count(), user=user))
    server = subprocess.Popen(["nginx", "-c", root / "nginx.conf", "-e", root / "error.log"])
    time.sleep(1)
    return server


def table(bench: Bench, results: dict[str, list[Run]], runs: int) -> None:
    others = [statistics.median(r.seconds for r in got) for name, got in results.items() if got and not name.startswith("worker")]
    fastest = min(others, default=0.0)
    requests = f"{bench.connections} connections, requests of {bench.request_bytes // MIB} MiB"
    print(f"\n{bench.size / GIB:g} GiB, {requests}, {runs} interleaved runs,")
    print(f"nginx on the same machine: {os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}\n")
    print("| copy | median s | min s | max s | CPU s (median) | MiB/s (median) | RSS MiB | against the fastest other |")
    print("|---|---|---|---|---|---|---|---|")
    for name, got in results.items():
        if not got:
            print(f"| {name} | did not end | | | | | | |")
            continue
        times = [r.seconds for r in got]
        middle = statistics.median(times)
        rss = f"{max(r.rss_mib for r in got):.0f}" if name.startswith("worker") else ""
        ratio = f"{fastest / middle:.2f}x" if fastest else ""
        cpu = statistics.median(r.cpu_s for r in got)
        figures = f"{middle:.2f} | {min(times):.2f} | {max(times):.2f} | {cpu:.2f} | {bench.size / MIB / middle:.0f}"
        print(f"| {name} | {figures} | {rss} | {ratio} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size-gib", type=float, default=4)
    parser.add_argument("--data-gib", type=float, default=1)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--request-mib", type=int, default=4)
    parser.add_argument("--limit-s", type=float, default=120)
    parser.add_argument("--only", nargs="*", default=None, help="names, or parts of names, of contenders")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where source and target lie (default: a new folder in the working directory)"
    )
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-copy-", dir=args.folder or Path.cwd())).resolve()
    root.chmod(0o755)
    bench = Bench(root, int(args.size_gib * GIB), args.connections, args.request_mib * MIB)
    chosen = {n: c for n, c in contenders(bench).items() if args.only is None or any(part in n for part in args.only)}
    results: dict[str, list[Run]] = {name: [] for name in chosen}
    server = None
    try:
        for folder in ("www", "out"):
            (root / folder).mkdir()
        make_source(bench.source, bench.size, int(args.data_gib * GIB))
        server = serve(root)
        touch_free_memory()
        for number in range(args.runs):
            for name, command in list(chosen.items()):
                run = measure(bench, command(), args.limit_s)
                print(f"{number + 1}: {name}: {run or 'did not end'}", file=sys.stderr, flush=True)
                if run is None:
                    del chosen[name]
                else:
                    results[name].append(run)
        table(bench, results, args.runs)
    finally:
        if server is not None:
            server.terminate()
            server.wait()
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
