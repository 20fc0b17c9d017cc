"""A run whose git remote is git's own http-backend over HTTPS, and each kind of request to it goes wrong; test_fault_git.py has ssh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reconciler.gitrepo.git import Done, Git
from reconciler.lab.machines import Happening
from reconciler.lab.tls import LabCa
from tests.e2e.git_http import GitServer
from tests.integration.gitremote import Replica, arrange, assert_same_end, assert_well_said, live
from tests.integration.loops import TTL_S, go_on, happened, machine, passes, record_of
from tests.integration.simlab import SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

PASSWORD = "forge-Pa55word-of-a-run"
PATIENCE_S = 3.0  # as long as a talk may take here, with a request that is not answered
KINDS = {"GET git-upload-pack", "POST git-upload-pack", "GET git-receive-pack", "POST git-receive-pack"}
GIT_CONFIG = """
[http]
    sslCAInfo = {ca}
[credential]
    helper = "!f() {{ echo username=writer; echo password=$(cat '{file}'); }}; f"
"""


@pytest.fixture
def server(tmp_path: Path, e2e_ca: LabCa) -> Iterator[GitServer]:
    git = GitServer(e2e_ca.server_context("forge")[0], {"writer": PASSWORD})
    git.start()
    yield git
    git.stop()


@pytest.fixture
def lab(tmp_path: Path, server: GitServer, e2e_ca: LabCa, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimLab]:
    run = Git.run

    def patient(self: Git, args: Sequence[str], stdin: bytes = b"", timeout_s: float | None = None) -> Done:
        return run(self, args, stdin, min(timeout_s or PATIENCE_S, PATIENCE_S))

    monkeypatch.setattr(Git, "run", patient)
    with SimLab(tmp_path, ttl_s=TTL_S) as made:
        (tmp_path / "password").write_text(PASSWORD)
        with (tmp_path / ".gitconfig").open("a") as config:
            config.write(GIT_CONFIG.format(ca=e2e_ca.path, file=tmp_path / "password"))
        made.remote = server.url + str(made.repo)
        arrange(made)
        replica = Replica(made.repo, tmp_path / "older.git")
        server.replica, server.before_push = replica.path, replica.follow
        yield made
        server.spoil = lambda label: ""


@pytest.mark.parametrize("letter", "RBEHLT")
def test_each_kind_of_request_goes_wrong_now_and_then(lab: SimLab, server: GitServer, letter: str) -> None:
    """Of each kind: before there is anything, around the claim, and in mid-run. Where the connection is cut, twice in a row: git's HTTP
    client repeats such a request, a push too, once."""
    spoilt, made = Counter[str](), Counter[str]()
    numbers = (1, 2, 5, 6, 10, 11) if letter in "RL" else (1, 5, 10)

    def spoil(label: str) -> str:
        made[label] += 1
        bad = made[label] in numbers
        spoilt[label] += bad
        return letter if bad else ""

    server.spoil = spoil
    met = live(lab, lab.ended)
    assert set(spoilt) == KINDS and sum(spoilt.values()) >= 10, spoilt
    assert len(met) >= 4
    assert_same_end(lab)
    assert_well_said(met, "127.0.0.1")
    assert not [str(err) for err in met if PASSWORD in str(err)]


@pytest.mark.parametrize("every", [2, 3])
def test_replicas_that_are_a_write_behind(lab: SimLab, server: GitServer, every: int) -> None:
    made = Counter[str]()

    def spoil(label: str) -> str:
        made[label] += 1
        return "S" if "upload" in label and made[label] % every == 0 else ""

    server.spoil = spoil
    import time

    t0 = time.time()
    met = live(lab, lab.ended)
    print(time.time() - t0, len(met), [e.reason for e in met], made, len(lab.reports))
    assert sum(n // every for label, n in made.items() if "upload" in label) > 5
    assert_same_end(lab)
    assert_well_said(met, "127.0.0.1")


def test_no_deadline_runs_while_the_certificate_has_expired(lab: SimLab, server: GitServer, e2e_ca: LabCa) -> None:
    """A guest that is asked and deaf has 600 s; for twice that nobody looks. Renewed it goes on."""
    machine(lab, "web").ignores_shutdown = True
    go_on(lab, lambda: happened(lab, "web").count(Happening.GUEST_SHUTDOWN) == 1, seconds=1.5)
    server.context = e2e_ca.server_context("forge", -1)[0]
    met = passes(lab, 40, seconds=30.0)
    assert len(met) == 40 and {err.reason for err in met} == {"GitUnavailable"}
    assert all("renew it there if it has expired" in str(err) and server.url in str(err) for err in met)
    server.context = e2e_ca.server_context("forge")[0]
    passes(lab, 5, seconds=1.5)
    assert record_of(lab, "web").error is None and record_of(lab, "web").phase == "PowerOffSource", "that time did not count"
    lab.world.power_off(machine(lab, "web"), "somebody")
    live(lab, lab.ended)
    lab.assert_moved("web")
