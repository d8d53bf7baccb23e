"""One Docker Engine: builds, names, pushes and prunes over its HTTP API."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from imagewright.clients.engine.address import Tls, parse
from imagewright.clients.engine.auth import FOR_PUSH, Login, push_header
from imagewright.clients.engine.build import Build, Result, drain
from imagewright.clients.engine.connection import Answer, Connection, Request, Upload
from imagewright.clients.engine.errors import EngineError, refusal
from imagewright.clients.engine.image import Image, read_image
from imagewright.clients.engine.prune import Prune, Pruned, read_pruned
from imagewright.clients.engine.push import Digest, digest_of
from imagewright.clients.engine.stream import Message, messages, objects
from imagewright.clients.engine.usage import CacheRecord, read_usage
from imagewright.clients.engine.version import Info, Version, negotiate, read_info

OK = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})
CREATED = frozenset({HTTPStatus.CREATED})


class Engine:
    """An engine at `unix:///path` or `tcp://host:port`; with `tls`, the latter over TLS.

    Nothing is dialled before the first call. Every call raises Unreachable where nobody answers,
    and Refused where the answer is an error. To stop one, cancel its task: the engine notices.
    """

    def __init__(self, address: str, tls: Tls | None = None) -> None:
        self.connection = Connection(parse(address), tls)
        self._version: Version | None = None
        self._agreeing = asyncio.Lock()

    async def close(self) -> None:
        """Break off all that is running."""
        await self.connection.close()

    async def ping(self) -> Version:
        """Agree on a version, and learn what the engine says of itself at once."""
        answer = await self.connection.answer(Request("GET", "/_ping"))
        self._version = negotiate(_expect(answer, OK).headers)
        return self._version

    async def info(self) -> Info:
        """What kind of engine it is."""
        return read_info((await self._ask("GET", "/info")).json())

    async def tag(self, image: str, repository: str, tag: str) -> None:
        """Let `repository:tag` stand for the image, whatever it stood for before.

        Newer engines answer a request without a repository with 200, and do nothing; older ones
        drop a digest that stands beside a tag.
        """
        if not repository or not tag or "@" in repository:
            raise ValueError("A new name needs a repository and a tag, and has no digest.")
        query = [("repo", repository), ("tag", tag)]
        await self._ask("POST", f"/images/{_name(image)}/tag", query, CREATED)

    async def inspect(self, name: str) -> Image:
        """The image of a name, id, or short id. Raises Refused with 404 where there is none."""
        return read_image((await self._ask("GET", f"/images/{_name(name)}/json")).json())

    async def remove(self, name: str) -> None:
        """Take a name away; with its last name the image goes, too."""
        await self._ask("DELETE", f"/images/{_name(name)}")

    async def push(self, repository: str, tag: str, auth: Login | None = None) -> Digest:
        """Push one tag, and learn the digest that the registry has it under.

        Raises StreamError with the registry's words, and NoResult where no digest came. Without a
        tag an engine would push all of a repository's.
        """
        if not repository or not tag:
            raise ValueError("A push needs a repository and a tag.")
        host = repository.partition("/")[0]
        request = Request(
            "POST",
            f"/images/{_name(repository)}/push",
            [("tag", tag)],
            {FOR_PUSH: push_header(auth, host if "." in host or ":" in host else "docker.io")},
            seconds=None,
        )
        async with aclosing(self._stream(request)) as stream:
            return await digest_of(stream, tag)

    async def build(
        self, request: Build, context: AsyncIterable[bytes] | None = None
    ) -> AsyncGenerator[Message]:
        """What a build says, as it says it; closing the iterator stops the build.

        `context` is a tar stream, compressed or not, and must be None where the request is
        `remote`: with a body the answer would be empty, though the build runs. What the context
        raises is raised here, and stops the build. Raises StreamError where the build fails.
        """
        if (context is None) != bool(request.remote):
            raise ValueError("A build needs a context or a remote one, and not both.")
        version = await self._agreed()
        request.check(version.api)
        wire = Request(
            "POST",
            "/build",
            request.query(),
            request.headers(),
            Upload(context) if context is not None else None,
            seconds=None,
        )
        async with aclosing(self._stream(wire)) as stream:
            async for message in stream:
                yield message

    async def run(
        self,
        request: Build,
        context: AsyncIterable[bytes] | None = None,
        heard: Callable[[str], None] | None = None,
    ) -> Result:
        """Build to the end; `heard` gets what is printed.

        Raises what `build` does, and NoResult where it ends without an image.
        """
        async with aclosing(self.build(request, context)) as stream:
            return await drain(request, stream, heard)

    async def cancel(self, build_id: str) -> None:
        """Ask BuildKit to stop a build. No answer says whether there was one.

        It does not reach a build of the classic builder, one in two requests, or one that has not
        begun: only closing its request stops it in any case.
        """
        if not build_id:
            raise ValueError("There is no build without an id.")
        await self._ask("POST", "/build/cancel", [("id", build_id)])

    async def prune(self, prune: Prune) -> Pruned:
        """Remove records of the build cache. Raises Unsupported where too much would go."""
        version = await self._agreed()
        request = Request("POST", "/build/prune", prune.query(version.api), seconds=None)
        return read_pruned((await self._call(request, OK)).json())

    async def disk_usage(self) -> tuple[CacheRecord, ...]:
        """All records of the build cache."""
        query = [("type", "build-cache"), ("verbose", "1")]
        request = Request("GET", "/system/df", query, seconds=None)
        return read_usage((await self._call(request, OK)).json())

    async def events(
        self, filters: Mapping[str, Sequence[str]] | None = None
    ) -> AsyncGenerator[dict[str, Any]]:
        """What happens from now on, as the engine tells it, until the iterator is closed."""
        chosen = {name: list(values) for name, values in (filters or {}).items()}
        query = [("filters", json.dumps(chosen))] if chosen else []
        request = Request("GET", "/events", query, seconds=None)
        async with (
            aclosing(self._chunks(request)) as chunks,
            aclosing(objects(chunks)) as found,
        ):
            async for event in found:
                yield event

    async def _stream(self, request: Request) -> AsyncGenerator[Message]:
        async with (
            aclosing(self._chunks(request)) as chunks,
            aclosing(messages(chunks)) as found,
        ):
            async for message in found:
                yield message

    async def _chunks(self, request: Request) -> AsyncGenerator[bytes]:
        """The body of the answer, as it comes. Raises Refused before any of it."""
        versioned = await self._versioned(request)
        async with self._agreement(), self.connection.open(versioned) as response:
            if response.status not in OK:
                raise refusal(response.status, await response.read())
            async for chunk in response.content.iter_any():
                yield chunk

    async def _ask(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        good: frozenset[HTTPStatus] = OK,
    ) -> Answer:
        return await self._call(Request(method, path, query), good)

    async def _call(self, request: Request, good: frozenset[HTTPStatus]) -> Answer:
        versioned = await self._versioned(request)
        async with self._agreement():
            return _expect(await self.connection.answer(versioned), good)

    async def _versioned(self, request: Request) -> Request:
        version = await self._agreed()
        return replace(request, path=version.prefix + request.path)

    async def _agreed(self) -> Version:
        async with self._agreeing:
            return self._version or await self.ping()

    @asynccontextmanager
    async def _agreement(self) -> AsyncGenerator[None]:
        """After an error, agree again: another engine may be there by now."""
        try:
            yield
        except EngineError:
            self._version = None
            raise


def _expect(answer: Answer, good: frozenset[HTTPStatus]) -> Answer:
    if answer.status not in good:
        raise refusal(answer.status, answer.body)
    return answer


def _name(name: str) -> str:
    """A name as a part of a path: what would end that part is no part of a name."""
    if not name:
        raise ValueError("An image needs a name.")
    return quote(name, safe="/:@")
