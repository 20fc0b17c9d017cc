"""Three vCenters, one of which dies in the middle of its run: the others end as soon as if it had lived, and no pass waits for it.

A dead one refuses connections, answers nothing but errors, hangs, or hangs only where VMs are acted on. When it is back, its own VMs go on.
Ten VMs on the dead one: more than there are threads that work for a site. When it is dead, a second run begins there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.model import Result
from reconciler.drivers.kubevirt import options
from reconciler.lab.machines import Datastore, Host, Network
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World
from tests.integration.loops import go_on, tale
from tests.integration.simlab import MANIFESTS, PASSWORD, USER, Inline, SimLab

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.shared,
]

ALIVE, DEAD = ("north", "south"), "east"
COUNT = {"north": 2, "south": 2, DEAD: 10}
LATER = "later"  # its VMs are on the dead one
STALL_S = 5.0  # a pass that took longer has waited for the dead, which may happen once
MOMENTS = {"before the first pass": 0, "powering off": 5, "copying": 7}  # passes
ACTS = ("PropertyCollector.RetrievePropertiesEx", "EventManager.QueryEvents", "VirtualMachine.")


class Center:
    """One more vCenter beside the SimLab's own, with its Provider, maps, plan and run."""

    def __init__(self, lab: SimLab, name: str) -> None:
        self.name = name
        self.world = World(lab.root / name, lab.clock, seed=[*COUNT].index(name))
        dc = self.world.add_datacenter("DC1")
        host = self.world.add_host(f"esx-{name}", self.world.add_cluster("C1", dc))
        store, network = self.world.add_datastore("ds", dc, base_readable=True), self.world.add_network("VM Network", dc)
        self.world.add_datastore("locked", dc, base_readable=False)
        self.vcenter = VCenter(self.world, lab.ca, lab.clock, user=USER, password=PASSWORD)
        self.vcenter.start()
        self.add(lab, name, COUNT[name], host, store, network)
        if name == DEAD:
            self.add(lab, LATER, 2, host, store, network)
        lab.write(f"sites/{name}.yaml", self._named(MANIFESTS.format(url=self.vcenter.url).replace(HOME, "")))
        lab.migration(f"run-{name}", f"wave-{name}")

    def add(self, lab: SimLab, wave: str, count: int, host: Host, store: Datastore, network: Network) -> None:
        names = [f"{wave}-{i}" for i in range(count)]
        for name in names:
            vm = self.world.add_vm(name, host)
            self.world.add_disk(vm, store, 1, 1)
            nic = self.world.add_nic(vm, network)
            nic.mac = nic.mac.replace("00:50:56:00:", f"00:50:56:{[*COUNT].index(self.name):02x}:")
            self.world.power_on(vm)
        lab.plan(*names, name=f"wave-{wave}")
        plan = lab.clone / f"plans/wave-{wave}.yaml"
        plan.write_text(self._named(plan.read_text()))

    def _named(self, text: str) -> str:
        for kind in ("vc", "net", "store"):
            text = text.replace(f"name: {kind},", f"name: {kind}-{self.name},")
        return text

    def stop(self) -> None:
        self.vcenter.stop()
        self.world.stop()


HOME = MANIFESTS.split("---\n")[1].format() + "---\n"  # the target, which the SimLab's own manifests have


class Cut:
    """Copies from a dead vCenter do not get on, and go on when it is back."""

    def __init__(self, inline: Inline) -> None:
        self.inline = inline
        self.away: int | None = None  # its port

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log_path: Path) -> Any:
        if self.away is None or "--try" in argv or f":{self.away}/" not in Path(argv[-1]).read_text():
            return self.inline.start(argv, env, cwd, log_path)
        return Waiting(self, (argv, env, cwd, log_path))


@dataclass
class Waiting:
    cut: Cut
    call: tuple[Any, ...]
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None and self.cut.away is None:
            self.code = self.cut.inline.start(*self.call).code
        return self.code

    def terminate(self) -> None:
        self.code = -15

    def kill(self) -> None:
        self.code = -9


