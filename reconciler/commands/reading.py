"""Both branches, or a folder, as Records and Desired: what every command that looks but does not act begins with.

What it is: repo or files -> values, nothing parsed twice. What it is not: a look at any site.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from reconciler.commands.folder import files_of
from reconciler.core.desired import Desired
from reconciler.core.record import Records
from reconciler.manifests.load import Cache, SourceFile, load, missing, wants
from reconciler.manifests.recordstore import RecordStore
from reconciler.manifests.resolve import resolve
from reconciler.ports import StatusRepo, Tree


@dataclass(slots=True)
class Reader:
    """Both branches, parsed; what did not change is not parsed again."""

    repo: StatusRepo
    store: RecordStore = field(default_factory=RecordStore)
    cache: Cache = field(default_factory=dict)
    desired: Desired | None = None

    def read(self) -> tuple[Records, Desired]:
        checkout = self.repo.fetch()
        records = self.store.update(checkout.status, self.repo.read)
        if self.desired is None or self.desired.revision != checkout.desired.commit:
            self.desired = self._resolve(checkout.desired)
        return records, self.desired

    def _resolve(self, tree: Tree) -> Desired:
        blobs = [b for b in tree.blobs if wants(b.path)]
        contents = self.repo.read(missing([b.id for b in blobs], self.cache))
        files = [SourceFile(b.path, b.id, contents.get(b.id)) for b in blobs]
        return resolve(load(files, cache=self.cache), tree.commit)


def from_folder(path: Path) -> Desired:
    """A work tree as it lies there, uncommitted changes and all. Errors: UserError NotFound."""
    return resolve(load(files_of(path)), "")
