"""Provider and Secret -> a connection: what is refused before any request, and that nothing secret shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.client.configuration import Configuration

from reconciler.clock import SystemClock
from reconciler.core.copyspec import CopyDisk, CopySpec, DiskProgress, DiskResult, Reader, TlsSpec, progress_line, result_line
from reconciler.core.copyspec import CopyResult as Result
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Secret
from reconciler.core.target import CopyJob, Instance, Owner, Placement, VolumeMode
from reconciler.drivers.kubevirt import copyjob, session
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.errors import TerminalError
from reconciler.ports import CopySource, TargetDriver

TOKEN = "eyJhbGciOiJSUzI1NiJ9.payload.signature"


def connect(url: str, secret: dict[str, str] | None, kubeconfig: Path | None = None) -> TargetDriver:
    provider = ProviderSpec(ObjectRef("mtv", "target"), "openshift", url, None, {}, Place("p.yaml", 1))
    secrets = None if secret is None else {key: Secret(text) for key, text in secret.items()}
    return session.connect(
        provider, secrets, kubeconfig=kubeconfig, settings=TargetSettings("image"), clock=SystemClock(), instance=Instance()
    )


@pytest.mark.parametrize(
    ("url", "secret", "reason"),
    [
        ("https://api.example:6443", None, "AuthFailed"),
        ("https://api.example:6443", {"token": " \n"}, "AuthFailed"),
        ("http://api.example:6443", {"token": TOKEN}, "InvalidUrl"),
        ("https://api.example:6443", {"token": TOKEN, "insecureSkipVerify": "yes"}, "InvalidSecret"),
        ("https://api.example:6443", {"token": TOKEN, "insecureSkipVerify": "True"}, "InvalidSecret"),
    ],
)
def test_what_cannot_work_is_refused_by_name_before_any_request(url: str, secret: dict[str, str] | None, reason: str) -> None:
    with pytest.raises(TerminalError) as caught:
        connect(url, secret)
    assert caught.value.reason == reason
    assert "mtv/target" in caught.value.message
    assert TOKEN not in str(caught.value)


def test_this_cluster_needs_a_way_in(tmp_path: Path) -> None:
    with pytest.raises(TerminalError) as caught:
        connect("", None, tmp_path / "missing")
    assert caught.value.reason == "AuthFailed"
    (tmp_path / "broken").write_text("{]")
    with pytest.raises(TerminalError):
        connect("", None, tmp_path / "broken")


def test_a_renewed_token_is_taken_within_seconds_and_not_looked_for_with_each_request() -> None:
    class Time(SystemClock):
        s = 1000.0

        def monotonic(self) -> float:
            return self.s

    looks: list[float] = []

    def refresh(configuration: Configuration) -> None:
        """As both of the SDK's: it puts itself back in place."""
        looks.append(time.s)
        configuration.api_key["BearerToken"] = f"token-{len(looks)}"
        configuration.refresh_api_key_hook = refresh

    time, configuration = Time(), Configuration()
    configuration.refresh_api_key_hook = session._seldom(refresh, time)
    configuration.api_key["BearerToken"] = "token-0"
    seen = []
    for _ in range(30):
        seen.append(configuration.get_api_key_with_prefix("BearerToken"))
        time.s += 1.0
    assert len(looks) == 2 and seen[0] == "token-0" and seen[10] == "token-1" and seen[29] == "token-2"


def test_a_server_that_sends_our_token_back_does_not_get_it_into_a_message() -> None:
    hide = session._hider([f"Bearer {TOKEN}", ""])
    assert hide(f"bad token {TOKEN}, Bearer {TOKEN}") == "bad token ***, ***"
    assert hide("create PersistentVolumeClaim") == "create PersistentVolumeClaim"


# ---- the worker's spec, and what it prints

OWNER = Owner("mtv/wave", "mtv/run", "web", "site/vm", "Cutover", "c")
JOB = CopyJob("shop", "copy", (("a", "pvc-a", VolumeMode.FILESYSTEM), ("b", "pvc-b", VolumeMode.BLOCK)), Placement(), OWNER, "r1", 1)


def wish(uuid: str) -> CopyDisk:
    return CopyDisk(uuid, uuid, Reader.HTTP_RANGE, "https://vc/folder", 1 << 20, "", uuid == "b")


def test_the_worker_is_told_paths_as_its_pod_sees_them_and_no_credentials() -> None:
    source = CopySource(
        {}, TlsSpec("placeholder", "AA:BB"), "PEM", {"user": Secret("root"), "password": Secret("hunter2hunter2")}, 4, 1 << 20
    )
    spec = copyjob.fill_in(JOB, [wish("b"), wish("a")], source, CopySpec("mtv/run", "web", "r1", (), TlsSpec(), ""))
    assert [d.target for d in spec.disks] == ["/dev/reconciler/disk1", "/var/run/reconciler/disks/0/disk.img"]
    assert spec.tls == TlsSpec("/var/run/reconciler/credentials/ca.crt", "AA:BB")
    assert spec.credentials_dir == "/var/run/reconciler/credentials"
    assert "hunter2" not in spec.to_json()


def test_a_disk_without_a_volume_is_refused() -> None:
    source = CopySource({}, TlsSpec(), None, {}, 1, 1)
    with pytest.raises(TerminalError, match="no volume for disk"):
        copyjob.fill_in(JOB, [wish("c")], source, CopySpec("mtv/run", "web", "r1", (), TlsSpec(), ""))


def test_the_last_progress_and_the_result_are_found_between_other_lines() -> None:
    early, late = DiskProgress("a", 10, 1, 0, 0, 1.0), DiskProgress("a", 10, 9, 0, 8, 1.0)
    done = Result((DiskResult("a", True, 10, 10, 0, 1, 1.0, "http-range", "ok"),))
    text = "\n".join(['":1}', progress_line((early,)), "Traceback", progress_line((late,)), result_line(done), ""])
    found = copyjob.parse_log(text)
    assert (found.disks, found.result) == ((late,), done)
    assert copyjob.parse_log("").result is None
