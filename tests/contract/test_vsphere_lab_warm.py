"""Warm rounds of the vSphere driver against the simulated vCenter: the contract, and what only vSphere has."""

from __future__ import annotations

from tests.contract import test_vsphere_lab as cold
from tests.contract.suite_warm import WarmContract

cas, vcenter, site = cold.cas, cold.vcenter, cold.site


class TestVsphereWarmContract(WarmContract):
    """The neutral contract."""
