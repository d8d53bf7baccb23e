"""The parts of a backend, in memory: a keyring, an image store, sources."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from imagewright.backend import Backend
from imagewright.builders.memory import MemoryBuilder
from imagewright.domain.credential import Login
from imagewright.domain.outcome import Built, Pushed
from imagewright.domain.plan import BUILDKIT, Git, Oci, Plan, Source
from imagewright.domain.reference import Reference
from imagewright.ports import Builder, Error, Keyring, Missing, Tree, WatchedKeyring


class FakeKeyring:
    """Secrets, ConfigMaps and logins that a test puts in; what is not there is Missing."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.configs: dict[str, dict[str, bytes]] = {}
        self.held: dict[str, Login] = {}
        self.error: Error | None = None
        self.hidden: set[str] = set()
        self.watchers: list[Callable[[], None]] = []

    async def secret(self, name: str) -> Mapping[str, bytes]:
        return self._found(self.secrets, "Secret", name)

    async def config(self, name: str) -> Mapping[str, bytes]:
        return self._found(self.configs, "ConfigMap", name)

    async def login(self, host: str) -> Login | None:
        return (await self.logins()).get(host)

    async def logins(self) -> Mapping[str, Login]:
        if self.error:
            raise self.error
        return self.held

    def masks(self) -> frozenset[str]:
        return frozenset(self.hidden)

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(changed)
        return lambda: self.watchers.remove(changed) if changed in self.watchers else None

    def tell(self) -> None:
        """Say that something has changed, as the lookout does: once to each who waits."""
        waiting, self.watchers = self.watchers, []
        for changed in waiting:
            changed()

    def _found(self, held: dict[str, dict[str, bytes]], kind: str, name: str) -> dict[str, bytes]:
        if self.error:
            raise self.error
        if name not in held:
            raise Missing(f"The {kind} {name} is not there yet.")
        return held[name]


class FakeStore:
    """An image store that notes what it does.

    `refuses` is the name that it will not give, `held` the digest that every name stands for.
    """

    def __init__(self) -> None:
        self.did: list[str] = []
        self.refuses = self.held = ""
        self.error: Error | None = None

    async def squash(self, built: Built, keyring: Keyring) -> Built:
        self.did.append(f"squash {built.image_id}")
        if self.error:
            raise self.error
        return replace(built, image_id="sha256:squashed", image_digest="sha256:squashed")

    async def tag(self, built: Built, name: Reference, keyring: Keyring) -> Pushed:
        self.did.append(f"tag {built.image_id} {name}")
        if self.error and str(name) == self.refuses:
            raise self.error
        digest = f"sha256:of-{built.image_id}"
        return Pushed(name.name, name.tag, digest, name.pinned(digest))

    async def holds(self, name: Reference, keyring: Keyring) -> str:
        self.did.append(f"holds {name}")
        if self.error:
            raise self.error
        return self.held


class FakeSources:
    """Sources that are fetched at once, and how often each was."""

    def __init__(self) -> None:
        self.fetched: list[Source] = []
        self.held = 0

    async def resolve(self, source: Git | Oci, keyring: Keyring) -> Git | Oci:
        if isinstance(source, Oci):
            return replace(source, digest="sha256:resolved")
        return replace(source, ref="refs/heads/main", commit="c" * 40)

    @asynccontextmanager
    async def tree(self, source: Source, keyring: Keyring) -> AsyncIterator[Tree]:
        self.fetched.append(source)
        self.held += 1
        try:
            yield Tree(Path("/fetched"), "revision")
        finally:
            self.held -= 1


def a_backend(builder: Builder | None = None, **builders: Builder) -> Backend:
    """A backend over builders by name, with a store and sources in memory."""
    given = {BUILDKIT: builder or MemoryBuilder(), **builders}
    return Backend(given, FakeStore(), FakeSources())


def keyrings(_namespace: str, _plan: Plan) -> WatchedKeyring:
    """An empty keyring for every build."""
    return FakeKeyring()
