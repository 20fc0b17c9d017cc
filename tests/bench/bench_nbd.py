"""A disk over NBD from `nbdkit file`, by the worker and by `nbdcopy`; and what a delta of 1 % costs. Run by hand, never by pytest.

    python -m tests.bench.bench_nbd [--runs 5] [--size-gib 4] [--data-gib 1] [--connections 4] [--request-mib 1]

Needs nbdkit and libnbd-bin. One nbdkit on a unix socket for all contenders, otherwise the conditions of bench_copy.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reconciler.core.copyspec import RANGE_GAP_BYTES, RANGES_OF_A_JOB, CopyDisk, CopySpec, Reader, TlsSpec, Verify
from reconciler.core.ranges import Range, limit, total
from tests.bench.bench_copy import GIB, MIB, WORKER, Bench, Run, make_source, measure, table, touch_free_memory

AREA = 64 << 10


def ours(bench: Bench, verify: Verify, ranges: tuple[Range, ...] | None = None) -> list[str]:
    url = f"nbd+unix:///?socket={bench.root}/sock"
    disk = CopyDisk("bench", "bench disk", Reader.NBD, url, bench.size, str(bench.target), False, ranges=ranges)
    spec = CopySpec("run", "vm", "round", (disk,), TlsSpec(), str(bench.root), verify)
    more = {"connections": bench.connections, "request_bytes": bench.request_bytes, "termination_file": str(bench.root / "termination")}
    (bench.root / "spec.json").write_text(replace(spec, **more).to_json())  # type: ignore[arg-type]
    return [sys.executable, "-c", WORKER, str(bench.root / "spec.json")]


def delta(bench: Bench) -> None:
    """1 % of the disk in areas of 64 KiB, anywhere, into a target that holds the rest already."""
    areas = [(at * AREA, AREA) for at in random.Random(2).sample(range(bench.size // AREA), bench.size // AREA // 100)]
    [ranges] = limit([areas], RANGES_OF_A_JOB, RANGE_GAP_BYTES)
    shutil.copyfile(bench.source, bench.target)
    seconds = timed(ours(bench, Verify.READBACK, tuple(ranges)))
    read = json.loads((bench.root / "termination").read_text())["disks"][0]["read_bytes"]
    spec = (bench.root / "spec.json").stat().st_size
    size = f"{len(areas)} areas of 64 KiB: {len(ranges)} ranges, {spec / 1024:.0f} KiB of spec"
    print(f"\n1 % of {bench.size / GIB:g} GiB changed, in {size},")
    bench.target.unlink()
    whole = timed(ours(bench, Verify.READBACK))
    print(f"{read / total(areas):.3f} bytes read for each that changed, {seconds:.2f} s with the worker's start and read-back;")
    print(f"{seconds / whole:.2f} of the {whole:.2f} s that a copy of the whole disk takes, which has holes.")


def timed(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size-gib", type=float, default=4)
    parser.add_argument("--data-gib", type=float, default=1)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--request-mib", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-nbd-", dir=args.folder or Path.cwd())).resolve()
    bench = Bench(root, int(args.size_gib * GIB), args.connections, args.request_mib * MIB)
    commands: dict[str, Callable[[], list[str]]] = {
        "worker verify=none": lambda: ours(bench, Verify.NONE),
        "worker verify=readback": lambda: ours(bench, Verify.READBACK),
        "nbdcopy": lambda: ["nbdcopy", "--flush", f"nbd+unix:///?socket={root}/sock", str(bench.target)],
    }
    results: dict[str, list[Run]] = {name: [] for name in commands}
    server = None
    try:
        for folder in ("www", "out"):
            (root / folder).mkdir()
        make_source(bench.source, bench.size, int(args.data_gib * GIB))
        server = subprocess.Popen(["nbdkit", "-f", "-r", "-U", root / "sock", "file", bench.source])
        time.sleep(1)
        touch_free_memory()
        for number in range(args.runs):
            for name, command in commands.items():
                run = measure(bench, command(), 120)
                print(f"{number + 1}: {name}: {run}", file=sys.stderr, flush=True)
                if run is not None:
                    results[name].append(run)
        print(f"\nnbdkit file on a unix socket; {os.cpu_count()} CPUs")
        table(bench, results, args.runs)
        delta(bench)
    finally:
        if server is not None:
            server.terminate()
            server.wait()
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
