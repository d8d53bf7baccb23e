"""The session that kopf asks with: who we are, and lists without what is over.

A cluster keeps thousands of builds that are over. kopf makes a task, a queue and some views for
each one that it lists, and remembers it for as long as it lives; our store forgets it at once. So
these are dropped where a list is parsed.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import aiohttp
import kopf
import orjson

from imagewright.api.imagebuild import GROUP, VERSION
from imagewright.kube.access import Access
from imagewright.ports import Body

BAD = HTTPStatus.BAD_REQUEST
LOGIN_LIFE = timedelta(minutes=10)
"""kopf asks for another session after that: well within the life of a Pod's token."""
KINDS_TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=3)


@dataclass(frozen=True, slots=True)
class Ear:
    """What is to be done about the lists of one kind."""

    idle: Callable[[Body], bool]
    """Which bodies need not be told."""
    listed: Callable[[str], None]
    """Called with the path of a list that has begun."""
    asked: Callable[[str], None]
    """Called after each request for this kind: why it failed; empty where it did not."""


async def session(access: Access, ears: Mapping[str, Ear]) -> kopf.AiohttpSession:
    """A session in kopf's words, for the loop that it is made in; kopf closes it.

    `ears` are those of each kind, by plural.
    """
    own = await _client(access, response_class=response_class(ears), trace_configs=[trace(ears)])
    until = datetime.now(UTC) + LOGIN_LIFE
    return kopf.AiohttpSession(server=access.server, aiohttp_session=own, expiration=until)


async def kinds(access: Access) -> frozenset[str]:
    """Which of our kinds, by plural, the API server serves now. Raises aiohttp's errors."""
    async with (
        await _client(access, timeout=KINDS_TIMEOUT) as client,
        client.get(f"{access.server}/apis/{GROUP}/{VERSION}") as answer,
    ):
        if answer.status == HTTPStatus.NOT_FOUND:
            return frozenset()
        answer.raise_for_status()
        told = orjson.loads(await answer.read())
    return frozenset(one["name"] for one in told["resources"])


async def _client(access: Access, **more: Any) -> aiohttp.ClientSession:
    tls = await asyncio.to_thread(access.tls)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, limit=0),
        headers={
            "Authorization": await access.authorization(),
            "User-Agent": "imagewright",
            # Packing a list of thousands costs the API server more than sending it.
            "Accept-Encoding": "identity",
        },
        **more,
    )


def response_class(ears: Mapping[str, Ear]) -> type[aiohttp.ClientResponse]:
    """Responses that leave the idle out of lists; what a watch streams is left as it is."""

    class Response(aiohttp.ClientResponse):
        async def json(self, **_: Any) -> Any:
            content = orjson.loads(await self.read())
            ear = ears.get(self.url.name)
            if ear is not None and "items" in content:
                if "continue" not in self.url.query:
                    ear.listed(self.url.path)
                content["items"] = [one for one in content["items"] if not ear.idle(one)]
            return content

    return Response


def trace(ears: Mapping[str, Ear]) -> aiohttp.TraceConfig:
    """Tells each kind's ear how its requests fare: kopf tries again by itself."""

    async def answered(_: Any, __: Any, end: aiohttp.TraceRequestEndParams) -> None:
        if ear := ears.get(end.url.name):
            status = end.response.status
            ear.asked(f"the API server answered with {status}" if status >= BAD else "")

    async def failed(_: Any, __: Any, end: aiohttp.TraceRequestExceptionParams) -> None:
        if ear := ears.get(end.url.name):
            ear.asked(f"the API server did not answer: {end.exception!r}")

    traced = aiohttp.TraceConfig()
    traced.on_request_end.append(answered)
    traced.on_request_exception.append(failed)
    return traced
