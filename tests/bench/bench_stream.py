"""A streamOptimized VMDK over HTTPS into a raw disk, against `qemu-img convert` from the same file. Run by hand, never by pytest.

    python -m tests.bench.bench_stream [--runs 3] [--size-gib 4] [--data-gib 1] [--connections 4]

Needs nginx and qemu-utils. Contenders: the worker over TLS from nginx on this machine; `qemu-img convert` from the local file, which has no
TLS to pay for (its own https driver re-reads small ranges and is several times slower). The data compresses to about half, as a guest's
does. Same conditions as bench_copy.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from reconciler.core.copyspec import CopyDisk, CopySpec, Reader, TlsSpec, Verify
from tests.bench.bench_copy import GIB, MIB, PORT, WORKER, Bench, Run, measure, serve, table, touch_free_memory

NAME = "disk.vmdk"


def make_source(raw: Path, vmdk: Path, size: int, data: int) -> None:
    """Pages that compress to about half, in runs of 1 to 32 MiB, spread over the disk."""
    rng = random.Random(1)
    lengths: list[int] = []
    while (left := data // MIB - sum(lengths)) > 0:
        lengths.append(min(left, rng.randint(1, 32)))
    gap = (size - data) // MIB // len(lengths)
    words = [rng.randbytes(rng.randint(2, 9)) for _ in range(4000)]
    with raw.open("wb") as file:
        file.truncate(size)
        at = 0
        for length in lengths:
            file.seek(at * MIB)
            for _ in range(length):
                text = b"".join(rng.choices(words, k=MIB // 16))[: MIB // 4]
                file.write((text + rng.randbytes(MIB // 4)) * 2)
            at += length + gap
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, vmdk], check=True)
    with vmdk.open("ab") as file:
        file.write(bytes(512))  # the end-of-stream marker, which qemu-img leaves out


def ours(bench: Bench, verify: Verify) -> list[str]:
    url = f"https://127.0.0.1:{PORT}/{NAME}"
    disk = CopyDisk("bench", "bench disk", Reader.VMDK_STREAM, url, bench.size, str(bench.target), False)
    spec = CopySpec("run", "vm", "round", (disk,), TlsSpec(ca_file=str(bench.root / "tls" / "ca.crt")), str(bench.root), verify)
    spec = replace(spec, connections=bench.connections, request_bytes=bench.request_bytes, termination_file=str(bench.root / "termination"))
    (bench.root / "spec.json").write_text(spec.to_json())
    return [sys.executable, "-c", WORKER, str(bench.root / "spec.json")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size-gib", type=float, default=4)
    parser.add_argument("--data-gib", type=float, default=1)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--request-mib", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-stream-", dir=args.folder or Path.cwd())).resolve()
    root.chmod(0o755)
    bench = Bench(root, int(args.size_gib * GIB), args.connections, args.request_mib * MIB)
    server = None
    try:
        for folder in ("www", "out"):
            (root / folder).mkdir()
        vmdk = root / "www" / NAME
        make_source(bench.source, vmdk, bench.size, int(args.data_gib * GIB))
        vmdk.chmod(0o644)
        server = serve(root)
        touch_free_memory()
        commands = {
            "worker verify=none": lambda: ours(bench, Verify.NONE),
            "worker verify=readback": lambda: ours(bench, Verify.READBACK),
            "qemu-img convert (local file)": lambda: ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(vmdk), str(bench.target)],
        }
        results: dict[str, list[Run]] = {name: [] for name in commands}
        for number in range(args.runs):
            for name, command in commands.items():
                run = measure(bench, command(), 300)
                print(f"{number + 1}: {name}: {run}", file=sys.stderr, flush=True)
                if run is not None:
                    results[name].append(run)
        print(f"\nVMDK of {vmdk.stat().st_size / MIB:.0f} MiB; {os.cpu_count()} CPUs")
        table(bench, results, args.runs)
    finally:
        if server is not None:
            server.terminate()
            server.wait()
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
