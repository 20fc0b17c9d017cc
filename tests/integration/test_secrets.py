"""No secret is seen anywhere: a run over authenticated git, cold, warm and by export, with failures, and then a search of all that it left.

Looked for: passwords (also where they were refused), tokens, session cookies, and the tickets in the URLs of an export; as they are, and as
JSON, URLs, base64 (alone, with the user's name as in a header, and anywhere inside a longer text) and hex write them.
Looked at: every object of git, logs, every state that an object of the cluster (not a Secret) was ever in, what was written to the vCenter,
arguments and environments of processes, and every file that was left, the caches too.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from reconciler.core.model import Result
from reconciler.lab.cluster.kinds import KINDS, SECRET
from reconciler.lab.machines import Power
from reconciler.lab.vcenter.http import Request, Response
from reconciler.log import _spellings
from tests.e2e.git_http import GitServer
from tests.integration.field import NAMES, USER, Field
from tests.integration.simlab import MANIFESTS, PLAN

GIT_USER = "writer"
ASKPASS = """#!/bin/sh
case "$1" in Username*) echo {user} ;; *) cat '{file}' ;; esac
"""
NOTING_GIT = """#!/bin/sh
cat /proc/$$/environ /proc/$$/cmdline >>'{file}'
exec git "$@"
"""


def password() -> str:
    """With characters that each spelling writes in its own way, and a core that most of them leave alone."""
    return f"p@ss w0rd/+é:\"'{secrets.token_hex(8)}"


def needles(secret: str) -> set[bytes]:
    """Every way to write it that we can think of."""
    raw = secret.encode()
    core = secret.rpartition("'")[2]
    texts = {core, quote(secret), quote_plus(secret), raw.hex(), *_spellings(secret)}
    found = {text.encode() for text in texts}
    for shift in range(3):  # where it begins in a longer text decides which of three forms it has
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"\0" * shift + raw)
            found.add(whole[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6])
    return found


@dataclass
class Held:
    """What must not be seen, by what it is; and what the processes of this run were started with."""

    secrets: dict[str, list[str]] = field(default_factory=dict)
    started: set[bytes] = field(default_factory=set)
    soap: list[bytes] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)

    def add(self, what: str, text: str) -> None:
        self.secrets.setdefault(what, []).append(text)

    def seen_in(self, places: Mapping[str, bytes]) -> list[tuple[str, str]]:
        known = [(what, n) for what, texts in self.secrets.items() for text in texts for n in needles(text)]
        return sorted({(place, what) for place, data in places.items() for what, needle in known if needle in data})

    def watch_processes(self) -> None:
        """All of this machine's: a command line is new, or it was looked at already."""
        seen: set[tuple[str, bytes]] = set()
        while not self.end.wait(0.05):
            for entry in Path("/proc").iterdir():
                if not entry.name.isdigit() or int(entry.name) == os.getpid():
                    continue
                try:
                    line = (entry / "cmdline").read_bytes()
                    if (entry.name, line) not in seen:
                        seen.add((entry.name, line))
                        self.started |= {line, (entry / "environ").read_bytes()}
                except OSError:
                    continue


