"""Each call of a run, whatever it is, goes wrong once at the wire, in each way that the lab's fault script knows.

No list of calls is kept: the fault script meets every label when it first sees it, so a call that is new is covered by itself. The
default runs have all calls of one run go wrong, each once, the first time; `--deep` has one call of a run go wrong, alone, the last time.
Whatever happens, the run ends as it would have, nothing is done twice, and what is said on the way names object, cause and remedy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from reconciler.core.model import Unknown
from reconciler.core.record import Category
from reconciler.drivers.kubevirt import options
from reconciler.drivers.vsphere import session
from reconciler.lab.faults import Faults
from reconciler.lab.machines import Happening
from reconciler.wire.http import HttpFile
from tests.integration.loops import TTL_S, go_on, happened, machine, record_of
from tests.integration.simlab import SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

LETTERS = "RBEHLTS"
KINDS = ("cold", "warm", "export")  # export: the base of a running VM cannot be read
PATIENCE_S = 0.4
ROUNDS = 2

# What differs from run to run: hashes, attempts and their pods, leases.
_NAMES = re.compile(r"(?<=-)[0-9a-z]{8}(?=$|[-/])|-r\d+-a\d+(-\w+)?|(?<=/nfc/)[0-9a-f-]{36}")
_REMEDY = re.compile(
    r"[;.,] (it is (tried|asked|read|made|decided|looked for|read and tried) (again|anew)|.* is due at |others go on"
    r"|(cancel|check|correct|create|give|grant|let|look|make|pin|put|raise|renew|set|start|wait)\b)",
    re.IGNORECASE,
)


def call_of(label: str) -> str:
    return _NAMES.sub("*", label)


class Each:
    """True once for each call: for the `nth` time it is made; calls that `wanted` does not count never."""

    def __init__(self, wanted: Callable[[str], int] = lambda call: 1) -> None:
        self.made: Counter[str] = Counter()
        self.hit: list[str] = []
        self._wanted = wanted

    def __call__(self, label: str) -> bool:
        call = call_of(label)
        self.made[call] += 1
        if self.made[call] != self._wanted(call):
            return False
        self.hit.append(call)
        return True


class Life:
    """One run of one VM. What was said on the way is in `said`: message -> who said it."""

    def __init__(self, root: Path, kind: str) -> None:
        self.kind = kind
        self.lab = lab = SimLab(root, ttl_s=TTL_S)
        lab.store = lab.locked if kind == "export" else lab.store
        self.said: dict[str, str] = {}
        self.most_snapshots = 0
        self._cut_over = kind == "cold"

    @contextmanager
    def arranged(self) -> Iterator[SimLab]:
        with self.lab as lab:
            if self.kind == "cold":
                lab.vm("web")
            else:
                lab.warm(interval_s=10)
                lab.tracked_vm("web").writes_per_tick = 1
            lab.plan("web")
            lab.migration()
            lab.commit()
            yield lab

    def live(self) -> None:
        for err in go_on(self.lab, self._looks, limit=400, seconds=3.0):
            self.said[err.message] = "git"

    def _looks(self) -> bool:
        self._listen()
        self.most_snapshots = max(self.most_snapshots, len(machine(self.lab, "web").snapshots))
        done = sum(r.ended is not None and not r.abandoned for v in self.lab.vms() for r in v.rounds)
        if not self._cut_over and done >= (1 if self.kind == "export" else ROUNDS):
            self._cut_over = True
            self.lab.migration(cutover=self.lab.clock.now())
            self.lab.commit("cut over")
        return self.lab.ended()

    def _listen(self) -> None:
        report = self.lab.reports[-1]
        self.said |= {o.error.message: o.action for o in report.outcomes if o.error is not None and o.error.kind != "void"}
        for seen in (report.observed.sources, report.observed.targets):
            self.said |= {u.message: str(ref) for ref, u in seen.items() if isinstance(u, Unknown)}
        for vm in report.records.vms.values():
            about = [c for c in vm.conditions if c.category in (Category.WARN, Category.CRITICAL) and c.type != "WarmWithoutPrecopy"]
            self.said |= {c.message: c.type for c in about}

    def assert_same_end(self) -> None:
        lab, kinds = self.lab, happened(self.lab, "web")
        lab.assert_moved("web")
        assert [kinds.count(k) for k in (Happening.GUEST_SHUTDOWN, Happening.OFF, Happening.ON)] == [1, 1, 1], "no power act twice"
        assert len(lab.cluster.vm_starts) == 1, "the target was started once"
        assert len(lab.cluster.find_all("PersistentVolumeClaim", "shop")) == len(record_of(lab, "web").disks)
        assert not lab.copied_anew, "a disk that was marked was copied from zero"
        vm = machine(lab, "web")
        assert (vm.snapshots, vm.consolidation_needed, self.most_snapshots <= 1) == ([], False, True)

    def assert_well_said(self) -> None:
        vague = [f"{who}: {text}" for text, who in self.said.items() if not self._names_all(text)]
        assert not vague, "\n".join(vague)

    def _names_all(self, text: str) -> bool:
        """What was asked of whom, or about what; then why, then what to do."""
        names = (f"127.0.0.1:{self.lab.vcenter.port}", self.lab.cluster.url, "shop/", "openshift-mtv/", "web", "kube-system")
        return any(name in text for name in names) and _REMEDY.search(text) is not None and "bug" not in text


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """With calls that hang. On a busy machine some that only seem to hang are made again, too."""
    connect = HttpFile.connect
    monkeypatch.setattr(session, "TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(options, "TargetSettings", partial(options.TargetSettings, request_timeout_s=PATIENCE_S))
    monkeypatch.setattr(HttpFile, "connect", lambda self, timeout_s: connect(self, PATIENCE_S))


def sites(lab: SimLab) -> tuple[Faults, Faults]:
    return lab.vcenter.faults, lab.cluster.faults


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.deep if k == "export" else ()) for k in KINDS])
def test_each_call_of_a_run_goes_wrong_once(tmp_path: Path, kind: str, letter: str) -> None:
    life = Life(tmp_path, kind)
    with life.arranged() as lab:
        each = [Each(), Each()]
        for faults, only in zip(sites(lab), each, strict=True):
            faults.script(letter * 1000, only)
        life.live()
        for only in each:
            assert len(only.hit) == len(only.made) > 10, "every call that was made"
        life.assert_same_end()
        life.assert_well_said()
        assert life.said or letter == "S"


@pytest.mark.deep
@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", [0, 1], ids=["vcenter", "cluster"])
def test_one_call_of_a_run_goes_wrong_alone(tmp_path: Path, kind: str, letter: str, site: int) -> None:
    calm = Life(tmp_path / "calm", kind)
    with calm.arranged() as lab:
        calm.live()
        calm.assert_same_end()
        made = Counter(call_of(label) for label in sites(lab)[site].seen)
    wrong = []
    for number, (call, count) in enumerate(sorted(made.items())):
        life = Life(tmp_path / str(number), kind)
        with life.arranged() as lab:
            sites(lab)[site].script(letter, Each({call: count}.get))
            try:
                life.live()
                life.assert_same_end()
                life.assert_well_said()
            except AssertionError as err:
                wrong.append(f"{call}: {err}")
    assert not wrong, "\n".join(wrong)
