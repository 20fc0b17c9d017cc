"""Action -> Outcome: one short handler per action. Declared acts read their guards again, right before they are done.
The lease is asked for before an act begins, and again (leased.py) right before each effect.

What it is: the only place from which the engine changes a site. What it is not: a decision, a retry or a wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from reconciler.core import guards
from reconciler.core.actions import (
    DECLARED,
    ActError,
    Action,
    DropBinder,
    DropCopy,
    DropSnapshot,
    DropTargetVm,
    DropVolumes,
    EnableTracking,
    EnsureBinder,
    EnsureCopy,
    EnsureNamespace,
    EnsureSnapshot,
    EnsureVm,
    EnsureVolumes,
    Outcome,
    PowerSource,
    ProveOff,
    PutMarks,
    PutWatermarks,
    ReleaseVolumes,
    StartTarget,
)
from reconciler.core.inventory import SourceVm
from reconciler.core.model import Absent, Known, Power, PowerRequest
from reconciler.engine.copies import Doubts, ensure_copy, must_be_free
from reconciler.engine.leased import Leased
from reconciler.engine.sites import Sites
from reconciler.errors import LeaseLost, ReconcilerError, RetryableError, TerminalError, UserError
from reconciler.ports import Clock, StatusRepo

log = logging.getLogger(__name__)

# The platform refuses us, not this VM: an expired token must not fail (and give back) every VM of the site. The VM waits.
OF_THE_SITE = frozenset({"AuthFailed", "CertificateInvalid", "ThumbprintMismatch", "NotAVCenter", "InvalidSecret"})


class GuardRefused(Exception):
    """A guard said no: the intent is void and is decided anew."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What an act needs. `lease_ttl_s` is the TTL that the lease's age is judged by."""

    sites: Sites
    repo: StatusRepo
    clock: Clock
    lease_ttl_s: float


def execute(action: Action, hands: Hands) -> Outcome:
    """Never raises what a port may raise; anything else is a bug and becomes kind "internal"."""
    name = type(action).__name__
    try:
        _lease(action, hands)
        found = _act(action, Leased(hands.sites, lambda: _lease(action, hands)))
    except GuardRefused as refused:
        log.warning("a guard refused a declared act", extra={"action": name, "vm": action.key[1], "why": str(refused)})
        return Outcome(action.key, name, hands.clock.now(), ActError("void", "GuardRefused", str(refused)))
    except ReconcilerError as err:
        log.warning("act failed", extra={"action": name, "vm": action.key[1], "reason": err.reason, "error": err.message})
        return Outcome(action.key, name, hands.clock.now(), _act_error(err))
    except Exception as err:  # the per-VM boundary: one bad VM harms no other
        log.exception("act ended in a bug", extra={"action": name, "vm": action.key[1]})
        return Outcome(action.key, name, hands.clock.now(), ActError("internal", "InternalError", f"{type(err).__name__}: {err}"))
    if not isinstance(action, ProveOff):
        log.info("act done", extra={"action": name, "vm": action.key[1]})
    proof, doubted = (None, found) if isinstance(found, tuple) else (found, ())
    return Outcome(action.key, name, hands.clock.now(), None, proof, doubted)


def _act_error(err: ReconcilerError) -> ActError:
    match err:
        case RetryableError(retry_after_s=after):
            return ActError("retryable", err.reason, err.message, after)
        case TerminalError() if err.reason in OF_THE_SITE:
            return ActError("retryable", err.reason, err.message)
        case TerminalError():
            return ActError("terminal", err.reason, err.message)
        case UserError():
            return ActError("user", err.reason, err.message)
        case _:
            return ActError("retryable", err.reason, err.message)


def _lease(action: Action, hands: Hands) -> None:
    """No effect without the lease as it is at this moment; a declared act needs it younger than half its TTL."""
    age, ttl = hands.repo.lease_age_s(), hands.lease_ttl_s
    if isinstance(action, DECLARED):
        if (why := guards.lease_fresh(age, ttl)) is not None:
            raise GuardRefused(why)
    elif age is None or age >= ttl:
        raise LeaseLost("LeaseLost", "the lease ran out before the act; it is decided anew")


