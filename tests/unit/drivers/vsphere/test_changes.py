"""Answers of the property collector -> what is known and what changed; no server is needed for that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.drivers.vsphere import collector
from reconciler.drivers.vsphere.sdk import vim, vmodl


def watch(*changes: Any) -> collector.Watch:
    """A collector that answers once, with one modified VM."""
    vm = vim.VirtualMachine("vm-1")
    update = vmodl.query.PropertyCollector.ObjectUpdate(kind="modify", obj=vm, changeSet=list(changes))
    part = SimpleNamespace(objectSet=[update])
    answer = SimpleNamespace(version="1", truncated=False, filterSet=[part])
    return collector.Watch(1, None, SimpleNamespace(WaitForUpdatesEx=lambda version, options: answer))


@pytest.mark.parametrize(("op", "path"), [("remove", "guest.net"), ("assign", "guest.net"), ("assign", "snapshot")])
def test_a_property_without_a_value_is_gone_however_the_server_says_so(op: str, path: str) -> None:
    """vcsim says "assign" without a value; the API reference leaves `val` optional."""
    (change,), _ = collector.read_changes(watch(vmodl.query.PropertyCollector.Change(name=path, op=op)))
    assert (change.values, change.gone) == ({}, (path,))


def test_a_property_with_a_value_is_not_gone() -> None:
    (change,), _ = collector.read_changes(watch(vmodl.query.PropertyCollector.Change(name="name", op="assign", val="web")))
    assert (change.values, change.gone) == ({"name": "web"}, ())


def test_a_property_missing_for_want_of_a_session_is_no_missing_property() -> None:
    """Else a session that ended in the middle of a read would show a vCenter full of VMs that tell nothing (safety 11)."""
    query = vmodl.query.PropertyCollector
    vm = vim.VirtualMachine("vm-1")
    lost = [
        query.MissingProperty(path="name", fault=vim.fault.NotAuthenticated()),
        query.MissingProperty(path="x", fault=vim.fault.NoPermission()),
    ]
    for missing, allowed in ((lost, False), (lost[1:], True)):
        page = SimpleNamespace(objects=[query.ObjectContent(obj=vm, propSet=[], missingSet=missing)], token=None)
        content = SimpleNamespace(propertyCollector=SimpleNamespace(RetrievePropertiesEx=lambda specs, options, page=page: page))
        if allowed:
            assert collector.read_some(content, [vm], ("name",)) == [("vm-1", {})]
        else:
            with pytest.raises(vim.fault.NotAuthenticated):
                collector.read_some(content, [vm], ("name",))
