"""What the target contract needs besides a driver: arranging and judging as a cluster administrator, and the neutral values it asks for.

What it is: a Protocol small enough for a simulated and for a real API server. What it is not: any simulator's own interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from reconciler.core.copyspec import CopyDisk, CopySpec, Reader, TlsSpec, VddkSpec
from reconciler.core.model import Secret
from reconciler.core.target import (
    BinderSpec,
    CopyJob,
    Instance,
    Owner,
    Placement,
    TargetDisk,
    TargetNic,
    TargetVmSpec,
    VolumeMode,
    VolumeSpec,
)
from reconciler.ports import CopySource, TargetDriver

Json = dict[str, Any]
MIB = 1 << 20
PASSWORD = "correct-horse-battery-staple"

US, THEM = Instance("us-5d41402abc4b"), Instance("them-7b0ce1f2a9")
OWNER = Owner("openshift-mtv/wave-1", "openshift-mtv/run-1", "web-3f9c2a1b", "site-uuid/vm-uuid", "None", "c0ffee", US)
NEXT_RUN = replace(OWNER, migration="openshift-mtv/run-2", commit="beef")
OTHER_VM = replace(OWNER, vm="db-11111111", source="site-uuid/other-vm")


class FaultScript(Protocol):
    def script(self, letters: str, only: Callable[[str], bool] | None = None) -> None: ...

    @property
    def spent(self) -> bool: ...


class TargetSite(Protocol):
    """A cluster that a driver is connected to, with two storage classes and a namespace for this test alone.

    Objects are plain JSON, `kind` is CamelCase. On a real API server these are requests of an administrator.
    """

    driver: TargetDriver
    faults: FaultScript
    namespace: str
    immediate_class: str
    waiting_class: str  # WaitForFirstConsumer

    def connect(self, *, page_size: int = 500, timeout_s: float = 10.0, instance: Instance = US) -> TargetDriver:
        """Another driver to the same cluster; the site closes it."""
        ...

    def put(self, obj: Json) -> Json:
        """Create or replace, with `status` as given."""
        ...

    def find(self, kind: str, name: str, namespace: str | None = None) -> Json | None: ...
    def find_all(self, kind: str) -> list[Json]:
        """In the test's namespace."""
        ...

    def settle(self) -> None:
        """Let the cluster's controllers act until nothing changes."""
        ...

    def writes(self) -> Sequence[str]:
        """Changes by our driver so far, in order: "create jobs/copy-web"."""
        ...

    def requests(self) -> int:
        """How many requests the API server has answered so far."""
        ...

    def worker_prints(self, lines: Sequence[str]) -> None:
        """What the worker program of this cluster prints before it waits."""
        ...


def volume(site: TargetSite, n: int = 0, *, owner: Owner = OWNER, waiting: bool = False, mib: int = 8) -> VolumeSpec:
    return VolumeSpec(
        namespace=site.namespace,
        name=f"web-disk-{n}",
        disk_uuid=f"disk-uuid-{n}",
        source_vm_uuid=owner.source.rpartition("/")[2],
        capacity_bytes=mib * MIB,
        request_bytes=mib * MIB,
        storage_class=site.waiting_class if waiting else site.immediate_class,
        volume_mode=VolumeMode.FILESYSTEM,
        access_mode="ReadWriteOnce",
        disk_source=f"[fast] web/web_{n}.vmdk",
        disk_index=n,
        owner=owner,
    )


def binder(site: TargetSite, disks: int = 1, owner: Owner = OWNER) -> BinderSpec:
    volumes = tuple((f"web-disk-{n}", VolumeMode.FILESYSTEM) for n in range(disks))
    return BinderSpec(site.namespace, "bind-web", volumes, Placement(), owner, trial="volumes-1")


def machine(site: TargetSite, owner: Owner = OWNER, name: str = "web") -> TargetVmSpec:
    return TargetVmSpec(
        namespace=site.namespace,
        name=name,
        cpu_sockets=1,
        cpu_cores=2,
        memory_bytes=512 * MIB,
        firmware="efi",
        secure_boot=True,
        tpm=False,
        uuid="421c5e0a-0d4f-11b2-053f-27e1d9a0c3b4",
        serial="VMware-42 1c",
        disks=(TargetDisk("vol-0", "web-disk-0", "virtio", 1, "serial-0"),),
        nics=(TargetNic("net-0", "00:50:56:00:00:01", "virtio", True),),
        owner=owner,
        source_name="Web",
    )


def job(site: TargetSite, owner: Owner = OWNER) -> CopyJob:
    volumes = (("disk-uuid-0", "web-disk-0", VolumeMode.FILESYSTEM),)
    return CopyJob(site.namespace, "copy-web-r1-a1", volumes, Placement(), owner, "round-1", 1)


def copy_arguments(site: TargetSite, owner: Owner = OWNER) -> tuple[CopyJob, list[CopyDisk], CopySource, CopySpec]:
    disk = CopyDisk("disk-uuid-0", "Hard disk 1", Reader.HTTP_RANGE, "https://vc.example/folder/web-flat.vmdk", 8 * MIB, "", False)
    credentials = {"user": Secret("administrator"), "password": Secret(PASSWORD)}
    source = CopySource({}, TlsSpec(thumbprint="AA:BB"), "-----BEGIN CERTIFICATE-----", credentials, 4, MIB)
    return job(site, owner), [disk], source, CopySpec(owner.migration, owner.vm, "round-1", (), TlsSpec(), "")


VDDK_IMAGE = "registry.example/infra/vddk:8.0.3"


def vddk_copy_arguments(site: TargetSite) -> tuple[CopyJob, list[CopyDisk], CopySource, CopySpec]:
    copy, _, source, spec = copy_arguments(site)
    disk = CopyDisk("disk-uuid-0", "Hard disk 1", Reader.NBD, "", 8 * MIB, "", False)
    vddk = VddkSpec("https://vc.example/sdk", "vm-1", "snapshot-1", (("disk-uuid-0", "[fast] web/web.vmdk"),), config="a=1")
    return replace(copy, vddk_image=VDDK_IMAGE), [disk], replace(source, vddk=vddk), replace(spec, vddk=vddk)


def pod_using(site: TargetSite, claim: str, *, node: str, phase: str, labels: dict[str, str] | None = None) -> Json:
    """A pod as an administrator would see it: placed, with a phase."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": site.namespace, "name": f"pod-{node}-{phase.lower()}", "labels": labels or {}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "image", "command": ["sleep", "infinity"]}],
            "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": claim}}],
        },
        "status": {"phase": phase},
    }


def node(name: str, ready: str, taint: str | None = None) -> Json:
    taints = [{"key": taint, "value": "nodeshutdown", "effect": "NoExecute"}] if taint else []
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "Contract", "message": "arranged"}]},
    }
