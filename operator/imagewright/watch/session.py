"""The session that kopf asks with: who we are, and lists that go past it, straight to us.

kopf makes a task, a queue and some views for each object that it lists, remembers it for as long
as it lives, and tells of them in no order: after a restart the youngest could get the slots. So
what a list holds is handed over where it is parsed, and kopf finds it empty.
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
    """Who hears of the lists and requests of one kind; all are called in kopf's thread."""

    idle: Callable[[Body], bool]
    """Which bodies need not be told."""
    listed: Callable[[str, list[Body]], None]
    """Called with the path of a list that is complete, and the others, the most urgent first."""
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
    """Responses that hand lists over; what a watch streams is left as it is."""
    pages: dict[str, list[Body]] = {}

    class Response(aiohttp.ClientResponse):
        async def json(self, **_: Any) -> Any:
            content = orjson.loads(await self.read())
            ear = ears.get(self.url.name)
            if ear is None or "items" not in content:
                return content
            # A list that was given up is begun again without a place to go on from.
            known = pages.pop(self.url.path, []) if "continue" in self.url.query else []
            known += [one for one in content["items"] if not ear.idle(one)]
            if content.get("metadata", {}).get("continue"):
                pages[self.url.path] = known
            else:
                ear.listed(self.url.path, sorted(known, key=precedence))
            content["items"] = []
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


def precedence(body: Body) -> tuple[int, str]:
    """What is to be seen first: the highest priority, then the oldest. A list is by name."""
    priority = (body.get("spec") or {}).get("priority") or 0
    return -priority, body["metadata"].get("creationTimestamp") or ""