def _act(action: Action, sites: Leased) -> Known[SourceVm] | Absent | Doubts | None:
    match action:
        case EnsureNamespace():
            sites.target_at(action.site).ensure_namespace(action.namespace)
        case EnsureVolumes():
            _ensure_volumes(action, sites)
        case EnsureBinder():
            sites.target_at(action.site).ensure_binder(action.spec)
        case DropBinder():
            sites.target_at(action.site).drop_binder(action.namespace, action.name, action.owner)
        case EnsureVm():
            sites.target_at(action.site).ensure_vm(action.spec)
        case PowerSource():
            _power_source(action, sites)
        case ProveOff():
            return sites.source_at(action.site).read_vm(action.vm)
        case EnableTracking():
            sites.source_at(action.site).enable_tracking(action.vm)
        case EnsureSnapshot():
            sites.source_at(action.site).ensure_snapshot(action.vm, action.snapshot)
        case DropSnapshot():
            sites.source_at(action.site).drop_snapshot(action.vm, action.snapshot, action.merge)
        case EnsureCopy():
            return ensure_copy(action, sites)
        case PutMarks():
            for volume, mark in action.marks:
                sites.target_at(action.site).put_mark(volume, mark, action.owner)
        case PutWatermarks():
            for volume, watermark in action.watermarks:
                sites.target_at(action.site).put_watermark(volume, watermark)
        case DropCopy():
            sites.target_at(action.site).drop_copy(action.namespace, action.name, action.owner)
        case StartTarget():
            _start_target(action, sites)
        case ReleaseVolumes():
            sites.target_at(action.site).release_volumes(action.vm, action.volumes, action.owner)
        case DropTargetVm():
            target = sites.target_at(action.site)
            _ask(guards.may_delete_vm(target.read_vm(action.namespace, action.name)))
            target.drop_vm(action.namespace, action.name, action.owner)
        case DropVolumes():
            _drop_volumes(action, sites)
        case _:
            assert_never(action)
    return None


def _ask(why_not: str | None) -> None:
    if why_not is not None:
        raise GuardRefused(why_not)


def _ensure_volumes(action: EnsureVolumes, sites: Leased) -> None:
    target = sites.target_at(action.site)
    if adopted := [spec for spec, adopt in action.volumes if adopt is not None]:
        must_be_free(target, adopted[0].namespace, [spec.name for spec in adopted], adopted[0].owner.source)
    for spec, adopt in action.volumes:
        target.ensure_volume(spec, adopt)


def _power_source(action: PowerSource, sites: Leased) -> None:
    source = sites.source_at(action.site)
    if action.target is None:
        raise GuardRefused("there is no target VM to compare with")
    site, namespace, name = action.target
    target = sites.target_at(site).read_vm(namespace, name)
    seen = source.read_vm(action.vm)
    judge: Callable[..., str | None] = guards.may_power_on if action.want is PowerRequest.ON else guards.may_power_off
    _ask(judge(seen, action.vm.uuid, target))
    if guards.power_need(seen, action.want):
        source.request_power(action.vm, action.want)


def _start_target(action: StartTarget, sites: Leased) -> None:
    target = sites.target_at(action.site)
    volumes = tuple((uuid, target.read_volume(action.namespace, pvc)) for pvc, uuid in action.volumes)
    _ask(guards.taken(target.read_vms(action.namespace), action.namespace, (pvc for pvc, _ in action.volumes), action.owner.source))
    vm = target.read_vm(action.namespace, action.name)
    source = sites.source_at(action.source.provider).read_vm(action.source)
    _ask(guards.may_start_target(source, action.source.uuid, action.epoch, action.number, vm, volumes, action.owner.source))
    target.request_power(action.namespace, action.name, Power.ON, action.owner)


def _drop_volumes(action: DropVolumes, sites: Leased) -> None:
    target = sites.target_at(action.site)
    vms = target.read_vms(action.namespace)
    for name in action.names:
        _ask(guards.may_delete_volume(target.read_volume(action.namespace, name), vms))
    for name in action.names:
        target.drop_volume(action.namespace, name, action.owner)
