"""A stand-in for `nbdkit vddk`, run as a process: its options and messages, the questions of VDDK, and NBD on a unix socket.

What it is: for the lab's worker where no nbdkit is installed. What it is not: nbdkit; the real one and its plugin read in tests/e2e.
A library counts as one that loads unless its file says "broken".
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(argv: list[str]) -> int:
    values = dict(word.split("=", 1) for word in argv if "=" in word and not word.startswith("-"))
    library = next(Path(values["libdir"]).glob("lib64/libvixDiskLib.so.8"), None)
    if library is None or library.read_text().startswith("broken"):
        sys.stderr.write("nbdkit: error: libvixDiskLib.so.8: it is broken\n")
        return 1
    if "--dump-plugin" in argv:
        sys.stdout.write("name=vddk\nvddk_library_version=8\n")
        return 0
    return serve(values, Path(argv[argv.index("--unix") + 1]))


def serve(values: dict[str, str], path: Path) -> int:
    """Until SIGTERM, or the parent's end. What is refused is told at each connection, which then is closed, as nbdkit does it."""
    from tests.contract.nbd_server import NbdServer, Refusing

    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    answer, parent = ask(values), os.getppid()
    server = NbdServer(Path(answer[3:]), str(path)) if answer.startswith("OK ") else Refusing(str(path), answer[4:])
    if isinstance(server, NbdServer):
        server.export = ""
    while not end.wait(0.02) and os.getppid() == parent:
        pass
    server.close()
    return 0


def ask(values: dict[str, str]) -> str:
    password = Path(values["password"].removeprefix("+")).read_text().rstrip("\r\n")
    config = dict(line.split("=", 1) for line in Path(values["config"]).read_text().splitlines())
    fields = [values["user"], password, values["thumbprint"], values["vm"], values.get("snapshot", ""), values["file"]]
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(config["broker"])
        talk.sendall(("\t".join(fields) + "\n").encode())
        with talk.makefile() as reply:
            return reply.readline().rstrip("\n")


def install(folder: Path) -> None:
    """`nbdkit` in `folder`, for a PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nbdkit"
    lines = (f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})", "from tests.contract.vddk_nbdkit import main")
    program.write_text("\n".join((*lines, "sys.exit(main(sys.argv[1:]))", "")))
    program.chmod(0o755)
