"""Images in a registry: their layers merged there, and names given to them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO

from imagewright.api.reason import Reason
from imagewright.clients.registry.access import Access
from imagewright.clients.registry.errors import RegistryError
from imagewright.clients.registry.registry import Registry
from imagewright.domain.outcome import Built, Pushed
from imagewright.domain.reference import Reference
from imagewright.failure.registry import translate
from imagewright.images.copying import Place, copy
from imagewright.images.image import Image, config_digest, image_of, squash_failed
from imagewright.images.layer import Limits
from imagewright.images.merging import Merging
from imagewright.images.scratch import Scratch
from imagewright.images.tar import BadLayer
from imagewright.ports import Keyring, Unavailable

CONFIG_BYTES = 8 << 20
CHUNK = 1 << 20
LIMITS = Limits()


class RegistryStore:
    """Any registry. `access` makes the way in for a build's keyring.

    Layers lie in `folder` while they are merged, in files without a name: so none is left there,
    however the process ends.
    """

    def __init__(
        self,
        access: Callable[[Keyring], Access],
        folder: Path,
        clock: Callable[[], datetime],
        limits: Limits = LIMITS,
    ) -> None:
        self._access, self._folder, self._clock, self._limits = access, folder, clock, limits

    async def squash(self, built: Built, keyring: Keyring) -> Built:
        """The image with all layers above its base merged into one, by its digest only."""
        host, _, repository = built.repository.partition("/")
        async with self._registry(host, keyring) as registry, self._scratch() as scratch:
            place = Place(registry, repository)
            image = await _read(place, built.image_digest)
            image.check_base(built.base)
            try:
                merging = Merging(place, scratch, self._limits)
                layer, file = await merging.merged(image, len(built.base))
            except BadLayer as error:
                raise squash_failed(str(error)) from error
            await registry.upload(repository, layer.digest, _pieces(file))
            made = image.squashed(len(built.base), layer, self._words(built))
            config, manifest = made.packed()
            await registry.upload_bytes(repository, config)
            await registry.put_manifest(repository, manifest.digest, manifest)
        return replace(built, image_digest=manifest.digest, image_id=config_digest(manifest))

    async def tag(self, built: Built, name: Reference, keyring: Keyring) -> Pushed:
        """Copy what the registry of the name lacks, then let the name stand for the image."""
        host, _, repository = built.repository.partition("/")
        async with (
            self._registry(host, keyring) as near,
            self._registry(name.registry, keyring) as far,
        ):
            source, target = Place(near, repository), Place(far, name.repository)
            manifest = await near.manifest(repository, built.image_digest)
            await copy(manifest, source, target)
            await far.put_manifest(name.repository, name.tag, manifest)
        return Pushed(name.name, name.tag, manifest.digest, name.pinned(manifest.digest))

    async def holds(self, name: Reference, keyring: Keyring) -> str:
        """By the registry's own word."""
        async with self._registry(name.registry, keyring) as registry:
            return await registry.tagged(name.repository, name.tag)

    @asynccontextmanager
    async def _registry(self, host: str, keyring: Keyring) -> AsyncIterator[Registry]:
        try:
            async with Registry(host, self._access(keyring)) as registry:
                yield registry
        except RegistryError as error:
            raise translate(error) from error

    @asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Scratch]:
        scratch = Scratch(self._folder)
        try:
            yield scratch
        except OSError as error:
            raise Unavailable(
                f"The operator's disk does not take the layers: {error}.", Reason.DISK_FULL
            ) from error
        finally:
            scratch.stop.set()
            await asyncio.to_thread(scratch.close)

    def _words(self, built: Built) -> dict[str, str]:
        """The entry of the history that says what was done, in the engine's own words."""
        merged = f"merge {built.image_id} to {built.base[-1]}" if built.base else ""
        comment = merged or f"create new from {built.image_id}"
        return {"created": self._clock().isoformat(), "comment": comment}


async def _read(place: Place, digest: str) -> Image:
    manifest = await place.registry.manifest(place.repository, digest)
    config = bytearray()
    async with aclosing(place.registry.blob(place.repository, config_digest(manifest))) as pieces:
        async for piece in pieces:
            config += piece
            if len(config) > CONFIG_BYTES:
                raise squash_failed(f"its configuration has more than {CONFIG_BYTES >> 20} MiB")
    return image_of(manifest, bytes(config))


async def _pieces(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    await asyncio.to_thread(file.seek, 0)
    while piece := await asyncio.to_thread(file.read, CHUNK):
        yield piece
