"""Provider and Secret -> a connected target driver: where the cluster is, how it is trusted, and with which credentials.

What it is: the one place that turns a Provider into the SDK's configuration. What it is not: requests (api.py) or fault mapping
(failures.py). Connecting sends nothing; the first read does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import urllib3
import yaml
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration

from reconciler import __version__
from reconciler.core.desired import ProviderSpec
from reconciler.core.model import Secret
from reconciler.core.target import Instance
from reconciler.drivers.kubevirt.api import Api, Hide
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.drivers.kubevirt.target import KubeVirtTarget
from reconciler.drivers.kubevirt.wake import Wake
from reconciler.errors import TerminalError
from reconciler.ports import Clock, TargetDriver

log = logging.getLogger(__name__)

Refresh = Callable[[Configuration], None]

REFRESH_S = 10.0  # how old a token may be that the SDK would have looked at again
CONNECTIONS = 64  # that are kept: VMs of several sources are worked on at once, and each connection that is not kept costs a handshake


def connect(
    provider: ProviderSpec,
    secret: Mapping[str, Secret] | None,
    *,
    kubeconfig: Path | None,
    settings: TargetSettings,
    clock: Clock,
    instance: Instance,
) -> TargetDriver:
    """Empty url: this cluster, by `kubeconfig` if given, else by the pod's service account. Else url and token of the Secret.

    Errors: TerminalError AuthFailed, InvalidSecret, InvalidUrl, naming the Provider.
    """
    return KubeVirtTarget(_open(provider, secret, kubeconfig, settings, clock), settings, instance)


def connect_wake(
    provider: ProviderSpec,
    secret: Mapping[str, Secret] | None,
    *,
    kubeconfig: Path | None,
    settings: TargetSettings,
    clock: Clock,
    notify: Callable[[], None],
) -> Wake:
    """A connection of its own, for watches that stay open. Errors: as connect."""
    return Wake(_open(provider, secret, kubeconfig, settings, clock), notify)


def _open(
    provider: ProviderSpec, secret: Mapping[str, Secret] | None, kubeconfig: Path | None, settings: TargetSettings, clock: Clock
) -> Api:
    configuration = Configuration()
    # A lost reply may hide an effect, and a hang would be paid three times: the loop above us decides on a second try.
    configuration.retries = False
    if provider.url:
        _from_provider(configuration, provider, secret or {})
    elif kubeconfig is not None:
        _from_kubeconfig(configuration, provider, kubeconfig)
    else:
        _from_pod(configuration, provider)
    if configuration.refresh_api_key_hook is not None:
        configuration.refresh_api_key_hook = _seldom(configuration.refresh_api_key_hook, clock)
    if not configuration.verify_ssl:
        log.warning("the certificate of this cluster is not verified", extra={"provider": str(provider.ref)})
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    configuration.connection_pool_maxsize = CONNECTIONS
    client = ApiClient(configuration)
    client.user_agent = f"reconciler/{__version__}"
    hide = _hider([*configuration.api_key.values(), configuration.password or ""])
    return Api(client, settings, clock, hide)


def _from_provider(configuration: Configuration, provider: ProviderSpec, secret: Mapping[str, Secret]) -> None:
    if not provider.url.startswith("https://"):
        raise TerminalError("InvalidUrl", f"Provider {provider.ref}: the url of a cluster must begin with https://, not {provider.url!r}")
    token = secret["token"].reveal().strip() if "token" in secret else ""
    if not token:
        raise TerminalError("AuthFailed", f"Provider {provider.ref}: its Secret has no `token`; put a service account's token there")
    configuration.host = provider.url.rstrip("/")
    configuration.api_key["BearerToken"] = f"Bearer {token}"
    configuration.verify_ssl = not _insecure(provider, secret)
    ca = next((secret[key].reveal() for key in ("ca.crt", "cacert") if key in secret), "")
    if ca.strip():
        configuration.ca_cert_data = ca


def _insecure(provider: ProviderSpec, secret: Mapping[str, Secret]) -> bool:
    """Only "true" itself switches verification off; a typing error must not."""
    text = secret["insecureSkipVerify"].reveal().strip() if "insecureSkipVerify" in secret else "false"
    if text not in ("true", "false", ""):
        raise TerminalError("InvalidSecret", f'Provider {provider.ref}: insecureSkipVerify must be "true" or "false"')
    return text == "true"


def _from_kubeconfig(configuration: Configuration, provider: ProviderSpec, path: Path) -> None:
    from kubernetes.config import ConfigException, load_kube_config

    try:
        load_kube_config(config_file=str(path), client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, yaml.YAMLError) as err:
        raise TerminalError("AuthFailed", f"Provider {provider.ref}: the kubeconfig {path} cannot be used: {err}") from err


def _seldom(refresh: Refresh, clock: Clock) -> Refresh:
    """The SDK looks for a newer token before each request, and sets host and proxies anew each time, which costs more than the request. It
    renews a token minutes before its end."""
    looked_at = clock.monotonic()

    def hook(configuration: Configuration) -> None:
        nonlocal looked_at
        if clock.monotonic() - looked_at < REFRESH_S:
            return
        looked_at = clock.monotonic()
        refresh(configuration)
        configuration.refresh_api_key_hook = hook  # type: ignore[assignment]  # which the SDK has replaced by its own

    return hook


def _from_pod(configuration: Configuration, provider: ProviderSpec) -> None:
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as err:
        remedy = "run in a pod with a service account, give --kubeconfig, or set the Provider's url and token"
        raise TerminalError("AuthFailed", f"Provider {provider.ref} means this cluster, but there is no way in: {err}; {remedy}") from err


def _hider(texts: Iterable[str]) -> Hide:
    """Takes our credentials out of a text. Words of a few letters stay: no token is that short, and hiding them would garble messages."""
    words = {word for text in texts for word in (text, *text.split()) if len(word) >= 8 and word.lower() != "bearer"}
    ordered = sorted(words, key=len, reverse=True)

    def hide(text: str) -> str:
        for word in ordered:
            text = text.replace(word, "***")
        return text

    return hide