@dataclass(frozen=True)
class Forge:
    """The way to the repo over HTTPS, with a password."""

    url: str
    environment: dict[str, str]
    askpass: Path
    wrong_askpass: Path
    noted: Path


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def estate(tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    of_vcenter, refused = password(), password()
    with Field(tmp_path, password=of_vcenter) as made:
        for what, user, text in (("vCenter", USER, of_vcenter), ("refused vCenter", USER, refused)):
            held.add(f"password of {what}", text)
            held.add(f"login of {what}", f"{user}:{text}")
        held.add("token of the cluster", made.cluster.token)
        made.secret("refused-vc-credentials", user=USER, password=refused)
        note_sessions_and_tickets(made, held, monkeypatch)
        erp = made.vm("erp")
        made.world.create_snapshot(erp, "before the update")
        made.vm("bad")
        made.vm("mail", tracked=True)
        break_reads_of(made, monkeypatch)
        yield made


def note_sessions_and_tickets(made: Field, held: Held, patch: pytest.MonkeyPatch) -> None:
    login, begin, sdk = made.vcenter.sessions.login, made.vcenter.leases._begin, made.vcenter._sdk

    def logging_in(user: str) -> Any:
        session = login(user)
        held.add("session of the vCenter", session.key)
        return session

    def beginning(*args: Any) -> Any:
        lease = begin(*args)
        held.add("ticket of an export", made.vcenter.leases.known[lease._moId].ticket)
        return lease

    def answering(request: Request) -> Response:
        _, _, body = request.body.partition(b"Body")  # the session's cookie belongs into the header
        if b"<CreateSnapshot_Task" in body or b"<ReconfigVM_Task" in body:
            held.soap.append(body)
        return sdk(request)

    patch.setattr(made.vcenter.sessions, "login", logging_in)
    patch.setattr(made.vcenter.leases, "_begin", beginning)
    patch.setattr(made.vcenter, "_sdk", answering)


def break_reads_of(made: Field, patch: pytest.MonkeyPatch) -> None:
    """The disk of `bad` is gone once its guest is off, and who says so repeats what it was asked; the first export breaks off."""
    folder = made.vcenter._folder

    def reading(request: Request, label: str) -> Response:
        if "/bad/" in label and made.world.vm("bad").power is Power.OFF:
            return Response(404, "\n".join(f"{k}: {v}" for k, v in request.headers.items()).encode())
        return folder(request, label)

    patch.setattr(made.vcenter, "_folder", reading)
    made.vcenter.faults.script("T", only=lambda label: label.startswith("GET /nfc/"))


@pytest.fixture
def forge(estate: Field, held: Held) -> Iterator[Forge]:
    right, wrong = password(), password()
    held.add("password of git", right)
    held.add("login of git", f"{GIT_USER}:{right}")
    held.add("refused password of git", wrong)
    held.add("refused login of git", f"{GIT_USER}:{wrong}")
    root = estate.root
    server = GitServer(estate.ca.server_context("forge")[0], {GIT_USER: right})
    server.start()
    bin_, noted = root / "bin", root / "started-git"
    bin_.mkdir()
    script(bin_ / "git", NOTING_GIT.format(file=noted).replace("exec git", f"exec {shutil.which('git')}"))
    environment = {"GIT_SSL_CAINFO": str(estate.ca.path), "PATH": f"{bin_}:{os.environ['PATH']}"}
    yield Forge(server.url + str(estate.repo), environment, askpass(root, "right", right), askpass(root, "wrong", wrong), noted)
    server.stop()


def askpass(root: Path, name: str, text: str) -> Path:
    folder = root / "secret" / name
    folder.mkdir(parents=True)
    (folder / "password").write_text(text)
    return script(folder / "askpass", ASKPASS.format(user=GIT_USER, file=folder / "password"))


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_no_secret_is_seen_anywhere(estate: Field, forge: Forge, held: Held) -> None:
    estate.write("refused.yaml", another_provider(estate.vcenter.url))
    estate.run_of(*NAMES, "erp", "bad")
    warm = {"plan": "warm", "kind": "warm", "annotations": '{reconciler.dev/precopy-interval: "3"}'}
    estate.run_of("mail", **warm)
    estate.commit()
    watch = threading.Thread(target=held.watch_processes)
    watch.start()
    try:
        wrong = start(estate, forge, 2, forge.wrong_askpass)
        process = start(estate, forge, 1, forge.askpass)
        wait_for(lambda: process.poll() is not None or rounds(estate, "mail") > 0)
        estate.run_of("mail", **warm, more=f', cutover: "{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"')
        estate.commit("Cut over")
        assert process.wait(timeout=240) == 1, "a VM failed\n" + estate.log()[-4000:]
        assert wrong.wait(timeout=60) == 2, "the repo cannot be read"
    finally:
        held.end.set()
        watch.join()
    assert_all_of_it_happened(estate, held)
    found = places(estate, forge, held)
    assert_it_was_looked_at(found)
    assert held.seen_in(found) == []


def another_provider(url: str) -> str:
    """The same vCenter by another account, with maps and a plan that nothing starts."""
    vc, _, *maps = MANIFESTS.format(url=url).split("---\n")
    plan = PLAN.format(name="refused", namespace="shop", vms='[{name: "web"}]', annotations="{}", type="cold")
    text = "---\n".join([vc, *maps, plan])
    for name in ("vc", "net", "store"):
        text = text.replace(f"name: {name},", f"name: refused-{name},").replace(f"name: {name}-", f"name: refused-{name}-")
    return text


def start(estate: Field, forge: Forge, number: int, askpass: Path) -> subprocess.Popen[str]:
    flags = ("--repo", forge.url, "--git-askpass", str(askpass), "--log-level", "DEBUG", "--lease-ttl", "30")
    return estate.start(number, *flags, environment=forge.environment)


def rounds(estate: Field, name: str) -> int:
    return sum(r.ended is not None for v in estate.records().vms.values() if v.name == name for r in v.rounds)


def wait_for(until: Callable[[], bool], limit_s: float = 180.0) -> None:
    end = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < end
        time.sleep(0.2)


def assert_all_of_it_happened(estate: Field, held: Held) -> None:
    """What is not there cannot leak."""
    estate.assert_moved(*NAMES, "erp", "mail")
    records = {v.name: v for v in estate.records().vms.values()}
    assert records["bad"].result is Result.FAILED and "404" in records["bad"].message, records["bad"].message
    assert rounds(estate, "mail") > 0
    assert len(held.secrets["ticket of an export"]) == 2, "one broke off"
    assert len(held.secrets["session of the vCenter"]) >= 3
    refused = next(s for (kind, ref), s in estate.records().statuses.items() if kind == "Provider" and ref.name == "refused-vc")
    assert any(c.type == "ConnectionTestFailed" or "AuthFailed" in c.reason for c in refused.conditions), refused.conditions


# ---- where it is looked for -------------------------------------------------------------------------------------------------------------


def places(estate: Field, forge: Forge, held: Held) -> dict[str, bytes]:
    found = {"command lines and environments": b"\n".join(held.started), "what was written to the vCenter": b"\n".join(held.soap)}
    found["pods' arguments and environments"] = repr(estate.pods.started).encode()
    for repo in [estate.repo, *estate.root.glob("cache-*/git-*/*.git")]:
        batch = ["git", "-C", str(repo), "cat-file", "--batch-all-objects", "--batch"]
        found[f"git objects of {repo.relative_to(estate.root)}"] = subprocess.run(batch, capture_output=True, check=True).stdout
    for kind in KINDS:
        if kind is not SECRET:
            found[f"every {kind.kind} there was"] = b"\n".join(c.entry.raw() for c in estate.cluster.store.since(kind, 0))
    ours = ("pki", "secret", "kubeconfig", "vsphere", "cluster/volumes")  # guests' disks, and where secrets belong
    for file in estate.root.rglob("*"):
        name = str(file.relative_to(estate.root))
        if file.is_file() and not name.startswith(ours) and "/volumes/" not in name:
            found[name] = file.read_bytes()
    return found


def assert_it_was_looked_at(found: Mapping[str, bytes]) -> None:
    """Each place holds what it must hold, so that it would hold a secret too."""
    assert b"mail" in found["git objects of repo.git"]
    assert any(name.startswith("git objects of cache-1/") for name in found)
    assert b"reconciler\0run" in found["command lines and environments"]
    assert b"GIT_ASKPASS" in found["started-git"] and b"push" in found["started-git"]
    assert b"--try" in found["pods' arguments and environments"]
    assert b"CreateSnapshot" in found["what was written to the vCenter"]
    assert b"404" in found["every Pod there was"], "a termination message"
    assert b"SuccessfulCreate" in found["every Event there was"]
    assert b"AuthFailed" in found["log-2.txt"]
    assert any(name.startswith("pods-logs/") for name in found)


@pytest.mark.parametrize("prefix", ["", "u:", "user:", '{"password": "'])
def test_the_search_knows_each_spelling(held: Held, prefix: str) -> None:
    text = password()
    held.add("it", text)
    whole = prefix + text + '"}'
    spelled = {
        "plain": whole.encode(),
        "json": json.dumps(whole).encode(),
        "repr": repr(whole).encode(),
        "url": quote(whole, safe="").encode(),
        "form": quote_plus(whole).encode(),
        "base64": base64.b64encode(whole.encode()),
        "urlsafe": base64.urlsafe_b64encode(whole.encode()),
        "hex": whole.encode().hex().encode(),
    }
    assert {place for place, _ in held.seen_in(spelled)} == set(spelled)
    assert held.seen_in({"nothing": b"p@ss w0rd"}) == []
