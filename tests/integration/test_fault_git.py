"""Each talk with the git remote goes wrong in mid-run: refused, busy, not let in, hung, cut short, its reply lost after the effect, or old.

What git runs instead of ssh here starts the real upload-pack and receive-pack, or does with what they say as it was told. As in
test_fault_sweep.py no list of talks is kept: each is met when it is first had.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from reconciler.errors import ReconcilerError
from reconciler.gitrepo.git import Done, Git
from reconciler.lab.machines import Happening
from tests.integration.gitremote import Nth, Replica, arrange, assert_same_end, assert_well_said, live
from tests.integration.loops import TTL_S, go_on, happened, machine, record_of
from tests.integration.simlab import SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

HANG_S = 0.5
# The last argument is the command for the other side.
TRANSPORT = r"""#!/bin/sh
for command; do :; done
letter=$(cat '{letter}' 2>/dev/null)
rm -f '{letter}'
case "$letter" in
R) echo "ssh: connect to host forge port 22: Connection refused" >&2; exit 255 ;;
E) echo "git@forge: Permission denied (publickey)." >&2; exit 255 ;;
B) text="ERR the server is overloaded, try later"; printf '%04x%s' $((${{#text}} + 4)) "$text" ;;
H) exec sleep 60 ;;
L) exec python3 '{cut}' 0 "$command" ;;
T) exec python3 '{cut}' 20 "$command" ;;
S) case "$command" in *receive-pack*) ;; *) command="git-upload-pack '{older}'" ;; esac; eval "exec $command" ;;
*) eval "exec $command" ;;
esac
"""
# What the other side says first ends with an empty packet and gets through; of the rest, so many bytes. A push has its effect before.
CUT = r"""import subprocess, sys
kept, command = int(sys.argv[1]), sys.argv[2]
with subprocess.Popen("exec " + command, shell=True, stdout=subprocess.PIPE) as other:
    source, sink = other.stdout, sys.stdout.buffer
    while (size := source.read(4)) and size != b"0000":
        sink.write(size + source.read(max(0, int(size, 16) - 4)))
    sink.write(size)
    sink.flush()
    answer = source.read() if "receive-pack" in command else source.read1()
    other.kill()
    sink.write(answer[:kept])
    sink.flush()
sys.exit(255)
"""


class Remote:
    """Between the reconciler's git and the bare repo. `talks`: how often each kind of talk was had; `spoilt`: those that went wrong.

    A talk that hangs takes as long as it may of the simulated time, and HANG_S of ours.
    """

    def __init__(self, lab: SimLab) -> None:
        self.talks: Counter[str] = Counter()
        self.spoilt: list[str] = []
        self._lab, self._letter = lab, lab.root / "letter"
        self._spoil: Callable[[str], str] = lambda talk: ""
        transport = lab.root / "transport"
        cut = lab.root / "cut.py"
        cut.write_text(CUT)
        self.older = Replica(lab.repo, lab.root / "older.git")
        transport.write_text(TRANSPORT.format(letter=self._letter, cut=cut, older=self.older.path))
        transport.chmod(0o700)
        lab.remote, lab.ssh_command = f"ssh://git@forge{lab.repo}", str(transport)

    def script(self, letter: str, only: Callable[[str], bool]) -> None:
        self._spoil = lambda talk: letter if only(talk) else ""

    def had(self, git: Callable[..., Done], ours: Git, args: Sequence[str], stdin: bytes, timeout_s: float | None) -> Done:
        talk = re.sub(r"\b[0-9a-f]{40}\b", "*", " ".join(a for a in args if not a.startswith("-") and "://" not in a))
        self.talks[talk] += 1
        letter = self._spoil(talk)
        if args[0] == "push" and "--dry-run" not in args:
            self.older.follow()
        if not letter:
            return git(ours, args, stdin, timeout_s)
        self.spoilt.append(talk)
        self._letter.write_text(letter)
        try:
            return git(ours, args, stdin, HANG_S if letter == "H" else 20.0)
        finally:
            self._letter.unlink(missing_ok=True)
            if letter == "H":
                self._lab.clock.sleep(timeout_s or 60.0)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        made, git = Remote(lab), Git.run

        def run(self: Git, args: Sequence[str], stdin: bytes = b"", timeout_s: float | None = None) -> Done:
            if args[0] not in ("push", "fetch", "ls-remote"):
                return git(self, args, stdin, timeout_s)
            return made.had(git, self, args, stdin, timeout_s)

        monkeypatch.setattr(Git, "run", run)
        yield made
        made.script("", lambda talk: False)


@pytest.mark.parametrize("letter", "RBEHLT")
def test_each_talk_with_the_remote_goes_wrong_once(remote: Remote, letter: str) -> None:
    lab = remote._lab
    arrange(lab)
    remote.script(letter, Nth(lambda talk: 2 if "push" in talk and "status" in talk else 1))
    met = live(lab, lab.ended)
    assert {t.split()[0] for t in remote.spoilt} == {"ls-remote", "fetch", "push"} and len(met) >= 3
    assert any("status" in talk for talk in remote.spoilt) and any("lease" in talk for talk in remote.spoilt)
    assert_same_end(lab)
    assert_well_said(met, "forge")


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("kind", ["ls-remote", ""])
def test_reads_that_are_a_write_behind_again_and_again(remote: Remote, kind: str, every: int) -> None:
    """As a forge gives them whose replicas answer. What was decided on them is dropped before it does anything."""
    lab, number = remote._lab, itertools.count(1)
    arrange(lab)

    def old(talk: str) -> bool:
        return talk.startswith(kind) and next(number) % every == 0

    remote.older.follow()
    remote.script("S", old)
    met = live(lab, lab.ended)
    assert len(remote.spoilt) > 3 and {err.reason for err in met} <= {"Superseded"}
    assert_same_end(lab)
    assert_well_said(met, "forge")


@pytest.mark.parametrize("letter", ["H", "E"])
def test_no_deadline_runs_while_the_remote_does_not_answer(remote: Remote, letter: str) -> None:
    """A guest that is asked and deaf has 600 s; the remote takes twice that, a minute a time."""
    lab = remote._lab
    arrange(lab, ignores_shutdown=True)
    go_on(lab, lambda: bool(lab.vms()) and lab.record("web").phase == "PowerOffSource")
    go_on(lab, lambda: happened(lab, "web").count(Happening.GUEST_SHUTDOWN) == 1)
    remote.script(letter, lambda talk: True)
    began, talks = lab.clock.at_s, len(remote.spoilt)
    while lab.clock.at_s - began < 1200.0:
        with pytest.raises(ReconcilerError, match=r"GitUnavailable|AuthFailed"):
            assert lab.engine is not None
            lab.engine.one_pass()
        lab.clock.sleep(3.0 if letter == "H" else 50.0)
    assert len(remote.spoilt) - talks > 10
    remote.script("", lambda talk: False)
    go_on(lab, lambda: lab.reports[-1].holds_lease, seconds=3.0)
    assert record_of(lab, "web").error is None and lab.record("web").phase == "PowerOffSource", "that time did not count"
    lab.world.power_off(machine(lab, "web"), "somebody")
    live(lab, lab.ended)
    lab.assert_moved("web")
