"""A gateway on loopback before stand-in workers, and its clients: gRPC's own, and bare TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from devstack.certificates import Authority, Identity
from imagewright.metrics import Metrics
from imagewright.servers.gateway import Admit, Caller, Gateway, TurnedAway, Upstream, serve_gateway
from imagewright.servers.http2 import PREFACE, settings, settings_ack
from imagewright.settings import GatewaySettings

GREETING = PREFACE + settings() + settings_ack()
"""What a client says that has seen our settings; only what the worker gets is without the last."""


class Doorman:
    """Lets in whom a test lets in; `order` says what happened."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.order: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.upstream: dict[str, Any] = {}
        self.refusal: TurnedAway | None = None

    @asynccontextmanager
    async def admit(self, caller: Caller) -> AsyncIterator[Upstream]:
        """As the queue of a pool would."""
        self.order.append(f"{caller.tenant}/{caller.key} waits")
        if self.refusal:
            raise self.refusal
        try:
            await self.open.wait()
            self.order.append("leased")
            try:
                yield Upstream(self.addresses.pop(0), **self.upstream)
            finally:
                self.order.append("given back")
        except asyncio.CancelledError:
            self.order.append("left")
            raise


class House:
    """A gateway, and what its clients need to be let in."""

    def __init__(self, gateway: Gateway, metrics: Metrics, authority: Authority) -> None:
        self.gateway, self.metrics, self.authority = gateway, metrics, authority

    def channel(self, name: str = "dev", organization: str | None = "team") -> grpc.aio.Channel:
        """gRPC's own client (the C core), with a certificate of that name."""
        return channel_of(self.gateway.port, self.authority.client(name, organization))

    async def stream(
        self, name: str = "dev", organization: str | None = "team"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that says what the test says."""
        identity = self.authority.client(name, organization)
        return await asyncio.open_connection(
            "127.0.0.1", self.gateway.port, ssl=client_tls(identity, identity)
        )

    def refused(self, reason: str) -> float:
        """How many were, for that reason."""
        labels = {"pool": "default", "reason": reason}
        name = "imagebuild_gateway_refused_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def connections(self, state: str) -> float:
        """How many are in that state now."""
        labels = {"pool": "default", "state": state}
        return (
            self.metrics.registry.get_sample_value("imagebuild_gateway_connections", labels) or 0
        )

    def moved(self, way: str) -> float:
        """Bytes, either up or down."""
        labels = {"pool": "default", "way": way}
        name = "imagebuild_gateway_bytes_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def a_house(folder: Path, admit: Admit, **settings: Any) -> AsyncIterator[House]:
    """A gateway of these settings; closed at the end."""
    authority, metrics = Authority(folder / "own"), Metrics()
    given = GatewaySettings(port=0, **authority.server().settings(), **settings)
    gateway = await serve_gateway(given, admit, metrics)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close, 0)
        yield House(gateway, metrics, authority)


def channel_of(port: int, identity: Identity) -> grpc.aio.Channel:
    """A client of gRPC's C core."""
    files = (identity.ca, identity.key, identity.cert)
    credentials = grpc.ssl_channel_credentials(*(path.read_bytes() for path in files))
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials)


def client_tls(trusts: Identity, shows: Identity | None) -> ssl.SSLContext:
    """TLS of a client that trusts the one's authority, and shows the other's certificate."""
    context = ssl.create_default_context(cafile=trusts.ca)
    context.set_alpn_protocols(["h2"])
    if shows:
        context.load_cert_chain(shows.cert, shows.key)
    return context


async def until(what: Any, seconds: float = 1.5) -> None:
    """Wait for a condition. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.005)
