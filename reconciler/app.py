"""Composition root of the reconciler: clock, repo, drivers, engine. Knows no lab.

What it is: the one place where implementations meet ports. What it is not: logic.
"""

from __future__ import annotations

from reconciler import credentials
from reconciler.clock import SystemClock
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Platform, Secret
from reconciler.drivers import registry
from reconciler.engine.loop import Engine, Rules
from reconciler.engine.publish import Pace
from reconciler.engine.sites import Sites
from reconciler.gitrepo.config import RepoConfig
from reconciler.gitrepo.repo import GitRepo
from reconciler.ports import Clock, SourceDriver, TargetDriver
from reconciler.settings import Settings

HOME = ProviderSpec(ObjectRef("", "home"), Platform.OPENSHIFT, "", None, {}, Place("", 0))


class Drivers:
    """engine.sites.Connector on the real drivers. Secrets come from files, else from the cluster that the reconciler is at home in."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._home: TargetDriver | None = None

    def source(self, provider: ProviderSpec) -> SourceDriver:
        driver: SourceDriver = registry.source_factory(provider.platform)(provider, self._secret(provider), self._clock)
        return driver

    def target(self, provider: ProviderSpec) -> TargetDriver:
        secret = self._secret(provider) if provider.secret is not None else None
        return self._connect_target(provider, secret)

    def fingerprint(self, provider: ProviderSpec) -> str:
        return credentials.fingerprint(self._secret(provider))

    def _connect_target(self, provider: ProviderSpec, secret: object) -> TargetDriver:
        from reconciler.drivers.kubevirt.options import TargetSettings

        settings = self._settings
        driver: TargetDriver = registry.target_factory(provider.platform)(
            provider,
            secret,
            kubeconfig=settings.kubeconfig,
            settings=TargetSettings(worker_image=settings.worker_image, image_pull_policy=settings.image_pull_policy),
            clock=self._clock,
        )
        return driver

    def _secret(self, provider: ProviderSpec) -> dict[str, Secret]:
        if provider.secret is None:
            return {}
        return dict(credentials.read(provider.secret, self._settings.credentials_dir, self._from_cluster))

    def _from_cluster(self, namespace: str, name: str) -> dict[str, Secret] | None:
        if self._home is None:
            self._home = self._connect_target(HOME, None)
        found = self._home.read_secret(namespace, name)
        return dict(found) if found is not None else None

    def close(self) -> None:
        if self._home is not None:
            self._home.close()


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
    return Sites(Drivers(settings, clock), settings.site_budget_s)


def build_engine(settings: Settings, clock: Clock | None = None) -> Engine:
    clock = clock or SystemClock()
    drivers = Drivers(settings, clock)
    rules = Rules(
        lease_ttl_s=settings.lease_ttl_s,
        poll_s=settings.poll_s,
        act_budget_s=settings.site_budget_s,
        pace=Pace(settings.commit_interval_s, settings.progress_interval_s),
    )
    origin = f"{settings.repo}#{settings.branch or 'HEAD'}:{settings.path}"
    return Engine(open_repo(settings, clock), Sites(drivers, settings.site_budget_s), clock, rules, origin)
