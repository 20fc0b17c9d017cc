"""The provisioner of the test cluster: claims get volumes that are folders, the real binder binds them.

What it is: what an external CSI provisioner, resizer and deleter do. What it is not: binding, protection, reclaiming (real controllers).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from reconciler.lab.cluster.quantity import parse
from reconciler.lab.cluster.seed import BULK, FAST
from tests.e2e.admin import Admin, Json

SELECTED_NODE = "volume.kubernetes.io/selected-node"


def storage_classes(admin: Admin) -> None:
    """The lab's two classes with their CDI profiles, as its own seed writes them."""
    from reconciler.lab.cluster import seed

    for obj in seed.objects((), (FAST, BULK), cdi=True):
        if obj["kind"] in ("StorageClass", "StorageProfile", "CDIConfig"):
            status = obj.pop("status", None)
            made = {**admin.ensure(obj), "kind": obj["kind"]}
            if status:
                admin.put_status(made, status)


class Volumes:
    """Under `root`, one folder (or file, for Block) per PersistentVolume."""

    def __init__(self, admin: Admin, root: Path) -> None:
        self._admin, self._root = admin, root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, namespace: str, claim: str) -> Path:
        """Errors: KeyError while it is not bound."""
        found = self._admin.get("PersistentVolumeClaim", namespace, claim)
        if found is None or (found.get("status") or {}).get("phase") != "Bound":
            raise KeyError(f"PersistentVolumeClaim {namespace}/{claim} is not bound")
        return self._root / f"pvc-{found['metadata']['uid']}"

    def step(self, namespace: str) -> bool:
        """True if something was done."""
        done = [self._one(claim) for claim in self._admin.all("PersistentVolumeClaim", namespace)]
        return any(done)

    def _one(self, claim: Json) -> bool:
        meta, spec, status = claim["metadata"], claim["spec"], claim.get("status") or {}
        if "deletionTimestamp" in meta:
            return False
        if status.get("phase") == "Bound":
            return self._resize(claim)
        if spec.get("volumeName") or not self._due(claim):
            return False
        name = f"pvc-{meta['uid']}"
        if self._admin.get("PersistentVolume", None, name) is not None:
            return False
        where = self._root / name
        if spec.get("volumeMode") == "Block":
            with where.open("wb") as file:
                file.truncate(int(parse(spec["resources"]["requests"]["storage"])))
        else:
            where.mkdir()
        reference = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
        }
        self._admin.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": BULK.provisioner}},
                "spec": {
                    "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                    "accessModes": spec["accessModes"],
                    "volumeMode": spec.get("volumeMode", "Filesystem"),
                    "storageClassName": spec["storageClassName"],
                    "persistentVolumeReclaimPolicy": "Delete",
                    "claimRef": reference,
                    "csi": {"driver": BULK.provisioner, "volumeHandle": name},
                },
            }
        )
        return True

    def _due(self, claim: Json) -> bool:
        name = claim["spec"].get("storageClassName")
        if name == FAST.name:
            return SELECTED_NODE in (claim["metadata"].get("annotations") or {})
        return bool(name == BULK.name)

    def _resize(self, claim: Json) -> bool:
        wanted = claim["spec"]["resources"]["requests"]["storage"]
        if parse(wanted) <= parse(claim["status"]["capacity"]["storage"]):
            return False
        self._admin.put_status(claim, {"capacity": {"storage": wanted}})
        return True

    def sweep(self) -> None:
        """Released volumes go with their bytes, as the class's policy says."""
        for volume in self._admin.all("PersistentVolume"):
            if (volume.get("status") or {}).get("phase") == "Released":
                self._admin.delete(volume)
                where = self._root / volume["spec"]["csi"]["volumeHandle"]
                if where.is_dir():
                    shutil.rmtree(where)
                else:
                    where.unlink(missing_ok=True)
