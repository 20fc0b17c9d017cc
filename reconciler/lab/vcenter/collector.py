"""The property collector's conversations: pages of a retrieval, filters, and the updates since a version.

Where it stands: calls.py hands it a session's collector; properties.py selects and renders. Called under the world's lock.
Source: vSphere Web Services API 8.0.2, PropertyCollector: RetrievePropertiesEx, ContinueRetrievePropertiesEx, WaitForUpdatesEx.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.lab.vcenter import faults, soap
from reconciler.lab.vcenter.inventory import Node
from reconciler.lab.vcenter.properties import UNSET_ASSIGNED, UNSET_ON_LATER_PAGES, Reader, Rendered
from reconciler.lab.vcenter.sessions import Session
from reconciler.lab.vcenter.vmomi import support, vmodl
from reconciler.lab.world import World

POLL_S = 0.1  # real time between looks at a clock that a test may move by hand
FULL_SCAN_UPDATES = 100  # vCenter's own cut of an update set when the client names none

State = dict[str, tuple[int, Rendered]]
Paths = tuple[str, ...]


@dataclass(slots=True)
class Filter:
    """`state` is what the client knows at the collector's version, `before` what it knew at the one before (a lost reply)."""

    id: str
    spec: Any
    state: State = field(default_factory=dict)
    before: State = field(default_factory=dict)


@dataclass(slots=True)
class Collector:
    id: str
    filters: dict[str, Filter] = field(default_factory=dict)
    version: int = 0
    canceled: bool = False


class Retrieval:
    """Pages: what is left is kept with the session under a token and rendered when its turn comes."""

    def __init__(self, reader: Reader, page_size: int) -> None:
        self._reader = reader
        self.page_size = page_size

    def begin(self, session: Session | None, specs: Sequence[Any], limit: int | None, version: str) -> str:
        """The inside of a RetrieveResult: objects, and a token when there are more; empty when nothing was selected."""
        chosen = [(node.id, paths) for spec in specs for node, paths in self._reader.select(spec)]
        return self._page(session, chosen, self._limit(limit), version)

    def go_on(self, session: Session, token: str, version: str) -> str:
        """Errors: InvalidArgument for a token that is not (or no longer) known."""
        if token not in session.pages:
            raise vmodl.fault.InvalidArgument(msg="A specified parameter was not correct: token", invalidProperty="token")
        left, limit = session.pages.pop(token)
        return self._page(session, left, limit, version, later=True)

    def all(self, specs: Sequence[Any], version: str) -> str:
        """RetrieveProperties: everything at once, as `returnval` elements."""
        found = [self._reader.render(node, paths, version) for spec in specs for node, paths in self._reader.select(spec)]
        return "".join(f"<returnval>{r.content()}</returnval>" for r in found)

    def _limit(self, wanted: int | None) -> int:
        if wanted is not None and wanted < 0:
            raise vmodl.fault.InvalidArgument(msg="A specified parameter was not correct: maxObjects", invalidProperty="maxObjects")
        return min(wanted or self.page_size, self.page_size)

    def _page(self, session: Session | None, chosen: list[tuple[str, Paths]], limit: int, version: str, *, later: bool = False) -> str:
        page, left = chosen[:limit], chosen[limit:]
        parts = []
        if left and session is not None:
            token = str(session.number())
            session.pages[token] = (left, limit)
            parts.append(f"<token>{token}</token>")
        for moid, paths in page:
            node = self._reader.inventory.find(moid)
            if node is not None:  # it may have gone between two pages
                listed = paths if later and UNSET_ON_LATER_PAGES in self._reader.oddities else ()
                parts.append(f"<objects>{self._reader.render(node, paths, version).content(listed)}</objects>")
        return "".join(parts)


