"""Volumes: the provisioner, the binder and the resizer. A volume is a folder (Filesystem) or a sparse file (Block) under `root`.

What it is: PVC -> PV -> local path. What it is not: mounting (podfiles.py) or the choice of a node (scheduling.py).
Source: Kubernetes documentation, "Persistent Volumes", "Volume Binding Mode".
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

from reconciler.lab.cluster.deletion import DeleteOptions, delete
from reconciler.lab.cluster.events import Recorder
from reconciler.lab.cluster.kinds import NODE, PV, PVC, STORAGE_CLASS
from reconciler.lab.cluster.quantity import parse, storage_of
from reconciler.lab.cluster.seed import ZONE
from reconciler.lab.cluster.store import Store, clone

Json = dict[str, Any]
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_COMPONENT = "persistentvolume-controller"
_FORBIDDEN_FOLDER, _FORBIDDEN_DEVICE = Path("/sys/kernel"), Path("/sys/devices/system/cpu/possible")


class Volumes:
    """`broken`: class name -> message of a backend that cannot provision. `refusing`: classes whose volumes no pod can open for writing."""

    def __init__(self, store: Store, events: Recorder, root: Path) -> None:
        self._store, self._events, self._root = store, events, root
        self.broken: dict[str, str] = {}
        self.refusing: set[str] = set()
        self._refused: dict[str, str] = {}  # claim uid -> version that could not be bound while `_world` was as it is
        self._world: tuple[int, tuple[tuple[str, str], ...]] = (0, ())
        root.mkdir(parents=True, exist_ok=True)

    def path(self, namespace: str, claim: str) -> Path:
        """The folder or block file of a bound claim. Errors: KeyError while it is not bound."""
        found = self._store.get(PVC, namespace, claim)
        name = (found or {}).get("spec", {}).get("volumeName")
        volume = self._store.get(PV, "", name) if name else None
        if volume is None:
            raise KeyError(f"PersistentVolumeClaim {namespace}/{claim} is not bound")
        return Path(volume["spec"]["csi"]["volumeHandle"])

    def mount(self, namespace: str, claim: str) -> Path:
        """What a pod gets to see. Errors: KeyError while it is not bound.

        A volume of a refusing class is shown as a place of sysfs, in which nobody may create files, and one of its read-only attributes
        for a device. The process then meets the kernel's real EACCES (EROFS where /sys is mounted read-only), as root too.
        """
        path = self.path(namespace, claim)
        found = self._store.get(PVC, namespace, claim)
        if found is None or found["spec"].get("storageClassName") not in self.refusing:
            return path
        return _FORBIDDEN_DEVICE if found["spec"]["volumeMode"] == "Block" else _FORBIDDEN_FOLDER

    def step(self) -> None:
        world = (self._store.version(STORAGE_CLASS), tuple(self.broken.items()))
        if world != self._world:
            self._world = world
            self._refused.clear()
        for claim in self._store.all(PVC):
            meta = claim["metadata"]
            if meta.get("deletionTimestamp") or self._refused.get(meta["uid"]) == meta["resourceVersion"]:
                continue
            if claim["status"].get("phase") == "Pending":
                self._provision(claim)
            elif claim["status"].get("phase") == "Bound":
                self._resize(claim)
        for volume in self._store.all(PV):
            self._reclaim(volume)

    def _provision(self, claim: Json) -> None:
        self._refused[claim["metadata"]["uid"]] = claim["metadata"]["resourceVersion"]
        name = claim["spec"].get("storageClassName") or ""
        storage_class = self._store.get(STORAGE_CLASS, "", name)
        if storage_class is None:
            if name:
                self._warn(claim, f'storageclass.storage.k8s.io "{name}" not found')
            else:
                message = "no persistent volumes available for this claim and no storage class is set"
                self._events.record(claim, "Normal", "FailedBinding", message, _COMPONENT)
            return
        if storage_class["volumeBindingMode"] == "WaitForFirstConsumer" and SELECTED_NODE not in _annotations(claim):
            message = "waiting for first consumer to be created before binding"
            self._events.record(claim, "Normal", "WaitForFirstConsumer", message, _COMPONENT)
            return
        if name in self.broken:
            self._warn(claim, f'failed to provision volume with StorageClass "{name}": {self.broken[name]}')
            return
        self._bind(claim, self._create(claim, storage_class))

    def _warn(self, claim: Json, message: str) -> None:
        self._events.record(claim, "Warning", "ProvisioningFailed", message, _COMPONENT)

    def _create(self, claim: Json, storage_class: Json) -> Json:
        meta, spec = claim["metadata"], claim["spec"]
        name = f"pvc-{meta['uid']}"
        size = storage_of(claim)
        path = self._root / name
        if spec["volumeMode"] == "Block":
            with path.open("wb") as file:
                file.truncate(int(parse(size)))
        else:
            path.mkdir()
        claim_ref = {"apiVersion": "v1", "kind": PVC.kind, "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
        volume: Json = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": name,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": self._store.timestamp(),
                "finalizers": ["kubernetes.io/pv-protection"],
                "annotations": {"pv.kubernetes.io/provisioned-by": storage_class["provisioner"]},
            },
            "spec": {
                "capacity": {"storage": size},
                "accessModes": list(spec.get("accessModes") or ["ReadWriteOnce"]),
                "volumeMode": spec["volumeMode"],
                "storageClassName": spec["storageClassName"],
                "persistentVolumeReclaimPolicy": storage_class["reclaimPolicy"],
                "claimRef": claim_ref,
                "csi": {"driver": storage_class["provisioner"], "volumeHandle": str(path)},
            },
            "status": {"phase": "Bound"},
        }
        if zone := self._zone(claim, storage_class):
            term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}
            volume["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
        return self._store.insert(PV, volume)

    def _zone(self, claim: Json, storage_class: Json) -> str:
        """Of the node that the scheduler chose; else the class's zones in turn, which is how two disks of one VM come apart."""
        allowed = storage_class.get("allowedTopologies") or []
        if not allowed:
            return ""
        chosen = self._store.get(NODE, "", _annotations(claim).get(SELECTED_NODE, ""))
        if chosen is not None:
            return str(chosen["metadata"]["labels"][ZONE])
        zones: list[str] = allowed[0]["matchLabelExpressions"][0]["values"]
        made = [v for v in self._store.all(PV) if v["spec"]["storageClassName"] == storage_class["metadata"]["name"]]
        return zones[len(made) % len(zones)]

    def _bind(self, claim: Json, volume: Json) -> None:
        new = clone(claim)
        annotations = new["metadata"].setdefault("annotations", {})
        annotations |= {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
        new["spec"]["volumeName"] = volume["metadata"]["name"]
        new["status"] = {
            "phase": "Bound",
            "accessModes": list(volume["spec"]["accessModes"]),
            "capacity": dict(volume["spec"]["capacity"]),
        }
        self._store.replace(PVC, new)
        message = f"Successfully provisioned volume {volume['metadata']['name']}"
        self._events.record(claim, "Normal", "ProvisioningSucceeded", message, volume["spec"]["csi"]["driver"])

    def _resize(self, claim: Json) -> None:
        wanted = storage_of(claim)
        if parse(wanted) <= parse((claim["status"].get("capacity") or {}).get("storage", wanted)):
            return
        volume = self._store.get(PV, "", claim["spec"].get("volumeName") or "")
        if volume is None:
            return
        path = Path(volume["spec"]["csi"]["volumeHandle"])
        if claim["spec"]["volumeMode"] == "Block":
            with path.open("r+b") as file:
                file.truncate(int(parse(wanted)))
        grown, new = clone(volume), clone(claim)
        grown["spec"]["capacity"]["storage"] = wanted
        new["status"]["capacity"] = {"storage": wanted}
        self._store.replace(PV, grown)
        self._store.replace(PVC, new)

    def _reclaim(self, volume: Json) -> None:
        """A volume whose claim is gone is released, and deleted with its bytes if its policy says so."""
        ref = volume["spec"].get("claimRef") or {}
        if not ref or self._store.by_uid(ref.get("uid", "")) is not None or volume["metadata"].get("deletionTimestamp"):
            return
        if volume["status"].get("phase") != "Released":
            volume = self._store.replace(PV, clone(volume) | {"status": {"phase": "Released"}})
        if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            path = Path(volume["spec"]["csi"]["volumeHandle"])
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            delete(self._store, PV, volume, DeleteOptions())


def _annotations(obj: Json) -> Json:
    return obj["metadata"].get("annotations") or {}
