"""The operator's way to contexts that no daemon fetches: each in its cache, by what it is.

A tree is shared by whoever asks for it, in whichever namespace. So that nobody gets by a cache
what he would not get by himself, trees that a Secret opened have names of their own, which hold
the url, and whoever asks for one that is there must show that his Secret opens it now. With
submodules there is more than one thing to open, so those trees are kept for nobody else.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from imagewright.api.reason import Reason
from imagewright.domain.plan import Directory, Git, Http, Oci, Source
from imagewright.ports import Keyring, Rejected, Tree
from imagewright.sources.credential import Opener, opener
from imagewright.sources.git import GitFetcher
from imagewright.sources.http import HttpFetcher
from imagewright.sources.oci import OciFetcher

GIT, HTTP, OCI = "source.git", "source.http", "source.oci"
PRIVATE = " by a Secret"


class Store(Protocol):
    """Where trees are kept: caches.sources.SourceCache."""

    def lease(
        self, kind: str, name: str, fill: Callable[[Path], Awaitable[None]]
    ) -> AbstractAsyncContextManager[Path]:
        """The tree, fetched by `fill` where it is not there, until the context is left."""
        ...

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """An empty folder until the context is left."""
        ...


@dataclass(frozen=True, slots=True)
class SourceFetcher:
    """ports.Sources over a cache."""

    store: Store
    git: GitFetcher = field(default_factory=GitFetcher)
    http: HttpFetcher = field(default_factory=HttpFetcher)
    oci: OciFetcher | None = None

    async def resolve(self, source: Git | Oci, keyring: Keyring) -> Git | Oci:
        """The source with its commit or digest."""
        if isinstance(source, Oci):
            return await self._images(source).resolve(source, keyring)
        return await self.git.resolve(source, await _opener(source, keyring))

    @asynccontextmanager
    async def tree(self, source: Source, keyring: Keyring) -> AsyncIterator[Tree]:
        """The source's files; a git source without a commit is resolved first."""
        match source:
            case Git():
                fetched = self._git(source, await _opener(source, keyring))
            case Http():
                fetched = self._http(source, await _opener(source, keyring))
            case Oci():
                fetched = self._oci(source, keyring)
            case Directory():
                yield Tree(Path(source.path), "")
                return
            case _:
                raise _unknown(source)
        async with fetched as tree:
            yield tree

    @asynccontextmanager
    async def _git(self, source: Git, way: Opener | None) -> AsyncIterator[Tree]:
        at = source if source.commit else await self.git.resolve(source, way)
        name = f"{at.url}@{at.commit}{' with submodules' * at.submodules}{_private(way)}"
        if way is not None and at.submodules:
            async with self.store.scratch() as folder:
                await self.git.fetch(at, way, folder)
                yield Tree(folder, at.commit)
            return
        proven = way is None

        async def fill(folder: Path) -> None:
            nonlocal proven
            await self.git.fetch(at, way, folder)
            proven = True

        async with self.store.lease(GIT, name, fill) as path:
            if not proven:
                await self.git.prove(at, way)
            yield Tree(path, at.commit)

    @asynccontextmanager
    async def _http(self, source: Http, way: Opener | None) -> AsyncIterator[Tree]:
        """A download without a sha256 has its name only once it is there, and comes each time."""
        proven = way is None
        asked = source.sha256

        async def fill(folder: Path) -> None:
            nonlocal proven
            async with self.store.scratch() as scratch:
                await self.http.download(source, way, scratch / "download")
                proven = True
                await self.http.unpack(source, scratch / "download", folder)

        if asked:
            async with self.store.lease(HTTP, _download(asked, source, way), fill) as path:
                if not proven:
                    await self.http.prove(source, way)
                yield Tree(path, f"sha256:{asked}")
            return
        async with self.store.scratch() as scratch:
            download = scratch / "download"
            found = await self.http.download(source, way, download)

            async def unpack(folder: Path) -> None:
                await self.http.unpack(replace(source, sha256=found), download, folder)

            name = _download(found, source, way)
            async with self.store.lease(HTTP, name, unpack) as path:
                yield Tree(path, f"sha256:{found}")

    @asynccontextmanager
    async def _oci(self, source: Oci, keyring: Keyring) -> AsyncIterator[Tree]:
        """The manifest is asked for each time, by whom the build is there: that is the proof."""
        oci = self._images(source)
        at = source if source.digest else await oci.resolve(source, keyring)
        image = await oci.look(at, keyring)

        async def fill(folder: Path) -> None:
            async with self.store.scratch() as scratch:
                await oci.fetch(image, keyring, (scratch, folder))

        async with self.store.lease(OCI, image.name, fill) as path:
            yield Tree(path, at.digest)

    def _images(self, source: Oci) -> OciFetcher:
        if self.oci is None:
            raise _unknown(source)
        return self.oci


async def _opener(source: Git | Http, keyring: Keyring) -> Opener | None:
    where = "spec.source.git" if isinstance(source, Git) else "spec.source.http"
    return await opener(source.secret, where, keyring)


def _private(way: Opener | None) -> str:
    return PRIVATE if way is not None else ""


def _download(digest: str, source: Http, way: Opener | None) -> str:
    """A name for the content; with the url in it where that, or a Secret, is what opens it."""
    name = f"sha256:{digest}"
    if way is not None or "?" in source.url:
        name += f" at {hashlib.sha256(source.url.encode()).hexdigest()}"
    return name + _private(way)


def _unknown(source: Source) -> Rejected:
    return Rejected(
        f"The operator fetches no {type(source).__name__} source.", Reason.FEATURE_UNSUPPORTED
    )
