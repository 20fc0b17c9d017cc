"""Loading a tree: strict models, words for people, identities, the cache."""

from __future__ import annotations

import pytest

from reconciler.core.desired import Problem, Severity
from reconciler.core.model import ObjectRef
from reconciler.errors import TerminalError
from reconciler.manifests.load import Cache, SourceFile, load, missing, wants

from .text import HOST, NET, VCENTER, files, loaded, manifest, migration, plan


def only(*texts: str) -> Problem:
    problems = loaded(*texts).problems
    assert len(problems) == 1, problems
    return problems[0]


def test_a_sound_tree_has_no_problem() -> None:
    found = loaded(VCENTER, NET + "---\n" + HOST, plan(), migration())
    assert found.problems == ()
    assert [doc.identity for doc in found.documents] == [
        "Provider/openshift-mtv/vc",
        "NetworkMap/openshift-mtv/net",
        "Provider/openshift-mtv/host",
        "Plan/openshift-mtv/wave",
        "Migration/openshift-mtv/run-1",
    ]
    assert (found.files, found.ignored) == (4, 0)


def test_the_namespace_defaults() -> None:
    text = plan().replace("  namespace: openshift-mtv\n", "")
    assert loaded(text).documents[0].ref == ObjectRef("openshift-mtv", "wave")


def test_unknown_fields_have_a_place_and_a_suggestion() -> None:
    problem = only(plan("skipGuestConversoin: true\nvms: []\n"))
    assert (problem.reason, problem.field) == ("UnknownField", "spec.skipGuestConversoin")
    assert str(problem.place) == "f0.yaml:15:3"
    assert problem.hint == "did you mean skipGuestConversion?"
    assert problem.object == "Plan/openshift-mtv/wave"


def test_unknown_fields_deep_inside_are_found() -> None:
    problem = only(plan("vms:\n- name: web\n  targetname: x\n"))
    assert (problem.field, problem.hint) == ("spec.vms[0].targetname", "did you mean targetName?")


def test_unknown_top_level_and_null_fields_are_errors_too() -> None:
    assert [p.field for p in loaded(plan() + "specs: 1\nnothing: null\n").problems] == ["specs", "nothing"]


def test_unknown_fields_may_be_made_warnings_and_the_rest_counts() -> None:
    text = plan("vms:\n- name: web\n  shade: blue\n- name: db\n  shade: red\n")
    found = loaded(text, allow_unknown=True)
    assert [p.severity for p in found.problems] == [Severity.WARNING] * 2
    assert [vm.name for vm in found.documents[0].model.spec.vms] == ["web", "db"]  # type: ignore[attr-defined]
    assert found.broken == frozenset()
    assert loaded(text).documents == ()
    assert loaded(text).broken == {"Plan/openshift-mtv/wave"}


def test_all_problems_of_all_files_are_reported_in_order() -> None:
    text = plan("warm: maybe\ntype: hot\nvms:\n- name: 5\n- {}\n  \n- nam: x\n")
    found = loaded(text, "a: [", manifest("Plan", "other", "vms: []"))
    assert [(p.place.path, p.field) for p in found.problems] == [
        ("f0.yaml", "spec.warm"),
        ("f0.yaml", "spec.type"),
        ("f0.yaml", "spec.vms[0].name"),
        ("f0.yaml", "spec.vms[2].nam"),
        ("f1.yaml", ""),
        ("f2.yaml", "spec.provider"),
        ("f2.yaml", "spec.map"),
        ("f2.yaml", "spec.targetNamespace"),
    ]


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("warm: on", 'must be true or false, not "on"', "in YAML 1.2 a bare on is text; write true without quotes"),
        ("archived: no", 'must be true or false, not "no"', "in YAML 1.2 a bare no is text; write false without quotes"),
        ("archived: Yes", 'must be true or false, not "Yes"', "in YAML 1.2 a bare Yes is text; write true without quotes"),
        ('archived: "false"', 'must be true or false, not "false"', "in quotes it is text; write false without quotes"),
        ("archived: 1", "must be true or false, not 1", ""),
        ("description: 12", "must be text, not 12", 'put it in quotes: "12"'),
        ("description: true", "must be text, not true", 'put it in quotes: "true"'),
        ("targetLabels: {wave: 1}", "must be text, not 1", 'put it in quotes: "1"'),
        ("targetLabels: [a]", "must be a mapping, not a list", ""),
        ("targetNodeSelector: {a: }", "must be text, not null", ""),
        ("targetPowerState: true", "must be 'on', 'off' or 'auto', not true", 'write "on" or "off", in quotes'),
        ("targetPowerState: On", "must be 'on', 'off' or 'auto', not \"On\"", "did you mean on?"),
        ("type: wram", "must be '', 'cold', 'warm', 'live' or 'conversion', not \"wram\"", "did you mean warm?"),
        ("serviceAccount: A_b", "must be the name of a service account", ""),
        ("conversionTempStorageSize: lots", "must be a quantity, for example 20Gi", ""),
    ],
)
def test_wrong_values_say_what_is_wanted(line: str, message: str, hint: str) -> None:
    problem = only(plan(f"{line}\nvms: []\n"))
    assert (problem.message, problem.hint, problem.place.line) == (message, hint, 15)


