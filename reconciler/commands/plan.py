"""`reconciler plan`: what a commit, or a folder, would do if it were merged. What CI answers a pull request with.

What it is: read-only looks at repo and sites, then core/preview.py and a report. No lease, no write, no act. What it is not: `validate`,
which needs no site. Exit code 1 when something blocks.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal, TextIO

from reconciler.app import open_repo, open_sites
from reconciler.commands.reading import Reader, from_folder
from reconciler.core import archive
from reconciler.core.desired import Desired
from reconciler.core.preview import Preview, preview
from reconciler.core.record import Records
from reconciler.engine.observe import Watch, look, rewound
from reconciler.engine.sites import Sites
from reconciler.manifests.record import to_plain
from reconciler.ports import Clock, StatusRepo
from reconciler.report import preview as report
from reconciler.settings import Settings

Format = Literal["text", "json", "markdown"]


def run(settings: Settings, *, folder: Path | None, format: Format, clock: Clock, out: TextIO) -> int:
    """With `folder` the manifests come from there; the records still come from the repo, if one is named. Errors: those of the repo."""
    repo = open_repo(settings, clock) if settings.repo else None
    records, desired = _read(repo, folder)
    sites = open_sites(settings, clock)
    try:
        found = answer(desired, records, sites, repo, clock)
    finally:
        sites.close()
    match format:
        case "json":
            out.write(json.dumps(_document(found), indent=2) + "\n")
        case "markdown":
            out.write(report.markdown(found))
        case "text":
            out.write(report.text(found))
    return 1 if found.blocked else 0


def _read(repo: StatusRepo | None, folder: Path | None) -> tuple[Records, Desired]:
    if repo is None:
        assert folder is not None
        return Records(""), from_folder(folder)
    records, desired = Reader(repo).read()
    return records, desired if folder is None else from_folder(folder)


def answer(desired: Desired, records: Records, sites: Sites, repo: StatusRepo | None, clock: Clock) -> Preview:
    """Every Provider is asked once. Without a repo nothing is known of its history.

    A reconciler that runs meanwhile commits, and then acts: what the sites show is judged by a head that is fetched after the look.
    """
    desired = archive.sealed(desired, records.archived)
    watch = Watch()
    observed, indexes = look(desired, records, sites, desired.providers, watch, clock.now())
    if repo is not None and rewound(repo, records, observed.targets, watch):
        head = replace(records, commit=repo.fetch().status.commit)
        observed = replace(observed, rewound=rewound(repo, head, observed.targets, watch))
    return preview(desired, observed, records, indexes, clock.now())


def _document(found: Preview) -> dict[str, object]:
    plans = [{**to_plain(p), "ready": p.ready} for p in found.plans]
    return {**to_plain(found), "plans": plans, "blocked": found.blocked}
