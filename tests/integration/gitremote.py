"""What tests of a git remote that goes wrong in mid-run share: a replica that is behind, a run through it all, its end.

Where it stands: test_fault_git.py (all talks, in place of ssh) and the e2e tier's runs over HTTPS.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from reconciler.errors import ReconcilerError, TerminalError
from reconciler.lab.machines import Happening
from tests.integration.loops import go_on, happened
from tests.integration.simlab import SimLab


class Replica:
    """What answers reads in the place of the repo, a write behind: all objects, but the heads as they were."""

    def __init__(self, repo: Path, path: Path) -> None:
        self.path, self._repo = path, repo
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
        (path / "objects/info/alternates").write_text(f"{repo / 'objects'}\n")
        self.follow()

    def follow(self) -> None:
        heads = subprocess.run(["git", "-C", str(self._repo), "show-ref"], capture_output=True, text=True).stdout
        (self.path / "packed-refs").write_text("".join(f"{line}\n" for line in heads.splitlines()))


def arrange(lab: SimLab, **vm: bool) -> None:
    lab.vm("web", **vm)
    lab.plan("web")
    lab.migration()
    lab.commit()


def live(lab: SimLab, until: Callable[[], bool]) -> list[ReconcilerError]:
    """As loops.go_on, through refusals too, which a running reconciler survives."""
    met: list[ReconcilerError] = []
    for _ in range(40):
        try:
            return met + go_on(lab, until, limit=200, seconds=1.5)
        except TerminalError as err:
            met.append(err)
            lab.clock.sleep(1.5)
    raise AssertionError(f"refused again and again: {met[-1]}")


def assert_same_end(lab: SimLab) -> None:
    lab.assert_moved("web")
    kinds = happened(lab, "web")
    assert [kinds.count(k) for k in (Happening.GUEST_SHUTDOWN, Happening.OFF)] == [1, 1], "no power act twice"
    assert len(lab.cluster.vm_starts) == 1 and lab.inline.starts == 1, "one copy, one start"


def assert_well_said(met: list[ReconcilerError], host: str) -> None:
    wanted = re.compile(rf"{re.escape(host)}.*[;.] (check|let|it is)|pass starts anew|made anew", re.IGNORECASE)
    vague = [str(e) for e in met if not wanted.search(str(e))]
    assert not vague, "\n".join(vague)


class Nth:
    """True for the call whose number of its kind is the wanted one."""

    def __init__(self, wanted: Callable[[str], int | None]) -> None:
        self._seen: Counter[str] = Counter()
        self._wanted = wanted

    def __call__(self, talk: str) -> bool:
        self._seen[talk] += 1
        return self._seen[talk] == self._wanted(talk)