def test_a_bare_on_is_a_power_state() -> None:
    document = loaded(plan("targetPowerState: on\nvms:\n- name: a\n  targetPowerState: off\n")).documents[0]
    assert document.model.spec.target_power_state == "on"  # type: ignore[attr-defined]
    assert document.model.spec.vms[0].target_power_state == "off"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "time", ['"2026-09-12T22:00:00"', "2026-09-12", '"2026-13-12T22:00:00Z"', "5", '"tomorrow"', '"0001-01-01T00:00:00+14:00"']
)
def test_times_need_a_zone_and_must_exist(time: str) -> None:
    assert only(migration(f"cutover: {time}")).field == "spec.cutover"


@pytest.mark.parametrize("time", ["2026-09-12T22:00:00Z", '"2026-09-13T00:00:00+02:00"', "2026-09-12T22:00:00.0Z"])
def test_times_are_taken_with_and_without_quotes(time: str) -> None:
    cutover = loaded(migration(f"cutover: {time}")).documents[0].model.spec.cutover  # type: ignore[attr-defined]
    assert cutover.isoformat() == "2026-09-12T22:00:00+00:00"


def test_cluster_exports_load() -> None:
    text = plan("transferNetwork: null\nvms: []\n") + "status: {phase: [1, 2]}\n"
    noise = "  uid: x\n  resourceVersion: '5'\n  generation: 3\n  managedFields: [{a: 1}]\n  ownerReferences: []\nspec:"
    reference = "{name: vc, namespace: openshift-mtv, apiVersion: forklift.konveyor.io/v1beta1, kind: Provider, uid: y}"
    assert loaded(text.replace("spec:", noise).replace("{name: vc}", reference)).problems == ()


def test_a_kubectl_list_is_unpacked_with_its_places() -> None:
    items = "".join("- " + text.strip().replace("\n", "\n  ") + "\n" for text in (VCENTER, plan("wram: true\nvms: []\n")))
    found = loaded("apiVersion: v1\nkind: List\nitems:\n" + items)
    assert [doc.identity for doc in found.documents] == ["Provider/openshift-mtv/vc"]
    assert [(p.field, p.place.line, p.hint) for p in found.problems] == [("spec.wram", 27, "did you mean warm?")]


@pytest.mark.parametrize(
    "text",
    ["apiVersion: v1\nkind: ConfigMap\n", "just text\n", "- a\n- b\n", "kind: Kustomization\nresources: []\n", "apiVersion: [1]\n",
     "apiVersion: v1\nkind: Secret\nmetadata: {name: empty}\n", "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nspec: {}\n"],
)  # fmt: skip
def test_documents_of_others_are_counted_and_ignored(text: str) -> None:
    found = loaded(text + "---\n" + VCENTER)
    assert (found.ignored, len(found.documents), found.problems) == (1, 1, ())


