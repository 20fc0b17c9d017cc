"""The status branch as Records: only what changed is read, and nothing is where it does not belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import ObjectRef, Result
from reconciler.core.record import ObjectStatus
from reconciler.errors import TerminalError
from reconciler.manifests import recordpaths
from reconciler.manifests.record import Record, render_claim, render_run, render_status, render_vm
from reconciler.manifests.recordstore import RecordStore, parse_records, path_of
from reconciler.ports import Blob, Tree

from .samples import PLAN, RUN, claim_of, run_of, vm_of


class Branch:
    """A status branch in memory that counts what is read of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.read_ids: list[str] = []
        self.commits = 0

    def put(self, path: str, data: bytes | None) -> None:
        if data is None:
            del self.files[path]
        else:
            self.files[path] = data

    def tree(self) -> Tree:
        self.commits += 1
        return Tree(f"c{self.commits}", tuple(Blob(path, data.hex()) for path, data in self.files.items()))

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        self.read_ids = list(ids)
        return {one: bytes.fromhex(one) for one in ids}


@pytest.fixture
def branch() -> Branch:
    branch = Branch()
    branch.put("README.md", b"# status")
    branch.put("runs/openshift-mtv/wave-1-run-1/run.yaml", render_run(run_of(RUN, ("web", "db"))))
    branch.put("runs/openshift-mtv/wave-1-run-1/vms/web.yaml", render_vm(vm_of(RUN, "web")))
    branch.put("runs/openshift-mtv/wave-1-run-1/vms/db.yaml", render_vm(vm_of(RUN, "db")))
    branch.put("claims/site-1/uuid-web.yaml", render_claim(claim_of("web")))
    branch.put("status/openshift-mtv/plans/wave-1.yaml", render_status(ObjectStatus("Plan", PLAN, (), "c0ffee")))
    branch.put("archive/openshift-mtv/old/run-1/run.yaml", b"anything")
    return branch


def test_every_record_is_found(branch: Branch) -> None:
    records = RecordStore().update(branch.tree(), branch.read)
    assert records.commit == "c1"
    assert records.runs == {RUN: run_of(RUN, ("web", "db"))}
    assert records.vms == {(RUN, "web"): vm_of(RUN, "web"), (RUN, "db"): vm_of(RUN, "db")}
    assert records.claims == {("site-1", "uuid-web"): claim_of("web")}
    assert set(records.statuses) == {("Plan", PLAN)}
    assert records.archived == {ObjectRef("openshift-mtv", "old")}
    assert b"anything".hex() not in branch.read_ids


def test_only_changed_blobs_are_read(branch: Branch) -> None:
    store = RecordStore()
    first = store.update(branch.tree(), branch.read)
    changed = vm_of(RUN, "web", phase="Completed", result=Result.SUCCEEDED)
    branch.put("runs/openshift-mtv/wave-1-run-1/vms/web.yaml", render_vm(changed))
    second = store.update(branch.tree(), branch.read)
    assert branch.read_ids == [render_vm(changed).hex()]
    assert second.vms[(RUN, "web")] == changed
    assert second.vms[(RUN, "db")] is first.vms[(RUN, "db")]
    assert first.vms[(RUN, "web")].result is None


def test_the_same_commit_is_not_looked_at(branch: Branch) -> None:
    store = RecordStore()
    tree = branch.tree()
    assert store.update(tree, branch.read) is store.update(tree, branch.read)


def test_a_removed_file_is_forgotten(branch: Branch) -> None:
    store = RecordStore()
    store.update(branch.tree(), branch.read)
    for path in ("claims/site-1/uuid-web.yaml", "archive/openshift-mtv/old/run-1/run.yaml", "status/openshift-mtv/plans/wave-1.yaml"):
        branch.put(path, None)
    records = store.update(branch.tree(), branch.read)
    assert (records.claims, records.archived, records.statuses) == ({}, frozenset(), {})
    assert len(records.vms) == 2


def test_an_empty_branch_has_no_records() -> None:
    records = RecordStore().update(Tree("", ()), lambda ids: {})
    assert (records.commit, records.runs, records.vms) == ("", {}, {})


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("runs/openshift-mtv/wave-1-run-1/vms/other.yaml", render_vm(vm_of(RUN, "web"))),
        ("claims/site-2/uuid-web.yaml", render_claim(claim_of("web"))),
        ("runs/openshift-mtv/wave-1-run-1/rounds/1.yaml", b"a: 1\n"),
        ("runs/openshift-mtv/wave-1-run-1/vms/db.yaml", b"<<<<<<< HEAD\n"),
        ("status/openshift-mtv/plans/wave-1.yaml", b"kind: Plan\n"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it_and_changes_nothing(branch: Branch, path: str, data: bytes) -> None:
    store = RecordStore()
    good = store.update(branch.tree(), branch.read)
    before = branch.files.get(path)
    branch.put(path, data)
    for _ in range(2):
        with pytest.raises(TerminalError) as caught:
            store.update(branch.tree(), branch.read)
        assert caught.value.reason == "RecordUnreadable" and path in caught.value.message
    branch.put(path, before)
    assert replace(store.update(branch.tree(), branch.read), commit="c1") == good


def test_records_can_be_parsed_from_bytes(branch: Branch) -> None:
    files = {path: (data.hex(), data) for path, data in branch.files.items()}
    assert parse_records("c1", files) == RecordStore().update(branch.tree(), branch.read)


# ---- paths ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [run_of(RUN, ()), vm_of(RUN, "web-01-abc"), claim_of("web"), ObjectStatus("Plan", PLAN, (), "")])
def test_a_records_path_is_of_its_kind(record: Record) -> None:
    kind = recordpaths.kind_of(path_of(record))
    assert kind is not None and kind.value is type(record)


def test_the_paths_are_those_of_the_design() -> None:
    assert recordpaths.path_of_run(RUN) == "runs/openshift-mtv/wave-1-run-1/run.yaml"
    assert recordpaths.path_of_vm(RUN, "web-01-abc") == "runs/openshift-mtv/wave-1-run-1/vms/web-01-abc.yaml"
    assert recordpaths.path_of_claim("a-b", "c-d") == "claims/a-b/c-d.yaml"
    assert recordpaths.path_of_status("Plan", PLAN) == "status/openshift-mtv/plans/wave-1.yaml"
    assert recordpaths.path_of_archive(PLAN, RUN, "run.yaml") == "archive/openshift-mtv/wave-1/wave-1-run-1/run.yaml"


@given(st.text(min_size=1).filter(lambda t: t.isprintable()), st.text(min_size=1).filter(lambda t: t.isprintable()))
def test_hostile_names_stay_in_their_folder_and_apart(site: str, vm: str) -> None:
    parts = recordpaths.path_of_claim(site, vm).split("/")
    assert len(parts) == 3 and parts[0] == "claims"
    assert not any(part.startswith(".") for part in parts)
    assert recordpaths.kind_of("/".join(parts)) is recordpaths.RecordKind.CLAIM


@pytest.mark.parametrize("text", ["../x", "..", ".git", "a/b", "a\\b", "a\nb"])
def test_nothing_leads_out_of_the_folder(text: str) -> None:
    part = recordpaths.path_of_vm(RUN, text).split("/vms/")[1]
    assert not part.startswith(".") and not set(part) & set("/\\\n")


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        recordpaths.path_of_claim("", "x")