class Updates:
    """Differences between what a client was told and what is. A repeated version means that the reply was lost: it is told again."""

    def __init__(self, reader: Reader, world: World, is_open: Callable[[Session], bool]) -> None:
        self._reader = reader
        self._world = world
        self._is_open = is_open

    def wait(self, session: Session, collector: Collector, since: str, options: Any, version: str) -> str:
        """The inside of an UpdateSet, or "" when `maxWaitSeconds` passed without one (real or simulated time, whichever is first)."""
        limit = (options.maxObjectUpdates if options else None) or FULL_SCAN_UPDATES
        seconds = options.maxWaitSeconds if options else None
        clock, started, real = self._world.clock, self._world.clock.monotonic(), time.monotonic()
        self._rewind(collector, since)
        collector.canceled = False
        looked = -1
        while True:
            self._world.settle()
            if not self._is_open(session):
                raise faults.not_authenticated()
            if collector.canceled:
                raise vmodl.fault.RequestCanceled(msg="The task was canceled by a user.")
            if looked != self._world.revision:
                looked = self._world.revision
                if found := self._look(collector, limit, version):
                    return found
            passed = max(clock.monotonic() - started, time.monotonic() - real)
            if seconds is not None and passed >= seconds:
                return ""
            self._world.moved.wait(POLL_S if seconds is None else min(POLL_S, seconds - passed))

    def _rewind(self, collector: Collector, since: str) -> None:
        if since == "":
            for each in collector.filters.values():
                each.state, each.before = {}, {}
        elif since == str(collector.version - 1):
            collector.version -= 1
            for each in collector.filters.values():
                each.state = each.before
        elif since != str(collector.version):
            raise vmodl.query.InvalidCollectorVersion(msg="The version supplied is not valid.")

    def _look(self, collector: Collector, limit: int, version: str) -> str:
        sets, truncated = [], False
        changed: list[tuple[Filter, State]] = []
        for each in collector.filters.values():
            state, parts, cut = self._difference(each, limit, version)
            limit -= len(parts)
            truncated = truncated or cut
            changed.append((each, state))
            if parts:
                ref = f'<filter type="PropertyFilter">{each.id}</filter>'
                sets.append(f"<filterSet>{ref}{''.join(parts)}</filterSet>")
        if not sets:
            return ""
        for each, state in changed:
            each.before, each.state = each.state, state
        collector.version += 1
        return f"<version>{collector.version}</version>{''.join(sets)}" + ("<truncated>true</truncated>" if truncated else "")

    def _difference(self, each: Filter, limit: int, version: str) -> tuple[State, list[str], bool]:
        state = dict(each.state)
        parts: list[str] = []
        gone = set(state)
        for node, paths in self._reader.select(each.spec):
            gone.discard(node.id)
            known = state.get(node.id)
            if known is not None and known[0] == node.revision:
                continue
            now = self._reader.render(node, paths, version)
            unset = paths if known is None and UNSET_ASSIGNED in self._reader.oddities else ()
            update = _update(node, known[1] if known else None, now, unset)
            if update:
                if len(parts) >= limit:
                    return state, parts, True
                parts.append(update)
            state[node.id] = (node.revision, now)
        for moid in sorted(gone):
            if len(parts) >= limit:
                return state, parts, True
            parts.append(f"<objectSet><kind>leave</kind>{state.pop(moid)[1].ref}</objectSet>")
        return state, parts, False


def _update(node: Node, before: Rendered | None, now: Rendered, unset: Paths) -> str:
    """One ObjectUpdate; "" when no value differs. A value that became unset is an assignment without `val`."""
    old = dict(before.values) if before else {}
    new = dict(now.values)
    changes = [(path, val) for path, val in now.values if old.get(path) != val]
    changes += [(path, "") for path in (*old, *unset) if path not in new]
    if before is not None and not changes:
        return ""
    ref = soap.render(node.ref, "obj", support.ManagedObject, soap.version_of(""))
    kind = "modify" if before else "enter"
    sets = "".join(f"<changeSet><name>{path}</name><op>assign</op>{val}</changeSet>" for path, val in changes)
    return f"<objectSet><kind>{kind}</kind>{ref}{sets}{now.missing if before is None else ''}</objectSet>"
