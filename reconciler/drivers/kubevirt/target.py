"""`ports.TargetDriver` on a cluster with KubeVirt: each method of the port, said in terms of apply.py, inventory.py and copyjob.py.

What it is: the order of requests inside one method. What it is not: builders (objects, pods, machine), readers (parse), fault mapping.
Nothing here waits, polls or tries again.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime

from reconciler.core.copyspec import CopyDisk, CopySpec
from reconciler.core.inventory import SiteInfo
from reconciler.core.model import Absent, Known, Mark, Power, Secret, Watermark
from reconciler.core.target import BinderSpec, CopyJob, Instance, Owner, TargetInventory, TargetVm, TargetVmSpec, Volume, VolumeSpec
from reconciler.drivers.kubevirt import apply, claims, copyjob, failures, inventory, labels, machine, objects, parse, pods
from reconciler.drivers.kubevirt import resources as kinds
from reconciler.drivers.kubevirt.api import Api
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.errors import TerminalError
from reconciler.ports import CopyProgress, CopySource

_RENAME = "rename it, or set targetName for this VM in the Plan"
_REMOVE = "remove or rename it"


class KubeVirtTarget:
    """Thread-safe: no state but the connection pool and the site's identity, which cannot change under one url."""

    def __init__(self, api: Api, settings: TargetSettings, us: Instance) -> None:
        """`us`: what was made under another instance is read as not ours; for writes, the Owner says so."""
        self._api = api
        self._settings = settings
        self._us = us

    # ---- reads

    def read_site(self) -> SiteInfo:
        """The uid of namespace kube-system is the customary identity of a cluster."""
        version, reply = self._api.read_path("/version")
        system = self._api.get(kinds.NAMESPACES, None, "kube-system")
        return SiteInfo(system["metadata"]["uid"], "Kubernetes", str(version.get("gitVersion") or ""), _http_date(reply.date))

    def read_inventory(self, namespaces: Sequence[str]) -> TargetInventory:
        return inventory.read(self._api, self.read_site(), namespaces, self._us)

    def read_vm(self, namespace: str, name: str) -> Known[TargetVm] | Absent:
        vm = self._api.find(kinds.MACHINES, namespace, name)
        if vm is None:
            return Absent()
        return Known(parse.target_vm(vm, self._api.find(kinds.INSTANCES, namespace, name), self._us))

    def read_vms(self, namespace: str) -> tuple[TargetVm, ...]:
        return inventory.read_vms(self._api, namespace, self._us)

    def read_volume(self, namespace: str, name: str) -> Known[Volume] | Absent:
        return claims.read(self._api, namespace, name, self._us)

    def read_secret(self, namespace: str, name: str) -> Mapping[str, Secret] | None:
        """Errors: TerminalError InvalidSecret for a value that is no text."""
        found = self._api.find(kinds.SECRETS, namespace, name)
        if found is None:
            return None
        try:
            return {key: Secret(base64.b64decode(value).decode()) for key, value in (found.get("data") or {}).items()}
        except (binascii.Error, UnicodeDecodeError) as err:
            raise TerminalError("InvalidSecret", f"Secret {namespace}/{name} holds a value that is not UTF-8 text") from err

    def read_progress(self, namespace: str, job: str) -> CopyProgress:
        return copyjob.read_progress(self._api, namespace, job)

    # ---- what a VM needs on the target

    def ensure_namespace(self, name: str) -> None:
        """Read first: where the namespace is prepared for us, our account need not be allowed to create any."""
        found = self._api.find(kinds.NAMESPACES, None, name)
        if found is None:
            try:
                self._api.create(kinds.NAMESPACES, objects.namespace(name))
            except failures.AlreadyExists:
                return
        elif parse.deleting(found):
            raise failures.being_deleted("Namespace", "", name)

    def ensure_volume(self, spec: VolumeSpec, adopt: Volume | None) -> None:
        claims.ensure(self._api, spec, adopt)

    def ensure_binder(self, spec: BinderSpec) -> None:
        apply.create_or_find(self._api, kinds.PODS, pods.binder(spec, self._settings), spec.owner, _REMOVE)

    def ensure_vm(self, spec: TargetVmSpec) -> None:
        """The POST makes it Halted; the apply of a later pass names no run strategy, so it cannot turn a running VM off."""
        _, made = apply.create_or_find(self._api, kinds.MACHINES, machine.create(spec), spec.owner, _RENAME)
        if not made:
            self._api.apply(kinds.MACHINES, machine.desired(spec))

    def request_power(self, namespace: str, name: str, want: Power, owner: Owner) -> None:
        """Errors: ValueError for a power that cannot be asked for."""
        strategy = {Power.ON: machine.ALWAYS, Power.OFF: machine.HALTED}.get(want)
        if strategy is None:
            raise ValueError(f"power {want} cannot be requested")
        found = apply.read_ours(self._api, kinds.MACHINES, namespace, name, owner)
        if found["spec"].get("runStrategy") != strategy:
            notes: dict[str, str | None] = {**labels.progress_annotations(owner)}
            apply.patch_annotations(self._api, kinds.MACHINES, found, notes, {"runStrategy": strategy})

    def ensure_copy(self, job: CopyJob, disks: Sequence[CopyDisk], source: CopySource, spec: CopySpec) -> None:
        copyjob.ensure(self._api, self._settings, job, disks, source, spec)

    # ---- proofs

    def put_mark(self, volume: Volume, mark: Mark | None, owner: Owner) -> None:
        claims.put_mark(self._api, volume, mark, owner)

    def put_watermark(self, volume: Volume, watermark: Watermark) -> None:
        claims.put_watermark(self._api, volume, watermark)

    # ---- the way back, and the end

    def drop_copy(self, namespace: str, name: str, owner: Owner) -> None:
        """Foreground: the Job stays visible until its pods are gone, so "no Job" means "no writer of this Job"."""
        apply.drop(self._api, kinds.JOBS, namespace, name, owner, "Foreground")

    def drop_binder(self, namespace: str, name: str, owner: Owner) -> None:
        apply.drop(self._api, kinds.PODS, namespace, name, owner)

    def drop_vm(self, namespace: str, name: str, owner: Owner) -> None:
        apply.drop(self._api, kinds.MACHINES, namespace, name, owner, "Foreground")

    def drop_volume(self, namespace: str, name: str, owner: Owner) -> None:
        apply.drop(self._api, kinds.VOLUMES, namespace, name, owner)

    def release_volumes(self, vm: TargetVm, volumes: Sequence[Volume], owner: Owner) -> None:
        reference = objects.owner_reference(machine.API_VERSION, "VirtualMachine", vm.name, vm.uid)
        for volume in volumes:
            claims.add_owner(self._api, volume, reference, owner)

    def close(self) -> None:
        self._api.close()


def _http_date(text: str) -> datetime | None:
    """The server's own clock (RFC 9110 Date), for the comparison with ours (safety 19)."""
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None
