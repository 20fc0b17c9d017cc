"""HttpRangeReader: the reader contract, and what only HTTPS has (TLS, pins, status codes, ETags, sessions)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.core.copyspec import TlsSpec
from reconciler.errors import ReconcilerError, RetryableError, TerminalError, UserError
from reconciler.wire.auth import FileAuth
from reconciler.wire.http import HttpRangeReader
from tests.contract.disk_server import PASSWORD, USER, DiskServer
from tests.contract.suite_disk import CountingClock, ReaderContract, ReaderSite, content

SIZE = (1 << 20) + 12_345  # not a multiple of 512


@dataclass
class HttpSite(ReaderSite):
    server: DiskServer
    folder: Path
    content: bytes

    def __post_init__(self) -> None:
        self.faults = self.server.faults
        self.clock = CountingClock()

    def tls(self, **changes: object) -> TlsSpec:
        return TlsSpec(**{"ca_file": str(self.server.ca.path), **changes})  # type: ignore[arg-type]

    def open(self, tls: TlsSpec | None = None, *, timeout_s: float = 5.0) -> HttpRangeReader:
        auth = FileAuth(self.folder)
        return HttpRangeReader.open(self.server.url, len(self.content), tls or self.tls(), auth, self.clock, timeout_s)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HttpSite]:
    data = content(SIZE)
    (tmp_path / "disk").write_bytes(data)
    folder = tmp_path / "credentials"
    folder.mkdir()
    server = DiskServer(tmp_path / "disk", tmp_path / "tls")
    yield HttpSite(server, folder, data)
    server.close()


def fails(reader: HttpRangeReader, reason: str, kind: type[ReconcilerError] = TerminalError, offset: int = 0) -> ReconcilerError:
    with pytest.raises(kind) as caught:
        reader.read_into(offset, memoryview(bytearray(4096)))
    reader.close()
    assert caught.value.reason == reason
    return caught.value


class TestHttpReader(ReaderContract):
    """The contract."""


class TestTrust:
    def test_a_certificate_of_an_unknown_ca_is_refused(self, site: HttpSite) -> None:
        fails(site.open(TlsSpec()), "CertificateInvalid")
        assert site.server.requests == []

    def test_an_expired_certificate_is_refused(self, tmp_path: Path, site: HttpSite) -> None:
        server = DiskServer(site.server.path, tmp_path / "expired", expired=True)
        site.server, old = server, site.server
        fails(site.open(), "CertificateInvalid")
        server.close()
        site.server = old

    @pytest.mark.parametrize("digest", ["sha1", "sha256"])
    def test_a_pin_stands_in_for_the_ca(self, site: HttpSite, digest: str) -> None:
        import hashlib
        import ssl

        pem = (site.server.ca.path.parent / "disks.crt").read_text()
        thumbprint = hashlib.new(digest, ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
        reader = site.open(TlsSpec(thumbprint=":".join(thumbprint[at : at + 2] for at in range(0, len(thumbprint), 2))))
        assert ReaderContract.read(reader, 7, 9) == site.content[7:16]
        reader.close()

    @pytest.mark.parametrize("with_ca", [True, False])
    def test_a_wrong_pin_ends_before_credentials_are_sent(self, site: HttpSite, with_ca: bool) -> None:
        (site.folder / "user").write_text(USER)
        (site.folder / "password").write_text(PASSWORD)
        wrong = ("00" if not site.server.thumbprint.startswith("00") else "11") + site.server.thumbprint[2:]
        tls = site.tls(thumbprint=wrong) if with_ca else TlsSpec(thumbprint=wrong)
        error = fails(site.open(tls), "ThumbprintMismatch")
        assert site.server.thumbprint in error.message
        assert site.server.requests == []

    def test_a_pin_that_is_no_digest_is_refused(self, site: HttpSite) -> None:
        fails(site.open(TlsSpec(thumbprint="AB:CD")), "ThumbprintInvalid")
        assert site.server.requests == []

    def test_insecure_asks_nothing(self, site: HttpSite) -> None:
        reader = site.open(TlsSpec(insecure=True))
        assert ReaderContract.read(reader, 0, 9) == site.content[:9]
        reader.close()

    def test_an_unreadable_ca_file_is_named(self, site: HttpSite, tmp_path: Path) -> None:
        (tmp_path / "bad.pem").write_text("not a certificate")
        with pytest.raises(TerminalError, match=r"CaUnreadable.*bad\.pem"):
            site.open(TlsSpec(ca_file=str(tmp_path / "bad.pem")))

    @pytest.mark.parametrize("url", ["http://host/x", "https:///x", "https://user:pw@host/x", "ftp://host/x"])
    def test_only_plain_https_urls(self, site: HttpSite, url: str) -> None:
        with pytest.raises(UserError) as caught:
            HttpRangeReader.open(url, 1, TlsSpec(), FileAuth(site.folder), site.clock)
        assert "pw" not in str(caught.value)


class TestAnswers:
    def test_200_instead_of_206_is_an_error(self, site: HttpSite) -> None:
        site.server.ignores_range = True
        fails(site.open(), "RangesIgnored")

    def test_a_source_that_shrank(self, site: HttpSite) -> None:
        reader = site.open()
        ReaderContract.read(reader, 0, 10)
        site.server.path.write_bytes(site.content[:-1])
        fails(reader, "SourceChanged")

    def test_a_source_that_grew(self, site: HttpSite) -> None:
        site.server.path.write_bytes(site.content + b"x")
        fails(site.open(), "SourceChanged")

    def test_416(self, site: HttpSite) -> None:
        site.server.path.write_bytes(site.content[:100])
        fails(site.open(), "SourceChanged", offset=SIZE - 4096)

    @pytest.mark.parametrize("said", ["bytes 1-4096/{size}", "bytes 0-4095", "", "bytes 0-4094/{size}"])
    def test_another_range_than_asked_for(self, site: HttpSite, said: str) -> None:
        site.server.says_range = said.format(size=SIZE) or "none"
        fails(site.open(), "RangeWrong")

    def test_an_unknown_total_is_allowed(self, site: HttpSite) -> None:
        site.server.says_range = "bytes 0-99/*"
        reader = site.open()
        assert ReaderContract.read(reader, 0, 100) == site.content[:100]
        reader.close()

    def test_a_body_longer_than_asked_for_never_becomes_the_next_answer(self, site: HttpSite) -> None:
        site.server.extra_body = 10
        fails(site.open(), "ShortRead", RetryableError)

    def test_chunked_bodies(self, site: HttpSite) -> None:
        site.server.chunked = True
        reader = site.open()
        for offset in (0, 70_000, 3):
            assert ReaderContract.read(reader, offset, 60_000) == site.content[offset : offset + 60_000]
        assert site.clock.slept == []
        site.server.extra_body = 1
        fails(reader, "ShortRead", RetryableError)

    def test_an_etag_that_changes(self, site: HttpSite) -> None:
        site.server.etag = '"1"'
        reader = site.open()
        ReaderContract.read(reader, 0, 10)
        ReaderContract.read(reader, 0, 10)
        assert site.server.requests[-1][1]["If-Match"] == '"1"'
        site.server.etag = '"2"'
        fails(reader.clone(), "SourceChanged")
        reader.close()

    def test_a_hang_ends_in_a_timeout(self, site: HttpSite) -> None:
        site.faults.script("H" * 20)
        error = fails(site.open(timeout_s=0.05), "SourceUnreachable", RetryableError)
        assert "timed out" in error.message.lower()

    def test_a_hang_that_passes(self, site: HttpSite) -> None:
        site.faults.script("H")
        reader = site.open(timeout_s=0.2)
        assert ReaderContract.read(reader, 0, 100) == site.content[:100]
        reader.close()

    def test_nobody_listens(self, site: HttpSite) -> None:
        url = "https://127.0.0.1:1/x"
        reader = HttpRangeReader.open(url, 100, site.tls(), FileAuth(site.folder), site.clock, 1.0)
        fails(reader, "SourceUnreachable", RetryableError)

    def test_backoff_grows_is_bounded_and_hears_retry_after(self, site: HttpSite) -> None:
        site.faults.script("R" * 20)
        fails(site.open(), "SourceUnreachable", RetryableError)
        assert site.clock.slept == sorted(site.clock.slept) and len(set(site.clock.slept)) == 5 and sum(site.clock.slept) < 60
        site.clock.slept.clear()
        site.faults.script("B")
        reader = site.open()
        ReaderContract.read(reader, 0, 10)
        assert site.clock.slept == [2.0]
        reader.close()


class TestSessions:
    def test_basic_auth_and_the_cookie_it_earns(self, site: HttpSite) -> None:
        """vCenter opens a session per basic login: after the first answer only the cookie is sent."""
        site.server.basic, site.server.cookie, site.server.gives_cookie = True, "vmware_soap_session=abc", True
        (site.folder / "user").write_text(USER + "\n")
        (site.folder / "password").write_text(PASSWORD)
        reader = site.open()
        for _ in range(3):
            ReaderContract.read(reader, 0, 10)
        kinds = [("Authorization" in h, h.get("Cookie")) for _, h in site.server.requests]
        assert kinds == [(True, None), (False, "vmware_soap_session=abc"), (False, "vmware_soap_session=abc")]
        reader.close()

    def test_401_renews_from_the_files_once(self, site: HttpSite) -> None:
        site.server.cookie = "s=new"
        (site.folder / "cookie").write_text("s=old")
        reader = site.open()
        (site.folder / "cookie").write_text("s=new")
        assert ReaderContract.read(reader, 0, 10) == site.content[:10]
        assert [h["Cookie"] for _, h in site.server.requests] == ["s=old", "s=new"]
        reader.close()

    def test_a_dead_cookie_gives_way_to_user_and_password(self, site: HttpSite) -> None:
        site.server.basic = True
        for name, text in {"cookie": "s=dead", "user": USER, "password": PASSWORD}.items():
            (site.folder / name).write_text(text)
        reader = site.open()
        assert ReaderContract.read(reader, 0, 10) == site.content[:10]
        reader.close()

    def test_refused_credentials_are_tried_twice_and_never_shown(self, site: HttpSite) -> None:
        site.server.basic = True
        (site.folder / "user").write_text(USER)
        (site.folder / "password").write_text("wr0ng-password")
        reader = site.open()
        error = fails(reader, "AuthFailed", RetryableError)
        assert len(site.server.requests) == 2
        assert "wr0ng" not in str(error) and base64.b64encode(f"{USER}:wr0ng-password".encode()).decode() not in str(error)

    def test_what_must_be_struck_out(self, site: HttpSite) -> None:
        for name, text in {"cookie": "s=1", "user": USER, "password": PASSWORD}.items():
            (site.folder / name).write_text(text)
        auth = FileAuth(site.folder)
        assert {"s=1", PASSWORD} <= set(auth.secrets()) and USER not in auth.secrets()
        assert PASSWORD not in repr(vars(auth))