@pytest.mark.parametrize("key", ["data", "stringData"])
def test_a_secret_in_git_is_an_error_and_is_not_repeated(key: str) -> None:
    problem = only(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\n{key}: {{password: hunter2}}\n")
    assert (problem.reason, problem.place.line) == ("SecretInGit", 4)
    assert "hunter2" not in repr(problem)


@pytest.mark.parametrize(
    ("text", "reason", "hint"),
    [
        (plan().replace("kind: Plan", "kind: Plann"), "UnknownKind", "did you mean Plan?"),
        (plan().replace("v1beta1", "v1alpha1"), "NotAllowed", "write forklift.konveyor.io/v1beta1"),
        (plan().replace("kind: Plan\n", ""), "MissingField", None),
        (plan().split("\n", 1)[1], "MissingField", "write apiVersion: forklift.konveyor.io/v1beta1"),
    ],
)
def test_what_is_nearly_ours_is_not_ignored(text: str, reason: str, hint: str | None) -> None:
    problem = only(text)
    assert problem.reason == reason
    assert hint is None or problem.hint == hint


def test_objects_of_controllers_are_left_alone_with_a_warning() -> None:
    problem = only(manifest("Conversion", "x", "type: Remote"))
    assert (problem.reason, problem.severity) == ("InternalKind", Severity.WARNING)


def test_the_same_identity_twice_names_both_places_and_neither_counts() -> None:
    found = loaded(plan(), VCENTER, "---\n" + plan("vms: []\n"))
    assert [(p.reason, str(p.place)) for p in found.problems] == [
        ("DuplicateIdentity", "f0.yaml:1:1"),
        ("DuplicateIdentity", "f2.yaml:2:1"),
    ]
    assert "f2.yaml:2:1" in found.problems[0].message and "f0.yaml:1:1" in found.problems[1].message
    assert [doc.kind for doc in found.documents] == ["Provider"]
    assert found.broken == {"Plan/openshift-mtv/wave"}


def test_a_broken_twin_counts_as_a_twin() -> None:
    assert [p.reason for p in loaded(plan(), plan("wram: 1\nvms: []\n")).problems].count("DuplicateIdentity") == 2


def test_the_same_name_in_another_namespace_or_kind_is_no_twin() -> None:
    other = plan().replace("namespace: openshift-mtv", "namespace: elsewhere")
    assert loaded(plan(), other, migration(name="wave")).problems == ()


@pytest.mark.parametrize("name", ["../../etc", "Wave", "a_b", "-a", "a" * 254, ""])
def test_names_are_kubernetes_names(name: str) -> None:
    assert only(plan(name=f'"{name}"')).field == "metadata.name"


def test_one_document_with_an_error_does_not_hide_the_others_in_its_file() -> None:
    found = loaded(plan("wram: 1\nvms: []\n") + "---\n" + VCENTER)
    assert [doc.kind for doc in found.documents] == ["Provider"]


# ---- files and cache ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("a.yaml", True),
        ("x/y.yml", True),
        ("a.json", False),
        (".github/workflows/x.yaml", False),
        ("a/.b/c.yaml", False),
        (".a.yaml", False),
    ],
)
def test_yaml_outside_hidden_folders_is_wanted(path: str, wanted: bool) -> None:
    assert wants(path) is wanted
    assert len(load([SourceFile(path, "1", VCENTER.encode())]).documents) == wanted


def test_an_unchanged_blob_is_neither_read_nor_parsed_again() -> None:
    cache: Cache = {}
    first = load(files(VCENTER, plan()), cache=cache)
    assert missing([VCENTER, "new"], cache) == ["new"]
    again = load([SourceFile("f0.yaml", VCENTER, None), SourceFile("f1.yaml", plan(), None)], cache=cache)
    assert again.documents[0] is first.documents[0] and again.documents[1] is first.documents[1]


def test_a_moved_blob_keeps_its_model_and_gets_its_new_place() -> None:
    cache: Cache = {}
    first = load([SourceFile("a.yaml", "1", plan("wram: 1\nvms: []\n").encode()), SourceFile("b.yaml", "2", VCENTER.encode())], cache=cache)
    second = load([SourceFile("c.yaml", "1", None), SourceFile("d.yaml", "2", None)], cache=cache)
    assert second.documents[0].model is first.documents[0].model
    assert second.documents[0].place().path == "d.yaml"
    assert [p.place.path for p in second.problems] == ["c.yaml"]


def test_the_cache_forgets_blobs_that_are_gone() -> None:
    cache: Cache = {}
    load(files(VCENTER, HOST), cache=cache)
    load(files(VCENTER), cache=cache)
    assert set(cache) == {VCENTER}


def test_allow_unknown_is_not_remembered_by_the_cache() -> None:
    cache: Cache = {}
    tree = files(plan("wram: 1\nvms: []\n"))
    assert len(load(tree, allow_unknown=True, cache=cache).documents) == 1
    assert load(tree, cache=cache).documents == ()


def test_a_blob_without_bytes_is_an_error_that_names_the_file() -> None:
    with pytest.raises(TerminalError, match=r"a\.yaml"):
        load([SourceFile("a.yaml", "1", None)])
