"""The drivers of this process, one per Provider, and the threads that talk to them.

What it is: lazily connected drivers, closed and connected anew when their Provider changed; one bulk read at a time per site. A slow or
dead site delays only its own VMs: it has a time budget once, is not waited for again while it is late, and holds no thread but its own.
What it is not: knowledge of any platform (the app hands in a Connector).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
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

THREADS_PER_LANE = 8
ASK_AGAIN_S = 30.0  # between two looks at the Secret of a refused site
STILL_S = 5.0  # what has not moved for so long is not waited for, while others could go on
TIMES = 4.0  # ... and a site that took longer the last time gets so many times that

ACT = "act"
Lane = tuple[str, *tuple[ObjectRef, ...]]  # what is done, and all sites that it may have to wait for


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

    def __init__(self, connector: Connector, clock: Clock, budget_s: float = 20.0) -> None:
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
        self._pools: dict[Lane, ThreadPoolExecutor] = {}
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

    def _drop(self, ref: ObjectRef) -> list[Future[None]]:
        """What is being read is not asked for any more. A site that hangs must not hold up its own replacement."""
        for known in (self._specs, self._indexes, self._reading, self.read_seconds):
            known.pop(ref, None)
        return self._disconnect(ref)

    def _disconnect(self, ref: ObjectRef) -> list[Future[None]]:
        self._refused.discard(ref)
        drivers = (self._sources.pop(ref, None), self._targets.pop(ref, None))
        self._connector.release(ref)
        return [self.submit(("close", ref), driver.close) for driver in drivers if driver is not None]

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

    def submit(self, lane: Lane, work: Callable[[], T]) -> Future[T]:
        """Run `work` on bounded threads that only work for these very sites uses: a thread that hangs is missed by nobody else."""
        pool = self._pools.get(lane)
        if pool is None:
            name = "-".join((lane[0], *(ref.name for ref in lane[1:])))
            pool = self._pools[lane] = ThreadPoolExecutor(THREADS_PER_LANE, thread_name_prefix=name)
        return pool.submit(work)

    def read_all(self, reads: Mapping[ObjectRef, tuple[ProviderSpec, Callable[[], T]]]) -> dict[ObjectRef, Known[T] | Unknown]:
        """Bulk reads side by side. A read that is not waited for any longer goes on and counts in a later pass."""
        began = self._clock.monotonic()
        until = {ref: began + self._patience_s(ref) for ref in reads}
        for ref, (provider, read) in reads.items():
            self._specs.setdefault(ref, provider)
            if ref not in self._reading:
                self._reading[ref] = self.submit(("read", ref), self._renewed(provider, read))
        for ref in sorted(reads, key=until.__getitem__):
            wait([self._reading[ref]], timeout=max(0.0, until[ref] - self._clock.monotonic()))
        return {ref: self._harvest(ref, self._reading[ref]) for ref in reads}

    def _patience_s(self, ref: ObjectRef) -> float:
        """The whole budget the first time. One whose last answer came too late, or has not come yet, is asked but not waited for."""
        last = self.read_seconds.get(ref)
        if ref in self._reading or (last is not None and last >= self._budget_s):
            return 0.0
        return self._budget_s if last is None else min(self._budget_s, max(STILL_S, TIMES * last))

    def _renewed(self, provider: ProviderSpec, read: Callable[[], T]) -> Callable[[], T]:
        """A refused site gets a new driver once its Secret has changed. Until then the old one, which knows whether asking is safe."""

        def work() -> T:
            began = self._clock.monotonic()
            if provider.ref in self._refused and self._may_ask(provider.ref, began) and self._changed(provider):
                log.info("credentials changed, connecting anew", extra={"provider": str(provider.ref)})
                self._disconnect(provider.ref)
            try:
                return read()
            finally:
                self.read_seconds[provider.ref] = self._clock.monotonic() - began

        return work

    def _may_ask(self, ref: ObjectRef, now: float) -> bool:
        if now - self._asked_at.get(ref, float("-inf")) < ASK_AGAIN_S:
            return False
        self._asked_at[ref] = now
        return True

    def _changed(self, provider: ProviderSpec) -> bool:
        return self._connector.fingerprint(provider) != self._credentials.get(provider.ref)

    def _harvest(self, ref: ObjectRef, future: Future[object]) -> Known[T] | Unknown:
        if not future.done():
            return Unknown("Slow", f"Provider {ref} does not answer in time; its VMs wait, others go on")
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

    def acts_ended(self, within_s: float) -> bool:
        """Acts that have not begun are dropped, no more are taken. Whether those under way have ended within so many seconds."""
        pools = [pool for lane, pool in self._pools.items() if lane[0] == ACT]
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        waiter = threading.Thread(target=_shut, args=(pools,), name="acts-end", daemon=True)
        waiter.start()
        waiter.join(within_s)
        return not waiter.is_alive()

    def close(self) -> None:
        wait([closing for ref in list(self._specs) for closing in self._drop(ref)])
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._connector.close()


def _shut(pools: Iterable[ThreadPoolExecutor]) -> None:
    for pool in pools:
        pool.shutdown(wait=True)


def settle(futures: Iterable[Future[T]], budget_s: float) -> None:
    """Wait until all have ended; at most for the budget, and no longer once none has ended for STILL_S."""
    pending = set(futures)
    for _ in range(max(1, int(budget_s / STILL_S))):
        ended, pending = wait(pending, timeout=min(STILL_S, budget_s))
        if not ended or not pending:
            return
