"""`reconciler install`: the YAML parses, the rights are the driver's, and the pod is as locked up as it says."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler import cli
from reconciler.commands.install import Wishes, text
from reconciler.drivers.kubevirt.rbac import RULES
from reconciler.errors import UserError

REPO = "https://git.example.com/platform/migrations.git"


def wishes(**change: Any) -> Wishes:
    return Wishes(**({"namespace": "openshift-mtv", "repo": REPO, "image": "registry.example.com/reconciler:1"} | change))


def parsed(wish: Wishes) -> list[dict[str, Any]]:
    return [doc for doc in YAML(typ="safe").load_all(text(wish)) if doc is not None]


def of_kind(docs: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [d for d in docs if d["kind"] == kind]


def rules_of(docs: list[dict[str, Any]], *kinds: str) -> set[tuple[str, str, tuple[str, ...]]]:
    rules = [rule for kind in kinds for doc in of_kind(docs, kind) for rule in doc["rules"]]
    return {(r["apiGroups"][0], r["resources"][0], tuple(r["verbs"])) for r in rules}


WANTED = {(r.group, r.resource, r.verbs) for r in RULES}


def test_every_document_has_what_kubectl_needs() -> None:
    for wish in (wishes(), wishes(cron="*/5 * * * *"), wishes(targets=("shop",), provider_secrets=("vc",))):
        docs = parsed(wish)
        assert all({"apiVersion", "kind", "metadata"} <= doc.keys() and doc["metadata"]["name"] for doc in docs)
        cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
        assert all(("namespace" in d["metadata"]) == (d["kind"] not in cluster_wide) for d in docs)
        identities = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in docs]
        assert len(set(identities)) == len(identities)


def test_the_rights_are_exactly_those_of_the_driver() -> None:
    docs = parsed(wishes())
    assert rules_of(docs, "ClusterRole") == WANTED and not of_kind(docs, "Role")
    (binding,) = of_kind(docs, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == of_kind(docs, "ClusterRole")[0]["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "reconciler", "namespace": "openshift-mtv"}]


def test_named_target_namespaces_narrow_the_rights_and_lose_none() -> None:
    docs = parsed(wishes(targets=("shop", "crm"), provider_secrets=("vc",)))
    assert rules_of(docs, "ClusterRole", "Role") == WANTED
    assert {"nodes", "persistentvolumes"} <= {resource for _, resource, _ in rules_of(docs, "ClusterRole")}
    assert not {resource for _, resource, _ in rules_of(docs, "ClusterRole")} & {"secrets", "pods", "persistentvolumeclaims", "jobs"}
    assert [d["metadata"]["namespace"] for d in of_kind(docs, "Role")] == ["shop", "crm"]
    assert len(of_kind(docs, "RoleBinding")) == 2


def test_secrets_of_providers_are_readable_where_they_are() -> None:
    docs = parsed(wishes(targets=("shop",)))
    role = next(d for d in of_kind(docs, "Role") if d["metadata"]["namespace"] == "openshift-mtv")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]


def test_the_deployment_is_one_locked_up_pod_with_probes() -> None:
    (deployment,) = of_kind(parsed(wishes()), "Deployment")
    spec = deployment["spec"]
    assert spec["replicas"] == 1 and spec["strategy"] == {"type": "Recreate"}
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    pod = spec["template"]["spec"]
    assert pod["securityContext"] | {"runAsNonRoot": True, "runAsUser": 107, "fsGroup": 107} == pod["securityContext"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["args"] == ["run", "--listen", "0.0.0.0:8080", "--log-format", "json"]
    writable = {m["name"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {v["name"] for v in pod["volumes"] if "emptyDir" in v}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_cron_never_overlaps_and_never_retries_by_itself() -> None:
    docs = parsed(wishes(cron="*/5 * * * *"))
    assert not of_kind(docs, "Deployment")
    (cron,) = of_kind(docs, "CronJob")
    assert cron["spec"]["schedule"] == "*/5 * * * *" and cron["spec"]["concurrencyPolicy"] == "Forbid"
    job = cron["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["args"] == ["run", "--once", "--log-format", "json"]
    assert "livenessProbe" not in pod["containers"][0]
    with pytest.raises(UserError, match="five fields"):
        text(wishes(cron="5m"))


def environment(docs: list[dict[str, Any]]) -> dict[str, str]:
    (deployment,) = of_kind(docs, "Deployment")
    return {e["name"]: e["value"] for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}


def test_git_asks_a_program_that_reads_the_secret() -> None:
    docs = parsed(wishes())
    assert environment(docs)["RECONCILER_GIT_ASKPASS"] == "/askpass/askpass"
    (program,) = of_kind(docs, "ConfigMap")
    assert program["data"]["askpass"].startswith("#!/bin/sh\n") and "/git/password" in program["data"]["askpass"]
    assert not of_kind(docs, "Secret"), "secrets are made by a person"


def test_ssh_checks_the_host_key() -> None:
    docs = parsed(wishes(repo="git@git.example.com:platform/migrations.git"))
    assert "StrictHostKeyChecking=yes" in environment(docs)["RECONCILER_GIT_SSH_COMMAND"]
    assert not of_kind(docs, "ConfigMap")


def test_mounted_provider_secrets_lie_where_credentials_are_looked_for() -> None:
    docs = parsed(wishes(provider_secrets=("vc-credentials",)))
    assert environment(docs)["RECONCILER_CREDENTIALS_DIR"] == "/credentials"
    (deployment,) = of_kind(docs, "Deployment")
    mounts = deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert "/credentials/openshift-mtv/vc-credentials" in [m["mountPath"] for m in mounts]


@pytest.mark.parametrize("repo", [REPO, "git@git.example.com:platform/migrations.git"])
@pytest.mark.parametrize("cron", [None, "@hourly"])
def test_the_command_line_understands_what_the_pod_is_told(repo: str, cron: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments and variables of the printed pod, through our own parser: each arrives where it is meant."""
    wish = wishes(repo=repo, cron=cron, branch="estate", path="sites/a", provider_secrets=("vc",))
    (made,) = (doc for doc in parsed(wish) if doc["kind"] in ("Deployment", "CronJob"))
    template = made["spec"]["jobTemplate"]["spec"]["template"] if cron else made["spec"]["template"]
    (container,) = template["spec"]["containers"]
    for one in container["env"]:
        monkeypatch.setenv(one["name"], one["value"])
    args = cli._parser().parse_args(container["args"])
    assert (args.command, args.once, args.listen, args.log_format) == ("run", bool(cron), None if cron else "0.0.0.0:8080", "json")
    known = cli._settings(args)
    assert (known.repo, known.branch, known.path, known.worker_image) == (repo, "estate", "sites/a", wish.image)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(known.cache_dir) in mounts and known.credentials_dir is not None
    assert f"{known.credentials_dir}/{wish.namespace}/vc" in mounts
    if repo == REPO:
        assert known.git_askpass is not None and str(known.git_askpass.parent) in mounts
    else:
        assert known.git_ssh_command is not None and "/git/known_hosts" in known.git_ssh_command and "/git" in mounts


def test_a_token_in_the_url_is_refused_before_it_is_printed() -> None:
    with pytest.raises(UserError) as caught:
        text(wishes(repo="https://x:ghp_secret@git.example.com/a.git"))
    assert caught.value.reason == "CredentialInUrl"
