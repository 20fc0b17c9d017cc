"""`reconciler vddk-image`: the script is run by a shell on a tarball like VMware's, with a tool that only notes what it is asked for."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from reconciler import cli
from reconciler.commands.vddkimage import DISTRIB
from reconciler.drivers.kubevirt import pods

IMAGE = "registry.example.com/infra/vddk:8.0.3"
TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >>{log}
for last do :; done
[ "$1" != build ] || {{ cp "$last/Dockerfile" {log}.dockerfile; find "$last/{distrib}" -type f ! -perm -004 >{log}.hidden; }}
[ "$1" != "{fails}" ]
"""


def tarball(folder: Path, library: str = "libvixDiskLib.so.8.0.3") -> Path:
    tree = folder / DISTRIB / "lib64"
    tree.mkdir(parents=True)
    (tree / library).write_text("VMware's")
    (tree / library).chmod(0o600)
    (tree / library.removesuffix(".0.3")).symlink_to(library)
    packed = folder / "VMware vix-disklib 8.tar.gz"
    with tarfile.open(packed, "w:gz") as file:
        file.add(folder / DISTRIB, DISTRIB)
    return packed


def script(capsys: pytest.CaptureFixture[str], packed: Path, *more: str) -> str:
    assert cli.run(["vddk-image", "--tarball", str(packed), "--image", IMAGE, *more]) == 0
    return capsys.readouterr().out


def sh(folder: Path, text: str, fails: str = "none") -> tuple[int, str, list[str]]:
    """Exit code, output, and what the tools were asked for."""
    log = folder / "log"
    for tool in ("podman", "docker"):
        (folder / tool).write_text(TOOL.format(log=log, distrib=DISTRIB, fails=fails))
        (folder / tool).chmod(0o755)
    scratch = folder / "scratch"
    scratch.mkdir()
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(scratch)}
    done = subprocess.run(["sh"], input=text, capture_output=True, text=True, env=env)
    assert not list(scratch.iterdir()), "nothing of VMware's is left behind"
    return done.returncode, done.stdout + done.stderr, log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("tool", ["podman", "docker"])
def test_it_builds_tries_and_pushes_an_image_of_forklifts_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: str) -> None:
    code, said, asked = sh(tmp_path, script(capsys, tarball(tmp_path), "--tool", tool, "--base", "registry.example.com/ubi9:1"))
    assert (code, [line.split()[:2] for line in asked]) == (0, [[tool, "build"], [tool, "run"], [tool, "push"]]), said
    assert "--user 107:107 --read-only" in asked[1]
    assert all(IMAGE in line for line in asked)
    assert (tmp_path / "log.dockerfile").read_text().splitlines() == [
        "FROM registry.example.com/ubi9:1",
        "USER 0",
        f"COPY {DISTRIB} /{DISTRIB}",
        "RUN mkdir -p /opt && chmod 1777 /opt",
        "USER 107:107",
        f'ENTRYPOINT ["cp", "-r", "/{DISTRIB}", "/opt"]',
    ]
    assert (tmp_path / "log.hidden").read_text() == "", "files that uid 107 may not read"
    assert f'vddkInitImage: "{IMAGE}"' in said


def test_the_layout_is_the_one_that_copy_pods_expect() -> None:
    assert Path(pods.VDDK_LIBDIR).name == DISTRIB


def test_a_tarball_of_something_else_is_told_before_anything_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, asked = sh(tmp_path, script(capsys, tarball(tmp_path, "libvixDiskLib.so.9.0.3")))
    assert (code, asked) == (1, [])
    assert "no VDDK 6.5 to 8" in said


@pytest.mark.parametrize("step", ["build", "run"])
def test_what_fails_is_not_pushed(tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str) -> None:
    code, said, asked = sh(tmp_path, script(capsys, tarball(tmp_path)), fails=step)
    assert code != 0
    assert asked[-1].split()[1] == step
    assert "is pushed" not in said


@pytest.mark.parametrize(("option", "says"), [("--image", "--image is a URL"), ("--base", "--base is a URL")])
def test_a_name_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str], option: str, says: str) -> None:
    words = {"--tarball": "t.tar.gz", "--image": IMAGE, "--base": "busybox"} | {option: "https://registry.example.com/x"}
    assert cli.run(["vddk-image", *(word for pair in words.items() for word in pair)]) == 64
    found = capsys.readouterr()
    assert says in found.err
    assert found.out == ""
