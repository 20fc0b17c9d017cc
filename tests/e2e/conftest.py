"""Marks this folder as the e2e tier, and holds the servers that its tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.lab.tls import LabCa
from tests.e2e import parts
from tests.e2e.control_plane import ControlPlane

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if not item.config.getoption("--e2e"):
                item.add_marker(pytest.mark.skip(reason="needs --e2e"))


@pytest.fixture(scope="session")
def e2e_ca(tmp_path_factory: pytest.TempPathFactory) -> LabCa:
    return LabCa(tmp_path_factory.mktemp("e2e-ca"))


@pytest.fixture(scope="session")
def control_plane(e2e_ca: LabCa, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One for the session; each test takes a namespace of its own."""
    crds = parts.crds()
    with ControlPlane(parts.go_program("kube"), crds, tmp_path_factory.mktemp("control-plane"), e2e_ca) as plane:
        yield plane
