"""A proxy before the API server that writes down every write, and strikes at the one it is told.

Plain http on the operator's side. It can also show an older view, as a replica of the API server
that lags behind does, and lose events of a watch.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

from imagewright.api.imagebuild import GROUP
from imagewright.kube.access import Access, load_access
from tests.faults.strike import Strike
from tests.support.serving import kubeconfig_of, serve

Body = dict[str, Any]
HOP = {"connection", "content-length", "content-encoding", "host", "transfer-encoding"}
READS = {"GET", "HEAD"}


@dataclass(frozen=True, slots=True)
class Write:
    """A write of the operator's: what it asked for, and what the server answered."""

    method: str
    path: str
    body: Body
    status: int
    answer: Body = field(repr=False)

    @property
    def landed(self) -> bool:
        """Whether the server took it."""
        return self.status < HTTPStatus.BAD_REQUEST

    @property
    def decided_on(self) -> str:
        """The resourceVersion that it is for; empty where it names none."""
        return str(self.body.get("metadata", {}).get("resourceVersion", ""))


@dataclass(frozen=True, slots=True)
class Upstream:
    """The real server, and the connections to it that all proxies share."""

    access: Access
    session: aiohttp.ClientSession


@asynccontextmanager
async def upstream(kubeconfig: str) -> AsyncIterator[Upstream]:
    """The server of a kubeconfig."""
    access = await load_access(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(access.tls), limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=timeout
    ) as session:
        yield Upstream(access, session)


class ApiProxy:
    """Passes on what the operator asks; a context manager.

    `followed` is the name of the object whose writes and watch events are counted.
    """

    def __init__(self, server: Upstream, followed: str) -> None:
        self._server, self._followed = server, followed
        self.writes: list[Write] = []
        self.events: list[str] = []
        """The followed object's, by type, as the server sent them to any watch."""
        self.strike: Strike | None = None
        """At a write; where it is named "list", at a list instead."""
        self.lose = 0
        """The number, from 1, of the followed object's event that no watch gets to see."""
        self.struck = asyncio.Event()
        self._asked: Counter[str] = Counter()
        self._past = ""
        self._thawed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._runner, host = await serve(self._pass, handler_cancellation=True)
        self.url = f"http://{host}"
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.thaw()
        await self._runner.cleanup()

    def kubeconfig(self) -> str:
        """A kubeconfig that leads through the proxy; the proxy adds who asks."""
        return kubeconfig_of(self.url)

    def strike_at_list(self, act: Callable[[], None]) -> None:
        """Strike at the answer to the next list."""
        self.struck.clear()
        self.strike = Strike(self._asked["list"] + 1, before=False, act=act, name="list")

    def freeze(self, version: str) -> None:
        """Show lists as they were at this resourceVersion, and no event, until `thaw`."""
        self._past = version
        self._thawed.clear()

    def thaw(self) -> None:
        """Catch up: lists are new ones, and watches tell all that they held back."""
        self._past = ""
        self._thawed.set()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        strike, writes = self._strikes(request), self._writes(request)
        if strike is not None and strike.before:
            return self._hit(request, strike)
        status, headers, content = await self._send(request)
        if writes:
            asked = json.loads(await request.read() or b"{}")
            answer = json.loads(content)
            self.writes.append(Write(request.method, request.path, asked, status, answer))
        if strike is not None:
            return self._hit(request, strike)
        return web.Response(status=status, headers=headers, body=content)

    def _writes(self, request: web.Request) -> bool:
        return request.method not in READS and self._followed in request.path.split("/")

    def _strikes(self, request: web.Request) -> Strike | None:
        """The strike, where it is at this request, which is counted here."""
        kind = "" if self._writes(request) else "list" if lists(request) else "other"
        self._asked[kind] += 1
        strike = self.strike
        struck = strike is not None and (kind, self._asked[kind]) == (strike.name, strike.number)
        return strike if struck else None

    def _hit(self, request: web.Request, strike: Strike) -> web.Response:
        """Nothing is answered any more: whoever asked is dead."""
        strike.act()
        self.struck.set()
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _send(self, request: web.Request) -> tuple[int, Mapping[str, str], bytes]:
        query = dict(request.query)
        if self._past and lists(request) and "continue" not in query:
            query |= {"resourceVersion": self._past, "resourceVersionMatch": "Exact"}
        async with self._server.session.request(
            request.method,
            self._server.access.server + request.path,
            params=query,
            headers=await self._headers(request),
            data=await request.read() or None,
        ) as answer:
            return answer.status, passed_on(answer.headers), await answer.read()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """The watch, line by line. A frozen one is asked for only once all is thawed."""
        if self._past:
            await self._thawed.wait()
        async with self._server.session.get(
            self._server.access.server + request.path_qs, headers=await self._headers(request)
        ) as source:
            answer = web.StreamResponse(status=source.status, headers=passed_on(source.headers))
            await answer.prepare(request)
            # Who watched may have been killed.
            with contextlib.suppress(ConnectionError):
                await self._tell(source, answer)
            return answer

    async def _tell(self, source: aiohttp.ClientResponse, answer: web.StreamResponse) -> None:
        """Events, line by line."""
        rest = b""
        async for chunk in source.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not self._loses(line):
                    await answer.write(line + b"\n")
        await answer.write_eof(rest)

    def _loses(self, line: bytes) -> bool:
        """Whether this event is the one to be lost."""
        event = json.loads(line)
        if event.get("object", {}).get("metadata", {}).get("name") != self._followed:
            return False
        self.events.append(event["type"])
        return len(self.events) == self.lose

    async def _headers(self, request: web.Request) -> dict[str, str]:
        return {
            **passed_on(request.headers),
            "Authorization": await self._server.access.authorization(),
        }


def lists(request: web.Request) -> bool:
    """Whether it lists one of our kinds: both readers ask for lists in pages."""
    return request.method == "GET" and "limit" in request.query and f"/{GROUP}/" in request.path


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """What is not meant for the next hop alone."""
    return {name: value for name, value in headers.items() if name.lower() not in HOP}
