"""An export of a VM's disks, held by the copy pod: an HttpNfcLease that it opens, keeps alive and ends itself.

What it is: the lease as ports.SourceLease, over a session of the pod's own. What it is not: the streams (wire/export.py), the thread that
keeps it alive (mover/keeper.py), or what becomes of a dead worker's lease (leases.py, in the reconciler).
Source: vSphere Web Services API: VirtualMachine.ExportVm (powered off), VirtualMachineSnapshot.ExportSnapshot (API 6.7), HttpNfcLease. The
site ends a lease that reports no progress for leaseTimeout seconds, 300 by default; until then the VM cannot be powered on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reconciler.core.copyspec import ExportSpec, TlsSpec
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Secret, VmRef
from reconciler.drivers.vsphere import subject
from reconciler.drivers.vsphere.sdk import kind, moid, reference, vim
from reconciler.drivers.vsphere.session import ESXI, Session
from reconciler.errors import ReconcilerError, RetryableError, TerminalError
from reconciler.ports import Clock, LeasedDisk

log = logging.getLogger(__name__)

_READY_S, _LOOK_S = 300.0, 1.0  # a snapshot's export looks through its chain first
_OPEN, _READY, _ERROR = "initializing", "ready", "error"


def connect(spec: ExportSpec, tls: TlsSpec, credentials: Path, clock: Clock) -> VsphereExport:
    """No call is made yet. Errors: TerminalError CaUnreadable; UserError for a url or credentials that are wrong."""
    secret = {
        name: Secret((credentials / name).read_text().rstrip("\r\n")) for name in ("user", "password") if (credentials / name).exists()
    }
    if tls.ca_file is not None:
        try:
            secret["ca.crt"] = Secret(Path(tls.ca_file).read_text())
        except OSError as err:
            raise TerminalError("CaUnreadable", f"CA file {tls.ca_file} cannot be read: {err.strerror}") from err
    settings = {"sdkEndpoint": ESXI} if spec.esxi else {}
    if tls.thumbprint:
        settings["thumbprint"] = tls.thumbprint
    if tls.insecure:
        secret["insecureSkipVerify"] = Secret("true")
    provider = ProviderSpec(ObjectRef("", "export"), "vsphere", spec.url, None, settings, Place("", 0))
    return VsphereExport(spec, tls, Session(provider, secret), clock)


class VsphereExport:
    """Methods are called by one thread at a time, but for `close`."""

    def __init__(self, spec: ExportSpec, tls: TlsSpec, session: Session, clock: Clock) -> None:
        self._spec, self._tls, self._session, self._clock = spec, tls, session, clock
        self._what = f"export of {spec.name} ({spec.snapshot or spec.vm})"
        self._id: str | None = None
        self.heard_every_s = 30.0

    def open(self) -> Mapping[str, LeasedDisk]:
        """Begin the export and wait until it is ready; disk uuid -> where it streams.

        Errors: TerminalError VMGone, ExportIncomplete (a disk is not in it: independent, or not the VM's any more); RetryableError
        ExportRefused, ExportSlow, ProviderChanged, and what the session says.
        """
        self._id = self._session.run(f"begin the {self._what}", self._begin)
        log.info("export begun", extra={"what": self._what})
        until = self._clock.monotonic() + _READY_S
        while (state := self._session.run(f"read the {self._what}", self._state)) != _READY:
            if state != _OPEN:
                raise RetryableError("ExportRefused", f"{self._what}: the site ended it before it was ready")
            if self._clock.monotonic() >= until:
                raise RetryableError("ExportSlow", f"{self._what}: the site did not get it ready within {_READY_S:.0f} s")
            self._clock.sleep(_LOOK_S)
        return self._session.run(f"read the {self._what}", self._disks)

    def progress(self, percent: int) -> None:
        """Errors: RetryableError for a lease that is gone; then the streams break too."""
        self._session.run(f"keep the {self._what}", lambda content: self._lease(content).HttpNfcLeaseProgress(percent))

    def complete(self) -> None:
        self._session.run(f"end the {self._what}", lambda content: self._lease(content).HttpNfcLeaseComplete())
        self._id = None

    def abort(self) -> None:
        """Never raises: the site ends it too, though later."""
        if self._id is None:
            return
        try:
            self._session.run(f"abort the {self._what}", lambda content: self._lease(content).HttpNfcLeaseAbort())
        except ReconcilerError as err:
            log.warning("export could not be aborted", extra={"what": self._what, "reason": err.reason})
        self._id = None

    def close(self) -> None:
        self._session.close()

    def _begin(self, content: Any) -> str:
        spec = self._spec
        ref = VmRef(ObjectRef("", "export"), spec.site_uuid, spec.vm, spec.vm_uuid, spec.name)
        target, _ = subject.read(content, self._session.site, ref, ())
        if spec.snapshot is None:
            return moid(target.ExportVm())
        return moid(reference(content, vim.vm.Snapshot, spec.snapshot).ExportSnapshot())

    def _lease(self, content: Any) -> Any:
        return reference(content, vim.HttpNfcLease, self._id or "")

    def _state(self, content: Any) -> str:
        """Errors: what ended the lease, by `Session.run`."""
        lease = self._lease(content)
        state = str(lease.state)
        if state == _ERROR and (error := lease.error) is not None:
            raise error
        return state

    def _disks(self, content: Any) -> Mapping[str, LeasedDisk]:
        spec, info = self._spec, self._lease(content).info
        if info.leaseTimeout:
            self.heard_every_s = max(1.0, min(self.heard_every_s, info.leaseTimeout / 4))
        offered = {str(url.key).rpartition("/")[2]: url for url in info.deviceUrl if url.disk}
        source = reference(content, vim.vm.Snapshot, spec.snapshot) if spec.snapshot else reference(content, vim.VirtualMachine, spec.vm)
        names = device_names(source.config.hardware.device)
        out: dict[str, LeasedDisk] = {}
        for uuid, key in spec.devices:
            name = names.get(key, "")
            if name not in offered:
                have = ", ".join(sorted(offered)) or "none"
                raise TerminalError(
                    "ExportIncomplete", f"{self._what}: disk {uuid} (device {key}, {name or 'gone'}) is not in it; it has {have}"
                )
            out[uuid] = self._leased(offered[name])
        return out

    def _leased(self, url: Any) -> LeasedDisk:
        """`*` is the host that we talk to. The pin of another host comes through a session that is trusted already."""
        parts = urlsplit(str(url.url))
        authority = self._session.endpoint.authority if parts.hostname in (None, "*") else parts.netloc
        pin = str(url.sslThumbprint or "")
        tls = self._tls if self._tls.insecure or not pin else TlsSpec(thumbprint=pin)
        return LeasedDisk(parts._replace(netloc=authority).geturl(), tls)


def device_names(devices: list[Any]) -> dict[int, str]:
    """Key of a disk -> the last part of its name in a lease, `ParaVirtualSCSIController0:1`: class and number of its controller, unit."""
    controllers = {d.key: f"{kind(d)}{d.busNumber or 0}" for d in devices if isinstance(d, vim.vm.device.VirtualController)}
    disks = [d for d in devices if isinstance(d, vim.vm.device.VirtualDisk)]
    return {d.key: f"{controllers.get(d.controllerKey, '')}:{d.unitNumber or 0}" for d in disks}
