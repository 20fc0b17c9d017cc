"""A site's certificate expires in mid-run: it is said, nothing is decided on what is not seen, and renewed it goes on.

The vCenter's and the API server's; that of a git server is in the e2e tier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from reconciler.lab.machines import Happening
from tests.integration.loops import TTL_S, go_on, happened, machine, passes, record_of
from tests.integration.simlab import Ended, SimLab

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def present(lab: SimLab, days: int, site: str = "vcenter") -> None:
    """A certificate of the lab's CA that holds for so many days; below zero: that has expired."""
    if site == "cluster":
        lab.cluster.present(days)
        return
    lab.vcenter.restart(lab.ca.server_context(lab.vcenter.certificate, days)[0])


def arrange(lab: SimLab, **vm: bool) -> None:
    lab.vm("web", **vm)
    lab.plan("web", annotations='{reconciler.dev/guest-shutdown-timeout: "60"}')
    lab.migration()
    lab.commit()


def assert_told(lab: SimLab, text: str, site: str = "vcenter") -> None:
    where = lab.cluster.url if site == "cluster" else f"127.0.0.1:{lab.vcenter.port}"
    assert where in text and "expired" in text and "renew it" in text, text


def assert_same_end(lab: SimLab) -> None:
    go_on(lab, lab.ended, seconds=3.0)
    lab.assert_moved("web")
    kinds = happened(lab, "web")
    assert [kinds.count(k) for k in (Happening.GUEST_SHUTDOWN, Happening.OFF)] == [1, 1], "no power act twice"
    assert len(lab.cluster.vm_starts) == 1


@pytest.mark.parametrize("phase", ["PowerOffSource", "CopyDisks", "HandOver"])
@pytest.mark.parametrize("site", ["vcenter", "cluster"])
def test_no_deadline_runs_while_the_certificate_has_expired(tmp_path: Path, site: str, phase: str) -> None:
    """With the guest asked and deaf, its 60 s are not up after twenty minutes."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab, ignores_shutdown=phase == "PowerOffSource")
        go_on(lab, lambda: any(v.phase == phase for v in lab.vms()))
        if phase == "PowerOffSource":
            go_on(lab, lambda: happened(lab, "web").count(Happening.GUEST_SHUTDOWN) == 1)
        present(lab, -1, site)
        acts = [k for k in happened(lab, "web") if k is not Happening.GUEST_SHUTDOWN]
        passes(lab, 40, seconds=30.0)
        record = record_of(lab, "web")
        assert record.error is None and record.result is None and record.phase == phase
        assert_told(lab, record.message, site)
        assert [k for k in happened(lab, "web") if k is not Happening.GUEST_SHUTDOWN] == acts and not lab.cluster.vm_starts
        present(lab, 30, site)
        if phase == "PowerOffSource":
            passes(lab, 5, seconds=1.0)
            assert record_of(lab, "web").error is None, "that time did not count"
            lab.world.power_off(machine(lab, "web"), "somebody")
        assert_same_end(lab)


def test_a_copy_that_meets_an_expired_certificate_is_attempted_again(tmp_path: Path) -> None:
    """Its source is off and proven: to fail the VM, and boot it again, would help nobody."""
    with SimLab(tmp_path, ttl_s=TTL_S) as lab:
        arrange(lab)
        start = lab.inline.start

        def expire(argv: Sequence[str], env: Mapping[str, str], cwd: Path, log_path: Path) -> Ended:
            if "--try" not in argv and lab.inline.starts == 0:
                present(lab, -1)
            return start(argv, env, cwd, log_path)

        lab.inline.start = expire  # type: ignore[method-assign]
        go_on(lab, lambda: lab.inline.starts == 1 and not lab.cluster.find_all("Pod", "shop"), limit=20)
        passes(lab, 10, seconds=30.0)
        record = record_of(lab, "web")
        assert record.result is None and record.error is None, record.message
        assert_told(lab, record.message)
        present(lab, 30)
        assert_same_end(lab)
        assert lab.inline.starts == 2
