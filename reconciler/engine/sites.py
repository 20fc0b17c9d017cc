"""The drivers of this process, one per Provider, and the threads that talk to them.

What it is: lazily connected drivers, closed and connected anew when their Provider changed; one bulk read at a time per site, with a time
budget, so that a slow or dead site delays only its own VMs. What it is not: knowledge of any platform (the app hands in a Connector).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from reconciler.core.desired import ProviderSpec
from reconciler.core.inventory import Inventory
from reconciler.core.lookup import SiteIndex
from reconciler.core.model import Known, ObjectRef, Unknown
from reconciler.core.target import Instance
from reconciler.errors import ReconcilerError, RetryableError, TerminalError
from reconciler.ports import Clock, SourceDriver, TargetDriver

log = logging.getLogger(__name__)
T = TypeVar("T")

THREADS_PER_SITE = 8
ASK_AGAIN_S = 30.0  # between two looks at the Secret of a refused site


class Connector(Protocol):
    """Makes drivers; app.py has the one that knows the registry and the credentials. `fingerprint` changes when the credentials do.

    release: the drivers of that Provider were closed, so what else hangs on it may go.
    """

    def source(self, provider: ProviderSpec) -> SourceDriver: ...
    def target(self, provider: ProviderSpec, instance: Instance) -> TargetDriver: ...
    def fingerprint(self, provider: ProviderSpec) -> str: ...
    def release(self, provider: ObjectRef) -> None: ...
    def close(self) -> None: ...


class Sites:
    """`budget_s`: how long a pass waits for one site's bulk read or acts before it goes on without them.

    read_seconds: how long the newest read of each site took, for metrics; empty without a clock.
    """

    def __init__(self, connector: Connector, budget_s: float = 20.0, clock: Clock | None = None) -> None:
        self._connector = connector
        self._clock = clock
        self.read_seconds: dict[ObjectRef, float] = {}
        self._budget_s = budget_s
        self._instance = Instance()
        self._specs: dict[ObjectRef, ProviderSpec] = {}
        self._sources: dict[ObjectRef, SourceDriver] = {}
        self._targets: dict[ObjectRef, TargetDriver] = {}
        self._refused: set[ObjectRef] = set()
        self._credentials: dict[ObjectRef, str] = {}  # fingerprint of what a driver was made with
        self._asked_at: dict[ObjectRef, float] = {}  # when the Secret of a refused site was last looked at
        self._pools: dict[ObjectRef, ThreadPoolExecutor] = {}
        self._reading: dict[ObjectRef, Future[object]] = {}
        self._indexes: dict[ObjectRef, SiteIndex] = {}

    def use(self, providers: Mapping[ObjectRef, ProviderSpec], instance: Instance) -> None:
        """Forget drivers whose Provider changed or is gone, and all that took another reconciler's objects for ours."""
        if instance != self._instance:
            self._instance = instance
            for ref in list(self._targets):
                self._drop(ref)
        for ref in [r for r, spec in self._specs.items() if providers.get(r) != spec]:
            self._drop(ref)

    def _drop(self, ref: ObjectRef) -> None:
        self._specs.pop(ref, None)
        self._indexes.pop(ref, None)
        self._disconnect(ref)

    def _disconnect(self, ref: ObjectRef) -> None:
        self._refused.discard(ref)
        for driver in (self._sources.pop(ref, None), self._targets.pop(ref, None)):
            if driver is not None:
                driver.close()
        self._connector.release(ref)

    def source(self, provider: ProviderSpec) -> SourceDriver:
        if provider.ref not in self._sources:
            self._specs[provider.ref] = provider
            self._credentials[provider.ref] = self._connector.fingerprint(provider)
            self._sources[provider.ref] = self._connector.source(provider)
        return self._sources[provider.ref]

    def target(self, provider: ProviderSpec) -> TargetDriver:
        if provider.ref not in self._targets:
            self._specs[provider.ref] = provider
            self._credentials[provider.ref] = self._connector.fingerprint(provider)
            self._targets[provider.ref] = self._connector.target(provider, self._instance)
        return self._targets[provider.ref]

    def source_at(self, ref: ObjectRef) -> SourceDriver:
        """An already connected driver (for acts). Errors: RetryableError NotConnected."""
        if ref not in self._sources:
            raise RetryableError("NotConnected", f"Provider {ref} is not connected")
        return self._sources[ref]

    def target_at(self, ref: ObjectRef) -> TargetDriver:
        if ref not in self._targets:
            raise RetryableError("NotConnected", f"Provider {ref} is not connected")
        return self._targets[ref]

    def index(self, ref: ObjectRef, inventory: Inventory) -> SiteIndex:
        known = self._indexes.get(ref)
        if known is None or known.inventory is not inventory:
            known = self._indexes[ref] = SiteIndex(inventory)
        return known

    def submit(self, ref: ObjectRef, work: Callable[[], T]) -> Future[T]:
        """Run `work` on the site's own bounded threads."""
        pool = self._pools.get(ref)
        if pool is None:
            pool = self._pools[ref] = ThreadPoolExecutor(THREADS_PER_SITE, thread_name_prefix=f"site-{ref.name}")
        return pool.submit(work)

    def read_all(self, reads: Mapping[ObjectRef, tuple[ProviderSpec, Callable[[], T]]]) -> dict[ObjectRef, Known[T] | Unknown]:
        """Bulk reads side by side. A read that is over its budget goes on and counts in a later pass."""
        results: dict[ObjectRef, Known[T] | Unknown] = {}
        futures: dict[ObjectRef, Future[object]] = {}
        for ref, (provider, read) in reads.items():
            self._specs.setdefault(ref, provider)
            running = self._reading.get(ref)
            futures[ref] = running if running is not None else self.submit(ref, self._renewed(provider, read))
            self._reading[ref] = futures[ref]
        wait(futures.values(), timeout=self._budget_s)
        for ref, future in futures.items():
            results[ref] = self._harvest(ref, future)
        return results

    def _renewed(self, provider: ProviderSpec, read: Callable[[], T]) -> Callable[[], T]:
        """A refused site gets a new driver once its Secret has changed. Until then the old one, which knows whether asking is safe."""

        def work() -> T:
            began = self._clock.monotonic() if self._clock is not None else 0.0
            if provider.ref in self._refused and self._may_ask(provider.ref, began) and self._changed(provider):
                log.info("credentials changed, connecting anew", extra={"provider": str(provider.ref)})
                self._disconnect(provider.ref)
            try:
                return read()
            finally:
                if self._clock is not None:
                    self.read_seconds[provider.ref] = self._clock.monotonic() - began

        return work

    def _may_ask(self, ref: ObjectRef, now: float) -> bool:
        """Without a clock always."""
        if self._clock is not None and now - self._asked_at.get(ref, float("-inf")) < ASK_AGAIN_S:
            return False
        self._asked_at[ref] = now
        return True

    def _changed(self, provider: ProviderSpec) -> bool:
        return self._connector.fingerprint(provider) != self._credentials.get(provider.ref)

    def _harvest(self, ref: ObjectRef, future: Future[object]) -> Known[T] | Unknown:
        if not future.done():
            return Unknown("Slow", f"Provider {ref} did not answer within {self._budget_s:.0f} s; its VMs wait, others go on")
        del self._reading[ref]
        try:
            known: Known[T] = Known(future.result())  # type: ignore[arg-type]
            self._refused.discard(ref)
            return known
        except ReconcilerError as err:
            log.warning("site cannot be read", extra={"provider": str(ref), "reason": err.reason, "error": err.message})
            unknown = Unknown(err.reason, err.message, terminal=isinstance(err, TerminalError))
            if unknown.terminal:
                self._refused.add(ref)
            return unknown
        except Exception as err:  # a bug in one driver stops its own site, not the pass
            log.exception("site read ended in a bug", extra={"provider": str(ref)})
            return Unknown("InternalError", f"reading Provider {ref} ended in a bug ({type(err).__name__}); see the log")

    def close(self) -> None:
        for ref in list(self._specs):
            self._drop(ref)
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._connector.close()
