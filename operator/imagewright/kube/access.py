"""Who we are to the API server, and how to reach it: from a kubeconfig or from inside a Pod."""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import Configuration

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class Access:
    """An API server's URL, the TLS to speak to it, and the header that says who asks."""

    server: str
    authorization: Callable[[], Awaitable[str]]
    """The value of the Authorization header, fresh; empty where a certificate says who we are."""
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True

    def tls(self) -> ssl.SSLContext:
        """The TLS to speak to the server. Raises OSError where a file cannot be read."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


async def load_access(kubeconfig: str = "") -> Access:
    """The access of `kubeconfig`, or of the Pod we are in, or of the user's own kubeconfig.

    Raises kubernetes' ConfigException where there is none.
    """
    configuration = Configuration()
    if not kubeconfig and IN_CLUSTER.exists():
        config.load_incluster_config(configuration)
    else:
        await config.load_kube_config(
            config_file=kubeconfig or None, client_configuration=configuration
        )
    return Access(
        server=configuration.host.rstrip("/"),
        authorization=_authorization(configuration),
        ca_file=configuration.ssl_ca_cert,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
        verify=configuration.verify_ssl,
    )


def _authorization(configuration: Any) -> Callable[[], Awaitable[str]]:
    async def header() -> str:
        # A service account's token is renewed on disk; the library reads it again when it is due.
        hook = configuration.refresh_api_key_hook
        if hook is not None:
            answer = hook(configuration)
            if answer is not None:
                await answer
        return str(configuration.api_key.get("BearerToken", ""))

    return header
