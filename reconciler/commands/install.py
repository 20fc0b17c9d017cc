"""`reconciler install`: manifests that put the reconciler into a cluster, for `kubectl apply -f -`.

What it is: text from options: namespace, account, exactly the rights that the driver uses (drivers/kubevirt/rbac), and a Deployment or a
CronJob. What it is not: a client of any cluster, or a place for secrets; their layout is told in comments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.drivers.kubevirt.rbac import RULES, Rule
from reconciler.errors import UserError
from reconciler.gitrepo.config import RepoConfig
from reconciler.manifests.emit import dump

NAME = "reconciler"
UID = 107  # qemu's in KubeVirt; the image and the copy pods run as it too
PORT = 8080
ASKPASS, GIT, CREDENTIALS, CACHE, HOME = "/askpass", "/git", "/credentials", "/var/cache/reconciler", "/home/reconciler"

# What the driver reads without a namespace. The rest can be granted namespace by namespace.
_CLUSTER_WIDE = frozenset(
    {
        "namespaces",
        "nodes",
        "persistentvolumes",
        "storageclasses",
        "virtualmachineinstancetypes",
        "virtualmachineclusterinstancetypes",
        "storageprofiles",
        "cdiconfigs",
        "network-attachment-definitions",
    }
)

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wishes:
    """`cron`: a CronJob with this schedule. `targets`: rights in these namespaces only. `provider_secrets`: mounted, not read by API."""

    namespace: str
    repo: str
    image: str
    cron: str | None = None
    branch: str | None = None
    path: str = "."
    targets: tuple[str, ...] = ()
    provider_secrets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: {"app.kubernetes.io/name": NAME})


def run(wishes: Wishes) -> int:
    print(text(wishes), end="")
    return 0


def text(wishes: Wishes) -> str:
    """Errors: UserError for a schedule that is none, or a git URL with a credential in it."""
    RepoConfig(url=wishes.repo, cache_dir=Path(CACHE), holder=NAME, ssh_command=_environment(wishes).get("RECONCILER_GIT_SSH_COMMAND"))
    if wishes.cron is not None and len(wishes.cron.split()) != 5 and not wishes.cron.startswith("@"):
        raise UserError("InvalidArgument", f"--cron {wishes.cron!r} is not a schedule; it has five fields, for example '*/5 * * * *'")
    documents = [dump(manifest).decode() for manifest in manifests(wishes)]
    return "\n".join(_comments(wishes)) + "\n---\n" + "---\n".join(documents)


def manifests(wishes: Wishes) -> Iterator[Manifest]:
    yield _object("v1", "Namespace", wishes.namespace, wishes, namespaced=False)
    yield _object("v1", "ServiceAccount", NAME, wishes)
    yield from _rights(wishes)
    if not _by_ssh(wishes):
        yield {**_object("v1", "ConfigMap", f"{NAME}-askpass", wishes), "data": {"askpass": _ASKPASS_PROGRAM}}
    yield _cron_job(wishes, wishes.cron) if wishes.cron is not None else _deployment(wishes)


_ASKPASS_PROGRAM = f"""\
#!/bin/sh
# git asks for a user name or a password; both are files of the Secret.
case "$1" in
Username*) cat {GIT}/username ;;
*) cat {GIT}/password ;;
esac
"""


def _by_ssh(wishes: Wishes) -> bool:
    return wishes.repo.startswith("ssh://") or ("://" not in wishes.repo and "@" in wishes.repo.split(":")[0])


def _object(version: str, kind: str, name: str, wishes: Wishes, *, namespace: str = "", namespaced: bool = True) -> Manifest:
    place = {"namespace": namespace or wishes.namespace} if namespaced else {}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **place, "labels": dict(wishes.labels)}}


# ---- rights -----------------------------------------------------------------------------------------------------------------------------

_RBAC = "rbac.authorization.k8s.io"


def _rights(wishes: Wishes) -> Iterator[Manifest]:
    """All in one ClusterRole; or with named target namespaces only what has no namespace, and a Role in each of them."""
    if not wishes.targets:
        yield from _cluster_role(wishes, RULES)
        return
    yield from _cluster_role(wishes, [r for r in RULES if r.resource in _CLUSTER_WIDE])
    for namespace in dict.fromkeys(wishes.targets):
        yield from _role(wishes, NAME, namespace, [r for r in RULES if r.resource not in _CLUSTER_WIDE])
    if wishes.namespace not in wishes.targets and not wishes.provider_secrets:
        yield from _role(wishes, f"{NAME}-secrets", wishes.namespace, [Rule("", "secrets", ("get",))])


def _cluster_role(wishes: Wishes, rules: Iterable[Rule]) -> Iterator[Manifest]:
    yield {**_object(f"{_RBAC}/v1", "ClusterRole", NAME, wishes, namespaced=False), "rules": [_rule(r) for r in rules]}
    binding = _object(f"{_RBAC}/v1", "ClusterRoleBinding", NAME, wishes, namespaced=False)
    yield {**binding, **_bound(wishes, "ClusterRole", NAME)}


def _role(wishes: Wishes, name: str, namespace: str, rules: Iterable[Rule]) -> Iterator[Manifest]:
    yield {**_object(f"{_RBAC}/v1", "Role", name, wishes, namespace=namespace), "rules": [_rule(r) for r in rules]}
    yield {**_object(f"{_RBAC}/v1", "RoleBinding", name, wishes, namespace=namespace), **_bound(wishes, "Role", name)}


def _rule(rule: Rule) -> Manifest:
    return {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)}


def _bound(wishes: Wishes, kind: str, name: str) -> Manifest:
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": wishes.namespace}
    return {"roleRef": {"apiGroup": _RBAC, "kind": kind, "name": name}, "subjects": [subject]}


# ---- the process ------------------------------------------------------------------------------------------------------------------------


def _deployment(wishes: Wishes) -> Manifest:
    """One, and never two at a time: the lease would keep a second one idle, but a rollout should not wait for that."""
    pod = _pod(wishes, ["run", "--listen", f"0.0.0.0:{PORT}"])
    container = pod["spec"]["containers"][0]
    probe = {"httpGet": {"path": "/healthz", "port": "http"}}
    container["ports"] = [{"name": "http", "containerPort": PORT}]
    container["livenessProbe"] = {**probe, "periodSeconds": 30, "failureThreshold": 3, "timeoutSeconds": 5}
    container["readinessProbe"] = {**probe, "periodSeconds": 10, "timeoutSeconds": 5}
    pod["spec"]["terminationGracePeriodSeconds"] = 60
    spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": dict(wishes.labels)}, "template": pod}
    return {**_object("apps/v1", "Deployment", NAME, wishes), "spec": spec}


def _cron_job(wishes: Wishes, schedule: str) -> Manifest:
    pod = _pod(wishes, ["run", "--once"])
    pod["spec"]["restartPolicy"] = "Never"
    job = {"backoffLimit": 0, "template": pod}
    spec = {
        "schedule": schedule,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 300,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"spec": job},
    }
    return {**_object("batch/v1", "CronJob", NAME, wishes), "spec": spec}


def _pod(wishes: Wishes, command: list[str]) -> Manifest:
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": NAME,
        "image": wishes.image,
        "args": [*command, "--log-format", "json"],
        "env": [{"name": name, "value": value} for name, value in _environment(wishes).items()],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": security,
        "volumeMounts": [_mount(v, path) for v, path in _volumes(wishes)],
    }
    ids = {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "serviceAccountName": NAME,
        "securityContext": ids,
        "containers": [container],
        "volumes": [volume for volume, _ in _volumes(wishes)],
    }
    return {"metadata": {"labels": dict(wishes.labels)}, "spec": spec}


def _environment(wishes: Wishes) -> dict[str, str]:
    env = {"RECONCILER_REPO": wishes.repo, "RECONCILER_WORKER_IMAGE": wishes.image, "RECONCILER_CACHE_DIR": CACHE, "HOME": HOME}
    if wishes.branch:
        env["RECONCILER_BRANCH"] = wishes.branch
    if wishes.path != ".":
        env["RECONCILER_PATH"] = wishes.path
    if wishes.provider_secrets:
        env["RECONCILER_CREDENTIALS_DIR"] = CREDENTIALS
    if _by_ssh(wishes):
        options = f"-i {GIT}/ssh-privatekey -o IdentitiesOnly=yes -o UserKnownHostsFile={GIT}/known_hosts -o StrictHostKeyChecking=yes"
        env["RECONCILER_GIT_SSH_COMMAND"] = f"ssh {options}"
    else:
        env["RECONCILER_GIT_ASKPASS"] = f"{ASKPASS}/askpass"
    return env


def _volumes(wishes: Wishes) -> Iterator[tuple[Manifest, str]]:
    """Volume and mount path. Only the two emptyDirs can be written."""
    yield {"name": "cache", "emptyDir": {"sizeLimit": "2Gi"}}, CACHE
    yield {"name": "home", "emptyDir": {"sizeLimit": "64Mi"}}, HOME
    yield {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}, "/tmp"
    yield {"name": "git", "secret": {"secretName": f"{NAME}-git", "defaultMode": 0o440}}, GIT
    if not _by_ssh(wishes):
        yield {"name": "askpass", "configMap": {"name": f"{NAME}-askpass", "defaultMode": 0o555}}, ASKPASS
    for i, name in enumerate(dict.fromkeys(wishes.provider_secrets)):
        secret = {"secretName": name, "defaultMode": 0o440}
        yield {"name": f"credentials-{i}", "secret": secret}, f"{CREDENTIALS}/{wishes.namespace}/{name}"


def _mount(volume: Manifest, path: str) -> Manifest:
    read_only = {} if "emptyDir" in volume else {"readOnly": True}
    return {"name": volume["name"], "mountPath": path, **read_only}


# ---- what a person has to add ---------------------------------------------------------------------------------------------------------


def _comments(wishes: Wishes) -> Iterator[str]:
    yield "# Made by `reconciler install`. Apply it with: kubectl apply -f -"
    yield "#"
    yield f"# Secret {wishes.namespace}/{NAME}-git, which you make:"
    if _by_ssh(wishes):
        yield "#   ssh-privatekey   a deploy key that may push (branches reconciler/status and reconciler/lease)"
        yield "#   known_hosts      the host key of the git server; it is always checked"
    else:
        yield "#   username, password   of an account that may push (branches reconciler/status and reconciler/lease)"
    yield "#"
    yield "# One Secret per Provider, as its spec.secret names it:"
    yield "#   vsphere     user, password, and ca.crt or thumbprint"
    yield "#   openshift   token and ca.crt; none for this very cluster (spec.url is empty)"
    how = (
        f"mounted under {CREDENTIALS}/{wishes.namespace}: {', '.join(wishes.provider_secrets)}"
        if wishes.provider_secrets
        else "read from this cluster when they are needed"
    )
    yield f"# They are {how}."
    yield "#"
    if wishes.targets:
        yield f"# These namespaces must exist before: {', '.join(dict.fromkeys(wishes.targets))}"
        yield "#"
    yield f"# Copy pods in the target namespaces run as uid, gid and fsGroup {UID} and fit the Pod Security level `restricted`."
    yield "# Volumes of mode Block need device_ownership_from_security_context = true in the CRI configuration of containerd or CRI-O on"
    yield "# the nodes, else a pod that is not root (ours, virt-launcher) cannot open them."
    yield "# On OpenShift the numbers need an SCC; for each target namespace, and for this one:"
    yield "#   oc adm policy add-scc-to-user nonroot-v2 -z default -n TARGET"
    yield f"#   oc adm policy add-scc-to-user nonroot-v2 -z {NAME} -n {wishes.namespace}"
