"""One commit written without a work tree, and one plain push of it: the two moves that publish and the lease are made of.

What it is: `git fast-import` (blobs, trees and commit in one process, however many files) and `git push` with an explicit refspec.
What it is not: a decision about what a rejected push means; publish.py and lease.py know that. Nothing here can force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.failure import Push, push_verdict, pushed_ref, remote_failure
from reconciler.gitrepo.git import Git

# fast-import insists on a ref to build on. It is deleted within the same stream, so that the commit is reached by id only and two processes
# on one clone do not meet there.
_SCRATCH_REF = "refs/scratch/commit"
_NO_OBJECT = "0" * 40


@dataclass(frozen=True, slots=True)
class Draft:
    """A commit to be. `parent` "" makes an orphan; a file that is None is deleted; `at` dates author and committer, to the second."""

    parent: str
    files: Mapping[str, bytes | None]
    message: str
    at: datetime


def write_commit(git: Git, config: RepoConfig, draft: Draft) -> str:
    """The id of the new commit; it is in the clone, on no branch."""
    out = git.local(["fast-import", "--quiet", "--done"], fast_import_stream(config, draft))
    return out.decode().strip()


def push_commit(git: Git, commit: str, branch: str) -> Push:
    """Push fast-forward only; RACED when the branch is not at the commit's parent any more.

    Errors: TerminalError GitRefused and those of failure.remote_failure. After a RetryableError nobody knows whether it landed.
    """
    done = git.run(["push", "--porcelain", "--no-verify", "--", git.url, f"{commit}:refs/heads/{branch}"])
    porcelain = done.out.decode(errors="replace")
    if pushed_ref(branch, porcelain) is None:
        git.check_clone("push", done)
    return push_verdict(git.url, branch, porcelain, done.err)


def is_head(git: Git, commit: str, branch: str) -> bool:
    """Is `commit` the branch's head, by the word of the side that takes pushes? A forge may let replicas answer what only reads.

    Errors: as push_commit. Source: git-push(1): --dry-run does everything but send the updates; the flag of a ref that is there is '='.
    """
    done = git.run(["push", "--porcelain", "--dry-run", "--no-verify", "--", git.url, f"{commit}:refs/heads/{branch}"])
    porcelain = done.out.decode(errors="replace")
    found = pushed_ref(branch, porcelain)
    if found is None:
        git.check_clone("push", done)
        raise remote_failure(git.url, done.err)
    return found.flag == "="


def fast_import_stream(config: RepoConfig, draft: Draft) -> bytes:
    """Source: git-fast-import(1). Deletions come first, so that a folder can take the place of a file."""
    message = draft.message.encode()
    who = f"{_plain(config.author_name)} <{_plain(config.author_email)}> {int(draft.at.timestamp())} +0000".encode()
    parts = [b"commit %s\nmark :1\ncommitter %s\ndata %d\n%s\n" % (_SCRATCH_REF.encode(), who, len(message), message)]
    if draft.parent:
        parts.append(b"from %s\n" % draft.parent.encode())
    parts += [b"D %s\n" % _quoted(path) for path, data in sorted(draft.files.items()) if data is None]
    parts += [
        b"M 100644 inline %s\ndata %d\n%s\n" % (_quoted(path), len(data), data)
        for path, data in sorted(draft.files.items())
        if data is not None
    ]
    parts.append(b"\nget-mark :1\nreset %s\nfrom %s\n\ndone\n" % (_SCRATCH_REF.encode(), _NO_OBJECT.encode()))
    return b"".join(parts)


def _plain(name: str) -> str:
    return "".join(char for char in name if char not in "<>" and char.isprintable()).strip()


def _quoted(path: str) -> bytes:
    """C-style quotes around every path: names of VMs are hostile text and may hold quotes, blanks or line ends."""
    if "\0" in path or any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/")):
        raise ValueError(f"not a path inside a tree: {path!r}")
    escaped = path.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
