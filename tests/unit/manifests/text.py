"""Manifests as text, for tests: a small sound tree, and ways to change it."""

from __future__ import annotations

from textwrap import dedent, indent

from reconciler.core.desired import Desired
from reconciler.manifests.load import Loaded, SourceFile, load
from reconciler.manifests.resolve import resolve


def manifest(kind: str, name: str, spec: str, *, annotations: str = "", namespace: str = "openshift-mtv") -> str:
    head = f"apiVersion: forklift.konveyor.io/v1beta1\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\n"
    notes = f"  annotations:\n{indent(dedent(annotations), '    ')}\n" if annotations else ""
    return f"{head}{notes}spec:\n{indent(dedent(spec).strip(), '  ')}\n"


VCENTER = manifest("Provider", "vc", "type: vsphere\nurl: https://vc.example.net/sdk\nsecret: {name: vc-credentials}")
HOST = manifest("Provider", "host", 'type: openshift\nurl: ""\nsecret: {}')
PAIR = "provider:\n  source: {name: vc}\n  destination: {name: host}\n"
NET = manifest("NetworkMap", "net", PAIR + "map:\n- source: {name: VM Network}\n  destination: {type: pod}")
STORE = manifest("StorageMap", "store", PAIR + "map:\n- source: {name: ds}\n  destination: {storageClass: fast}")
PLAN_SPEC = PAIR + "map:\n  network: {name: net}\n  storage: {name: store}\ntargetNamespace: shop\nskipGuestConversion: true\n"
ONE_VM = "vms:\n- name: web\n"


def plan(more: str = ONE_VM, *, name: str = "wave", annotations: str = "") -> str:
    return manifest("Plan", name, PLAN_SPEC + dedent(more), annotations=annotations)


def migration(more: str = "", *, name: str = "run-1", plan: str = "wave") -> str:
    return manifest("Migration", name, f"plan: {{name: {plan}}}\n" + dedent(more))


def files(*texts: str) -> list[SourceFile]:
    """f0.yaml, f1.yaml … with the text itself as blob id."""
    return [SourceFile(f"f{number}.yaml", text, text.encode()) for number, text in enumerate(texts)]


def loaded(*texts: str, allow_unknown: bool = False) -> Loaded:
    return load(files(*texts), allow_unknown=allow_unknown)


def resolved(*texts: str) -> Desired:
    """The sound tree and these."""
    return resolve(loaded(*texts, VCENTER, HOST, NET, STORE), "c0ffee")
