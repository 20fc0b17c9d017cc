"""The target contract, and what only a simulator can arrange, against the lab's cluster over the real SDK."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from reconciler.clock import SystemClock
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Power, Secret
from reconciler.core.target import Instance
from reconciler.drivers.kubevirt import session
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.drivers.kubevirt.rbac import RULES
from reconciler.drivers.kubevirt.wake import Wake
from reconciler.errors import RetryableError, TerminalError
from reconciler.lab.clock import WallClock
from reconciler.lab.cluster.site import Cluster
from reconciler.lab.tls import LabCa
from reconciler.ports import TargetDriver
from tests.contract import target_site as want
from tests.contract.suite_target import DROP, TargetContract, eventually, is_write, not_in_conflict, seen_vm, seen_volume, switch
from tests.contract.target_site import Json

WORKER = """
import sys, time
print(open(sys.argv[1]).read(), flush=True)
time.sleep(60)
"""


class LabTarget:
    """target_site.TargetSite on a lab cluster of its own."""

    immediate_class, waiting_class = "bulk", "fast"

    def __init__(self, folder: Path, ca: LabCa) -> None:
        self._folder, self._ca = folder, ca
        script = folder / "worker.py"
        script.write_text(WORKER)
        self._lines = folder / "lines"
        self._lines.write_text("")
        programs = {"reconciler": [sys.executable, str(script), str(self._lines)], "sleep": ["sleep"]}
        self.cluster = Cluster(folder / "cluster", ca, WallClock(), programs=programs)
        self.cluster.start()
        self.faults = self.cluster.faults
        self._drivers: list[TargetDriver] = []
        self.driver = self.connect()
        self.namespace = "shop"
        self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})

    def connect(self, *, page_size: int = 500, timeout_s: float = 10.0, instance: Instance = want.US) -> TargetDriver:
        secret = {"token": Secret(self.cluster.token), "cacert": Secret(self._ca.pem)}
        return self.connect_with(
            secret, settings=TargetSettings("image", request_timeout_s=timeout_s, page_size=page_size), instance=instance
        )

    def connect_with(
        self,
        secret: dict[str, Secret],
        *,
        url: str | None = None,
        kubeconfig: Path | None = None,
        settings: TargetSettings | None = None,
        instance: Instance = want.US,
    ) -> TargetDriver:
        provider = ProviderSpec(
            ObjectRef("mtv", "target"), "openshift", self.cluster.url if url is None else url, None, {}, Place("p.yaml", 1)
        )
        settings = settings or TargetSettings("image")
        driver = session.connect(provider, secret, kubeconfig=kubeconfig, settings=settings, clock=SystemClock(), instance=instance)
        self._drivers.append(driver)
        return driver

    def put(self, obj: Json) -> Json:
        return self.cluster.put(obj)

    def find(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        return self.cluster.find(kind, self.namespace if namespace is None else namespace, name)

    def find_all(self, kind: str) -> list[Json]:
        return self.cluster.find_all(kind, self.namespace)

    def settle(self) -> None:
        self.cluster.step()

    def writes(self) -> Sequence[str]:
        return [f"{a.verb} {a.resource}/{a.name}" for a in self.cluster.audit if a.actor == "reconciler"]

    def requests(self) -> int:
        return sum(self.cluster.calls.values())

    def worker_prints(self, lines: Sequence[str]) -> None:
        self._lines.write_text("\n".join(lines))

    def close(self) -> None:
        for driver in self._drivers:
            driver.close()
        self.cluster.stop()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> LabCa:
    return LabCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def site(tmp_path: Path, ca: LabCa) -> Iterator[LabTarget]:
    lab = LabTarget(tmp_path, ca)
    yield lab
    lab.close()


class TestKubeVirtLab(TargetContract):
    pass


class TestTheWayIn:
    def test_a_kubeconfig_leads_to_this_cluster(self, site: LabTarget, tmp_path: Path) -> None:
        path = tmp_path / "kubeconfig"
        site.cluster.write_kubeconfig(path)
        assert site.connect_with({}, url="", kubeconfig=path).read_site().uuid == site.cluster.uid

    def test_a_wrong_token_is_for_a_person_and_does_not_show(self, site: LabTarget, ca: LabCa) -> None:
        driver = site.connect_with({"token": Secret("wrong-token-of-mine"), "ca.crt": Secret(ca.pem)})
        with pytest.raises(TerminalError, match="AuthFailed") as caught:
            driver.read_site()
        assert "wrong-token-of-mine" not in str(caught.value)

    def test_a_certificate_of_an_unknown_ca_is_refused_with_the_remedy(self, site: LabTarget, tmp_path: Path) -> None:
        other = LabCa(tmp_path / "other")
        for secret in ({"cacert": Secret(other.pem)}, {}):
            driver = site.connect_with({"token": Secret(site.cluster.token), **secret})
            with pytest.raises(TerminalError, match="CertificateInvalid") as caught:
                driver.read_site()
            assert "cacert" in caught.value.message

    def test_only_the_word_true_switches_verification_off(self, site: LabTarget) -> None:
        driver = site.connect_with({"token": Secret(site.cluster.token), "insecureSkipVerify": Secret("true")})
        assert driver.read_site().uuid == site.cluster.uid

    def test_nobody_listening_is_retryable(self, site: LabTarget, ca: LabCa) -> None:
        driver = site.connect_with({"token": Secret("some-long-token"), "cacert": Secret(ca.pem)}, url="https://127.0.0.1:1")
        with pytest.raises(RetryableError, match="Unreachable"):
            driver.read_site()


def open_wake(site: LabTarget, ca: LabCa, notify: Callable[[], None]) -> Wake:
    provider = ProviderSpec(ObjectRef("mtv", "target"), "openshift", site.cluster.url, None, {}, Place("p.yaml", 1))
    secret = {"token": Secret(site.cluster.token), "cacert": Secret(ca.pem)}
    return session.connect_wake(provider, secret, kubeconfig=None, settings=TargetSettings("image"), clock=SystemClock(), notify=notify)


class TestWake:
    def test_a_change_of_ours_wakes_and_a_strangers_does_not(self, site: LabTarget, ca: LabCa) -> None:
        woken = threading.Semaphore(0)
        wake = open_wake(site, ca, woken.release)
        wake.start()
        try:
            assert woken.acquire(timeout=5)
            assert woken.acquire(timeout=5)  # both watches are open
            site.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "x", "namespace": "shop"}, "spec": {}})
            assert not woken.acquire(timeout=0.3)
            site.driver.ensure_volume(want.volume(site), None)
            assert woken.acquire(timeout=5)
            site.driver.ensure_copy(*want.copy_arguments(site))
            assert woken.acquire(timeout=5)
        finally:
            started = time.monotonic()
            wake.close()
        assert time.monotonic() - started < 2

    @pytest.mark.parametrize("letters", ["RR", "HH"])
    def test_trouble_is_no_error_and_closing_does_not_wait_for_it(self, site: LabTarget, ca: LabCa, letters: str) -> None:
        site.cluster.deny("watch", "jobs")
        site.faults.script(letters)
        wake = open_wake(site, ca, lambda: None)
        wake.start()
        eventually(site, lambda: site.faults.spent)
        started = time.monotonic()
        wake.close()
        assert time.monotonic() - started < 4


class TestWhatTheClusterRefuses:
    @pytest.mark.parametrize(("verb", "resource"), [("create", "persistentvolumeclaims"), ("list", "nodes")])
    def test_a_missing_right_names_verb_and_resource(self, site: LabTarget, verb: str, resource: str) -> None:
        site.cluster.deny(verb, resource)
        with pytest.raises(RetryableError, match="Forbidden") as caught:
            site.driver.ensure_volume(want.volume(site), None)
            site.driver.read_inventory([site.namespace])
        assert f'grant the verb "{verb}" on {resource}' in caught.value.message

    def test_an_inventory_survives_a_cluster_without_cdi_and_multus(self, tmp_path: Path, ca: LabCa) -> None:
        with Cluster(tmp_path / "bare", ca, WallClock(), programs={}, cdi=False) as bare:
            provider = ProviderSpec(ObjectRef("mtv", "target"), "openshift", bare.url, None, {}, Place("p.yaml", 1))
            secret = {"token": Secret(bare.token), "cacert": Secret(ca.pem)}
            driver = session.connect(
                provider, secret, kubeconfig=None, settings=TargetSettings("image"), clock=SystemClock(), instance=want.US
            )
            classes = driver.read_inventory([]).storage_classes
            driver.close()
        assert {(c.name, c.overhead, c.default_volume_mode) for c in classes} == {("fast", None, None), ("bulk", None, None)}


class TestRights:
    def test_the_rights_we_ask_for_are_those_we_use(self, site: LabTarget, ca: LabCa) -> None:
        """Every method of the port, so often that each of its ways is gone."""
        woken = threading.Semaphore(0)
        wake = open_wake(site, ca, woken.release)
        wake.start()
        self.use_everything(site)
        assert woken.acquire(timeout=5)
        assert woken.acquire(timeout=5)
        wake.close()
        used = {call for call in site.cluster.calls if not call.endswith("version")}
        assert used == {f"{verb} {rule.resource}" for rule in RULES for verb in rule.verbs}

    def use_everything(self, site: LabTarget) -> None:
        driver, namespace = site.driver, site.namespace
        driver.ensure_namespace("new")
        driver.ensure_volume(want.volume(site, waiting=True), None)
        assert seen_volume(site).waits_for_consumer
        for node in ("node-a", "node-b"):
            site.cluster.cordon(node)
        driver.ensure_binder(want.binder(site))
        eventually(site, lambda: driver.read_inventory([namespace]).binders[0].message.startswith("Unschedulable"))
        for node in ("node-a", "node-b"):
            site.cluster.cordon(node, on=False)
        for _ in range(2):
            driver.ensure_volume(want.volume(site, waiting=True), None)
            driver.ensure_binder(want.binder(site))
            driver.ensure_vm(want.machine(site))
        eventually(site, lambda: seen_volume(site).phase == "Bound")
        driver.put_mark(seen_volume(site), None, want.OWNER)
        switch(site, Power.ON)
        switch(site, Power.OFF)
        job, disks, source, spec = want.copy_arguments(site)
        site.faults.script("..R", only=is_write)
        with pytest.raises(RetryableError):
            driver.ensure_copy(job, disks, source, spec)
        driver.ensure_copy(job, disks, replace(source, credentials={}), spec)
        eventually(site, lambda: driver.read_progress(namespace, job.name) is not None and site.cluster.calls["get pods/log"] > 0)
        driver.release_volumes(seen_vm(site), [seen_volume(site)], want.OWNER)
        driver.read_inventory([namespace])
        for _, drop in DROP.values():
            eventually(site, partial(not_in_conflict, partial(drop, site, want.OWNER)))
