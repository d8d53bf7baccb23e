"""A proxy before the API server that can break what goes through it: watches most of all."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from imagewright.kube.access import load_access
from tests.support.serving import kubeconfig_of, runner_of

LONGEST_LINE = 4 << 20
HOP = {"connection", "content-length", "content-encoding", "host", "transfer-encoding"}
ERROR = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "InternalError",
        "message": "injected",
        "code": 500,
    },
}


Rule = Callable[[web.Request], web.Response | None]
"""An answer that is given instead of the server's, where there is one."""
Lines = Callable[[bytes], Iterable[bytes]]
"""What is told instead of a line of a watch: as many lines as it returns."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and its answer; `at` is the moment of the monotonic clock when it came."""

    at: float
    method: str
    path: str
    status: int


class ApiProxy:
    """Passes everything on to the server of a kubeconfig; plain http on its own side.

    `rule` may answer by itself, what is `ignored` has no answer ever, `lines` may tell a watch
    something else; all may be set at any time. `asked` is all that was asked and answered so far.
    """

    def __init__(self, kubeconfig: str) -> None:
        self._kubeconfig = kubeconfig
        self._watches: dict[web.StreamResponse, aiohttp.ClientResponse] = {}
        self._opened = asyncio.Event()
        self.rule: Rule = lambda _: None
        self.ignored: Callable[[web.Request], bool] = lambda _: False
        self.lines: Lines = lambda line: [line]
        self.asked: list[Asked] = []

    async def __aenter__(self) -> Self:
        self._access = await load_access(self._kubeconfig)
        connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(self._access.tls), limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, read_bufsize=LONGEST_LINE
        )
        self._runner = await runner_of(self._pass)
        self._port = 0
        await self.mend()
        self._port = int(self._runner.addresses[0][1])
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        await self._session.close()
        await self._runner.cleanup()

    def kubeconfig(self) -> str:
        """A kubeconfig that leads through the proxy; the proxy adds who asks."""
        return kubeconfig_of(self.url)

    async def cut(self) -> None:
        """Nobody listens, and whoever was connected is not any more."""
        await self._site.stop()
        for connection in self._runner.server.connections if self._runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()

    async def mend(self) -> None:
        """Serve, at the old address."""
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()

    def close_watches(self) -> None:
        """End every open watch, as a server does that wants to."""
        for upstream in self._watches.values():
            upstream.close()

    async def tell_watches(self, line: bytes) -> None:
        """Put a line into every open watch. At least one must be open, or be opened soon."""
        await self._opened.wait()
        for watch in tuple(self._watches):
            # The reader of one may have been ended by the line in another.
            with contextlib.suppress(ConnectionError):
                await watch.write(line)

    async def break_watches(self) -> None:
        """Put an error event into every open watch, and end it. At least one must be open."""
        await self.tell_watches(json.dumps(ERROR).encode() + b"\n")
        self._opened.clear()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        if self.ignored(request):
            await asyncio.Event().wait()
        answer = self.rule(request) or await self._forward(request)
        self.asked.append(Asked(began, request.method, request.path, answer.status))
        return answer

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in HOP
        }
        headers["Authorization"] = await self._access.authorization()
        async with self._session.request(
            request.method,
            self._access.server + request.path_qs,
            headers=headers,
            data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as upstream:
            answer = web.StreamResponse(
                status=upstream.status,
                headers={
                    name: value
                    for name, value in upstream.headers.items()
                    if name.lower() not in HOP
                },
            )
            await answer.prepare(request)
            watching = "watch" in request.query
            if watching:
                self._watches[answer] = upstream
                self._opened.set()
            try:
                async for chunk in upstream.content if watching else upstream.content.iter_any():
                    for told in self.lines(chunk) if watching else (chunk,):
                        await answer.write(told)
            except aiohttp.ClientError:
                if not watching:
                    raise
            finally:
                self._watches.pop(answer, None)
            await answer.write_eof()
            return answer
