"""Where a vCenter is and whom we trust to be it: every way a manifest and a secret can put it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import pytest

from reconciler.core.copyspec import TlsSpec
from reconciler.core.desired import Place, ProviderSpec
from reconciler.core.model import ObjectRef, Secret
from reconciler.drivers.vsphere.session import Session
from reconciler.drivers.vsphere.trust import Trust, endpoint_of, normal_thumbprint, trust_of
from reconciler.errors import TerminalError, UserError

SHA1, SHA256 = "AB:" * 19 + "CD", "AB:" * 31 + "CD"


def provider(url: str = "https://vc.example/sdk", **settings: str) -> ProviderSpec:
    return ProviderSpec(ObjectRef("ns", "vc"), "vsphere", url, None, settings, Place("p.yaml", 1))


def secret(**texts: str) -> Mapping[str, Secret]:
    return {key.replace("ca_crt", "ca.crt"): Secret(value) for key, value in texts.items()}


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://vc.example/sdk", "vc.example", 443, "/sdk", "vc.example"),
        ("https://vc.example", "vc.example", 443, "/sdk", "vc.example"),
        ("https://vc.example:8443/", "vc.example", 8443, "/sdk", "vc.example:8443"),
        ("https://10.0.0.1/other", "10.0.0.1", 443, "/other", "10.0.0.1"),
        ("https://[fd00::1]:444/sdk", "fd00::1", 444, "/sdk", "[fd00::1]:444"),
        ("https://[fd00::1]/sdk", "fd00::1", 443, "/sdk", "[fd00::1]"),
    ],
)
def test_urls(url: str, host: str, port: int, path: str, authority: str) -> None:
    endpoint = endpoint_of(provider(url))
    assert (endpoint.host, endpoint.port, endpoint.path, endpoint.authority) == (host, port, path, authority)


@pytest.mark.parametrize(
    "url", ["", "vc.example", "http://vc.example/sdk", "https:///sdk", "https://vc.example:x/sdk", "https://[fd00::1/sdk"]
)
def test_what_is_no_https_url_is_the_users_error(url: str) -> None:
    with pytest.raises(UserError, match="UrlNotValid"):
        endpoint_of(provider(url))


def test_credentials_in_the_url_are_refused_and_not_shown() -> None:
    with pytest.raises(UserError) as caught:
        endpoint_of(provider("https://root:s3cret@vc.example/sdk"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "texts", "trust"),
    [
        ({}, {}, Trust(None, None, False)),
        ({}, {"ca_crt": "PEM\n"}, Trust("PEM", None, False)),
        ({}, {"cacert": "OLD"}, Trust("OLD", None, False)),
        ({}, {"ca_crt": "", "cacert": "OLD"}, Trust("OLD", None, False)),
        ({}, {"ca_crt": "NEW", "cacert": "OLD"}, Trust("NEW", None, False)),
        ({}, {"insecureSkipVerify": "true", "ca_crt": "PEM"}, Trust(None, None, True)),
        ({}, {"insecureSkipVerify": "yes", "ca_crt": "PEM"}, Trust("PEM", None, False)),
        ({}, {"insecureSkipVerify": "false"}, Trust(None, None, False)),
        ({}, {"thumbprint": SHA1}, Trust(None, SHA1, False)),
        ({"thumbprint": SHA256.lower()}, {"thumbprint": SHA1}, Trust(None, SHA256, False)),
        ({"thumbprint": SHA256}, {"ca_crt": "PEM"}, Trust("PEM", SHA256, False)),
        ({"thumbprint": SHA256}, {"insecureSkipVerify": "true"}, Trust(None, SHA256, False)),
    ],
)
def test_whom_to_trust(settings: dict[str, str], texts: dict[str, str], trust: Trust) -> None:
    assert trust_of(provider(**settings), secret(**texts)) == trust


@pytest.mark.parametrize(
    ("trust", "verified"),
    [(Trust(None, None, False), True), (Trust(None, SHA1, False), False), (Trust(None, None, True), False)],
)
def test_only_a_pin_or_a_waiver_turns_the_chain_off(trust: Trust, verified: bool) -> None:
    context = trust.context()
    assert (context.verify_mode is ssl.CERT_REQUIRED) is verified
    assert context.check_hostname is verified


@pytest.mark.parametrize("pem", ["no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_a_broken_ca_bundle_is_terminal(pem: str) -> None:
    with pytest.raises(TerminalError, match=r"ca\.crt"):
        Trust(pem, None, False).context()


def test_the_worker_gets_the_same_trust() -> None:
    assert Trust("PEM", SHA1, False).tls == TlsSpec(ca_file="ca.crt", thumbprint=SHA1, insecure=False)
    assert Trust(None, None, True).tls == TlsSpec(ca_file=None, thumbprint=None, insecure=True)


@pytest.mark.parametrize("written", ["ab" * 20, "AB:" * 19 + "AB", "ab " * 20, "ab" * 32])
def test_thumbprints_are_read_in_every_usual_spelling(written: str) -> None:
    assert set(normal_thumbprint(written)) == set("AB:")


@pytest.mark.parametrize("written", ["ab", "zz" * 20, "ab" * 64])
def test_other_thumbprints_are_the_users_error(written: str) -> None:
    with pytest.raises(UserError, match="ThumbprintNotValid"):
        normal_thumbprint(written)


@pytest.mark.parametrize(
    ("texts", "lacks"), [({}, "user and password"), ({"user": "u"}, "password"), ({"user": " ", "password": "p"}, "user")]
)
def test_a_secret_without_credentials_names_what_it_lacks(texts: dict[str, str], lacks: str) -> None:
    with pytest.raises(UserError, match=f"lacks {lacks}$"):
        Session(provider(), secret(**texts))


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "86400"])
def test_a_time_out_that_is_none_is_the_users_error(seconds: str) -> None:
    with pytest.raises(UserError, match="requestTimeoutSeconds"):
        Session(provider(requestTimeoutSeconds=seconds), secret(user="u", password="p"))
