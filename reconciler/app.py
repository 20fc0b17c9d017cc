"""Composition root of the reconciler: clock, repo, drivers, engine. Knows no lab.

What it is: the one place where implementations meet ports. What it is not: logic.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from reconciler import credentials
from reconciler.clock import SystemClock
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Platform, Secret
from reconciler.core.target import Instance
from reconciler.drivers import registry
from reconciler.engine.loop import Engine, Rules
from reconciler.engine.publish import Pace
from reconciler.engine.sites import Sites
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.repo import GitRepo
from reconciler.ports import Clock, SourceDriver, TargetDriver
from reconciler.settings import Settings

if TYPE_CHECKING:
    from reconciler.drivers.kubevirt.options import TargetSettings
    from reconciler.drivers.kubevirt.wake import Wake

MOMENT_S = 0.2
HOME = ProviderSpec(ObjectRef("", "home"), Platform.OPENSHIFT, "", None, {}, Place("", 0))


class Drivers:
    """engine.sites.Connector on the real drivers. Secrets come from files, else from the cluster that the reconciler is at home in."""

    def __init__(self, settings: Settings, clock: Clock, notify: Callable[[], None] | None = None, *, loop: bool = False) -> None:
        """`notify`: called, from threads, when something of ours changed on a connected target. `loop`: sites are read again and again."""
        self._settings, self._clock, self._notify, self._loop = settings, clock, notify, loop
        self._home: TargetDriver | None = None
        self._wakes: dict[ObjectRef, Wake] = {}

    def source(self, provider: ProviderSpec) -> SourceDriver:
        hosts = {"read_secret": self._read_secret} if provider.hosts else {}  # only vsphere has them
        driver: SourceDriver = registry.source_factory(provider.platform)(
            provider, self._secret(provider), self._clock, follow=self._loop, **hosts
        )
        return driver

    def target(self, provider: ProviderSpec, instance: Instance) -> TargetDriver:
        secret = self._secret(provider) if provider.secret is not None else None
        driver = self._connect_target(provider, secret, instance)
        if self._notify is not None:
            self.release(provider.ref)
            self._wakes[provider.ref] = self._connect_wake(provider, secret, self._notify)
        return driver

    def fingerprint(self, provider: ProviderSpec) -> str:
        return credentials.fingerprint(self._secret(provider))

    def _connect_target(self, provider: ProviderSpec, secret: Mapping[str, Secret] | None, instance: Instance) -> TargetDriver:
        settings = self._settings
        driver: TargetDriver = registry.target_factory(provider.platform)(
            provider, secret, kubeconfig=settings.kubeconfig, settings=self._target_settings(), clock=self._clock, instance=instance
        )
        return driver

    def _connect_wake(self, provider: ProviderSpec, secret: Mapping[str, Secret] | None, notify: Callable[[], None]) -> Wake:
        from reconciler.drivers.kubevirt.session import connect_wake

        kubeconfig, settings = self._settings.kubeconfig, self._target_settings()
        wake = connect_wake(provider, secret, kubeconfig=kubeconfig, settings=settings, clock=self._clock, notify=notify)
        wake.start()
        return wake

    def _target_settings(self) -> TargetSettings:
        from reconciler.drivers.kubevirt.options import TargetSettings

        return TargetSettings(worker_image=self._settings.worker_image, image_pull_policy=self._settings.image_pull_policy)

    def _secret(self, provider: ProviderSpec) -> dict[str, Secret]:
        if provider.secret is None:
            return {}
        return dict(self._read_secret(provider.secret))

    def _read_secret(self, ref: ObjectRef) -> Mapping[str, Secret]:
        return credentials.read(ref, self._settings.credentials_dir, self._from_cluster)

    def _from_cluster(self, namespace: str, name: str) -> dict[str, Secret] | None:
        if self._home is None:
            self._home = self._connect_target(HOME, None, Instance())
        found = self._home.read_secret(namespace, name)
        return dict(found) if found is not None else None

    def release(self, provider: ObjectRef) -> None:
        wake = self._wakes.pop(provider, None)
        if wake is not None:
            wake.close()

    def close(self) -> None:
        for ref in list(self._wakes):
            self.release(ref)
        if self._home is not None:
            self._home.close()
            self._home = None


class Alarm:
    """The wait between two passes, which a wake-up ends early. Wake-ups come in bursts: each wait lasts a moment all the same."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = threading.Event()

    def ring(self) -> None:
        self._rung.set()

    def wait(self, seconds: float) -> None:
        moment = min(seconds, MOMENT_S)
        self._clock.sleep(moment)
        self._rung.wait(max(0.0, seconds - moment))
        self._rung.clear()


def open_repo(settings: Settings, clock: Clock) -> GitRepo:
    config = RepoConfig(
        url=settings.repo,
        cache_dir=settings.cache_dir,
        holder=settings.holder,
        branch=settings.branch,
        path=settings.path,
        status_branch=settings.status_branch,
        lease_branch=settings.lease_branch,
        lease_ttl_s=settings.lease_ttl_s,
        askpass=settings.git_askpass,
        ssh_command=settings.git_ssh_command,
        environment=settings.environment,
    )
    return GitRepo(config, clock)


def open_sites(settings: Settings, clock: Clock) -> Sites:
    return Sites(Drivers(settings, clock), clock, settings.site_budget_s)


def build_engine(settings: Settings, clock: Clock | None = None, *, loop: bool) -> Engine:
    clock = clock or SystemClock()
    alarm = Alarm(clock)
    drivers = Drivers(settings, clock, alarm.ring, loop=loop)
    rules = Rules(
        lease_ttl_s=settings.lease_ttl_s,
        poll_s=settings.poll_s,
        act_budget_s=settings.site_budget_s,
        pace=Pace(settings.commit_interval_s, settings.progress_interval_s),
    )
    origin = f"{settings.repo}#{settings.branch or 'HEAD'}:{settings.path}"
    sites = Sites(drivers, clock, settings.site_budget_s)
    return Engine(open_repo(settings, clock), sites, clock, rules, origin, alarm.wait)
