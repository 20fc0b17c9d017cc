"""secretRef -> Secret values, from mounted files or from the cluster. Values are core.model.Secret: repr is ***.

What it is: one look-up with two places. What it is not: a cache, or a reader of the environment.
Mounted layout: <dir>/<namespace>/<name>/<key>, as a projected volume or a plain folder gives it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from reconciler.core.model import ObjectRef, Secret
from reconciler.errors import RetryableError
from reconciler.log import register_secret

HARMLESS_KEYS = frozenset({"ca.crt", "cacert", "url", "insecureSkipVerify", "thumbprint", "provider", "user", "username", "regionName"})

FromCluster = Callable[[str, str], Mapping[str, Secret] | None]


def read(ref: ObjectRef, folder: Path | None, cluster: FromCluster | None) -> Mapping[str, Secret]:
    """Keys of the Secret `ref`. Errors: RetryableError SecretNotFound, naming the places that were looked at."""
    found: Mapping[str, Secret] | None = None
    places = []
    if folder is not None:
        places.append(f"files under {folder}")
        found = _from_files(folder / ref.namespace / ref.name)
    if found is None and cluster is not None:
        places.append("the cluster")
        found = cluster(ref.namespace, ref.name)
    if found is None:
        raise RetryableError("SecretNotFound", f"Secret {ref} is not in {' or '.join(places) or 'any known place'}; create it there", 30.0)
    for key, value in found.items():
        if key not in HARMLESS_KEYS:
            register_secret(value.reveal())
    return found


def fingerprint(values: Mapping[str, Secret]) -> str:
    """Tells whether a Secret changed. It stays in memory: a digest of a short password gives it away."""
    digest = hashlib.sha256()
    for key in sorted(values):
        for part in (key, values[key].reveal()):
            digest.update(b"%d:%s" % (len(part), part.encode()))
    return digest.hexdigest()


def _from_files(folder: Path) -> dict[str, Secret] | None:
    if not folder.is_dir():
        return None
    return {p.name: Secret(p.read_text().rstrip("\n")) for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith("..")}
