"""A proxy before the API server that can break what goes through it: watches most of all."""

import asyncio
import contextlib
import json
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from imagewright.kube.access import load_access

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


class ApiProxy:
    """Passes everything on to the server of a kubeconfig; plain http on its own side."""

    def __init__(self, kubeconfig: str) -> None:
        self._kubeconfig = kubeconfig
        self._watches: set[web.StreamResponse] = set()
        self._opened = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._access = await load_access(self._kubeconfig)
        connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(self._access.tls), limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
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
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                "users": [{"name": "u", "user": {"token": "replaced"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )

    async def break_watches(self) -> None:
        """Put an error event into every open watch, and end it. At least one must be open."""
        await self._opened.wait()
        self._opened.clear()
        for watch in tuple(self._watches):
            # The reader of one may have been ended by the error in another.
            with contextlib.suppress(ConnectionError):
                await watch.write(json.dumps(ERROR).encode() + b"\n")

    async def _pass(self, request: web.Request) -> web.StreamResponse:
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
                self._watches.add(answer)
                self._opened.set()
            try:
                async for chunk in upstream.content.iter_any():
                    await answer.write(chunk)
            finally:
                self._watches.discard(answer)
            await answer.write_eof()
            return answer
