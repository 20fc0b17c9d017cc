"""Rules for all tests: git's environment is pinned; no property is timed; --e2e and --deep switch the long tiers on."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

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

# Without a deadline the time that the data takes is not judged either: on a busy machine, or with Hypothesis' tables still to be made, one
# document may take seconds.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


TIERS = (("--e2e", "real software"), ("--deep", "long sweeps and random lives"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--e2e", action="store_true", help="also run against real software (see README)")
    parser.addoption("--deep", action="store_true", help="long sweeps and random lives")


def pytest_report_header(config: pytest.Config) -> str:
    tiers = [f"{option} ({what})" for option, what in TIERS if not config.getoption(option)]
    return f"tiers not asked for: {', '.join(tiers)}" if tiers else "all tiers"


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays. Without it in the way, a collection of cycles takes a tenth of the time, and each SimLab ends with one."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What belongs to a tier that was not asked for is left out, and the header says so. Tests that share a costly run come first.

    xdist's workers take tests from each other's far ends: in the middle of such a module, each would live through the run again.
    """
    if unstable := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"an address in a test's name, which is another in each worker: {unstable[0]}")
    items.sort(key=lambda item: item.get_closest_marker("shared") is None)
    off = {option.removeprefix("--") for option, _ in TIERS if not config.getoption(option)}
    left_out = [item for item in items if any(item.get_closest_marker(tier) for tier in off)]  # keywords have the names of folders, too
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
