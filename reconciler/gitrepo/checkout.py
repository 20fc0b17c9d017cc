"""Fetch: the files of the desired and the status branch at one commit each, and bytes by object id.

What it is: the reading half of the repository, on a bare clone that may vanish at any time. What it is not: a work tree or a parser;
nothing is written to the file system but git's own objects. Symlinks and submodules are not followed, they do not exist for us.
An idle fetch is one `ls-remote`; a listing is read again only when its commit changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from reconciler.errors import RetryableError, TerminalError
from reconciler.gitrepo.commit import is_head
from reconciler.gitrepo.config import RepoConfig, check_distinct
from reconciler.gitrepo.failure import redact
from reconciler.gitrepo.git import Git
from reconciler.ports import Blob, Checkout, Tree

DESIRED_REF = "refs/seen/desired"
STATUS_REF = "refs/seen/status"
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REGULAR = (b"100644", b"100755", b"100664")  # 100664: written by old git versions, still in old histories
_EMPTY = Tree("", ())


class Reader:
    """Both branches as the remote has them. Not thread-safe; GitRepo serialises."""

    def __init__(self, git: Git, config: RepoConfig) -> None:
        self._git = git
        self._config = config
        self._heads: dict[str, str] | None = None  # our copy: ref below refs/seen -> commit; None: not read yet
        self._desired = _EMPTY
        self._status = _EMPTY
        self._ancestor_of: dict[str, str] = {}
        self._on_line: dict[tuple[str, str], bool] = {}

    def fetch(self) -> Checkout:
        """One ls-remote, then git fetch if a head moved. Errors: RetryableError BranchMissing, PathMissing, GitUnavailable."""
        desired, status = self._look()
        status = self._newest(status)
        if desired is None:
            raise RetryableError("BranchMissing", f"git remote {self._where()} has no {self._branch_name()} yet; push the manifests there")
        heads = self._bring({DESIRED_REF: desired, STATUS_REF: status})
        if heads[DESIRED_REF] != self._desired.commit:
            self._desired = self._list_desired(heads[DESIRED_REF])
        return Checkout(self._desired, self._at_status(heads[STATUS_REF]))

    def fetch_status(self) -> Tree:
        """The status branch as it is now, for a push that was rejected."""
        status = self._newest(self._look()[1])
        return self._at_status(self._bring({STATUS_REF: status})[STATUS_REF])

    def remote_status(self) -> str:
        """The head of the status branch at the remote, "" if there is none; nothing is fetched."""
        return self._look()[1] or ""

    def moved_to(self, commit: str) -> None:
        """Our own push was accepted: remember its commit as the remote's head, so that the next fetch has nothing to bring."""
        self._git.local(["update-ref", STATUS_REF, commit])
        if self._heads is not None:
            self._heads[STATUS_REF] = commit

    def status_at(self, commit: str) -> Tree:
        """All files of the status branch at `commit`, which was read before; "" is the branch that does not exist."""
        return self._status if commit == self._status.commit else self._list(commit, "")

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        out = self._git.local(["cat-file", "--batch"], "".join(f"{each}\n" for each in wanted).encode())
        return self._split_batch(wanted, out)

    def is_ancestor(self, commit: str, of: str) -> bool:
        """False also for a commit that this history never had. A commit once known to be behind a head stays behind its descendants."""
        if not _OBJECT_ID.fullmatch(commit) or not _OBJECT_ID.fullmatch(of):
            return False
        earlier = self._ancestor_of.get(commit)
        if earlier is not None and (earlier == of or self._merge_base(earlier, of)):
            self._ancestor_of[commit] = of
            return True
        if not self._merge_base(commit, of):
            return False
        self._ancestor_of[commit] = of
        return True

    def _merge_base(self, commit: str, of: str) -> bool:
        known = self._on_line.get((commit, of))
        if known is not None:
            return known
        done = self._git.run(["merge-base", "--is-ancestor", commit, of])
        if done.code not in (0, 1) and "Not a valid commit name" not in done.err and "not a commit" not in done.err:
            raise self._git.broken(f"merge-base: {done.err}")
        if done.code in (0, 1):  # an unknown commit may arrive with a later fetch; a known pair never changes
            self._on_line[(commit, of)] = done.code == 0
        return done.code == 0

    def _look(self) -> tuple[str | None, str | None]:
        """The remote's desired and status heads now; None for a branch that it does not have."""
        if self._git.ensure():
            self._heads = {}
        config = self._config
        status_ref = f"refs/heads/{config.status_branch}"
        out = self._git.remote(["ls-remote", "--symref", "--", self._git.url, self._desired_ref(), status_ref])
        heads, symrefs = parse_ls_remote(out)
        if config.branch is None:
            check_distinct(config, symrefs.get("HEAD", "").removeprefix("refs/heads/") or None)
        return heads.get(self._desired_ref()), heads.get(status_ref)

    def _newest(self, told: str | None) -> str | None:
        """A status head that went back: the forge was restored, or a replica answered that has not heard of our push yet. Pushes know."""
        known = self._seen_heads().get(STATUS_REF)
        if known is None or told == known or (told is not None and not self.is_ancestor(told, known)):
            return told
        try:
            return known if is_head(self._git, known, self._config.status_branch) else told
        except (RetryableError, TerminalError):  # TerminalError: of one that may only read
            return told

    def _seen_heads(self) -> dict[str, str]:
        if self._heads is None:
            self._heads = self._local_heads()
        return self._heads

    def _bring(self, wanted: Mapping[str, str | None]) -> dict[str, str]:
        """Make the objects of these heads local; the result may be newer than what was asked for, "" is a branch that is not there."""
        seen = self._seen_heads()
        stale = [ref for ref, commit in wanted.items() if commit is not None and seen.get(ref) != commit]
        if stale:
            source = {DESIRED_REF: self._desired_ref(), STATUS_REF: f"refs/heads/{self._config.status_branch}"}
            refspecs = [
                f"+{source[ref]}:{ref}" for ref in stale
            ]  # '+' concerns our own copy: a restored forge is followed, never overwritten
            self._git.fetch(*refspecs)
            self._heads = seen = self._local_heads()
        return {ref: seen.get(ref, "") if commit is not None else "" for ref, commit in wanted.items()}

    def _local_heads(self) -> dict[str, str]:
        out = self._git.local(["for-each-ref", "--format=%(refname) %(objectname)", "refs/seen/"]).decode()
        return {ref: commit for ref, _, commit in (line.partition(" ") for line in out.splitlines())}

    def _at_status(self, commit: str) -> Tree:
        if commit != self._status.commit:
            self._status = self._list(commit, "")
        return self._status

    def _list_desired(self, commit: str) -> Tree:
        """A folder that is not there is an error and not an empty list: a moved folder must not look like a removal of everything in it."""
        folder = self._config.folder
        tree = self._list(commit, folder)
        if folder and not tree.blobs:
            raise RetryableError(
                "PathMissing",
                f"{self._branch_name()} of git remote {self._where()} has nothing at path {folder!r} (commit {commit[:12]}); "
                "correct the path or put the folder back",
            )
        return Tree(commit, tuple(blob for blob in tree.blobs if blob.path.endswith((".yaml", ".yml"))))

    def _list(self, commit: str, folder: str) -> Tree:
        if not commit:
            return _EMPTY
        out = self._git.local(["ls-tree", "-r", "-z", "--full-tree", commit, "--", *([folder] if folder else [])])
        return Tree(commit, tuple(_blobs(out.split(b"\0"))))

    def _split_batch(self, wanted: Sequence[str], out: bytes) -> dict[str, bytes]:
        """Source: git-cat-file(1), batch output: `<id> SP <type> SP <size> LF <bytes> LF`."""
        found: dict[str, bytes] = {}
        at = 0
        for each in wanted:
            end = out.index(b"\n", at)
            header = out[at:end].split(b" ")
            if len(header) != 3:
                raise self._git.broken(f"object {each} is not in the clone")
            start, size = end + 1, int(header[2])
            found[each] = out[start : start + size]
            at = start + size + 1
        return found

    def _desired_ref(self) -> str:
        return "HEAD" if self._config.branch is None else f"refs/heads/{self._config.branch}"

    def _branch_name(self) -> str:
        return "default branch (HEAD)" if self._config.branch is None else f"branch {self._config.branch!r}"

    def _where(self) -> str:
        return redact(self._config.url)


def parse_ls_remote(out: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """(name -> commit, symbolic name -> target). Patterns match tails of names, so callers pick the exact one.

    Source: git-ls-remote(1) with --symref.
    """
    heads: dict[str, str] = {}
    symrefs: dict[str, str] = {}
    for line in out.decode(errors="replace").splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            symrefs[name] = value.removeprefix("ref: ")
        elif _OBJECT_ID.fullmatch(value):
            heads[name] = value
    return heads, symrefs


def _blobs(entries: Iterable[bytes]) -> Iterable[Blob]:
    for entry in entries:
        meta, _, path = entry.partition(b"\t")
        if meta[:6] in _REGULAR:
            # A name that is no UTF-8 stays printable and distinct; we never write such a name back.
            yield Blob(path.decode(errors="backslashreplace"), meta.rpartition(b" ")[2].decode())
