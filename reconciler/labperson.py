"""The person of `reconciler lab`: the commits that somebody would make, in a clone of their own.

What it is: the example repo and its first commits, and the cutovers of its warm run, once the VMs are far enough. What it is not: anything
that the reconciler knows of; it sees commits. Where it stands: under labrun.py, which shows it each pass.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from git import Actor, Repo

from reconciler.clock import SystemClock
from reconciler.core.record import Records, VmRecord
from reconciler.errors import UserError

PORT = 18443  # what examples/repo names; another one is taken, by a commit, when it is busy
INTERVAL_S = 3
DELTA_ROUNDS = 2
PERSON = Actor("A. Person", "person@lab.invalid")
WARM_PLAN, WARM_RUN = "plans/shop-wave-2.yaml", "migrations/shop-wave-2-run-1.yaml"
EARLY = {"erp-01": "waiting does not shorten it", "chat-01": "its people go home before those of mail"}  # by vmCutover, and why


def examples() -> Path:
    """examples/repo: in the wheel as data, in a checkout beside the package."""
    here = Path(__file__).parent
    for place in (here / "_data" / "examples" / "repo", here.parent / "examples" / "repo"):
        if place.is_dir():
            return place
    raise UserError("NotFound", "the example repo is not part of this installation; name one with --repo-from")


class Person:
    """`repo`: bare, what the reconciler watches. `clone`: where this person edits. Not thread-safe."""

    def __init__(self, root: Path, beginning: Path, url: str) -> None:
        self.repo, self.clone = root / "repo.git", root / "clone"
        with Repo.init(self.repo, bare=True, initial_branch="main"), Repo.init(self.clone, initial_branch="main") as work:
            work.create_remote("origin", str(self.repo))
            shutil.copytree(beginning, self.clone, dirs_exist_ok=True)
            self._commit(work, "Move the shop: providers, maps, plans and first runs")
            here = f"https://127.0.0.1:{PORT}/sdk"
            if url != here and self._edit("providers/vcenter-lab.yaml", here, url):
                self._commit(work, f"Point vcenter-lab at {url}: port {PORT} is busy on this machine")
            if self._edit(WARM_PLAN, "precopy-interval: 1h ", f'precopy-interval: "{INTERVAL_S}" '):
                self._commit(work, f"Pre-copy shop-wave-2 every {INTERVAL_S} s: nobody waits an hour for a demonstration")
            work.git.push("--set-upstream", "origin", "main")
        self._asked: set[str] = set()

    def look(self, records: Records) -> None:
        """Cut the warm run over: some VMs by themselves as soon as they are far enough, then, in a later commit, all that are left."""
        vms = {v.name: v for v in records.vms.values() if v.run.name == Path(WARM_RUN).stem and v.frozen is not None}
        early = [v for name in EARLY if (v := vms.pop(name, None)) is not None]
        for vm in early:
            if _far_enough(vm):
                self._cut_one(vm)
        done = all(v.result is not None for v in early)
        if vms and done and all(map(_far_enough, vms.values())) and self._once("all"):
            self._ask(f"  cutover: {_now()}\n", "Cut shop-wave-2 over now")

    def _cut_one(self, vm: VmRecord) -> None:
        if self._once(vm.name):
            head = "" if "\n  vmCutover:\n" in (self.clone / WARM_RUN).read_text() else "  vmCutover:\n"
            self._ask(f"{head}    - {{id: {vm.id}, cutover: {_now()}}}\n", f"Cut {vm.name} over now: {EARLY[vm.name]}")

    def _once(self, what: str) -> bool:
        """A file that is not the example's (--repo-from) is left to its owner."""
        first = what not in self._asked and (self.clone / WARM_RUN).is_file()
        self._asked.add(what)
        return first

    def _ask(self, lines: str, message: str) -> None:
        file = self.clone / WARM_RUN
        file.write_text(f"{file.read_text().rstrip()}\n{lines}")
        with Repo(self.clone) as work:
            self._commit(work, message)
            work.git.push()

    def _edit(self, name: str, old: str, new: str) -> bool:
        file = self.clone / name
        if not file.is_file() or old not in (text := file.read_text()):
            return False
        file.write_text(text.replace(old, new))
        return True

    @staticmethod
    def _commit(work: Repo, message: str) -> None:
        work.git.add("--all")
        work.index.commit(message, author=PERSON, committer=PERSON)


def _far_enough(vm: VmRecord) -> bool:
    return _rounds(vm) > (0 if vm.base_unreadable else DELTA_ROUNDS)


def _rounds(vm: VmRecord) -> int:
    return sum(r.ended is not None and not r.abandoned for r in vm.rounds)


def _now() -> str:
    return f'"{SystemClock().now():%Y-%m-%dT%H:%M:%SZ}"'
