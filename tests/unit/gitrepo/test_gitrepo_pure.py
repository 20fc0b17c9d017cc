"""The pure parts of reading, writing and the lease: listings, streams, ids, trailers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.gitrepo.checkout import parse_ls_remote
from reconciler.gitrepo.commit import Draft, fast_import_stream
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.lease import Claim, parse_claim
from reconciler.gitrepo.publish import blob_id, differing
from reconciler.ports import Blob, Tree

AT = datetime(2026, 3, 1, 12, 0, 0, 900_000, tzinfo=UTC)
A, B = "a" * 40, "b" * 40


def stream(files: dict[str, bytes | None], parent: str = "", name: str = "reconciler") -> bytes:
    config = RepoConfig(url="/r", cache_dir=Path("/c"), holder="h", author_name=name)
    return fast_import_stream(config, Draft(parent, files, "wave-1: web-01 ü", AT))


def test_ls_remote() -> None:
    out = f"ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{B}\trefs/heads/x\nwarning: odd\tline\n".encode()
    assert parse_ls_remote(out) == ({"HEAD": A, "refs/heads/x": B}, {"HEAD": "refs/heads/main"})


def test_the_stream_dates_the_commit_and_counts_bytes() -> None:
    text = stream({})
    assert b"committer reconciler <reconciler@localhost> 1772366400 +0000\n" in text
    assert b"data 17\nwave-1: web-01 \xc3\xbc\n" in text
    assert b"from a" not in text
    assert f"from {A}\n".encode() in stream({}, parent=A)


def test_deletions_come_before_additions_and_paths_are_quoted() -> None:
    text = stream({"a/b": b"1", "a": None, 'q"\n\\': b"22"})
    assert text.index(b'D "a"\n') < text.index(b'M 100644 inline "a/b"\ndata 1\n1\n')
    assert b'M 100644 inline "q\\"\\n\\\\"\ndata 2\n22\n' in text


def test_a_name_cannot_break_the_committer_line() -> None:
    assert b"committer xdata 0 <reconciler@localhost> 1772366400 +0000\n" in stream({}, name="x\n<data 0>")


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/", "../a", "a/./b", ".git/config", "a/.GIT/b", "a\0b"])
def test_a_path_that_is_not_inside_the_tree_is_a_bug(path: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        stream({path: b""})


def test_blob_id_is_gits() -> None:
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_only_what_differs_is_written() -> None:
    tree = Tree(A, (Blob("same", blob_id(b"1")), Blob("other", blob_id(b"1")), Blob("gone", blob_id(b"1"))))
    changes: dict[str, bytes | None] = {"same": b"1", "other": b"2", "gone": None, "new": b"", "never": None}
    assert differing(changes, tree) == {"other": b"2", "gone": None, "new": b""}


def commit(message: str) -> bytes:
    return f"tree {A}\nparent {B}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\n{message}".encode()


def test_a_lease_commit_is_read_back() -> None:
    message = "lease held by a until 2026-03-01T12:03:00Z [skip ci]\n\nHolder: a\nNonce: n\nUntil: 2026-03-01T12:03:00Z\nTtl-Seconds: 180\n"
    assert parse_claim(commit(message)) == Claim(False, datetime(2026, 3, 1, 12, 3, tzinfo=UTC), 180)
    assert parse_claim(commit("lease released by a [skip ci]\n\nHolder: a\nNonce: n\nReleased: yes\n")) == Claim(True, None, 0)


@pytest.mark.parametrize(
    "message",
    [
        "by hand",
        "by hand\n\nno trailers",
        "Released: yes\n",
        "x\n\nUntil: tomorrow\nTtl-Seconds: 1\n",
        "x\n\nUntil: 2026-03-01T12:03:00Z\nTtl-Seconds: soon\n",
        "x\n\nUntil: 2026-03-01T12:03:00Z\nTtl-Seconds: inf\n",
        "x\n\nUntil: 2026-03-01T12:03:00Z\nTtl-Seconds: nan\n",
    ],
)
def test_what_does_not_read_as_a_lease_has_no_end(message: str) -> None:
    assert parse_claim(commit(message)) == Claim(False, None, 0)
