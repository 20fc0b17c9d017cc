"""A guest that takes a minute to shut down, over the whole lab: ShutdownGuest is sent once, though the reconciler is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.model import Result
from reconciler.core.record import IntentKind
from reconciler.lab.machines import Happening
from tests.integration.loops import go_on, happened
from tests.integration.simlab import SimLab
from tests.integration.taps import Wire
from tests.integration.test_safety import arrange

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def accepted(lab: SimLab) -> bool:
    return bool(lab.vms()) and any(i.kind is IntentKind.POWER_OFF_SOURCE and i.accepted_at for i in lab.record("web").intents)


def test_the_guest_is_asked_once_though_the_reconciler_is_killed_meanwhile(tmp_path: Path) -> None:
    with SimLab(tmp_path, ttl_s=5.0) as lab:
        arrange(lab, shutdown_s=60.0)
        go_on(lab, lambda: accepted(lab))
        for _ in range(2):
            lab.wire.dead = True
            lab.stop()
            lab.wire = Wire()
            lab.clock.sleep(6.0)
            lab.start()
            for _ in range(3):
                lab.clock.sleep(1.0)
                assert lab.engine is not None
                lab.engine.one_pass()
        go_on(lab, lab.ended, 100, seconds=2.0)
        assert lab.record("web").result is Result.SUCCEEDED
        assert happened(lab, "web").count(Happening.GUEST_SHUTDOWN) == 1
