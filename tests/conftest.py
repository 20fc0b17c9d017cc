"""Rules for all tests: git's environment is pinned; --e2e and --deep switch the long tiers on."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite(*(f"tests.contract.suite_{name}" for name in ("source", "target", "repo", "disk")))

for name in [n for n in os.environ if n.startswith("GIT_")]:
    del os.environ[name]
os.environ.update(
    GIT_CONFIG_GLOBAL="/dev/null",
    GIT_CONFIG_NOSYSTEM="1",
    GIT_AUTHOR_NAME="A. Person",
    GIT_AUTHOR_EMAIL="person@test.invalid",
    GIT_COMMITTER_NAME="A. Person",
    GIT_COMMITTER_EMAIL="person@test.invalid",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--e2e", action="store_true", help="also run against real software (see README)")
    parser.addoption("--deep", action="store_true", help="long sweeps and random lives")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for mark, option in (("e2e", "--e2e"), ("deep", "--deep")):
        if not config.getoption(option):
            skip = pytest.mark.skip(reason=f"needs {option}")
            for item in items:
                if mark in item.keywords:
                    item.add_marker(skip)
