"""What git and the forges say -> our errors. The texts are those of git 2.39, OpenSSH 9 and the forges' hooks."""

from __future__ import annotations

import pytest

from reconciler.errors import ReconcilerError, RetryableError, TerminalError
from reconciler.gitrepo.failure import Push, push_verdict, redact, remote_failure

URL = "https://forge.example/r.git"


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        ("fatal: Authentication failed for 'https://forge.example/r.git/'", TerminalError, "AuthFailed"),
        ("fatal: could not read Username for 'https://forge.example': terminal prompts disabled", TerminalError, "AuthFailed"),
        ("git@forge.example: Permission denied (publickey).\nfatal: Could not read from remote repository.", TerminalError, "AuthFailed"),
        ("fatal: unable to access 'https://forge.example/r/': The requested URL returned error: 403", TerminalError, "AuthFailed"),
        ("remote: HTTP Basic: Access denied", TerminalError, "AuthFailed"),
        ("Host key verification failed.\nfatal: Could not read from remote repository.", TerminalError, "HostKeyChanged"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nPermission denied (publickey).", TerminalError, "HostKeyChanged"),
        ("No ED25519 host key is known for forge.example and you have requested strict checking.", TerminalError, "HostKeyChanged"),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", RetryableError, "GitUnavailable"),
        ("fatal: unable to access 'https://x/': The requested URL returned error: 503", RetryableError, "GitUnavailable"),
        ("fatal: '/srv/r.git' does not appear to be a git repository", RetryableError, "GitUnavailable"),
        ("ssh: connect to host x port 22: Connection refused", RetryableError, "GitUnavailable"),
        ("", RetryableError, "GitUnavailable"),
    ],
)
def test_a_failed_exchange(said: str, kind: type[ReconcilerError], reason: str) -> None:
    error = remote_failure(URL, said)
    assert type(error) is kind
    assert error.reason == reason
    assert "forge.example" in error.message


def line(flag: str, summary: str, branch: str = "reconciler/status") -> str:
    return f"To {URL}\n{flag}\t1111:refs/heads/{branch}\t{summary}\nDone\n"


@pytest.mark.parametrize("porcelain", [line(" ", "1..2"), line("*", "[new branch]"), line("=", "[up to date]")])
def test_accepted(porcelain: str) -> None:
    assert push_verdict(URL, "reconciler/status", porcelain, "") is Push.ACCEPTED


@pytest.mark.parametrize(
    "summary",
    [
        "[rejected] (fetch first)",
        "[rejected] (non-fast-forward)",
        "[remote rejected] (cannot lock ref 'refs/heads/reconciler/status': is at 2 but expected 1)",
        "[remote rejected] (failed to update ref)",
        "[remote rejected] (reference already exists)",
        "[remote rejected] (shallow update not allowed)",
    ],
)
def test_raced(summary: str) -> None:
    assert push_verdict(URL, "reconciler/status", line("!", summary), "error: failed to push some refs") is Push.RACED


@pytest.mark.parametrize(
    "reason",
    [
        "pre-receive hook declined",
        "protected branch hook declined",
        "push declined due to repository rule violations",
        "deny updating a hidden ref",
        "prohibited by Gerrit: not permitted: update",
        "branch is currently checked out",
    ],
)
def test_refused(reason: str) -> None:
    with pytest.raises(TerminalError, match=r"GitRefused.*no-bots rule") as caught:
        push_verdict(URL, "reconciler/status", line("!", f"[remote rejected] ({reason})"), "remote: no-bots rule")
    assert reason in caught.value.message


@pytest.mark.parametrize("reason", ["unpacker error", "internal server error", "something new"])
def test_a_reason_that_may_pass_is_retryable(reason: str) -> None:
    with pytest.raises(RetryableError, match=f"GitUnavailable.*{reason}"):
        push_verdict(URL, "reconciler/status", line("!", f"[remote rejected] ({reason})"), "")


def test_a_push_that_never_got_to_the_ref() -> None:
    with pytest.raises(TerminalError, match="AuthFailed"):
        push_verdict(URL, "reconciler/status", "", "fatal: Authentication failed for 'https://forge.example/r.git/'")
    with pytest.raises(RetryableError, match="GitUnavailable"):
        push_verdict(URL, "reconciler/status", line("!", "[rejected] (fetch first)", branch="other"), "")


@pytest.mark.parametrize(
    "text",
    [
        "fatal: unable to access 'https://bot:s3cret@forge.example/r.git/'",
        "https://s3cret@forge.example/r.git",
        "https://a@b:s3cret@forge.example/r.git",
        "Authorization: Basic s3cret",
        "> PRIVATE-TOKEN: s3cret",
        "GET https://forge.example/r.git?private_token=s3cret&service=git-upload-pack",
    ],
)
def test_redaction(text: str) -> None:
    assert "s3cret" not in redact(text)


def test_redacted_text_stays_readable_bounded_and_without_control_characters() -> None:
    assert redact("fatal: 'https://forge.example/r.git' not found\n") == "fatal: 'https://forge.example/r.git' not found"
    assert redact("a\x1b[31mb") == "a [31mb"
    long = redact("x" * 5000 + "the end")
    assert len(long) <= 601
    assert long.endswith("the end")