class Estate:
    def __init__(self, lab: SimLab) -> None:
        self.lab = lab
        self.centers = {name: Center(lab, name) for name in COUNT}
        self.cut = lab.cluster._kubelets._launcher = Cut(lab.inline)
        lab.commit()
        lab.clock.then = self.settle
        self.stalls: list[float] = []

    def settle(self) -> None:
        for center in self.centers.values():
            center.world.tick()
        self.lab.settle()

    def die(self, how: str) -> None:
        dead = self.centers[DEAD].vcenter
        self.cut.away = dead.port
        match how:
            case "refuses":
                dead.stop()
            case "errors":
                dead.faults.script("RB" * 10_000)
            case "hangs":
                dead.faults.script("H" * 10_000)
            case "hangs at acts":
                dead.faults.script("H" * 10_000, lambda label: label.startswith(ACTS))

    def revive(self) -> None:
        """Restarted: connections that hang are cut."""
        dead = self.centers[DEAD].vcenter
        dead.faults.script("")
        dead.stop()
        dead.start()
        self.cut.away = None

    def ended(self, *names: str) -> bool:
        runs = self.lab.reports[-1].records.runs if self.lab.reports else {}
        return all(any(r.run.name == f"run-{n}" and r.result for r in runs.values()) for n in names)

    def passes(self, until: Sequence[str], *, die_at: int | None = None, how: str = "") -> int:
        """How many it took until the runs of `until` had ended."""
        engine = self.lab.engine or self.lab.start()
        for number in range(100):
            if number == die_at:
                self.die(how)
            if die_at is not None and number == die_at + 2:
                self.lab.migration(f"run-{LATER}", f"wave-{LATER}")
                self.lab.commit()
            began = time.monotonic()
            self.lab.reports.append(engine.one_pass())
            if (took := time.monotonic() - began) >= STALL_S:
                self.stalls.append(took)
            if self.ended(*until):
                return number
            self.lab.clock.sleep(0.5)
        raise AssertionError(tale(self.lab))

    def assert_moved(self, *names: str) -> None:
        records = {v.name: v for v in self.lab.vms()}
        for center in (self.centers[DEAD if name == LATER else name] for name in names):
            world = center.world
            for vm in (v for v in world.vms.values() if v.name.startswith(names)):
                record = records[vm.name]
                assert record.result is Result.SUCCEEDED and record.frozen is not None, f"{vm.name}: {record.message}"
                want = world.bytes_at_power_off(vm, vm.disks[0]).read_bytes()
                assert self.lab.cluster.volume_path("shop", record.frozen.disks[0].pvc).read_bytes()[: len(want)] == want
                assert self.lab.target_on(record.frozen.name)


@contextmanager
def three(root: Path) -> Iterator[Estate]:
    with SimLab(root, ttl_s=600.0) as lab:
        estate = Estate(lab)
        try:
            yield estate
        finally:
            estate.revive()
            lab.stop()
            for center in estate.centers.values():
                center.stop()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many passes it takes where all three live."""
    with three(tmp_path_factory.mktemp("alive")) as estate:
        passes = estate.passes(ALIVE)
        assert estate.passes((DEAD,)) == 0, "all three end at once"
        estate.assert_moved(*COUNT)
    return passes


@pytest.mark.parametrize(
    ("moment", "how"),
    [
        ("before the first pass", "refuses"),
        ("copying", "refuses"),
        ("powering off", "errors"),
        ("copying", "hangs"),
        ("copying", "hangs at acts"),
    ],
)
def test_a_dead_vcenter_delays_only_its_own(tmp_path: Path, usual: int, moment: str, how: str) -> None:
    with three(tmp_path) as estate:
        took = estate.passes(ALIVE, die_at=MOMENTS[moment], how=how)
        assert usual <= took <= usual + 1, "one more where this machine is so busy that a living site is late, too"
        assert len(estate.stalls) <= 1 and sum(estate.stalls) < 3 * STALL_S, estate.stalls
        estate.assert_moved(*ALIVE)
        assert not estate.ended(DEAD)
        estate.revive()
        go_on(estate.lab, lambda: estate.ended(DEAD, LATER), 200, seconds=2.0)
        estate.assert_moved(DEAD, LATER)
        estate.lab.assert_nothing_left()


def test_a_provider_that_hangs_may_be_edited_and_is_connected_anew_at_once(tmp_path: Path, usual: int) -> None:
    """Nobody waits for the old connection: neither for what it is asked, nor for its end."""
    with three(tmp_path) as estate:
        estate.passes(ALIVE, die_at=MOMENTS["copying"], how="hangs")
        estate.centers[DEAD].vcenter.faults.script("H" * 100, lambda label: label.endswith("Logout"))
        estate.cut.away = None
        sites = estate.lab.clone / f"sites/{DEAD}.yaml"
        sites.write_text(sites.read_text().replace("  secret: {name", '  settings: {requestTimeoutSeconds: "50"}\n  secret: {name', 1))
        estate.lab.commit()
        assert estate.passes((DEAD, LATER)) <= usual
        assert len(estate.stalls) <= 1 and sum(estate.stalls) < 3 * STALL_S, estate.stalls
        estate.assert_moved(*COUNT, LATER)


def test_logs_of_a_lost_node_are_waited_for_once_and_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server then says nothing until the request runs out. Progress is all that is missing meanwhile."""
    monkeypatch.setattr(options, "TargetSettings", partial(options.TargetSettings, request_timeout_s=12.0))
    with SimLab(tmp_path, ttl_s=600.0) as lab:
        cut = lab.cluster._kubelets._launcher = Cut(lab.inline)
        cut.away = lab.vcenter.port
        lab.vm("web")
        lab.vm("db")
        lab.plan("web", "db")
        lab.migration()
        lab.commit()
        lab.cluster.faults.script("H" * 100, lambda label: label.endswith("/log"))
        lab.passes(lambda: sum(j["status"].get("active", 0) for j in lab.cluster.find_all("Job")) == 2)
        began = time.monotonic()
        for _ in range(4):
            lab.clock.sleep(0.5)
            lab.reports.append(lab.engine.one_pass() if lab.engine else lab.start().one_pass())
        assert time.monotonic() - began < 2 * STALL_S, "one wait of 5 s"
        assert sum(label.endswith("/log") for label in lab.cluster.faults.seen) == 2
        cut.away = None
        lab.run()
        lab.assert_moved("web")
        lab.assert_moved("db")
