"""What `reconciler install` prints, applied to a real API server as `kubectl apply --server-side` does, and the rights that come of it.

The control plane is this module's own: the one that the others share has an account of the same name already.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.commands.install import Wishes, text
from reconciler.drivers.kubevirt.rbac import RULES
from reconciler.lab.tls import LabCa
from tests.e2e import parts
from tests.e2e.admin import APPLY, Admin, Json, Refused, path
from tests.e2e.control_plane import ACCOUNT, HOME, ControlPlane

QUERY = "?fieldManager=person&fieldValidation=Strict"
FORMS = {"deployment": "Deployment", "cron": "CronJob"}
SCOPES: dict[str, dict[str, Any]] = {
    "everywhere": {},
    "named": {"targets": ("shop", "crm")},
    "named, secrets mounted": {"targets": ("shop", "crm"), "provider_secrets": ("vcenter",)},
}


@pytest.fixture(scope="module")
def plane(e2e_ca: LabCa, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    crds = parts.crds()
    with ControlPlane(parts.go_program("kube"), crds, tmp_path_factory.mktemp("install"), e2e_ca) as running:
        for name in ("shop", "crm", "elsewhere"):
            running.namespace(name)
        yield running


@pytest.fixture
def bare(plane: ControlPlane) -> Iterator[Admin]:
    """Without an account or rights of ours, before and after."""
    clear(plane.admin)
    yield plane.admin
    clear(plane.admin)


def clear(admin: Admin) -> None:
    for kind in ("ClusterRoleBinding", "ClusterRole", "RoleBinding", "Role", "ServiceAccount", "Deployment", "CronJob"):
        for obj in admin.all(kind):
            if obj["metadata"]["name"].startswith(ACCOUNT):
                admin.delete(obj)


def documents(**change: Any) -> list[Json]:
    wishes = Wishes(**({"namespace": HOME, "repo": "https://git.example.com/a.git", "image": "registry.example.com/reconciler:1"} | change))
    return [doc for doc in YAML(typ="safe").load_all(text(wishes)) if doc is not None]


def apply(admin: Admin, docs: list[Json]) -> list[Json]:
    """In their order, one by one, as kubectl does."""
    return [admin.call("PATCH", where(doc) + QUERY, doc, APPLY) for doc in docs]


def where(doc: Json) -> str:
    return path(doc["kind"], doc["metadata"].get("namespace"), doc["metadata"]["name"])


# ---- the documents -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("repo", ["https://git.example.com/a.git", "git@git.example.com:a.git"])
def test_all_of_it_applies_strictly_and_twice(bare: Admin, form: str, repo: str) -> None:
    docs = documents(repo=repo, provider_secrets=("vcenter",), **({"cron": "*/5 * * * *"} if form == "cron" else {}))
    assert FORMS[form] in {doc["kind"] for doc in docs}
    first, second = apply(bare, docs), apply(bare, docs)
    assert [one["metadata"]["resourceVersion"] for one in first] == [one["metadata"]["resourceVersion"] for one in second]


def test_strict_means_that_a_misspelt_field_would_be_refused(bare: Admin) -> None:
    """Of the test itself: what the server accepts above says something."""
    docs = documents()
    deployment = copy.deepcopy(docs[-1])
    deployment["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
    with pytest.raises(Refused, match="readOnlyRootFileSystem"):
        apply(bare, [docs[0], deployment])


@pytest.mark.parametrize("form", FORMS)
def test_its_pod_fits_pod_security_restricted(bare: Admin, form: str) -> None:
    docs = documents(**({"cron": "@hourly"} if form == "cron" else {}))
    apply(bare, docs)
    spec = docs[-1]["spec"]
    template = spec["jobTemplate"]["spec"]["template"] if form == "cron" else spec["template"]
    guarded = bare.ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
    bare.patch(guarded, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": HOME, "name": f"{ACCOUNT}-trial"}, "spec": template["spec"]}
    assert bare.create(made, f"{QUERY}&dryRun=All")["spec"]["serviceAccountName"] == ACCOUNT
    loose = copy.deepcopy(made)
    loose["spec"]["containers"][0]["securityContext"]["capabilities"] = {}
    with pytest.raises(Refused, match="PodSecurity"):
        bare.create(loose, f"{QUERY}&dryRun=All")


def test_a_target_namespace_must_be_there_as_the_text_says(bare: Admin) -> None:
    wishes = Wishes(HOME, "https://git.example.com/a.git", "reconciler:1", targets=("not-made-yet",))
    assert "# These namespaces must exist before: not-made-yet" in text(wishes)
    with pytest.raises(Refused, match=r"not-made-yet.* not found"):
        apply(bare, documents(targets=("not-made-yet",)))


# ---- the rights ----------------------------------------------------------------------------------------------------------------------

Right = tuple[str, str, str]  # group, resource, verb
WANTED: set[Right] = {(rule.group, rule.resource, verb) for rule in RULES for verb in rule.verbs}
# Every account may ask the API server about itself (ClusterRole system:basic-user).
SELF = {("authorization.k8s.io", "selfsubjectaccessreviews"), ("authorization.k8s.io", "selfsubjectrulesreviews")} | {
    ("authentication.k8s.io", "selfsubjectreviews")
}


@contextmanager
def as_account(plane: ControlPlane) -> Iterator[Admin]:
    """The printed ServiceAccount's own way to the server."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = plane.admin.call("POST", path("ServiceAccount", HOME, ACCOUNT, "token"), request)["status"]["token"]
    ours = Admin(plane.url, token, str(plane.ca.path))
    try:
        yield ours
    finally:
        ours.close()


