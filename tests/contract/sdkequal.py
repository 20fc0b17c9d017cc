"""Whether our reading of bulk answers is pyVmomi's, in every type and every value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from pyVmomi import VmomiSupport, vmodl

from reconciler.drivers.vsphere import collector
from reconciler.drivers.vsphere.session import Session
from reconciler.drivers.vsphere.soap import Stub


@contextlib.contextmanager
def only_pyvmomi() -> Iterator[None]:
    """All answers are read by pyVmomi itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Stub, "InvokeMethod")
        yield


def assert_read_alike(session: Session) -> None:
    """All that a site tells of its inventory, asked for twice."""
    ours = session.run("read", _bulk_answers)
    with only_pyvmomi():
        theirs = session.run("read", _bulk_answers)
    assert len(ours) > 2
    assert difference(ours, theirs) == ""


def _bulk_answers(content: Any) -> list[Any]:
    """Every page, and the first answer of a filter; without the names of tokens and filters, which are new each time."""
    query, view, pages = content.propertyCollector, collector._view(content), []
    page = query.RetrievePropertiesEx(
        [collector._filter_spec(view)], vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=collector.PAGE)
    )
    while page is not None:
        pages += page.objects
        page = query.ContinueRetrievePropertiesEx(page.token) if page.token else None
    view.DestroyView()
    watch = collector.open_watch(content, 1)
    updates = watch.collector.WaitForUpdatesEx("", vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=0))
    collector.close_watch(watch)
    return [*pages, *(found for part in updates.filterSet for found in part.objectSet)]


def difference(ours: Any, theirs: Any, path: str = "answer") -> str:
    """The first place where they differ; "" when they do not."""
    if type(ours) is not type(theirs):
        return f"{path}: {type(ours).__name__}, not {type(theirs).__name__}"
    if isinstance(ours, list):
        if len(ours) != len(theirs):
            return f"{path}: {len(ours)} items, not {len(theirs)}"
        parts = {str(n): pair for n, pair in enumerate(zip(ours, theirs, strict=True))}
    elif isinstance(ours, VmomiSupport.DataObject):
        if vars(ours).keys() != vars(theirs).keys():
            return f"{path}: fields {vars(ours).keys() ^ vars(theirs).keys()}"
        parts = {name: (value, vars(theirs)[name]) for name, value in vars(ours).items()}
    elif isinstance(ours, VmomiSupport.ManagedObject):
        parts = {name: (getattr(ours, name), getattr(theirs, name)) for name in ("_moId", "_serverGuid")}
    elif isinstance(ours, VmomiSupport.UnknownManagedMethod):
        return difference(ours.name, theirs.name, path)
    else:
        return "" if ours == theirs else f"{path}: {ours!r}, not {theirs!r}"
    return next(filter(None, (difference(a, b, f"{path}.{name}") for name, (a, b) in parts.items())), "")
