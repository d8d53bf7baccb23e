"""One registry: manifests and blobs, read and written (distribution-spec v1.1)."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from imagewright.clients.registry.access import Access
from imagewright.clients.registry.errors import (
    Corrupt,
    NotFound,
    Refused,
    RegistryError,
    Unauthorized,
    translate,
)
from imagewright.clients.registry.transport import Request, Transport, bounded

MANIFEST_BYTES = 4 << 20
CHUNK = 1 << 20
IMAGES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MISSING = frozenset({HTTPStatus.NOT_FOUND})
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index, as the registry has it."""

    digest: str
    media_type: str
    content: bytes = field(repr=False)


class Registry:
    """A registry by its host; a context manager. Every call raises a RegistryError."""

    def __init__(self, host: str, access: Access) -> None:
        self.host = host
        self._transport = Transport(host, access)

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        await self._transport.close()

    async def manifest(self, repository: str, reference: str) -> Manifest:
        """What a tag or digest stands for. Raises NotFound, and Corrupt where the digest lies."""
        headers = {"Accept": ", ".join(IMAGES + INDEXES)}
        url = self._url(repository, "manifests", reference)
        async with self._transport.ask(Request("GET", repository, url, headers)) as answer:
            content = await bounded(answer, MANIFEST_BYTES)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        digest = digest_of(content)
        if ":" in reference and digest != reference:
            raise Corrupt(f"{self.host} sent another manifest than {reference}")
        if media_type not in IMAGES + INDEXES:
            raise Refused(
                f"{self.host} has {repository} {reference} in the form {media_type[:100]!r}, "
                "which is that of no image"
            )
        return Manifest(digest, media_type, content)

    async def tagged(self, repository: str, tag: str) -> str:
        """The digest that a tag stands for now; empty where the registry has none or says none."""
        headers = {"Accept": ", ".join(IMAGES + INDEXES)}
        request = Request("HEAD", repository, self._url(repository, "manifests", tag), headers)
        async with self._transport.ask(request, MISSING) as answer:
            return answer.headers.get("Docker-Content-Digest", "") if answer.ok else ""

    async def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Let a tag (or its own digest) stand for the manifest."""
        headers = {"Content-Type": manifest.media_type}
        url = self._url(repository, "manifests", reference)
        request = Request("PUT", repository, url, headers, manifest.content)
        async with self._transport.ask(request):
            return

    async def has_manifest(self, repository: str, digest: str) -> bool:
        """Whether the repository has it."""
        return await self._has(repository, "manifests", digest)

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has it."""
        return await self._has(repository, "blobs", digest)

    async def _has(self, repository: str, kind: str, digest: str) -> bool:
        headers = {"Accept": ", ".join(IMAGES + INDEXES)} if kind == "manifests" else {}
        request = Request("HEAD", repository, self._url(repository, kind, digest), headers)
        async with self._transport.ask(request, MISSING) as answer:
            return answer.status == HTTPStatus.OK

    async def mount(self, repository: str, digest: str, source: str) -> bool:
        """Take a blob over from another repository of this registry; False where it will not."""
        url = self._uploads(repository).with_query({"mount": _checked(digest), "from": source})
        try:
            async with self._transport.ask(Request("POST", repository, url)) as answer:
                return answer.status == HTTPStatus.CREATED
        except (Unauthorized, NotFound, Refused):
            # Who may not read there, or a registry that knows no mounts: the blob can be sent.
            return False

    async def blob(self, repository: str, digest: str) -> AsyncGenerator[bytes, None]:
        """A blob in pieces. Raises Corrupt at the end where it is not what its digest says."""
        found = hashlib.sha256()
        request = Request("GET", repository, self._url(repository, "blobs", digest))
        async with self._transport.ask(request) as answer:
            try:
                async for piece in answer.content.iter_chunked(CHUNK):
                    found.update(piece)
                    yield piece
            except (aiohttp.ClientError, OSError) as error:
                raise translate(error, self.host) from error
        if f"sha256:{found.hexdigest()}" != digest:
            raise Corrupt(f"{self.host} sent another blob than {digest}")

    async def upload(
        self, repository: str, digest: str, content: AsyncGenerator[bytes, None]
    ) -> None:
        """Send a blob of that digest, in pieces and in one go. What `content` raises is raised."""
        source = _Source(content)
        try:
            place = await self._begin(repository)
            place = await self._send(repository, place, source)
        finally:
            await source.close()
        await self._finish(repository, place, digest)

    async def _send(self, repository: str, place: URL, source: "_Source") -> URL:
        headers = {"Content-Type": "application/octet-stream"}
        request = Request("PATCH", repository, place, headers, stream=source.pieces())
        try:
            async with self._transport.ask(request) as answer:
                return self._transport.location(answer)
        except RegistryError as error:
            # aiohttp takes an error of what is sent for one of the connection.
            raise source.error or error from error

    async def upload_bytes(self, repository: str, content: bytes) -> None:
        """Send a small blob at once."""
        place = await self._begin(repository)
        await self._finish(repository, place, digest_of(content), content)

    async def _begin(self, repository: str) -> URL:
        async with self._transport.ask(
            Request("POST", repository, self._uploads(repository))
        ) as answer:
            return self._transport.location(answer)

    async def _finish(
        self, repository: str, place: URL, digest: str, content: bytes = b""
    ) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        # The place is the registry's own word, so what it says is not written anew.
        mark = "&" if place.raw_query_string else "?"
        url = URL(f"{place}{mark}digest={_checked(digest)}", encoded=True)
        async with self._transport.ask(Request("PUT", repository, url, headers, content)):
            return

    def _url(self, repository: str, kind: str, reference: str) -> URL:
        if ":" in reference:
            _checked(reference)
        return self._transport.root / repository / kind / reference

    def _uploads(self, repository: str) -> URL:
        # The slash at the end is the specification's.
        return self._transport.root / repository / "blobs" / "uploads" / ""


class _Source:
    """What is sent, by a task of aiohttp's that may outlive its request; and what ended it."""

    def __init__(self, content: AsyncGenerator[bytes, None]) -> None:
        self._content, self._turn = content, asyncio.Lock()
        self.error: Exception | None = None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The content's own pieces."""
        while (piece := await self._next()) is not None:
            # An empty piece would be the end, in the way that it is sent.
            if piece:
                yield piece

    async def _next(self) -> bytes | None:
        async with self._turn:
            try:
                return await anext(self._content, None)
            except Exception as error:
                self.error = error
                raise

    async def close(self) -> None:
        """End the content, once nobody is in the middle of it."""
        async with self._turn:
            await self._content.aclose()


def digest_of(content: bytes) -> str:
    """The digest by which registries know it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _checked(digest: str) -> str:
    """A digest that may stand in a path. Raises Refused."""
    if not _DIGEST.match(digest):
        raise Refused(f"{digest[:100]!r} is no digest that we know: only sha256 is")
    return digest
