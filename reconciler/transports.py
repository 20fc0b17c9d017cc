"""How the copy pod reaches each disk of its spec: one reader or stream a disk, and what has to be held open meanwhile.

What it is: the only place that knows all transports. What it is not: the mover. An SDK is loaded only where a lease needs it.
Where it stands: worker.py enters it, asks for an intake per disk, and leaves it when all is proven or lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from reconciler.core.copyspec import CopyDisk, CopySpec, ExportSpec, Reader
from reconciler.errors import UserError
from reconciler.mover.intake import Intake, RangeIntake, StreamIntake
from reconciler.mover.keeper import Keeper
from reconciler.mover.pool import Stop
from reconciler.wire.auth import FileAuth
from reconciler.wire.export import HttpVmdkStream
from reconciler.wire.http import HttpRangeReader
from reconciler.wire.nbd import NbdReader
from reconciler.wire.nbdkit import VddkServer

if TYPE_CHECKING:
    from reconciler.ports import Clock


class Transports:
    """A context. `percent` tells a lease how far the copy is."""

    def __init__(self, spec: CopySpec, auth: FileAuth, clock: Clock, stop: Stop, percent: Callable[[], int]) -> None:
        self._spec, self._auth, self._clock = spec, auth, clock
        self._stop, self._percent = stop, percent
        self._keeper: Keeper | None = None
        self._servers: list[VddkServer] = []

    def __enter__(self) -> Transports:
        if self._spec.export is not None:
            self._keeper = self._keep(self._spec.export).__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for server in self._servers:
            server.close()
        if self._keeper is not None:
            self._keeper.__exit__(kind, error, trace)

    def _keep(self, export: ExportSpec) -> Keeper:
        from reconciler.drivers.vsphere.export import connect  # pyVmomi takes a second and 60 MiB, and only a lease needs it

        lease = connect(export, self._spec.tls, Path(self._spec.credentials_dir), self._clock)
        return Keeper(lease, self._percent, self._stop)

    def intake(self, disk: CopyDisk) -> Intake:
        """Errors: UserError ReaderUnknown; what the readers say about their URLs."""
        spec, size = self._spec, disk.capacity_bytes
        match disk.reader:
            case Reader.HTTP_RANGE:
                return RangeIntake(HttpRangeReader.open(disk.url, size, spec.tls, self._auth, self._clock, trial=disk.trial))
            case Reader.NBD:
                return RangeIntake(self._nbd(disk))
            case Reader.VMDK_STREAM:
                return StreamIntake(self._stream(disk))
            case _:
                text = f"{disk.label}: this worker has no reader {disk.reader.value!r}; use the image of the reconciler's version"
                raise UserError("ReaderUnknown", text)

    def _nbd(self, disk: CopyDisk) -> NbdReader:
        spec = self._spec
        if spec.vddk is None:
            return NbdReader.open(disk.url, disk.capacity_bytes, self._clock)
        server = VddkServer(spec.vddk, disk, spec.tls, Path(spec.credentials_dir), self._clock)
        self._servers.append(server)
        return NbdReader.open(server.url, disk.capacity_bytes, self._clock, explain=server.explain)

    def _stream(self, disk: CopyDisk) -> HttpVmdkStream:
        spec, size = self._spec, disk.capacity_bytes
        if self._keeper is None:
            return HttpVmdkStream.open(disk.url, size, spec.tls, self._auth, disk.label)
        if (leased := self._keeper.disks.get(disk.uuid)) is None:
            raise UserError("SpecInvalid", f"{disk.label}: its reader needs a lease, and the spec's export does not name it")
        # The URL is the ticket; user and password are for the vCenter, and no business of a host that it names.
        return HttpVmdkStream.open(leased.url, size, leased.tls, FileAuth(None), disk.label)