def rights(ours: Admin, namespace: str) -> set[Right]:
    """All that the authorizer grants to this account there, by its own word."""
    group = "authorization.k8s.io/v1"
    review = {"apiVersion": group, "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    status = ours.call("POST", f"/apis/{group}/selfsubjectrulesreviews", review)["status"]
    assert not status.get("incomplete"), status
    rules = [rule for rule in status["resourceRules"] if not rule.get("resourceNames")]
    assert rules == status["resourceRules"]
    found = {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    return {right for right in found if right[:2] not in SELF}


def may(admin: Admin, verb: str, group: str, resource: str, namespace: str) -> bool:
    resource, _, sub = resource.partition("/")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": sub}
    spec = {"user": f"system:serviceaccount:{HOME}:{ACCOUNT}", "groups": ["system:serviceaccounts"], "resourceAttributes": attributes}
    version = "authorization.k8s.io/v1"
    review = {"apiVersion": version, "kind": "SubjectAccessReview", "spec": spec}
    return bool(admin.call("POST", f"/apis/{version}/subjectaccessreviews", review)["status"]["allowed"])


def test_the_account_may_do_what_the_driver_does_and_nothing_else(bare: Admin, plane: ControlPlane) -> None:
    apply(bare, documents())
    with as_account(plane) as ours:
        for namespace in ("shop", "elsewhere", "kube-system"):
            assert rights(ours, namespace) == WANTED


@pytest.mark.parametrize("scope", [name for name in SCOPES if name != "everywhere"])
def test_named_targets_bound_the_rights(bare: Admin, plane: ControlPlane, scope: str) -> None:
    wishes = SCOPES[scope]
    apply(bare, documents(**wishes))
    with as_account(plane) as ours:
        assert rights(ours, "shop") == rights(ours, "crm") == WANTED
        wide = rights(ours, "elsewhere")
        assert {verb for _, _, verb in wide} <= {"get", "list", "create"} and ("", "namespaces", "create") in wide
        assert not {resource for _, resource, _ in wide} & {
            "secrets",
            "pods",
            "pods/log",
            "persistentvolumeclaims",
            "jobs",
            "virtualmachines",
        }
        own = rights(ours, HOME) - wide
        assert own == (set() if "provider_secrets" in wishes else {("", "secrets", "get")})


@pytest.mark.parametrize("scope", SCOPES)
def test_every_right_is_there_when_it_is_asked_for_by_name(bare: Admin, scope: str) -> None:
    """The list above is the server's summary; this is its decision, one by one."""
    apply(bare, documents(**SCOPES[scope]))
    denied = [right for right in sorted(WANTED) if not may(bare, right[2], right[0], right[1], "shop")]
    assert denied == []
    never = [
        ("list", "", "secrets"),
        ("delete", "", "secrets"),
        ("create", "", "pods/exec"),
        ("create", "", "serviceaccounts/token"),
        ("impersonate", "", "users"),
        ("delete", "", "namespaces"),
        ("patch", "", "nodes"),
        ("bind", "rbac.authorization.k8s.io", "clusterroles"),
        ("escalate", "rbac.authorization.k8s.io", "roles"),
        ("update", "kubevirt.io", "virtualmachines"),
        ("update", "subresources.kubevirt.io", "virtualmachines/start"),
    ]
    assert [one for one in never if may(bare, *one, "shop")] == []


def test_secrets_of_other_namespaces_are_out_of_reach_with_named_targets(bare: Admin, plane: ControlPlane) -> None:
    for namespace in ("elsewhere", "shop"):
        bare.ensure(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": "theirs"}, "stringData": {"k": "v"}}
        )
    apply(bare, documents(targets=("shop",)))
    with as_account(plane) as ours:
        assert ours.get("Secret", "shop", "theirs") is not None
        with pytest.raises(Refused, match="cannot get resource") as caught:
            ours.get("Secret", "elsewhere", "theirs")
        assert caught.value.code == 403
        with pytest.raises(Refused, match="cannot list resource"):
            ours.all("Secret", "shop")
