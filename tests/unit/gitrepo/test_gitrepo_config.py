"""Which URLs, branches, paths and ssh commands are refused before git is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import UserError
from reconciler.gitrepo.config import RepoConfig, check_distinct


def config(url: str = "https://forge.example/team/repo.git", **changes: str | None) -> RepoConfig:
    return RepoConfig(url=url, cache_dir=Path("/cache"), holder="pod-1", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "https://ghp_s3cret@forge.example/r.git",
        "https://bot:s3cret@forge.example/r.git",
        "https://:s3cret@forge.example/r.git",
        "http://oauth2:s3cret@forge.example/r.git",
        "HTTPS://bot:s3cret@forge.example/r.git",
        "ssh://git:s3cret@forge.example/r.git",
        "https://forge.example/r.git?private_token=s3cret",
        "https://forge.example/r.git?access_token=s3cret",
        "git:s3cret@forge.example:r.git",
    ],
)
def test_a_credential_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UserError, match="CredentialInUrl") as caught:
        config(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "-oProxyCommand=x", "ext::sh -c id", "ext::sh", "git://forge.example/r", "ftp://x/y", "https://a b/c", "https://[::1/r", "x\n"],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="BadGitUrl"):
        config(url)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://forge.example/r.git", "https://forge.example/r.git"),
        ("ssh://git@forge.example:2222/r.git", "ssh://git@forge.example:2222/r.git"),
        ("git@forge.example:team/r.git", "git@forge.example:team/r.git"),
        ("forge.example:team/r.git", "forge.example:team/r.git"),
        ("file:///srv/r.git", "file:///srv/r.git"),
        ("/srv/we:ird/r.git", "/srv/we:ird/r.git"),
        ("r.git", str(Path.cwd() / "r.git")),
    ],
)
def test_usual_urls_pass(url: str, address: str) -> None:
    assert config(url).address == address


@pytest.mark.parametrize(
    "name", ["", "-f", "/a", "a/", "a..b", "a b", "a:b", "+a", "a*", "a.lock", "a//b", "a/.b", "@", "a@{1}", "a\\b", "a~1"]
)
def test_a_bad_branch_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="BadBranch"):
        config(branch=name)


@pytest.mark.parametrize("name", ["main", "wave/2026-03", "reconciler/status-2", "ü", "a+b", "a@b"])
def test_a_usual_branch_passes(name: str) -> None:
    assert config(branch=name).branch == name


def test_the_three_branches_differ() -> None:
    for clash in ({"branch": "reconciler/status"}, {"branch": "reconciler/lease"}, {"status_branch": "x", "lease_branch": "x"}):
        with pytest.raises(UserError, match="BranchClash"):
            config(**clash)
    check_distinct(config(branch=None), None)


@pytest.mark.parametrize("path", ["/etc", "../x", "a/../b"])
def test_a_path_outside_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="BadGitPath"):
        config(path=path)


def test_the_folder_is_normal() -> None:
    assert [config(path=path).folder for path in (".", "", "./", "a", "./a//b/")] == ["", "", "", "a", "a/b"]


@pytest.mark.parametrize(
    "command", ["ssh -o StrictHostKeyChecking=no", "ssh -oStrictHostKeyChecking=off", 'ssh -o "stricthostkeychecking no"']
)
def test_host_key_checks_stay_on(command: str) -> None:
    with pytest.raises(UserError, match="HostKeysUnchecked"):
        config(ssh_command=command)
    assert config(ssh_command="ssh -i /keys/id -o StrictHostKeyChecking=accept-new").ssh_command


def test_the_environment_is_not_in_the_repr() -> None:
    shown = repr(RepoConfig(url="/r", cache_dir=Path("/c"), holder="h", environment={"FORGE_TOKEN": "s3cret"}))
    assert "s3cret" not in shown
