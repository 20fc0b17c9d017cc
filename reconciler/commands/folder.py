"""A folder of manifests on this disk -> what load() takes. Loads nothing heavy: `validate` must start fast."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from reconciler.errors import UserError
from reconciler.manifests.load import SourceFile, wants
from reconciler.manifests.yamltext import MAX_BYTES


def files_of(path: Path) -> Iterator[SourceFile]:
    """Regular files only, as git would give them; a link could lead out of the tree. Errors: UserError NotFound."""
    if path.is_file():
        yield _file(path, path.name)
        return
    if not path.is_dir():
        raise UserError("NotFound", f"{path}: no such file or folder; give the folder that holds the manifests")
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            relative = file.relative_to(path).as_posix()
            if wants(relative) and file.is_file() and not file.is_symlink():
                yield _file(file, relative)


def _file(file: Path, relative: str) -> SourceFile:
    with file.open("rb") as stream:
        return SourceFile(relative, relative, stream.read(MAX_BYTES + 1))
