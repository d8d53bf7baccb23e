"""A gate before a web server or a registry: the request that is to be held waits before it."""

import asyncio
import contextlib
import io
import re
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from tests.faults.apiproxy import passed_on
from tests.support.serving import serve


class Gate:
    """Passes everything on to `target` (host:port, plain http); a context manager.

    The first request whose method and path match `shut`, such as "PUT .*/manifests/2", is held:
    `reached` is set then, and it goes on after `open`.
    """

    def __init__(self, target: str, shut: str) -> None:
        self._target, self._shut = target, re.compile(shut)
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner, self.host = await serve(self._pass)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.open()
        await self._runner.cleanup()
        await self._session.close()

    def open(self) -> None:
        """Let everything through, what is held too."""
        self._opened.set()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if self._shut.fullmatch(f"{request.method} {request.path}"):
            self.reached.set()
            await self._opened.wait()
        # A registry says where an upload goes on, by the name that it was asked by.
        headers = {**passed_on(request.headers), "Host": request.host}
        async with self._session.request(
            request.method,
            f"http://{self._target}{request.path_qs}",
            headers=headers,
            data=io.BytesIO(await request.read()) if request.can_read_body else None,
            allow_redirects=False,
        ) as source:
            content = await source.read()
            told = {**passed_on(source.headers), "Content-Length": str(len(content))}
            if request.method == "HEAD":
                told["Content-Length"] = source.headers.get("Content-Length", "0")
            answer = web.StreamResponse(status=source.status, headers=told)
            with contextlib.suppress(ConnectionError):
                await answer.prepare(request)
                await answer.write_eof(content)
            return answer
