"""Who we are to the API server, and how to reach it: from a kubeconfig or from inside a Pod."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import Configuration

TOKEN_SECONDS = 60.0
"""For so long a token that was read is used before it is read again."""
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
    # The library's loader is a coroutine that reads files as it goes: it has a thread's loop.
    return await asyncio.to_thread(lambda: asyncio.run(_load(kubeconfig)))


async def _load(kubeconfig: str) -> Access:
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
    read_at = time.monotonic()

    async def header() -> str:
        nonlocal read_at
        hook = configuration.refresh_api_key_hook
        # A service account's token is renewed on disk well before its hour is over.
        if hook is not None and time.monotonic() - read_at > TOKEN_SECONDS:
            read_at = time.monotonic()
            await asyncio.to_thread(hook, configuration)
        return str(configuration.api_key.get("BearerToken", ""))

    return header
