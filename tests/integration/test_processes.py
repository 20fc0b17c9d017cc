"""Real processes in real time: `reconciler run --once` against sites on loopback, and SIGKILL for it and for its copy pods."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.field import NAMES, Field

EFFECTS = 80  # more than a run of the four has
DEATHS = (  # each stage of the four on their ways; where one of them is done, another one's turn comes
    ("push .*/lease$", "before"),
    ("push .*/lease$", "after"),
    ("run wave-run began", "after"),
    ("POST .*/namespaces$", "after"),
    ("POST .*/persistentvolumeclaims$", "before"),
    ("POST .*/pods$", "before"),
    ("POST .*/pods$", "after"),
    ("POST .*/virtualmachines$", "after"),
    ("DELETE .*/pods/", "before"),
    ("will shut down", "after"),
    ("ShutdownGuest", "before"),
    ("ShutdownGuest", "after"),
    ("POST .*/jobs$", "after"),
    ("POST .*/secrets$", "after"),
    ("PATCH .*/jobs/", "after"),
    ("PATCH .*/persistentvolumeclaims/", "after"),
    ("will start the target", "before"),
    ("PATCH .*/virtualmachines/", "before"),
    ("PATCH .*/virtualmachines/", "after"),
    ("DELETE .*/jobs/", "after"),
)
WAIT_S = 240  # for one process, on a machine that does much else


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    with Field(tmp_path) as made:
        made.run_of(*NAMES)
        made.commit()
        yield made


def test_killed_at_twenty_effects_it_goes_on(field: Field) -> None:
    """kill -9 around an effect, around a later one in the next life, and so on, from the first lease to the last Job.

    Each life begins with git, the sites, and the clone that the one before left half-written. Harm that any of them did shows at the end:
    what was asked for twice was counted. Nobody waits for the TTL of the dead; how a lease is taken over is test_two_reconcilers.py's.
    """
    for at, when in DEATHS:
        process = field.start(1, "--lease-ttl", "60", program=("tests.integration.dying", at, when, "SIGKILL"))
        assert process.wait(timeout=WAIT_S) == -signal.SIGKILL, f"no death {when} {at!r}:\n{field.log()[-4000:]}"
        field.let_go_of_the_lease()
    process = field.start(1, "--lease-ttl", "60")
    assert process.wait(timeout=WAIT_S) == 0, field.log()[-4000:]
    field.assert_moved_at_once()


@pytest.mark.deep
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(EFFECTS))
def test_killed_at_every_effect_it_goes_on(field: Field, at: int, when: str) -> None:
    """kill -9 before and after the n-th push to git, write to the cluster or act on the vCenter; the next process ends the same."""
    process = field.start(program=("tests.integration.dying", str(at), when, "SIGKILL"))
    died = process.wait(timeout=WAIT_S) == -signal.SIGKILL
    if died:
        process = field.start()
        assert process.wait(timeout=WAIT_S) == 0, field.log()[-4000:]
    field.assert_moved_at_once()
    if not died:
        pytest.skip("the run has fewer effects")


def test_workers_killed_again_and_again(field: Field) -> None:
    """Copy pods (no trial mounts) are killed in mid-copy; each gets another attempt under a new name; the bytes are equal in the end."""
    process = field.start()
    killed: set[int] = set()
    deadline = time.monotonic() + 60
    while process.poll() is None and len(killed) < 4 and time.monotonic() < deadline:
        for pid in workers_of(field) - killed:
            time.sleep(0.15)
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(pid)
        time.sleep(0.02)
    assert killed, "no worker was caught at work"
    assert process.wait(timeout=120) == 0, field.log()[-4000:]
    field.assert_moved()
    assert max(v.attempt for v in field.records().vms.values()) > 1
    assert max(field.pods.copied.values()) > 1, "and a second copy of a disk is counted as one"


def workers_of(field: Field) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "reconciler worker" in line and " --try " not in line and str(field.root) in line:
                found.add(int(entry.name))
    return found
