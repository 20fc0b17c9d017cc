"""Forklift's own CRDs as the judge of our models: what we accept they accept, what they refuse we refuse.

The matrix is every field of every kind that people write, with good values, values of other types and unknown neighbours (schema_walk.py),
each created as a server-side dry run under fieldValidation=Strict. The reverse need not hold: where we refuse more, the reason is below.
ForkliftController is not judged: its CRD belongs to Forklift's operator, has no schema for spec, and is not among the CRDs.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from reconciler.core.desired import Severity
from reconciler.manifests.load import SourceFile, load
from tests.e2e import parts
from tests.e2e.admin import Admin, Json, Refused
from tests.e2e.control_plane import HOME, ControlPlane
from tests.e2e.schema_walk import Case, cases

EXAMPLES = Path(__file__).parents[2] / "examples" / "repo"
API_VERSION = "forklift.konveyor.io/v1beta1"
REF = {"name": "a", "namespace": HOME}
PAIR = {"source": REF, "destination": {"name": "b", "namespace": HOME}}
MINIMAL: dict[str, Json] = {
    "Provider": {"type": "vsphere", "url": "https://vc.example/sdk", "secret": REF},
    "NetworkMap": {"provider": PAIR, "map": [{"source": {"id": "network-1"}, "destination": {"type": "pod"}}]},
    "StorageMap": {"provider": PAIR, "map": [{"source": {"id": "datastore-1"}, "destination": {"storageClass": "fast"}}]},
    "Plan": {"provider": PAIR, "map": {"network": REF, "storage": REF}, "targetNamespace": "shop", "vms": [{"name": "web"}]},
    "Migration": {"plan": REF},
    "Hook": {"image": "quay.io/example/hook", "playbook": ""},
    "Host": {"id": "host-1", "provider": REF, "ipAddress": "192.0.2.1", "secret": REF},
}
# Where we refuse more than the schema does: a pattern for the case, and why. Each of them must be met.
STRICTER: dict[str, str] = {
    r"Provider spec\.settings\.\{\} ": "a setting that nobody reads is a slip of the pen; --allow-unknown makes it a warning",
    r"Provider spec\.type (text|empty)": "the schema takes any text; Forklift's webhook refuses unknown types as we do",
    r"\.storageClass empty": "no volume can be made of it",
    r"Plan spec\.conversionTempStorageSize (text|empty)": "the schema gives int-or-text without a pattern; no quantity, no volume",
    r"Plan spec\.targetNamespace empty": "a VM needs a namespace",
    r"(Labels|NodeSelector)\.\{\} null": "the API server drops a null in silence; a label without a value is a slip of the pen",
    r"matchLabels\.\{\} null": "the same",
    r"\.step empty": "only PreHook and PostHook mean anything; Forklift ignores other words in silence",
    r"\.operator empty": "pods with it are refused, which would come out after the copy",
    r"\.topologyKey empty": "the same",
    r"\.weight (zero|negative)": "the same",
    r"Hook spec\.aap\.jobTemplateId (zero|negative)": "no job template has such a number",
    r"Hook spec\.(aap\.timeout|deadline) negative": "a time in seconds",
    r"Host spec\.ipAddress empty": "a transfer address that is empty addresses nothing",
}


@dataclass(frozen=True)
class Verdict:
    case: Case
    ours: str  # "" accepts
    theirs: str


def ours(text: str) -> str:
    problems = [p for p in load([SourceFile("m.yaml", "1", text.encode())]).problems if p.severity is Severity.ERROR]
    return f"{problems[0].field}: {problems[0].message}" if problems else ""


def theirs(admin: Admin, manifest: Json) -> str:
    try:
        admin.create(manifest, "?dryRun=All&fieldValidation=Strict")
    except Refused as err:
        return str(err)
    return ""


@pytest.fixture(scope="module")
def verdicts(control_plane: ControlPlane) -> list[Verdict]:
    def judge(case: Case) -> Verdict:
        return Verdict(case, ours(json.dumps(case.manifest)), theirs(control_plane.admin, case.manifest))

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(judge, all_cases()))


def all_cases() -> Iterator[Case]:
    for kind, spec in MINIMAL.items():
        crd = yaml.safe_load((parts.crds() / f"{kind.lower()}s.forklift.konveyor.io.yaml").read_text())
        version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1beta1")
        schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        yield from cases(
            kind, schema, {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "judged", "namespace": HOME}, "spec": spec}
        )


def test_the_set_is_large_and_has_both_sorts(verdicts: list[Verdict]) -> None:
    count = Counter((not v.ours, not v.theirs) for v in verdicts)
    both, neither, alone = count[True, True], count[False, False], count[False, True]
    print(f"\n{len(verdicts)} manifests: both accept {both}, both refuse {neither}, we alone refuse {alone}")
    assert count[True, True] >= 100
    assert count[False, False] >= 100
    for kind in MINIMAL:
        assert sum(v.case.kind == kind and not v.ours for v in verdicts) >= 5, kind


def test_what_we_accept_the_real_schema_accepts(verdicts: list[Verdict]) -> None:
    assert [f"{v.case}: {v.theirs}" for v in verdicts if not v.ours and v.theirs] == []


def test_where_we_refuse_more_the_reason_is_known(verdicts: list[Verdict]) -> None:
    alone = [v for v in verdicts if v.ours and not v.theirs]
    unexplained = [f"{v.case}: {v.ours}" for v in alone if not any(re.search(pattern, str(v.case)) for pattern in STRICTER)]
    assert unexplained == []
    assert [pattern for pattern in STRICTER if not any(re.search(pattern, str(v.case)) for v in alone)] == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_accepted(control_plane: ControlPlane, path: Path) -> None:
    documents = [doc for doc in yaml.safe_load_all(path.read_text()) if doc and doc.get("apiVersion") == API_VERSION]
    judged = [doc for doc in documents if doc["kind"] in MINIMAL]
    assert ours(path.read_text()) == ""
    assert [theirs(control_plane.admin, doc) for doc in judged] == [""] * len(judged)
