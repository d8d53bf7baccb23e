"""Images and artifacts of a registry as contexts.

An image's layers lie over one another, as in a container. An artifact, such as Flux pushes, is one
archive, which is unpacked by the rules of any other archive.
"""

import asyncio
import json
import platform
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imagewright.api.reason import Reason
from imagewright.clients.registry.access import Access
from imagewright.clients.registry.errors import (
    Corrupt,
    NotFound,
    RegistryError,
    TlsFailed,
    Unauthorized,
    Unreachable,
)
from imagewright.clients.registry.registry import Registry
from imagewright.domain.plan import Oci
from imagewright.domain.reference import InvalidReference, Reference, parse
from imagewright.ports import Error, Failed, Keyring, Rejected, Unavailable
from imagewright.sources.archive import Caps, Unpackable
from imagewright.sources.egress import Egress
from imagewright.sources.unpack import Unpacking, in_thread

FIELD = "spec.source.oci.image"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
"""What tells an image from an artifact."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class Image:
    """What is to be fetched: digests of layers from the lowest up, or of an artifact's archive."""

    place: Reference
    digest: str
    layers: tuple[str, ...]
    artifact: bool

    @property
    def name(self) -> str:
        """Where it is, and what it is. Both, since not everybody may read every repository."""
        return self.place.pinned(self.digest)


@dataclass(frozen=True, slots=True)
class OciFetcher:
    """Fetches from registries; `access` makes the way in for a build's keyring.

    Raises Failed (SourceUnavailable), Rejected (InvalidCredentials), Unavailable, and what the
    keyring raises.
    """

    access: Callable[[Keyring], Access]
    egress: Egress = field(default_factory=Egress)
    caps: Caps = field(default_factory=Caps)
    architecture: str = ARCHITECTURES.get(platform.machine(), platform.machine())

    async def resolve(self, source: Oci, keyring: Keyring) -> Oci:
        """The source with the digest that its name stands for now; of an index that of it all."""
        place, digest = _parsed(source)
        if digest:
            return replace(source, digest=digest)
        async with self._registry(place, keyring) as registry:
            found = await registry.manifest(place.repository, place.tag)
        return replace(source, digest=found.digest)

    async def look(self, source: Oci, keyring: Keyring) -> Image:
        """What the source's digest holds for this machine's platform."""
        place, _ = _parsed(source)
        async with self._registry(place, keyring) as registry:
            found = await registry.manifest(place.repository, _checked(source.digest))
            body = _object(found.content)
            if "manifests" in body:
                chosen = self._chosen(body["manifests"])
                found = await registry.manifest(place.repository, chosen)
                body = _object(found.content)
        return self._image(place, found.digest, body)

    async def fetch(self, image: Image, keyring: Keyring, folders: tuple[Path, Path]) -> None:
        """Put the files into the second folder; the first is for what is on its way."""
        scratch, folder = folders
        unpacking = Unpacking(folder, self.caps, layer=not image.artifact)
        left = self.caps.wire
        try:
            async with asyncio.timeout(self.caps.seconds):
                async with self._registry(image.place, keyring) as registry:
                    for digest in image.layers:
                        blob = scratch / "layer"
                        pieces = registry.blob(image.place.repository, digest)
                        left -= await self._stored(pieces, blob, left)
                        await in_thread(unpacking, lambda: _add(unpacking, blob))  # noqa: B023  # waited for
                await in_thread(unpacking, unpacking.finish)
        except Unpackable as error:
            raise Failed(f"{FIELD} {image.place}: {error}", Reason.SOURCE_UNAVAILABLE) from error
        except TimeoutError as error:
            raise Unavailable(
                f"{FIELD} {image.place} was not fetched in {self.caps.seconds:g} seconds.",
                Reason.SOURCE_UNAVAILABLE,
            ) from error

    async def _stored(self, pieces: AsyncIterator[bytes], place: Path, most: int) -> int:
        size = 0
        file = await asyncio.to_thread(place.open, "wb")
        try:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise Unpackable(
                        f"its layers are larger than {self.caps.wire >> 20} MiB, which is the "
                        "limit."
                    )
                await asyncio.to_thread(file.write, piece)
        finally:
            await asyncio.to_thread(file.close)
        return size

    @asynccontextmanager
    async def _registry(self, place: Reference, keyring: Keyring) -> AsyncIterator[Registry]:
        self.egress.check_host(place.registry.rpartition(":")[0] or place.registry)
        access = replace(self.access(keyring), open_socket=self.egress.open_socket)
        try:
            async with Registry(place.registry, access) as registry:
                yield registry
        except RegistryError as error:
            raise _told(error, place) from error

    def _chosen(self, manifests: Sequence[Any]) -> str:
        """The digest of the image for this machine, or of the only one there is."""
        kinds = [(one.get("platform") or {}, one.get("digest", "")) for one in manifests]
        for told, digest in kinds:
            if (told.get("os"), told.get("architecture")) == ("linux", self.architecture):
                return _checked(digest)
        if len(kinds) == 1:
            return _checked(kinds[0][1])
        raise Failed(
            f"{FIELD} has no image for linux/{self.architecture}.", Reason.SOURCE_UNAVAILABLE
        )

    def _image(self, place: Reference, digest: str, body: Mapping[str, Any]) -> Image:
        layers = [(one["digest"], one.get("mediaType", "")) for one in body.get("layers", ())]
        artifact = (body.get("config") or {}).get("mediaType") not in CONFIGS
        tars = all("tar" in kind for _, kind in layers)
        if not layers or not tars or (artifact and len(layers) > 1):
            raise Failed(
                f"{FIELD} {place} holds no files: it is neither an image nor an artifact with one "
                "layer that is a tar or tar.gz.",
                Reason.SOURCE_UNAVAILABLE,
            )
        return Image(place, digest, tuple(_checked(one) for one, _ in layers), artifact)


def _add(unpacking: Unpacking, blob: Path) -> None:
    with blob.open("rb") as file:
        unpacking.add(file)


def _parsed(source: Oci) -> tuple[Reference, str]:
    """The name, and the digest that it is pinned to."""
    name, _, digest = source.image.partition("@")
    try:
        return parse(name), _checked(digest) if digest else ""
    except InvalidReference as error:
        raise Rejected(f"{FIELD}: {error}", Reason.INVALID_REFERENCE) from error


def _checked(digest: str) -> str:
    """The digest, which becomes part of a URL."""
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise Failed(f"{FIELD} names a digest that is not sha256.", Reason.SOURCE_UNAVAILABLE)
    return digest


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failed(f"{FIELD} is no manifest.", Reason.SOURCE_UNAVAILABLE)
    return found


def _told(error: RegistryError, place: Reference) -> Error:
    """What a failed pull means."""
    if isinstance(error, TlsFailed):
        return Failed(f"The registry is not to be trusted: {error}.", Reason.TLS_FAILED)
    if isinstance(error, Unreachable | Corrupt):
        return Unavailable(
            f"{FIELD} {place} cannot be fetched now: {error}.", Reason.REGISTRY_UNAVAILABLE
        )
    if isinstance(error, Unauthorized):
        return Rejected(
            f"{FIELD} {place} is not there, or may not be read by whom this build is: name a "
            f"Secret with a login in spec.source.oci.secretRef. {error}.",
            Reason.INVALID_CREDENTIALS,
        )
    missing = isinstance(error, NotFound)
    return Failed(
        f"{FIELD} {place} is not there: {error}." if missing else f"{FIELD} {place}: {error}.",
        Reason.SOURCE_UNAVAILABLE,
    )
