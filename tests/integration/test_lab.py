"""`reconciler lab` once, as a person runs it: what it proves, what it shows on the way, and the story that it leaves in git."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.shared

OURS_S = 5.0  # of each warm VM's downtime
BUSY = 1.5  # of programs that want to run, for each CPU: what this suite makes by itself; when there are more, each of them is slower
BRANCH = "reconciler/status"


@dataclass(frozen=True)
class Run:
    """`told`: what --json prints. `lines`: what was shown while it ran."""

    root: Path
    code: int
    told: dict[str, Any]
    lines: list[str]
    load: float  # of each CPU, meanwhile

    def vm(self, name: str) -> dict[str, Any]:
        return next(v for v in self.told["vms"] if v["vm"] == name)

    def git(self, *args: str) -> str:
        return subprocess.run(["git", "-C", str(self.root / "repo.git"), *args], check=True, capture_output=True, text=True).stdout

    def story(self, name: str) -> list[tuple[str, list[str]]]:
        """Of each commit that touched this VM's file: the subject, and what its body says of the VM."""
        text = self.git("log", "--reverse", "--format=%x01%s%n%b", BRANCH, "--", f"runs/*/vms/{name}-*")
        commits = [part.splitlines() for part in text.split("\x01")[1:]]
        return [(c[0], [line.removeprefix(f"VM: {name} ") for line in c if line.startswith(f"VM: {name} ")]) for c in commits]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("lab") / "kept"
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", "lab", "--json", "--dir", str(root)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout, done.stderr[-3000:]
    return Run(root, done.returncode, json.loads(done.stdout), done.stderr.splitlines(), os.getloadavg()[0] / (os.cpu_count() or 1))


def test_it_moves_everything_and_proves_it(run: Run) -> None:
    assert run.code == 0 and run.told["ok"], run.lines[-20:]
    assert {v["vm"]: v["result"] for v in run.told["vms"]} == dict.fromkeys(
        ("web-01", "db-01", "batch-01", "Legacy App_01", "mail-01", "chat-01", "erp-01"), "Succeeded"
    )
    assert len(run.told["disks"]) == 9 and all(d["equal"] for d in run.told["disks"])
    assert run.vm("batch-01")["power"] == {"source": {"asked": "Off", "seen": "Off"}, "target": {"asked": "Off", "seen": "Off"}}


@pytest.mark.parametrize(("name", "rounds"), [("mail-01", 3), ("chat-01", 3), ("erp-01", 1)])
def test_a_warm_vm_is_down_for_seconds_and_hardly_by_our_doing(run: Run, name: str, rounds: int) -> None:
    vm = run.vm(name)
    assert vm["warm"]["successes"] >= rounds
    down = vm["downtime"]
    assert 0 < down["copySeconds"] < down["seconds"]
    assert down["oursSeconds"] == pytest.approx(down["seconds"] - down["copySeconds"], abs=0.002)
    assert down["oursSeconds"] <= OURS_S * max(1.0, run.load / BUSY), down


def test_one_is_cut_over_by_its_own_time_and_the_rest_after_it(run: Run) -> None:
    spec = (run.root / "clone/migrations/shop-wave-2-run-1.yaml").read_text().partition("\n  vmCutover:")[2]
    assert re.fullmatch(r"(\s+- {id: vm-\d+, cutover: .*}){2}\s+cutover: .*\n", spec), spec
    subjects = run.git("log", "--reverse", "--format=%s%n%b", BRANCH).splitlines()
    off = [next(n for n, line in enumerate(subjects) if line.startswith(f"VM: {vm} source went off")) for vm in ("chat-01", "mail-01")]
    done = next(n for n, line in enumerate(subjects) if line.startswith("VM: chat-01 succeeded"))
    assert off[0] < done < off[1]


def test_a_cold_vm_has_a_downtime_and_one_that_was_off_has_none(run: Run) -> None:
    assert run.vm("db-01")["downtime"]["oursSeconds"] > 0 and "warm" not in run.vm("db-01")
    assert "downtime" not in run.vm("batch-01")


def test_while_a_vm_waits_for_its_round_the_line_says_when_and_what_a_cutover_would_cost(run: Run) -> None:
    waits = [line for line in run.lines if line.startswith("mail-01: waiting for round ")]
    assert waits and all(re.search(r"round \d was [\d.]+ MiB in .*; next round at 2", line) for line in waits), waits
    assert re.search(r"down for about \d+ s if cut over until then$", waits[-1])


def test_the_history_of_a_warm_vms_file_is_its_story(run: Run) -> None:
    story = run.story("mail-01")
    assert all(lines for _, lines in story), "a commit changed its file and says nothing of it"
    told = [line for _, lines in story for line in lines]
    steps = [
        "round 1 begins",
        "round 1 done: 96 MiB in ",
        "round 2 done: ",
        "round 3 done: ",
        "its cutover begins",
        "source went off",
        "source powered off, proven (cutover)",
        "final delta done: ",
        "handed over to the target",
        "target runs, down for ",
        "succeeded in ",
    ]
    found = [next((i for i, line in enumerate(told) if line.startswith(step)), -1) for step in steps]
    assert -1 not in found and found == sorted(found), told


def test_no_subject_is_said_twice_in_a_row(run: Run) -> None:
    subjects = run.git("log", "--reverse", "--format=%s", BRANCH).splitlines()
    twice = [a for a, b in pairwise(subjects) if a == b]
    assert not twice and all(len(s) <= 72 for s in subjects)


def test_the_page_of_the_branch_tells_rounds_while_they_run_and_the_downtime_after(run: Run) -> None:
    page = run.git("show", f"{BRANCH}:README.md")
    assert "| Downtime | Of it ours |" in page and "Copied while it runs" not in page
    commits = run.git("log", "--format=%H", BRANCH, "--", "README.md").split()
    earlier = [run.git("show", f"{commit}:README.md") for commit in commits]
    assert any("| Copied while it runs | Rounds | Last round | Changes | Cutover would take | Next round (UTC) |" in one for one in earlier)
