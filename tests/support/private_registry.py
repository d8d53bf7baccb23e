"""A registry of a test's own that wants tokens, behind a proxy: it is seen who pushes."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import devstack
from devstack.registries import Registries
from devstack.server import Command, Server, await_ready, free_port, start
from devstack.tokens import LIFE_SECONDS, Signer
from devstack.tokenserver import TokenServer, access_of, serve_tokens
from tests.support.registry_proxy import RegistryProxy
from tests.support.workshop import asked


@dataclass(frozen=True, slots=True)
class PrivateRegistry:
    """Builds know it as `proxy.host`."""

    proxy: RegistryProxy
    tokens: TokenServer

    def pushers(self) -> list[str]:
        """Who fetched tokens to push with, in order."""
        fetched = self.tokens.seen
        return [one.user for one in fetched if any("push" in scope for scope in one.scopes)]

    def pushers_in_turn(self) -> list[str]:
        """The same, whoever fetched several in a row once."""
        return [who for who, _ in itertools.groupby(self.pushers())]

    def digest(self, name: str) -> str:
        """What the name stands for in it."""
        repository, _, tag = name.partition("/")[2].rpartition(":")
        access = [access_of(f"repository:{repository}:pull")]
        shown = f"Bearer {self.tokens.signer.token('a test', access)}"
        url = f"http://{self.proxy.host}/v2/{repository}/manifests/{tag}"
        with asked(url, shown) as answer:
            return str(answer.headers["Docker-Content-Digest"])


@asynccontextmanager
async def private_registry(
    stack: devstack.Stack,
    folder: Path,
    passwords: Mapping[str, str],
    life_seconds: int = LIFE_SECONDS,
) -> AsyncIterator[PrivateRegistry]:
    """One that lets in those who have a password, by tokens that live so long."""
    ports = {"token": free_port(), "tokens": free_port()}
    registries = Registries(folder, ports)
    tokens = TokenServer(Signer(folder, life_seconds), passwords)
    command = registries.one("token", stack.binaries["registry"])
    server = await asyncio.to_thread(_started, command, folder)
    try:
        async with (
            serve_tokens(tokens, ports["tokens"]),
            RegistryProxy(registries["token"]) as proxy,
        ):
            yield PrivateRegistry(proxy, tokens)
    finally:
        await asyncio.to_thread(server.stop)


def _started(command: Command, folder: Path) -> Server:
    return await_ready(command, start(command, folder))
