"""`reconciler status` over a status branch in memory: tables, targets, YAML and JSON, watch."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest
from ruamel.yaml import YAML

from reconciler.commands.status import Output, parse_target, run
from reconciler.core.model import ObjectRef
from reconciler.core.record import Records
from reconciler.errors import RetryableError, UserError
from reconciler.manifests import recordpaths
from reconciler.manifests.record import render_run, render_status, render_vm
from reconciler.ports import Blob, Checkout, Tree

from ..report.sample import NS, PLAN, RUN, at, copying, failed, records, round_of, succeeded, warm

BROKEN = b"apiVersion: forklift.konveyor.io/v1beta1\nkind: Plan\nmetadata: {name: broken, namespace: openshift-mtv}\nspec: {wram: true}\n"


class Branches:
    """Both branches in memory. Only what reads is there; anything that writes would be an error of the command."""

    def __init__(self, desired: Mapping[str, bytes], status: Records) -> None:
        self.desired = desired
        self.status = status
        self.away = False
        self.blobs: dict[str, bytes] = {}

    def fetch(self) -> Checkout:
        if self.away:
            raise RetryableError("GitUnavailable", "the remote does not answer")
        return Checkout(self._tree("d", self.desired), self._tree(self.status.commit, files_of(self.status)))

    def _tree(self, commit: str, files: Mapping[str, bytes]) -> Tree:
        ids = {path: hashlib.sha1(data).hexdigest() for path, data in files.items()}
        self.blobs |= {ids[path]: data for path, data in files.items()}
        return Tree(commit, tuple(Blob(path, one) for path, one in ids.items()))

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        return {one: self.blobs[one] for one in ids}


class Watcher:
    """A clock whose n-th sleep does the n-th thing; the last one is Ctrl-C."""

    def __init__(self, *things: object, at: datetime = datetime(2026, 11, 24, tzinfo=UTC)) -> None:
        self.things = list(things)
        self.at = at

    def sleep(self, seconds: float) -> None:
        if not self.things:
            raise KeyboardInterrupt
        thing = self.things.pop(0)
        assert callable(thing)
        thing()

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0

    def new_id(self) -> str:
        return "id"

    def jitter(self) -> float:
        return 0.0


def files_of(status: Records) -> dict[str, bytes]:
    files = {recordpaths.path_of_run(r.run): render_run(r) for r in status.runs.values()}
    files |= {recordpaths.path_of_vm(v.run, v.slug): render_vm(v) for v in status.vms.values()}
    return files | {recordpaths.path_of_status(s.kind, s.ref): render_status(s) for s in status.statuses.values()}


def show(target: str | None = None, output: Output = "table", branches: Branches | None = None, watcher: Watcher | None = None) -> str:
    repo = branches or Branches({}, records(copying("web-01", 45), failed("mail-01"), succeeded("db-01", 2)))
    out = io.StringIO()
    code = run(repo, target=target, watch=watcher is not None, output=output, clock=watcher or Watcher(), out=out)  # type: ignore[arg-type]
    assert code == 0
    return out.getvalue()


def test_overview() -> None:
    shown = show()
    assert "vcenter-b" in shown and "the certificate of vcenter-b has expired" in shown
    assert "running: 1 failed, 1 running, 1" in shown
    assert "copying 45 %" in shown and "mail-01: GuestShutdownTimeout" in shown
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_an_empty_branch_says_so_and_problems_are_shown_all_the_same() -> None:
    shown = show(branches=Branches({"plans/broken.yaml": BROKEN}, Records("")))
    assert "the status branch is empty" in shown
    assert "plans/broken.yaml:4" in shown and "wram" in shown


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("plan/shop-wave-1", ["Ready", "web-01", "mail-01"]),
        ("Plan/erp-wave-1", ["StorageNotMapped", "no Migration has started this plan yet"]),
        (f"migrations/{NS}/{RUN.name}", ["web-01", "failed"]),
        ("provider/vcenter-b", ["ConnectionTestFailed", "Critical"]),
        ("vm/db-01", ["openshift-mtv/shop-wave-1", "Hard disk 2", "succeeded", "target told to start"]),
        ("vm/vm-web-01", ["copying 45 %"]),
    ],
)
def test_one_object(target: str, parts: list[str]) -> None:
    shown = show(target)
    for part in parts:
        assert part in shown


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("plan", "is not KIND/NAME"),
        ("plan/a/b/c", "is not KIND/NAME"),
        ("plans/", "is not KIND/NAME"),
        ("pod/x", 'unknown kind "pod"; known are vm, provider'),
        ("plan/shop-wave-2", "there is no Plan openshift-mtv/shop-wave-2"),
        ("vm/web-02", "no run in openshift-mtv has a VM web-02"),
    ],
)
def test_what_is_not_there_is_the_callers_error(target: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        show(target)


def test_targets() -> None:
    assert parse_target("plans/prod/wave").ref == ObjectRef("prod", "wave")
    assert (parse_target("plan/wave").kind, parse_target("VM/web").kind) == ("Plan", "VM")


def test_yaml_has_forklifts_shape() -> None:
    data = YAML(typ="safe").load(show("plan/shop-wave-1", "yaml"))
    assert (data["kind"], data["metadata"]["name"]) == ("Plan", PLAN.name)
    assert [vm["name"] for vm in data["status"]["migration"]["vms"]] == ["web-01", "mail-01", "db-01"]
    assert data["status"]["migration"]["vms"][0]["pipeline"][0]["name"] == "DiskTransfer"


def test_json_of_everything_and_of_one_vm() -> None:
    items = json.loads(show(output="json"))["items"]
    assert {(i["kind"], i["metadata"]["name"]) for i in items} >= {("Plan", PLAN.name), ("Migration", RUN.name), ("Provider", "vcenter-b")}
    vm = json.loads(show("vm/mail-01", "json"))
    assert (vm["name"], vm["plan"], vm["milestone"]) == ("mail-01", str(PLAN), "None")
    assert vm["error"]["phase"] == "PowerOffSource"


def test_a_warm_vm_tells_what_a_cutover_would_cost_by_the_clock_of_whoever_asks() -> None:
    rests = warm("mail-01", round_of(1, 0, 40 << 10, seconds=400.0), round_of(2, 60, 360))
    branches = Branches({}, records(rests))
    for minutes, cost in ((60.0, 10.0), (182.0, 16.3), (0.0, 10.0)):
        block = json.loads(show("vm/mail-01", "json", branches, Watcher(at=at(minutes))))["warm"]
        assert (block["expectedDowntimeSeconds"], block["nextPrecopyAt"]) == (pytest.approx(cost, abs=0.2), "2026-11-24T16:02:00Z")
        shown = show("plan/shop-wave-1", branches=branches, watcher=Watcher(at=at(minutes)))
        assert f"about {cost:.0f} s" in shown and "360 MiB in 3 s" in shown and "16:02" in shown


def test_watch_prints_again_only_when_a_branch_moved_and_bears_a_remote_away() -> None:
    branches = Branches({}, records(copying("web-01", 45), commit="1"))

    def move() -> None:
        branches.away = False
        branches.status = records(copying("web-01", 50), commit="2")

    def lose() -> None:
        branches.away = True

    shown = show(branches=branches, watcher=Watcher(lambda: None, lose, move, lambda: None))
    assert shown.count("copying 45 %") == 1 and shown.count("copying 50 %") == 1


def test_a_remote_that_is_away_at_the_start_is_an_error() -> None:
    branches = Branches({}, Records(""))
    branches.away = True
    with pytest.raises(RetryableError, match="GitUnavailable"):
        show(branches=branches, watcher=Watcher())
