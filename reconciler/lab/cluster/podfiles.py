"""A pod's files on the local machine: volumes as folders, and its paths translated to them.

What it is: (pod, store) -> folders and files under the pod's directory, and a translator from container paths to local ones.
What it is not: processes (kubelet.py). Every occurrence of a mount path in command, arguments, environment and projected Secret and
ConfigMap files is translated, longest path first; a URL's path is not taken for one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.lab.cluster.kinds import CONFIG_MAP, PVC, SECRET
from reconciler.lab.cluster.store import Store

Json = dict[str, Any]


class NotReady(Exception):
    """A volume cannot be mounted yet; the message is what a kubelet's FailedMount event says."""


class Translator:
    """Container paths -> local paths in any text."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = {path.rstrip("/") or "/": str(local) for path, local in paths.items()}
        longest_first = "|".join(re.escape(path) for path in sorted(self._paths, key=len, reverse=True))
        # Not after a word, a slash or a dash: "https://host/data" names no mount; not before more of a name: "/database" neither.
        self._pattern = re.compile(rf"(?<![\w./-])(?:{longest_first})(?![\w-]|\.\w)") if self._paths else None

    def text(self, text: str) -> str:
        return self._pattern.sub(lambda match: self._paths[match[0]], text) if self._pattern else text

    def data(self, data: bytes) -> bytes:
        try:
            return self.text(data.decode()).encode()
        except UnicodeDecodeError:
            return data


@dataclass(frozen=True, slots=True)
class PodFiles:
    """Where a pod's things are. `termination`: container name -> its termination message file."""

    home: Path
    termination: Mapping[str, Path]
    translator: Translator

    def log(self, container: str) -> Path:
        return self.home / f"{container}.log"


def prepare(pod: Json, store: Store, home: Path, claim_path: Callable[[str, str], Path]) -> PodFiles:
    """Lay out the volumes of `pod` under `home`. May be repeated. Errors: NotReady."""
    namespace = pod["metadata"]["namespace"]
    sources = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    contents = {name: _contents(volume, namespace, store) for name, volume in sources.items()}
    claims = {name: _claim(v, namespace, store, claim_path) for name, v in sources.items() if "persistentVolumeClaim" in v}
    home.mkdir(parents=True, exist_ok=True)
    local = {name: claims.get(name) or home / "volumes" / name for name in sources}
    for name, path in local.items():
        if name not in claims:
            path.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    termination: dict[str, Path] = {}
    for container in _containers(pod):
        for mount in container.get("volumeMounts") or []:
            inside = mount.get("subPath") or ""
            paths.setdefault(mount["mountPath"], local[mount["name"]] / inside if inside else local[mount["name"]])
        for device in container.get("volumeDevices") or []:
            paths.setdefault(device["devicePath"], local[device["name"]])
        termination[container["name"]] = home / f"{container['name']}.termination"
        paths.setdefault(container.get("terminationMessagePath") or "/dev/termination-log", termination[container["name"]])
    translator = Translator(paths)
    for name, files in contents.items():
        for path, data, mode in files:
            _write(local[name] / path, translator.data(data), mode)
    return PodFiles(home, termination, translator)


def _containers(pod: Json) -> list[Json]:
    """Regular ones first: their mount paths win where an init container mounts elsewhere."""
    return [*(pod["spec"].get("containers") or []), *(pod["spec"].get("initContainers") or [])]


def _claim(volume: Json, namespace: str, store: Store, claim_path: Callable[[str, str], Path]) -> Path:
    name = volume["persistentVolumeClaim"]["claimName"]
    if store.get(PVC, namespace, name) is None:
        raise NotReady(f'MountVolume.SetUp failed for volume "{volume["name"]}": persistentvolumeclaim "{name}" not found')
    try:
        return claim_path(namespace, name)
    except KeyError as err:
        raise NotReady(f'MountVolume.SetUp failed for volume "{volume["name"]}": claim "{name}" is not bound') from err


def _contents(volume: Json, namespace: str, store: Store) -> list[tuple[str, bytes, int]]:
    """(path in the volume, bytes, mode) of a volume that shows Secrets or ConfigMaps; nothing for others."""
    if "projected" in volume:
        mode = volume["projected"].get("defaultMode", 0o644)
        rows: list[tuple[str, bytes, int]] = []
        for source in volume["projected"].get("sources") or []:
            for kind in ("secret", "configMap"):
                if kind in source:
                    rows += _keys(kind, source[kind].get("name", ""), source[kind], mode, namespace, store)
        return rows
    if "secret" in volume:
        source = volume["secret"]
        return _keys("secret", source["secretName"], source, source.get("defaultMode", 0o644), namespace, store)
    if "configMap" in volume:
        source = volume["configMap"]
        return _keys("configMap", source["name"], source, source.get("defaultMode", 0o644), namespace, store)
    return []


def _keys(source: str, name: str, spec: Json, mode: int, namespace: str, store: Store) -> list[tuple[str, bytes, int]]:
    kind = SECRET if source == "secret" else CONFIG_MAP
    found = store.get(kind, namespace, name)
    if found is None:
        if spec.get("optional"):
            return []
        raise NotReady(f'MountVolume.SetUp failed for volume "{name}" : {kind.kind.lower()} "{name}" not found')
    if kind is SECRET:
        data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    else:
        data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    items = spec.get("items")
    if items is None:
        return [(key, value, mode) for key, value in data.items()]
    missing = [item["key"] for item in items if item["key"] not in data]
    if missing:
        raise NotReady(f'MountVolume.SetUp failed for volume "{name}" : references non-existent secret key: {missing[0]}')
    return [(item["path"], data[item["key"]], item.get("mode", mode)) for item in items]


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)
    # The lab's one user owns the file: without its read bit the process could not read what fsGroup lets it read in a cluster.
    path.chmod(mode | 0o400)


def environment(container: Json, pod: Json, store: Store, files: PodFiles) -> dict[str, str]:
    """Clean: what the container declares, and a PATH. Errors: NotReady for a missing reference."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(files.home), "LANG": "C.UTF-8"}
    env["HOSTNAME"] = pod["metadata"]["name"]
    namespace = pod["metadata"]["namespace"]
    for row in container.get("env") or []:
        source = row.get("valueFrom") or {}
        if "fieldRef" in source:
            value = _field(pod, source["fieldRef"]["fieldPath"])
        elif "secretKeyRef" in source or "configMapKeyRef" in source:
            which = "secret" if "secretKeyRef" in source else "configMap"
            ref = source[f"{which}KeyRef"]
            items = {**ref, "items": [{"key": ref["key"], "path": "value"}]}
            found = _keys(which, ref["name"], items, 0o600, namespace, store)
            value = found[0][1].decode() if found else ""
        else:
            value = row.get("value", "")
        env[row["name"]] = files.translator.text(value)
    return env


def _field(pod: Json, path: str) -> str:
    value: Any = pod
    for part in path.split("."):
        value = value.get(part.partition("[")[0]) if isinstance(value, dict) else None
    return "" if value is None else str(value)
