"""Images in a Docker Engine's own store: they get a name there, and are pushed from there."""

import asyncio
from collections import defaultdict

from imagewright.api.reason import Reason
from imagewright.clients.engine.auth import Login as EngineLogin
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import EngineError
from imagewright.domain.outcome import Built, Pushed
from imagewright.domain.reference import Reference
from imagewright.failure.engine import translate
from imagewright.ports import Keyring, Rejected


class EngineStore:
    """The store of one engine.

    An engine pushes by name, and whatever the name stands for at that moment. So one name belongs
    to one build from the moment it is given until it is pushed, and the digest that a build is
    told is that of its own image.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._names: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def squash(self, built: Built, keyring: Keyring) -> Built:  # noqa: ARG002  # the port's
        """Never: an engine squashes only as part of a build, and only the classic builder's."""
        raise Rejected(
            "A Docker Engine squashes only what its classic builder builds.",
            Reason.FEATURE_UNSUPPORTED,
        )

    async def tag(self, built: Built, name: Reference, keyring: Keyring) -> Pushed:
        """Give the image its name in the engine, and push it under that name."""
        login = await keyring.login(name.registry)
        auth = EngineLogin(login.username, login.password) if login else None
        async with self._names[str(name)]:
            try:
                await self._engine.tag(built.image_id, name.name, name.tag)
                digest = await self._engine.push(name.name, name.tag, auth)
            except EngineError as error:
                raise translate(error, f"failed to push {name}") from error
            except asyncio.CancelledError:
                # A build that is cancelled leaves no name behind.
                await asyncio.shield(self._unnamed(name))
                raise
        return Pushed(name.name, name.tag, digest, name.pinned(digest))

    async def holds(self, name: Reference, keyring: Keyring) -> str:  # noqa: ARG002  # the port's
        """Not known: an engine says what it has, which need not be what the registry has."""
        return ""

    async def _unnamed(self, name: Reference) -> None:
        try:
            await self._engine.remove(str(name))
        except EngineError:
            return
